/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TRACE_H
#define RELAY_TRACE_H

#include <stdalign.h>

#include "base/tick.h"
#include "dataplane/flow.h"
#include "queue/envelope.h"

/*
 * The SMTP conversations of one shard, for operators who look on. What viewers want to see is
 * handed down by control, which also brings the two batches that lines are gathered in; a batch
 * with lines goes to control, and comes back empty (trace.c).
 */
#define TRACE_VIEWERS_MAX 4u
#define TRACE_NAME_SIZE   256u
#define TRACE_TEXT_MAX    512u /* octets of a line that are shown; RFC 5321 4.5.3.1.4 */
#define TRACE_BATCH_SIZE  65536u

enum trace_kind {
    TRACE_KIND_ADDRESS, /* the peer; outbound also the client that the message came from */
    TRACE_KIND_NAME,    /* a site, or the domain of a recipient */
    TRACE_KIND_MESSAGE
};

struct trace_filter {
    uint32_t serial; /* rises with every viewer; 0: nobody */
    enum trace_kind kind;
    bool is_only_new; /* only connections that begin after the viewer came */
    struct flow_prefix prefix;
    struct message_id id;
    char name[TRACE_NAME_SIZE];
};

enum trace_side { TRACE_INBOUND, TRACE_OUTBOUND };
enum trace_speaker { TRACE_CLIENT, TRACE_SERVER, TRACE_NOTE };

/* A line in a batch; its text follows, and the next line at a multiple of eight octets. */
struct trace_line {
    wall_us time;
    uint64_t session;
    struct message_id id; /* zero: none yet */
    struct flow_address peer;
    uint8_t side, speaker; /* enum trace_side, enum trace_speaker */
    uint8_t viewers;       /* a bit each */
    bool is_cut;
    uint16_t size;
};

struct trace_batch {
    uint32_t used;
    uint32_t serials[TRACE_VIEWERS_MAX]; /* who the bits of the lines are */
    uint64_t lost[TRACE_VIEWERS_MAX];    /* lines that found no room */
    alignas(8) uint8_t octets[TRACE_BATCH_SIZE];
};

/* What a line is about. */
struct trace_subject {
    enum trace_side side;
    uint64_t session;
    tick_us began; /* the connection */
    const struct flow_address *peer;
    const struct envelope *envelope; /* of the message in hand; NULL: none */
    struct message_id id;            /* its id; zero: none yet */
    struct span site, domain;        /* outbound: where it goes */
};

#define TRACE_STICKY_MAX 64u

/* The shard's. */
struct trace {
    uint32_t viewer_count; /* 0: nobody looks, and nothing else here is used */
    struct trace_filter filters[TRACE_VIEWERS_MAX];
    tick_us since[TRACE_VIEWERS_MAX];
    const struct tick_now *now;          /* of the turn; all but the viewers is set at the start */
    struct trace_batch *filling, *spare; /* spare: NULL while control has it */
    void *context;
    void (*send)(void *context, struct trace_batch *batch);
    /* Inbound sessions that showed themselves by a recipient or an id: seen from there on. */
    struct {
        uint64_t session;
        uint32_t viewers;
    } sticky[TRACE_STICKY_MAX];
    uint32_t sticky_next;
};

static inline bool trace_is_on(const struct trace *trace)
{
    return trace != NULL && trace->viewer_count > 0;
}

/**
 * Show to these viewers from now on. `batches` are two, the same at every call, and stay usable as
 * long as the trace is.
 *
 * Threading:  the shard's.
 */
void trace_set(struct trace *trace, const struct trace_filter filters[TRACE_VIEWERS_MAX],
               struct trace_batch *batches);
/** A batch that send() got is empty again. */
void trace_return(struct trace *trace, struct trace_batch *batch);
/** End of a turn: what there is goes out, if the last batch is back. */
void trace_flush(struct trace *trace);

/** Who wants to see lines of this; 0: nobody. */
uint32_t trace_match(struct trace *trace, const struct trace_subject *subject);
/** One line, or several with their ends. `is_secret`: they are part of a login. Only when
 * trace_match() gave viewers. */
void trace_commands(struct trace *trace, const struct trace_subject *subject, uint32_t viewers,
                    struct span octets, bool is_secret);
void trace_replies(struct trace *trace, const struct trace_subject *subject, uint32_t viewers,
                   struct span octets);
/** Something that is no line of the conversation. */
void trace_note(struct trace *trace, const struct trace_subject *subject, uint32_t viewers,
                const char *format, ...) __attribute__((format(printf, 4, 5)));

/** The next line of a batch at `*offset`, which moves on; its text. NULL at the end. */
const struct trace_line *trace_batch_next(const struct trace_batch *batch, uint32_t *offset,
                                          struct span *ret_text);

#endif
