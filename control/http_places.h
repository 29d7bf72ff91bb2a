/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_HTTP_PLACES_H
#define CONTROL_HTTP_PLACES_H

#include <stdbool.h>
#include <stdint.h>

#include "control/http_access.h"

/*
 * What there is only so much of over HTTP: connections, questions to the relay, and streams.
 * Viewers cannot take all of any, who shows no token cannot keep others out, and who is slow is
 * sent away.
 *
 * Bounds: the constants below. The control socket has more places than questions and streams
 * together may take (admin_internal.h), so that the command line has some whatever comes by HTTP.
 */
#define HTTP_CLIENT_MAX       64u /* connections of each of two listeners, of which */
#define HTTP_CLIENT_SPARE     8u  /* are kept free: strangers who have one for longest leave */
#define HTTP_QUESTION_MAX     6u  /* with the relay at a time, */
#define HTTP_QUESTION_VIEWERS 4u  /* and of these, viewers' */
#define HTTP_STREAM_MAX       4u  /* the same of streams */
#define HTTP_STREAM_VIEWERS   2u
#define HTTP_WORK_MAX         2u /* verbs that are done here, and may take a second or more */
#define HTTP_BLOCK            16384u

/* How long there is patience, in milliseconds. */
struct http_patience {
    uint32_t question; /* of who waits for a place */
    uint32_t stranger; /* until a request is whole: of who has shown no token, */
    uint32_t request;  /* of others, from the last answer on */
    uint32_t take;     /* until a client has taken HTTP_BLOCK octets of an answer */
};
extern const struct http_patience http_patience_usual;

struct http_places;
struct http_seat; /* of a connection */

/** Heap; starts a thread. NULL: there is none, or no memory. */
struct http_places *http_places_new(const struct http_patience *patience);
/** After the last connection has left. NULL is legal. */
void http_places_free(struct http_places *places);

/** A connection has come, to listener 0 or 1. NULL: it is one too many. */
struct http_seat *http_seat_take(struct http_places *places, int fd, uint32_t listener);
/** It is about to be closed: the descriptor is still its own. NULL is legal. */
void http_seat_leave(struct http_places *places, struct http_seat *seat);
/** Its request is whole: the client need do nothing until there is an answer. */
void http_seat_asked(struct http_places *places, struct http_seat *seat, enum http_role role);
/** Octets were given to the client, who has to take them; false: it did, and waits for more. */
void http_seat_given(struct http_places *places, struct http_seat *seat, bool is_given);
/** Has the client closed its end? */
bool http_seat_is_left(struct http_places *places, const struct http_seat *seat);
/** The answer is over: the next request may come. */
void http_seat_answered(struct http_places *places, struct http_seat *seat);

/** A place for a question, waited for. False: there is none. */
bool http_question_begin(struct http_places *places, enum http_role role);
void http_question_end(struct http_places *places, enum http_role role);
/** A place for work that is done here, waited for as for a question: an admin's. */
bool http_work_begin(struct http_places *places);
void http_work_end(struct http_places *places);
/** A place for a stream. False: there is none now. */
bool http_stream_begin(struct http_places *places, enum http_role role);
/** It comes over `control`, which is shut down when the client has left. */
void http_stream_follow(struct http_places *places, struct http_seat *seat, int control);
/** Before `control` is closed; `seat` is NULL when it was not followed. */
void http_stream_end(struct http_places *places, struct http_seat *seat, enum http_role role);

#endif
