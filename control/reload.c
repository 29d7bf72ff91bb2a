/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reload: see reload.h for how snapshots live and die.
 *
 * Invariants
 *   1. snapshots[0] is the first one; serials rise along the array, with gaps where some were
 * freed.
 *   2. A snapshot other than the first and the newest is freed as soon as all shards have replied
 * to the one that came after it.
 *   3. At most RELOAD_SNAPSHOT_MAX: sessions may hold old ones for as long as they last, so that
 *      further reloads are refused meanwhile.
 */
#include "control/reload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"

void reload_init(struct reload *reload, const char *path, struct config *first)
{
    *reload = (struct reload){.path = path, .snapshots = {{.config = first}}, .count = 1};
    first->settings.serial = 1;
}

void reload_fini(struct reload *reload)
{
    for (uint32_t i = 0; i < reload->count; i++)
        config_free(reload->snapshots[i].config);
    reload->count = 0;
}

const struct config *reload_current(const struct reload *reload)
{
    return reload->snapshots[reload->count - 1].config;
}

static void reload_hand_out(struct reload *reload, struct config *next)
{
    struct shard_control control;

    next->settings.serial = reload_current(reload)->settings.serial + 1;
    reload->snapshots[reload->count - 1].borrowers = assembly_count(reload->assembly);
    reload->snapshots[reload->count++] = (struct reload_snapshot){.config = next};
    control = (struct shard_control){.settings = &next->settings, .serial = next->settings.serial};
    assembly_send_all(reload->assembly, SHARD_MESSAGE_SETTINGS, &control);
}

/* Such a file says the defaults, and is what an editor or a script leaves for a moment that writes
 * it in place. A relay that runs is not to forget its destinations for that. */
static bool is_empty(const char *path)
{
    struct stat file;

    return stat(path, &file) == 0 && file.st_size == 0;
}

bool reload_run(struct reload *reload, bool is_dry_run, char ret_text[RELOAD_TEXT_SIZE])
{
    struct config_report report;
    struct config *next = NULL;
    char restart[1024], changes[1024], why[ASSEMBLY_WHY_SIZE];

    if (reload->count == RELOAD_SNAPSHOT_MAX) {
        snprintf(ret_text, RELOAD_TEXT_SIZE,
                 "%u earlier configurations are still in use by open sessions: try again later",
                 RELOAD_SNAPSHOT_MAX - 1);
        return false;
    }
    if (is_empty(reload->path)) {
        snprintf(ret_text, RELOAD_TEXT_SIZE, "%s is empty: is it being written?", reload->path);
        return false;
    }
    config_report_init(&report, reload->path);
    report.is_look = is_dry_run;
    if (config_load(reload->path, &next, &report) != ERR_OK) {
        snprintf(ret_text, RELOAD_TEXT_SIZE, "%s", report.text);
        return false;
    }
    errno = 0;
    if (assembly_listeners_probe(next, reload_current(reload), NULL, why) != ERR_OK) {
        /* The right to them is kept if the first configuration had one (confine.h). */
        snprintf(ret_text, RELOAD_TEXT_SIZE, "%s%s", why,
                 errno == EACCES ? ": the first port below 1024 takes a restart" : "");
        config_free(next);
        return false;
    }
    config_restart_needed(reload->snapshots[0].config, next, restart, sizeof(restart));
    config_changes(reload_current(reload), next, changes, sizeof(changes));
    snprintf(ret_text, RELOAD_TEXT_SIZE, "%s: %s%s%s",
             is_dry_run ? "nothing was done, a reload would change" : "reloaded",
             *changes == '\0' ? "no option has changed" : changes,
             *restart == '\0' ? "" : "; only a restart changes: ", restart);
    if (is_dry_run) {
        config_free(next);
        return true;
    }
    log_set_threshold(next->log_level);
    reload_hand_out(reload, next);
    return true;
}

static void reload_free(struct reload *reload, uint32_t index)
{
    config_free(reload->snapshots[index].config);
    reload->count -= 1;
    memmove(&reload->snapshots[index], &reload->snapshots[index + 1],
            (reload->count - index) * sizeof(reload->snapshots[0]));
}

void reload_on_reply(struct reload *reload, const struct shard_control *reply)
{
    for (uint32_t i = 0; i < reload->count; i++) {
        struct reload_snapshot *snapshot = &reload->snapshots[i];
        if (snapshot->config->settings.serial != reply->serial - 1)
            continue;
        CHECK(snapshot->borrowers > 0 && i + 1 < reload->count);
        snapshot->borrowers -= 1;
        if (snapshot->borrowers == 0 && i > 0)
            reload_free(reload, i);
        return;
    }
    CHECK(false && "a reply about a snapshot that is gone");
}
