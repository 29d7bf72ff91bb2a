/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reply patterns: those of the configuration, then those of its `patterns_file`, become one set of
 * rules. That file is a document of its own with the same list, `patterns`, and nothing else; it is
 * parsed by the same rows, and what is wrong in it is said with its name and line.
 */
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "relay/reaction.h"

/* In the order of the words of `stage`. */
static const uint32_t stages[] = {
    0,
    1u << SMTP_STAGE_GREETING,
    1u << SMTP_STAGE_EHLO,
    1u << SMTP_STAGE_STARTTLS,
    1u << SMTP_STAGE_AUTH,
    1u << SMTP_STAGE_MAIL,
    1u << SMTP_STAGE_RCPT,
    1u << SMTP_STAGE_DATA,
    1u << SMTP_STAGE_BODY | 1u << SMTP_STAGE_END,
};

static bool is_provider(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->settings.site_count; i++) {
        const char *provider = config->settings.sites[i].provider;
        if (provider != NULL &&
            span_is_equal_nocase(span_from_text(provider), span_from_text(name)))
            return true;
    }
    return false;
}

static void patterns_add(const struct config *config, struct reaction_set *set,
                         const struct option_list *list, struct config_report *report)
{
    char why[REACTION_WHY_SIZE];

    for (uint32_t i = 0; i < list->count; i++) {
        const struct config_pattern *pattern = (const struct config_pattern *)list->items + i;
        struct reaction_spec spec = pattern->spec;
        CHECK(pattern->stage < COUNT_OF(stages));
        if (spec.name == NULL || spec.regex == NULL)
            continue; /* complained of: it must be given */
        if (spec.provider != NULL && !is_provider(config, spec.provider))
            config_complain(report, pattern->line, "patterns[].provider",
                            "%s is no provider of `sites`", spec.provider);
        spec.stages = stages[pattern->stage];
        spec.mx = pattern->mx.items;
        spec.mx_count = pattern->mx.count;
        if (reaction_set_add(set, &spec, why) != ERR_OK)
            config_complain(report, pattern->line, "patterns[]", "%s", why);
    }
}

void config_patterns_assemble(struct config *config, struct config_report *report)
{
    config->reactions = reaction_set_new();
    patterns_add(config, config->reactions, &config->patterns, report);
    if (config->more_patterns != NULL)
        patterns_add(config, config->reactions, &config->more_patterns->patterns, report);
    config->settings.reactions = config->reactions;
}

static void complain_of_others(struct config_report *report)
{
    for (uint32_t i = 0; i < option_count; i++) {
        bool is_other = strchr(option_table[i].path, '.') == NULL &&
                        strcmp(option_table[i].path, "patterns") != 0;
        if (is_other && report->lines[i] > 0)
            config_complain(report, report->lines[i], option_table[i].path,
                            "does not belong here: only `patterns` does");
    }
}

enum err config_patterns_parse(struct config *config, struct span text,
                               struct config_report *report)
{
    const struct config_values *values = report->values;
    uint32_t lines[CONFIG_OPTIONS_MAX];

    memcpy(lines, report->lines, sizeof(lines));
    memset(report->lines, 0, sizeof(lines));
    report->values = NULL; /* they are asked of the configuration's own options */
    if (config_report_add(report, config->patterns_file) != ERR_OK) {
        config_complain(report, 0, "patterns_file", "is one file too many");
        return ERR_CONFIG_SYNTAX;
    }
    enum err err = config_parse(text, &config->more_patterns, report);
    if (err == ERR_OK)
        complain_of_others(report);
    report->at = 0;
    report->values = values;
    memcpy(report->lines, lines, sizeof(lines));
    return report->count > 0 ? ERR_CONFIG_SYNTAX : err;
}
