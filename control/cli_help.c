/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Help: the table of verbs as a list of lines, each cut behind its first clause, or verb by verb
 * with words wrapped.
 */
#include "control/cli_help.h"

#include <string.h>

#define INDENT      6u
#define NAME_COLUMN 18u
#define CLAUSE_MIN  10u

/* The last place of this octet that leaves no more than `room` in front; 0: there is none. */
static size_t cut_before(const char *text, char octet, size_t room)
{
    size_t size = room;

    while (size > 0 && text[size] != octet)
        size--;
    return size;
}

/* The first clause that says something; if it is too long for its line, up to a comma, or a word's
 * end. */
static int clause_size(const char *text)
{
    size_t room = HELP_WIDTH - NAME_COLUMN, size = strcspn(text, ":;");

    if (size < CLAUSE_MIN)
        size = strlen(text);
    if (size <= room)
        return (int)size;
    size = cut_before(text, ',', room);
    return (int)(size > 0 ? size : cut_before(text, ' ', room));
}

void cli_help_list(const struct cli_verb *verbs, uint32_t count, FILE *out)
{
    for (uint32_t i = 0; i < count; i++)
        (void)fprintf(out, "  %-*s%.*s\n", (int)NAME_COLUMN - 2, verbs[i].name,
                      clause_size(verbs[i].help), verbs[i].help);
}

/* Words behind `column` characters, with a blank before each but on a line of their own. */
static void wrap(const char *text, size_t column, FILE *out)
{
    while (*text != '\0') {
        size_t size = strcspn(text, " ");
        if (column > 0 && column + 1 + size > HELP_WIDTH) {
            (void)fputc('\n', out);
            column = 0;
        }
        column +=
            (size_t)fprintf(out, "%*s%.*s", column == 0 ? (int)INDENT : 1, "", (int)size, text);
        text += size + (text[size] == ' ');
    }
    (void)fputc('\n', out);
}

void cli_help_verb(const struct cli_verb *verb, FILE *out)
{
    (void)fprintf(out, "  %s", verb->name);
    wrap(verb->operands, 2 + strlen(verb->name), out);
    wrap(verb->help, 0, out);
}

static bool begins_with(const char *name, const struct cli *cli)
{
    for (uint32_t i = 0; i < cli->operand_count; i++) {
        size_t size = strlen(cli->operands[i]);
        if (strncmp(name, cli->operands[i], size) != 0 || (name[size] != '\0' && name[size] != ' '))
            return false;
        name += size + (name[size] == ' ');
    }
    return true;
}

uint32_t cli_help_matching(const struct cli_verb *verbs, uint32_t count, const struct cli *cli,
                           FILE *out)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (!begins_with(verbs[i].name, cli))
            continue;
        cli_help_verb(&verbs[i], out);
        found += 1;
    }
    return found;
}
