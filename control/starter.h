/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_STARTER_H
#define CONTROL_STARTER_H

#include <stdbool.h>

/*
 * Starting a successor (angariumd -u) for who asks over HTTP. The relay may run no program
 * (confine.h), so a small process that is made before it is confined does: see starter.c.
 */
#define STARTER_TEXT_SIZE 2048u
#define STARTER_NAME      "angarium-start"

enum starter_state {
    STARTER_IDLE,    /* none was asked for */
    STARTER_RUNNING, /* one is being started */
    STARTER_FAILED,  /* it could not take our place: the text says why */
    STARTER_DONE,    /* it has our place */
    STARTER_GONE     /* there is nobody who could start one */
};

struct starter;

/** First thing in main(): of the process itself, which is the same program under STARTER_NAME, it
 * does not come back. */
void starter_enter(int count, char **arguments);
/**
 * Make the process. Before there are threads. What calls it must begin with starter_enter().
 *
 * Ownership: heap.
 * Errors:    NULL: none can be made.
 */
struct starter *starter_new(const char *program, const char *config_path);
/** Its process ends with ours, or here. NULL is legal, as below. */
void starter_free(struct starter *starter);

/** Ask for a successor, and wait for nothing. False: one is being started. Any thread, as below. */
bool starter_begin(struct starter *starter);
/** What became of it. */
enum starter_state starter_look(struct starter *starter, char ret_text[STARTER_TEXT_SIZE]);

#endif
