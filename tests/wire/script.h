/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WIRE_SCRIPT_H
#define TESTS_WIRE_SCRIPT_H

#include "tests/wire/world.h"

/*
 * One packet script being played (tests/scenario/tcp/README.md has the language). Statements return
 * false after script_fail() has said why.
 */
#define SCRIPT_PEER_MAX     64u
#define SCRIPT_LISTENER_MAX 8u
#define SCRIPT_NAME_MAX     16u
#define SCRIPT_LINE_MAX     1024u

struct script_text { /* grows on the heap; NUL-terminated */
    char *data;
    size_t size, capacity;
};

struct script_peer { /* one remote endpoint, and our connection with it */
    char name[SCRIPT_NAME_MAX];
    struct flow_address remote, local;
    bool has_local;               /* false: learnt from the SYN that comes */
    uint32_t isn, iss;            /* theirs (the script's), the stack's */
    bool has_iss, is_established; /* iss is known; both SYNs were seen */
    int64_t next, seen; /* relative: end of what the script sent; of what the stack sent */
    uint16_t window;    /* last one the script sent */
    bool offered_timestamps, has_timestamps;
    uint32_t timestamp_base, timestamp_last; /* the stack's: first, latest */
    bool has_timestamp_base;
    struct world_frame *first, *last; /* what the stack sent it and nobody expected yet */
    struct flow flow;
    bool has_flow, is_datagram, is_gone;
    uint32_t events; /* all that were ever reported */
    uint64_t written, read;
    struct buf_queue taken;
};

struct script {
    const char *file;
    uint32_t line;
    char goal[256];
    struct script_text dialogue, why;
    bool has_failed;
    int64_t variables[2]; /* $i, $j: the rounds of `repeat` */

    struct world_options options;
    struct world *world; /* NULL until something happens */
    tick_us clock;       /* when the last statement took place */
    tick_us from, until; /* of this statement: its time, or the range in which it may be met */

    struct script_peer peers[SCRIPT_PEER_MAX];
    uint32_t peer_count;
    struct script_listener {
        struct flow flow;
        uint16_t port;
        uint8_t family;
    } listeners[SCRIPT_LISTENER_MAX];
    uint32_t listener_count;
    struct world_frame *others_first, *others_last; /* for nobody the script named */
};

/* script_text.c */
__attribute__((format(printf, 2, 3))) void script_text_add(struct script_text *text,
                                                           const char *format, ...);
/** False, having noted why (the first reason counts). */
__attribute__((format(printf, 2, 3))) bool script_fail(struct script *script, const char *format,
                                                       ...);
/** A line of the dialogue, with the time. */
__attribute__((format(printf, 2, 3))) void script_note(struct script *script, const char *format,
                                                       ...);
__attribute__((format(printf, 3, 4))) void script_note_at(struct script *script, tick_us time,
                                                          const char *format, ...);
/** $i, $j and $(EXPRESSION) replaced. */
bool script_substitute(struct script *script, const char *line, char ret_line[SCRIPT_LINE_MAX]);
/** The next word, cut off; false at the end. Words end at a space; <...> is one word. */
bool script_word(const char **at, char ret_word[SCRIPT_LINE_MAX]);
/** The next word, if it is this one. */
bool script_take(const char **at, const char *word);
/** The next word as a number (decimal, 0x..., or negative). */
bool script_number(const char **at, int64_t *ret_number);
bool script_is_number(const char *word, int64_t *ret_number);
/** "200ms", "1.5s", "2m". */
bool script_parse_time(const char *word, tick_us *ret_time);
/** "N", or "N..M". */
bool script_range(const char **at, int64_t *ret_from, int64_t *ret_to);
/** Pairs of hex digits, up to `max` octets. */
bool script_hex(const char *word, uint8_t *ret_octets, uint32_t max, uint32_t *ret_size);
/** "192.0.2.2:25", "[2001:db8::2]:25", or without port (0). */
bool script_address(const char *word, struct flow_address *ret_address);
bool script_mac(const char *word, uint8_t ret_mac[6]);
/** == != < <= > >= */
bool script_compare(const char **at, uint64_t value, bool *ret_holds);

/* script_setup.c: statements before anything happens */
bool script_policy(struct script *script, const char *argument);
bool script_option(struct script *script, const char *argument);
bool script_nic(struct script *script, const char *argument);
bool script_world_address(struct script *script, const char *argument);
bool script_gateway(struct script *script, const char *argument);

/* script_segment.c: NAME < and NAME > with TCP */
struct script_peer *script_peer_find(struct script *script, const char *name);
struct script_peer *script_peer_new(struct script *script, const char *name,
                                    const struct flow_address *remote);
bool script_peer(struct script *script, const char *argument);
bool script_inject(struct script *script, struct script_peer *peer, const char *text);
bool script_expect(struct script *script, struct script_peer *peer, const char *text);
/** `> data A:B`: any number of segments that carry these octets in order. */
bool script_expect_data(struct script *script, struct script_peer *peer, const char *text);
/** Sorts what the stack has sent to the peers it is for. */
bool script_collect(struct script *script);
/** The next frame for the peer (NULL: for nobody named), within the statement's time; the caller
 * frees it. NULL after a failure. */
struct world_frame *script_await(struct script *script, struct script_peer *peer,
                                 const char *expected);
/** Nothing is sent until then. */
bool script_quiet(struct script *script, const char *argument);
/** `others FLAGS OP N`: how many segments went to nobody named; they are forgotten then. */
bool script_others(struct script *script, const char *argument);

/* script_format.c: a segment as text */
void script_format_segment(const struct script_peer *peer, const struct test_segment *segment,
                           bool is_sent, struct script_text *ret_text);
bool script_parse_flags(const char *word, uint8_t *ret_flags);

/* script_host.c: packets that are not TCP */
bool script_host_inject(struct script *script, const char *text);
bool script_host_expect(struct script *script, const char *text);
bool script_udp_inject(struct script *script, struct script_peer *peer, const char *text);
bool script_udp_expect(struct script *script, struct script_peer *peer, const char *text);

/* script_flow.c: what the application does and sees */
bool script_listen(struct script *script, const char *argument);
bool script_flow_statement(struct script *script, struct script_peer *peer, const char *text);
void script_on_event(void *context, const struct flow_event *event);
/** The listener for a local address, on any address when there is none yet. */
struct flow *script_listener(struct script *script, const struct flow_address *local,
                             uint32_t limit);

/* script_look.c: what it may see inside */
bool script_state(struct script *script, struct script_peer *peer, const char *argument);
/** A number of the flow's row: NAME OP VALUE. */
bool script_field(struct script *script, struct script_peer *peer, const char *name,
                  const char *argument);
bool script_counter(struct script *script, const char *argument);
bool script_usage(struct script *script, const char *argument);

/* script_open.c: a connection in one line */
bool script_open(struct script *script, struct script_peer *peer, const char *argument);

/* run_packet.c */
#define SCRIPT_TOLERANCE TICK_MS(2) /* the wheel's millisecond, and rounding */
/** The world exists from here on. */
bool script_begin(struct script *script);
/** Let time pass up to the statement's. */
bool script_wait(struct script *script);

#endif
