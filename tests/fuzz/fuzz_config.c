/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations from any octets: no crash, no hang; a refusal always comes with a complaint, and
 * what is accepted keeps the promises that the relay relies on. A form feed, which YAML does not
 * have, begins another file that is included.
 */
#include "control/config.h"
#include "control/config_check.h"

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

/* As config_load() does with files. */
static enum err files_parse(struct span rest, struct config **ret_config,
                            struct config_report *report)
{
    TRY(config_parse_begin(ret_config, report));
    while (true) {
        const uint8_t *end = memchr(rest.data, '\f', rest.size);
        struct span text = end == NULL ? rest : span_head(rest, (uint32_t)(end - rest.data));
        config_parse_text(*ret_config, text, report);
        if (end == NULL || config_report_add(report, "more") != ERR_OK)
            break;
        rest = span_skip(rest, text.size + 1);
    }
    report->at = 0;
    config_parse_end(report);
    if (report->count == 0)
        return ERR_OK;
    config_free(*ret_config);
    return ERR_CONFIG_SYNTAX;
}

/* What comes over HTTP: an answer in any case, with errors if it is not good. */
static void text_check(struct span text)
{
    json_t *answer = config_check_text(text);
    bool is_ok = json_is_true(json_object_get(answer, "ok"));

    CHECK(is_ok == (json_array_size(json_object_get(answer, "errors")) == 0));
    CHECK(is_ok == (json_object_get(answer, "error") == NULL));
    json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_report report;
    struct config *config = NULL;

    if (size == 0 || size > CONFIG_FILE_SIZE_MAX)
        return 0;
    config_report_init(&report, "fuzz");
    if (files_parse(span_of(data, (uint32_t)size), &config, &report) == ERR_OK) {
        if (config_assemble(config, &report) == ERR_OK)
            settings_verify(config);
        else
            CHECK(report.count > 0);
        config_free(config);
    } else {
        CHECK(report.count > 0 && strlen(report.text) > 0);
    }
    text_check(span_of(data, (uint32_t)size));
    return 0;
}
