/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records over HTTP: those that this relay keeps, whose files its configuration names. They have
 * the addresses of people and what was answered to them for as long as they are kept: the admin's.
 *
 *   records find    one object, from the first of `records.file`, `raw` and `accounting` that there
 *                   is; what a bound left out shows in "has_more", with "why" and, in octets,
 *                   "left"; "passed" are octets of binary that make no record
 *   records print   those of `records.raw` as a stream: lines of JSON, the last of which says how
 *                   it ended; or accounting. Up to the moment of the request.
 *
 * Bounds: of a search FIND_ROWS_MAX rows, FIND_OCTETS_MAX octets, FIND_TIME.
 */
#include <stdlib.h>
#include <string.h>

#include "control/http_serve.h"
#include "control/record_csv.h"
#include "control/record_json.h"
#include "control/record_reader.h"
#include "control/record_search.h"

#define FIND_ROWS       100u
#define FIND_ROWS_MAX   10000u
#define FIND_OCTETS_MAX (16ull << 30)
#define FIND_TIME       TICK_S(20)
#define PRINT_LINE_SIZE 8192u
_Static_assert(PRINT_LINE_SIZE >= RECORD_JSON_SIZE_MAX && PRINT_LINE_SIZE >= RECORD_CSV_SIZE_MAX,
               "each line fits");

/* ---- one message ---- */

static void on_line(void *context, struct span line)
{
    json_array_append_new(context, record_search_row(line));
}

static const char *file_to_search(const struct config_records *records)
{
    if (records->file != NULL)
        return records->file;
    return records->raw != NULL ? records->raw : records->accounting;
}

static json_t *find_answer(const struct record_search *search, const char *file, bool is_whole)
{
    bool has_rows = search->found > 0;
    json_t *answer = json_pack("{sb,sO,sb}", "ok", has_rows || !is_whole, "rows", search->context,
                               "has_more", !is_whole);

    json_object_set_new(answer, "file", json_string(file));
    if (search->passed > 0)
        json_object_set_new(answer, "passed", json_integer((json_int_t)search->passed));
    if (!is_whole)
        json_object_set_new(answer, "left", json_integer((json_int_t)search->left));
    if (!is_whole)
        json_object_set_new(answer, "why",
                            json_string(search->found == search->found_max
                                            ? "there are more rows than were asked for"
                                            : "the files are longer than may be read at once: "
                                              "angarium records find"));
    else if (!has_rows)
        json_object_set_new(answer, "error", json_string("no record of this message"));
    return answer;
}

enum MHD_Result http_serve_records_find(const struct http_client *client, const json_t *request)
{
    const struct tick_source *clock = tick_source_system();
    const char *file = file_to_search(&client->http->relay->records);
    const char *text = json_string_value(json_object_get(request, "id"));
    json_int_t limit = json_integer_value(json_object_get(request, "limit"));
    struct record_search search;
    struct message_id id;

    if (file == NULL)
        return http_answer_error(client, MHD_HTTP_BAD_REQUEST,
                                 "this relay keeps no records: records.file");
    if (text == NULL || message_id_parse(span_from_text(text), &id) != ERR_OK)
        return http_answer_error(client, MHD_HTTP_BAD_REQUEST, "this is no message id");
    if (json_object_get(request, "limit") == NULL)
        limit = FIND_ROWS;
    record_search_init(&search, id);
    search.found_max = limit > 0 && limit < FIND_ROWS_MAX ? (uint64_t)limit : FIND_ROWS_MAX;
    search.octets_max = FIND_OCTETS_MAX;
    search.deadline = clock->monotonic(clock->context) + FIND_TIME;
    search.on_line = on_line;
    json_t *rows = search.context = json_array();
    bool is_whole = record_search_file(&search, file);
    json_t *answer = find_answer(&search, file, is_whole);
    json_decref(rows);
    return http_answer_result(client, answer);
}

/* ---- all of them ---- */

struct print {
    struct record_reader reader;
    struct record_time time;
    bool is_csv, is_over;
    uint64_t count, count_max;
    struct record_place end; /* what is written meanwhile is not waited for */
    uint32_t at, size;
    char line[PRINT_LINE_SIZE];
};

/* The line behind the last record; none of accounting. */
static void print_end(struct print *print)
{
    print->is_over = true;
    print->size = 0;
    if (!print->is_csv)
        print->size = (uint32_t)snprintf(
            print->line, sizeof(print->line), "{\"ok\":true,\"count\":%llu,\"passed\":%llu}\n",
            (unsigned long long)print->count, (unsigned long long)print->reader.passed);
}

/* By where it stands: clocks are set back. */
static bool is_behind_end(const struct print *print)
{
    const struct record_place *place = &print->reader.place, *end = &print->end;

    return place->inode == end->inode && place->birth == end->birth && place->offset > end->offset;
}

/* The next line, which is empty of a record that accounting does not have. */
static void print_next(struct print *print)
{
    struct record record;

    print->at = 0;
    if (print->count == print->count_max || !record_reader_next_raw(&print->reader, &record) ||
        is_behind_end(print)) {
        print_end(print);
        return;
    }
    print->count++;
    print->size = print->is_csv ? record_csv_format(&record, print->line)
                                : record_json_format(&record, &print->time, print->line);
}

static ssize_t print_read(void *context, char *room, size_t room_size)
{
    struct print *print = context;
    size_t used = 0;

    while (used < room_size) {
        if (print->at == print->size && print->is_over)
            break;
        if (print->at == print->size) {
            print_next(print);
            continue;
        }
        size_t left = print->size - print->at, size = room_size - used;
        size = left < size ? left : size;
        memcpy(room + used, print->line + print->at, size);
        print->at += (uint32_t)size;
        used += size;
    }
    return used > 0 ? (ssize_t)used : MHD_CONTENT_READER_END_OF_STREAM;
}

static void print_free(void *context)
{
    struct print *print = context;

    record_reader_close(&print->reader);
    free(print);
}

static struct print *print_new(const char *file, const json_t *request)
{
    json_int_t limit = json_integer_value(json_object_get(request, "limit"));
    struct print *print = calloc(1, sizeof(*print));

    CHECK(print != NULL);
    print->is_csv = json_is_true(json_object_get(request, "csv"));
    print->count_max = limit > 0 ? (uint64_t)limit : UINT64_MAX;
    record_reader_open(&print->reader, file, RECORD_READER_END, NULL);
    print->end = print->reader.place;
    record_reader_close(&print->reader);
    if (print->is_csv)
        print->size = (uint32_t)snprintf(print->line, sizeof(print->line), "%s", record_csv_head);
    record_reader_open(&print->reader, file, RECORD_READER_OLDEST, NULL);
    return print;
}

enum MHD_Result http_serve_records_print(const struct http_client *client, const json_t *request)
{
    const char *file = client->http->relay->records.raw;

    if (file == NULL)
        return http_answer_error(client, MHD_HTTP_BAD_REQUEST,
                                 "this relay keeps no records in binary: records.raw");
    if (!http_stream_begin(client->http->places, client->role))
        return http_answer_busy(client);
    struct print *print = print_new(file, request);
    const struct http_source source = {print, print_read, print_free,
                                       print->is_csv ? "text/csv; charset=utf-8" : HTTP_TYPE_LINES};
    return http_answer_source(client, &source);
}
