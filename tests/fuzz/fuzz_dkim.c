/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any message through the signer: no crash, the same text whatever the pieces, a prefix that an
 * envelope takes, and a signature that verifies over what goes out.
 *
 * First octet: canonical forms (two bits), `by` (one bit), the rest chooses the pieces. What
 * follows is the message.
 */
#include <stdlib.h>

#include "queue/envelope.h"
#include "relay/dkim_internal.h"
#include "tests/unit/dkim_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGE_MAX 65536u

static struct evp_pkey_st *pkey;
static struct dkim_key *key;

static void key_make(void)
{
    char path[DKIM_FIXTURE_PATH_SIZE], why[DKIM_KEY_WHY_SIZE];

    pkey = dkim_fixture_ed25519();
    CHECK(dkim_key_load(dkim_fixture_key_file(pkey, path), &key, why) == ERR_OK);
}

/* Sign, fed in pieces of `piece` octets; 0: whole. The signer is the caller's to free. */
static struct dkim_signer *sign(const struct settings *settings, struct span message,
                                uint32_t piece, enum dkim_verdict *ret_verdict,
                                struct span *ret_fields)
{
    static const struct settings_listener listener;
    static const struct flow_address client;
    struct dkim_origin origin = {
        .listener = &listener, .client = &client, .sender = SPAN_LITERAL("a@example.org")};
    struct dkim_signer *signer;
    uint32_t count = 0;

    CHECK(dkim_signer_new(settings, &origin, &signer) == ERR_OK && signer != NULL);
    while (message.size > 0) {
        uint32_t size = piece == 0 || piece > message.size ? message.size : piece;
        dkim_signer_feed(signer, span_head(message, size));
        message = span_skip(message, size);
    }
    *ret_verdict = dkim_signer_finish(signer);
    *ret_fields = (struct span){0};
    if (*ret_verdict == DKIM_SIGN &&
        dkim_signer_sign(signer, 1700000000000000, ret_fields, &count) == ERR_OK)
        CHECK(count == 1);
    return signer;
}

static void envelope_check(struct span prefix)
{
    struct envelope_recipient recipient = {.address = SPAN_LITERAL("b@y"),
                                           .domain = SPAN_LITERAL("y")};
    struct envelope envelope = {.body_size = prefix.size,
                                .header_size = prefix.size,
                                .prefix = prefix,
                                .recipients = &recipient,
                                .recipient_count = 1};

    CHECK(envelope_is_valid(&envelope));
}

/* Only messages whose header ends where every reader says so can be verified. */
static void verify(struct span fields, struct span message)
{
    uint8_t *text = malloc(fields.size + message.size + 4u);

    CHECK(text != NULL);
    memcpy(text, fields.data, fields.size);
    memcpy(text + fields.size, message.data, message.size);
    struct span whole = span_of(text, fields.size + message.size);
    CHECK(dkim_fixture_verify(whole, 0, pkey) == NULL);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"From", "Subject", "To"}, *const match[] = {"*"};
    enum dkim_verdict verdict, again_verdict;
    struct span fields, again;

    if (key == NULL)
        key_make();
    if (size < 1 || size > MESSAGE_MAX)
        return 0;
    struct settings_dkim rule = {
        .domain = "example.org",
        .selector = "s",
        .key = key,
        .by = data[0] & 4 ? SETTINGS_DKIM_BY_SENDER : SETTINGS_DKIM_BY_FROM,
        .match = match,
        .match_count = 1,
        .header_canon = data[0] & 1 ? DKIM_RELAXED : DKIM_SIMPLE,
        .body_canon = data[0] & 2 ? DKIM_RELAXED : DKIM_SIMPLE,
        .headers = names,
        .header_count = COUNT_OF(names),
        .oversign = names,
        .oversign_count = 1,
    };
    struct settings settings = {.dkim = &rule, .dkim_count = 1};
    struct span message = span_of(data + 1, (uint32_t)size - 1);
    struct dkim_signer *whole = sign(&settings, message, 0, &verdict, &fields);
    struct dkim_signer *pieces =
        sign(&settings, message, 1 + (data[0] >> 3), &again_verdict, &again);
    CHECK(verdict == again_verdict && span_is_equal(fields, again));
    CHECK(verdict != DKIM_OPEN && verdict != DKIM_UNMATCHED);
    if (fields.size > 0) {
        envelope_check(fields);
        verify(fields, message);
    }
    dkim_signer_free(whole);
    dkim_signer_free(pieces);
    return 0;
}
