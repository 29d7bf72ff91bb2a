/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The assembly of the shards. Their listeners are in assembly_listen.c.
 *
 * For each shard, in this order, freed in the opposite one:
 *   buffer pool -> network plane, disk -> shard (spool, DNS, transfer, server) -> listeners ->
 * thread
 *
 * Invariants
 *   1. One relay per spool directory: it is locked as long as the assembly lives. In an upgrade a
 *      second one writes segments of its own there, and touches no others before it has the lock.
 *   2. All listeners are open before the first thread runs: a relay that cannot have a port never
 *      takes mail on another.
 *   3. New segments carry an epoch above all that were there, so that the recovery running beside
 *      the shards tells old mail from new.
 *   4. Nothing of a shard is touched by this thread between assembly_start() and the join.
 */
#include "control/assembly.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "relay/body_gate.h"

#define RING_SIZE            512u
#define RECOVERY_THREADS_MAX 8u

struct assembly_member {
    struct assembly *assembly;
    uint16_t index;
    struct flow_plane *plane;
    struct disk *disk;
    struct shard *shard;
    pthread_t thread;
    bool is_started;
};

struct assembly {
    const struct config *config;
    const struct assembly_place *place; /* while it is made; NULL: none */
    struct dataplane *dataplane;
    struct ring_group *group;
    struct assembly_member *members;
    uint32_t count;
    struct spool_shares shares; /* of the spools */
    int directory;              /* locked */
    uint64_t dns_key[2];        /* of names' home shards: the same for all, unknown to others */

    struct disk *recovery_disk;
    struct spool_recovery *recovery;
    enum err recovery_err;
    pthread_t recovery_thread;
    bool is_recovering;
    int recovery_eventfd;
};

static enum err fail(char why[ASSEMBLY_WHY_SIZE], enum err err, const char *what, const char *name)
{
    snprintf(why, ASSEMBLY_WHY_SIZE, "%s %.200s: %s", what, name,
             err == ERR_SYSTEM && errno != 0 ? strerror(errno) : err_text(err));
    return err;
}

/* ---- the spool directory ---- */

/* Every missing folder of the path. */
bool assembly_directory_make(const char *path)
{
    char part[4096];
    size_t size = strlen(path);

    if (size >= sizeof(part)) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(part, path, size + 1);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return false;
        *slash = '/';
    }
    return mkdir(part, 0700) == 0 || errno == EEXIST;
}

enum err assembly_lock(struct assembly *assembly)
{
    return flock(assembly->directory, LOCK_EX | LOCK_NB) == 0 ? ERR_OK : ERR_DISK_LOCKED;
}

static enum err directory_lock(struct assembly *assembly, char why[ASSEMBLY_WHY_SIZE])
{
    const char *path = assembly->config->spool.directory;

    if (!assembly_directory_make(path))
        return fail(why, ERR_SYSTEM, "cannot make the spool directory", path);
    assembly->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (assembly->directory < 0)
        return fail(why, ERR_SYSTEM, "cannot open the spool directory", path);
    if (assembly->place == NULL && assembly_lock(assembly) != ERR_OK)
        return fail(why, ERR_DISK_LOCKED, "another relay uses the spool directory", path);
    return ERR_OK;
}

/* ---- one shard ---- */

static uint32_t flow_count(const struct config *config)
{
    uint32_t allowed = config->flow_count_allowed;

    return allowed > 0 && allowed < config->flow_count_max ? allowed : config->flow_count_max;
}

/* Those of ports want no descriptors. */
static uint32_t flow_count_all(const struct config *config)
{
    return config->dataplane.driver == DATAPLANE_DPDK ? config->flow_count_max : flow_count(config);
}

static enum err member_new(struct assembly *assembly, struct assembly_member *member,
                           struct rng *rng, char why[ASSEMBLY_WHY_SIZE])
{
    const struct config *config = assembly->config;

    TRY(dataplane_core_new(assembly->dataplane, member->index, rng_u64(rng), &member->plane, why));
    enum err err = disk_new(config->spool.directory, config->spool.method, &member->disk);
    if (err != ERR_OK)
        return fail(why, err, "cannot use the spool directory", config->spool.directory);
    return ERR_OK;
}
_Static_assert(DATAPLANE_WHY_SIZE <= ASSEMBLY_WHY_SIZE, "one reason fits the other");

static struct shard_options member_options(struct assembly *assembly, uint32_t index,
                                           struct record_writer *records, uint64_t epoch,
                                           const struct rng *rng)
{
    const struct config *config = assembly->config;
    struct assembly_member *member = &assembly->members[index];

    struct dns_options dns = config->dns;
    memcpy(dns.hash_key, assembly->dns_key, sizeof(dns.hash_key));
    return (struct shard_options){
        .index = index,
        .count = assembly->count,
        .plane = member->plane,
        .disk = member->disk,
        .clock = tick_source_system(),
        .rng = *rng,
        .mailbox = ring_member_get(assembly->group, index),
        .records = records == NULL ? record_sink_none() : record_writer_sink(records, index),
        .settings = &config->settings,
        .spool =
            {
                .segment_size = config->spool.segment_size,
                .size_max = config->spool.size / config->cores,
                .reserve_size = config->spool.reserve,
                .segment_spare_min = config->spool.spare_count,
                .commit_deadline = config->spool.commit_deadline,
                .lazy_time = config->spool.lazy_time,
                .scrub_rate = (config->spool.scrub_rate + config->cores - 1) / config->cores,
                .scrub_pause = config->spool.scrub_pause,
                .shares = &assembly->shares,
            },
        .epoch = epoch,
        .dns = dns,
        .message_count_max = config->message_count_max / config->cores,
        .body_memory_max = config->body_memory / config->cores,
        .connection_max = config->connections_per_site,
        .connection_start = config->connections_at_first,
        .outbound_max = flow_count_all(config) / 2,
        .body_octets = BODY_GATE_OCTETS,
        .inbound_flow_max = flow_count_all(config) - flow_count_all(config) / 4,
        .is_waiting = assembly->place != NULL,
    };
}

static enum err member_assemble(struct assembly *assembly, uint32_t index,
                                struct record_writer *records, uint64_t epoch,
                                char why[ASSEMBLY_WHY_SIZE])
{
    const struct config *config = assembly->config;
    struct assembly_member *member = &assembly->members[index];
    char address[FLOW_ADDRESS_TEXT_MAX];
    uint32_t failing = 0;
    struct rng rng;

    enum err err = rng_init_system(&rng);
    if (err != ERR_OK)
        return fail(why, err, "no", "randomness");
    TRY(member_new(assembly, member, &rng, why));
    TRY(assembly_place_give(assembly->place, config, member->index, member->plane, why));
    TRY(rng_init_system(&rng));
    struct shard_options options = member_options(assembly, index, records, epoch, &rng);
    errno = 0;
    err = shard_new(&options, &member->shard);
    if (err != ERR_OK)
        return fail(why, err, "cannot use the spool directory", config->spool.directory);
    if (assembly->place == NULL)
        err = shard_listen(member->shard, &failing);
    if (err != ERR_OK)
        return fail(why, err, "cannot listen on",
                    flow_address_format(&config->settings.listeners[failing].address, address));
    return ERR_OK;
}

/* ---- all of them ---- */

static enum err epoch_find(const struct config *config, uint64_t *ret_epoch,
                           char why[ASSEMBLY_WHY_SIZE])
{
    struct disk *disk;
    enum err err = disk_new(config->spool.directory, config->spool.method, &disk);

    if (err != ERR_OK)
        return fail(why, err, "cannot use the spool directory", config->spool.directory);
    err = spool_epoch_next(disk, ret_epoch);
    disk_free(disk);
    if (err != ERR_OK)
        return fail(why, err, "cannot read the spool directory", config->spool.directory);
    return ERR_OK;
}

static enum err members_assemble(struct assembly *assembly, struct record_writer *records,
                                 char why[ASSEMBLY_WHY_SIZE])
{
    uint64_t epoch = 0;
    struct rng rng;

    if (rng_init_system(&rng) != ERR_OK)
        return fail(why, ERR_SYSTEM, "no", "randomness");
    rng_fill(&rng, assembly->dns_key, sizeof(assembly->dns_key));
    TRY(assembly_listeners_probe(assembly->config, NULL, assembly->place, why));
    TRY(directory_lock(assembly, why));
    TRY(epoch_find(assembly->config, &epoch, why));
    struct dataplane_options dataplane = assembly->config->dataplane;
    dataplane.kernel_flow_count_max = flow_count(assembly->config);
    TRY(dataplane_new(&dataplane, &assembly->dataplane, why));
    for (uint32_t i = 0; i < assembly->count; i++)
        TRY(member_assemble(assembly, i, records, epoch, why));
    return ERR_OK;
}

enum err assembly_new(const struct config *config, struct record_writer *records,
                      const struct assembly_place *place, struct assembly **ret_assembly,
                      char ret_why[ASSEMBLY_WHY_SIZE])
{
    struct assembly *assembly = calloc(1, sizeof(*assembly));

    CHECK(assembly != NULL);
    assembly->config = config;
    assembly->place = place;
    assembly->count = assembly->shares.count = config->cores;
    assembly->directory = -1;
    assembly->recovery_eventfd = -1;
    assembly->members = calloc(assembly->count, sizeof(*assembly->members));
    CHECK(assembly->members != NULL);
    for (uint32_t i = 0; i < assembly->count; i++) {
        assembly->members[i].assembly = assembly;
        assembly->members[i].index = (uint16_t)i;
    }
    assembly->group = ring_group_new(assembly->count + 1, RING_SIZE);
    enum err err = members_assemble(assembly, records, ret_why);
    if (err != ERR_OK) {
        assembly_free(assembly);
        return err;
    }
    *ret_assembly = assembly;
    return ERR_OK;
}

static void *member_main(void *argument)
{
    struct assembly_member *member = argument;

    dataplane_thread_begin(member->assembly->dataplane);
    shard_run(member->shard);
    dataplane_thread_end(member->assembly->dataplane);
    return NULL;
}

/* Processor number `index` of those we may use; false when there are fewer than shards. */
static bool processor_find(uint32_t index, uint32_t count, cpu_set_t *ret_set)
{
    cpu_set_t allowed;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 ||
        (uint32_t)CPU_COUNT(&allowed) < count)
        return false;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || index-- > 0)
            continue;
        CPU_ZERO(ret_set);
        CPU_SET(cpu, ret_set);
        return true;
    }
    return false;
}

static int member_start(struct assembly *assembly, uint32_t index)
{
    struct assembly_member *member = &assembly->members[index];
    char name[20]; /* the kernel takes 15 letters: "shard 127" */
    cpu_set_t set;
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    if (processor_find(index, assembly->count, &set))
        pthread_attr_setaffinity_np(&attributes, sizeof(set), &set);
    else if (index == 0)
        log_line(LOG_WARNING, "cores=%u: more than processors, so that none is pinned",
                 assembly->count);
    int error = pthread_create(&member->thread, &attributes, member_main, member);
    pthread_attr_destroy(&attributes);
    member->is_started = error == 0;
    snprintf(name, sizeof(name), "shard %u", index);
    if (error == 0)
        pthread_setname_np(member->thread, name);
    return error;
}

enum err assembly_start(struct assembly *assembly, char ret_why[ASSEMBLY_WHY_SIZE])
{
    for (uint32_t i = 0; i < assembly->count; i++) {
        errno = member_start(assembly, i);
        if (errno != 0)
            return fail(ret_why, ERR_SYSTEM, "cannot start", "a thread");
    }
    return ERR_OK;
}

struct ring_member *assembly_mailbox(struct assembly *assembly)
{
    return ring_member_get(assembly->group, assembly->count);
}

tick_us assembly_watch(struct assembly *assembly, tick_us now)
{
    return dataplane_watch(assembly->dataplane, now);
}

uint32_t assembly_count(const struct assembly *assembly)
{
    return assembly->count;
}

void assembly_send(struct assembly *assembly, uint32_t shard, enum shard_message_kind kind,
                   const struct shard_control *control)
{
    struct ring_message message = {.kind = (uint16_t)kind, .payload_size = sizeof(*control)};

    CHECK(shard < assembly->count);
    memcpy(message.payload, control, sizeof(*control));
    ring_send(assembly_mailbox(assembly), shard, &message);
}

void assembly_send_all(struct assembly *assembly, enum shard_message_kind kind,
                       const struct shard_control *control)
{
    for (uint32_t i = 0; i < assembly->count; i++)
        assembly_send(assembly, i, kind, control);
}

void assembly_query(struct assembly *assembly, uint32_t shard, struct shard_query *query)
{
    CHECK(shard < assembly->count && !assembly->members[shard].is_started);
    shard_query_run(assembly->members[shard].shard, query);
}

void assembly_join(struct assembly *assembly)
{
    for (uint32_t i = 0; i < assembly->count; i++) {
        if (assembly->members[i].is_started)
            pthread_join(assembly->members[i].thread, NULL);
        assembly->members[i].is_started = false;
    }
}

static void member_free(struct assembly_member *member)
{
    if (member->is_started)
        pthread_join(member->thread, NULL);
    if (member->shard != NULL)
        shard_free(member->shard);
    if (member->disk != NULL)
        disk_free(member->disk);
    if (member->assembly->dataplane != NULL)
        dataplane_core_free(member->assembly->dataplane, member->index);
}

void assembly_free(struct assembly *assembly)
{
    CHECK(!assembly->is_recovering);
    for (uint32_t i = 0; i < assembly->count; i++)
        member_free(&assembly->members[i]);
    if (assembly->dataplane != NULL)
        dataplane_free(assembly->dataplane);
    ring_group_free(assembly->group);
    if (assembly->directory >= 0)
        close(assembly->directory);
    if (assembly->recovery_eventfd >= 0)
        close(assembly->recovery_eventfd);
    free(assembly->members);
    free(assembly);
}

/* ---- recovery ---- */

/* As many as may run at a time, beside shards that have little to do yet. */
static uint32_t recovery_threads(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    return online < 1 ? 1 : online > RECOVERY_THREADS_MAX ? RECOVERY_THREADS_MAX : (uint32_t)online;
}

static void *recovery_main(void *argument)
{
    struct assembly *assembly = argument;
    uint64_t one = 1;
    struct spool_recovery_options options = {.threads = recovery_threads()};

    assembly->recovery_err =
        spool_recovery_run(assembly->recovery_disk, &options, &assembly->recovery);
    ssize_t size = write(assembly->recovery_eventfd, &one, sizeof(one));
    CHECK(size == sizeof(one));
    return NULL;
}

enum err assembly_recovery_start(struct assembly *assembly, const struct config *config)
{
    assembly->recovery_eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (assembly->recovery_eventfd < 0)
        return ERR_SYSTEM;
    TRY(disk_new(config->spool.directory, DISK_KIND_THREAD, &assembly->recovery_disk));
    if (pthread_create(&assembly->recovery_thread, NULL, recovery_main, assembly) != 0) {
        disk_free(assembly->recovery_disk);
        return ERR_SYSTEM;
    }
    pthread_setname_np(assembly->recovery_thread, "recovery");
    assembly->is_recovering = true;
    return ERR_OK;
}

bool assembly_is_recovering(const struct assembly *assembly)
{
    return assembly->is_recovering;
}

int assembly_recovery_eventfd(const struct assembly *assembly)
{
    return assembly->recovery_eventfd;
}

enum err assembly_recovery_finish(struct assembly *assembly, struct spool_recovery **ret_recovery)
{
    uint64_t count;
    ssize_t size = read(assembly->recovery_eventfd, &count, sizeof(count));

    CHECK(assembly->is_recovering && size == sizeof(count));
    pthread_join(assembly->recovery_thread, NULL);
    assembly->is_recovering = false;
    if (assembly->recovery_err != ERR_OK) {
        disk_free(assembly->recovery_disk);
        return assembly->recovery_err;
    }
    *ret_recovery = assembly->recovery;
    return ERR_OK;
}

void assembly_recovery_free(struct assembly *assembly)
{
    spool_recovery_free(assembly->recovery);
    disk_free(assembly->recovery_disk);
}
