/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a PROGRESS will say of recipients: settles are gathered while a delivery is worked on, and
 * written as one record. Replies that do not fit the record are left out of it, never the settle.
 *
 * Where the spool has room only for what ends mail, nothing is written of attempts that have ended
 * nothing, nor of failures that nobody has been told of: they are known here, and after a restart
 * they would only come to pass once more. The notification that tells of them has what their
 * records need, should these be lost (qmgr_options.keeps_ends).
 */
#include "queue/qmgr_state.h"

/* What a PROGRESS needs besides replies of settles: the header with its last reply, and each. */
#define PROGRESS_FIXED_SIZE_MAX 2048u
#define SETTLE_SIZE_MAX         16u

struct qmgr_settling qmgr_settling_begin(struct qmgr *qmgr, uint32_t count_max)
{
    arena_reset(&qmgr->scratch);
    struct qmgr_settling settling = {
        .count_max = count_max,
        .reply_room = ENVELOPE_SIZE_MAX - PROGRESS_FIXED_SIZE_MAX - count_max * SETTLE_SIZE_MAX,
    };
    settling.settles = arena_acquire(&qmgr->scratch, count_max * sizeof(*settling.settles));
    settling.wishes = arena_acquire(&qmgr->scratch, count_max * sizeof(*settling.wishes));
    CHECK(settling.settles != NULL && settling.wishes != NULL); /* far below the arena's bound */
    return settling;
}

static struct span settling_reply(struct qmgr *qmgr, struct qmgr_settling *settling,
                                  struct span text)
{
    uint8_t octets[ENVELOPE_REPLY_SIZE_MAX];
    uint32_t size = qmgr_text_copy(text, octets);

    if (size > settling->reply_room)
        return (struct span){0};
    settling->reply_room -= size;
    return arena_copy(&qmgr->scratch, span_of(octets, size));
}

void qmgr_settling_add(struct qmgr *qmgr, struct qmgr_settling *settling,
                       const struct envelope_recipient *recipient,
                       const struct qmgr_failure *failure)
{
    CHECK(settling->count + settling->wish_count < settling->count_max);
    struct envelope_settle *settle = &settling->settles[settling->count++];
    *settle = (struct envelope_settle){
        .recipient_index = failure->recipient_index,
        .state = recipient->state,
        .code = failure->code,
        .is_expired = failure->is_expired,
    };
    memcpy(settle->enhanced, failure->enhanced, sizeof(settle->enhanced));
    if (recipient->state == RECIPIENT_FAILED || recipient->state == RECIPIENT_RELAYED)
        settle->reply = settling_reply(qmgr, settling, failure->reply);
}

void qmgr_settling_add_wish(struct qmgr *qmgr, struct qmgr_settling *settling,
                            enum recipient_state state, const struct qmgr_failure *failure)
{
    CHECK(settling->count + settling->wish_count < settling->count_max);
    struct envelope_settle *wish = &settling->wishes[settling->wish_count++];
    *wish = (struct envelope_settle){
        .recipient_index = failure->recipient_index,
        .state = state,
        .code = failure->code,
    };
    memcpy(wish->enhanced, failure->enhanced, sizeof(wish->enhanced));
    if (state == RECIPIENT_FAILED)
        wish->reply = settling_reply(qmgr, settling, failure->reply);
}

/* A delivery, or an operator's order: neither must come to pass again. */
static bool settle_is_binding(const struct envelope_settle *settle, bool is_result)
{
    if (is_result)
        return settle->state == RECIPIENT_DELIVERED || settle->state == RECIPIENT_RELAYED;
    return !settle->is_expired;
}

static bool progress_is_spared(const struct qmgr *qmgr, const struct qmgr_message *message,
                               const struct qmgr_settling *settling,
                               const struct envelope_progress *progress)
{
    if (message->storage != QMGR_STORED || settling->wish_count > 0 || progress->flags != 0 ||
        progress->hold_order > 0 || progress->route.size > 0)
        return false;
    for (uint32_t i = 0; i < settling->count; i++) {
        if (settle_is_binding(&settling->settles[i], i < settling->told_count))
            return false;
    }
    return spool_is_tight(qmgr->spool);
}

bool qmgr_progress_spare(const struct qmgr *qmgr, struct qmgr_message *message,
                         const struct qmgr_settling *settling,
                         const struct envelope_progress *progress, struct tick_now now)
{
    if (!progress_is_spared(qmgr, message, settling, progress))
        return false;
    if (qmgr->options.keeps_ends && message->work != NULL)
        message->work->spared_at = now.wall;
    return true;
}

void qmgr_progress_told(const struct qmgr_settling *settling, struct envelope_progress *progress,
                        struct tick_now now)
{
    bool is_told = settling->told_count > 0;

    for (uint32_t i = settling->told_count; i < settling->count; i++)
        is_told |= settling->settles[i].is_expired;
    if (!is_told || now.wall <= 0)
        return;
    progress->told_time = now.wall;
    progress->told_count = settling->told_count;
}

struct span qmgr_progress_make(struct qmgr *qmgr, const struct qmgr_message *message,
                               const struct qmgr_settling *settling,
                               struct envelope_progress *progress)
{
    progress->settles = settling->settles;
    progress->settle_count = settling->count;
    progress->wishes = settling->wishes;
    progress->wish_count = settling->wish_count;
    progress->dsn_runs = message->dsn_runs;
    uint32_t size = envelope_progress_encoded_size(progress);
    uint8_t *encoded = arena_acquire(&qmgr->scratch, size);
    CHECK(encoded != NULL); /* settles, replies and record are bounded: they fit the arena */
    envelope_progress_encode(progress, encoded);
    return span_of(encoded, size);
}

void qmgr_progress_write(struct qmgr *qmgr, struct qmgr_message *message,
                         const struct qmgr_settling *settling, struct envelope_progress *progress)
{
    if (message->storage != QMGR_STORED) { /* all of it at once, when it is stored */
        message->work->is_news_due = true;
        return;
    }
    spool_progress(qmgr->spool, message->entry,
                   qmgr_progress_make(qmgr, message, settling, progress));
}
