/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of any kind against the session engine: no crash, no leak; every octet we answer is a
 * reply line of ours; what is stored has CR and LF only as CRLF, no NUL, our trace field in front,
 * and a recipient that the client may send to.
 *
 * First octet: what the session is like (bits). Second: how many octets the network gives at a
 * time. The rest: the client.
 */
#include <stdlib.h>

#include "tests/unit/smtpd_harness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_SIZE_MAX 60000u

enum setup {
    NORMALIZE = 1,
    STARTTLS = 2,
    HOLD_COMMITS = 4,
    RELAY_CLIENT = 8,
    LONG_LINES = 16,
    HELLO_DONE = 32,
    POSTMASTER = 64,
    BEGIN_FAILS = 128
};

static void check_output(const struct harness *harness)
{
    uint32_t column = 0;

    for (uint32_t i = 0; i < harness->output_size; i++) {
        char octet = harness->output[i];
        if (column == 0)
            CHECK(octet >= '2' && octet <= '5');
        if (column == 3)
            CHECK(octet == ' ' || octet == '-');
        CHECK(octet == '\r' || octet == '\n' || (octet >= ' ' && octet <= '~'));
        if (octet == '\n')
            CHECK(harness->output[i - 1] == '\r');
        column = octet == '\n' ? 0 : column + 1;
    }
    CHECK(column == 0);
}

static void check_message(const struct harness_message *message, bool is_relay_client)
{
    CHECK(message->size > 10 && memcmp(message->body, "Received: ", 10) == 0);
    for (uint32_t i = 0; i < message->size; i++) {
        if (message->body[i] == '\r')
            CHECK(i + 1 < message->size && message->body[i + 1] == '\n');
        if (message->body[i] == '\n')
            CHECK(message->body[i - 1] == '\r');
        CHECK(message->body[i] != '\0');
    }
    CHECK(message->envelope.recipient_count > 0);
    CHECK(message->envelope.body_size == message->size);
    CHECK(message->envelope.header_size <= message->size);
    if (!is_relay_client) {
        const char *domain = message->domain;
        CHECK(strcmp(domain, "served.example") == 0 || strcmp(domain, "ops.example") == 0 ||
              strstr(domain, ".sub.example") != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct harness harness;

    if (size < 2 || size > INPUT_SIZE_MAX)
        return 0;
    uint8_t setup = data[0];
    harness_init(&harness);
    harness.listener.bare_lf =
        setup & NORMALIZE ? SETTINGS_BARE_LF_NORMALIZE : SETTINGS_BARE_LF_REJECT;
    harness.listener.long_lines =
        setup & LONG_LINES ? SETTINGS_LONG_LINES_REJECT : SETTINGS_LONG_LINES_PASS;
    harness.listener.offer_starttls = (setup & STARTTLS) != 0;
    harness.listener.limits.message_size_max = 65536;
    harness.listener.limits.messages_per_session_max = HARNESS_MESSAGE_MAX - 4;
    harness.listener.limits.error_max = 1000;
    harness.listener.limits.junk_max = 1000;
    harness.holds_commits = (setup & HOLD_COMMITS) != 0;
    harness.begin_err = setup & BEGIN_FAILS ? ERR_DISK_FULL : ERR_OK;
    harness.settings.postmaster = setup & POSTMASTER ? "ops@ops.example" : NULL;
    harness_connect(&harness, setup & RELAY_CLIENT ? "10.0.0.1" : "192.0.2.1");
    if (setup & HELLO_DONE)
        harness_send_text(&harness, "EHLO client.example\r\n");
    harness_send(&harness, span_of(data + 2, (uint32_t)size - 2), 1u + data[1]);
    check_output(&harness);
    for (uint32_t i = 0; i < harness.message_count; i++)
        check_message(&harness.messages[i], (setup & RELAY_CLIENT) != 0);
    harness_fini(&harness);
    return 0;
}
