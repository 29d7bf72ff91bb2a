/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a filter: what is accepted is within its bounds, and a refusal says why and changes
 * nothing.
 */
#include "queue/qmgr_filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const struct qmgr_filter_text *text, uint32_t size_max)
{
    CHECK(text->size <= size_max);
    for (uint32_t i = 0; i < text->size; i++)
        CHECK((unsigned char)text->octets[i] >= ' ' && text->octets[i] != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct qmgr_filter filter = {.terms = UINT32_MAX};
    char why[QMGR_FILTER_WHY_SIZE] = "";

    if (size > 65536)
        return 0;
    if (qmgr_filter_parse(span_of(data, (uint32_t)size), &filter, why) != ERR_OK) {
        CHECK(filter.terms == UINT32_MAX && why[0] != '\0' && strlen(why) < sizeof(why));
        return 0;
    }
    CHECK(filter.terms < QMGR_FILTER_USER << 1);
    CHECK(((filter.terms & QMGR_FILTER_STATE) != 0) == (filter.states != 0));
    CHECK(filter.states < QMGR_FILTER_FAILED << 1);
    check_text(&filter.domain, ENVELOPE_DOMAIN_SIZE_MAX);
    check_text(&filter.site, ENVELOPE_DOMAIN_SIZE_MAX);
    check_text(&filter.sender_domain, ENVELOPE_DOMAIN_SIZE_MAX);
    check_text(&filter.source, ENVELOPE_ADDRESS_SIZE_MAX);
    check_text(&filter.sender, ENVELOPE_ADDRESS_SIZE_MAX);
    check_text(&filter.class_name, ENVELOPE_ADDRESS_SIZE_MAX);
    check_text(&filter.recipient, ENVELOPE_ADDRESS_SIZE_MAX);
    check_text(&filter.user, ENVELOPE_ADDRESS_SIZE_MAX);
    return 0;
}
