/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of users: lines, names, hashes, addresses; who is found, whose address is whose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "relay/auth_users.h"

#define HASH "$5$rounds=1000$saltsalt$eKLZU9t9OoPWrqOQsoTIKG0aYkZ5rGOoOQhiIvoSWX2"

static struct auth_users *parse(const char *text)
{
    struct auth_users *users = NULL;
    char why[AUTH_USERS_WHY_SIZE] = "";

    enum err err = auth_users_parse(span_from_text(text), &users, why);
    if (err != ERR_OK)
        print_message("# %s\n", why);
    assert_int_equal(ERR_OK, err);
    return users;
}

/* Goal: names are found whatever their case, hashes are theirs, comments say nothing. */
static void test_find(void **state)
{
    (void)state;
    struct auth_users *users = parse("# users\n\nalice:" HASH "\n"
                                     "  Bob@Example.org : " HASH " : \r\n"
                                     "carol:!" HASH "\ndave:*\n\xc3\xa9ve:" HASH);

    assert_int_equal(5, auth_users_count(users));
    assert_string_equal(HASH, auth_users_find(users, SPAN_LITERAL("ALICE"))->hash);
    assert_string_equal("bob@example.org",
                        auth_users_find(users, SPAN_LITERAL("bob@example.org"))->name);
    assert_null(auth_users_find(users, SPAN_LITERAL("carol"))->hash);
    assert_null(auth_users_find(users, SPAN_LITERAL("dave"))->hash);
    assert_non_null(auth_users_find(users, SPAN_LITERAL("\xc3\xa9ve")));
    assert_null(auth_users_find(users, SPAN_LITERAL("alic")));
    assert_null(auth_users_find(users, SPAN_LITERAL("alicee")));
    assert_null(auth_users_find(users, SPAN_LITERAL("#")));
    auth_users_free(users);
}

/* Goal: many users fill the table; each is found. */
static void test_many(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    char *text = malloc(COUNT * 160), name[32];
    size_t size = 0;

    for (uint32_t i = 0; i < COUNT; i++)
        size += (size_t)sprintf(text + size, "user%u:" HASH "\n", i);
    struct auth_users *users = parse(text);
    for (uint32_t i = 0; i < COUNT; i++) {
        snprintf(name, sizeof(name), "USER%u", i);
        assert_string_equal(HASH, auth_users_find(users, span_from_text(name))->hash);
    }
    assert_null(auth_users_find(users, SPAN_LITERAL("user3000")));
    auth_users_free(users);
    free(text);
}

/* Goal: what is no line is refused, with its number and the reason. */
static void test_refused(void **state)
{
    char long_name[AUTH_NAME_MAX + 200];
    const struct {
        const char *text, *why;
    } rows[] = {
        {"alice\n", "line 1: expected name:hash"},
        {"alice:\n", "line 1: expected name:hash"},
        {"# x\nalice:secret\n", "line 2: is no hash"},
        {"alice:$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/\n", "line 1: is no hash"},
        {"alice:rl.3StKT.4T8M\n", "line 1: is no hash"},
        {":" HASH "\n", "line 1: expected a name"},
        {"al ice:" HASH "\n", "line 1: expected a name"},
        {"al\x7fice:" HASH "\n", "line 1: expected a name"},
        {"alice:" HASH ":nobody\n", "line 1: expected addresses"},
        {"alice:" HASH ":@example.org\n", "line 1: expected addresses"},
        {"alice:" HASH ":a@example..org\n", "line 1: expected addresses"},
        {"alice:" HASH ":a@b.example,,c@b.example\n", "line 1: expected addresses"},
        {"alice:" HASH "::more\n",
         "line 1: expected messages=RATE, recipients=RATE, beyond=WORD or held=RATE"},
        {"alice:" HASH "::messages=\n", "line 1: expected a rate"},
        {"alice:" HASH "::messages=1/1h recipients=0/1h\n", "line 1: expected a rate"},
        {"alice:" HASH "::beyond=drop\n", "line 1: expected beyond=refuse or beyond=hold"},
        {"alice:" HASH "::held=\n", "line 1: expected a rate"},
        {"alice:" HASH "::::\n", "line 1: expected name:hash:addresses:limits"},
        {"alice:" HASH "\nALICE:" HASH "\n", "\"alice\" is there twice"},
        {long_name, "line 1: expected a name"},
    };
    (void)state;

    memset(long_name, 'n', AUTH_NAME_MAX + 1);
    strcpy(long_name + AUTH_NAME_MAX + 1, ":" HASH);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct auth_users *users = NULL;
        char why[AUTH_USERS_WHY_SIZE] = "";
        print_message("# case: %s\n", rows[i].why);
        assert_int_equal(ERR_CONFIG_SYNTAX,
                         auth_users_parse(span_from_text(rows[i].text), &users, why));
        assert_null(users);
        assert_memory_equal(rows[i].why, why, strlen(rows[i].why));
    }
}

/* Goal: a user may have limits of its own. */
static void test_limits(void **state)
{
    (void)state;
    struct auth_users *users =
        parse("a:" HASH "\nb:" HASH ":b@x.example:messages=10/1h,20/1d  recipients=5/1h\n"
              "c:" HASH "::recipients=7/1d beyond=hold held=3/1h\nd:" HASH "::beyond=refuse\n");
    const struct auth_user *user = auth_users_find(users, SPAN_LITERAL("a"));

    assert_null(user->messages);
    assert_null(user->recipients);
    user = auth_users_find(users, SPAN_LITERAL("b"));
    assert_int_equal(2, user->messages->count);
    assert_int_equal(20, user->messages->rates[1].count);
    assert_int_equal(5, user->recipients->rates[0].count);
    user = auth_users_find(users, SPAN_LITERAL("c"));
    assert_null(user->messages);
    assert_int_equal(TICK_S(86400), user->recipients->rates[0].window);
    assert_int_equal(AUTH_BEYOND_HOLD, *user->beyond);
    assert_int_equal(3, user->held->rates[0].count);
    user = auth_users_find(users, SPAN_LITERAL("d"));
    assert_int_equal(AUTH_BEYOND_REFUSE, *user->beyond);
    assert_null(user->held);
    assert_null(auth_users_find(users, SPAN_LITERAL("a"))->beyond);
    auth_users_free(users);
}

/* Goal: every method that is worth its time is taken, and a name of the greatest length. */
static void test_bounds(void **state)
{
    char line[AUTH_NAME_MAX + 200];
    (void)state;

    memset(line, 'n', AUTH_NAME_MAX);
    strcpy(line + AUTH_NAME_MAX, ":" HASH);
    struct auth_users *users = parse(line);
    assert_non_null(auth_users_find(users, span_of(line, AUTH_NAME_MAX)));
    auth_users_free(users);
    users = parse("a:$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc."
                  "eoxqOmSuNp2xS0ktL3nh/\n"
                  "b:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$tnSYvahCwPBHKZUspmcxMfb0.WiB9W.zEaKlOBL35rC\n"
                  "c:$2b$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui\n");
    assert_int_equal(3, auth_users_count(users));
    auth_users_free(users);
    users = parse("");
    assert_null(auth_users_find(users, SPAN_LITERAL("a")));
    assert_null(auth_users_decoy(users, SPAN_LITERAL("a")));
    auth_users_free(users);
}

/* Goal: a stranger's name has the hash of some user, always the same one. */
static void test_decoy(void **state)
{
    (void)state;
    struct auth_users *users = parse("a:!\nb:" HASH "\nc:*\n");
    char name[8];

    for (char letter = 'a'; letter <= 'z'; letter++) {
        snprintf(name, sizeof(name), "x%c", letter);
        assert_string_equal(HASH, auth_users_decoy(users, span_from_text(name)));
    }
    auth_users_free(users);
    users = parse("a:!\n");
    assert_null(auth_users_decoy(users, SPAN_LITERAL("x")));
    auth_users_free(users);
}

/* Goal: addresses are exact, of a domain, of all below it, or all. */
static void test_owns(void **state)
{
    static const struct {
        const char *addresses, *local, *domain;
        bool is_own;
    } rows[] = {
        {"", "me", "example.org", true}, /* the name itself */
        {"", "ME", "example.org", true},
        {"", "me", "example.com", false},
        {"", "you", "example.org", false},
        {"you@example.org", "you", "example.org", true},
        {"you@example.org", "You", "example.org", true},
        {"you@example.org", "yo", "example.org", false},
        {"a@b.example, you@EXAMPLE.org", "you", "example.org", true},
        {"*@example.com", "any", "example.com", true},
        {"*@example.com", "any", "sub.example.com", false},
        {"*@*.example.com", "any", "sub.example.com", true},
        {"*@*.example.com", "any", "example.com", false},
        {"*", "any", "where.example", true},
        {"x@b\xc3\xbc"
         "cher.example",
         "x", "xn--bcher-kva.example", true},
    };
    (void)state;
    char text[300];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        snprintf(text, sizeof(text), "me@example.org:" HASH ":%s\n", rows[i].addresses);
        struct auth_users *users = parse(text);
        const struct auth_user *user = auth_users_find(users, SPAN_LITERAL("me@example.org"));
        print_message("# case: %s: %s@%s\n", rows[i].addresses, rows[i].local, rows[i].domain);
        assert_int_equal(rows[i].is_own, auth_user_owns(user, span_from_text(rows[i].local),
                                                        span_from_text(rows[i].domain)));
        auth_users_free(users);
    }
}

/* Goal: a file that others may read is refused; so is none. */
static void test_load(void **state)
{
    static const struct {
        mode_t mode;
        enum err err;
    } rows[] = {{0600, ERR_OK}, {0640, ERR_OK}, {0660, ERR_CONFIG_VALUE}, {0644, ERR_CONFIG_VALUE}};
    (void)state;
    char path[] = "/tmp/angarium-users-XXXXXX", why[AUTH_USERS_WHY_SIZE];
    struct auth_users *users = NULL;

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(dprintf(fd, "alice:" HASH "\n") > 0);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_int_equal(0, fchmod(fd, rows[i].mode));
        assert_int_equal(rows[i].err, auth_users_load(path, &users, why));
        if (rows[i].err == ERR_OK)
            auth_users_free(users);
    }
    close(fd);
    unlink(path);
    assert_int_equal(ERR_NOT_FOUND, auth_users_load(path, &users, why));
    assert_int_equal(ERR_CONFIG_VALUE, auth_users_load("/dev/null", &users, why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),    cmocka_unit_test(test_many),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_decoy),   cmocka_unit_test(test_owns),
        cmocka_unit_test(test_load),    cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
