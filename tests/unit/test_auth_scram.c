/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCRAM-SHA-256 on the server's side: the example of RFC 7677, keys of files, what clients may not
 * say, and what strangers are told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/auth_scram.h"

/* RFC 7677 section 3: user "user", password "pencil". The keys are of that password. */
#define KEYS                                                                                       \
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
#define HASH        "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS
#define FIRST       "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define OURS        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define WHOLE       "rOprNGfwEbeRWgbNEkqO" OURS
#define CHALLENGE   "r=" WHOLE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define PROOF       "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SIGNATURE   "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
#define FINAL(rest) "c=biws,r=" WHOLE rest

static struct auth_scram_secret secret_of(const char *text)
{
    struct auth_scram_secret secret;

    assert_int_equal(ERR_OK, auth_scram_parse(text, &secret));
    return secret;
}

static enum err begin(struct auth_scram *scram, const char *first, struct span *ret_challenge)
{
    struct auth_scram_secret secret = secret_of(HASH);

    return auth_scram_begin(scram, &secret, span_from_text(first), SPAN_LITERAL(OURS),
                            ret_challenge);
}

/* Goal: the exchange of RFC 7677, octet for octet. */
static void test_example(void **state)
{
    struct auth_scram scram;
    struct span challenge;

    (void)state;
    assert_int_equal(ERR_OK, begin(&scram, FIRST, &challenge));
    assert_true(span_is_equal(challenge, SPAN_LITERAL(CHALLENGE)));
    assert_int_equal(ERR_OK,
                     auth_scram_prove(&scram, SPAN_LITERAL(FINAL(",p=" PROOF)), &challenge));
    assert_true(span_is_equal(challenge, SPAN_LITERAL(SIGNATURE)));
    assert_true(scram.is_proved);
}

/* Goal: each part of a first message that is not as it must be is refused. */
static void test_first(void **state)
{
    static char longest[1024] = "n,,n=user,r=", beyond[1024] = "n,,n=user,r=";
    const struct {
        const char *message;
        bool is_good;
    } rows[] = {
        {FIRST, true},
        {"y,,n=user,r=abc", true},
        {"n,,n=user,r=abc,x=extension", true},
        {longest, true},
        {beyond, false},
        {"p=tls-exporter,,n=user,r=abc", false},
        {"n,a=boss,n=user,r=abc", false},
        {"n,,m=x,n=user,r=abc", false},
        {"n,,n=,r=abc", false},
        {"n,,n=user,r=", false},
        {"n,,n=user", false},
        {"n,,r=abc,n=user", false},
        {"n,,n=user,r=a b", false},
        {"n,,n=user,r=a\x7f", false},
        {"n,,", false},
        {"n", false},
        {"", false},
    };

    (void)state;
    memset(longest + strlen(longest), 'r', AUTH_SCRAM_NONCE_MAX);
    memset(beyond + strlen(beyond), 'r', AUTH_SCRAM_NONCE_MAX + 1);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct auth_scram scram;
        struct span challenge;
        print_message("# %.40s\n", rows[i].message);
        assert_int_equal(rows[i].is_good ? ERR_OK : ERR_PEER_SYNTAX,
                         begin(&scram, rows[i].message, &challenge));
    }
}

/* Goal: only the right proof, of what was said, lets in. */
static void test_final(void **state)
{
    static const struct {
        const char *message;
        enum err err;
    } rows[] = {
        {FINAL(",p=" PROOF), ERR_OK},
        {FINAL(",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), ERR_NOT_FOUND},
        {FINAL(",x=ext,p=" PROOF), ERR_NOT_FOUND}, /* it was not what was proved */
        {FINAL(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndQ=="), ERR_PEER_SYNTAX},
        {FINAL(",p=" PROOF "AAAA"), ERR_PEER_SYNTAX},
        {FINAL(",p="), ERR_PEER_SYNTAX},
        {FINAL(""), ERR_PEER_SYNTAX},
        {"c=eSws,r=" WHOLE ",p=" PROOF, ERR_PEER_SYNTAX}, /* y,, was not what it began with */
        {"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=" PROOF, ERR_PEER_SYNTAX},
        {"c=biws,r=" WHOLE "x,p=" PROOF, ERR_PEER_SYNTAX},
        {"c=biws,p=" PROOF, ERR_PEER_SYNTAX},
        {"r=" WHOLE ",c=biws,p=" PROOF, ERR_PEER_SYNTAX},
        {",p=" PROOF, ERR_PEER_SYNTAX},
        {"p=", ERR_PEER_SYNTAX},
        {"", ERR_PEER_SYNTAX},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct auth_scram scram;
        struct span challenge = {0};
        print_message("# %s\n", rows[i].message);
        assert_int_equal(ERR_OK, begin(&scram, FIRST, &challenge));
        assert_int_equal(rows[i].err,
                         auth_scram_prove(&scram, span_from_text(rows[i].message), &challenge));
        assert_int_equal(rows[i].err == ERR_OK, scram.is_proved);
    }
}

/* Goal: keys of a file are taken within their bounds, and otherwise not at all. */
static void test_parse(void **state)
{
    static const struct {
        const char *text;
        bool is_good;
    } rows[] = {
        {HASH, true},
        {"{SCRAM-SHA-256}1000000,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS, true},
        {"{SCRAM-SHA-256}1000001,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS, false},
        {"{SCRAM-SHA-256}4095,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS, false},
        {"{SCRAM-SHA-256}04096,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS, false},
        {"{SCRAM-SHA-256}99999999999,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS, false},
        {"{SCRAM-SHA-256}4096,," KEYS, false},
        {"{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ," KEYS, false},
        {"{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS ",x", false},
        {"{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,AAAA,AAAA", false},
        {"{SCRAM-SHA-256}4096", false},
        {"{SCRAM-SHA-256}", false},
        {"{SCRAM-SHA-1}4096,W22ZaJ0SNY7soEsUEjb6gQ==," KEYS, false},
        {"", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct auth_scram_secret secret;
        print_message("# %s\n", rows[i].text);
        assert_int_equal(rows[i].is_good ? ERR_OK : ERR_CONFIG_SYNTAX,
                         auth_scram_parse(rows[i].text, &secret));
    }
}

/* Goal: the password belongs to its keys, to those we make as well, and no other does. */
static void test_password(void **state)
{
    char text[AUTH_HASH_MAX + 1], again[AUTH_HASH_MAX + 1];
    struct auth_scram_secret secret = secret_of(HASH);

    (void)state;
    assert_true(auth_scram_matches("pencil", &secret));
    assert_false(auth_scram_matches("pencil ", &secret));
    assert_false(auth_scram_matches("", &secret));
    assert_true(auth_scram_make("corr\xc3\xa9"
                                "ct",
                                text) &&
                auth_scram_make("corr\xc3\xa9"
                                "ct",
                                again));
    assert_string_not_equal(text, again); /* each has a salt of its own */
    secret = secret_of(text);
    assert_true(auth_scram_matches("corr\xc3\xa9"
                                   "ct",
                                   &secret));
    assert_false(auth_scram_matches("correct", &secret));
}

/* Goal: a stranger's name has a salt like others, always the same, its own, and nobody's keys. */
static void test_decoy(void **state)
{
    struct auth_scram_secret like = secret_of(HASH), one, again, other;

    (void)state;
    auth_scram_decoy(&like, SPAN_LITERAL("eve"), &one);
    auth_scram_decoy(&like, SPAN_LITERAL("EVE"), &again);
    auth_scram_decoy(&like, SPAN_LITERAL("eva"), &other);
    assert_memory_equal(&one, &again, sizeof(one));
    assert_int_equal(like.iterations, one.iterations);
    assert_int_equal(like.salt_size, one.salt_size);
    assert_memory_not_equal(one.salt, other.salt, one.salt_size);
    assert_memory_not_equal(one.salt, like.salt, one.salt_size);
    assert_memory_not_equal(one.stored_key, like.stored_key, AUTH_SCRAM_KEY);
    assert_memory_not_equal(one.stored_key, one.server_key, AUTH_SCRAM_KEY);
    assert_false(auth_scram_matches("pencil", &one));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),  cmocka_unit_test(test_first),
        cmocka_unit_test(test_final),    cmocka_unit_test(test_parse),
        cmocka_unit_test(test_password), cmocka_unit_test(test_decoy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
