/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that logs in, against the session engine: no crash, no leak; every octet we answer is a
 * reply line of ours; nobody is logged in without the right password, and nobody relays without
 * that.
 *
 * First octet: what the session is like (bits). Second: how many octets the network gives at a
 * time. The rest: the client, behind EHLO. An octet '&' is the moment at which a verdict comes.
 */
#include <stdlib.h>
#include <strings.h>

#include "tests/unit/smtpd_harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_SIZE_MAX 40000u

enum setup {
    REQUIRED = 1,
    STARTTLS = 2,
    HOLD_VERDICTS = 4,
    HOLD_COMMITS = 8,
    CLEAR = 16,
    SCRAM = 32
};

static void check_output(const struct harness *harness)
{
    uint32_t column = 0;

    for (uint32_t i = 0; i < harness->output_size; i++) {
        char octet = harness->output[i];
        if (column == 0)
            CHECK(octet >= '2' && octet <= '5');
        CHECK(octet == '\r' || octet == '\n' || (octet >= ' ' && octet <= '~'));
        column = octet == '\n' ? 0 : column + 1;
    }
    CHECK(column == 0);
}

static void check_users(const struct harness *harness)
{
    for (uint32_t i = 0; i < harness->message_count; i++) {
        const struct harness_message *message = &harness->messages[i];
        bool is_served = strcmp(message->domain, "served.example") == 0 ||
                         strstr(message->domain, ".sub.example") != NULL;
        CHECK(is_served || message->envelope.user.size > 0);
    }
}

static void play(struct harness *harness, struct span input, uint32_t piece)
{
    while (input.size > 0) {
        const uint8_t *end = memchr(input.data, '&', input.size);
        uint32_t size = end == NULL ? input.size : (uint32_t)(end - input.data);
        harness_send(harness, span_head(input, size), piece);
        if (harness->session.auth != NULL && !harness->is_closed)
            harness_verdict(harness);
        input = span_skip(input, end == NULL ? size : size + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct harness harness;

    if (size < 2 || size > INPUT_SIZE_MAX)
        return 0;
    uint8_t setup = data[0];
    harness_init(&harness);
    harness.listener.auth = setup & REQUIRED ? AUTH_REQUIRED : AUTH_OPTIONAL;
    harness.listener.offer_starttls = (setup & STARTTLS) != 0;
    harness.settings.auth.plaintext =
        setup & CLEAR ? AUTH_PLAINTEXT_NEVER : AUTH_PLAINTEXT_LOOPBACK;
    harness.settings.auth.domain = "served.example";
    harness.settings.auth.failure_max = 20;
    harness.listener.limits.message_size_max = 65536;
    harness.listener.limits.messages_per_session_max = HARNESS_MESSAGE_MAX - 4;
    harness.holds_commits = (setup & HOLD_COMMITS) != 0;
    harness.holds_verdicts = (setup & HOLD_VERDICTS) != 0;
    harness.context.has_scram = (setup & SCRAM) != 0;
    harness_connect(&harness, "127.0.0.1");
    harness_send_text(&harness, "EHLO client.example\r\n");
    play(&harness, span_of(data + 2, (uint32_t)size - 2), 1u + data[1]);
    check_output(&harness);
    check_users(&harness);
    struct span user = smtpd_user(&harness.session);
    if (user.size > 0) {
        CHECK(span_is_equal_nocase(user, SPAN_LITERAL("alice")) ||
              span_is_equal_nocase(user, SPAN_LITERAL("bob@served.example")));
        CHECK((setup & CLEAR) == 0 || harness.session.is_tls);
    }
    harness_fini(&harness);
    return 0;
}
