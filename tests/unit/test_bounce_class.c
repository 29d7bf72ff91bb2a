/* SPDX-License-Identifier: Apache-2.0 */
/* Classes of refusals: replies as servers send them, our own words, and every class at least once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay/bounce_class.h"

static const struct {
    const char *class;
    uint16_t code;
    uint8_t enhanced[3];
    const char *text;
} cases[] = {
    {"bad-mailbox", 550, {5, 1, 1}, "No such user here"},
    {"bad-mailbox", 550, {5, 1, 1}, "<spam-trap@example.org>: unknown"}, /* not the text's word */
    {"bad-mailbox", 550, {0, 0, 0}, "User unknown"},
    {"bad-mailbox", 550, {5, 0, 0}, "The account does not exist"},
    {"bad-mailbox", 550, {5, 1, 9}, "x"},
    {"bad-mailbox", 551, {0, 0, 0}, "not local"},
    {"bad-mailbox", 553, {0, 0, 0}, "not allowed"},
    {"bad-domain", 550, {5, 1, 2}, "the domain does not exist"},
    {"bad-domain", 556, {5, 1, 10}, "the domain takes no mail"},
    {"bad-domain", 521, {0, 0, 0}, "no mail here"},
    {"bad-domain", 556, {0, 0, 0}, "no mail there"},
    {"bad-configuration", 550, {5, 3, 5}, "local error"},
    {"bad-configuration", 535, {5, 7, 8}, "credentials invalid"},
    {"bad-configuration", 530, {0, 0, 0}, "log in first"},
    {"bad-configuration", 550, {0, 0, 0}, "no PTR record for you"},
    {"bad-connection", 0, {4, 4, 2}, "mx[192.0.2.1]: the server closed the connection"},
    {"bad-connection", 421, {0, 0, 0}, "closing"},
    {"content-related", 554, {5, 6, 0}, "cannot convert"},
    {"content-related", 552, {5, 7, 0}, "this type of ATTACHMENT is not taken"},
    {"inactive-mailbox", 550, {5, 2, 1}, "mailbox disabled"},
    {"inactive-mailbox", 554, {0, 0, 0}, "account deactivated"},
    {"invalid-sender", 550, {5, 1, 8}, "bad sender"},
    {"invalid-sender", 550, {0, 0, 0}, "Sender verify failed"},
    {"message-expired", 0, {4, 4, 7}, "message lifetime ended"},
    {"no-answer-from-host", 0, {4, 4, 1}, "mx[192.0.2.1]: connection refused"},
    {"policy-related", 550, {5, 7, 1}, "denied"},
    {"policy-related", 450, {4, 7, 0}, "greylisted"},
    {"policy-related", 421, {0, 0, 0}, "Too many connections"},
    {"policy-related", 552, {5, 3, 4}, "too big"},
    {"protocol-errors", 503, {5, 5, 1}, "bad sequence"},
    {"protocol-errors", 500, {0, 0, 0}, "what"},
    {"protocol-errors", 504, {0, 0, 0}, "what"},
    {"protocol-errors", 555, {0, 0, 0}, "parameters"},
    {"quota-issues", 452, {4, 2, 2}, "full"},
    {"quota-issues", 552, {0, 0, 0}, "exceeded"},
    {"quota-issues", 550, {0, 0, 0}, "Over QUOTA"},
    {"relaying-issues", 554, {5, 7, 1}, "Relay access denied"},
    {"relaying-issues", 550, {0, 0, 0}, "relaying denied"},
    {"routing-errors", 554, {5, 4, 6}, "loop"},
    {"routing-errors", 451, {4, 4, 3}, "no resolver answers"},
    {"spam-related", 550, {5, 7, 1}, "Message looks like SPAM"},
    {"spam-related", 554, {0, 0, 0}, "blocked: see the DNSBL"},
    {"policy-related", 450, {4, 7, 1}, "mx.spamfilter.example[192.0.2.1]: 450 4.7.1 later"},
    {"spam-related", 450, {4, 7, 1}, "mx.example[192.0.2.1]: 450 4.7.1 spam"},
    {"spam-related", 450, {4, 7, 1}, "mx[192.0.2.1] spam"},
    {"spam-related", 450, {4, 7, 1}, "spam["},
    {"virus-related", 554, {5, 7, 1}, "a virus was found, and spam"},
    {"other", 550, {0, 0, 0}, "no"},
    {"other", 505, {0, 0, 0}, "no"},
    {"other", 550, {5, 0, 0}, "no"},
    {"other", 550, {5, 8, 1}, ""},
    {"other", 0, {0, 0, 0}, ""},
};

static void reply_has_its_class(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %u %s\n", cases[i].code, cases[i].text);
        assert_string_equal(cases[i].class,
                            bounce_class_name(bounce_classify(cases[i].code, cases[i].enhanced,
                                                              span_from_text(cases[i].text))));
    }
}

static void every_class_can_be(void **state)
{
    (void)state;
    assert_int_equal(17, BOUNCE_CLASS_COUNT);
    for (uint32_t class = 0; class < BOUNCE_CLASS_COUNT; class ++) {
        bool is_seen = false;
        for (size_t i = 0; i < COUNT_OF(cases); i++)
            is_seen = is_seen || strcmp(cases[i].class, bounce_class_name(class)) == 0;
        assert_true(is_seen);
    }
}

/* Goal: a long text is looked at as far as it goes, to the octet. */
static void pattern_ends_with_what_is_looked_at(void **state)
{
    static const uint8_t none[3];
    char text[300];

    (void)state;
    memset(text, '.', sizeof(text));
    memcpy(text + 255 - 5, "virus", 5);
    assert_int_equal(BOUNCE_VIRUS, bounce_classify(550, none, span_of(text, sizeof(text))));
    memset(text, '.', sizeof(text));
    memcpy(text + 255 - 4, "virus", 5);
    assert_int_equal(BOUNCE_OTHER, bounce_classify(550, none, span_of(text, sizeof(text))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reply_has_its_class),
        cmocka_unit_test(every_class_can_be),
        cmocka_unit_test(pattern_ends_with_what_is_looked_at),
    };

    return cmocka_run_group_tests_name("bounce_class", tests, NULL, NULL);
}
