/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of the simulated medium.
 *
 * `cached` is what every reader sees; `stable` is what a power loss cannot take. A write goes into
 * `cached` and onto the list of unsynced writes; a sync moves listed writes into `stable`. A power
 * loss makes the new content from `stable` and a random choice of sectors of the listed writes.
 *
 * Invariants
 *   1. cached == stable with every listed write laid over it in order (while no crash happened).
 *   2. A forsaken write (a sync over it failed) never becomes stable by a later sync: Linux marks
 *      the pages clean after EIO, so that a second fsync succeeds without writing them.
 *   3. A sector survives as a whole: no mix of old and new octets inside 512.
 *
 * Not here: time, failures, handles and locks (disk_sim.c).
 */
#include "tests/sim/disk_sim_file.h"

#include <stdlib.h>
#include <string.h>

void sim_file_touch(struct sim_file *file)
{
    static uint64_t version;
    file->version = ++version;
}

static void sim_file_grow(struct sim_file *file, uint64_t size)
{
    if (size <= file->room)
        return;
    uint64_t room = size < 2 * file->room ? 2 * file->room : size;
    uint8_t *cached = calloc(1, room), *stable = calloc(1, room);
    CHECK(cached != NULL && stable != NULL);
    if (file->room > 0) {
        memcpy(cached, file->cached, file->room);
        memcpy(stable, file->stable, file->room);
    }
    free(file->cached);
    free(file->stable);
    file->cached = cached;
    file->stable = stable;
    file->room = room;
}

struct sim_file *sim_file_new(const char *name)
{
    CHECK(strlen(name) < DISK_NAME_SIZE_MAX);
    struct sim_file *file = calloc(1, sizeof(*file));
    CHECK(file != NULL);
    memcpy(file->name, name, strlen(name) + 1);
    file->is_named = true;
    sim_file_touch(file);
    return file;
}

static void sim_file_forget_writes(struct sim_file *file)
{
    while (file->writes != NULL) {
        struct sim_write *write = file->writes;
        file->writes = write->next;
        free(write->data);
        free(write);
    }
}

void sim_file_free(struct sim_file *file)
{
    sim_file_forget_writes(file);
    free(file->cached);
    free(file->stable);
    free(file);
}

static void *octets_copy(const void *octets, uint64_t size)
{
    void *copy = malloc(size + 1);
    CHECK(copy != NULL);
    memcpy(copy, octets, size);
    return copy;
}

void sim_file_copy(struct sim_file *copy, const struct sim_file *file)
{
    sim_file_forget_writes(copy);
    sim_file_grow(copy, file->room);
    struct sim_file old = *copy;
    *copy = *file;
    copy->next = old.next;
    copy->cached = old.cached;
    copy->stable = old.stable;
    copy->room = old.room;
    copy->lock_holder = NULL;
    if (old.version != file->version && file->room > 0) {
        memcpy(copy->cached, file->cached, file->room);
        memcpy(copy->stable, file->stable, file->room);
        memset(copy->cached + file->room, 0, copy->room - file->room);
        memset(copy->stable + file->room, 0, copy->room - file->room);
    }
    struct sim_write **end = &copy->writes;
    for (const struct sim_write *write = file->writes; write != NULL; write = write->next) {
        *end = octets_copy(write, sizeof(*write));
        (*end)->data = octets_copy(write->data, write->size);
        end = &(*end)->next;
    }
    *end = NULL;
}

void sim_file_renew(struct sim_file *file, const char *name)
{
    sim_file_empty(file);
    CHECK(strlen(name) < DISK_NAME_SIZE_MAX);
    memcpy(file->name, name, strlen(name) + 1);
    file->lock_holder = NULL;
    file->is_named = true;
    file->is_named_stable = file->is_half_made = false;
}

void sim_file_empty(struct sim_file *file)
{
    sim_file_forget_writes(file);
    sim_file_touch(file);
    if (file->room > 0) {
        memset(file->cached, 0, file->room);
        memset(file->stable, 0, file->room);
    }
    file->size = file->stable_size = 0;
}

void sim_file_allocate(struct sim_file *file, uint64_t size)
{
    sim_file_grow(file, size);
    sim_file_touch(file);
    if (file->size < size)
        file->size = size;
    if (file->stable_size < size)
        file->stable_size = size;
}

void sim_file_write(struct sim_file *file, uint64_t offset, const uint8_t *data, uint32_t size,
                    uint64_t stamp)
{
    if (size == 0)
        return;
    sim_file_grow(file, offset + size);
    sim_file_touch(file);
    memcpy(file->cached + offset, data, size);
    if (file->size < offset + size)
        file->size = offset + size;

    struct sim_write *write = calloc(1, sizeof(*write));
    CHECK(write != NULL);
    *write = (struct sim_write){.offset = offset, .stamp = stamp, .size = size};
    write->data = malloc(size);
    CHECK(write->data != NULL);
    memcpy(write->data, data, size);
    struct sim_write **end = &file->writes;
    while (*end != NULL)
        end = &(*end)->next;
    *end = write;
}

void sim_file_sync(struct sim_file *file, uint64_t stamp, bool is_lost)
{
    for (struct sim_write **link = &file->writes; *link != NULL;) {
        struct sim_write *write = *link;
        if (write->stamp > stamp || write->is_forsaken || is_lost) {
            write->is_forsaken |= is_lost;
            link = &write->next;
            continue;
        }
        sim_file_touch(file);
        memcpy(file->stable + write->offset, write->data, write->size);
        if (file->stable_size < write->offset + write->size)
            file->stable_size = write->offset + write->size;
        *link = write->next;
        free(write->data);
        free(write);
    }
}

/* Lay the surviving sectors of one write over the stable content. */
static void sim_file_survive(struct sim_file *file, const struct sim_write *write,
                             sim_keep *is_kept, void *context)
{
    uint64_t end = write->offset + write->size;
    for (uint64_t at = write->offset; at < end;) {
        uint64_t sector_end = (at / SIM_SECTOR_SIZE + 1) * SIM_SECTOR_SIZE;
        uint64_t stop = sector_end < end ? sector_end : end;
        if (is_kept(context, write, at / SIM_SECTOR_SIZE)) {
            memcpy(file->stable + at, write->data + (at - write->offset), stop - at);
            if (file->stable_size < stop)
                file->stable_size = stop;
        }
        at = stop;
    }
}

void sim_file_each_sector(struct sim_file *file, sim_keep *keeps_none, void *context)
{
    for (const struct sim_write *write = file->writes; write != NULL; write = write->next)
        sim_file_survive(file, write, keeps_none, context);
}

void sim_file_lose(struct sim_file *file, sim_keep *is_kept, void *context)
{
    if (file->writes != NULL) {
        for (const struct sim_write *write = file->writes; write != NULL; write = write->next)
            sim_file_survive(file, write, is_kept, context);
        sim_file_forget_writes(file);
        sim_file_touch(file);
        memcpy(file->cached, file->stable, file->room);
    }
    file->size = file->stable_size;
    file->lock_holder = NULL;
}

struct sim_chance {
    struct rng *rng;
    const struct sim_write *write; /* the last one asked for */
    uint32_t keep;                 /* of 8 of its sectors survive on average */
};

static bool sim_chance_keeps(void *context, const struct sim_write *write, uint64_t sector)
{
    /* Whole writes kept or lost are as likely as torn ones: both ends are legal and interesting. */
    static const uint32_t keeps[] = {0, 0, 8, 8, 1, 4, 7, 7};
    struct sim_chance *chance = context;

    (void)sector;
    if (chance->write != write)
        chance->keep = keeps[rng_below(chance->rng, COUNT_OF(keeps))];
    chance->write = write;
    return rng_below(chance->rng, 8) < chance->keep;
}

void sim_file_crash(struct sim_file *file, struct rng *rng)
{
    struct sim_chance chance = {.rng = rng};

    sim_file_lose(file, sim_chance_keeps, &chance);
}
