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

/* Lists of mappings that a reload does not take over. */
static bool sequence_differs(enum option_owner owner, const struct option_list *running,
                             const struct option_list *next)
{
    const uint8_t *left = running->items, *right = next->items;
    uint32_t size = option_owner_size(owner);

    if (running->count != next->count)
        return true;
    for (uint32_t i = 0; i < option_count; i++) {
        for (uint32_t j = 0; option_table[i].owner == owner && j < running->count; j++) {
            if (option_differs(&option_table[i], left + (size_t)j * size, right + (size_t)j * size))
                return true;
        }
    }
    return false;
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
