/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users who log in: which listeners let them, and the file that they are in.
 *
 * Invariant of the result: where clients may log in, they can: there are users, and TLS or a rule
 * that does without.
 */
#include "control/config.h"
#include "relay/auth_users.h"

static void listener_assemble(const struct config *config, struct config_listener *listener,
                              struct config_report *report)
{
    struct settings_listener *settings = &listener->settings;
    bool may_be_clear = config->settings.auth.plaintext != AUTH_PLAINTEXT_NEVER;

    if ((uint32_t)settings->auth == OPTION_CHOICE_NONE)
        settings->auth = listener->kind == CONFIG_KIND_SUBMISSION ? AUTH_REQUIRED : AUTH_OFF;
    settings->is_submission = listener->kind == CONFIG_KIND_SUBMISSION;
    if (settings->auth == AUTH_OFF)
        return;
    if (config->auth_users_file == NULL && config->settings.auth.dovecot == NULL)
        config_complain(report, listener->line, "listen[].auth",
                        "nobody can log in: `auth.users_file` or `auth.dovecot` is missing");
    if (listener->tls_line == 0 && !may_be_clear)
        config_complain(report, listener->line, "listen[].auth",
                        "needs `tls`: the password would travel in the clear");
}

void config_auth_assemble(struct config *config, struct config_report *report)
{
    struct config_listener *items = config->listen.items;

    if (config->auth_users_file != NULL && config->settings.auth.dovecot != NULL)
        config_complain(report, 0, "auth.dovecot", "expected this or `users_file`, not both");
    for (uint32_t i = 0; i < config->listen.count; i++)
        listener_assemble(config, &items[i], report);
}

void config_auth_headers(struct config *config)
{
    struct header_names *names = &config->settings.header_submission;

    *names = config->settings.header;
    names->fields[HEADER_DATE].name = "Date";
    names->fields[HEADER_MESSAGE_ID].name = "Message-ID";
}

enum err config_auth_complete(struct config *config, struct config_report *report)
{
    char why[AUTH_USERS_WHY_SIZE] = "";

    if (config->auth_users_file == NULL)
        return ERR_OK;
    enum err err = auth_users_load(config->auth_users_file, &config->auth_users, why);
    if (err != ERR_OK) {
        config_complain(report, 0, "auth.users_file", "%s", why);
        return err == ERR_MEMORY ? err : ERR_OK;
    }
    config->auth_users_free = auth_users_free;
    config->settings.auth.users = config->auth_users;
    return ERR_OK;
}
