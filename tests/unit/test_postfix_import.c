/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From Postfix's files to a configuration: how they are read, what becomes of each parameter, and
 * that whatever is written is accepted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/config.h"
#include "control/postfix_file.h"
#include "control/postfix_import.h"

#define SMTP "smtp inet n - y - - smtpd\n"

static struct {
    const char *main, *master, *transport;
} files;

static uint8_t *on_read(void *context, const char *path, uint32_t *ret_size)
{
    const char *text = strstr(path, "main.cf") != NULL         ? files.main
                       : strstr(path, "master.cf") != NULL     ? files.master
                       : strcmp(path, "/etc/x/transport") == 0 ? files.transport
                       : strcmp(path, "/cert.pem") == 0        ? "x"
                                                               : NULL;

    (void)context;
    if (text == NULL)
        return NULL;
    *ret_size = (uint32_t)strlen(text);
    return (uint8_t *)strdup(text);
}

/* The configuration, which must be one that is understood. */
static char *imported(const char *main, const char *master)
{
    struct postfix_import_source source = {.read = on_read};
    char why[POSTFIX_IMPORT_WHY_SIZE], *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct config_report report;
    struct config *config = NULL;

    files.main = main;
    files.master = master;
    enum err err = postfix_import(&source, "/etc/x", out, why);
    fclose(out);
    if (err != ERR_OK)
        fail_msg("%s", why);
    config_report_init(&report, "imported");
    if (config_parse(span_of(text, (uint32_t)size), &config, &report) != ERR_OK)
        fail_msg("%s\n%s", report.text, text);
    config_free(config);
    return text;
}

/* Goal: each parameter becomes its option, or a note that says why not. */
static void test_rows(void **state)
{
    static const struct {
        const char *main, *master, *wanted;
    } rows[] = {
        {"myhostname = mail.example.net\n", SMTP, "hostname: \"mail.example.net\"\n"},
        {"myhostname = mail\n", SMTP, "#   myhostname: not set, or no domain"},
        {"x = example\nmyhostname = mail.$x.net\n", SMTP, "hostname: \"mail.example.net\"\n"},
        {"x = a\nmyhostname = ${x}.$(x).net\n", SMTP, "hostname: \"a.a.net\"\n"},
        {"myhostname = ${x?a.test}\n", SMTP, "#   myhostname: line 1 has a condition"},
        {"a = $b\nb = $a\nmyhostname = $a\n", SMTP, "#   myhostname: line 3 has a condition"},
        {"mynetworks = 127.0.0.0/8,\n  [::1]/128\n# no\n\n\t192.0.2.0/24\n", SMTP,
         "relay_from: [\"127.0.0.0/8\", \"::1/128\", \"192.0.2.0/24\"]\n"},
        {"mynetworks = 192.0.2.5/24\n", SMTP, "#   mynetworks: one of them is no prefix"},
        {"mynetworks = !192.0.2.0/24\n", SMTP, "#   mynetworks: one of them is no prefix"},
        {"maximal_queue_lifetime = 3\n", SMTP, "message_lifetime: 259200s\n"},
        {"maximal_queue_lifetime = 2h\n", SMTP, "message_lifetime: 7200s\n"},
        {"maximal_queue_lifetime = 0\n", SMTP, "0 is beyond the bounds here: 60"},
        {"maximal_queue_lifetime = soon\n", SMTP, "#   maximal_queue_lifetime: is no number"},
        {"minimal_backoff_time = 300s\nmaximal_backoff_time = 4000s\n", SMTP,
         "retry: {min: 300s, max: 4000s}\n"},
        {"message_size_limit = 10240000\n", SMTP, "limits: {message_size: 10240000}\n"},
        {"message_size_limit = 1000\n", SMTP, "limits: {message_size: 65536}\n"},
        {"message_size_limit = 0\n", SMTP, "address: \"[::]:25\"\n\n"},
        {"message_size_limit = 0\n", SMTP,
         "0, no limit, is not there: the default of message_size"},
        {"smtp_connect_timeout = 0\nsmtp_mail_timeout = 0\n", SMTP,
         "client: {command_timeout: 1s}\n"},
        {"smtpd_client_connection_count_limit = 7\n", SMTP, "brakes: {connections: 7}\n"},
        {"inet_protocols = ipv4\n", SMTP, "destinations: {ipv6: false}\n"},
        {"inet_interfaces = loopback-only\n", SMTP, "  - address: \"127.0.0.1:25\"\n"},
        {"", SMTP, "  - address: \"[::]:25\"\n"},
        {"", "127.0.0.1:10025 inet n - n - - smtpd\n", "  - address: \"127.0.0.1:10025\"\n"},
        {"", "[::1]:25 inet n - n - - smtpd\n", "  - address: \"[::1]:25\"\n"},
        {"", "unknown inet n - n - - smtpd\n", "no address and port that is known"},
        {"", "qmgr unix n - n 300 1 qmgr\n", "no smtpd listens"},
        {"", "submission inet n - y - - smtpd\n -o smtpd_sasl_auth_enable=yes\n",
         "#   submission: master.cf line 1: logins and TLS want a certificate"},
        {"smtpd_tls_cert_file = /cert.pem\n",
         "submission inet n - y - - smtpd\n -o smtpd_sasl_auth_enable=yes\n",
         "logins want auth.dovecot"},
        {"smtpd_tls_cert_file = /cert.pem\nsmtpd_sasl_type = dovecot\n"
         "smtpd_sasl_path = private/auth\n",
         "127.0.0.1:587 inet n - y - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n",
         "    kind: submission\n    tls: {certificate: \"/cert.pem\", key: \"/cert.pem\"}\n"},
        {"smtpd_tls_cert_file = /gone.pem\n", SMTP, "it, or its key, cannot be read now"},
        {"smtpd_tls_cert_file = /cert.pem\n",
         "127.0.0.1:465 inet n - y - - smtpd\n -o smtpd_tls_wrappermode=yes\n",
         ", implicit: true}\n"},
        {"relayhost = [relay.test]:587\nsmtp_tls_security_level = encrypt\n", SMTP,
         "  - {match: \"*\", hosts: [{host: \"relay.test\", port: 587}], tls: {level: encrypt}}\n"},
        {"relayhost = relay.test\n", SMTP, "#   relayhost: its MX is not asked for"},
        {"relayhost = [a b\n", SMTP, "#   relayhost: is no host"},
        {"smtp_tls_security_level = dane\n", SMTP, "DANE is not there yet: may"},
        {"smtp_tls_security_level = Secure\n", SMTP, "level: verify"},
        {"smtp_tls_security_level = secure really\n", SMTP, "level: verify"},
        {"smtp_tls_security_level = secure really\n", SMTP, "is no level that is known: verify"},
        {"relay_domains = a.test .b.test\n", SMTP, "  - {match: \"*.b.test\", served: true}\n"},
        {"transport_maps = hash:/etc/x/transport\n", SMTP,
         "  - {match: \"a.test\", hosts: [{host: \"10.0.0.1\", port: 2525}]}\n"},
        {"transport_maps = hash:$config_directory/transport\n", SMTP,
         "  - {match: \"*.b.test\", via: discard}\n"},
        {"transport_maps = hash:/etc/x/transport\n", SMTP, "#   c@d.test: in the transport table"},
        {"transport_maps = ldap:x\n", SMTP, "#   transport_maps: is no table"},
        {"smtp_bind_address = 192.0.2.1\nsmtp_helo_name = out.test\n", SMTP,
         "sources: [{name: out, addresses: [\"192.0.2.1\"], hello: \"out.test\"}]\n"},
        {"smtp_bind_address = ::1\n", SMTP, "#   smtp_bind_address: is no address of its family"},
        {"header_checks = pcre:/etc/x\n", SMTP, "#   header_checks: main.cf line 1: not mapped"},
        {"a = 1\n\n# c\nb = 2\n", SMTP, "#   b: main.cf line 4: not mapped"},
        {"a = 1\n\n# c\n 2\nb = 2\n", SMTP, "#   b: main.cf line 5: not mapped"},
    };
    (void)state;

    files.transport = "# routes\na.test smtp:[10.0.0.1]:2525\n.b.test discard:\nc@d.test smtp:\n";
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        char *text = imported(rows[i].main, rows[i].master);
        if (strstr(text, rows[i].wanted) == NULL)
            fail_msg("%s: no %s in\n%s", rows[i].main, rows[i].wanted, text);
        free(text);
    }
}

/* Goal: what is asked for each listener anew is told once. */
static void test_told_once(void **state)
{
    static const char *const told[] = {
        "#   smtpd_timeout: line 1 has a condition",
        "#   hopcount_limit: 99999 is beyond the bounds",
        "#   smtpd_hard_error_limit: is no number",
    };
    char *text = imported("smtpd_timeout = ${stress?{10}:{300}}s\n"
                          "hopcount_limit = 99999\n"
                          "smtpd_hard_error_limit = many\n",
                          SMTP);

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(told); i++) {
        const char *first = strstr(text, told[i]);
        assert_non_null(first);
        assert_null(strstr(first + 1, told[i]));
    }
    free(text);
}

/* Goal: what is no parameter or service is refused with its line, and nothing is written. */
static void test_refused(void **state)
{
    static const struct {
        const char *main, *master, *why;
    } rows[] = {
        {"a = 1\nnonsense\n", SMTP, "main.cf:2: not as Postfix writes it"},
        {"= 1\n", SMTP, "main.cf:1: not as Postfix writes it"},
        {"", "smtp inet n - y - -\n", "master.cf:1: not as Postfix writes it"},
        {"", NULL, "master.cf cannot be read"},
    };
    struct postfix_import_source source = {.read = on_read};
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        char why[POSTFIX_IMPORT_WHY_SIZE], *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        files.main = rows[i].main;
        files.master = rows[i].master;
        assert_int_not_equal(ERR_OK, postfix_import(&source, "/etc/x", out, why));
        fclose(out);
        assert_string_equal(rows[i].why, why);
        assert_int_equal(0, size);
        free(text);
    }
}

/* Goal: as many parameters as may be, and one more; a value as long as may be, and one octet more.
 */
static void test_bounds(void **state)
{
    struct postfix *postfix = calloc(1, sizeof(*postfix));
    char *text = calloc(POSTFIX_PARAMETERS_MAX + 1, 8), value[POSTFIX_VALUE_SIZE];
    char *long_value = malloc(POSTFIX_VALUE_SIZE);
    uint32_t line, size = 4 * POSTFIX_PARAMETERS_MAX;
    (void)state;

    for (uint32_t i = 0; i <= POSTFIX_PARAMETERS_MAX; i++)
        memcpy(text + 4 * (size_t)i, "a=1\n", 4);
    assert_int_equal(ERR_OK,
                     postfix_main_parse(postfix, (struct span_mut){(uint8_t *)text, size}, &line));
    memset(postfix, 0, sizeof(*postfix));
    assert_int_equal(ERR_LIMIT, postfix_main_parse(
                                    postfix, (struct span_mut){(uint8_t *)text, size + 4}, &line));
    assert_int_equal(POSTFIX_PARAMETERS_MAX + 1, line);
    memset(long_value, 'x', POSTFIX_VALUE_SIZE);
    assert_true(postfix_expand(postfix, span_of(long_value, POSTFIX_VALUE_SIZE - 1), value));
    assert_false(postfix_expand(postfix, span_of(long_value, POSTFIX_VALUE_SIZE), value));
    free(long_value);
    free(text);
    free(postfix);
}

/* Goal: what is no file is refused, and nobody waits for who writes it. */
static void test_pipes_are_not_read(void **state)
{
    char directory[] = "/tmp/angarium-postfix-XXXXXX", path[64];
    FILE *out = fopen("/dev/null", "w");
    (void)state;

    assert_non_null(out);
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/main.cf", directory);
    assert_int_equal(0, mkfifo(path, 0600));
    assert_false(postfix_import_files(directory, out));
    assert_int_equal(0, unlink(path));
    assert_int_equal(0, symlink("/dev/zero", path));
    assert_false(postfix_import_files(directory, out));
    assert_int_equal(0, unlink(path));

    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(0, fclose(file));
    (void)snprintf(path, sizeof(path), "%s/master.cf", directory);
    assert_int_equal(0, mkfifo(path, 0600));
    assert_false(postfix_import_files(directory, out));
    assert_int_equal(0, unlink(path));
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(0, fclose(file));
    assert_true(postfix_import_files(directory, out)); /* it was only that */
    assert_int_equal(0, unlink(path));
    (void)snprintf(path, sizeof(path), "%s/main.cf", directory);
    assert_int_equal(0, unlink(path));
    assert_int_equal(0, rmdir(directory));
    assert_int_equal(0, fclose(out));
}

/* Goal: names within names are looked up so often, and no more, in all of a file. */
static void test_lookups(void **state)
{
    static struct postfix postfix;
    static char text[] = "a = x\nb = $a\n", expanded[POSTFIX_VALUE_SIZE];
    uint32_t line;

    (void)state;
    assert_int_equal(
        ERR_OK,
        postfix_main_parse(&postfix, (struct span_mut){(uint8_t *)text, sizeof(text) - 1}, &line));
    for (uint32_t i = 0; i < POSTFIX_LOOKUPS_MAX; i++)
        assert_true(postfix_expand(&postfix, SPAN_LITERAL("$a"), expanded));
    assert_string_equal("x", expanded);
    assert_false(postfix_expand(&postfix, SPAN_LITERAL("$a"), expanded));
    assert_true(postfix_expand(&postfix, SPAN_LITERAL("a"), expanded));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),    cmocka_unit_test(test_told_once),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_lookups), cmocka_unit_test(test_pipes_are_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
