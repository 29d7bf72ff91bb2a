/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_SOURCE_INTERNAL_H
#define BENCH_LOAD_SOURCE_INTERNAL_H

#include "bench/load/load.h"
#include "bench/load/text.h"
#include "relay/stream.h"

/* Private to the source: source.c has the loop, source_session.c a connection's dialogue,
 * source_message.c a message, source_tls.c what TLS needs. */
enum source_session_state {
    SESSION_IDLE,
    SESSION_CONNECTING,
    SESSION_BANNER,
    SESSION_HELLO,
    SESSION_STARTTLS, /* sent */
    SESSION_HANDSHAKE,
    SESSION_READY,    /* between two messages */
    SESSION_WAITING,  /* for the rate */
    SESSION_SILENT,   /* one of those that are only there */
    SESSION_ENVELOPE, /* MAIL, RCPT ..., DATA */
    SESSION_BODY,     /* end of data sent */
    SESSION_RESET,
    SESSION_QUIT,
};

enum source_offer {
    OFFER_PIPELINING = 1u << 0,
    OFFER_CHUNKING = 1u << 1,
    OFFER_STARTTLS = 1u << 2,
};

struct source_link {
    struct source_link *next, *previous;
};

struct source_session {
    struct source_link link; /* of the idle or the waiting ones */
    struct stream stream;
    enum source_session_state state;
    uint8_t offers;
    bool is_open, is_listed, is_helo, has_body;
    tick_us retry_at, since; /* since: when what is answered next was sent, or connect() began */
    tick_us intended;        /* of the message under way */
    wall_us stamp;
    uint64_t sequence;
    uint32_t sent, commands_sent, commands_left, accepted;
    uint32_t size_row;
    int failed_code;
};

/* A body that messages of one size have in common, by reference into the text. */
struct source_size {
    struct text_plan plan;
};

#define SOURCE_COPY_SESSIONS 2048u /* sessions that share one copy of the text: see source.c */

struct source {
    const struct load_options *options;
    struct flow_plane *plane;
    struct ledger *ledger;
    struct meter *meter;
    struct ssl_ctx_st *tls;
    struct ssl_session_st *tls_session;   /* the newest ticket, with is_resuming; NULL: none yet */
    const struct flow_prefix **addresses; /* ours from which the target is reached directly */
    uint32_t address_count;
    struct source_session *sessions; /* those that send, then the silent ones */
    struct source_link idle, waiting;
    struct rng rng;
    struct dist domains, sender_domains, sizes; /* picks change them */
    struct source_size *plans;                  /* one per row of sizes */
    struct buf_queue *texts;                    /* copies of the text */
    uint32_t text_count, session_count, session_started, silent_started, silent_count;
    char head[1024]; /* header fields that are the same for a second */
    uint32_t head_size;
    wall_us head_until;
    uint64_t sequence, refused;
    bool is_failed, was_ready, is_over;
    bool is_begun; /* the silent ones are there */
    struct tick_now now;
    tick_us started; /* of the messages, once is_begun */
    struct pace_spacing spacing;
    char note[96];
};

/* source.c */
bool source_has_work(const struct source *source);
/** Nothing can come of it: told once, and the end. */
void source_fail(struct source *source, const char *what, struct span detail);
/** It is there and says nothing: all that is asked of it. */
void source_session_silence(struct source *source, struct source_session *session);
/** Is it one of the silent ones? */
static inline bool source_session_is_silent(const struct source *source,
                                            const struct source_session *session)
{
    return session >= source->sessions + source->options->sessions;
}
/** Into the list of sessions that connect when their time comes: now, or after LOAD_RETRY. */
void source_session_rest(struct source *source, struct source_session *session, bool is_soon);
void source_session_wait(struct source *source, struct source_session *session);
/** May the next message be sent now? */
bool source_is_due(const struct source *source);

/* source_session.c */
void source_session_connect(struct source *source, struct source_session *session);
void source_session_on_event(struct source *source, struct source_session *session,
                             const struct flow_event *event);
void source_session_next(struct source *source, struct source_session *session);
void source_session_lost(struct source *source, struct source_session *session);
void source_session_quit(struct source *source, struct source_session *session);

/* source_tls.c */
/** False: told why. */
bool source_tls_make(struct source *source);
void source_tls_free(struct source *source);
enum err source_tls_start(struct source *source, struct stream *stream) MUST_CHECK;

/* source_message.c */
void source_message_begin(struct source *source, struct source_session *session);
/** The next of MAIL, RCPT ... and DATA, or all of them. */
void source_message_commands(struct source *source, struct source_session *session);
void source_message_body(struct source *source, struct source_session *session, bool is_empty);
bool source_texts_make(struct source *source);
void source_session_write(struct source *source, struct source_session *session,
                          struct span octets);

#endif
