/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium records find: the story of a message, from files of records of any format and from those
 * that they were turned over into, the oldest first. angarium records print: a file in binary as
 * lines. A relay need not run.
 *
 * Not here: files that somebody compressed (zgrep finds them as well: the id is in every line).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/cli.h"
#include "control/cli_print.h"
#include "control/record_csv.h"
#include "control/record_json.h"
#include "control/record_raw.h"
#include "control/record_reader.h"
#include "queue/envelope.h"

#define NEEDLE_SIZE (2 * MESSAGE_ID_TEXT_SIZE + 16u)

/* What a line of the message has in it, in JSON and in accounting. */
struct needles {
    struct message_id id;
    char json[NEEDLE_SIZE], csv[NEEDLE_SIZE];
};

static bool span_has(struct span line, const char *text)
{
    return line.data != NULL && memmem(line.data, line.size, text, strlen(text)) != NULL;
}

static void record_print(const json_t *record)
{
    char time[CLI_SHOWN_SIZE], type[CLI_SHOWN_SIZE], who[CLI_SHOWN_SIZE], text[CLI_SHOWN_SIZE];
    int64_t code = cli_number(record, NULL, "code");
    char number[24] = "";

    if (code > 0)
        (void)snprintf(number, sizeof(number), "%" PRId64, code);
    printf("%-27s %-9s %-30s %-3s %s%s\n", cli_shown(record, "time", time),
           cli_shown(record, "type", type), cli_shown(record, "recipient", who), number,
           cli_shown(record, "text", text),
           json_is_true(json_object_get(record, "replayed")) ? " (written again)" : "");
}

/* One line of the message; those of JSON go to `rows` when they are asked for as JSON. */
static void line_tell(struct span line, bool is_json, json_t *rows)
{
    json_t *record =
        line.data[0] == '{' ? json_loadb((const char *)line.data, line.size, 0, NULL) : NULL;

    if (record != NULL && is_json)
        json_array_append(rows, record);
    else if (record != NULL)
        record_print(record);
    else if (is_json)
        json_array_append_new(rows, json_stringn((const char *)line.data, line.size));
    else
        printf("%.*s\n", SPAN_PRINTF(line));
    json_decref(record);
}

/* By its first line. */
static bool file_is_raw(const char *path)
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

static uint32_t raw_search(const char *path, const struct needles *needles, bool is_json,
                           json_t *rows)
{
    struct record_reader reader;
    struct record_time time = {0};
    struct record record;
    char line[RECORD_JSON_SIZE_MAX];
    uint32_t found = 0;

    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    while (record_reader_next_raw(&reader, &record)) {
        if (record.id.high != needles->id.high || record.id.low != needles->id.low)
            continue;
        uint32_t size = record_json_format(&record, &time, line);
        line_tell(span_of(line, size - 1), is_json, rows);
        found++;
    }
    record_reader_close(&reader);
    return found;
}

static uint32_t file_search(const char *path, const struct needles *needles, bool is_json,
                            json_t *rows)
{
    struct record_reader reader;
    struct span line;
    uint32_t found = 0;

    if (file_is_raw(path))
        return raw_search(path, needles, is_json, rows);
    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    while (record_reader_next(&reader, &line)) {
        if (line.size == 0 || (!span_has(line, needles->json) && !span_has(line, needles->csv)))
            continue;
        line_tell(line, is_json, rows);
        found++;
    }
    record_reader_close(&reader);
    return found;
}

enum cli_status cli_records_verb(const struct cli *cli, const struct cli_verb *verb)
{
    struct needles needles;
    struct message_id id;
    char text[MESSAGE_ID_TEXT_SIZE];
    uint32_t found = 0;

    (void)verb;
    if (message_id_parse(span_from_text(cli->operands[0]), &id) != ERR_OK) {
        fprintf(stderr, "angarium: an id has 26 letters and digits, as `queue list` shows it\n");
        return CLI_USAGE;
    }
    needles.id = id;
    (void)message_id_format(id, text);
    (void)snprintf(needles.json, sizeof(needles.json), "\"id\":\"%s\"", text);
    (void)snprintf(needles.csv, sizeof(needles.csv), ",%s,%s-", text, text);
    json_t *rows = json_array();
    for (uint32_t i = 1; i < cli->operand_count; i++) {
        if (access(cli->operands[i], R_OK) != 0) {
            fprintf(stderr, "angarium: %s: %s\n", cli->operands[i], strerror(errno));
            json_decref(rows);
            return CLI_FAILED;
        }
        found += file_search(cli->operands[i], &needles, cli->is_json, rows);
    }
    if (cli->is_json) {
        json_t *answer = json_pack("{sb,sO}", "ok", found > 0, "rows", rows);
        json_dumpf(answer, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(answer);
    } else if (found == 0) {
        fprintf(stderr, "angarium: no record of %s\n", text);
    }
    json_decref(rows);
    return found > 0 ? CLI_OK : CLI_FAILED;
}

/* ---- as lines ---- */

/* False: nobody reads them any more. */
static bool raw_print(struct record_reader *reader, bool is_csv)
{
    struct record_time time = {0};
    struct record record;
    char line[RECORD_JSON_SIZE_MAX > RECORD_CSV_SIZE_MAX ? RECORD_JSON_SIZE_MAX
                                                         : RECORD_CSV_SIZE_MAX];

    while (record_reader_next_raw(reader, &record)) {
        uint32_t size =
            is_csv ? record_csv_format(&record, line) : record_json_format(&record, &time, line);
        if (fwrite(line, 1, size, stdout) != size)
            return false;
    }
    return true;
}

enum cli_status cli_records_print_verb(const struct cli *cli, const struct cli_verb *verb)
{
    bool is_read = true;

    (void)verb;
    for (uint32_t i = 0; i < cli->operand_count; i++) {
        if (file_is_raw(cli->operands[i]))
            continue;
        fprintf(stderr, "angarium: %s: %s\n", cli->operands[i],
                access(cli->operands[i], R_OK) != 0 ? strerror(errno)
                                                    : "these are no records in binary");
        return CLI_FAILED;
    }
    if (cli->is_csv)
        (void)fputs(record_csv_head, stdout);
    for (uint32_t i = 0; is_read && i < cli->operand_count; i++) {
        struct record_reader reader;
        record_reader_open(&reader, cli->operands[i], RECORD_READER_OLDEST, NULL);
        is_read = raw_print(&reader, cli->is_csv);
        if (reader.passed > 0)
            fprintf(stderr, "angarium: %s: %" PRIu64 " octets make no record\n", cli->operands[i],
                    reader.passed);
        record_reader_close(&reader);
    }
    return fflush(stdout) == 0 && is_read ? CLI_OK : CLI_FAILED;
}
