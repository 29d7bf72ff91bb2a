/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium records find: the story of a message, from files of records of any format and from those
 * that they were turned over into, the oldest first. angarium records print: a file in binary as
 * lines. A relay need not run.
 */
#include <errno.h>
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
#include "control/record_search.h"
#include "control/terminal_text.h"

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

struct found {
    bool is_json;
    json_t *rows; /* with `is_json` */
};

static void on_line(void *context, struct span line)
{
    const struct found *found = context;
    json_t *record = record_search_row(line);

    if (found->is_json)
        json_array_append(found->rows, record);
    else if (json_is_object(record))
        record_print(record);
    else /* a peer's text is in it, and the file may be anybody's */
        terminal_line(line, terminal_has_utf8(), stdout);
    json_decref(record);
}

static void passed_tell(const char *path, uint64_t passed)
{
    if (passed > 0)
        fprintf(stderr, "angarium: %s: %" PRIu64 " octets make no record\n", path, passed);
}

static bool files_search(const struct cli *cli, struct record_search *search)
{
    for (uint32_t i = 1; i < cli->operand_count; i++) {
        if (access(cli->operands[i], R_OK) != 0) {
            fprintf(stderr, "angarium: %s: %s\n", cli->operands[i], strerror(errno));
            return false;
        }
        search->passed = 0;
        (void)record_search_file(search, cli->operands[i]);
        passed_tell(cli->operands[i], search->passed);
    }
    return true;
}

enum cli_status cli_records_verb(const struct cli *cli, const struct cli_verb *verb)
{
    struct record_search search;
    struct message_id id;

    (void)verb;
    if (message_id_parse(span_from_text(cli->operands[0]), &id) != ERR_OK) {
        fprintf(stderr, "angarium: an id has 26 letters and digits, as `queue list` shows it\n");
        return CLI_USAGE;
    }
    struct found found = {cli->is_json, json_array()};
    record_search_init(&search, id);
    search.context = &found;
    search.on_line = on_line;
    if (!files_search(cli, &search)) {
        json_decref(found.rows);
        return CLI_FAILED;
    }
    if (cli->is_json) {
        json_t *answer = json_pack("{sb,sO}", "ok", search.found > 0, "rows", found.rows);
        json_dumpf(answer, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(answer);
    } else if (search.found == 0) {
        fprintf(stderr, "angarium: no record of %s\n", cli->operands[0]);
    }
    json_decref(found.rows);
    return search.found > 0 ? CLI_OK : CLI_FAILED;
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
        if (record_file_is_raw(cli->operands[i]))
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
        passed_tell(cli->operands[i], reader.passed);
        record_reader_close(&reader);
    }
    return fflush(stdout) == 0 && is_read ? CLI_OK : CLI_FAILED;
}
