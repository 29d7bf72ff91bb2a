/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium records find: the story of a message, from files of records of either format and from
 * those that they were turned over into, the oldest first. A relay need not run.
 *
 * Not here: files that somebody compressed (zgrep finds them as well: the id is in every line).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/cli.h"
#include "control/cli_print.h"
#include "control/record_reader.h"
#include "queue/envelope.h"

#define NEEDLE_SIZE (2 * MESSAGE_ID_TEXT_SIZE + 16u)

/* What a line of the message has in it, in JSON and in accounting. */
struct needles {
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

static uint32_t file_search(const char *path, const struct needles *needles, bool is_json,
                            json_t *rows)
{
    struct record_reader reader;
    struct span line;
    uint32_t found = 0;

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
