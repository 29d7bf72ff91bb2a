/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not here: files that somebody compressed (zgrep finds them as well: the id is in every line).
 */
#include "control/record_search.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/record_json.h"
#include "control/record_raw.h"
#include "control/record_reader.h"

#define LOOKS_PER_CLOCK 1024u /* lines between two looks at the clock */

void record_search_init(struct record_search *search, struct message_id id)
{
    char text[MESSAGE_ID_TEXT_SIZE];

    *search = (struct record_search){
        .id = id, .found_max = UINT64_MAX, .octets_max = UINT64_MAX, .deadline = TICK_NEVER};
    (void)message_id_format(id, text);
    (void)snprintf(search->json, sizeof(search->json), "\"id\":\"%s\"", text);
    (void)snprintf(search->csv, sizeof(search->csv), ",%s,%s-", text, text);
}

bool record_file_is_raw(const char *path)
{
    char head[RECORD_RAW_HEAD_SIZE];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return false;
    bool is_raw = read(fd, head, sizeof(head)) == (ssize_t)sizeof(head) &&
                  memcmp(head, record_raw_head, sizeof(head)) == 0;
    close(fd);
    return is_raw;
}

static bool span_has(struct span line, const char *text)
{
    return line.data != NULL && memmem(line.data, line.size, text, strlen(text)) != NULL;
}

/* So much was looked at, the `looks`-th time. False: no more. */
static bool search_goes_on(struct record_search *search, uint64_t size, uint32_t looks)
{
    const struct tick_source *clock = tick_source_system();

    search->octets += size;
    if (search->octets > search->octets_max)
        return false;
    return search->deadline == TICK_NEVER || looks % LOOKS_PER_CLOCK != 0 ||
           clock->monotonic(clock->context) < search->deadline;
}

/* False: it was one too many. */
static bool line_take(struct record_search *search, struct span line)
{
    if (search->found == search->found_max)
        return false;
    search->found++;
    search->on_line(search->context, line);
    return true;
}

static bool raw_search(struct record_search *search, struct record_reader *reader)
{
    struct record_time time = {0};
    struct record record;
    char line[RECORD_JSON_SIZE_MAX];

    for (uint32_t looks = 1; record_reader_next_raw(reader, &record); looks++) {
        if (!search_goes_on(search, RECORD_RAW_SIZE_MIN, looks))
            return false;
        if (!message_id_is_equal(record.id, search->id))
            continue;
        uint32_t size = record_json_format(&record, &time, line);
        if (!line_take(search, span_of(line, size - 1)))
            return false;
    }
    return true;
}

static bool line_search(struct record_search *search, struct record_reader *reader)
{
    struct span line;

    for (uint32_t looks = 1; record_reader_next(reader, &line); looks++) {
        if (!search_goes_on(search, line.size + 1, looks))
            return false;
        if ((span_has(line, search->json) || span_has(line, search->csv)) &&
            !line_take(search, line))
            return false;
    }
    return true;
}

bool record_search_file(struct record_search *search, const char *path)
{
    struct record_reader reader;
    bool is_raw = record_file_is_raw(path);

    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    bool is_whole = is_raw ? raw_search(search, &reader) : line_search(search, &reader);
    record_reader_close(&reader);
    return is_whole;
}
