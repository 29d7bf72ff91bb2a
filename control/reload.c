/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reload: see reload.h for how snapshots live and die.
 *
 * Invariants
 *   1. snapshots[0] is the first one; serials rise along the array.
 *   2. A snapshot other than the first and the newest is freed as soon as a newer one has the
 *      replies of all shards.
 *   3. At most RELOAD_SNAPSHOT_MAX: sessions may hold old ones for as long as they last, so that
 *      further reloads are refused meanwhile.
 */
#include "control/reload.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

void reload_init(struct reload *reload, const char *path, struct config *first)
{
    *reload = (struct reload){.path = path, .snapshots = {first}, .count = 1};
    first->settings.serial = 1;
}

void reload_fini(struct reload *reload)
{
    for (uint32_t i = 0; i < reload->count; i++)
        config_free(reload->snapshots[i]);
    reload->count = 0;
}

const struct config *reload_current(const struct reload *reload)
{
    return reload->snapshots[reload->count - 1];
}

static void reload_hand_out(struct reload *reload, struct config *next)
{
    struct shard_control control;

    next->settings.serial = reload_current(reload)->settings.serial + 1;
    reload->snapshots[reload->count] = next;
    reload->pending[reload->count] = assembly_count(reload->assembly);
    reload->count += 1;
    control = (struct shard_control){.settings = &next->settings, .serial = next->settings.serial};
    assembly_send_all(reload->assembly, SHARD_MESSAGE_SETTINGS, &control);
}

bool reload_run(struct reload *reload, char ret_text[RELOAD_TEXT_SIZE])
{
    struct config_report report;
    struct config *next = NULL;
    char restart[1024], why[ASSEMBLY_WHY_SIZE];

    if (reload->count == RELOAD_SNAPSHOT_MAX) {
        snprintf(ret_text, RELOAD_TEXT_SIZE,
                 "%u earlier configurations are still in use by open sessions: try again later",
                 RELOAD_SNAPSHOT_MAX - 1);
        return false;
    }
    config_report_init(&report, reload->path);
    if (config_load(reload->path, &next, &report) != ERR_OK) {
        snprintf(ret_text, RELOAD_TEXT_SIZE, "%s", report.text);
        return false;
    }
    if (assembly_listeners_probe(next, reload_current(reload), why) != ERR_OK) {
        snprintf(ret_text, RELOAD_TEXT_SIZE, "%s", why);
        config_free(next);
        return false;
    }
    config_restart_needed(reload->snapshots[0], next, restart, sizeof(restart));
    snprintf(ret_text, RELOAD_TEXT_SIZE, "%s%s%s", "reloaded",
             *restart == '\0' ? "" : "; only a restart changes: ", restart);
    log_set_threshold(next->log_level);
    reload_hand_out(reload, next);
    return true;
}

/* All shards are past snapshot number `index`: what lies between the first and it can go. */
static void reload_free_before(struct reload *reload, uint32_t index)
{
    for (uint32_t i = 1; i < index; i++)
        config_free(reload->snapshots[i]);
    if (index <= 1)
        return;
    uint32_t kept = reload->count - index;
    memmove(&reload->snapshots[1], &reload->snapshots[index], kept * sizeof(struct config *));
    memmove(&reload->pending[1], &reload->pending[index], kept * sizeof(reload->pending[0]));
    reload->count = kept + 1;
}

void reload_on_reply(struct reload *reload, const struct shard_control *reply)
{
    for (uint32_t i = 1; i < reload->count; i++) {
        if (reload->snapshots[i]->settings.serial != reply->serial)
            continue;
        CHECK(reload->pending[i] > 0);
        reload->pending[i] -= 1;
        if (reload->pending[i] == 0)
            reload_free_before(reload, i);
        return;
    }
    CHECK(false && "a reply about a snapshot that is gone");
}
