/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operators' view: what matches a filter, in slices over many turns.
 *
 * A scan takes the cheapest way that its filter allows:
 *   ONE      id=                           one look-up
 *   DOMAIN   domain=, recipient=           the deliveries of that domain
 *   SENDER   sender=, sender_domain=       the messages of that sender domain
 *   LINES    site= source= class= state= order= older= younger=   the lines, and the deliveries
 *            of those whose counts say that something may match
 *   ALL      nothing, or state=failed      every message
 * What the way does not prove is asked of each delivery. Recipients that have FAILED, or are
 * RELAYED and wait for their notice, are in no line: DOMAIN and LINES do not see them.
 *
 * A scan goes in two strides. The way finds places: messages, or deliveries, that match as far as
 * the index knows. Their envelopes are read, QMGR_SCAN_PLACES ahead, and each is told when it is
 * here: its recipients, if they match what only the envelope knows. A place whose envelope cannot
 * be read is told as one recipient without an address, unless the filter asks for one.
 *
 * Who only counts needs no envelope where the index says how many recipients match.
 *
 * Invariants
 *   1. A step looks at no more than SCAN_LOOKS places, and stops when its matches are full; where
 *      it stopped inside a message is kept by recipient. It also stops where it would have to wait
 *      for an envelope.
 *   2. What a scan looks at next lives: whoever frees a message, delivery or line moves the scans
 *      on first (qmgr_scans_skip_*()).
 *   3. A list is walked for as many steps as it was long when its walk began, so that mail that
 *      goes on arriving does not keep a scan going.
 *   4. An envelope is pinned while its place is in `places`; what was told stays until the next
 *      step, so that the caller may look at it.
 *
 * A handle is the place among `scans` and a generation: one that was given to somebody else, or
 * ended, is known as stale.
 */
#include <ctype.h>

#include "queue/qmgr_state.h"

#define SCAN_LOOKS 256u

enum qmgr_scan_plan { SCAN_ONE, SCAN_DOMAIN, SCAN_SENDER, SCAN_LINES, SCAN_ALL };

/* ---- the recipients of one place ---- */

struct scan_out {
    struct qmgr_match *matches;
    uint32_t max, count;
};

/* The delivery of a recipient that is DUE. Deliveries stand in the reverse order of their first
 * recipients, so that it is mostly the one found last or the one before that. */
static struct qmgr_delivery *delivery_of(const struct qmgr_message *message,
                                         const struct envelope *envelope,
                                         const struct envelope_recipient *recipient,
                                         struct qmgr_delivery *hint)
{
    struct qmgr_delivery *next = hint == NULL ? NULL : slab_peer(hint, hint->prev);

    if (hint != NULL && qmgr_delivery_has(hint, envelope, recipient))
        return hint;
    if (next != NULL && qmgr_delivery_has(next, envelope, recipient))
        return next;
    struct qmgr_delivery *delivery = message->deliveries;
    while (!qmgr_delivery_has(delivery, envelope, recipient))
        delivery = qmgr_delivery_next(delivery);
    return delivery;
}

/* May a recipient in this state be told? */
static bool state_is_told(const struct qmgr_scan *scan, enum recipient_state state, bool is_place)
{
    if (state == RECIPIENT_DUE || scan->is_of_all_states)
        return true;
    return !is_place && (state == RECIPIENT_FAILED || state == RECIPIENT_RELAYED);
}

static bool recipient_matches(const struct qmgr_scan *scan, const struct envelope *envelope,
                              const struct envelope_recipient *recipient,
                              const struct qmgr_delivery *only)
{
    if (!state_is_told(scan, recipient->state, only != NULL))
        return false;
    if (only != NULL && !qmgr_delivery_has(only, envelope, recipient))
        return false;
    if (qmgr_filter_has(&scan->filter, QMGR_FILTER_RECIPIENT) &&
        !span_is_equal_nocase(recipient->address, qmgr_filter_span(&scan->filter.recipient)))
        return false;
    return recipient->state == RECIPIENT_DUE ||
           qmgr_matches_failed(&scan->filter, envelope, recipient);
}

/* Was a recipient of this delivery told before the one at `from`? Its first is near `first`. */
static bool delivery_was_told(const struct qmgr_scan *scan, const struct envelope *envelope,
                              const struct qmgr_delivery *delivery, uint32_t from)
{
    for (uint32_t i = delivery->first; i < from; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        if (recipient->state == RECIPIENT_DUE &&
            recipient_matches(scan, envelope, recipient, delivery))
            return true;
    }
    return false;
}

/* Recipients of the place from `resume_from` on. True: all that match are told. */
static bool envelope_tell(struct qmgr_scan *scan, const struct qmgr_place *place,
                          struct scan_out *out)
{
    const struct envelope *envelope = qmgr_message_envelope(place->message);
    struct qmgr_delivery *delivery = place->only;
    const struct qmgr_filter *filter = &scan->filter;
    uint32_t from = scan->resume_from;

    if (qmgr_filter_has(filter, QMGR_FILTER_SENDER) &&
        !span_is_equal_nocase(envelope->sender, qmgr_filter_span(&filter->sender)))
        return true;
    if (qmgr_filter_has(filter, QMGR_FILTER_USER) &&
        !span_is_equal_nocase(envelope->user, qmgr_filter_span(&filter->user)))
        return true;
    for (uint32_t i = from; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        bool is_due = recipient->state == RECIPIENT_DUE;
        if (!recipient_matches(scan, envelope, recipient, place->only))
            continue;
        if (is_due && place->only == NULL)
            delivery = delivery_of(place->message, envelope, recipient, delivery);
        if (is_due && !qmgr_matches_delivery(filter, delivery))
            continue;
        if (out->count == out->max) {
            scan->resume_from = i;
            return false;
        }
        out->matches[out->count++] = (struct qmgr_match){
            .message = place->message,
            .delivery = is_due ? delivery : NULL,
            .recipient_index = i,
            .is_rest = is_due && from > 0 && delivery_was_told(scan, envelope, delivery, from),
            .is_whole = is_due && !qmgr_filter_has(filter, QMGR_FILTER_RECIPIENT),
        };
    }
    return true;
}

/* Of an envelope that cannot be read: each of its deliveries, by its first recipient. True: all
 * that match are told. */
static bool unreadable_tell(struct qmgr_scan *scan, const struct qmgr_place *place,
                            struct scan_out *out)
{
    const uint32_t asked = QMGR_FILTER_SENDER | QMGR_FILTER_RECIPIENT | QMGR_FILTER_USER;
    struct qmgr_delivery *delivery = place->only != NULL ? place->only : place->message->deliveries;

    if (qmgr_filter_has(&scan->filter, asked))
        return true;
    for (uint32_t i = 0; delivery != NULL; delivery = qmgr_delivery_next(delivery), i++) {
        if (i >= scan->resume_from && qmgr_matches_delivery(&scan->filter, delivery)) {
            if (out->count == out->max) {
                scan->resume_from = i;
                return false;
            }
            out->matches[out->count++] = (struct qmgr_match){.message = place->message,
                                                             .delivery = delivery,
                                                             .recipient_index = delivery->first,
                                                             .is_unreadable = true,
                                                             .is_whole = true};
        }
        if (place->only != NULL)
            break;
    }
    return true;
}

/* ---- places ---- */

static void place_pin(struct qmgr *qmgr, struct qmgr_message *message)
{
    qmgr_work_get(qmgr, message)->pins++;
    qmgr_envelope_want(qmgr, message);
}

static void place_unpin(struct qmgr *qmgr, struct qmgr_place *place)
{
    struct qmgr_message *message = place->message;

    place->message = NULL;
    if (message == NULL)
        return;
    CHECK(message->work != NULL && message->work->pins > 0);
    message->work->pins--;
    qmgr_message_review(qmgr, message);
}

/* What the index knows of a place: recipients that match. False: the envelope must be asked. */
static bool place_count(const struct qmgr_scan *scan, const struct qmgr_message *message,
                        const struct qmgr_delivery *only, uint64_t *ret_count)
{
    const uint32_t asked = QMGR_FILTER_SENDER | QMGR_FILTER_RECIPIENT | QMGR_FILTER_USER;
    uint64_t count = 0;

    if (!scan->is_count || qmgr_filter_has(&scan->filter, asked) ||
        (only == NULL && message->failed > 0))
        return false;
    const struct qmgr_delivery *delivery = only != NULL ? only : message->deliveries;
    for (; delivery != NULL; delivery = only != NULL ? NULL : qmgr_delivery_next(delivery))
        count += qmgr_matches_delivery(&scan->filter, delivery) ? delivery->due_count : 0;
    *ret_count = count;
    return true;
}

static void place_add(struct qmgr *qmgr, struct qmgr_scan *scan, struct qmgr_message *message,
                      struct qmgr_delivery *only, struct tick_now now)
{
    uint64_t count;

    if (!qmgr_matches_message(&scan->filter, message, now))
        return;
    if (place_count(scan, message, only, &count)) {
        scan->counted += count;
        return;
    }
    CHECK(scan->place_count < QMGR_SCAN_PLACES);
    scan->places[scan->place_count++] = (struct qmgr_place){message, only};
    place_pin(qmgr, message);
}

/* Those that the last step told. */
static void places_release(struct qmgr *qmgr, struct qmgr_scan *scan, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        place_unpin(qmgr, &scan->places[i]);
    scan->place_count -= count;
    scan->told_count = 0;
    memmove(scan->places, scan->places + count, scan->place_count * sizeof(scan->places[0]));
}

/* False: it must be waited for, or there is no room. */
static bool place_tell(struct qmgr_scan *scan, const struct qmgr_place *place, struct scan_out *out)
{
    const struct qmgr_message *message = place->message;
    bool is_told = true;

    if (message != NULL && qmgr_envelope_is_here(message))
        is_told = envelope_tell(scan, place, out);
    else if (message != NULL && qmgr_envelope_is_loading(message))
        return false;
    else if (message != NULL)
        is_told = unreadable_tell(scan, place, out);
    if (is_told)
        scan->resume_from = 0;
    return is_told;
}

/* ---- ways ---- */

/* Each looks at one place. False: there is none left. */

static bool step_one(struct qmgr *qmgr, struct qmgr_scan *scan, struct tick_now now)
{
    struct qmgr_message *message = qmgr_find(qmgr, scan->filter.id);

    if (message != NULL)
        place_add(qmgr, scan, message, NULL, now);
    return false;
}

static bool step_all(struct qmgr *qmgr, struct qmgr_scan *scan, struct tick_now now)
{
    struct qmgr_message *message = slab_next(&qmgr->messages, &scan->cursor);

    if (message != NULL)
        place_add(qmgr, scan, message, NULL, now);
    return message != NULL;
}

static bool step_sender(struct qmgr *qmgr, struct qmgr_scan *scan, struct tick_now now)
{
    struct qmgr_message *message = scan->message;

    if (message == NULL || scan->left == 0)
        return false;
    scan->message = qmgr_sender_next(message);
    scan->left--;
    place_add(qmgr, scan, message, NULL, now);
    return true;
}

static struct qmgr_line *line_of_same_domain(const struct qmgr_line *line)
{
    struct qmgr_line *next = line->hash_next;

    while (next != NULL && !span_is_equal(qmgr_line_domain(next), qmgr_line_domain(line)))
        next = next->hash_next;
    return next;
}

/* False: there are no more lines. */
static bool line_find_next(struct qmgr *qmgr, struct qmgr_scan *scan, struct tick_now now)
{
    struct qmgr_line *line = scan->line_next;

    if (scan->plan == SCAN_LINES)
        line = slab_next(&qmgr->lines, &scan->cursor);
    else if (line != NULL)
        scan->line_next = line_of_same_domain(line);
    if (line == NULL)
        return false;
    if (!qmgr_may_match_line(&scan->filter, line, now))
        return true;
    scan->line = line;
    scan->delivery = line->first_delivery;
    scan->left = line->delivery_count;
    return true;
}

static bool step_lines(struct qmgr *qmgr, struct qmgr_scan *scan, struct tick_now now)
{
    struct qmgr_delivery *delivery = scan->delivery;

    if (scan->line == NULL || delivery == NULL || scan->left == 0) {
        scan->line = NULL;
        return line_find_next(qmgr, scan, now);
    }
    scan->delivery = qmgr_delivery_line_next(delivery);
    scan->left--;
    if (qmgr_matches_delivery(&scan->filter, delivery))
        place_add(qmgr, scan, delivery->message, delivery, now);
    return true;
}

static bool (*const steps[])(struct qmgr *qmgr, struct qmgr_scan *scan, struct tick_now now) = {
    [SCAN_ONE] = step_one,     [SCAN_DOMAIN] = step_lines, [SCAN_SENDER] = step_sender,
    [SCAN_LINES] = step_lines, [SCAN_ALL] = step_all,
};

/* ---- plans ---- */

/* The routing key of an address as far as it is plain; empty: it must be compared as a whole. */
static struct span recipient_domain(const struct qmgr_filter *filter, uint8_t *octets)
{
    struct span domain = qmgr_sender_domain_of(qmgr_filter_span(&filter->recipient));

    for (uint32_t i = 0; i < domain.size; i++) {
        if (domain.data[i] >= 0x80 || domain.data[i] == '[')
            return span_of("", 0);
        octets[i] = (uint8_t)tolower(domain.data[i]);
    }
    return span_of(octets, domain.size);
}

static void plan_sender(struct qmgr *qmgr, struct qmgr_scan *scan, struct span name)
{
    struct qmgr_sender *sender = qmgr_sender_find(qmgr, name);

    scan->plan = SCAN_SENDER;
    scan->message = sender == NULL ? NULL : sender->first;
    scan->left = sender == NULL ? 0 : sender->message_count;
}

static void scan_plan(struct qmgr *qmgr, struct qmgr_scan *scan)
{
    const struct qmgr_filter *filter = &scan->filter;
    uint8_t octets[ENVELOPE_ADDRESS_SIZE_MAX];
    struct span domain = qmgr_filter_span(&filter->domain);
    bool wants_failed = filter->states & QMGR_FILTER_FAILED;

    if (domain.size == 0 && qmgr->rerouted == 0) /* else it may wait under another domain */
        domain = recipient_domain(filter, octets);
    scan->plan = SCAN_ALL;
    if (qmgr_filter_has(filter, QMGR_FILTER_ID)) {
        scan->plan = SCAN_ONE;
    } else if (domain.size > 0 && !wants_failed) {
        scan->plan = SCAN_DOMAIN;
        scan->line_next = qmgr_line_first(qmgr, domain);
    } else if (qmgr_filter_has(filter, QMGR_FILTER_SENDER_DOMAIN)) {
        plan_sender(qmgr, scan, qmgr_filter_span(&filter->sender_domain));
    } else if (qmgr_filter_has(filter, QMGR_FILTER_SENDER)) {
        struct span name = qmgr_sender_domain_of(qmgr_filter_span(&filter->sender));
        for (uint32_t i = 0; i < name.size; i++)
            octets[i] = (uint8_t)tolower(name.data[i]);
        plan_sender(qmgr, scan, span_of(octets, name.size));
    } else if (filter->terms != 0 && !wants_failed && filter->terms != QMGR_FILTER_RECIPIENT) {
        scan->plan = SCAN_LINES;
    }
}

static void scan_close(struct qmgr *qmgr, struct qmgr_scan *scan)
{
    places_release(qmgr, scan, scan->place_count);
    scan->is_used = false;
    qmgr->scan_count--;
}

static struct qmgr_scan *scan_choose(struct qmgr *qmgr)
{
    struct qmgr_scan *oldest = &qmgr->scans[0];

    for (uint32_t i = 0; i < QMGR_SCAN_MAX; i++) {
        struct qmgr_scan *scan = &qmgr->scans[i];
        if (!scan->is_used)
            return scan;
        if (scan->touched < oldest->touched)
            oldest = scan;
    }
    scan_close(qmgr, oldest);
    return oldest;
}

uint64_t qmgr_scan_begin(struct qmgr *qmgr, const struct qmgr_filter *filter, struct tick_now now)
{
    struct qmgr_scan *scan = scan_choose(qmgr);
    uint32_t generation = scan->generation + 1;

    *scan = (struct qmgr_scan){.is_used = true,
                               .has_more = true,
                               .generation = generation,
                               .touched = now.tick,
                               .filter = *filter};
    qmgr->scan_count++;
    if (scan->filter.class_name.size > 0)
        scan->filter.class = qmgr_class_find(qmgr, qmgr_filter_span(&scan->filter.class_name));
    scan_plan(qmgr, scan);
    return (uint64_t)generation << 32 | (uint64_t)(scan - qmgr->scans);
}

uint64_t qmgr_show_begin(struct qmgr *qmgr, struct message_id id, struct tick_now now)
{
    struct qmgr_filter filter = {.terms = QMGR_FILTER_ID, .id = id};
    uint64_t handle = qmgr_scan_begin(qmgr, &filter, now);

    qmgr->scans[(uint32_t)handle].is_of_all_states = true;
    return handle;
}

static struct qmgr_scan *scan_find(struct qmgr *qmgr, uint64_t handle)
{
    uint32_t index = (uint32_t)handle;

    if (index >= QMGR_SCAN_MAX || !qmgr->scans[index].is_used ||
        qmgr->scans[index].generation != handle >> 32)
        return NULL;
    return &qmgr->scans[index];
}

void qmgr_scan_end(struct qmgr *qmgr, uint64_t handle)
{
    struct qmgr_scan *scan = scan_find(qmgr, handle);

    if (scan != NULL)
        scan_close(qmgr, scan);
}

enum err qmgr_scan_step(struct qmgr *qmgr, uint64_t handle, struct qmgr_match *ret_matches,
                        uint32_t max, uint32_t *ret_count, bool *ret_is_done, struct tick_now now)
{
    struct qmgr_scan *scan = scan_find(qmgr, handle);
    struct scan_out out = {.matches = ret_matches, .max = max};

    CHECK(max > 0);
    if (scan == NULL)
        return ERR_STALE;
    scan->touched = now.tick;
    places_release(qmgr, scan, scan->told_count);
    for (uint32_t looks = 0; out.count < max;) {
        while (scan->has_more && scan->place_count < QMGR_SCAN_PLACES && looks++ < SCAN_LOOKS)
            scan->has_more = steps[scan->plan](qmgr, scan, now);
        if (scan->told_count == scan->place_count ||
            !place_tell(scan, &scan->places[scan->told_count], &out))
            break;
        scan->told_count++;
    }
    /* What was told in this step is looked at before the next one: only that may be the last. */
    *ret_is_done = out.count == 0 && !scan->has_more && scan->told_count == scan->place_count;
    *ret_count = out.count;
    if (*ret_is_done)
        qmgr_scan_end(qmgr, handle);
    return ERR_OK;
}

uint64_t qmgr_count_begin(struct qmgr *qmgr, const struct qmgr_filter *filter, struct tick_now now)
{
    uint64_t handle = qmgr_scan_begin(qmgr, filter, now);

    qmgr->scans[(uint32_t)handle].is_count = true;
    return handle;
}

enum err qmgr_count_step(struct qmgr *qmgr, uint64_t handle, uint64_t *ret_count, bool *ret_is_done,
                         struct tick_now now)
{
    struct qmgr_match matches[QMGR_SCAN_PLACES];
    struct qmgr_scan *scan = scan_find(qmgr, handle);
    uint32_t told;

    if (scan == NULL)
        return ERR_STALE;
    scan->counted = 0;
    TRY(qmgr_scan_step(qmgr, handle, matches, COUNT_OF(matches), &told, ret_is_done, now));
    *ret_count = told + scan->counted;
    return ERR_OK;
}

bool qmgr_scan_is_waiting(struct qmgr *qmgr, uint64_t handle)
{
    const struct qmgr_scan *scan = scan_find(qmgr, handle);

    if (scan == NULL || scan->told_count == scan->place_count)
        return false;
    const struct qmgr_message *next = scan->places[scan->told_count].message;
    return next != NULL && qmgr_envelope_is_loading(next);
}

/* ---- what a scan stands on goes ---- */

void qmgr_scans_skip_message(struct qmgr *qmgr, const struct qmgr_message *message)
{
    for (uint32_t i = 0; i < QMGR_SCAN_MAX && qmgr->scan_count > 0; i++) {
        struct qmgr_scan *scan = &qmgr->scans[i];
        if (!scan->is_used)
            continue;
        if (scan->message == message)
            scan->message = qmgr_sender_next(message);
        for (uint32_t j = 0; j < scan->place_count; j++) {
            if (scan->places[j].message != message)
                continue;
            scan->places[j] = (struct qmgr_place){0};
            if (j == scan->told_count)
                scan->resume_from = 0;
        }
    }
}

void qmgr_scans_skip_delivery(struct qmgr *qmgr, const struct qmgr_delivery *delivery)
{
    for (uint32_t i = 0; i < QMGR_SCAN_MAX && qmgr->scan_count > 0; i++) {
        struct qmgr_scan *scan = &qmgr->scans[i];
        if (!scan->is_used)
            continue;
        if (scan->delivery == delivery)
            scan->delivery = qmgr_delivery_line_next(delivery);
        for (uint32_t j = 0; j < scan->place_count; j++) {
            if (scan->places[j].only != delivery)
                continue;
            delivery->message->work->pins--;
            scan->places[j] = (struct qmgr_place){0};
            if (j == scan->told_count)
                scan->resume_from = 0;
        }
    }
}

void qmgr_scans_skip_line(struct qmgr *qmgr, const struct qmgr_line *line)
{
    for (uint32_t i = 0; i < QMGR_SCAN_MAX && qmgr->scan_count > 0; i++) {
        struct qmgr_scan *scan = &qmgr->scans[i];
        if (scan->is_used && scan->line == line)
            scan->line = NULL;
        if (scan->is_used && scan->line_next == line)
            scan->line_next = line_of_same_domain(line);
    }
}
