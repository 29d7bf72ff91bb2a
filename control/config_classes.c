/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Priority classes and the rules that sort mail into them; which header fields must be read for
 * that.
 */
#include <string.h>
#include <strings.h>

#include "control/config.h"

static bool name_is_field(const char *name)
{
    for (; *name != '\0'; name++) { /* RFC 5322 section 2.2 */
        if (*name < '!' || *name > '~' || *name == ':')
            return false;
    }
    return true;
}

static void classes_take(struct config *config, struct config_report *report)
{
    const struct config_class *items = config->classes.items;
    struct class_settings *classes = &config->settings.classes;
    uint32_t promised = 0;

    CHECK(config->classes.count <= QMGR_ROUND_CLASS_COUNT);
    for (uint32_t i = 0; i < config->classes.count; i++) {
        struct span name = span_from_text(items[i].name);
        if (items[i].name[0] >= '0' && items[i].name[0] <= '9')
            config_complain(report, items[i].line, "classes[].name",
                            "begins with a digit: numbers mean classes themselves");
        if (class_find(classes, name) < classes->order.count)
            config_complain(report, items[i].line, "classes[].name", "there is one of that name");
        promised += items[i].least;
        classes->order.names[i] = items[i].name;
        classes->order.least[i] = (uint8_t)items[i].least;
        classes->order.count = i + 1;
    }
    if (promised > 100)
        config_complain(report, items[0].line, "classes[].least", "add up to more than 100");
}

/* The class of that name; complains when there is none. */
static uint8_t class_named(const struct config *config, struct config_report *report, uint32_t line,
                           const char *key, const char *name)
{
    const struct class_settings *classes = &config->settings.classes;
    uint32_t found = class_find(classes, span_from_text(name));

    if (found < classes->order.count)
        return (uint8_t)found;
    config_complain(report, line, key, "there is no class \"%s\" in `classes`", name);
    return 0;
}

static void rule_check(const struct config *config, const struct config_class_rule *rule,
                       struct config_report *report)
{
    const struct settings *settings = &config->settings;
    const struct flow_address *listeners = rule->listeners.items;
    const struct class_rule *terms = &rule->settings;

    for (uint32_t i = 0; i < rule->listeners.count; i++) {
        uint32_t found = 0;
        while (found < settings->listener_count &&
               !flow_address_is_equal(&listeners[i], &settings->listeners[found].address))
            found++;
        if (found == settings->listener_count)
            config_complain(report, rule->line, "class_rules[].listeners", "is none of `listen`");
    }
    if (rule->listeners.count == 0 && terms->sender == NULL && terms->user == NULL &&
        terms->recipients_min == 0 && !terms->is_list_mail)
        config_complain(
            report, rule->line, "class_rules[]",
            "says nothing: expected `listeners`, `sender`, `user`, `recipients` or `list_mail`");
}

static enum err rules_take(struct config *config, struct config_report *report)
{
    struct config_class_rule *items = config->class_rules.items;
    struct class_settings *classes = &config->settings.classes;
    uint32_t count = config->class_rules.count;
    struct class_rule *rules =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*rules));

    if (rules == NULL) {
        config_complain(report, 0, "", "the configuration is too large");
        return ERR_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        rule_check(config, &items[i], report);
        rules[i] = items[i].settings;
        rules[i].listeners = items[i].listeners.items;
        rules[i].listener_count = items[i].listeners.count;
        rules[i].class =
            class_named(config, report, items[i].line, "class_rules[].class", items[i].class);
    }
    classes->rules = rules;
    classes->rule_count = count;
    return ERR_OK;
}

/* Only what somebody asked for is looked for. */
static void header_take(struct config *config)
{
    const struct class_settings *classes = &config->settings.classes;
    struct header_names *header = &config->settings.header;

    if (classes->order.count == 0)
        return;
    header->fields[HEADER_CLASS].name = config->class_header;
    header->fields[HEADER_CLASS].is_cut = true;
    for (uint32_t i = 0; i < classes->rule_count; i++) {
        if (!classes->rules[i].is_list_mail)
            continue;
        header->fields[HEADER_LIST_UNSUBSCRIBE].name = "List-Unsubscribe";
        header->fields[HEADER_PRECEDENCE].name = "Precedence";
    }
}

enum err config_classes_assemble(struct config *config, struct config_report *report)
{
    struct class_settings *classes = &config->settings.classes;

    classes_take(config, report);
    if (classes->order.count > 0)
        classes->unsaid = (uint8_t)(classes->order.count - 1);
    if (config->class_default != NULL)
        classes->unsaid = class_named(config, report, 0, "class_default", config->class_default);
    if (config->class_header != NULL && !name_is_field(config->class_header))
        config_complain(report, 0, "class_header", "is no name of a header field");
    else if (config->class_header != NULL && !config_is_own_field(config->class_header))
        config_complain(report, 0, "class_header", "is cut out of mail: it must begin with X-");
    else if (config->class_header != NULL && config->pool_header != NULL &&
             strcasecmp(config->class_header, config->pool_header) == 0)
        config_complain(report, 0, "class_header", "is `pool_header`, too");
    TRY(rules_take(config, report));
    header_take(config);
    return ERR_OK;
}
