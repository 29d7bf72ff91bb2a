/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ASK_H
#define CONTROL_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/*
 * Asking a running relay over its control socket (admin.h): one connection for each question. What
 * these block on is bounded by ASK_TIME_S for each read and write, so they are for threads and
 * programs that carry no mail.
 */
#define ASK_TIME_S          40
#define ASK_ANSWER_SIZE_MAX (64u << 20)
/* Who looks on once a second takes an answer of another that is no older ("max_age_ms"): then all
 * of them cost no more than two who ask. */
#define ASK_AGE_MS 500

/** A connected descriptor, the caller's to close; -1 with errno. */
int ask_connect(const char *path);
/** The question, a line. False with errno. */
bool ask_send(int fd, const json_t *request);
/** An answer of many lines, to be read with getline(); NULL with errno. It has the descriptor, and
 * closes it. */
FILE *ask_open(int fd);
/** Everything until the relay closes, as one object, the caller's. NULL with errno: EPROTO when it
 * closed without an answer. */
json_t *ask_receive(int fd);
/** The same, and the descriptor that came with it, the caller's to close; -1: none. */
json_t *ask_receive_with(int fd, int *ret_passed);
/** The same as it came: one object in one line, without the line's end. The caller's, to be freed;
 * not terminated. */
char *ask_receive_text(int fd, size_t *ret_size);
/** Of such a text: is it what was asked for, and no refusal? */
bool ask_is_ok(const char *text, size_t size);
/** Is it a page of metrics, and whole? An empty line ends it, of which ask_receive_text() has taken
 * the end. */
bool ask_is_page(const char *text, size_t size);
/** Is it a refusal of a relay that leaves, whose successor would do it? */
bool ask_is_again(const char *text, size_t size);

#endif
