/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger and the workload of the spool's crash tests.
 *
 * What the ledger holds the spool to, after any crash:
 *   acknowledged, not finished       present, with exactly its envelope and body, once
 *   finished, and known durable      absent, for ever
 *   finished a moment ago            either; if absent once, absent for ever
 *   ended by its DSN                 it or the DSN, whatever of the commit is there
 *   refused in time                  absent, for ever (VOID)
 *   never committed                  absent
 *   commit under way                 either; if present, whole
 *   PROGRESS                         in order, none foreign, all that were known durable
 * Bodies and envelopes are functions of the id, so that mixing and truncation show.
 */
#include "tests/sim/spool_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define WORLD_COMMIT_DEADLINE TICK_S(10)
#define WORLD_LAZY_TIME       TICK_MS(200)
#define WORLD_TURNS_MAX       200000u
#define WORLD_EVENTS          16u
#define PROGRESS_SIZE_MAX     128u

__attribute__((format(printf, 2, 3))) static void world_violation(struct world *world,
                                                                  const char *format, ...)
{
    if (world->violations++ > 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(world->first_violation, sizeof(world->first_violation), format, arguments);
    va_end(arguments);
}

/* ---- content ---- */

static uint8_t octet_of(uint64_t key, uint32_t offset)
{
    uint64_t x = key + (offset / 8 + 1) * 0x9e3779b97f4a7c15u;
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 29;
    return (uint8_t)(x >> offset % 8 * 8);
}

static void fill(uint8_t *data, uint64_t key, uint32_t offset, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        data[i] = octet_of(key, offset + i);
}

static bool is_filled(struct span octets, uint64_t key, uint32_t offset)
{
    for (uint32_t i = 0; i < octets.size; i++) {
        if (octets.data[i] != octet_of(key, offset + i))
            return false;
    }
    return true;
}

static uint64_t key_body(const struct world_message *message)
{
    return message->id.low;
}

static uint64_t key_envelope(const struct world_message *message)
{
    return message->id.low ^ 0x1111;
}

static uint64_t key_progress(const struct world_message *message, uint32_t number)
{
    return message->id.low ^ (0x20000u + number);
}

/* Two in three tell of an attempt of one of two deliveries: the next one of it replaces them. */
static bool progress_is_retry(uint32_t number)
{
    return number % 3 > 0;
}

static uint32_t progress_delivery(uint32_t number)
{
    return number / 3 % 2;
}

/* The payload of PROGRESS `number`; returns its size. */
static uint32_t progress_make(const struct world_message *message, uint32_t number,
                              uint8_t ret_data[PROGRESS_SIZE_MAX])
{
    uint64_t key = key_progress(message, number);
    char reply[32];
    if (!progress_is_retry(number)) {
        uint32_t size = 20 + (uint32_t)(key * 0x9e3779b97f4a7c15u >> 58);
        fill(ret_data, key, 0, size);
        return size;
    }
    snprintf(reply, sizeof(reply), "451 %lx", key);
    struct envelope_progress progress = {
        .next_try = 1 + number,
        .attempts = number,
        .delivery = progress_delivery(number),
        .last_reply = span_from_text(reply),
    };
    envelope_progress_encode(&progress, ret_data);
    return envelope_progress_encoded_size(&progress);
}

static bool progress_is(const struct world_message *message, uint32_t number, struct span octets)
{
    uint8_t made[PROGRESS_SIZE_MAX];
    return span_is_equal(octets, span_of(made, progress_make(message, number, made)));
}

/* Of those missing, those that one which is there has replaced. */
static uint32_t progress_superseded(uint32_t missing, uint32_t present)
{
    uint32_t superseded = 0;
    for (uint32_t i = 0; i < WORLD_PROGRESS_MAX; i++) {
        for (uint32_t j = i + 1; j < WORLD_PROGRESS_MAX; j++) {
            if (missing >> i & 1 && present >> j & 1 && progress_is_retry(i) &&
                progress_is_retry(j) && progress_delivery(i) == progress_delivery(j))
                superseded |= (uint32_t)1 << i;
        }
    }
    return superseded;
}

/* ---- life ---- */

static tick_us world_monotonic(void *context)
{
    return ((struct world *)context)->tick;
}

static wall_us world_wall(void *context)
{
    return (wall_us)((struct world *)context)->tick;
}

static struct tick_now world_now(const struct world *world)
{
    return tick_now_read(&world->clock);
}

struct world *world_new(const struct world_options *options)
{
    CHECK(options->shard_count <= WORLD_SHARDS_MAX);
    struct world *world = calloc(1, sizeof(*world));
    CHECK(world != NULL);
    world->options = *options;
    rng_init_seed(&world->rng, options->seed);
    rng_init_seed(&world->chance, options->seed + 1000003);
    rng_init_seed(&world->salt, options->seed + 2000003);
    world->tick = TICK_S(1);
    world->clock = (struct tick_source){world_monotonic, world_wall, world};
    struct disk_sim_options disk = {
        .clock = &world->clock,
        .size = options->disk_size,
        .latency_min = 10,
        .latency_max = options->latency_max,
        .seed = options->seed,
    };
    world->sim = disk_sim_new(&disk);
    disk_sim_plant_false_sync(world->sim, options->is_false_sync);
    disk_sim_plant_false_directory_sync(world->sim, options->is_false_directory_sync);
    struct buf_pool_options pool = {
        .data_size = 2048, .count_max = 100000, .backing = BUF_BACKING_HEAP};
    world->pool = buf_pool_new(&pool);
    return world;
}

/* What the ledger knows of a running node is gone with that. */
static void world_forget(struct world *world)
{
    for (uint32_t i = 0; i < world->message_count; i++) {
        struct world_message *message = &world->messages[i];
        if (message->state == WORLD_BUILDING)
            message->state = WORLD_GONE;
        message->transaction = NULL;
        message->entry = NULL;
        message->is_reading = false;
    }
}

/* The node is dead: free what it had. The disks must be dead, too, or idle. */
static void world_bury(struct world *world)
{
    for (uint32_t i = 0; i < WORLD_SHARDS_MAX; i++) {
        if (world->spools[i] != NULL) {
            struct spool_stats stats = spool_get_stats(world->spools[i]);
            world->recycled += stats.recycled_segments;
            world->copied += stats.copied_messages;
            world->ahead += stats.batches_ahead;
            spool_free(world->spools[i]);
        }
        if (world->disks[i] != NULL)
            disk_free(world->disks[i]);
        world->spools[i] = NULL;
        world->disks[i] = NULL;
    }
    world->shard_count = 0;
    CHECK(buf_pool_in_use(world->pool) == 0);
    world_forget(world);
}

void world_free(struct world *world)
{
    disk_sim_kill(world->sim, &world->chance);
    world_bury(world);
    disk_sim_free(world->sim);
    buf_pool_free(world->pool);
    free(world);
}

void world_crash(struct world *world, bool is_kill)
{
    if (is_kill)
        disk_sim_kill(world->sim, &world->chance);
    else
        disk_sim_crash(world->sim, &world->chance);
    world_bury(world);
}

void world_copy(struct world *copy, const struct world *world)
{
    CHECK(copy->shard_count == 0 && copy != world);
    disk_sim_copy(copy->sim, world->sim);
    copy->options = world->options;
    copy->rng = world->rng;
    copy->chance = world->chance;
    copy->salt = world->salt;
    copy->tick = world->tick;
    copy->message_count = world->message_count;
    memcpy(copy->messages, world->messages, world->message_count * sizeof(world->messages[0]));
    copy->violations = 0;
    copy->first_violation[0] = '\0';
    copy->is_quiet = world->is_quiet;
    world_forget(copy);
}

static uint64_t mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

uint64_t world_promises(const struct world *world)
{
    uint64_t sum = world->message_count;
    for (uint32_t i = 0; i < world->message_count; i++) {
        const struct world_message *message = &world->messages[i];
        sum = mix(sum, message->state);
        sum = mix(sum, (uint64_t)message->progress_durable << 32 | message->progress_count);
        sum = mix(sum, (uint64_t)message->dsn_about << 32 | message->progress_void);
    }
    return sum;
}

/* ---- recovery ---- */

static struct world_message *world_find(struct world *world, struct message_id id)
{
    if (id.high == 0 || id.high > world->message_count ||
        world->messages[id.high - 1].id.low != id.low)
        return NULL;
    return &world->messages[id.high - 1];
}

static void world_check_progress(struct world *world, struct world_message *message,
                                 const struct spool_recovered *recovered)
{
    uint32_t next = 0, durable = 0;
    for (uint32_t i = 0; i < recovered->progress_count; i++) {
        uint32_t number = next;
        while (number < message->progress_count &&
               !progress_is(message, number, recovered->progress[i]))
            number++;
        if (number == message->progress_count) {
            world_violation(world, "message %lu: foreign or disordered PROGRESS %u",
                            message->id.high, i);
            return;
        }
        durable |= (uint32_t)1 << number;
        next = number + 1;
    }
    world->outcome += mix(message->id.low, durable);
    uint32_t all = (uint32_t)(((uint64_t)1 << message->progress_durable) - 1);
    uint32_t missing = all & ~message->progress_void & ~durable;
    missing &= ~progress_superseded(missing, durable);
    if (missing != 0)
        world_violation(world, "message %lu: durable PROGRESS %x are lost", message->id.high,
                        missing);
    /* What was not durable and is not back is gone. */
    uint32_t issued = (uint32_t)(((uint64_t)1 << message->progress_count) - 1);
    message->progress_void |= issued & ~durable;
}

struct world_adoption {
    struct world *world;
    uint32_t shard;
};

static void world_on_message(void *context, const struct spool_recovered *recovered)
{
    struct world_adoption *adoption = context;
    struct world *world = adoption->world;
    struct message_id id = spool_entry_id(recovered->entry);
    struct world_message *message = world_find(world, id);
    world->recovered++;
    if (message == NULL) {
        world_violation(world, "an unknown message is back");
        return;
    }
    if (message->was_seen)
        world_violation(world, "message %lu is back twice", id.high);
    message->was_seen = true;
    if (message->state == WORLD_BUILDING || message->state == WORLD_VOID ||
        message->state == WORLD_GONE)
        world_violation(world, "message %lu is back in state %d", id.high, message->state);
    if (recovered->envelope.size != message->envelope_size ||
        !is_filled(recovered->envelope, key_envelope(message), 0))
        world_violation(world, "message %lu: envelope differs", id.high);
    world_check_progress(world, message, recovered);
    message->shard = adoption->shard;
    message->entry = recovered->entry;
}

/* A message that ends by a DSN ends with it, or not at all. */
static void world_audit_dsn(struct world *world, const struct world_message *dsn)
{
    if (dsn->state != WORLD_COMMITTING || dsn->was_seen || dsn->dsn_about == 0 ||
        dsn->dsn_progress > 0)
        return;
    const struct world_message *about = &world->messages[dsn->dsn_about - 1];
    if (about->state == WORLD_FINISHING && !about->was_seen)
        world_violation(world, "message %lu ended and its DSN %lu is lost", about->id.high,
                        dsn->id.high);
}

/* Compare what is back with what must be, and learn which of the possible things happened. */
static void world_audit(struct world *world)
{
    for (uint32_t i = 0; i < world->message_count; i++)
        world_audit_dsn(world, &world->messages[i]);
    for (uint32_t i = 0; i < world->message_count; i++) {
        struct world_message *message = &world->messages[i];
        if (!message->was_seen && message->state == WORLD_LIVE)
            world_violation(world, "message %lu was acknowledged and is lost", message->id.high);
        if (message->was_seen)
            message->state = WORLD_LIVE;
        else if (message->state != WORLD_VOID)
            message->state = WORLD_GONE;
    }
}

static bool world_open_spools(struct world *world, uint32_t shard_count, struct disk *disk)
{
    uint64_t epoch;
    if (spool_epoch_next(disk, &epoch) != ERR_OK)
        return false;
    world->shard_count = shard_count;
    for (uint32_t i = 0; i < shard_count; i++) {
        world->disks[i] = disk_sim_open(world->sim);
        struct spool_options options = {
            .segment_size = world->options.segment_size,
            .size_max = world->options.size_max,
            .reserve_size = world->options.segment_size,
            .segment_spare_min = 1,
            .commit_deadline = WORLD_COMMIT_DEADLINE,
            .lazy_time = WORLD_LAZY_TIME,
            .scrub_rate = 8u << 20,
            .scrub_pause = TICK_MS(500),
            .pool = world->pool,
            .shard = i,
            .epoch = epoch,
        };
        if (spool_new(&options, world->disks[i], &world->salt, world_now(world),
                      &world->spools[i]) != ERR_OK)
            return false;
    }
    return true;
}

bool world_start(struct world *world, uint32_t shard_count)
{
    CHECK(world->shard_count == 0 && shard_count <= WORLD_SHARDS_MAX);
    world->lives++;
    world->outcome = 0;
    for (uint32_t i = 0; i < world->message_count; i++)
        world->messages[i].was_seen = false;
    struct disk *disk = disk_sim_open(world->sim);
    struct spool_recovery *recovery = NULL;
    uint64_t failures = disk_sim_get_stats(world->sim).failures;
    bool is_good = world_open_spools(world, shard_count, disk) &&
                   spool_recovery_run(disk, NULL, &recovery) == ERR_OK;
    for (uint32_t i = 0; is_good && i < shard_count; i++) {
        struct world_adoption adoption = {world, i};
        spool_recovery_adopt(recovery, world->spools[i], i, shard_count, world_on_message,
                             &adoption);
    }
    if (recovery != NULL)
        spool_recovery_free(recovery);
    disk_free(disk);
    /* A disk that failed a read may hide what it has; a later start sees it again. */
    is_good = is_good && !disk_sim_is_stopped(world->sim) &&
              disk_sim_get_stats(world->sim).failures == failures;
    if (is_good)
        world_audit(world);
    return is_good;
}

/* ---- events ---- */

static void world_committed(struct world *world, struct world_message *message,
                            const struct spool_event *event)
{
    struct world_message *about =
        message->dsn_about > 0 ? &world->messages[message->dsn_about - 1] : NULL;
    if (message->state != WORLD_COMMITTING)
        world_violation(world, "message %lu: COMMITTED in state %d", message->id.high,
                        message->state);
    if (event->err == ERR_OK) {
        world->commits++;
        message->state = WORLD_LIVE;
        message->entry = event->entry;
        return;
    }
    world->failures++;
    tick_us age = world->tick - message->committed_at;
    message->state = age < 2 * WORLD_COMMIT_DEADLINE ? WORLD_VOID : WORLD_UNKNOWN;
    if (about != NULL && message->dsn_progress > 0)
        about->progress_void |= (uint32_t)1 << (message->dsn_progress - 1);
    else if (about != NULL && about->state == WORLD_FINISHING)
        about->state = WORLD_LIVE; /* its end failed with the DSN */
}

static void world_read(struct world *world, struct world_message *message,
                       struct spool_event *event)
{
    uint32_t offset = (uint32_t)(event->token >> 32) & 0x7fffffff;
    bool is_envelope = event->token >> 63;
    uint64_t key = is_envelope ? key_envelope(message) : key_body(message);
    message->is_reading = false;
    if (event->err != ERR_OK && disk_sim_get_stats(world->sim).failures == 0)
        world_violation(world, "message %lu: read failed: %s", message->id.high,
                        err_name(event->err));
    for (uint32_t i = 0; i < event->octets.count; i++) {
        struct span octets = buf_slice_span(buf_queue_get(&event->octets, i));
        if (!is_filled(octets, key, offset))
            world_violation(world, "message %lu: octets at %u differ", message->id.high, offset);
        offset += octets.size;
    }
    buf_queue_fini(&event->octets);
}

static void world_event(struct world *world, struct spool_event *event)
{
    struct world_message *message = &world->messages[(uint32_t)event->token];
    if (event->kind == SPOOL_EVENT_DAMAGED) { /* a disk that fails reads may look like that */
        if (disk_sim_get_stats(world->sim).failures == 0)
            world_violation(world, "message %lu: the scrubber saw damage", event->id.high);
        return;
    }
    if (event->kind == SPOOL_EVENT_COMMITTED)
        world_committed(world, message, event);
    else
        world_read(world, message, event);
}

void world_turn(struct world *world, tick_us step)
{
    tick_us next = disk_sim_deadline(world->sim);
    tick_us end = world->tick + step;
    world->tick = next < end ? (next > world->tick ? next : world->tick) : end;
    for (uint32_t i = 0; i < world->shard_count; i++) {
        struct spool_event events[WORLD_EVENTS];
        uint32_t count;
        do {
            count = spool_poll(world->spools[i], world_now(world), events, WORLD_EVENTS);
            for (uint32_t j = 0; j < count; j++)
                world_event(world, &events[j]);
        } while (count == WORLD_EVENTS);
    }
}

static bool world_is_idle(const struct world *world)
{
    for (uint32_t i = 0; i < world->shard_count; i++) {
        if (!spool_is_idle(world->spools[i]))
            return false;
    }
    return true;
}

void world_settle(struct world *world)
{
    for (uint32_t i = 0; i < world->message_count; i++) {
        struct world_message *message = &world->messages[i];
        if (message->state == WORLD_BUILDING && message->transaction != NULL) {
            spool_abort(world->spools[message->shard], message->transaction);
            message->transaction = NULL;
            message->state = WORLD_GONE;
        }
    }
    for (uint32_t i = 0; i < world->shard_count; i++)
        spool_flush(world->spools[i]);
    uint32_t turns = 0;
    do
        world_turn(world, TICK_MS(100));
    while (!world_is_idle(world) && !disk_sim_is_stopped(world->sim) && ++turns < WORLD_TURNS_MAX);
    if (disk_sim_is_stopped(world->sim))
        return;
    if (turns == WORLD_TURNS_MAX) {
        world_violation(world, "the spool does not come to rest");
        return;
    }
    for (uint32_t i = 0; i < world->message_count; i++) {
        struct world_message *message = &world->messages[i];
        if (message->state == WORLD_FINISHING)
            message->state = WORLD_GONE;
        message->progress_durable = message->progress_count;
    }
}

/* ---- workload ---- */

static struct world_message *world_pick(struct world *world, enum world_state state)
{
    if (world->message_count == 0)
        return NULL;
    uint32_t start = rng_below(&world->rng, world->message_count);
    for (uint32_t i = 0; i < world->message_count; i++) {
        struct world_message *message = &world->messages[(start + i) % world->message_count];
        if (message->state == state && !message->is_reading)
            return message;
    }
    return NULL;
}

static uint32_t world_draw_size(struct world *world)
{
    static const uint32_t bounds[] = {100, 3000, 3000, 12000, 12000, 60000, 200000};
    uint32_t size = rng_below(&world->rng, bounds[rng_below(&world->rng, COUNT_OF(bounds))]);
    return world->options.body_size_max > 0 ? size % world->options.body_size_max : size;
}

static struct world_message *world_begin(struct world *world)
{
    if (world->message_count == WORLD_MESSAGES_MAX || world->is_quiet)
        return NULL;
    uint32_t index = world->message_count;
    struct world_message message = {
        .id = {index + 1, rng_u64(&world->rng)},
        .shard = rng_below(&world->rng, world->shard_count),
        .body_size = world_draw_size(world),
        .envelope_size = 30 + rng_below(&world->rng, 600),
    };
    message.transaction = spool_begin(world->spools[message.shard], message.id, message.body_size,
                                      rng_below(&world->rng, 8) == 0);
    if (message.transaction == NULL)
        return NULL;
    world->messages[world->message_count++] = message;
    return &world->messages[index];
}

/* Hand over part of the body, in slices of any size. False when the transaction ended. */
static bool world_write(struct world *world, struct world_message *message, uint32_t size)
{
    struct buf_queue octets;
    buf_queue_init(&octets);
    uint32_t left = message->body_size - message->written;
    for (size = size < left ? size : left; size > 0;) {
        struct buf *buf = buf_acquire(world->pool);
        CHECK(buf != NULL);
        uint32_t slice = 1 + rng_below(&world->rng, 2048);
        slice = slice < size ? slice : size;
        fill(buf_data(buf), key_body(message), message->written, slice);
        buf_extend(buf, slice);
        buf_queue_append(&octets, buf, BUF_HEADROOM, slice);
        buf_release(buf);
        message->written += slice;
        size -= slice;
    }
    enum err err = spool_write_body(world->spools[message->shard], message->transaction, &octets);
    buf_queue_fini(&octets);
    if (err == ERR_OK)
        return true;
    spool_abort(world->spools[message->shard], message->transaction);
    message->transaction = NULL;
    message->state = WORLD_GONE;
    return false;
}

static void world_commit(struct world *world, struct world_message *message)
{
    if (!world_write(world, message, UINT32_MAX))
        return;
    uint8_t envelope[1024];
    fill(envelope, key_envelope(message), 0, message->envelope_size);
    struct spool *spool = world->spools[message->shard];
    uint64_t token = (uint64_t)(message - world->messages);
    struct span span = span_of(envelope, message->envelope_size);
    message->state = WORLD_COMMITTING;
    message->committed_at = world->tick;
    struct world_message *about = world_pick(world, WORLD_LIVE);
    if (about == NULL || about->shard != message->shard || rng_below(&world->rng, 6) > 0) {
        spool_commit(spool, message->transaction, span, token);
    } else if (rng_below(&world->rng, 2) == 0) {
        message->dsn_about = (uint32_t)(about - world->messages) + 1;
        about->state = WORLD_FINISHING;
        spool_commit_dsn(spool, message->transaction, span, about->entry, (struct span){0}, true,
                         token);
    } else if (about->progress_count < WORLD_PROGRESS_MAX) {
        uint8_t progress[PROGRESS_SIZE_MAX];
        uint32_t number = about->progress_count++;
        message->dsn_about = (uint32_t)(about - world->messages) + 1;
        message->dsn_progress = number + 1;
        uint32_t size = progress_make(about, number, progress);
        spool_commit_dsn(spool, message->transaction, span, about->entry, span_of(progress, size),
                         false, token);
    } else {
        spool_commit(spool, message->transaction, span, token);
    }
    message->transaction = NULL;
}

static void world_progress(struct world *world)
{
    struct world_message *message = world_pick(world, WORLD_LIVE);
    if (message == NULL || message->progress_count == WORLD_PROGRESS_MAX)
        return;
    uint8_t progress[PROGRESS_SIZE_MAX];
    uint32_t number = message->progress_count++;
    uint32_t size = progress_make(message, number, progress);
    spool_progress(world->spools[message->shard], message->entry, span_of(progress, size));
}

static void world_read_some(struct world *world, struct world_message *message)
{
    struct spool *spool = world->spools[message->shard];
    uint64_t token = (uint64_t)(message - world->messages);
    message->is_reading = true;
    if (rng_below(&world->rng, 4) == 0) {
        spool_read_envelope(spool, message->entry, token | (uint64_t)1 << 63);
        return;
    }
    uint32_t offset = rng_below(&world->rng, message->body_size + 1);
    uint32_t size = rng_below(&world->rng, message->body_size - offset + 1);
    spool_read_body(spool, message->entry, offset, size, token | (uint64_t)offset << 32);
}

/* The newest live message: the others stay, and are in the way of their segments. */
static struct world_message *world_pick_newest(struct world *world)
{
    for (uint32_t i = world->message_count; i-- > 0;) {
        if (world->messages[i].state == WORLD_LIVE && !world->messages[i].is_reading)
            return &world->messages[i];
    }
    return NULL;
}

static void world_done(struct world *world)
{
    bool is_newest = world->options.live_max > 0 && rng_below(&world->rng, 16) > 0;
    struct world_message *message =
        is_newest ? world_pick_newest(world) : world_pick(world, WORLD_LIVE);
    if (message == NULL)
        return;
    message->state = WORLD_FINISHING;
    spool_done(world->spools[message->shard], message->entry);
}

static uint32_t world_count(const struct world *world, enum world_state state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->message_count; i++)
        count += world->messages[i].state == state;
    return count;
}

static void world_operation(struct world *world)
{
    struct world_message *message;
    if (world->options.live_max > 0 && world_count(world, WORLD_LIVE) > world->options.live_max)
        world_done(world);
    switch (rng_below(&world->rng, 12)) {
    case 0:
    case 1:
    case 2:
        message = world_begin(world);
        if (message != NULL)
            world_commit(world, message);
        break;
    case 3:
        (void)world_begin(world);
        break;
    case 4:
        message = world_pick(world, WORLD_BUILDING);
        if (message != NULL)
            world_write(world, message, rng_below(&world->rng, 50000));
        break;
    case 5:
        message = world_pick(world, WORLD_BUILDING);
        if (message != NULL)
            world_commit(world, message);
        break;
    case 6:
        message = rng_below(&world->rng, 4) == 0 ? world_pick(world, WORLD_BUILDING) : NULL;
        if (message != NULL) {
            spool_abort(world->spools[message->shard], message->transaction);
            message->transaction = NULL;
            message->state = WORLD_GONE;
        }
        break;
    case 7:
        world_progress(world);
        break;
    case 8:
        message = world_pick(world, WORLD_LIVE);
        if (message != NULL)
            world_read_some(world, message);
        break;
    case 9:
    case 10:
        world_done(world);
        break;
    default:
        world_turn(world, rng_below(&world->rng, (uint32_t)TICK_MS(300)));
        break;
    }
}

void world_work(struct world *world, uint32_t operations)
{
    for (uint32_t i = 0; i < operations && !disk_sim_is_stopped(world->sim); i++) {
        world_operation(world);
        if (world->options.is_brisk || rng_below(&world->rng, 3) == 0)
            world_turn(world, 200);
    }
}

void world_read_all(struct world *world)
{
    for (uint32_t i = 0; i < world->message_count; i++) {
        struct world_message *message = &world->messages[i];
        if (message->state != WORLD_LIVE || message->is_reading)
            continue;
        message->is_reading = true;
        spool_read_body(world->spools[message->shard], message->entry, 0, message->body_size, i);
    }
    uint32_t turns = 0;
    do
        world_turn(world, TICK_MS(10));
    while (!world_is_idle(world) && !disk_sim_is_stopped(world->sim) && ++turns < WORLD_TURNS_MAX);
}
