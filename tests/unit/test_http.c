/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Management over HTTP without a server: who is what, which path is which verb, what becomes of
 * text in a request.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/admin_member.h"
#include "control/ask.h"
#include "control/http_access.h"
#include "control/http_request.h"
#include "control/http_serve.h"
#include "control/verb.h"

static const char viewer[] = "viewer-token-of-24-signs";
static const char admin[] = "admin-token-of-23-signs";

static struct http_access access_of(const char *viewer_token, const char *admin_token)
{
    struct http_access access = {0};

    strcpy(access.viewer, viewer_token);
    strcpy(access.admin, admin_token);
    return access;
}

/* Goal: a whole token of the right scheme brings its role, and nothing else brings any. */
static void test_field(void **state)
{
    static char longest[HTTP_TOKEN_SIZE + 16] = "Bearer ";
    struct http_access access = access_of(viewer, admin), nobody = {0};
    const struct {
        const char *field;
        enum http_role role;
    } rows[] = {
        {NULL, HTTP_ROLE_NONE},
        {"", HTTP_ROLE_NONE},
        {"Bearer ", HTTP_ROLE_NONE},
        {"Bearer viewer-token-of-24-signs", HTTP_ROLE_VIEWER},
        {"bearer viewer-token-of-24-signs", HTTP_ROLE_VIEWER},
        {"Bearer admin-token-of-23-signs", HTTP_ROLE_ADMIN},
        {"Bearer admin-token-of-23-sign", HTTP_ROLE_NONE},
        {"Bearer admin-token-of-23-signs ", HTTP_ROLE_NONE},
        {"Bearer  admin-token-of-23-signs", HTTP_ROLE_NONE},
        {"Basic admin-token-of-23-signs", HTTP_ROLE_NONE},
        {"admin-token-of-23-signs", HTTP_ROLE_NONE},
        {longest, HTTP_ROLE_NONE},
    };

    (void)state;
    memset(longest + 7, 'x', HTTP_TOKEN_SIZE);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(rows[i].role, http_access_of_field(&access, rows[i].field));
    assert_int_equal(HTTP_ROLE_NONE, http_access_of_field(&nobody, "Bearer "));
}

/* Goal: the first line of a file is a token only as documented, at both ends of its length. */
static void test_token_file(void **state)
{
    static char longest[HTTP_TOKEN_SIZE + 8], too_long[HTTP_TOKEN_SIZE + 8];
    const struct {
        const char *text;
        enum err err;
    } rows[] = {
        {"0123456789abcdef", ERR_OK},
        {"0123456789abcdef\n", ERR_OK},
        {"0123456789abcdef\nmore", ERR_OK},
        {"0123456789abcde\n", ERR_CONFIG_VALUE},
        {"0123456789abcdef \n", ERR_CONFIG_VALUE},
        {"0123456789abc def\n", ERR_CONFIG_VALUE},
        {"0123456789abcdef\r\n", ERR_CONFIG_VALUE},
        {"0123456789abcd\xc3\xa9\n", ERR_CONFIG_VALUE},
        {"", ERR_CONFIG_VALUE},
        {longest, ERR_OK},
        {too_long, ERR_CONFIG_VALUE},
    };
    char path[] = "/tmp/angarium-token-XXXXXX", token[HTTP_TOKEN_SIZE];
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    memset(longest, 'x', HTTP_TOKEN_SIZE - 1);
    memset(too_long, 'x', HTTP_TOKEN_SIZE);
    strcat(longest, "\n");
    strcat(too_long, "\n");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_int_equal(0, ftruncate(fd, 0));
        assert_int_equal(strlen(rows[i].text), pwrite(fd, rows[i].text, strlen(rows[i].text), 0));
        assert_int_equal(rows[i].err, http_token_read(path, token));
        if (rows[i].err == ERR_OK) {
            assert_int_equal(strcspn(rows[i].text, "\n"), strlen(token));
            assert_memory_equal(rows[i].text, token, strlen(token));
        }
    }
    assert_int_equal(0, ftruncate(fd, 0));
    assert_int_equal(16, pwrite(fd, "0123456789abcdef", 16, 0));
    assert_int_equal(0, fchmod(fd, 0640));
    assert_int_equal(ERR_OK, http_token_read(path, token));
    assert_int_equal(0, fchmod(fd, 0644)); /* others may read it */
    assert_int_equal(ERR_CONFIG_VALUE, http_token_read(path, token));
    close(fd);
    unlink(path);
    assert_int_equal(ERR_SYSTEM, http_token_read(path, token));
    assert_int_equal(0, mkfifo(path, 0600)); /* nobody writes it */
    assert_int_equal(ERR_CONFIG_VALUE, http_token_read(path, token));
    unlink(path);
}

/* Goal: our own user is an admin over a Unix socket; a TCP socket says nothing of its peer. */
static void test_peer(void **state)
{
    int pair[2], inet = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    assert_int_equal(HTTP_ROLE_ADMIN, http_access_of_peer(pair[0]));
    assert_int_equal(HTTP_ROLE_NONE, http_access_of_peer(inet));
    assert_int_equal(HTTP_ROLE_NONE, http_access_of_peer(-1));
    close(pair[0]);
    close(pair[1]);
    close(inet);
}

/* Goal: a question goes out as a line; to a relay that has closed already it is an error, and no
 * signal that ends the asker. */
static void test_question(void **state)
{
    char octets[64] = "";
    int ends[2];
    (void)state;

    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    json_t *request = json_pack("{ss}", "verb", "status");
    assert_true(ask_send(ends[0], request));
    assert_true(read(ends[1], octets, sizeof(octets) - 1) > 0);
    assert_string_equal("{\"verb\":\"status\"}\n", octets);
    close(ends[1]);
    assert_false(ask_send(ends[0], request));
    assert_int_equal(EPIPE, errno);
    close(ends[0]);
    json_decref(request);
}

/* Goal: another site's name in Host is no client of this machine's, however it is dressed up. */
static void test_host(void **state)
{
    static const struct {
        const char *host;
        bool is_local;
    } cases[] = {
        {NULL, true},
        {"", true},
        {"relay", true},
        {"localhost:8025", true},
        {"127.0.0.1", true},
        {"127.0.0.1:8025", true},
        {"[::1]:8025", true},
        {"evil.example", false},
        {"evil.example:8025", false},
        {"127.0.0.1.evil.example", false},
        {"127.evil", false},
        {"localhost.", false},
        {"192.0.2.1", false},
        {"1270.0.0.1", false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        if (http_access_host_is_local(cases[i].host) != cases[i].is_local)
            fail_msg("%s", cases[i].host);
    }
}

/* Goal: viewers read numbers, not mail; a verb that nobody thought of is the admin's. */
static void test_needed(void **state)
{
    static const struct {
        const char *verb;
        enum http_role role;
    } rows[] = {
        {"status", HTTP_ROLE_VIEWER},       {"queue list", HTTP_ROLE_VIEWER},
        {"queue orders", HTTP_ROLE_VIEWER}, {"metrics", HTTP_ROLE_VIEWER},
        {"user quota", HTTP_ROLE_VIEWER},   {"spool check", HTTP_ROLE_VIEWER},
        {"top", HTTP_ROLE_VIEWER},          {"help", HTTP_ROLE_VIEWER},
        {"version", HTTP_ROLE_VIEWER},      {"queue cat", HTTP_ROLE_ADMIN},
        {"trace", HTTP_ROLE_ADMIN},         {"hold", HTTP_ROLE_ADMIN},
        {"capture", HTTP_ROLE_ADMIN},       {"capture stop", HTTP_ROLE_ADMIN},
        {"config show", HTTP_ROLE_ADMIN},   {"check", HTTP_ROLE_ADMIN},
        {"user hash", HTTP_ROLE_ADMIN},     {"records find", HTTP_ROLE_ADMIN},
        {"upgrade", HTTP_ROLE_ADMIN},       {"made later", HTTP_ROLE_ADMIN},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(rows[i].role, http_access_needed(rows[i].verb));
}

/* Goal: each row has a role, and members that there are, each once; names of members are whole. */
static void test_verbs(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < verb_count; i++) {
        const struct verb *verb = &verb_table[i];
        const char *at = verb->members;
        assert_ptr_equal(verb, verb_find(verb->name));
        assert_true(verb->role != HTTP_ROLE_NONE && strlen(verb->name) < HTTP_VERB_MAX);
        for (uint32_t size; (size = verb_member_next(&at)) > 0;) {
            char name[32] = "";
            memcpy(name, at - size, size);
            assert_true(admin_member_kind(name) < ADMIN_MEMBER_KIND_COUNT);
            assert_true(verb_has_member(verb, name));
            assert_null(strstr(strstr(verb->members, name) + 1, name));
            name[size - 1] = '\0';
            assert_false(verb_has_member(verb, name));
        }
    }
    assert_false(verb_has_member(verb_find("version"), ""));
    assert_null(verb_find("made later"));
}

/* Goal: what is secret is served as such, and a text only where one is wanted. */
static void test_paths_of_texts(void **state)
{
    (void)state;
    assert_true(http_path_takes_text("/api/v1/check"));
    assert_true(http_path_takes_text("/api/v1/import/postfix"));
    assert_false(http_path_takes_text("/api/v1/hold"));
    assert_false(http_path_takes_text("/check"));
    assert_false(http_path_takes_text(NULL));
    assert_true(http_path_is_secret("/api/v1/user/hash"));
    assert_false(http_path_is_secret("/api/v1/user/hashes"));
    assert_false(http_path_is_secret(NULL));
}

/* Goal: nothing of a password is left in what JSON had in memory. */
static void test_secret(void **state)
{
    static const char body[] = "{\"password\":\"a password of some length, to be forgotten\"}";
    char why[HTTP_REQUEST_WHY_SIZE];

    (void)state;
    http_secret_init();
    http_secret_begin();
    json_t *request = http_request_parse("user/hash", body, strlen(body), why);
    json_t *password = json_incref(json_object_get(request, "password"));
    json_decref(request);
    const char *text = json_string_value(password);
    assert_non_null(strstr(text, "password"));
    json_decref(password);
    http_secret_end();
#ifndef __SANITIZE_ADDRESS__
    /* Freed, and nothing was taken since: its octets are as they were left, but for the first. */
    const volatile char *left = text;
    for (size_t i = 16; i < 40; i++)
        assert_int_equal(0, left[i]);
#endif
    json_set_alloc_funcs(malloc, free);
}

/* Goal: a path names a verb letter by letter, or none. */
static void test_verb(void **state)
{
    static char longest[HTTP_VERB_MAX], too_long[HTTP_VERB_MAX + 1];
    const struct {
        const char *path, *verb;
    } rows[] = {
        {"status", "status"},     {"queue/list", "queue list"},
        {"site/set", "site set"}, {"", NULL},
        {"/status", NULL},        {"queue/", NULL},
        {"Queue/list", NULL},     {"queue list", NULL},
        {"queue\nlist", NULL},    {"..", NULL},
        {longest, longest},       {too_long, NULL},
    };
    char verb[HTTP_VERB_MAX];

    (void)state;
    memset(longest, 'a', sizeof(longest) - 1);
    memset(too_long, 'a', sizeof(too_long) - 1);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_int_equal(rows[i].verb != NULL, http_request_verb(rows[i].path, verb));
        if (rows[i].verb != NULL)
            assert_string_equal(rows[i].verb, verb);
    }
}

/* Goal: each member has its type, and what is not of it is refused. */
static void test_member(void **state)
{
    const struct {
        const char *name, *value, *json; /* NULL: refused */
    } rows[] = {
        {"filter", "domain=a.example older=2h", "\"domain=a.example older=2h\""},
        {"filter", "a\"b\\\n", "\"a\\\"b\\\\\\n\""},
        {"filter", "\xff", NULL},
        {"filter", NULL, NULL},
        {"limit", "0", "0"},
        {"max_age_ms", "500", "500"},
        {"limit", "999999999999999999", "999999999999999999"},
        {"limit", "1000000000000000000", NULL},
        {"limit", "", NULL},
        {"limit", "-1", NULL},
        {"limit", "1x", NULL},
        {"stream", "true", "true"},
        {"dry_run", "false", "false"},
        {"all", "1", NULL},
        {"all", "", NULL},
        {"verb", "hold", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        json_t *request = json_object();
        assert_int_equal(rows[i].json != NULL,
                         http_request_member(request, rows[i].name, rows[i].value));
        if (rows[i].json != NULL) {
            char *text =
                json_dumps(json_object_get(request, rows[i].name), JSON_ENCODE_ANY | JSON_COMPACT);
            assert_string_equal(rows[i].json, text);
            free(text);
        }
        json_decref(request);
    }
}

static void expect_refused(const char *path, const char *body)
{
    char why[HTTP_REQUEST_WHY_SIZE] = "";

    assert_null(http_request_parse(path, body, strlen(body), why));
    assert_true(why[0] != '\0' && strlen(why) < sizeof(why));
}

/* Goal: a body is one object, whose members stand beside the path's verb and never replace it. */
static void test_body(void **state)
{
    char why[HTTP_REQUEST_WHY_SIZE];
    static const char body[] = "{\"filter\": \"id=1\", \"reason\": \"x\"}";

    (void)state;
    json_t *request = http_request_parse("queue/list", body, strlen(body), why);
    assert_string_equal("queue list", json_string_value(json_object_get(request, "verb")));
    assert_string_equal("id=1", json_string_value(json_object_get(request, "filter")));
    assert_false(http_request_is_stream(request));
    json_decref(request);
    request = http_request_parse("queue/cat", "", 0, why);
    assert_true(http_request_is_stream(request));
    json_decref(request);
    expect_refused("", "{}");
    expect_refused("hold", "{\"verb\": \"delete\"}");
    expect_refused("hold", "[]");
    expect_refused("hold", "1");
    expect_refused("hold", "{");
    expect_refused("hold", "{} {}");
    expect_refused("hold", "{\"all\": true, \"all\": false}");
}

/* Goal: a body is kept to its last octet, or told to be too large. */
static void test_body_bound(void **state)
{
    struct http_body body = {.max = HTTP_BODY_MAX};
    static char octets[HTTP_BODY_MAX];

    (void)state;
    memset(octets, 'x', sizeof(octets));
    http_body_add(&body, octets, HTTP_BODY_MAX - 1);
    http_body_add(&body, octets, 1);
    assert_int_equal(HTTP_BODY_MAX, body.size);
    assert_false(body.is_too_large);
    http_body_add(&body, octets, 1);
    assert_int_equal(HTTP_BODY_MAX, body.size);
    assert_true(body.is_too_large);
    assert_memory_equal(octets, body.octets, HTTP_BODY_MAX);
    http_body_free(&body);
    assert_null(body.octets);
    body = (struct http_body){.max = HTTP_TEXT_MAX};
    for (uint32_t size = 0; size < HTTP_TEXT_MAX; size += 1024)
        http_body_add(&body, octets, 1024);
    assert_false(body.is_too_large);
    assert_int_equal(HTTP_TEXT_MAX, body.size);
    assert_int_equal('x', body.octets[HTTP_TEXT_MAX - 1]);
    http_body_add(&body, octets, 1);
    assert_true(body.is_too_large);
    http_body_free(&body);
}

/* Goal: a page of metrics is passed on when it is whole, and no refusal is taken for one. */
static void test_page(void **state)
{
    static const struct {
        const char *text;
        bool is_page;
    } rows[] = {
        {"# HELP x y\nx 1\n", true},
        {"# HELP x y\nx 1", false},
        {"#\n", true},
        {"#", false},
        {"{\"ok\":false}\n", false},
        {"", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(rows[i].is_page, ask_is_page(rows[i].text, strlen(rows[i].text)));
}

/* Goal: a target in absolute form says whose it is, and what is no target is none. */
static void test_path(void **state)
{
    const struct {
        const char *target, *path, *host;
    } rows[] = {
        {"/", "/", "kept"},
        {"/api/v1/status", "/api/v1/status", "kept"},
        {"http://evil.example/api", "/api", "evil.example"},
        {"HTTPS://[::1]:8025/", "/", "[::1]:8025"},
        {"http://evil.example", NULL, "kept"},
        {"http:///api", NULL, "kept"},
        {"ftp://evil.example/", NULL, "kept"},
        {"*", NULL, "kept"},
        {"", NULL, "kept"},
    };
    char host[HTTP_HOST_SIZE];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        strcpy(host, "kept");
        const char *path = http_request_path(rows[i].target, host);
        if (rows[i].path == NULL)
            assert_null(path);
        else
            assert_string_equal(rows[i].path, path);
        assert_string_equal(rows[i].host, host);
    }
}

/* Goal: the longest host that fits, and one octet more. */
static void test_path_bound(void **state)
{
    char target[HTTP_HOST_SIZE + 16] = "http://", host[HTTP_HOST_SIZE] = "";

    (void)state;
    memset(target + 7, 'h', HTTP_HOST_SIZE - 1);
    strcpy(target + 7 + HTTP_HOST_SIZE - 1, "/x");
    assert_string_equal("/x", http_request_path(target, host));
    assert_int_equal(HTTP_HOST_SIZE - 1, strlen(host));
    strcpy(target + 7 + HTTP_HOST_SIZE - 1, "h/x");
    assert_null(http_request_path(target, host));
}

/* Goal: only the page's own server takes its orders. */
static void test_origin(void **state)
{
    const struct {
        const char *origin, *host;
        bool is_own;
    } rows[] = {
        {NULL, "relay:8025", true},
        {NULL, "", true},
        {"http://relay:8025", "relay:8025", true},
        {"https://Relay:8025", "relay:8025", true},
        {"http://relay", "relay:8025", false},
        {"http://relay:8025.evil.example", "relay:8025", false},
        {"http://evil.example", "relay:8025", false},
        {"null", "relay:8025", false},
        {"", "relay:8025", false},
        {"http://", "relay:8025", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(rows[i].is_own, http_access_origin_is_own(rows[i].origin, rows[i].host));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_field),      cmocka_unit_test(test_token_file),
        cmocka_unit_test(test_peer),       cmocka_unit_test(test_question),
        cmocka_unit_test(test_host),       cmocka_unit_test(test_needed),
        cmocka_unit_test(test_verbs),      cmocka_unit_test(test_paths_of_texts),
        cmocka_unit_test(test_secret),     cmocka_unit_test(test_verb),
        cmocka_unit_test(test_member),     cmocka_unit_test(test_body),
        cmocka_unit_test(test_body_bound), cmocka_unit_test(test_page),
        cmocka_unit_test(test_path),       cmocka_unit_test(test_path_bound),
        cmocka_unit_test(test_origin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
