/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option table: every row keeps what option.c promises, and values are read as written, at and
 * beyond every bound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "control/config.h"

static struct arena arena;
static char why[OPTION_WHY_SIZE];

static enum err parse_number(const struct option *option, uint64_t number, const char *unit,
                             void *object)
{
    char text[64];
    snprintf(text, sizeof(text), "%llu%s", (unsigned long long)number, unit);
    return option_parse(option, span_from_text(text), &arena, object, 0, why);
}

static bool is_number(const struct option *option)
{
    return option->kind >= OPTION_COUNT && option->kind <= OPTION_SECONDS;
}

/* Goal: each row has a group before it, and its field does not overlap that of another row. */
static void test_rows_are_in_order(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        bool has_group = strchr(option->path, '.') == NULL;
        assert_true(strlen(option->path) + 2 < OPTION_PATH_SIZE);
        assert_true(strlen(option->help) > 0);
        for (uint32_t j = 0; j < i; j++) {
            char section[OPTION_PATH_SIZE];
            const struct option *other = &option_table[j];
            assert_string_not_equal(option->path, other->path);
            if (other->owner == option->owner)
                assert_true(other->offset + other->size <= option->offset ||
                            option->offset + option->size <= other->offset);
            snprintf(section, sizeof(section), "%s%s", other->path,
                     other->kind == OPTION_SEQUENCE ? "[]" : "");
            if (other->kind <= OPTION_SEQUENCE && option_is_in(option, section))
                has_group = true;
        }
        if (!has_group)
            print_message("# no group: %s\n", option->path);
        assert_true(has_group);
    }
}

/* Goal: defaults pass their own parsers, and min and max are accepted, one beyond is not. */
static void test_bounds_of_every_number(void **state)
{
    uint8_t object[8192];

    (void)state;
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        const char *unit = option->kind == OPTION_DURATION  ? "us"
                           : option->kind == OPTION_SECONDS ? "s"
                                                            : "";
        if (!is_number(option))
            continue;
        assert_true(option_owner_size(option->owner) <= sizeof(object));
        memset(object, 0x5a, sizeof(object));
        assert_true(option->min <= option->max);
        assert_int_equal(ERR_OK, option_parse(option, span_from_text(option->default_text), &arena,
                                              object, 0, why));
        assert_int_equal(ERR_OK, parse_number(option, option->min, unit, object));
        assert_int_equal(ERR_OK, parse_number(option, option->max, unit, object));
        uint64_t kept = 0;
        memcpy(&kept, object + option->offset, option->size);
        assert_int_equal(option->max, kept);
        assert_int_equal(ERR_CONFIG_VALUE, parse_number(option, option->max + 1, unit, object));
        if (option->min > 0)
            assert_int_equal(ERR_CONFIG_VALUE, parse_number(option, option->min - 1, unit, object));
        memcpy(&kept, object + option->offset, option->size);
        assert_int_equal(option->max, kept); /* refused values change nothing */
        for (uint32_t j = 0; j < sizeof(object); j++) {
            if (j < option->offset || j >= option->offset + option->size)
                assert_int_equal(0x5a, object[j]);
        }
    }
}

static void test_defaults_of_every_owner(void **state)
{
    (void)state;
    for (enum option_owner owner = 0; owner < OPTION_OWNER_COUNT; owner++) {
        void *object = calloc(1, option_owner_size(owner));
        assert_int_equal(ERR_OK, option_set_defaults(owner, &arena, object));
        free(object);
    }
}

/* Goal: a choice's words are in the order of the enum they become. */
static void test_choices(void **state)
{
    static const struct {
        const char *section, *key, *word;
        uint32_t value;
    } cases[] = {
        {"listen[]", "bare_lf", "reject", SETTINGS_BARE_LF_REJECT},
        {"listen[]", "bare_lf", "normalize", SETTINGS_BARE_LF_NORMALIZE},
        {"listen[]", "long_lines", "pass", SETTINGS_LONG_LINES_PASS},
        {"listen[]", "long_lines", "reject", SETTINGS_LONG_LINES_REJECT},
        {"dkim[]", "by", "from", SETTINGS_DKIM_BY_FROM},
        {"dkim[]", "by", "sender", SETTINGS_DKIM_BY_SENDER},
        {"", "dkim_malformed", "pass", SETTINGS_MALFORMED_PASS},
        {"", "dkim_malformed", "reject", SETTINGS_MALFORMED_REJECT},
        {"routes[]", "via", "mx", SETTINGS_ROUTE_MX},
        {"routes[]", "via", "hosts", SETTINGS_ROUTE_HOSTS},
        {"routes[]", "via", "discard", SETTINGS_ROUTE_DISCARD},
        {"routes[]", "via", "refuse", SETTINGS_ROUTE_REFUSE},
        {"routes[].tls", "level", "none", SETTINGS_TLS_NONE},
        {"routes[].tls", "level", "may", SETTINGS_TLS_MAY},
        {"routes[].tls", "level", "encrypt", SETTINGS_TLS_ENCRYPT},
        {"routes[].tls", "level", "verify", SETTINGS_TLS_VERIFY},
        {"sources[].warmup", "overflow", "pool", SETTINGS_OVERFLOW_POOL},
        {"sources[].warmup", "overflow", "wait", SETTINGS_OVERFLOW_WAIT},
        {"pool_header", "unknown", "default", SETTINGS_POOL_UNKNOWN_DEFAULT},
        {"pool_header", "unknown", "refuse", SETTINGS_POOL_UNKNOWN_REFUSE},
        {"client", "eight_bit", "send", SETTINGS_EIGHT_BIT_SEND},
        {"client", "eight_bit", "bounce", SETTINGS_EIGHT_BIT_BOUNCE},
        {"log", "level", "debug", LOG_DEBUG},
        {"log", "level", "info", LOG_INFO},
        {"log", "level", "error", LOG_ERROR},
        {"spool", "method", "auto", DISK_KIND_AUTO},
        {"spool", "method", "io_uring", DISK_KIND_URING},
        {"spool", "method", "thread", DISK_KIND_THREAD},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        const struct option *option = option_find(cases[i].section, span_from_text(cases[i].key));
        uint8_t object[8192] = {0};
        uint32_t value;
        print_message("# case: %s %s\n", cases[i].key, cases[i].word);
        assert_non_null(option);
        assert_int_equal(
            ERR_OK, option_parse(option, span_from_text(cases[i].word), &arena, object, 0, why));
        memcpy(&value, object + option->offset, sizeof(value));
        assert_int_equal(cases[i].value, value);
        assert_int_equal(ERR_CONFIG_VALUE,
                         option_parse(option, SPAN_LITERAL("maybe"), &arena, object, 0, why));
        assert_non_null(strstr(why, cases[i].word)); /* the words are named */
    }
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t us; /* UINT64_MAX: refused */
    } cases[] = {
        {"0", 0},
        {"500ms", 500000},
        {"30s", 30000000},
        {"5m", 300000000},
        {"20 minutes", 1200000000},
        {"1 minute", 60000000},
        {"90 secs", 90000000},
        {"4d", 345600000000},
        {"1h30m", 5400000000},
        {" 1h 30m ", 5400000000},
        {"2weeks", 1209600000000},
        {"18446744073709551615us", UINT64_MAX - 0},
        {"18446744073709551616us", UINT64_MAX},
        {"30500568904944w", UINT64_MAX},
        {"5", UINT64_MAX},
        {"", UINT64_MAX},
        {"m", UINT64_MAX},
        {"-5m", UINT64_MAX},
        {"+5m", UINT64_MAX},
        {"5 M", UINT64_MAX},
        {"5ss", UINT64_MAX},
        {"5m,", UINT64_MAX},
        {"0x5m", UINT64_MAX},
        {"1.5h", UINT64_MAX},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t us = UINT64_MAX;
        print_message("# case: '%s'\n", cases[i].text);
        enum err err = option_duration_parse(span_from_text(cases[i].text), &us);
        assert_int_equal(cases[i].us, us);
        if (cases[i].us != UINT64_MAX)
            assert_int_equal(ERR_OK, err);
    }
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t octets; /* UINT64_MAX: refused */
    } cases[] = {
        {"0", 0},
        {"1500", 1500},
        {"64MB", 64000000},
        {"64 MB", 64000000},
        {"1GiB", 1ull << 30},
        {"50kB", 50000},
        {"50KB", 50000},
        {"1TB", 1000000000000},
        {"16TiB", 1ull << 44},
        {"7B", 7},
        {"64Mb", UINT64_MAX},
        {"64M", UINT64_MAX},
        {"64MBs", UINT64_MAX},
        {"64MB 1kB", UINT64_MAX},
        {"1.5GB", UINT64_MAX},
        {"99999999999TB", UINT64_MAX},
        {"", UINT64_MAX},
        {"MB", UINT64_MAX},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t octets = UINT64_MAX;
        print_message("# case: '%s'\n", cases[i].text);
        enum err err = option_size_parse(span_from_text(cases[i].text), &octets);
        assert_int_equal(cases[i].octets, octets);
        assert_int_equal(cases[i].octets == UINT64_MAX ? ERR_PEER_SYNTAX : ERR_OK, err);
    }
}

/* Goal: what is printed is read back as the same value. */
static void test_formats_are_read_back(void **state)
{
    static const uint64_t values[] = {0,        1,           999,        1000,     1024,
                                      60000000, 86400000000, 1ull << 30, 123456789};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(values); i++) {
        char text[32];
        uint64_t back = 1;
        assert_int_equal(
            ERR_OK,
            option_duration_parse(span_from_text(option_duration_format(values[i], text)), &back));
        assert_int_equal(values[i], back);
        assert_int_equal(
            ERR_OK, option_size_parse(span_from_text(option_size_format(values[i], text)), &back));
        assert_int_equal(values[i], back);
    }
}

static void test_endpoints(void **state)
{
    static const struct {
        const char *name, *text;
        bool is_listen_ok, is_resolver_ok; /* with port; port optional */
        uint16_t port;
    } cases[] = {
        {"IPv4 with port", "192.0.2.1:25", true, true, 25},
        {"IPv6 with port", "[2001:db8::1]:65535", true, true, 65535},
        {"IPv4 alone", "192.0.2.1", false, true, 0},
        {"IPv6 alone", "2001:db8::1", false, true, 0},
        {"port 0", "192.0.2.1:0", false, false, 0},
        {"port too large", "192.0.2.1:65536", false, false, 0},
        {"IPv6 without brackets", "fe80:0:0:0:0:0:0:1:25", false, false, 0},
        {"IPv4 in brackets", "[192.0.2.1]:25", false, false, 0},
        {"open bracket", "[2001:db8::1:25", false, false, 0},
        {"name", "localhost:25", false, false, 0},
        {"no address", ":25", false, false, 0},
        {"no port", "192.0.2.1:", false, false, 0},
        {"text behind", "192.0.2.1:25 ", false, false, 0},
    };
    const struct option *listen = option_find("listen[]", SPAN_LITERAL("address"));
    const struct option *resolvers = option_find("dns", SPAN_LITERAL("resolvers"));

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct config_listener listener = {0};
        struct config config = {0};
        print_message("# case: %s\n", cases[i].name);
        enum err err =
            option_parse(listen, span_from_text(cases[i].text), &arena, &listener, 0, why);
        assert_int_equal(cases[i].is_listen_ok ? ERR_OK : ERR_CONFIG_VALUE, err);
        if (cases[i].is_listen_ok)
            assert_int_equal(cases[i].port, listener.settings.address.port);
        assert_int_equal(ERR_OK, option_list_begin(resolvers, 1, &arena, &config, why));
        err = option_parse(resolvers, span_from_text(cases[i].text), &arena, &config, 0, why);
        assert_int_equal(cases[i].is_resolver_ok ? ERR_OK : ERR_CONFIG_VALUE, err);
        if (cases[i].is_resolver_ok)
            assert_int_equal(cases[i].port, ((struct flow_address *)config.resolvers.items)->port);
    }
}

static void test_field_names(void **state)
{
    static const struct {
        const char *text;
        bool is_ok;
    } cases[] = {
        {"From", true}, {"X-1", true},       {"a", true},    {"", false},
        {"a b", false}, {"a:", false},       {"a;", false},  {"a=b", false},
        {"a\n", false}, {"\xc3\xa4", false}, {"a_b", false}, {"From ", false},
    };
    const struct option *headers = option_find("dkim[]", SPAN_LITERAL("headers"));
    struct config_dkim rule = {0};
    char name[66];

    (void)state;
    assert_int_equal(ERR_OK, option_list_begin(headers, 1, &arena, &rule, why));
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: row %u\n", i);
        enum err err = option_parse(headers, span_from_text(cases[i].text), &arena, &rule, 0, why);
        assert_int_equal(cases[i].is_ok ? ERR_OK : ERR_CONFIG_VALUE, err);
    }
    memset(name, 'x', sizeof(name));
    assert_int_equal(ERR_OK, option_parse(headers, span_of(name, 64), &arena, &rule, 0, why));
    assert_int_equal(ERR_CONFIG_VALUE,
                     option_parse(headers, span_of(name, 65), &arena, &rule, 0, why));
}

static void test_texts(void **state)
{
    static const struct {
        const char *section, *key, *text, *kept; /* kept NULL: refused */
    } cases[] = {
        {"", "hostname", "Mail.Example.ORG", "mail.example.org"},
        {"", "hostname", "mail example", NULL},
        {"", "hostname", "192.0.2.1", NULL},
        {"", "hostname", "mail.7", NULL},
        {"", "hostname", "192.0.2.1a", "192.0.2.1a"},
        {"routes[].hosts[]", "host", "127.1", NULL},
        {"", "postmaster", "ops@example.org", "ops@example.org"},
        {"", "postmaster", "ops@example.org\r\nX: y", NULL},
        {"routes[]", "match", "*", "*"},
        {"routes[]", "match", "*.Example.org", "*.example.org"},
        {"routes[]", "match", "Example.org", "example.org"},
        {"routes[]", "match", "*.", NULL},
        {"routes[]", "match", "*example.org", NULL},
        {"routes[]", "match", "a.*.org", NULL},
        {"routes[]", "match", "", NULL},
        {"routes[].hosts[]", "host", "192.0.2.1", "192.0.2.1"},
        {"routes[].hosts[]", "host", "2001:DB8:0::1", "2001:db8::1"},
        {"routes[].hosts[]", "host", "MX.example.org", "mx.example.org"},
        {"routes[].hosts[]", "host", "mx_1 example", NULL},
        {"control", "socket", "", NULL},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        const struct option *option = option_find(cases[i].section, span_from_text(cases[i].key));
        uint8_t object[8192] = {0};
        const char *kept = NULL;
        print_message("# case: row %u, %s\n", i, cases[i].key);
        assert_non_null(option);
        enum err err = option_parse(option, span_from_text(cases[i].text), &arena, object, 0, why);
        memcpy(&kept, object + option->offset, sizeof(kept));
        if (cases[i].kept == NULL) {
            assert_int_equal(ERR_CONFIG_VALUE, err);
            assert_null(kept);
        } else {
            assert_int_equal(ERR_OK, err);
            assert_string_equal(cases[i].kept, kept);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_in_order),
        cmocka_unit_test(test_bounds_of_every_number),
        cmocka_unit_test(test_defaults_of_every_owner),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_formats_are_read_back),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_field_names),
        cmocka_unit_test(test_texts),
    };
    arena_init(&arena, 4096, 1u << 20);
    int failed = cmocka_run_group_tests_name("option", tests, NULL, NULL);
    arena_fini(&arena);
    return failed;
}
