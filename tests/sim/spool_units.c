/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a start can tell apart of a medium after a power loss.
 *
 * A start takes nothing from a segment that has not passed a checksum. So all that it learns is,
 * for each extent of octets with a checksum of its own (header of the segment, header of a record,
 * payload of a record, trailer, index), whether it is intact; and which names there are, and
 * whether a file has its size. (It also looks whether a segment without a valid header is all
 * zeros. Only the sector with the header itself can decide that: a stamp writes zeros behind it.)
 *
 * An extent is intact when every sector is there in which it has octets of its own that the loss
 * would change. Hence, for sectors of one unsynced write:
 *   - a sector whose octets would be the same without the write makes no difference (SAME);
 *   - nor does one that changes no extent (UNTOLD): zeros over leftovers, padding;
 *   - those that change the same set of extents are one class: whichever of them is lost, the same
 *     extents are broken, and all others are as they were.
 * So all 2^k parts of k classes, names and sizes have every outcome that all 2^n parts of n sectors
 * have. test_spool_subsets.c tries that out.
 *
 * Extents count when their salt is that of a header which the segment may have after the loss: in
 * the stable octets, or in the unsynced ones. What stands under a write counts as well: a sector
 * that would break such an extent is a class of its own. So is every sector of a file in which
 * unsynced writes lie over each other; there nothing is put together.
 *
 * Limits: UNITS_MAX, UNIT_CLASSES, EXTENTS_MAX for each file.
 */
#include "tests/sim/spool_units.h"

#include "queue/spool_record.h"
#include "tests/sim/disk_sim_medium.h"

#define EXTENTS_MAX 4096u
#define SALTS_MAX   2u

struct extent {
    uint64_t start, end;
    bool is_standing; /* of the stable octets */
};

struct finder {
    struct spool_units *units;
    const struct sim_file *file;
    struct extent extents[EXTENTS_MAX];
    uint32_t extent_count;
    uint64_t salts[SALTS_MAX];
    uint32_t salt_count;
    uint64_t keys[UNIT_CLASSES]; /* of classes of this file: the set of extents; 0: of its own */
    bool is_overlaid;            /* unsynced writes lie over each other */
};

/* ---- extents ---- */

static void finder_add(struct finder *finder, uint64_t start, uint64_t size, bool is_standing)
{
    CHECK(finder->extent_count < EXTENTS_MAX);
    if (size > 0)
        finder->extents[finder->extent_count++] = (struct extent){start, start + size, is_standing};
}

static bool finder_has_salt(const struct finder *finder, uint64_t salt)
{
    for (uint32_t i = 0; i < finder->salt_count; i++) {
        if (finder->salts[i] == salt)
            return true;
    }
    return false;
}

static void finder_header(struct finder *finder, const uint8_t *image, bool is_standing)
{
    struct spool_segment_header header;
    if (finder->file->size < SPOOL_BLOCK_SIZE ||
        spool_segment_header_open(span_of(image, SPOOL_BLOCK_SIZE), &header) != ERR_OK)
        return;
    finder_add(finder, 0, sizeof(header), is_standing);
    if (!finder_has_salt(finder, header.salt))
        finder->salts[finder->salt_count++] = header.salt;
}

static void finder_records(struct finder *finder, const uint8_t *image, bool is_standing)
{
    const uint64_t size = finder->file->size;
    struct spool_record record;
    for (uint64_t at = SPOOL_BLOCK_SIZE; at + sizeof(record) <= size; at += 8) {
        memcpy(&record, image + at, sizeof(record));
        if (record.magic != SPOOL_RECORD_MAGIC || !finder_has_salt(finder, record.salt) ||
            spool_record_open(span_of(image + at, sizeof(record)), record.salt, &record) != ERR_OK)
            continue;
        uint64_t start = at + sizeof(record), left = size - start;
        finder_add(finder, at, sizeof(record), is_standing);
        finder_add(finder, start, record.payload_size < left ? record.payload_size : left,
                   is_standing);
    }
}

static void finder_index(struct finder *finder, const uint8_t *image, bool is_standing)
{
    const uint64_t size = finder->file->size;
    struct spool_trailer trailer;
    if (size < 2 * SPOOL_BLOCK_SIZE)
        return;
    uint64_t at = size - SPOOL_BLOCK_SIZE;
    memcpy(&trailer, image + at, sizeof(trailer));
    if (!finder_has_salt(finder, trailer.salt) ||
        spool_trailer_open(span_of(image + at, sizeof(trailer)), trailer.salt, (uint32_t)size,
                           &trailer) != ERR_OK)
        return;
    finder_add(finder, at, sizeof(trailer), is_standing);
    finder_add(finder, trailer.index_offset, spool_index_size(&trailer), is_standing);
}

/* Another unsynced write has octets in this range. */
static bool finder_is_overlaid(const struct finder *finder, const struct sim_write *write,
                               uint64_t start, uint64_t stop)
{
    for (const struct sim_write *other = finder->file->writes; other != NULL; other = other->next) {
        if (other != write && start < other->offset + other->size && other->offset < stop)
            return true;
    }
    return false;
}

static void finder_begin(struct finder *finder, const struct sim_file *file)
{
    finder->file = file;
    finder->extent_count = finder->salt_count = 0;
    memset(finder->keys, 0, sizeof(finder->keys));
    finder->is_overlaid = false;
    if (file->writes == NULL)
        return;
    for (const struct sim_write *write = file->writes; write != NULL; write = write->next)
        finder->is_overlaid |=
            finder_is_overlaid(finder, write, write->offset, write->offset + write->size);
    finder_header(finder, file->stable, true);
    finder_header(finder, file->cached, false);
    finder_records(finder, file->stable, true);
    finder_records(finder, file->cached, false);
    finder_index(finder, file->stable, true);
    finder_index(finder, file->cached, false);
}

/* ---- classes ---- */

static void units_add(struct spool_units *units, uint16_t class)
{
    CHECK(units->count < UNITS_MAX);
    units->classes[units->count++] = class;
    units->different += class != UNIT_SAME;
    units->told += class != UNIT_SAME && class != UNIT_UNTOLD;
    if (class < UNIT_CLASSES)
        units->sizes[class]++;
}

static uint16_t units_new_class(struct spool_units *units)
{
    CHECK(units->class_count < UNIT_CLASSES);
    units->sizes[units->class_count] = 0;
    return (uint16_t)units->class_count++;
}

/* The set of extents that a loss of these octets would change: 0: none. ret_is_standing: one of
 * them stands under the write. */
static uint64_t finder_key(const struct finder *finder, const uint8_t *octets, uint64_t start,
                           uint64_t stop, bool *ret_is_standing)
{
    uint64_t key = 0;
    for (uint32_t i = 0; i < finder->extent_count; i++) {
        const struct extent *extent = &finder->extents[i];
        uint64_t from = start > extent->start ? start : extent->start;
        uint64_t to = stop < extent->end ? stop : extent->end;
        if (from >= to ||
            memcmp(finder->file->stable + from, octets + (from - start), to - from) == 0)
            continue;
        *ret_is_standing |= extent->is_standing;
        uint64_t part = (extent->start * 2 + extent->is_standing + 1) * 0x9e3779b97f4a7c15u;
        key += (part ^ part >> 31) * 0xbf58476d1ce4e5b9u;
    }
    return key;
}

static bool finder_sector(void *context, const struct sim_write *write, uint64_t sector)
{
    struct finder *finder = context;
    struct spool_units *units = finder->units;
    uint64_t start = sector * SIM_SECTOR_SIZE, stop = start + SIM_SECTOR_SIZE;
    uint64_t end = write->offset + write->size;
    start = start > write->offset ? start : write->offset;
    stop = stop < end ? stop : end;
    const uint8_t *octets = write->data + (start - write->offset);
    bool is_standing = false;

    if (memcmp(finder->file->stable + start, octets, stop - start) == 0 &&
        !finder_is_overlaid(finder, write, start, stop)) {
        units_add(units, UNIT_SAME);
        return false;
    }
    if (finder->is_overlaid) {
        units_add(units, units_new_class(units));
        return false;
    }
    uint64_t key = finder_key(finder, octets, start, stop, &is_standing);
    uint32_t class = 0;
    while (class < units->class_count && (is_standing || finder->keys[class] != key))
        class ++;
    if (key == 0)
        class = UNIT_UNTOLD;
    else if (class == units->class_count)
        finder->keys[units_new_class(units)] = is_standing ? 0 : key;
    units_add(units, (uint16_t) class);
    return false;
}

void spool_units_find(struct spool_units *units, const struct disk_sim *sim)
{
    static struct finder finder;
    finder.units = units;
    units->count = units->told = units->different = units->class_count = 0;
    for (struct sim_file *file = sim->files; file != NULL; file = file->next) {
        finder_begin(&finder, file);
        sim_file_each_sector(file, finder_sector, &finder);
    }
    for (const struct sim_file *file = sim->files; file != NULL; file = file->next) {
        if (file->is_named != file->is_named_stable)
            units_add(units, units_new_class(units));
    }
    for (const struct sim_file *file = sim->files; file != NULL; file = file->next) {
        if (file->is_half_made)
            units_add(units, units_new_class(units));
    }
}
