/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_MOOD_H
#define BENCH_LOAD_MOOD_H

#include "base/rng.h"
#include "base/span.h"
#include "base/tick.h"

/* How a sink treats its guests: what it says, how late, and when it hangs up. */
enum mood_step {
    MOOD_CONNECT,
    MOOD_HELLO,
    MOOD_MAIL,
    MOOD_RCPT,
    MOOD_DATA,
    MOOD_BODY,  /* drops only: when the first octets of the text are in */
    MOOD_END,   /* the text is in: not yet taken */
    MOOD_TAKEN, /* drops only: taken, and the reply not sent */
    MOOD_OTHER, /* RSET, NOOP, QUIT, STARTTLS */
    MOOD_STEP_COUNT
};

#define MOOD_ODDS_ALL    1000000u /* odds are in millionths */
#define MOOD_OUTCOME_MAX 8u
#define MOOD_DELAY_MAX   TICK_S(3600)
#define MOOD_REPLY_MAX   256u
#define MOOD_TEXT_SIZE   400u
#define MOOD_FILE_MAX    (1u << 20)
#define MOOD_WHY_SIZE    160u

struct mood_outcome {
    uint32_t odds;
    uint16_t code; /* 0: hang up; 4, 5: any reply of the class; else three digits */
    char text[40]; /* when no reply was read for it */
};

struct mood_reply {
    enum mood_step step;
    uint16_t code;
    uint64_t weight;
    char text[MOOD_TEXT_SIZE]; /* with code and CR LF */
};

struct mood {
    struct {
        tick_us delay_min, delay_max;
        struct mood_outcome outcomes[MOOD_OUTCOME_MAX];
        uint32_t outcome_count, odds;
    } steps[MOOD_STEP_COUNT];
    struct mood_reply *replies; /* heap; NULL: none */
    uint32_t reply_count;
};

/* "rcpt:10" or "rcpt:10-20", milliseconds; "any" is every step that has a reply. */
enum err mood_delay_parse(struct mood *mood, struct span text,
                          char ret_why[MOOD_WHY_SIZE]) MUST_CHECK;
/* "rcpt:450:2.5", "end:5:1": step, code or class, percent. */
enum err mood_reject_parse(struct mood *mood, struct span text,
                           char ret_why[MOOD_WHY_SIZE]) MUST_CHECK;
/* "end:0.5": step, percent. */
enum err mood_drop_parse(struct mood *mood, struct span text,
                         char ret_why[MOOD_WHY_SIZE]) MUST_CHECK;
/* Lines "STEP CODE WEIGHT TEXT", '#' at the start of a line begins a comment. */
enum err mood_replies_parse(struct mood *mood, struct span text,
                            char ret_why[MOOD_WHY_SIZE]) MUST_CHECK;
void mood_fini(struct mood *mood);

struct mood_verdict {
    bool is_drop;
    const char *reply; /* NULL: take it; else a whole reply with CR LF, valid as long as the mood */
    tick_us delay;
};
/** What happens at this step. Draws only where there is something to draw. */
struct mood_verdict mood_draw(const struct mood *mood, enum mood_step step, struct rng *rng);

#endif
