/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration as a whole: freeing a snapshot, and what a reload cannot change. It is made by
 * config_parse.c, config_assemble.c and config_complete.c, called one after the other by
 * config_load.c; the first two need no file and no library but YAML's, and so does this file.
 */
#include "control/config.h"

#include <stdio.h>
#include <stdlib.h>

static void config_free_one(struct config *config)
{
    for (struct config_context *c = config->contexts; c != NULL; c = c->next)
        config->context_free(c->context);
    reaction_set_free(config->reactions);
    for (uint32_t i = 0; config->keys != NULL && i < config->settings.dkim_count; i++)
        config->key_free(config->keys[i]);
    if (config->auth_users != NULL)
        config->auth_users_free(config->auth_users);
    free((void *)config->settings.route_table); /* made once, read only since */
    arena_fini(&config->arena);
    free(config);
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    if (config->more_patterns != NULL)
        config_free_one(config->more_patterns);
    config_free_one(config);
}

/* Do lists of mappings differ? Lists within their elements are left to elements_differ(). */
static bool sequence_differs(enum option_owner owner, const struct option_list *running,
                             const struct option_list *next)
{
    const uint8_t *left = running->items, *right = next->items;
    uint32_t size = option_owner_size(owner);

    if (running->count != next->count)
        return true;
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        if (option->owner != owner || option->kind == OPTION_MAPPING ||
            option->kind == OPTION_SEQUENCE)
            continue;
        for (uint32_t j = 0; j < running->count; j++) {
            if (option_differs(option, left + (size_t)j * size, right + (size_t)j * size))
                return true;
        }
    }
    return false;
}

static const struct option_list *list_of(const struct option *option, const void *object)
{
    return (const struct option_list *)((const uint8_t *)object + option->offset);
}

/* As sequence_differs(), with the lists of mappings within elements, which have none below. */
static bool elements_differ(const struct option *sequence, const struct config *running,
                            const struct config *next)
{
    const struct option_list *left = list_of(sequence, running), *right = list_of(sequence, next);
    uint32_t size = option_element_size(sequence);

    if (sequence_differs(sequence->element, left, right))
        return true;
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *inner = &option_table[i];
        if (inner->kind != OPTION_SEQUENCE || inner->owner != sequence->element)
            continue;
        for (uint32_t j = 0; j < left->count; j++) {
            if (sequence_differs(inner->element,
                                 list_of(inner, (const uint8_t *)left->items + (size_t)j * size),
                                 list_of(inner, (const uint8_t *)right->items + (size_t)j * size)))
                return true;
        }
    }
    return false;
}

/* Is there something in it that a reload takes over? */
static bool is_taken_over(const struct option *option)
{
    bool is_any = option->kind != OPTION_SEQUENCE && option->is_reloadable;

    for (uint32_t i = 0; option->kind == OPTION_SEQUENCE && i < option_count; i++)
        is_any |= option_table[i].owner == option->element && option_table[i].is_reloadable &&
                  option_table[i].kind != OPTION_MAPPING;
    return is_any;
}

const char *config_changes(const struct config *running, const struct config *next, char *ret_text,
                           uint32_t size)
{
    uint32_t used = 0, left_out = 0;

    CHECK(size > 2 * OPTION_PATH_SIZE);
    *ret_text = '\0';
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        if (option->owner != OPTION_OWNER_CONFIG || option->kind == OPTION_MAPPING ||
            !is_taken_over(option))
            continue;
        bool differs = option->kind == OPTION_SEQUENCE ? elements_differ(option, running, next)
                                                       : option_differs(option, running, next);
        if (!differs)
            continue;
        if (used + 2 * OPTION_PATH_SIZE >= size)
            left_out++;
        else
            used += (uint32_t)snprintf(ret_text + used, size - used, "%s%s", used == 0 ? "" : ", ",
                                       option->path);
    }
    if (left_out > 0)
        (void)snprintf(ret_text + used, size - used, " and %u more", left_out);
    return ret_text;
}

const char *config_restart_needed(const struct config *running, const struct config *next,
                                  char *ret_text, uint32_t size)
{
    uint32_t used = 0;

    CHECK(size > OPTION_PATH_SIZE);
    *ret_text = '\0';
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        if (option->owner != OPTION_OWNER_CONFIG || option->is_reloadable ||
            used + OPTION_PATH_SIZE >= size || !option_differs(option, running, next))
            continue;
        used += (uint32_t)snprintf(ret_text + used, size - used, "%s%s", used == 0 ? "" : ", ",
                                   option->path);
    }
    if (used + OPTION_PATH_SIZE < size &&
        sequence_differs(OPTION_OWNER_PORT, &running->dataplane_ports, &next->dataplane_ports))
        used += (uint32_t)snprintf(ret_text + used, size - used, "%sdataplane.ports",
                                   used == 0 ? "" : ", ");
    if (used + OPTION_PATH_SIZE < size &&
        sequence_differs(OPTION_OWNER_WEBHOOK, &running->webhooks, &next->webhooks))
        snprintf(ret_text + used, size - used, "%swebhooks", used == 0 ? "" : ", ");
    return ret_text;
}
