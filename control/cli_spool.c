/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium spool: looking at the spool of a relay that does not run, and taking over a dead host's.
 *
 *   check DIR       reads every record; fails when one is damaged or a message is lost
 *   stats DIR       what is in it: segments, records, space by what it is used for
 *   dump DIR [ID]   one line for every record, or for those of one message
 *   adopt FROM TO   moves the segments of FROM into TO, the spool directory of a living relay
 *
 * Adoption is safe to repeat, whenever it was broken off: a segment gets a name from its epoch and
 * its salt, which no other has, appears under it only when it is whole and synced, and leaves FROM
 * only after that. Two relays must never deliver from the same segments: a copy of FROM that stays
 * is not to be started or adopted again.
 *
 * How far the dead host's numbers of orders went goes first (order_number.c). Its orders that
 * stand, what its limits and quotas have counted, and what bars its sources stay behind: they are
 * about its own traffic.
 *
 * Not here: what a segment is (queue/spool_record.h), recovery (queue/spool_recovery.c).
 */
#include "control/cli_spool.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/cli_print.h"
#include "control/kept_file.h"
#include "control/order_number.h"
#include "queue/spool_inspect.h"

#define COPY_SIZE   (1u << 20)
#define SUFFIX      ".spool"
#define SUFFIX_PART ".part" /* no segment's: a relay does not see it */

static const char *const kind_names[SPOOL_SEGMENT_KIND_COUNT] = {"sealed", "open", "blank",
                                                                 "damaged"};
static const char *const type_names[SPOOL_RECORD_TYPE_END] = {"?",        "BODY", "MESSAGE",
                                                              "PROGRESS", "DONE", "VOID"};

static bool told(const char *path, const char *what)
{
    (void)fprintf(stderr, "angarium: %s: %s\n", path, what);
    return false;
}

/* Nobody else may use the directory meanwhile. False: told why. */
static bool directory_take(const char *path, int *ret_fd)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return told(path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return told(path, "a relay uses this spool: stop it, or take a copy");
    }
    *ret_fd = fd;
    return true;
}

static bool inspect(const char *path, const struct spool_inspect_visitor *visitor,
                    struct spool_inspect_counts *ret_counts)
{
    struct disk *disk;
    int directory;

    if (!directory_take(path, &directory))
        return false;
    enum err err = disk_new(path, DISK_KIND_THREAD, &disk);
    if (err == ERR_OK) {
        err = spool_inspect(disk, visitor, ret_counts);
        disk_free(disk);
    }
    close(directory);
    if (err != ERR_OK)
        return told(path, err_text(err));
    return true;
}

/* ---- check and stats ---- */

static json_t *counts_json(const struct spool_inspect_counts *counts)
{
    json_t *answer = json_object(), *segments = json_object(), *records = json_object();

    for (uint32_t i = 0; i < SPOOL_SEGMENT_KIND_COUNT; i++)
        json_object_set_new(segments, kind_names[i], json_integer(counts->segments[i]));
    json_object_set_new(segments, "busy", json_integer(counts->segments_busy));
    for (uint32_t i = SPOOL_BODY; i < SPOOL_RECORD_TYPE_END; i++)
        json_object_set_new(records, type_names[i], json_integer((json_int_t)counts->records[i]));
    json_object_set_new(records, "damaged", json_integer((json_int_t)counts->records_damaged));
    json_object_set_new(answer, "messages_live", json_integer(counts->messages_live));
    json_object_set_new(answer, "messages_lost", json_integer(counts->messages_lost));
    json_object_set_new(answer, "octets_total", json_integer((json_int_t)counts->octets_total));
    json_object_set_new(answer, "octets_live", json_integer((json_int_t)counts->octets_live));
    json_object_set_new(answer, "segments", segments);
    json_object_set_new(answer, "records", records);
    return answer;
}

static void counts_print(const struct spool_inspect_counts *counts)
{
    char live[24], total[24];

    printf("messages   %u live, %u lost\n", counts->messages_live, counts->messages_lost);
    printf("segments   %u sealed, %u open, %u blank, %u damaged, %u busy\n",
           counts->segments[SPOOL_SEGMENT_IS_SEALED], counts->segments[SPOOL_SEGMENT_IS_OPEN],
           counts->segments[SPOOL_SEGMENT_IS_BLANK], counts->segments[SPOOL_SEGMENT_IS_DAMAGED],
           counts->segments_busy);
    printf("records   ");
    for (uint32_t i = SPOOL_BODY; i < SPOOL_RECORD_TYPE_END; i++)
        printf(" %lu %s,", counts->records[i], type_names[i]);
    printf(" %lu damaged\n", counts->records_damaged);
    printf("space      %s in use for live messages, of %s\n",
           cli_size_format(counts->octets_live, live),
           cli_size_format(counts->octets_total, total));
}

static void on_damage(void *context, const struct spool_inspect_record *record)
{
    (void)context;
    if (record->is_damaged)
        (void)fprintf(stderr, "angarium: %s: a damaged record at %u\n", record->segment,
                      record->offset);
}

static void on_segment(void *context, const struct spool_inspect_segment *segment)
{
    char live[24], total[24];

    if (*(const bool *)context)
        return;
    printf("%-40s %-8s epoch %-6u %8lu records %8s live of %s\n", segment->name,
           kind_names[segment->kind], segment->header.epoch, segment->records,
           cli_size_format(segment->octets_live, live),
           cli_size_format(segment->header.segment_size, total));
}

static bool stats_show(const char *path, bool is_check, bool is_json)
{
    struct spool_inspect_visitor visitor = {
        .context = &is_json,
        .on_record = is_check ? on_damage : NULL,
        .on_segment = is_check ? NULL : on_segment,
    };
    struct spool_inspect_counts counts;

    if (!inspect(path, &visitor, &counts))
        return false;
    if (is_json) {
        json_t *answer = counts_json(&counts);
        json_dumpf(answer, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(answer);
    } else {
        counts_print(&counts);
    }
    bool is_good = counts.records_damaged == 0 && counts.messages_lost == 0 &&
                   counts.segments_busy == 0 && counts.segments[SPOOL_SEGMENT_IS_DAMAGED] == 0;
    return !is_check || is_good;
}

/* ---- dump ---- */

struct dump {
    bool is_json, has_id;
    struct message_id id;
};

static void on_record(void *context, const struct spool_inspect_record *record)
{
    const struct dump *dump = context;
    const struct spool_record *header = &record->record;
    char id[MESSAGE_ID_TEXT_SIZE];

    if (dump->has_id && !message_id_is_equal(dump->id, header->id))
        return;
    const char *type = type_names[header->type];
    message_id_format(header->id, id);
    if (dump->is_json)
        printf("{\"segment\": \"%s\", \"offset\": %u, \"type\": \"%s\", \"id\": \"%s\", \"epoch\": "
               "%u, \"sequence\": %lu, \"copy\": %u, \"part\": %u, \"size\": %u, \"is_damaged\": "
               "%s}\n",
               record->segment, record->offset, type, id, header->epoch, header->sequence,
               header->copy, header->part, header->payload_size,
               record->is_damaged ? "true" : "false");
    else
        printf("%s %u %s %s epoch %u sequence %lu copy %u part %u size %u%s\n", record->segment,
               record->offset, type, id, header->epoch, header->sequence, header->copy,
               header->part, header->payload_size, record->is_damaged ? " damaged" : "");
}

static bool dump_show(const char *path, const char *id, bool is_json)
{
    struct dump dump = {.is_json = is_json, .has_id = id != NULL};
    struct spool_inspect_visitor visitor = {.context = &dump, .on_record = on_record};
    struct spool_inspect_counts counts;

    if (id != NULL && message_id_parse(span_from_text(id), &dump.id) != ERR_OK)
        return told(id, "not the id of a message");
    return inspect(path, &visitor, &counts);
}

/* ---- adopt ---- */

struct adoption {
    const char *from_path, *to_path;
    int from, to; /* directories */
    uint32_t moved;
    bool has_failed;
};

static bool adopt_failed(struct adoption *adoption, const char *path, const char *what)
{
    adoption->has_failed = true;
    return told(path, what);
}

static bool octets_copy(int from, int to)
{
    uint8_t *block = malloc(COPY_SIZE);
    ssize_t got = -1;
    bool is_good = block != NULL;

    while (is_good && (got = read(from, block, COPY_SIZE)) > 0)
        is_good = kept_octets_write(to, block, (size_t)got);
    free(block);
    return is_good && got == 0 && fsync(to) == 0;
}

/* Whole and synced under a name that no relay looks at; or told why not, and nothing of it left. */
static bool segment_copy(struct adoption *adoption, const char *name, const char *part)
{
    int from = openat(adoption->from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int to =
        openat(adoption->to, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool is_good = from >= 0 && to >= 0 && octets_copy(from, to);
    int error = errno;

    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    if (to >= 0 && !is_good)
        (void)unlinkat(adoption->to, part, 0);
    return is_good || adopt_failed(adoption, name, strerror(error));
}

/* The relay that owns the directory must be able to open it. */
static void file_give(const struct adoption *adoption, const char *name)
{
    struct stat status;

    if (fstat(adoption->to, &status) == 0 &&
        fchownat(adoption->to, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) != 0)
        (void)told(name, strerror(errno));
}

static bool segment_move(struct adoption *adoption, const char *name, const char *name_new)
{
    char part[DISK_NAME_SIZE_MAX + sizeof(SUFFIX_PART)];

    if (renameat2(adoption->from, name, adoption->to, name_new, RENAME_NOREPLACE) == 0) {
        file_give(adoption, name_new);
        return fsync(adoption->to) == 0 && fsync(adoption->from) == 0;
    }
    if (errno != EXDEV && errno != EEXIST && errno != EINVAL)
        return adopt_failed(adoption, name, strerror(errno));
    snprintf(part, sizeof(part), "%s%s", name_new, SUFFIX_PART);
    if (faccessat(adoption->to, name_new, F_OK, 0) != 0) { /* else: moved before a crash */
        if (!segment_copy(adoption, name, part))
            return false;
        file_give(adoption, part);
        if (renameat(adoption->to, part, adoption->to, name_new) != 0)
            return adopt_failed(adoption, part, strerror(errno));
    }
    if (fsync(adoption->to) != 0 || unlinkat(adoption->from, name, 0) != 0)
        return adopt_failed(adoption, name, strerror(errno));
    return fsync(adoption->from) == 0;
}

static void adopt_segment(void *context, const struct spool_inspect_segment *segment)
{
    struct adoption *adoption = context;
    char name[DISK_NAME_SIZE_MAX];

    if (segment->header.segment_size == 0 || adoption->has_failed)
        return; /* no header: nothing that a relay could read */
    snprintf(name, sizeof(name), "%08x-adopted-%016lx" SUFFIX, segment->header.epoch,
             segment->header.salt);
    if (segment_move(adoption, segment->name, name))
        adoption->moved++;
}

/* No order here gets a number that one of the dead host has: it would let go of that one's mail. */
static bool adopt_numbers(const struct adoption *adoption)
{
    if (!order_numbers_adopt(adoption->from_path, adoption->to_path))
        return told(ORDER_NUMBERS_ADOPTED, strerror(errno));
    if (faccessat(adoption->to, ORDER_NUMBERS_ADOPTED, F_OK, 0) == 0)
        file_give(adoption, ORDER_NUMBERS_ADOPTED);
    return fsync(adoption->to) == 0;
}

static bool adopt_run(const char *from, const char *to)
{
    struct adoption adoption = {.from_path = from, .to_path = to, .from = -1, .to = -1};
    struct spool_inspect_visitor look = {0};
    struct spool_inspect_visitor visitor = {.context = &adoption, .on_segment = adopt_segment};
    struct spool_inspect_counts counts;

    if (!inspect(from, &look, &counts))
        return false;
    if (counts.segments_busy > 0)
        return told(from, "segments are locked: something still runs on this spool");
    adoption.from = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    adoption.to = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_good = adoption.from >= 0 && adoption.to >= 0;
    if (!is_good)
        (void)told(to, strerror(errno));
    is_good = is_good && adopt_numbers(&adoption);
    is_good = is_good && inspect(from, &visitor, &counts) && !adoption.has_failed;
    if (adoption.from >= 0)
        close(adoption.from);
    if (adoption.to >= 0)
        close(adoption.to);
    printf(
        "%u segments with %u messages moved; the relay on %s takes them over at its next start\n",
        adoption.moved, counts.messages_live, to);
    return is_good;
}

bool cli_spool_run(const char *verb, const char *const operands[2], uint32_t operand_count,
                   bool is_json)
{
    if (strcmp(verb, "spool check") == 0 || strcmp(verb, "spool stats") == 0)
        return stats_show(operands[0], strcmp(verb, "spool check") == 0, is_json);
    if (strcmp(verb, "spool dump") == 0)
        return dump_show(operands[0], operand_count > 1 ? operands[1] : NULL, is_json);
    CHECK(strcmp(verb, "spool adopt") == 0 && operand_count == 2);
    return adopt_run(operands[0], operands[1]);
}
