/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records that hold mail (`records.on_slow: hold`): the file, and the writer who feeds it. The
 * writer has moods, one after the other: quick, slow, and stuck, as with a full disk. What he has
 * not written yet dies with the relay; of the file, and of his position, nothing is ever lost.
 *
 *   emitted -> (waits) -> kept      records_turn()
 *           -> lost                 sim_records_crash(); the relay has to tell it again
 *
 * What is held against the relay, by which it keeps what docs/records.md promises
 *   1. Nothing is lost: of each message that a sender heard 250 for, and that was stored, the file
 *      has the reception, and the end of each recipient.
 *   2. There is room for each record, or a quick writer makes it: MAIL is not taken, and no attempt
 *      begun, while too many wait.
 *
 * Not held against it, as the same page says: mail that went straight, ends that an operator made,
 * the reception of a message that came very slowly.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

#define PLACES       256u          /* `buffer: 64`, four times */
#define BEHIND       (PLACES / 8u) /* more than that wait: half of `buffer` */
#define QUICK_STEP   TICK_MS(10)
#define SLOW_STEP    TICK_MS(200)          /* at most, for one record */
#define PHASE_TIME   TICK_S(8)             /* at most */
#define CLIENT_TIME  ((wall_us)TICK_S(60)) /* a slower one's reception is not promised, but for */
#define CLIENT_SPEED 1000u                 /* what an octet takes at so many a second */
#define RECEPTION    UINT32_MAX            /* instead of a recipient */

enum phase { PHASE_QUICK, PHASE_SLOW, PHASE_STUCK, PHASE_COUNT };

struct waiting {
    uint32_t message, recipient; /* of the ledger; RECEPTION */
    bool is_known;               /* it is about one of those */
};

struct member {
    struct sim_records *records;
    uint64_t emitted, kept;
    struct waiting waiting[PLACES]; /* record n in place n % PLACES */
    bool is_replayed;
    uint64_t mark;
};

/* What the file says of a message, and what need not be there. */
struct filed {
    bool has_reception, is_slow, is_straight;
    uint32_t ended, ordered; /* bits, by recipient */
};

struct sim_records {
    struct sim_records_options options;
    struct rng rng;
    uint32_t member_count;
    struct member members[NODE_SHARD_MAX];
    struct record_sink sinks[NODE_SHARD_MAX];
    enum phase phase;
    tick_us phase_until, next;
    bool is_healed;
    wall_us position, mark; /* mark: 0: none */
    struct filed *file;
    uint32_t capacity;
    struct sim_records_counts counts;
};

static wall_us wall_now(const struct sim_records *records)
{
    const struct tick_source *clock = net_sim_clock(records->options.ledger->net);

    return clock->wall(clock->context);
}

/* ---- the file ---- */

static struct filed *filed_of(struct sim_records *records, uint32_t message)
{
    while (message >= records->capacity) {
        uint32_t capacity = records->capacity == 0 ? 256 : 2 * records->capacity;
        records->file = reallocarray(records->file, capacity, sizeof(*records->file));
        CHECK(records->file != NULL);
        for (uint32_t i = records->capacity; i < capacity; i++)
            records->file[i] = (struct filed){0};
        records->capacity = capacity;
    }
    return &records->file[message];
}

static void file_write(struct sim_records *records, const struct waiting *waiting)
{
    records->counts.kept++;
    if (!waiting->is_known)
        return;
    struct filed *filed = filed_of(records, waiting->message);
    if (waiting->recipient == RECEPTION)
        filed->has_reception = true;
    else
        filed->ended |= 1u << waiting->recipient;
}

/* ---- the shard's side ---- */

static bool is_end(const struct record *record)
{
    return record->kind == RECORD_DELIVERY || record->kind == RECORD_BOUNCE ||
           record->kind == RECORD_EXPIRY;
}

/* Which message of the ledger it is about: from the names of its recipients. */
static struct waiting waiting_of(struct sim_records *records, const struct record *record)
{
    struct waiting waiting = {0};

    waiting.is_known =
        (record->flags & RECORD_IS_DSN) == 0 &&
        (record->kind == RECORD_RECEPTION || record->kind == RECORD_ORDER || is_end(record)) &&
        sscanf(record->recipient, "r%u-%u@", &waiting.message, &waiting.recipient) == 2;
    if (!waiting.is_known)
        return waiting;
    if (record->kind == RECORD_RECEPTION)
        waiting.recipient = RECEPTION;
    struct filed *filed = filed_of(records, waiting.message);
    CHECK(waiting.recipient == RECEPTION || waiting.recipient < SIM_RECIPIENT_MAX);
    filed->is_straight = filed->is_straight || way_is_straight((enum way)record->way);
    if (record->kind == RECORD_RECEPTION &&
        record->time - (wall_us)record->id.high >
            CLIENT_TIME + (wall_us)(record->size / CLIENT_SPEED) * 1000000)
        filed->is_slow = true;
    if (record->kind == RECORD_ORDER) {
        filed->ordered |= 1u << waiting.recipient;
        waiting.is_known = false;
    }
    return waiting;
}

static bool member_keep(struct member *member, uint64_t count)
{
    for (; count > 0 && member->kept < member->emitted; count--)
        file_write(member->records, &member->waiting[member->kept++ % PLACES]);
    return member->kept < member->emitted;
}

static void on_emit(void *context, const struct record *record)
{
    struct member *member = context;
    struct sim_records *records = member->records;
    const struct record_sink *also = &records->options.also;

    also->emit(also->context, record);
    records->counts.replayed += (record->flags & RECORD_REPLAYED) != 0;
    if (records->options.is_waited_for && member->emitted - member->kept == PLACES &&
        records->phase == PHASE_QUICK)
        (void)member_keep(member, 1);
    if (member->emitted - member->kept == PLACES) {
        ledger_violation(records->options.ledger, "no room for record %u of %s", record->kind,
                         record->recipient);
        return;
    }
    member->waiting[member->emitted++ % PLACES] = waiting_of(records, record);
}

static bool is_behind(void *context)
{
    struct member *member = context;
    bool is_behind = member->emitted - member->kept > BEHIND;

    member->records->counts.behind += is_behind;
    return is_behind && !member->records->options.is_deaf;
}

static uint64_t get_emitted(void *context)
{
    const struct member *member = context;

    return member->emitted;
}

static uint64_t get_kept(void *context)
{
    const struct member *member = context;

    return member->records->options.is_false ? member->emitted : member->kept;
}

static wall_us get_since(void *context)
{
    const struct member *member = context;

    return member->records->position;
}

static void on_replayed(void *context)
{
    struct member *member = context;

    member->is_replayed = true;
}

static const struct record_holder holder = {get_emitted, get_kept, get_since, on_replayed};

const struct record_sink *sim_records_sinks(const struct sim_records *records)
{
    return records->sinks;
}

/* ---- the writer ---- */

static void phase_enter(struct sim_records *records, enum phase phase, tick_us time)
{
    records->phase = phase;
    records->phase_until += time;
    records->next = 0;
    ledger_trace(records->options.ledger, "records: %s for %llu ms",
                 phase == PHASE_QUICK  ? "quick"
                 : phase == PHASE_SLOW ? "slow"
                                       : "stuck",
                 (unsigned long long)(time / 1000));
}

static void phase_review(struct sim_records *records, tick_us now)
{
    while (!records->is_healed && now >= records->phase_until)
        phase_enter(records, (enum phase)rng_below(&records->rng, PHASE_COUNT),
                    rng_below(&records->rng, (uint32_t)PHASE_TIME));
}

/* All records of before this moment are kept. */
static bool mark_is_reached(const struct sim_records *records)
{
    for (uint32_t i = 0; i < records->member_count; i++) {
        if (records->members[i].kept < records->members[i].mark)
            return false;
    }
    return records->mark != 0;
}

static bool all_is_replayed(const struct sim_records *records)
{
    for (uint32_t i = 0; i < records->member_count; i++) {
        if (!records->members[i].is_replayed)
            return false;
    }
    return true;
}

/* As the writer of the relay does it. */
static void position_review(struct sim_records *records)
{
    if (mark_is_reached(records)) {
        records->position = records->mark;
        records->mark = 0;
    }
    if (records->mark != 0 || !all_is_replayed(records))
        return;
    records->mark = wall_now(records);
    for (uint32_t i = 0; i < records->member_count; i++)
        records->members[i].mark = records->members[i].emitted;
}

bool sim_records_wait(const struct sim_records *records)
{
    for (uint32_t i = 0; i < records->member_count; i++) {
        if (records->members[i].kept < records->members[i].emitted)
            return true;
    }
    return false;
}

void sim_records_turn(struct sim_records *records, tick_us now)
{
    phase_review(records, now);
    if (records->phase == PHASE_STUCK || now < records->next)
        return;
    uint32_t first = rng_below(&records->rng, records->member_count);
    for (uint32_t i = 0; i < records->member_count; i++) {
        struct member *member = &records->members[(first + i) % records->member_count];
        (void)member_keep(member, records->phase == PHASE_QUICK ? UINT64_MAX : 1);
    }
    records->next =
        now + (records->phase == PHASE_QUICK ? QUICK_STEP
                                             : 1 + rng_below(&records->rng, (uint32_t)SLOW_STEP));
    position_review(records);
}

tick_us sim_records_deadline(const struct sim_records *records)
{
    if (!sim_records_wait(records))
        return TICK_NEVER;
    if (records->phase == PHASE_STUCK ||
        (!records->is_healed && records->phase_until < records->next))
        return records->phase_until;
    return records->next;
}

/* ---- lives ---- */

void sim_records_begin(struct sim_records *records, uint32_t shard_count)
{
    CHECK(shard_count > 0 && shard_count <= NODE_SHARD_MAX);
    records->member_count = shard_count;
    records->mark = 0;
    for (uint32_t i = 0; i < shard_count; i++) {
        records->members[i] = (struct member){.records = records};
        records->sinks[i] = (struct record_sink){.emit = on_emit,
                                                 .context = &records->members[i],
                                                 .is_behind = is_behind,
                                                 .holder = &holder,
                                                 .is_holding = true};
    }
}

void sim_records_heal(struct sim_records *records)
{
    records->is_healed = true;
    phase_enter(records, PHASE_QUICK, 0);
}

struct sim_records *sim_records_new(const struct sim_records_options *options)
{
    struct sim_records *records = calloc(1, sizeof(*records));

    CHECK(records != NULL);
    records->options = *options;
    rng_init_seed(&records->rng, options->ledger->seed ^ 0x7265636f726473u);
    records->phase_until = net_sim_now(options->ledger->net);
    records->position = wall_now(records);
    return records;
}

void sim_records_free(struct sim_records *records)
{
    if (records == NULL)
        return;
    free(records->file);
    free(records);
}

/* ---- the end ---- */

struct sim_records_counts sim_records_count(const struct sim_records *records)
{
    return records->counts;
}

static void message_settle(struct sim_records *records, const struct ledger_message *message)
{
    const struct filed *filed = filed_of(records, message->number);
    char address[64];

    if (message->fate != LEDGER_ACCEPTED || filed->is_straight)
        return;
    if (!filed->has_reception && !filed->is_slow)
        ledger_violation(records->options.ledger, "unrecorded: message %u was taken",
                         message->number);
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        ledger_address(message, i, address);
        if (message->recipients[i].is_accepted && ((filed->ended | filed->ordered) >> i & 1) == 0)
            ledger_violation(records->options.ledger, "unrecorded: the end of %s", address);
    }
}

void sim_records_settle(struct sim_records *records)
{
    const struct ledger *ledger = records->options.ledger;

    if (sim_records_wait(records))
        ledger_violation(records->options.ledger, "records wait for a writer who is quick");
    for (uint32_t i = 0; i < ledger->count; i++)
        message_settle(records, &ledger->messages[i]);
}
