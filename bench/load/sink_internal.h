/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_SINK_INTERNAL_H
#define BENCH_LOAD_SINK_INTERNAL_H

#include "base/wheel.h"
#include "bench/load/body_reader.h"
#include "bench/load/load.h"
#include "bench/load/text.h"
#include "relay/stream.h"

/* Private to the sink: sink.c has connections and timers, sink_command.c the dialogue,
 * sink_message.c what arrives. */
#define SINK_HEAD_SIZE     16384u /* of a message: looked through for X-Load */
#define SINK_REPLY_SIZE    512u
#define SINK_RECIPIENT_MAX 1000u
#define SINK_MESSAGE_MAX   104857600u /* octets, as EHLO says */

enum sink_session_state {
    SINK_FREE,
    SINK_COMMANDS,
    SINK_TEXT,      /* after 354 */
    SINK_CHUNK,     /* inside BDAT */
    SINK_HANDSHAKE, /* TLS */
};

/* What happens when a reply that was held back is out. */
enum sink_after { SINK_AFTER_NOTHING, SINK_AFTER_CLOSE, SINK_AFTER_TLS };

struct sink_session {
    struct stream stream;
    struct wheel_timer timer; /* of a reply held back */
    enum sink_session_state state;
    enum sink_after after;
    bool has_sender, is_last_chunk, is_refusing; /* refusing: the chunk is dropped */
    bool is_head;                                /* the header is not over */
    struct body_reader reader;
    uint64_t chunk_left, size;
    uint32_t recipient_count, recipients_size, recipients_capacity;
    char *recipients; /* "a@b\0c@d\0", kept when there is a ledger */
    char *head;       /* SINK_HEAD_SIZE, once there was a message */
    uint32_t head_size, checksum, body_size;
    uint8_t *kept; /* the whole message, to be written into a file */
    size_t kept_size, kept_capacity;
    char *reply; /* SINK_REPLY_SIZE, once one was held back */
    uint32_t reply_size, reply_sent;
    uint32_t next_free;
};

struct sink {
    const struct load_options *options;
    struct flow_plane *plane;
    struct ledger *ledger;
    struct meter *meter;
    struct ssl_ctx_st *tls;
    struct flow listener;
    struct sink_session *sessions;
    uint32_t session_count, free_first; /* index + 1; 0: none */
    struct wheel wheel;
    struct rng rng;
    struct tick_now now;
    tick_us started, first_mail; /* 0: none yet */
    bool is_accepting;           /* the last accept found no free session: more may wait */
    uint64_t kept_count;
    char hello[256], hello_tls[256];
};

/* sink.c */
/** The reply to a step, in the sink's mood. `reply` is what it is when all is well. False: the
 * session is gone. */
bool sink_answer(struct sink *sink, struct sink_session *session, enum mood_step step,
                 const struct mood_verdict *verdict, const char *reply);
void sink_session_end(struct sink *sink, struct sink_session *session, bool is_graceful);
/** A reply is held back: nothing is read until it is out. */
static inline bool sink_session_is_late(const struct sink_session *session)
{
    return wheel_is_armed(&session->timer);
}

/* sink_command.c */
/** Read and answer what there is. The session may be gone after it. */
void sink_session_read(struct sink *sink, struct sink_session *session);
void sink_session_greet(struct sink *sink, struct sink_session *session);

/* sink_message.c */
void sink_message_begin(struct sink *sink, struct sink_session *session);
/** Text of the message, dots taken off. */
void sink_message_feed(struct sink *sink, struct sink_session *session, struct span text);
/** It is in: judge, count, write down. False: the session is gone. */
bool sink_message_end(struct sink *sink, struct sink_session *session);
void sink_recipient_add(struct sink *sink, struct sink_session *session, struct span recipient);
void sink_transaction_reset(struct sink_session *session);

#endif
