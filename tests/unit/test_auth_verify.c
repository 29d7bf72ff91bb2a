/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passwords and the thread that checks them: right and wrong ones, order, the queue's bound, an end
 * with work under way.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/auth_verify.h"

#define HASH256 "$5$rounds=1000$saltsalt$eKLZU9t9OoPWrqOQsoTIKG0aYkZ5rGOoOQhiIvoSWX2"
#define HASH512                                                                                    \
    "$6$rounds=1000$saltsalt$LAV5VE5Y7w1d73x1mFNspYWUpazfmwv2SoepNXNKJ/otop/Zok96Hr8Q13LEv0DRY/"   \
    "x8v0/crpIjl8NJSAqXV/"

/* Goal: only the password itself matches. */
static void test_matches(void **state)
{
    static const struct {
        const char *password, *hash;
        bool is_match;
    } rows[] = {
        {"secret", HASH256, true},   {"secret", HASH512, true}, {"secre", HASH256, false},
        {"secrett", HASH256, false}, {"", HASH256, false},      {"Secret", HASH512, false},
        {"secret", "*0", false},     {"secret", "", false},     {"secret", "secret", false},
        {"*0", "*0", false},         {"*1", "*0", false},
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s, %.10s\n", rows[i].password, rows[i].hash);
        assert_int_equal(rows[i].is_match, auth_password_matches(rows[i].password, rows[i].hash));
    }
}

/* The next result; waits for it. */
static bool next(struct auth_verifier *verifier, uint32_t *ret_token)
{
    struct pollfd wait = {.fd = auth_verifier_eventfd(verifier), .events = POLLIN};
    bool is_match = false;

    while (!auth_verifier_poll(verifier, ret_token, &is_match))
        assert_int_equal(1, poll(&wait, 1, 10000));
    return is_match;
}

/* Goal: results come in order, each its own; a full queue says so and goes on. */
static void queue_is_bounded(bool is_inline)
{
    struct auth_verifier *verifier = auth_verifier_new(is_inline);
    uint32_t token;

    assert_false(auth_verifier_is_busy(verifier));
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < AUTH_VERIFY_QUEUE; i++)
            assert_int_equal(ERR_OK, auth_verifier_submit(verifier,
                                                          i % 3 == 0 ? SPAN_LITERAL("secret")
                                                                     : SPAN_LITERAL("wrong"),
                                                          HASH256, round * 1000 + i));
        assert_int_equal(ERR_LIMIT, auth_verifier_submit(verifier, SPAN_LITERAL("x"), HASH256, 7));
        for (uint32_t i = 0; i < AUTH_VERIFY_QUEUE; i++) {
            assert_int_equal(i % 3 == 0, next(verifier, &token));
            assert_int_equal(round * 1000 + i, token);
        }
        assert_false(auth_verifier_is_busy(verifier));
    }
    auth_verifier_free(verifier);
}

static void test_queue_of_the_thread(void **state)
{
    (void)state;
    queue_is_bounded(false);
}

static void test_queue_inline(void **state)
{
    (void)state;
    queue_is_bounded(true);
}

/* Goal: a password of the greatest size passes through whole. */
static void test_sizes(void **state)
{
    char password[AUTH_PASSWORD_MAX + 1];
    struct auth_verifier *verifier = auth_verifier_new(true);
    uint32_t token;
    bool is_match;
    (void)state;

    memset(password, 'p', AUTH_PASSWORD_MAX);
    password[AUTH_PASSWORD_MAX] = '\0';
    assert_int_equal(
        ERR_OK, auth_verifier_submit(verifier, span_of(password, AUTH_PASSWORD_MAX), HASH256, 1));
    assert_int_equal(ERR_OK, auth_verifier_submit(verifier, (struct span){0}, HASH256, 2));
    assert_true(auth_verifier_poll(verifier, &token, &is_match));
    assert_true(auth_verifier_poll(verifier, &token, &is_match));
    assert_int_equal(2, token);
    auth_verifier_free(verifier);
}

/* Goal: the end does not wait for what nobody asks for any more. */
static void test_end_with_work(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        struct auth_verifier *verifier = auth_verifier_new(false);
        for (uint32_t j = 0; j < i; j++)
            assert_int_equal(ERR_OK, auth_verifier_submit(verifier, SPAN_LITERAL("x"), HASH512, j));
        auth_verifier_free(verifier);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),       cmocka_unit_test(test_queue_of_the_thread),
        cmocka_unit_test(test_queue_inline),  cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_end_with_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
