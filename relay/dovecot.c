/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of Dovecot's authentication protocol.
 *
 *   we:   VERSION 1 2 / CPID n                       it: VERSION 1 n / MECH PLAIN ... / ... / DONE
 *   we:   AUTH n PLAIN service=smtp ... resp=base64  it: OK n user=... | FAIL n ... | CONT n ...
 *
 *   we:   CONT n base64                              ... for SCRAM, until OK or FAIL
 *   we:   CANCEL n                                   the client has given up
 *
 * Fields are separated by tabs. Whatever the client said that has a password, PLAIN is what Dovecot
 * is asked with; of SCRAM the messages are passed on. What can be in them is bounded by
 * smtpd_auth.c, and base64: no octet of the client's can end a field or a line.
 */
#include "relay/dovecot.h"

#include <stdio.h>

#include "base/base64.h"

#define PLAIN_MAX (AUTH_NAME_MAX + AUTH_PASSWORD_MAX + 2u)

/* The field in front, taken away with its tab. */
static struct span field_take(struct span *rest)
{
    const uint8_t *tab = rest->size == 0 ? NULL : memchr(rest->data, '\t', rest->size);
    uint32_t size = tab == NULL ? rest->size : (uint32_t)(tab - rest->data);
    struct span field = span_head(*rest, size);

    *rest = span_skip(*rest, tab == NULL ? size : size + 1);
    return field;
}

static bool number_take(struct span *rest, uint32_t *ret_number)
{
    uint64_t number;

    if (span_parse_u64(field_take(rest), &number) != ERR_OK || number > UINT32_MAX)
        return false;
    *ret_number = (uint32_t)number;
    return true;
}

static bool has_field(struct span rest, struct span wanted)
{
    while (rest.size > 0) {
        if (span_is_equal(field_take(&rest), wanted))
            return true;
    }
    return false;
}

/* Dovecot writes control characters as \001 and another: no name here has any. */
static void user_take(struct span rest, struct dovecot_line *line)
{
    static const struct span user = {(const uint8_t *)"user=", 5};
    struct span name = {0};

    while (rest.size > 0 && name.size == 0) {
        struct span field = field_take(&rest);
        if (field.size > user.size && memcmp(field.data, user.data, user.size) == 0)
            name = span_skip(field, user.size);
    }
    if (name.size > AUTH_NAME_MAX)
        return;
    for (uint32_t i = 0; i < name.size; i++) {
        if (name.data[i] < ' ' || name.data[i] == 127)
            return;
        line->user[i] = (char)name.data[i];
    }
    line->user_size = name.size;
}

/* It goes into a reply line as it is. */
static bool challenge_take(struct span text, struct dovecot_line *line)
{
    uint8_t octets[AUTH_CHALLENGE_MAX / 4 * 3];
    uint32_t size;

    if (text.size > AUTH_CHALLENGE_MAX || base64_decode(text, octets, &size) != ERR_OK)
        return false;
    if (text.size > 0)
        memcpy(line->challenge, text.data, text.size);
    line->challenge_size = text.size;
    return true;
}

enum err dovecot_line_parse(struct span line, struct dovecot_line *ret_line)
{
    static const struct {
        const char *name;
        enum dovecot_word word;
        bool has_number;
    } words[] = {
        {"VERSION", DOVECOT_VERSION, true}, {"MECH", DOVECOT_MECH, false},
        {"DONE", DOVECOT_DONE, false},      {"OK", DOVECOT_OK, true},
        {"FAIL", DOVECOT_FAIL, true},       {"CONT", DOVECOT_CONT, true},
    };
    struct dovecot_line result = {.word = DOVECOT_OTHER};
    bool has_number = false;

    struct span name = field_take(&line);
    if (name.size == 0)
        return ERR_PEER_SYNTAX;
    for (uint32_t i = 0; i < COUNT_OF(words); i++) {
        if (!span_is_equal(name, span_from_text(words[i].name)))
            continue;
        result.word = words[i].word;
        has_number = words[i].has_number;
    }
    if (has_number && !number_take(&line, &result.number))
        return ERR_PEER_SYNTAX;
    if (result.word == DOVECOT_MECH) {
        struct span mechanism = field_take(&line);
        result.is_plain = span_is_equal_nocase(mechanism, SPAN_LITERAL("PLAIN"));
        result.is_scram = span_is_equal_nocase(mechanism, SPAN_LITERAL("SCRAM-SHA-256"));
    }
    if (result.word == DOVECOT_CONT && !challenge_take(field_take(&line), &result))
        return ERR_PEER_SYNTAX;
    if (result.word == DOVECOT_FAIL)
        result.is_temporary = has_field(line, SPAN_LITERAL("temp"));
    if (result.word == DOVECOT_OK)
        user_take(line, &result);
    *ret_line = result;
    return ERR_OK;
}

struct span dovecot_hello_format(uint32_t client, char ret_text[DOVECOT_HELLO_MAX])
{
    int size = snprintf(ret_text, DOVECOT_HELLO_MAX, "VERSION\t1\t2\nCPID\t%u\n", client);

    CHECK(size > 0 && size < (int)DOVECOT_HELLO_MAX);
    return span_of(ret_text, (uint32_t)size);
}

static const char *ip_text(const struct flow_address *address, char ret_text[FLOW_ADDRESS_TEXT_MAX])
{
    if (address->family != FLOW_FAMILY_IP4 && address->family != FLOW_FAMILY_IP6)
        return "127.0.0.1"; /* a Unix socket */
    return flow_address_format_ip(address, ret_text);
}

struct span dovecot_request_format(uint32_t number, const struct auth_request *request,
                                   const struct dovecot_client *client,
                                   char ret_text[DOVECOT_REQUEST_MAX])
{
    char local[FLOW_ADDRESS_TEXT_MAX], peer[FLOW_ADDRESS_TEXT_MAX];
    uint8_t plain[PLAIN_MAX] = {0};
    uint32_t size = request->name.size + request->password.size + 2;

    CHECK(request->name.size <= AUTH_NAME_MAX && request->password.size <= AUTH_PASSWORD_MAX);
    CHECK(request->message.size <= AUTH_PASSWORD_MAX && !request->goes_on);
    if (request->is_scram) {
        size = request->message.size;
        memcpy(plain, request->message.data, size);
    } else {
        memcpy(plain + 1, request->name.data, request->name.size);
        memcpy(plain + 2 + request->name.size, request->password.data, request->password.size);
    }
    int used = snprintf(ret_text, DOVECOT_REQUEST_MAX,
                        "AUTH\t%u\t%s\tservice=smtp\tnologin%s\tlip=%s\trip=%s\tresp=", number,
                        request->is_scram ? "SCRAM-SHA-256" : "PLAIN",
                        client->is_secured ? "\tsecured" : "", ip_text(client->local, local),
                        ip_text(client->peer, peer));
    CHECK(used > 0 && (uint32_t)used + BASE64_SIZE(size) < DOVECOT_REQUEST_MAX);
    base64_encode(span_of(plain, size), ret_text + used);
    explicit_bzero(plain, sizeof(plain));
    uint32_t total = (uint32_t)used + BASE64_SIZE(size);
    ret_text[total] = '\n';
    return span_of(ret_text, total + 1);
}

struct span dovecot_continue_format(uint32_t number, const struct auth_request *request,
                                    char ret_text[DOVECOT_REQUEST_MAX])
{
    int used = snprintf(ret_text, DOVECOT_REQUEST_MAX, "CONT\t%u\t", number);

    CHECK(request->is_scram && request->goes_on && request->message.size <= AUTH_PASSWORD_MAX);
    CHECK(used > 0 && (uint32_t)used + BASE64_SIZE(request->message.size) < DOVECOT_REQUEST_MAX);
    base64_encode(request->message, ret_text + used);
    uint32_t total = (uint32_t)used + BASE64_SIZE(request->message.size);
    ret_text[total] = '\n';
    return span_of(ret_text, total + 1);
}

struct span dovecot_cancel_format(uint32_t number, char ret_text[DOVECOT_CANCEL_MAX])
{
    int size = snprintf(ret_text, DOVECOT_CANCEL_MAX, "CANCEL\t%u\n", number);

    CHECK(size > 0 && size < (int)DOVECOT_CANCEL_MAX);
    return span_of(ret_text, (uint32_t)size);
}
