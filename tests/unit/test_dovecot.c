/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of Dovecot's authentication protocol: what each says, and what we say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/dovecot.h"

/* Goal: words that we must know are known, others are passed over, and numbers are numbers. */
static void test_lines(void **state)
{
    static const struct {
        const char *line;
        enum err err;
        enum dovecot_word word;
        uint32_t number;
        bool is_plain, is_temporary;
    } rows[] = {
        {"VERSION\t1\t2", ERR_OK, DOVECOT_VERSION, 1, false, false},
        {"VERSION\t2\t0", ERR_OK, DOVECOT_VERSION, 2, false, false},
        {"VERSION\tone", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"VERSION", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"MECH\tPLAIN\tplaintext", ERR_OK, DOVECOT_MECH, 0, true, false},
        {"MECH\tLOGIN\tplaintext", ERR_OK, DOVECOT_MECH, 0, false, false},
        {"MECH", ERR_OK, DOVECOT_MECH, 0, false, false},
        {"SPID\t123", ERR_OK, DOVECOT_OTHER, 0, false, false},
        {"COOKIE\tabc", ERR_OK, DOVECOT_OTHER, 0, false, false},
        {"DONE", ERR_OK, DOVECOT_DONE, 0, false, false},
        {"OK\t7\tuser=alice", ERR_OK, DOVECOT_OK, 7, false, false},
        {"OK\t4294967295", ERR_OK, DOVECOT_OK, UINT32_MAX, false, false},
        {"OK\t4294967296", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"OK\t-1", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"OK\t", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"FAIL\t8\tuser=alice", ERR_OK, DOVECOT_FAIL, 8, false, false},
        {"FAIL\t8\tuser=alice\ttemp", ERR_OK, DOVECOT_FAIL, 8, false, true},
        {"FAIL\t8\treason=temp\tx", ERR_OK, DOVECOT_FAIL, 8, false, false},
        {"FAIL\ttemp", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"CONT\t9\tYWJj", ERR_OK, DOVECOT_CONT, 9, false, false},
        {"CONT\t9", ERR_OK, DOVECOT_CONT, 9, false, false},
        {"CONT\t9\tYWJ", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"CONT\t9\tYW\r\n", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"OKAY\tx", ERR_OK, DOVECOT_OTHER, 0, false, false},
        {"ok\t1", ERR_OK, DOVECOT_OTHER, 0, false, false},
        {"", ERR_PEER_SYNTAX, 0, 0, false, false},
        {"\tOK\t1", ERR_PEER_SYNTAX, 0, 0, false, false},
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct dovecot_line line = {.number = 77};
        print_message("# case: %s\n", rows[i].line);
        assert_int_equal(rows[i].err, dovecot_line_parse(span_from_text(rows[i].line), &line));
        if (rows[i].err != ERR_OK) {
            assert_int_equal(77, line.number);
            continue;
        }
        assert_int_equal(rows[i].word, line.word);
        assert_int_equal(rows[i].number, line.number);
        assert_int_equal(rows[i].is_plain, line.is_plain);
        assert_int_equal(rows[i].is_temporary, line.is_temporary);
    }
}

/* Goal: who Dovecot says has logged in is taken, and nothing that can be no name. */
static void test_users(void **state)
{
    char longest[AUTH_NAME_MAX + 1], fits[AUTH_NAME_MAX + 32], beyond[AUTH_NAME_MAX + 32];
    memset(longest, 'u', AUTH_NAME_MAX);
    longest[AUTH_NAME_MAX] = '\0';
    snprintf(fits, sizeof(fits), "OK\t1\tuser=%s", longest);
    snprintf(beyond, sizeof(beyond), "OK\t1\tuser=%su", longest);
    const struct {
        const char *line, *user;
    } rows[] = {
        {"OK\t1\tuser=alice", "alice"},
        {"OK\t1\tx\tsuper_user=bob\tuser=alice@example.org\tuser=eve", "alice@example.org"},
        {"OK\t1", ""},
        {"OK\t1\tuser", ""},
        {"OK\t1\tuser=", ""},
        {"OK\t1\tuser=al\001tice", ""},
        {"OK\t1\tuser=al\177ice", ""},
        {"OK\t1\tuser=j\303\266rg", "j\303\266rg"},
        {"FAIL\t1\tuser=alice", ""},
        {fits, longest},
        {beyond, ""},
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct dovecot_line line;
        print_message("# case: %s\n", rows[i].line);
        assert_int_equal(ERR_OK, dovecot_line_parse(span_from_text(rows[i].line), &line));
        assert_int_equal(strlen(rows[i].user), line.user_size);
        assert_memory_equal(rows[i].user, line.user, line.user_size);
    }
}

/* Goal: what SCRAM says goes to and fro as it is, and nothing longer than a reply line takes. */
static void test_scram(void **state)
{
    char text[DOVECOT_REQUEST_MAX], cancel[DOVECOT_CANCEL_MAX];
    char line_text[AUTH_CHALLENGE_MAX + 32] = "CONT\t1\t";
    struct flow_address none = {0};
    struct auth_request request = {
        .name = SPAN_LITERAL("user"), .message = SPAN_LITERAL("n,,n=user,r=x"), .is_scram = true};
    struct dovecot_client client = {.local = &none, .peer = &none, .is_secured = true};
    struct dovecot_line line;
    (void)state;

    assert_true(span_is_equal(
        dovecot_request_format(7, &request, &client, text),
        SPAN_LITERAL("AUTH\t7\tSCRAM-SHA-256\tservice=smtp\tnologin\tsecured\tlip=127.0.0.1\t"
                     "rip=127.0.0.1\tresp=biwsbj11c2VyLHI9eA==\n")));
    request.goes_on = true;
    request.message = SPAN_LITERAL("c=biws");
    assert_true(span_is_equal(dovecot_continue_format(7, &request, text),
                              SPAN_LITERAL("CONT\t7\tYz1iaXdz\n")));
    request.message = (struct span){0};
    assert_true(
        span_is_equal(dovecot_continue_format(7, &request, text), SPAN_LITERAL("CONT\t7\t\n")));
    assert_true(span_is_equal(dovecot_cancel_format(UINT32_MAX, cancel),
                              SPAN_LITERAL("CANCEL\t4294967295\n")));
    assert_int_equal(ERR_OK, dovecot_line_parse(SPAN_LITERAL("MECH\tSCRAM-SHA-256\tx"), &line));
    assert_true(line.is_scram && !line.is_plain);
    assert_int_equal(ERR_OK, dovecot_line_parse(SPAN_LITERAL("MECH\tSCRAM-SHA-1\tx"), &line));
    assert_false(line.is_scram);
    assert_int_equal(ERR_OK, dovecot_line_parse(SPAN_LITERAL("CONT\t1\tYWJj"), &line));
    assert_true(span_is_equal(span_of(line.challenge, line.challenge_size), SPAN_LITERAL("YWJj")));
    memset(line_text + 7, 'A', AUTH_CHALLENGE_MAX + 4);
    assert_int_equal(ERR_OK, dovecot_line_parse(span_of(line_text, 7 + AUTH_CHALLENGE_MAX), &line));
    assert_int_equal(AUTH_CHALLENGE_MAX, line.challenge_size);
    assert_int_equal(ERR_PEER_SYNTAX,
                     dovecot_line_parse(span_of(line_text, 11 + AUTH_CHALLENGE_MAX), &line));
}

/* Goal: a request is one line, whatever is in the name, with the password in base64 alone. */
static void test_requests(void **state)
{
    char text[DOVECOT_REQUEST_MAX], hello[DOVECOT_HELLO_MAX];
    struct flow_address local, peer;
    struct auth_request request = {.name = SPAN_LITERAL("alice"),
                                   .password = SPAN_LITERAL("secret")};
    struct dovecot_client client = {.local = &local, .peer = &peer, .is_secured = true};
    (void)state;

    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("192.0.2.1"), &local));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("2001:db8::2"), &peer));
    assert_true(
        span_is_equal(dovecot_hello_format(42, hello), SPAN_LITERAL("VERSION\t1\t2\nCPID\t42\n")));
    assert_true(
        span_is_equal(dovecot_request_format(3, &request, &client, text),
                      SPAN_LITERAL("AUTH\t3\tPLAIN\tservice=smtp\tnologin\tsecured\tlip=192.0.2.1\t"
                                   "rip=2001:db8::2\tresp=AGFsaWNlAHNlY3JldA==\n")));
    client.is_secured = false;
    request.name = SPAN_LITERAL("a\tb");
    struct span line = dovecot_request_format(4, &request, &client, text);
    assert_null(memmem(line.data, line.size, "secured", 7));
    assert_null(memmem(line.data, line.size, "a\tb", 3));
    assert_ptr_equal(line.data + line.size - 1, memchr(line.data, '\n', line.size));
}

/* Goal: the longest name and password fit. */
static void test_bounds(void **state)
{
    static char name[AUTH_NAME_MAX], password[AUTH_PASSWORD_MAX], text[DOVECOT_REQUEST_MAX];
    struct flow_address address;
    struct auth_request request = {.name = span_of(name, sizeof(name)),
                                   .password = span_of(password, sizeof(password))};
    struct dovecot_client client = {&address, &address, true};
    (void)state;

    memset(name, 'n', sizeof(name));
    memset(password, 'p', sizeof(password));
    assert_int_equal(
        ERR_OK,
        flow_address_parse_ip(SPAN_LITERAL("1111:2222:3333:4444:5555:6666:7777:8888"), &address));
    struct span line = dovecot_request_format(UINT32_MAX, &request, &client, text);
    assert_true(line.size <= DOVECOT_REQUEST_MAX);
    assert_int_equal('\n', line.data[line.size - 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),    cmocka_unit_test(test_users),
        cmocka_unit_test(test_requests), cmocka_unit_test(test_scram),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
