/* SPDX-License-Identifier: Apache-2.0 */
#include "control/cli_print.h"

#include <inttypes.h>
#include <string.h>

static void host_print(const json_t *host, FILE *out)
{
    const json_t *addresses = json_object_get(host, "addresses");
    char text[CLI_SHOWN_SIZE];

    fprintf(out, "host       %4" PRId64 " %s", cli_number(host, NULL, "preference"),
            cli_shown(host, "name", text));
    for (size_t i = 0; i < json_array_size(addresses); i++)
        fprintf(out, "%s %s", i == 0 ? ":" : ",", json_string_value(json_array_get(addresses, i)));
    if (cli_number(host, NULL, "port") > 0) /* a Unix socket has none */
        fprintf(out, " port %" PRId64, cli_number(host, NULL, "port"));
    fprintf(out, "%s\n",
            json_is_true(json_object_get(host, "is_dead")) ? ", does not answer: tried last" : "");
}

static void answer_print(const json_t *answer, FILE *out)
{
    const json_t *hosts = json_object_get(answer, "hosts");
    const json_t *others = json_object_get(answer, "without_address");
    char verdict[CLI_SHOWN_SIZE], reason[CLI_SHOWN_SIZE];

    if (strcmp(cli_shown(answer, "verdict", verdict), "ok") != 0)
        fprintf(out, "no host    %s: %s\n", verdict, cli_shown(answer, "reason", reason));
    for (size_t i = 0; i < json_array_size(hosts); i++)
        host_print(json_array_get(hosts, i), out);
    for (size_t i = 0; i < json_array_size(others); i++)
        fprintf(out, "host       %s: it has no address now\n",
                json_string_value(json_array_get(others, i)));
    fprintf(out, "known      %s",
            json_is_true(json_object_get(answer, "from_cache")) ? "from the cache" : "asked now");
    if (json_is_true(json_object_get(answer, "is_stale")))
        fprintf(out, ", past its time, as no resolver answers");
    if (json_object_get(answer, "valid_s") != NULL)
        fprintf(out, ", for %" PRId64 " s", cli_number(answer, NULL, "valid_s"));
    fprintf(out, "\n");
}

static void route_print(const json_t *answer, FILE *out)
{
    const json_t *route = json_object_get(answer, "route");
    char text[CLI_SHOWN_SIZE];

    fprintf(out, "route      \"%s\"", cli_shown(route, "match", text));
    fprintf(out, " via %s", cli_shown(route, "via", text));
    fprintf(out, ", TLS %s", cli_shown(route, "tls", text));
    if (json_is_true(json_object_get(route, "auth")))
        fprintf(out, ", with a password");
    if (json_is_true(json_object_get(route, "served")))
        fprintf(out, ", open to all clients");
    if (json_object_get(route, "text") != NULL)
        fprintf(out, ": %s", cli_shown(route, "text", text));
    fprintf(out, "\n");
    if (json_object_get(answer, "provider") != NULL)
        fprintf(out, "provider   %s\n", cli_shown(answer, "provider", text));
    if (json_object_get(answer, "connections") != NULL)
        fprintf(out, "limit      %" PRId64 " connections\n",
                cli_number(answer, NULL, "connections"));
}

void cli_probe_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *route = json_object_get(answer, "route");
    char text[CLI_SHOWN_SIZE];

    (void)now;
    fprintf(out, "domain     %s\n", cli_shown(answer, "domain", text));
    if (route != NULL)
        route_print(answer, out);
    if (route != NULL &&
        (strcmp(cli_shown(route, "via", text), "discard") == 0 || strcmp(text, "refuse") == 0))
        return;
    answer_print(answer, out);
}
