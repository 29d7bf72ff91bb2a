/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SERVER_DOVECOT_H
#define RELAY_SERVER_DOVECOT_H

#include "relay/dovecot.h"

/*
 * A shard's connection to Dovecot's authentication socket. It is made when it is first needed,
 * kept, and made anew when it was lost.
 */
struct dovecot_link;

struct dovecot_link_options {
    struct flow_plane *plane;
    uint64_t user;   /* of the flow */
    uint32_t client; /* dovecot_hello_format() */
    void *context;
    /* The verdict on a request; AUTH_ACCEPTED: `text` is who that is; AUTH_CHALLENGED: what the
     * client is to be told, in base64. */
    void (*tell)(void *context, uint32_t number, enum auth_verdict verdict, struct span text,
                 struct tick_now now);
};

/** Heap; start-up. */
struct dovecot_link *dovecot_link_new(const struct dovecot_link_options *options);
/** Requests are forgotten. */
void dovecot_link_free(struct dovecot_link *link);
/**
 * Ask. A verdict follows, unless the link is let go of before: then AUTH_UNAVAILABLE does.
 *
 * Errors: ERR_LIMIT: too much waits for a connection that is not there yet; ERR_SYSTEM: there is
 *         none, and it is too early to try again.
 */
enum err dovecot_link_ask(struct dovecot_link *link, const char *path, uint32_t number,
                          const struct auth_request *request, const struct dovecot_client *client,
                          struct tick_now now) MUST_CHECK;
/** Go on with a request that was challenged, over the connection that it was made on. Errors:
 * ERR_SYSTEM: that is gone; ERR_MEMORY. */
enum err dovecot_link_continue(struct dovecot_link *link, uint32_t number,
                               const struct auth_request *request) MUST_CHECK;
/** The client has given such a request up. */
void dovecot_link_cancel(struct dovecot_link *link, uint32_t number, tick_us now);
/** Connect to a socket that was not tried yet: it is to be known what it offers. */
void dovecot_link_prepare(struct dovecot_link *link, const char *path, tick_us now);
/** Did it offer SCRAM-SHA-256 when it was connected last? */
bool dovecot_link_has_scram(const struct dovecot_link *link);
void dovecot_link_on_flow(struct dovecot_link *link, const struct flow_event *event,
                          struct tick_now now);
/** It does not answer: let go of it. The caller gives its requests up. */
void dovecot_link_drop(struct dovecot_link *link, tick_us now);
/** Lost, or dropped, since the last call: requests of before get no verdict any more. */
bool dovecot_link_was_lost(struct dovecot_link *link);

#endif
