/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From YAML to typed values: libyaml composes the document, every node with its mark, and the rows
 * of option.def say what each key means and where its value goes.
 *
 * libyaml's own document is used rather than a binding that fills structures, because durations,
 * sizes, addresses and the relations between options are checked after YAML is done, and the line
 * must still be known then.
 *
 * The walk keeps its own stack of mappings to visit, so that nothing recurses:
 *
 *   visit(mapping):  for every key: find the row in this section
 *                      value   -> option_parse()
 *                      list    -> option_parse() for each element
 *                      MAPPING -> push (node, section.key, the same object)
 *                      SEQUENCE-> one object with defaults for each element, push each
 *                    then: required keys that were not there
 *
 * Invariants
 *   1. Nothing outside the text is read: no file, no network, no clock.
 *   2. After a complaint the walk goes on, so that all mistakes are seen at once.
 *   3. Work is bounded: VISIT_MAX keys in all (aliases can make a small file a large document), the
 *      arena for what is kept, CONFIG_COMPLAINT_MAX lines of complaints.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/log.h"
#include "control/config.h"

#define VISIT_MAX 1000000u

struct visit {
    const yaml_node_t *node;
    void *object;
    enum option_owner owner;
    char section[OPTION_PATH_SIZE];
    char place[CONFIG_PLACE_SIZE]; /* the section, with the numbers of elements */
};

struct walk {
    yaml_document_t *document;
    struct config *config;
    struct config_report *report;
    struct visit *stack;
    uint32_t count, capacity;
    uint32_t visited; /* keys and elements so far */
};

/* A complaint about this line knows its column. */
static uint32_t line_at(struct config_report *report, const yaml_mark_t *mark)
{
    report->mark_line = report->at << CONFIG_LINE_BITS | ((uint32_t)mark->line + 1);
    report->mark_column = (uint32_t)mark->column + 1;
    return report->mark_line;
}
_Static_assert(CONFIG_FILE_SIZE_MAX < CONFIG_LINE_MASK &&
                   CONFIG_FILES_MAX <= UINT32_MAX >> CONFIG_LINE_BITS,
               "file and line fit one number");

static struct span node_text(const yaml_node_t *node)
{
    CHECK(node->type == YAML_SCALAR_NODE);
    return span_of(node->data.scalar.value, (uint32_t)node->data.scalar.length);
}

/* `key:` with nothing behind it */
static bool node_is_empty(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0 &&
           node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static const char *node_describe(const yaml_node_t *node)
{
    if (node_is_empty(node))
        return "nothing";
    return node->type == YAML_SCALAR_NODE     ? "a single value"
           : node->type == YAML_SEQUENCE_NODE ? "a list"
                                              : "a mapping";
}

static uint32_t node_line(const struct walk *walk, const yaml_node_t *node)
{
    return line_at(walk->report, &node->start_mark);
}

static const yaml_node_t *walk_node(struct walk *walk, int index)
{
    const yaml_node_t *node = yaml_document_get_node(walk->document, index);

    CHECK(node != NULL);
    return node;
}

static bool walk_push(struct walk *walk, const struct visit *visit)
{
    if (walk->count == walk->capacity) {
        uint32_t capacity = walk->capacity == 0 ? 64 : 2 * walk->capacity;
        struct visit *stack = reallocarray(walk->stack, capacity, sizeof(*stack));
        if (stack == NULL)
            return false;
        walk->stack = stack;
        walk->capacity = capacity;
    }
    walk->stack[walk->count++] = *visit;
    return true;
}

/* The section behind an option of `visit`, of a sequence its `index`-th element. */
static void section_format(struct visit *next, const struct visit *visit,
                           const struct option *option, uint32_t index)
{
    char number[16] = "";

    if (option->kind == OPTION_SEQUENCE)
        snprintf(number, sizeof(number), "[%u]", index);
    snprintf(next->section, sizeof(next->section), "%s%s", option->path,
             option->kind == OPTION_SEQUENCE ? "[]" : "");
    int size = snprintf(next->place, sizeof(next->place), "%s%s%s%s", visit->place,
                        visit->place[0] == '\0' ? "" : ".", option_key(option), number);
    CHECK(size < (int)sizeof(next->place));
}

/* ---- telling what there is ---- */

static void value_tell(const struct walk *walk, const char *place, const char *key, int index,
                       struct span text, uint32_t line)
{
    const struct config_values *values = walk->report->values;
    char whole[CONFIG_PLACE_SIZE + OPTION_PATH_SIZE], number[16] = "";

    if (values == NULL)
        return;
    if (index >= 0)
        snprintf(number, sizeof(number), "[%d]", index);
    snprintf(whole, sizeof(whole), "%s%s%s%s", place, place[0] == '\0' ? "" : ".", key, number);
    values->on_value(values->context, whole, text, config_file_of(walk->report, line),
                     line & CONFIG_LINE_MASK);
}

/* What a section does not give: of a mapping, all that is below it. */
static void default_tell(const struct walk *walk, const struct visit *visit,
                         const struct option *option)
{
    size_t size = strlen(option->path);
    size_t above = size - strlen(option_key(option));

    if (walk->report->values == NULL || option->kind == OPTION_SEQUENCE)
        return;
    if (option->kind != OPTION_MAPPING && option->default_text != NULL) {
        value_tell(walk, visit->place, option_key(option), -1, span_from_text(option->default_text),
                   0);
        return;
    }
    for (uint32_t i = 0; option->kind == OPTION_MAPPING && i < option_count; i++) {
        const struct option *below = &option_table[i];
        if (strncmp(below->path, option->path, size) == 0 && below->path[size] == '.' &&
            strchr(below->path + size, '[') == NULL && below->kind != OPTION_MAPPING &&
            below->kind != OPTION_SEQUENCE && below->default_text != NULL)
            value_tell(walk, visit->place, below->path + above, -1,
                       span_from_text(below->default_text), 0);
    }
}

/* ---- the walk ---- */

static void expected(struct walk *walk, const struct option *option, const yaml_node_t *node)
{
    char expectation[OPTION_WHY_SIZE];

    config_complain(walk->report, node_line(walk, node), option->path, "expected %s%s, not %s",
                    option_is_list(option) ? "a list: each " : "",
                    option_expectation(option, expectation), node_describe(node));
}

static void walk_value(struct walk *walk, const struct visit *visit, const struct option *option,
                       const yaml_node_t *node, uint32_t index)
{
    char why[OPTION_WHY_SIZE];

    if (node->type != YAML_SCALAR_NODE || node_is_empty(node))
        expected(walk, option, node);
    else if (option_parse(option, node_text(node), &walk->config->arena, visit->object, index,
                          why) != ERR_OK)
        config_complain(walk->report, node_line(walk, node), option->path, "%s", why);
    else
        value_tell(walk, visit->place, option_key(option), option_is_list(option) ? (int)index : -1,
                   node_text(node), node_line(walk, node));
}

static uint32_t sequence_count(const yaml_node_t *node)
{
    return (uint32_t)(node->data.sequence.items.top - node->data.sequence.items.start);
}

/* A list of values; a single value is a list of one. */
static void walk_list(struct walk *walk, const struct visit *visit, const struct option *option,
                      const yaml_node_t *node)
{
    bool is_single = node->type == YAML_SCALAR_NODE && !node_is_empty(node);
    uint32_t count = is_single ? 1 : 0;
    char why[OPTION_WHY_SIZE];

    if (node->type == YAML_SEQUENCE_NODE)
        count = sequence_count(node);
    else if (!is_single) {
        expected(walk, option, node);
        return;
    }
    if (option_list_begin(option, count, &walk->config->arena, visit->object, why) != ERR_OK) {
        config_complain(walk->report, node_line(walk, node), option->path, "%s", why);
        return;
    }
    walk->visited += count;
    if (count == 0)
        value_tell(walk, visit->place, option_key(option), -1, SPAN_LITERAL("[]"),
                   node_line(walk, node));
    for (uint32_t i = 0; i < count; i++) {
        const yaml_node_t *element =
            is_single ? node : walk_node(walk, node->data.sequence.items.start[i]);
        walk_value(walk, visit, option, element, i);
    }
}

static void line_store(const struct option *option, void *object, uint32_t line)
{
    CHECK(option->kind == OPTION_MAPPING && option->size == sizeof(line));
    memcpy((uint8_t *)object + option->offset, &line, sizeof(line));
}

static bool walk_mapping(struct walk *walk, const struct visit *visit, const struct option *option,
                         const yaml_node_t *node)
{
    struct visit next = {.node = node, .object = visit->object, .owner = visit->owner};

    line_store(option, visit->object, node_line(walk, node));
    if (node->type != YAML_MAPPING_NODE && !node_is_empty(node)) {
        expected(walk, option, node);
        return true;
    }
    section_format(&next, visit, option, 0);
    return walk_push(walk, &next);
}

static bool walk_sequence(struct walk *walk, const struct visit *visit, const struct option *option,
                          const yaml_node_t *node)
{
    struct option_list *list = (struct option_list *)((uint8_t *)visit->object + option->offset);
    char why[OPTION_WHY_SIZE];

    if (node->type != YAML_SEQUENCE_NODE) {
        expected(walk, option, node);
        return true;
    }
    uint32_t count = sequence_count(node);
    walk->visited += count;
    if (walk->visited >= VISIT_MAX)
        return false;
    struct option_list before = *list;
    if (option_list_begin(option, before.count + count, &walk->config->arena, visit->object, why) !=
        ERR_OK) {
        config_complain(walk->report, node_line(walk, node), option->path, "%s", why);
        return true;
    }
    /* Those of files before are done: nothing that is still to be visited points to them. */
    if (before.count > 0)
        memcpy(list->items, before.items, (size_t)before.count * option_element_size(option));
    for (uint32_t i = count; i-- > 0;) { /* backwards: the stack turns the order round */
        const yaml_node_t *element = walk_node(walk, node->data.sequence.items.start[i]);
        struct visit next = {.node = element, .owner = option->element};
        uint32_t line = node_line(walk, element);

        if (element->type != YAML_MAPPING_NODE) {
            expected(walk, option, element);
            continue;
        }
        next.object =
            (uint8_t *)list->items + (size_t)(before.count + i) * option_element_size(option);
        if (option_set_defaults(option->element, &walk->config->arena, next.object) != ERR_OK)
            return false;
        memcpy(next.object, &line, sizeof(line));
        section_format(&next, visit, option, before.count + i);
        if (!walk_push(walk, &next))
            return false;
    }
    return true;
}

static void unknown_key(struct walk *walk, const struct visit *visit, const yaml_node_t *key)
{
    char known[400] = "", shown[80];
    uint32_t size = 0;

    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        if (option_is_in(option, visit->section) && size + OPTION_PATH_SIZE < sizeof(known))
            size += (uint32_t)snprintf(known + size, sizeof(known) - size, "%s%s",
                                       size == 0 ? "" : ", ", option_key(option));
    }
    struct span text = key->type == YAML_SCALAR_NODE ? node_text(key) : SPAN_LITERAL("?");
    config_complain(
        walk->report, node_line(walk, key), visit->section, "unknown key \"%s\"; known here: %s",
        log_escape(span_head(text, text.size < 60 ? text.size : 60), shown, sizeof(shown)), known);
}

/* Each file may have some of a section, and elements of a list of mappings, and include others. */
static bool may_go_on(const struct option *option)
{
    return option->kind == OPTION_MAPPING || option->kind == OPTION_SEQUENCE ||
           option->kind == OPTION_PATH_LIST;
}

static bool is_first(struct walk *walk, const struct visit *visit, const struct option *option,
                     const yaml_node_t *key, const bool seen[CONFIG_OPTIONS_MAX])
{
    uint32_t before =
        visit->owner == OPTION_OWNER_CONFIG ? walk->report->lines[option - option_table] : 0;
    char where[CONFIG_WHERE_SIZE];

    if (seen[option - option_table] && before == 0)
        config_complain(walk->report, node_line(walk, key), option->path, "given twice");
    else if (seen[option - option_table] || (before != 0 && !may_go_on(option)))
        config_complain(walk->report, node_line(walk, key), option->path, "given twice: also in %s",
                        config_where(walk->report, before, where));
    else
        return true;
    return false;
}

/* One `key: value`. False: no memory. */
static bool walk_pair(struct walk *walk, const struct visit *visit, const yaml_node_pair_t *pair,
                      bool seen[CONFIG_OPTIONS_MAX])
{
    const yaml_node_t *key = walk_node(walk, pair->key), *value = walk_node(walk, pair->value);
    const struct option *option =
        key->type == YAML_SCALAR_NODE ? option_find(visit->section, node_text(key)) : NULL;

    if (option == NULL) {
        unknown_key(walk, visit, key);
        return true;
    }
    if (!is_first(walk, visit, option, key, seen))
        return true;
    seen[option - option_table] = true;
    if (visit->owner == OPTION_OWNER_CONFIG)
        walk->report->lines[option - option_table] = node_line(walk, key);
    if (option->kind == OPTION_MAPPING)
        return walk_mapping(walk, visit, option, value);
    if (option->kind == OPTION_SEQUENCE)
        return walk_sequence(walk, visit, option, value);
    if (option_is_list(option))
        walk_list(walk, visit, option, value);
    else
        walk_value(walk, visit, option, value, 0);
    return true;
}

static bool walk_visit(struct walk *walk, const struct visit *visit)
{
    bool seen[CONFIG_OPTIONS_MAX] = {false};

    CHECK(option_count <= CONFIG_OPTIONS_MAX);
    if (visit->node->type == YAML_MAPPING_NODE) {
        const yaml_node_pair_t *pair = visit->node->data.mapping.pairs.start;
        for (; pair < visit->node->data.mapping.pairs.top; pair++) {
            if (walk->visited++ >= VISIT_MAX)
                return false;
            if (!walk_pair(walk, visit, pair, seen))
                return false;
        }
    }
    if (visit->owner == OPTION_OWNER_CONFIG)
        return true; /* another file may have it: config_parse_end() */
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        if (option->default_text == NULL && !seen[i] && option_is_in(option, visit->section))
            config_complain(walk->report, node_line(walk, visit->node), option->path,
                            "must be given");
        else if (!seen[i] && option_is_in(option, visit->section))
            default_tell(walk, visit, option);
    }
    return true;
}

static void walk_document(struct walk *walk)
{
    const yaml_node_t *root = yaml_document_get_root_node(walk->document);

    if (root == NULL || node_is_empty(root))
        return; /* an empty file */
    if (root->type != YAML_MAPPING_NODE) {
        config_complain(walk->report, node_line(walk, root), "",
                        "expected `option: value` lines, not %s", node_describe(root));
        return;
    }
    struct visit top = {.node = root, .object = walk->config, .owner = OPTION_OWNER_CONFIG};
    bool is_ok = walk_push(walk, &top);
    while (is_ok && walk->count > 0) {
        struct visit visit = walk->stack[--walk->count];
        is_ok = walk_visit(walk, &visit);
    }
    if (!is_ok)
        config_complain(walk->report, 0, "", "the configuration is too large");
}

static void complain_of_yaml(struct config_report *report, const yaml_parser_t *parser)
{
    uint32_t line = line_at(report, &parser->problem_mark);

    if (parser->error == YAML_MEMORY_ERROR || parser->problem == NULL)
        config_complain(report, 0, "", "no memory");
    else if (parser->error == YAML_READER_ERROR)
        config_complain(report, 0, "", "octet %zu: %s", parser->problem_offset, parser->problem);
    else
        config_complain(report, line, "", "YAML: %s%s%s", parser->problem,
                        parser->context == NULL ? "" : " ",
                        parser->context == NULL ? "" : parser->context);
}

/* Exactly one document is expected; a second one would silently be ignored otherwise. */
static void check_for_second(yaml_parser_t *parser, struct config_report *report)
{
    yaml_document_t document;

    if (!yaml_parser_load(parser, &document)) {
        complain_of_yaml(report, parser);
        return;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root != NULL)
        config_complain(report, line_at(report, &root->start_mark), "",
                        "a second document; one is expected");
    yaml_document_delete(&document);
}

static void parse_into(struct config *config, struct span text, struct config_report *report)
{
    yaml_parser_t parser;
    yaml_document_t document;

    if (!yaml_parser_initialize(&parser)) {
        config_complain(report, 0, "", "no memory");
        return;
    }
    yaml_parser_set_input_string(&parser, text.data, text.size);
    if (!yaml_parser_load(&parser, &document)) {
        complain_of_yaml(report, &parser);
    } else {
        struct walk walk = {.document = &document, .config = config, .report = report};
        walk_document(&walk);
        free(walk.stack);
        if (yaml_document_get_root_node(&document) != NULL)
            check_for_second(&parser, report);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
}

void config_parse_text(struct config *config, struct span text, struct config_report *report)
{
    config->includes = (struct option_list){0};
    if (text.size > CONFIG_FILE_SIZE_MAX)
        config_complain(report, 0, "", "larger than 1 MiB");
    else
        parse_into(config, text, report);
}

/* The row of the section that an option is in; NULL: the top. */
static const struct option *section_of(const struct option *option)
{
    for (uint32_t i = 0; i < option_count; i++) {
        size_t size = strlen(option_table[i].path);
        if (option_table[i].kind == OPTION_MAPPING &&
            strncmp(option->path, option_table[i].path, size) == 0 &&
            option->path + size + 1 == option_key(option))
            return &option_table[i];
    }
    return NULL;
}

void config_parse_end(struct config_report *report)
{
    const struct walk walk = {.report = report};

    report->mark_line = 0;
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        if (option->owner != OPTION_OWNER_CONFIG || report->lines[i] != 0 ||
            option->kind == OPTION_MAPPING || option->kind == OPTION_SEQUENCE)
            continue;
        const struct option *section = section_of(option);
        uint32_t line = section == NULL ? 0 : report->lines[section - option_table];
        if (option->default_text != NULL)
            value_tell(&walk, "", option->path, -1, span_from_text(option->default_text), 0);
        else if (section == NULL || line != 0)
            config_complain(report, line, option->path, "must be given");
    }
}

enum err config_parse_begin(struct config **ret_config, struct config_report *report)
{
    struct config *config = calloc(1, sizeof(*config));

    if (config == NULL)
        return ERR_MEMORY;
    arena_init(&config->arena, 16384, CONFIG_ARENA_SIZE_MAX);
    if (option_set_defaults(OPTION_OWNER_CONFIG, &config->arena, config) != ERR_OK)
        config_complain(report, 0, "", "no memory");
    *ret_config = config;
    return ERR_OK;
}

enum err config_parse(struct span text, struct config **ret_config, struct config_report *report)
{
    struct config *config;

    TRY(config_parse_begin(&config, report));
    config_parse_text(config, text, report);
    config_parse_end(report);
    if (report->count > 0) {
        config_free(config);
        return ERR_CONFIG_SYNTAX;
    }
    *ret_config = config;
    return ERR_OK;
}
