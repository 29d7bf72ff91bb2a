/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Not here: files that somebody compressed (zgrep finds them as well: the id is in every line).
 */
#include "control/record_search.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/record_json.h"
#include "control/record_raw.h"
#include "control/record_reader.h"

#define LOOKS_PER_CLOCK 1024u      /* lines between two looks at the clock */
#define PASSED_PER_LOOK (1u << 20) /* octets that make none are such a look, too */

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

/* So much was looked at. False: no more. */
static bool search_goes_on(struct record_search *search, uint64_t size, bool is_time)
{
    const struct tick_source *clock = tick_source_system();

    search->octets += size;
    if (search->octets > search->octets_max)
        return false;
    return search->deadline == TICK_NEVER || !is_time ||
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

    for (uint32_t looks = 1;; looks++) {
        uint64_t passed = reader->passed;
        bool is_record = record_reader_next_raw(reader, &record);
        passed = reader->passed - passed;
        search->passed += passed;
        if (!is_record && !reader->is_cut)
            return true;
        if (!search_goes_on(search, passed + (is_record ? RECORD_RAW_SIZE_MIN : 0),
                            !is_record || looks % LOOKS_PER_CLOCK == 0))
            return false;
        if (!is_record || !message_id_is_equal(record.id, search->id))
            continue;
        uint32_t size = record_json_format(&record, &time, line);
        if (!line_take(search, span_of(line, size - 1)))
            return false;
    }
}

static bool line_search(struct record_search *search, struct record_reader *reader)
{
    struct span line;

    for (uint32_t looks = 1;; looks++) {
        uint64_t passed = reader->passed;
        bool is_line = record_reader_next(reader, &line);
        passed = reader->passed - passed;
        if (!is_line && !reader->is_cut)
            return true;
        if (!search_goes_on(search, passed + (is_line ? line.size + 1 : 0),
                            !is_line || looks % LOOKS_PER_CLOCK == 0))
            return false;
        if (!is_line)
            continue;
        if ((span_has(line, search->json) || span_has(line, search->csv)) &&
            !line_take(search, line))
            return false;
    }
}

json_t *record_search_row(struct span line)
{
    json_t *row =
        line.data[0] == '{' ? json_loadb((const char *)line.data, line.size, 0, NULL) : NULL;

    if (row == NULL)
        row = json_stringn((const char *)line.data, line.size);
    if (row != NULL)
        return row;
    uint32_t size = 4 * line.size + 1;
    char *text = malloc(size);
    CHECK(text != NULL);
    row = json_string(log_escape(line, text, size));
    free(text);
    return row;
}

bool record_search_file(struct record_search *search, const char *path)
{
    struct record_reader reader;
    bool is_raw = record_file_is_raw(path);

    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    reader.pass_max = PASSED_PER_LOOK;
    bool is_whole = is_raw ? raw_search(search, &reader) : line_search(search, &reader);
    search->left = is_whole ? 0 : record_reader_waiting(&reader);
    record_reader_close(&reader);
    return is_whole;
}
