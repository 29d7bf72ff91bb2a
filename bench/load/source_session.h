/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_SOURCE_SESSION_H
#define BENCH_LOAD_SOURCE_SESSION_H

#include "dataplane/flow.h"

enum source_session_state {
    SESSION_IDLE,
    SESSION_CONNECTING,
    SESSION_BANNER,
    SESSION_HELLO,
    SESSION_ENVELOPE, /* MAIL, RCPT ..., DATA sent */
    SESSION_BODY,     /* end of data sent */
    SESSION_RESET,
    SESSION_WAITING, /* for the rate */
    SESSION_QUIT,
};

struct source_session {
    enum source_session_state state;
    struct flow flow;
    bool is_open;
    tick_us retry_at;
    uint64_t sequence;
    uint32_t sent, replies_left;
    int failed_code;
};

#endif
