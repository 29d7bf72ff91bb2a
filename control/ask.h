/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ASK_H
#define CONTROL_ASK_H

#include <jansson.h>
#include <stdbool.h>

/*
 * Asking a running relay over its control socket (admin.h): one connection for each question. What
 * these block on is bounded by ASK_TIME_S for each read and write, so they are for threads and
 * programs that carry no mail.
 */
#define ASK_TIME_S          40
#define ASK_ANSWER_SIZE_MAX (64u << 20)

/** A connected descriptor, the caller's to close; -1 with errno. */
int ask_connect(const char *path);
/** The question, a line. False with errno. */
bool ask_send(int fd, const json_t *request);
/** Everything until the relay closes, as one object, the caller's. NULL with errno: EPROTO when it
 * closed without an answer. */
json_t *ask_receive(int fd);

#endif
