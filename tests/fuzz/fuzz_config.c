/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations from any octets: no crash, no hang; a refusal always comes with a complaint, and
 * what is accepted keeps the promises that the relay relies on.
 */
#include "control/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void settings_verify(const struct config *config)
{
    const struct settings *settings = &config->settings;

    CHECK(settings->listener_count >= 1);
    for (uint32_t i = 0; i < settings->listener_count; i++)
        CHECK(settings->listeners[i].address.port != 0);
    CHECK(settings->route_count >= 1);
    CHECK(strcmp(settings->routes[settings->route_count - 1].pattern, "*") == 0);
    for (uint32_t i = 0; i < settings->route_count; i++) {
        const struct settings_route *route = &settings->routes[i];
        CHECK((route->host_count > 0) == (route->kind == SETTINGS_ROUTE_HOSTS));
        CHECK(route->auth == NULL || route->tls >= SETTINGS_TLS_ENCRYPT);
        CHECK(route->tls <= SETTINGS_TLS_VERIFY);
    }
    CHECK(settings->mx.port != 0 && (settings->mx.ipv4 || settings->mx.ipv6));
    CHECK(settings->retry_min > 0 && settings->retry_min <= settings->retry_max);
    CHECK(config->cores >= 1 && config->spool.segment_size % 4096 == 0);
    CHECK(config->spool.directory != NULL && config->control_socket != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_report report;
    struct config *config = NULL;

    if (size > CONFIG_FILE_SIZE_MAX)
        return 0;
    config_report_init(&report, "fuzz");
    if (config_parse(span_of(data, (uint32_t)size), &config, &report) == ERR_OK) {
        if (config_assemble(config, &report) == ERR_OK)
            settings_verify(config);
        else
            CHECK(report.count > 0);
        config_free(config);
    } else {
        CHECK(report.count > 0 && strlen(report.text) > 0);
    }
    return 0;
}
