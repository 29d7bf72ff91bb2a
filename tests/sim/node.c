/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A life of the relay: what control/assembly does with threads, done with turns.
 *
 *   node_start()    epoch, planes, disks, shards, listeners: new mail is accepted from here on
 *   node_control()  at its time: scan the spool, hand each shard its share, free when all adopted
 *   node_end()      the disk dies first, then the network falls silent (power loss), then memory is
 *                   freed: nothing that the freeing code says or writes reaches the world
 *
 * Invariant: shard i is member i of the ring group, control is the last member.
 */
#include "tests/sim/node.h"

#include <stdlib.h>

#define RING_SIZE   256u
#define ORPHAN_TIME TICK_S(10)

struct node_member {
    struct buf_pool *pool;
    struct flow_plane *plane;
    struct disk *disk;
    struct shard *shard;
    tick_us deadline;
};

struct node {
    struct node_options options;
    uint32_t count;
    struct node_member members[NODE_SHARD_MAX];
    struct spool_shares shares; /* of the spools */
    struct ring_group *group;
    struct rng rng;
    struct disk *recovery_disk; /* until every shard adopted its share */
    bool is_scanned;
    tick_us recovery_at;
    struct spool_recovery *recovery; /* while shards adopt it */
    uint32_t adopted_count;
    struct shard_trace_order watch; /* the viewer's */
};

/* ---- start ---- */

static void member_stand(struct node *node, uint32_t index)
{
    const struct config *config = node->options.config;
    struct node_member *member = &node->members[index];

    member->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = config->buffer_size,
        .count_max = (uint32_t)(config->buffer_memory / config->buffer_size),
        .backing = BUF_BACKING_HEAP});
    member->plane = net_sim_plane_new(
        node->options.net, &(struct net_sim_plane_options){.pool = member->pool,
                                                           .flow_count_max = config->flow_count_max,
                                                           .orphan_time = ORPHAN_TIME,
                                                           .core = index,
                                                           .core_count = node->count,
                                                           .address4 = node->options.address4,
                                                           .address6 = node->options.address6});
    member->disk = disk_sim_open(node->options.disk);
}

static enum err member_start(struct node *node, uint32_t index, uint64_t epoch)
{
    const struct config *config = node->options.config;
    struct node_member *member = &node->members[index];
    uint32_t failing = 0;

    member_stand(node, index);
    struct shard_options options = {
        .index = index,
        .count = node->count,
        .plane = member->plane,
        .disk = member->disk,
        .clock = net_sim_clock(node->options.net),
        .mailbox = ring_member_get(node->group, index),
        .records = node->options.shard_records != NULL ? node->options.shard_records[index]
                                                       : node->options.records,
        .settings = &config->settings,
        .spool = {.segment_size = config->spool.segment_size,
                  .size_max = config->spool.size / node->count,
                  .reserve_size = config->spool.reserve,
                  .segment_spare_min = config->spool.spare_count,
                  .commit_deadline = config->spool.commit_deadline,
                  .lazy_time = config->spool.lazy_time,
                  .scrub_rate = config->spool.scrub_rate,
                  .scrub_pause = config->spool.scrub_pause,
                  .shares = &node->shares},
        .epoch = epoch,
        .dns = config->dns,
        .message_count_max = config->message_count_max / node->count,
        .body_memory_max = config->body_memory / node->count,
        .connection_max = config->connections_per_site,
        .connection_start = config->connections_at_first,
        .is_auth_inline = true,
        .outbound_max = config->flow_count_max / 2,
        .body_octets = node->options.body_octets,
        .inbound_flow_max = config->flow_count_max - config->flow_count_max / 4,
    };
    rng_init_seed(&options.rng, rng_u64(&node->rng));
    TRY(shard_new(&options, &member->shard));
    return shard_listen(member->shard, &failing);
}

static void node_free(struct node *node)
{
    for (uint32_t i = 0; i < node->count; i++) {
        struct node_member *member = &node->members[i];
        if (member->shard != NULL)
            shard_free(member->shard);
        if (member->plane != NULL)
            flow_plane_free(member->plane);
        if (member->disk != NULL)
            disk_free(member->disk);
        if (member->pool != NULL)
            buf_pool_free(member->pool);
    }
    if (node->recovery != NULL)
        spool_recovery_free(node->recovery);
    if (node->recovery_disk != NULL)
        disk_free(node->recovery_disk);
    free(node->watch.batches);
    ring_group_free(node->group);
    free(node);
}

/* ---- a viewer ---- */

/* Two, in fact: one for each family. */
static void node_watch(struct node *node)
{
    struct shard_trace_order *watch = &node->watch;

    watch->batches = calloc(2 * (size_t)node->count, sizeof(*watch->batches));
    CHECK(watch->batches != NULL);
    for (uint32_t i = 0; i < 2; i++) {
        struct trace_filter *filter = &watch->filters[i];
        *filter = (struct trace_filter){.serial = 1, .kind = TRACE_KIND_ADDRESS};
        enum err err = flow_prefix_parse(i == 0 ? SPAN_LITERAL("0.0.0.0/0") : SPAN_LITERAL("::/0"),
                                         &filter->prefix);
        CHECK(err == ERR_OK);
    }
    for (uint32_t i = 0; i < node->count; i++)
        node_query(node, i, &(struct shard_query){.kind = SHARD_QUERY_TRACE, .trace = watch});
}

enum err node_start(const struct node_options *options, struct node **ret_node)
{
    struct node *node = calloc(1, sizeof(*node));
    uint64_t epoch = 0;
    CHECK(node != NULL);
    CHECK(options->config->cores >= 1 && options->config->cores <= NODE_SHARD_MAX);

    node->options = *options;
    node->count = node->shares.count = options->config->cores;
    rng_init_seed(&node->rng, options->seed);
    node->group = ring_group_new(node->count + 1, RING_SIZE);
    node->recovery_disk = disk_sim_open(options->disk);
    node->recovery_at = net_sim_now(options->net) + options->recovery_delay;
    enum err err = spool_epoch_next(node->recovery_disk, &epoch);
    for (uint32_t i = 0; err == ERR_OK && i < node->count; i++)
        err = member_start(node, i, epoch);
    if (err != ERR_OK) {
        node_free(node);
        return err;
    }
    if (options->seen != NULL)
        node_watch(node);
    *ret_node = node;
    return ERR_OK;
}

/* ---- turns ---- */

/* What a shard tells of conversations; the batch goes back. */
static void node_see(struct node *node, const struct ring_message *message)
{
    struct ring_message reply = *message;
    struct shard_control control;
    struct span text;
    uint32_t offset = 0;

    memcpy(&control, message->payload, sizeof(control));
    while (trace_batch_next(control.batch, &offset, &text) != NULL)
        *node->options.seen += 1;
    reply.is_reply = true;
    ring_send(ring_member_get(node->group, node->count), message->from, &reply);
}

uint32_t node_shard_count(const struct node *node)
{
    return node->count;
}

void node_turn(struct node *node, uint32_t shard)
{
    struct node_member *member = &node->members[shard];
    member->deadline = shard_turn(member->shard);
}

static enum err node_recover(struct node *node)
{
    struct shard_control control = {0};
    struct ring_message message = {.kind = SHARD_MESSAGE_RECOVERED,
                                   .payload_size = sizeof(control)};

    struct spool_recovery_options options = {.threads = 1};
    TRY(spool_recovery_run(node->recovery_disk, &options, &node->recovery));
    node->is_scanned = true;
    control.recovery = node->recovery;
    memcpy(message.payload, &control, sizeof(control));
    for (uint32_t i = 0; i < node->count; i++)
        ring_send(ring_member_get(node->group, node->count), i, &message);
    return ERR_OK;
}

enum err node_control(struct node *node)
{
    struct ring_message message;

    if (!node->is_scanned && net_sim_now(node->options.net) >= node->recovery_at)
        TRY(node_recover(node));
    while (ring_receive(ring_member_get(node->group, node->count), &message) == ERR_OK) {
        if (message.kind == SHARD_MESSAGE_DRAIN)
            continue;
        if (message.kind == SHARD_MESSAGE_TRACE) {
            node_see(node, &message);
            continue;
        }
        CHECK(message.kind == SHARD_MESSAGE_RECOVERED && node->recovery != NULL);
        node->adopted_count++;
    }
    if (node->recovery != NULL && node->adopted_count == node->count) {
        spool_recovery_free(node->recovery);
        node->recovery = NULL;
        disk_free(node->recovery_disk);
        node->recovery_disk = NULL;
    }
    return ERR_OK;
}

void node_drain(struct node *node)
{
    struct ring_message message = {.kind = SHARD_MESSAGE_DRAIN,
                                   .payload_size = sizeof(struct shard_control)};

    for (uint32_t i = 0; i < node->count; i++)
        ring_send(ring_member_get(node->group, node->count), i, &message);
}

bool node_is_recovered(const struct node *node)
{
    return node->recovery_disk == NULL;
}

/* ring_sleep_begin() is how a shard's own thread asks whether somebody wrote to it. */
static bool member_has_mail(const struct node *node, uint32_t index)
{
    struct ring_member *member = ring_member_get(node->group, index);

    if (!ring_sleep_begin(member))
        return true;
    ring_sleep_end(member);
    return false;
}

tick_us node_deadline(const struct node *node)
{
    tick_us now = net_sim_now(node->options.net);
    tick_us deadline = disk_sim_deadline(node->options.disk);

    for (uint32_t i = 0; i <= node->count; i++) {
        if (member_has_mail(node, i))
            return now;
    }
    for (uint32_t i = 0; i < node->count; i++)
        deadline = node->members[i].deadline < deadline ? node->members[i].deadline : deadline;
    if (!node->is_scanned && node->recovery_at < deadline)
        deadline = node->recovery_at;
    return deadline < now ? now : deadline;
}

void node_query(struct node *node, uint32_t shard, struct shard_query *query)
{
    CHECK(shard < node->count);
    shard_query_run(node->members[shard].shard, query);
}

struct shard_status node_status(const struct node *node, uint32_t shard)
{
    const struct shard *of = node->members[shard].shard;
    struct shard_status status;

    shard_get_status(of, &status);
    status.invariant_violations += shard_verify(of);
    return status;
}

/* ---- the end ---- */

void node_end(struct node *node, enum node_end end, struct rng *rng)
{
    if (end == NODE_POWER_LOSS) {
        disk_sim_crash(node->options.disk, rng);
        for (uint32_t i = 0; i < node->count; i++)
            net_sim_plane_silence(node->options.net, node->members[i].plane);
    } else {
        disk_sim_kill(node->options.disk, rng);
    }
    node_free(node);
}
