/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_BRAKE_H
#define RELAY_BRAKE_H

#include "relay/kept_count.h"
#include "relay/settings.h"

/*
 * What one client network may do to one listener of this shard: connections at a time, and in a
 * minute connections, messages, recipients, refused recipients, errors. See brake.c.
 */
#define BRAKE_KINDS                                                                                \
    X(CONNECTIONS, connection_max)             /* at a time */                                     \
    X(CONNECTION_RATE, connections_per_minute) /* from here on in a minute */                      \
    X(MESSAGES, messages_per_minute)                                                               \
    X(RECIPIENTS, recipients_per_minute)                                                           \
    X(REFUSED, refused_per_minute) /* recipients */                                                \
    X(ERRORS, errors_per_minute)

enum brake_kind {
#define X(name, field) BRAKE_##name,
    BRAKE_KINDS
#undef X
        BRAKE_KIND_COUNT
};

struct brake;
struct brake_client;

struct brake_stats {
    uint64_t connections, connection_rate, messages, recipients, refused, errors; /* said no */
    uint64_t forgotten; /* networks whose counts were given up for others */
    uint64_t untracked; /* connections that were counted nowhere: all places are in use */
    uint32_t networks;  /* known now */
};

/** Heap; start-up. */
struct brake *brake_new(uint64_t seed);
void brake_free(struct brake *brake);
/** The time of what is counted from now on. */
void brake_set_time(struct brake *brake, tick_us now);

/**
 * A client connects to a listener. ERR_REFUSED: it may not; *ret_is_first: the first time in this
 * minute that this network hears so. With ERR_OK *ret_client is what it is counted by until
 * brake_disconnect(), NULL when it is not braked.
 */
enum err brake_connect(struct brake *brake, const struct settings_listener *listener,
                       const struct flow_address *peer, bool is_relay_client,
                       struct brake_client **ret_client, bool *ret_is_first) MUST_CHECK;
void brake_disconnect(struct brake *brake, struct brake_client *client);

/**
 * Count one of a kind, unless the minute's share is used up: then false, and *ret_is_first as
 * above. `client` may be NULL: always true.
 */
bool brake_take(struct brake *brake, struct brake_client *client,
                const struct settings_listener *listener, enum brake_kind kind, bool *ret_is_first);

/** The network that a client is counted in; no octet of it is padding. */
struct flow_address brake_network_of(const struct flow_address *peer,
                                     const struct settings_brakes *limits);

struct brake_stats brake_get_stats(const struct brake *brake);

/* ---- over a restart ---- */

#define BRAKE_KEPT_CELLS 6u                                    /* rows of one window, at most */
#define BRAKE_KEPT_MAX   (BRAKE_KIND_COUNT * BRAKE_KEPT_CELLS) /* of one network */

/** Rows of some networks, those that were refused lately first. `*cursor` is 0 at first and
 * UINT64_MAX at the end. CHECKs row_max >= BRAKE_KEPT_MAX. */
uint32_t brake_keep_next(struct brake *brake, const struct kept_wish *wish, uint64_t *cursor,
                         struct tick_now now, struct kept_count *rows, uint32_t row_max);
/** Another process goes on with what was counted so far: what is counted from now on is kept apart
 * from it, until it is false again. */
void brake_keep_part(struct brake *brake, bool is_parted, tick_us now);
/** What rows for this shard say, beside what was counted here. Senseless ones are passed over. */
void brake_keep_restore(struct brake *brake, uint32_t shard, uint32_t shard_count,
                        const struct kept_count *rows, uint32_t count, struct tick_now now);

#endif
