/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SCENARIO_SCENARIO_H
#define TESTS_SCENARIO_SCENARIO_H

#include "tests/sim/node.h"
#include "tests/sim/zone.h"

/*
 * One scenario being played: the world, the parties that the file speaks for, and what was said so
 * far. Statements return false after scenario_fail() has said why.
 */
#define SCENARIO_PARTY_MAX  256u
#define SCENARIO_HOP_MAX    64u
#define SCENARIO_NAME_MAX   32u
#define SCENARIO_RECORD_MAX 4096u
#define SCENARIO_TEXT_MAX   65536u

struct scenario_text { /* grows on the heap; NUL-terminated */
    char *data;
    size_t size, capacity;
};

struct scenario_party { /* a connection that the file speaks for */
    char name[SCENARIO_NAME_MAX];
    struct flow flow;
    struct scenario_text received;
    size_t read; /* octets of `received` that were matched */
    bool is_connected, is_closed, is_reset, is_failed, is_ours_closed, is_paused;
};

struct scenario_hop {
    char name[SCENARIO_NAME_MAX];
    struct flow_address address;
    struct flow listener; /* none while it is down */
    bool has_connection;  /* something waits to be accepted */
};

#define SCENARIO_STANDING_MAX 4u
struct scenario {
    const char *file;
    uint32_t line;
    char goal[256];
    struct scenario_text config_lines, dialogue, why;
    uint32_t shard_count;
    bool has_begun, has_failed;

    struct net_sim *net;
    struct disk_sim *disk;
    struct config *config;
    struct node *node; /* NULL between crash and restart */
    struct zone *zone;
    struct buf_pool *pool;
    struct flow_plane *plane; /* of all parties */
    struct rng rng;
    uint64_t lives;
    tick_us patience;
    uint32_t ttl;

    struct scenario_party parties[SCENARIO_PARTY_MAX];
    uint32_t party_count;
    struct scenario_hop hops[SCENARIO_HOP_MAX];
    uint32_t hop_count;
    struct record *records;
    uint32_t record_count;
    uint32_t record_next[8]; /* per kind: first that no statement has matched yet */
    struct {
        bool is_holding, is_losing, is_behind;
        uint64_t kept; /* while it loses */
        wall_us since; /* when that began; INT64_MAX: all are kept */
    } sink;
    struct qmgr_standing standing[SCENARIO_STANDING_MAX];
    uint32_t standing_count;
};

/* scenario_world.c */
void scenario_init(struct scenario *scenario, const char *file);
/** Frees everything; the relay, if it lives, is killed. */
void scenario_fini(struct scenario *scenario);
/** The world as configured, the relay started. No effect when it has begun. */
bool scenario_begin(struct scenario *scenario);
bool scenario_crash(struct scenario *scenario, enum node_end end);
bool scenario_restart(struct scenario *scenario);
/** Let the world turn until `is_met`, at most for `time`; returns whether it was met. NULL: just
 * let the time pass. */
bool scenario_run(struct scenario *scenario, tick_us time,
                  bool (*is_met)(const struct scenario *scenario, const void *argument),
                  const void *argument);

/* scenario_text.c */
__attribute__((format(printf, 2, 3))) void scenario_text_add(struct scenario_text *text,
                                                             const char *format, ...);
/** `pattern` with every `%n` replaced by the number. */
void scenario_text_number(struct scenario_text *text, const char *pattern, uint32_t number);
void scenario_text_append(struct scenario_text *text, const void *octets, size_t size);
/** False, having noted why. */
__attribute__((format(printf, 2, 3))) bool scenario_fail(struct scenario *scenario,
                                                         const char *format, ...);
/** A line of the dialogue, with the time. */
__attribute__((format(printf, 2, 3))) void scenario_note(struct scenario *scenario,
                                                         const char *format, ...);
/** `*` stands for any octets. */
bool scenario_matches(const char *pattern, const char *text);
/** Octets with escapes resolved; false at an unknown escape. */
bool scenario_unescape(const char *text, struct scenario_text *ret_octets);
/** Printable form of octets, escapes for the rest. */
void scenario_escape(const char *octets, size_t size, struct scenario_text *ret_text);
/** "5m", "200ms"; false when it is none. */
bool scenario_parse_time(const char *text, tick_us *ret_time);

/* scenario_party.c */
/** Receive and send on all connections of the parties. */
void scenario_parties_turn(struct scenario *scenario);
bool scenario_connect(struct scenario *scenario, const char *argument);
bool scenario_hop(struct scenario *scenario, const char *argument);
/** NAME> NAME< NAME closed ...; `name_size` octets of `line` are the name. */
bool scenario_party_statement(struct scenario *scenario, const char *line, size_t name_size);

/* scenario_expect.c */
bool scenario_expect(struct scenario *scenario, const char *argument);
bool scenario_record(struct scenario *scenario, const char *argument);
void scenario_record_emit(void *context, const struct record *record);
/** How the sink of records is from now on. */
bool scenario_sink(struct scenario *scenario, const char *argument);
struct record_sink scenario_sink_get(struct scenario *scenario);
/** A counter by name; false when there is none of that name. */
bool scenario_counter(const struct scenario *scenario, const char *name, uint64_t *ret_value);

/* scenario_operator.c */
bool scenario_list(struct scenario *scenario, const char *argument);
bool scenario_site(struct scenario *scenario, const char *argument);
bool scenario_order(struct scenario *scenario, const char *argument);
/** An order stands from now on, or ends; a restart brings back what stands. */
bool scenario_stand(struct scenario *scenario, const char *argument);
bool scenario_stand_again(struct scenario *scenario);
bool scenario_source(struct scenario *scenario, const char *argument);

#endif
