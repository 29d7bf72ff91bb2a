/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket's part in an upgrade (daemon_upgrade.c).
 *
 *   {"verb":"upgrade"}              of a new program: the answer comes with an end of a link, on
 * which everything else is said
 *   {"verb":"upgrade","want":true}  of an operator where a service manager starts programs: who
 * asks next hears that one is wanted, for WANT_TIME
 *   {"verb":"upgrade","look":true}  "pid"; "is_managed": by a service manager; "is_wanted":
 * somebody said so, or the program's file is another than that which runs
 *
 * Who can open the socket is the relay's own user, or root: they may.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/admin_internal.h"

#define WANT_TIME TICK_S(60)

static void upgrade_look(struct admin *admin, struct admin_client *client, tick_us now)
{
    bool is_asked_for = now < admin->upgrade_wanted_until;
    bool is_other = admin->options.is_other_program(admin->options.context);

    admin_client_answer(admin, client,
                        json_pack("{sb,sI,sb,sb}", "ok", 1, "pid", (json_int_t)getpid(),
                                  "is_managed", getenv("NOTIFY_SOCKET") != NULL, "is_wanted",
                                  is_asked_for || is_other));
}

static void upgrade_begin(struct admin *admin, struct admin_client *client)
{
    char text[ADMIN_ERROR_SIZE] = "this relay cannot be upgraded in its place";
    int end =
        admin->options.upgrade == NULL ? -1 : admin->options.upgrade(admin->options.context, text);

    if (end < 0) {
        admin_client_refuse(admin, client, text);
        return;
    }
    admin->upgrade_wanted_until = 0;
    bool is_sent = admin_client_pass(client, end);
    close(end); /* the other process has a duplicate, or the link is at its end */
    if (is_sent)
        admin_client_answer(admin, client, json_pack("{sb}", "ok", 1));
    else
        admin_client_refuse(admin, client, "the link cannot be sent");
}

void admin_upgrade(struct admin *admin, struct admin_client *client, tick_us now)
{
    if (json_is_true(json_object_get(client->parsed, "look"))) {
        upgrade_look(admin, client, now);
    } else if (json_is_true(json_object_get(client->parsed, "want"))) {
        admin->upgrade_wanted_until = now + WANT_TIME;
        admin_client_answer(admin, client,
                            json_pack("{sb,ss}", "ok", 1, "text", "the next reload upgrades"));
    } else {
        upgrade_begin(admin, client);
    }
}
