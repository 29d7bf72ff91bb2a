/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Postfix's services that take mail, as listeners: addresses and ports, certificates, logins. One
 * that would not be accepted as it stands (no certificate, nobody who knows the passwords) becomes
 * a note instead.
 */
#include <stdlib.h>

#include "control/postfix_import_internal.h"
#include "dataplane/flow.h"

uint16_t import_port_split(struct span name, struct span *ret_host)
{
    static const struct {
        const char *name;
        uint16_t port;
    } known[] = {{"smtp", 25}, {"submission", 587}, {"smtps", 465}, {"submissions", 465}};
    uint32_t colon = name.size;
    uint64_t port = 0;

    while (colon > 0 && name.data[colon - 1] != ':' && name.data[colon - 1] != ']')
        colon--;
    bool has_host = colon > 0 && name.data[colon - 1] == ':';
    *ret_host = has_host ? span_head(name, colon - 1) : (struct span){0};
    struct span text = has_host ? span_skip(name, colon) : name;
    for (uint32_t i = 0; i < COUNT_OF(known); i++) {
        if (span_is_equal(text, span_from_text(known[i].name)))
            return known[i].port;
    }
    if (text.size == 0 || text.size > 5 || span_parse_u64(text, &port) != ERR_OK || port > 65535)
        return 0;
    return (uint16_t)port;
}

/* An address as Postfix writes it, in brackets or not. */
static bool address_parse(struct span text, struct flow_address *ret_address)
{
    if (text.size > 2 && text.data[0] == '[' && text.data[text.size - 1] == ']')
        text = span_of(text.data + 1, text.size - 2);
    return flow_address_parse_ip(text, ret_address) == ERR_OK;
}

/* What smtpd says of itself: an option of the service, or the parameter. */
static bool is_yes(struct import *import, const struct postfix_service *service, const char *name,
                   const char *yes)
{
    struct span value;

    if (postfix_option_find(service->options, name, &value))
        return span_is_equal(value, span_from_text(yes));
    const char *text = import_get(import, name);
    return text != NULL && strcmp(text, yes) == 0;
}

static bool is_readable(struct import *import, const char *path)
{
    uint32_t size;
    uint8_t *text = import->source->read(import->source->context, path, &size);

    free(text);
    return text != NULL;
}

/* `tls: {...}` of listeners; empty: none. */
static void tls_find(struct import *import, char ret_tls[2 * 512 + 64])
{
    char certificate[512] = "";
    const char *text = import_get(import, "smtpd_tls_cert_file");

    ret_tls[0] = '\0';
    if (text == NULL || strlen(text) >= sizeof(certificate) ||
        !import_is_plain(span_from_text(text)))
        return;
    memcpy(certificate, text, strlen(text) + 1);
    text = import_get(import, "smtpd_tls_key_file");
    if (text == NULL || text[0] == '\0')
        text = certificate;
    if (strlen(text) >= 512 || !import_is_plain(span_from_text(text)))
        return;
    if (!is_readable(import, certificate) || !is_readable(import, text))
        import_note(import, SPAN_LITERAL("smtpd_tls_cert_file"),
                    "it, or its key, cannot be read now");
    else
        (void)snprintf(ret_tls, 2 * 512 + 64, "certificate: \"%s\", key: \"%s\"", certificate,
                       text);
}

static void listener_write(struct import *import, const struct flow_address *address,
                           const char *kind, const char *tls)
{
    char text[FLOW_ADDRESS_TEXT_MAX];

    if (import->listener_count++ == 0)
        fputs("listen:\n", import->out);
    fprintf(import->out, "  - address: \"%s\"\n%s", flow_address_format(address, text), kind);
    if (tls[0] != '\0')
        fprintf(import->out, "    tls: {%s}\n", tls);
    import_section_write(import, "limits", "    limits: {", "}\n");
    import_section_write(import, "brakes", "    brakes: {", "}\n");
}

/* The addresses of a service without one. */
static void listener_spread(struct import *import, uint16_t port, const char *kind, const char *tls)
{
    const char *text = import_get(import, "inet_interfaces");
    char interfaces[512];
    struct span rest, word;

    if (text == NULL || strcmp(text, "all") == 0)
        text = "0.0.0.0, [::]";
    else if (strcmp(text, "loopback-only") == 0 || strcmp(text, "localhost") == 0)
        text = "127.0.0.1, [::1]";
    (void)snprintf(interfaces, sizeof(interfaces), "%s", text);
    text = import_get(import, "inet_protocols");
    uint8_t only = text != NULL && strcmp(text, "ipv4") == 0   ? FLOW_FAMILY_IP4
                   : text != NULL && strcmp(text, "ipv6") == 0 ? FLOW_FAMILY_IP6
                                                               : FLOW_FAMILY_NONE;
    rest = span_from_text(interfaces);
    while (postfix_word_next(&rest, ",", &word)) {
        struct flow_address address;
        if (!address_parse(word, &address)) {
            import_note(import, SPAN_LITERAL("inet_interfaces"),
                        "names are not looked up: write addresses");
            continue;
        }
        if (only != FLOW_FAMILY_NONE && address.family != only)
            continue;
        address.port = port;
        listener_write(import, &address, kind, tls);
    }
}

static void service_write(struct import *import, const struct postfix_service *service,
                          const char *tls, bool has_auth)
{
    struct flow_address address;
    struct span host;
    uint16_t port = import_port_split(service->name, &host);
    bool is_implicit = is_yes(import, service, "smtpd_tls_wrappermode", "yes");
    bool is_submission = is_yes(import, service, "smtpd_sasl_auth_enable", "yes");
    char its_tls[2 * 512 + 96] = "";

    if (port == 0 || (host.size > 0 && !address_parse(host, &address))) {
        import_note(import, service->name, "master.cf line %u: no address and port that is known",
                    service->line);
        return;
    }
    if (tls[0] == '\0' && (is_implicit || is_submission)) {
        import_note(import, service->name, "master.cf line %u: logins and TLS want a certificate",
                    service->line);
        return;
    }
    if (is_submission && !has_auth) {
        import_note(import, service->name,
                    "master.cf line %u: logins want auth.dovecot or auth.users_file",
                    service->line);
        return;
    }
    (void)snprintf(its_tls, sizeof(its_tls), "%s%s", tls, is_implicit ? ", implicit: true" : "");
    const char *kind = is_submission ? "    kind: submission\n" : "";
    address.port = port;
    if (host.size > 0)
        listener_write(import, &address, kind, its_tls);
    else
        listener_spread(import, port, kind, its_tls);
}

/* Dovecot's socket, where logins are its. */
static bool auth_write(struct import *import)
{
    const char *text = import_get(import, "smtpd_sasl_type");
    bool is_dovecot = text != NULL && strcmp(text, "dovecot") == 0;

    text = import_get(import, "smtpd_sasl_path");
    if (!is_dovecot || text == NULL || !import_is_plain(span_from_text(text)) ||
        strlen(text) > 80 || strchr(text, ':') != NULL)
        return false;
    fprintf(import->out, "auth: {dovecot: \"%s%s\"}\n", text[0] == '/' ? "" : "/var/spool/postfix/",
            text);
    return true;
}

void import_listeners_write(struct import *import)
{
    char tls[2 * 512 + 64];
    bool has_auth = auth_write(import);

    tls_find(import, tls);
    for (uint32_t i = 0; i < import->postfix->service_count; i++) {
        const struct postfix_service *service = &import->postfix->services[i];
        if (!span_is_equal(service->type, SPAN_LITERAL("inet")))
            continue;
        if (!span_is_equal(service->command, SPAN_LITERAL("smtpd"))) {
            import_note(import, service->name, "master.cf line %u: this service is not there",
                        service->line);
            continue;
        }
        service_write(import, service, tls, has_auth);
    }
    if (import->listener_count == 0)
        import_note(import, SPAN_LITERAL("master.cf"),
                    "no smtpd listens: `listen` is for you to write");
}
