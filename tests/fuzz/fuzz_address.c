/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a path: what is accepted is clean, means the same when parsed again, and is relayed
 * for a stranger only to a served domain without a further routing inside.
 *
 * First octet: flags. The rest: the path.
 */
#include <stdlib.h>

#include "relay/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct smtp_address *address, uint32_t flags)
{
    struct smtp_address again;
    char path[SMTP_PATH_MAX];
    uint32_t used;

    CHECK(address->text.size + 2 <= sizeof(path));
    path[0] = '<';
    if (address->text.size > 0)
        memcpy(path + 1, address->text.data, address->text.size);
    path[address->text.size + 1] = '>';
    CHECK(smtp_path_parse(span_of(path, address->text.size + 2), flags, &again, &used) == ERR_OK);
    CHECK(used == address->text.size + 2 && !again.had_route);
    CHECK(span_is_equal(again.text, address->text));
    CHECK(span_is_equal(again.local_part, address->local_part));
    CHECK(again.domain_key_size == address->domain_key_size);
    CHECK(memcmp(again.domain_key, address->domain_key, again.domain_key_size + 1) == 0);
}

static void check_policy(const struct smtp_address *address)
{
    static const struct settings_route routes[] = {{.pattern = "served.example", .is_served = true},
                                                   {.pattern = "*"}};
    const struct settings settings = {.routes = routes, .route_count = 2};
    struct policy_recipient recipient;

    if (policy_recipient_check(&settings, false, address, &recipient) != POLICY_OK)
        return;
    CHECK(span_is_equal(recipient.domain, SPAN_LITERAL("served.example")));
    for (uint32_t i = 0; i < address->local_part.size; i++)
        CHECK(memchr("%!@", address->local_part.data[i], 3) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct smtp_address address;
    uint32_t used;

    if (size < 1 || size > 4096)
        return 0;
    uint32_t flags = data[0] & 7u;
    struct span text = span_of(data + 1, (uint32_t)size - 1);
    if (smtp_path_parse(text, flags, &address, &used) != ERR_OK)
        return 0;
    CHECK(used <= text.size && used <= SMTP_PATH_MAX);
    CHECK(address.local_part.size <= SMTP_LOCAL_PART_MAX);
    CHECK(strlen(address.domain_key) == address.domain_key_size);
    bool is_utf8 = false;
    for (uint32_t i = 0; i < address.text.size; i++) {
        uint8_t octet = address.text.data[i];
        CHECK(octet >= ' ' && octet != 127);
        is_utf8 |= octet > 127;
    }
    CHECK(!is_utf8 || (flags & SMTP_PATH_UTF8_OK));
    for (uint32_t i = 0; i < address.domain_key_size; i++) {
        char octet = address.domain_key[i];
        CHECK((octet >= 'a' && octet <= 'z') || (octet >= '0' && octet <= '9') || octet == '-' ||
              octet == '.');
    }
    check_again(&address, flags);
    if (!address.is_null)
        check_policy(&address);
    return 0;
}
