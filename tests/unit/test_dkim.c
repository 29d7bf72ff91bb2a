/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signer: the RFCs' examples, what it signs and with which rules, what it leaves alone, and the
 * keys it takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "base/rng.h"
#include "relay/dkim_internal.h"
#include "tests/unit/dkim_fixture.h"

#define NOW         1764115200999999
#define SPLIT_COUNT 60u
#define MESSAGE     "From: Joe <joe@example.org>\r\nTo: a@b.example\r\nSubject: x\r\n\r\nHi.\r\n"

static EVP_PKEY *pkeys[2];
static struct dkim_key *keys[2];
static struct settings_listener listener;
static struct flow_address client;
static const char *const header_names[] = {"From", "To", "Subject", "Date"};
static const char *const oversign_names[] = {"From", "Reply-To"};

static int make_keys(void **state)
{
    char path[DKIM_FIXTURE_PATH_SIZE], why[DKIM_KEY_WHY_SIZE];

    (void)state;
    pkeys[DKIM_FIXTURE_ED25519] = dkim_fixture_ed25519();
    pkeys[DKIM_FIXTURE_RSA] = dkim_fixture_rsa(2048);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(ERR_OK,
                         dkim_key_load(dkim_fixture_key_file(pkeys[i], path), &keys[i], why));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("10.0.0.1"), &client));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("192.0.2.1"), &listener.address));
    listener.address.port = 25;
    return 0;
}

static int free_keys(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        dkim_key_free(keys[i]);
        dkim_fixture_key_free(pkeys[i]);
    }
    return 0;
}

static struct settings_dkim rule_of(enum dkim_fixture_key key)
{
    return (struct settings_dkim){
        .domain = "example.org",
        .selector = "s1",
        .key = keys[key],
        .header_canon = DKIM_RELAXED,
        .body_canon = DKIM_RELAXED,
        .headers = header_names,
        .header_count = COUNT_OF(header_names),
        .oversign = oversign_names,
        .oversign_count = COUNT_OF(oversign_names),
    };
}

/* Sign a message that is fed in pieces. `ret_signed`: the fields, then the message. */
static enum dkim_verdict sign(const struct settings_dkim *rules, uint32_t count,
                              struct span message, struct rng *rng, struct span *ret_signed)
{
    static uint8_t text[4u << 20];
    struct settings settings = {.dkim = rules, .dkim_count = count};
    struct dkim_origin origin = {
        .listener = &listener, .client = &client, .sender = SPAN_LITERAL("s@Bounce.Example")};
    struct dkim_signer *signer;
    struct span fields = {0}, rest = message;
    uint32_t made = 0;

    assert_int_equal(ERR_OK, dkim_signer_new(&settings, &origin, &signer));
    assert_non_null(signer);
    while (rest.size > 0) {
        uint32_t size = rng == NULL ? rest.size : 1 + rng_below(rng, 30);
        size = size < rest.size ? size : rest.size;
        dkim_signer_feed(signer, span_head(rest, size));
        rest = span_skip(rest, size);
    }
    enum dkim_verdict verdict = dkim_signer_finish(signer);
    if (verdict == DKIM_SIGN) {
        assert_int_equal(ERR_OK, dkim_signer_sign(signer, NOW, &fields, &made));
        assert_true(made > 0 && made <= count && fields.size <= DKIM_PREFIX_SIZE_MAX);
        memcpy(text, fields.data, fields.size);
        memcpy(text + fields.size, message.data, message.size);
    }
    *ret_signed = span_of(text, fields.size + message.size);
    dkim_signer_free(signer);
    return verdict;
}

static struct span field_of(struct span message)
{
    struct dkim_header header;

    const uint8_t *end = memmem(message.data, message.size, "\r\n\r\n", 4);
    uint32_t size = end == NULL ? message.size : (uint32_t)(end - message.data) + 2;
    assert_int_equal(ERR_OK, dkim_header_parse(span_head(message, size), &header));
    struct span field = header.fields[0].text;
    dkim_header_fini(&header);
    return field;
}

/* ---- the examples of the RFCs ---- */

#define EXAMPLE_FROM                                                                               \
    "From: Joe SixPack <joe@football.example.com>\r\n"                                             \
    "To: Suzie Q <suzie@shopping.example.net>\r\n"                                                 \
    "Subject: Is dinner ready?\r\n"                                                                \
    "Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"                                              \
    "Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
#define EXAMPLE_BODY "\r\nHi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n"

/* RFC 6376 appendix A.2, simple/simple, RSA; folded as it was when it was signed. */
static const char example_simple[] =
    "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n"
    "      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n"
    "      h=Received : From : To : Subject : Date : Message-ID;\r\n"
    "      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    "      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n"
    "      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r\n"
    "      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r\n"
    "      4bmp/YzhwvcubU4=;\r\n"
    "Received: from client1.football.example.com  [192.0.2.1]\r\n"
    "      by submitserver.example.com with SUBMISSION;\r\n"
    "      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n" EXAMPLE_FROM EXAMPLE_BODY;

/* RFC 8463 appendix A.3, relaxed/relaxed, Ed25519 and RSA. */
static const char example_both[] =
    "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    " d=football.example.com; i=@football.example.com;\r\n"
    " q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
    " subject : date : message-id : from : subject : date;\r\n"
    " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    " b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"
    " Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
    "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
    " d=football.example.com; i=@football.example.com;\r\n"
    " q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"
    " date : message-id : from : subject : date;\r\n"
    " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    " b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n"
    " DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n"
    " dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n" EXAMPLE_FROM EXAMPLE_BODY;

static const char example_simple_key[] =
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFC"
    "jxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9"
    "tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB";
static const char example_both_rsa_key[] =
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi"
    "Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZy"
    "VYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

static void assert_verifies(struct span message, uint32_t index, EVP_PKEY *key)
{
    const char *reason = dkim_fixture_verify(message, index, key);

    if (reason != NULL)
        print_message("# signature %u: %s\n", index, reason);
    assert_null(reason);
}

/* Goal: our canonical forms are those over which the RFCs' own signatures are. */
static void signatures_of_the_rfcs_verify(void **state)
{
    EVP_PKEY *simple = dkim_fixture_public(example_simple_key);
    EVP_PKEY *both = dkim_fixture_public(example_both_rsa_key);
    struct span message = SPAN_LITERAL(example_both);

    (void)state;
    assert_verifies(SPAN_LITERAL(example_simple), 0, simple);
    assert_verifies(message, 0, pkeys[DKIM_FIXTURE_ED25519]);
    assert_verifies(message, 1, both);
    assert_non_null(dkim_fixture_verify(message, 0, both));
    assert_non_null(dkim_fixture_verify(SPAN_LITERAL(example_simple), 0, both));
    dkim_fixture_key_free(simple);
    dkim_fixture_key_free(both);
}

/* Goal: the body hash of the examples comes out of the signer, too. */
static void signer_makes_the_body_hash_of_the_rfcs(void **state)
{
    struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
    struct span made;
    char value[200];

    (void)state;
    for (uint32_t canon = 0; canon < 2; canon++) {
        rule.domain = "football.example.com";
        rule.body_canon = (enum dkim_canon)canon;
        assert_int_equal(DKIM_SIGN,
                         sign(&rule, 1, SPAN_LITERAL(EXAMPLE_FROM EXAMPLE_BODY), NULL, &made));
        assert_string_equal("2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=",
                            dkim_fixture_tag(field_of(made), "bh", value, sizeof(value)));
    }
}

/* ---- what is signed ---- */

/* Goal: whatever form, key and message, and however it was cut, the result verifies; a changed
 * octet does not. */
static void what_is_signed_verifies(void **state)
{
    static const char *const messages[] = {
        MESSAGE,
        "From: joe@example.org\r\n",
        "From: joe@example.org",
        "From: joe@example.org\r\n\r\n",
        "From: joe@example.org\r\n\r\n\r\n\r\n",
        "From: joe@example.org\r\n\r\nno line end",
        "Subject: a\r\nFROM :\r\n\tjoe@example.org\r\nSubject: b\r\n folded  \r\nX: c\r\n\r\n"
        ".\r\n..\r\n a  b \r\n \r\n\r\n\r\n",
        "From: J\xc3\xb6 <joe@sub.example.org>\r\nDate: now\r\nTo: a\r\nTo: b\r\n\r\n\xff\xfe\r\n",
    };
    struct span made;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 8463);
    for (uint32_t i = 0; i < COUNT_OF(messages) * 8; i++) {
        enum dkim_fixture_key key = i & 1 ? DKIM_FIXTURE_RSA : DKIM_FIXTURE_ED25519;
        struct settings_dkim rule = rule_of(key);
        rule.header_canon = i & 2 ? DKIM_RELAXED : DKIM_SIMPLE;
        rule.body_canon = i & 4 ? DKIM_RELAXED : DKIM_SIMPLE;
        struct span message = span_from_text(messages[i / 8]);
        assert_int_equal(DKIM_SIGN, sign(&rule, 1, message, &rng, &made));
        assert_verifies(made, 0, pkeys[key]);
        uint8_t *from = memmem(made.data, made.size, "joe@", 4);
        assert_non_null(from);
        *from = 'J';
        assert_non_null(dkim_fixture_verify(made, 0, pkeys[key]));
    }
}

/* Goal: the text is what it is, to the octet: Ed25519 signs the same text in the same way. */
static void field_is_written_as_specified(void **state)
{
    struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
    struct span made;

    (void)state;
    rule.expire_s = 3600;
    rule.identity = "joe@sub.example.org";
    assert_int_equal(DKIM_SIGN, sign(&rule, 1, SPAN_LITERAL(MESSAGE), NULL, &made));
    struct span field = field_of(made);
    static const char expected[] =
        "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org;\r\n"
        "\ts=s1; t=1764115200; x=1764118800; i=joe@sub.example.org;\r\n"
        "\th=From:From:To:Subject:Reply-To;\r\n"
        "\tbh=";
    assert_true(field.size > sizeof(expected));
    assert_memory_equal(expected, field.data, sizeof(expected) - 1);
    for (uint32_t i = 0, column = 0; i < field.size; i++) {
        column = field.data[i] == '\n' ? 0 : column + 1;
        assert_true(column <= 78);
    }
}

static void fields_are_chosen(void **state)
{
    static const struct {
        const char *name;
        const char *headers[3], *oversign[3];
        const char *message, *h;
    } rows[] = {
        {"one", {"From"}, {0}, "From: a@example.org\r\n\r\n", "From"},
        {"one that is not there", {"From", "To"}, {0}, "From: a@example.org\r\n\r\n", "From"},
        {"twice there",
         {"From", "To"},
         {0},
         "To: a\r\nFrom: a@example.org\r\nTo: b\r\n\r\n",
         "From:To:To"},
        {"oversigned",
         {"From", "To"},
         {"From", "To"},
         "To: a\r\nFrom: a@example.org\r\nTo: b\r\n\r\n",
         "From:From:To:To:To"},
        {"oversigned, not there", {"From"}, {"Cc"}, "From: a@example.org\r\n\r\n", "From:Cc"},
        {"oversigned in other letters",
         {"From"},
         {"FROM"},
         "From: a@example.org\r\n\r\n",
         "From:From"},
        {"a name that begins alike",
         {"From", "To"},
         {0},
         "From: a@example.org\r\nTo-Do: x\r\n\r\n",
         "From"},
    };
    char value[200];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
        struct span made;
        rule.headers = rows[i].headers;
        rule.oversign = rows[i].oversign;
        for (rule.header_count = 0; rows[i].headers[rule.header_count] != NULL;)
            rule.header_count++;
        for (rule.oversign_count = 0; rows[i].oversign[rule.oversign_count] != NULL;)
            rule.oversign_count++;
        assert_int_equal(DKIM_SIGN, sign(&rule, 1, span_from_text(rows[i].message), NULL, &made));
        dkim_fixture_tag(field_of(made), "h", value, sizeof(value));
        if (strcmp(rows[i].h, value) != 0)
            print_message("# %s: %s\n", rows[i].name, value);
        assert_string_equal(rows[i].h, value);
        assert_verifies(made, 0, pkeys[DKIM_FIXTURE_ED25519]);
    }
}

/* Goal: a field added on the way breaks a signature that has it oversigned, and only that. */
static void added_field_breaks_what_is_oversigned(void **state)
{
    static const struct {
        const char *added;
        bool is_good;
    } rows[] = {
        {"From: evil@other.example\r\n", false},
        {"Reply-To: evil@other.example\r\n", false},
        {"Subject: y\r\n", true},
        {"X-Seen: y\r\n", true},
    };
    struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
    struct span made;
    uint8_t text[4096];

    (void)state;
    assert_int_equal(DKIM_SIGN, sign(&rule, 1, SPAN_LITERAL(MESSAGE), NULL, &made));
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint32_t size = (uint32_t)strlen(rows[i].added);
        memcpy(text, rows[i].added, size);
        memcpy(text + size, made.data, made.size);
        struct span message = span_of(text, size + made.size);
        assert_int_equal(rows[i].is_good,
                         dkim_fixture_verify(message, 0, pkeys[DKIM_FIXTURE_ED25519]) == NULL);
    }
}

static void several_rules_sign(void **state)
{
    struct settings_dkim rules[DKIM_SIGNATURE_MAX + 1];
    struct span made;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rules); i++) {
        rules[i] = rule_of(i % 2 == 0 ? DKIM_FIXTURE_RSA : DKIM_FIXTURE_ED25519);
        rules[i].body_canon = i % 3 == 0 ? DKIM_SIMPLE : DKIM_RELAXED;
    }
    rules[1].domain = "other.example"; /* not for this message */
    assert_int_equal(DKIM_SIGN, sign(rules, 4, SPAN_LITERAL(MESSAGE), NULL, &made));
    assert_verifies(made, 0, pkeys[DKIM_FIXTURE_RSA]);
    assert_verifies(made, 1, pkeys[DKIM_FIXTURE_RSA]);
    assert_verifies(made, 2, pkeys[DKIM_FIXTURE_ED25519]);
    assert_non_null(dkim_fixture_verify(made, 3, pkeys[DKIM_FIXTURE_RSA]));

    rules[1].domain = "example.org";
    assert_int_equal(DKIM_SIGN, sign(rules, COUNT_OF(rules), SPAN_LITERAL(MESSAGE), NULL, &made));
    assert_verifies(made, DKIM_SIGNATURE_MAX - 1, pkeys[DKIM_FIXTURE_ED25519]);
    assert_non_null(dkim_fixture_verify(made, DKIM_SIGNATURE_MAX, pkeys[DKIM_FIXTURE_RSA]));
}

/* ---- which messages ---- */

static void rules_are_chosen(void **state)
{
    static const char *const one[] = {"a.example"}, *const below[] = {"*.a.example"},
                             *const all[] = {"*"}, *const bounce[] = {"bounce.example"};
    static const struct {
        const char *name;
        const char *const *match;
        enum settings_dkim_by by;
        const char *author;
        bool is_signed;
    } rows[] = {
        {"the domain itself", NULL, SETTINGS_DKIM_BY_FROM, "x@example.org", true},
        {"in capitals", NULL, SETTINGS_DKIM_BY_FROM, "x@EXAMPLE.org", true},
        {"below it", NULL, SETTINGS_DKIM_BY_FROM, "x@a.b.example.org", true},
        {"the end of a label", NULL, SETTINGS_DKIM_BY_FROM, "x@notexample.org", false},
        {"above it", NULL, SETTINGS_DKIM_BY_FROM, "x@org", false},
        {"named", one, SETTINGS_DKIM_BY_FROM, "x@a.example", true},
        {"named, not below", one, SETTINGS_DKIM_BY_FROM, "x@b.a.example", false},
        {"named, no longer itself", one, SETTINGS_DKIM_BY_FROM, "x@example.org", false},
        {"wildcard", below, SETTINGS_DKIM_BY_FROM, "x@b.a.example", true},
        {"the wildcard's own name", below, SETTINGS_DKIM_BY_FROM, "x@a.example", false},
        {"all", all, SETTINGS_DKIM_BY_FROM, "x@anything.example", true},
        {"the sender", bounce, SETTINGS_DKIM_BY_SENDER, "x@anything.example", true},
        {"the sender alone", one, SETTINGS_DKIM_BY_SENDER, "x@a.example", false},
        {"not the sender", bounce, SETTINGS_DKIM_BY_FROM, "x@anything.example", false},
    };
    char text[200];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
        struct span made;
        rule.match = rows[i].match;
        rule.match_count = rows[i].match != NULL;
        rule.by = rows[i].by;
        snprintf(text, sizeof(text), "From: %s\r\n\r\n", rows[i].author);
        enum dkim_verdict verdict = sign(&rule, 1, span_from_text(text), NULL, &made);
        if (verdict != (rows[i].is_signed ? DKIM_SIGN : DKIM_UNMATCHED))
            print_message("# %s: %d\n", rows[i].name, verdict);
        assert_int_equal(rows[i].is_signed ? DKIM_SIGN : DKIM_UNMATCHED, verdict);
    }
}

static void rules_are_narrowed(void **state)
{
    static const struct {
        const char *name, *listener;
        uint16_t port;
        const char *clients;
        bool is_wanted;
    } rows[] = {
        {"everybody", NULL, 0, NULL, true},
        {"this listener", "192.0.2.1", 25, NULL, true},
        {"this listener, any port", "192.0.2.1", 0, NULL, true},
        {"another port", "192.0.2.1", 587, NULL, false},
        {"another listener", "192.0.2.2", 25, NULL, false},
        {"these clients", NULL, 0, "10.0.0.0/8", true},
        {"other clients", NULL, 0, "10.1.0.0/16", false},
        {"both", "192.0.2.1", 25, "10.0.0.1/32", true},
        {"one of both", "192.0.2.1", 25, "10.0.0.2/32", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
        struct settings settings = {.dkim = &rule, .dkim_count = 1};
        struct dkim_origin origin = {.listener = &listener, .client = &client};
        struct flow_address address;
        struct flow_prefix prefix;
        struct dkim_signer *signer;
        if (rows[i].listener != NULL) {
            assert_int_equal(ERR_OK,
                             flow_address_parse_ip(span_from_text(rows[i].listener), &address));
            address.port = rows[i].port;
            rule.listeners = &address;
            rule.listener_count = 1;
        }
        if (rows[i].clients != NULL) {
            assert_int_equal(ERR_OK, flow_prefix_parse(span_from_text(rows[i].clients), &prefix));
            rule.clients = &prefix;
            rule.client_count = 1;
        }
        assert_int_equal(ERR_OK, dkim_signer_new(&settings, &origin, &signer));
        if ((signer != NULL) != rows[i].is_wanted)
            print_message("# %s\n", rows[i].name);
        assert_int_equal(rows[i].is_wanted, signer != NULL);
        dkim_signer_free(signer);
    }
}

static void malformed_headers_are_not_signed(void **state)
{
    static const struct {
        const char *name, *message;
        enum dkim_verdict verdict;
    } rows[] = {
        {"nothing", "", DKIM_FROM_ABSENT},
        {"no header", "\r\nFrom: a@example.org\r\n", DKIM_FROM_ABSENT},
        {"no From", "To: a@example.org\r\n\r\nx\r\n", DKIM_FROM_ABSENT},
        {"two From", "From: a@example.org\r\nFrom: a@example.org\r\n\r\n", DKIM_FROM_TWICE},
        {"two From in other letters", "From: a@example.org\r\nfrom : a@example.org\r\n\r\n",
         DKIM_FROM_TWICE},
        {"two domains", "From: a@example.org, b@other.example\r\n\r\n", DKIM_FROM_UNCLEAR},
        {"no address", "From: nobody\r\n\r\n", DKIM_FROM_UNCLEAR},
        {"no field", "From: a@example.org\r\nhello world\r\n\r\n", DKIM_NOT_A_FIELD},
        {"folded at first", " a\r\nFrom: a@example.org\r\n\r\n", DKIM_NOT_A_FIELD},
        {"From in the body", "To: b\r\n\r\nFrom: a@example.org\r\n", DKIM_FROM_ABSENT},
    };
    struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
    struct span made;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 1);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        enum dkim_verdict verdict = sign(&rule, 1, span_from_text(rows[i].message), &rng, &made);
        if (verdict != rows[i].verdict)
            print_message("# %s: %d\n", rows[i].name, verdict);
        assert_int_equal(rows[i].verdict, verdict);
        assert_true(dkim_is_malformed(verdict));
    }
    assert_false(dkim_is_malformed(DKIM_SIGN) || dkim_is_malformed(DKIM_UNMATCHED) ||
                 dkim_is_malformed(DKIM_OVERSIZED));
}

/* Goal: a header of just the bound is signed, one octet more is not; neither is kept for long. */
static void header_is_bounded(void **state)
{
    static char text[DKIM_HEADER_SIZE_MAX + 100];
    struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
    struct span made;

    (void)state;
    for (uint32_t excess = 0; excess < 2; excess++) {
        int size = snprintf(text, sizeof(text), "From: a@example.org\r\nX: ");
        memset(text + size, 'x', sizeof(text) - (uint32_t)size);
        uint32_t end = DKIM_HEADER_SIZE_MAX - 4 + excess;
        memcpy(text + end, "\r\n\r\nbody", 8);
        enum dkim_verdict expected = excess == 0 ? DKIM_SIGN : DKIM_OVERSIZED;
        assert_int_equal(expected, sign(&rule, 1, span_of(text, end + 8), NULL, &made));
    }
}

/* Goal: names of h= that do not fit the prefix are an error that says so. */
static void prefix_is_bounded(void **state)
{
    static char text[24000];
    struct settings_dkim rule = rule_of(DKIM_FIXTURE_ED25519);
    struct settings settings = {.dkim = &rule, .dkim_count = 1};
    struct dkim_origin origin = {.listener = &listener, .client = &client};
    struct dkim_signer *signer;
    struct span fields;
    uint32_t size = (uint32_t)snprintf(text, sizeof(text), "From: a@example.org\r\n"), count;

    (void)state;
    rule.headers = (const char *const[]){"From", "X-A-Long-Name-That-Comes-Often"};
    rule.header_count = 2;
    for (uint32_t i = 0; i < 600; i++)
        size += (uint32_t)snprintf(text + size, sizeof(text) - size, "%s:\r\n", rule.headers[1]);
    assert_int_equal(ERR_OK, dkim_signer_new(&settings, &origin, &signer));
    dkim_signer_feed(signer, span_of(text, size));
    assert_int_equal(DKIM_SIGN, dkim_signer_finish(signer));
    assert_int_equal(ERR_LIMIT, dkim_signer_sign(signer, NOW, &fields, &count));
    dkim_signer_free(signer);
}

/* Goal: how the octets come plays no part: the same text, whatever the pieces. */
static void split_plays_no_part(void **state)
{
    static const char message[] =
        "Received: x\r\nFrom: joe@example.org\r\nTo: a\r\n b \r\nSubject:  x \r\n\r\n"
        "\r\n a  b \r\n.\r\n\r\nx\r\n \r\n\r\n";
    struct settings_dkim rules[2] = {rule_of(DKIM_FIXTURE_ED25519), rule_of(DKIM_FIXTURE_ED25519)};
    struct span made;
    static uint8_t whole[8192];
    struct rng rng;

    (void)state;
    rules[1].header_canon = rules[1].body_canon = DKIM_SIMPLE;
    assert_int_equal(DKIM_SIGN, sign(rules, 2, SPAN_LITERAL(message), NULL, &made));
    uint32_t size = made.size;
    memcpy(whole, made.data, size);
    rng_init_seed(&rng, 2);
    for (uint32_t i = 0; i < SPLIT_COUNT; i++) {
        assert_int_equal(DKIM_SIGN, sign(rules, 2, SPAN_LITERAL(message), &rng, &made));
        assert_int_equal(size, made.size);
        assert_memory_equal(whole, made.data, size);
    }
}

/* ---- keys ---- */

static void key_files_are_judged(void **state)
{
    static const char junk[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    EVP_PKEY *small = dkim_fixture_rsa(1024), *almost = dkim_fixture_rsa(2047);
    EVP_PKEY *curve = EVP_EC_gen("P-256");
    char path[DKIM_FIXTURE_PATH_SIZE], why[DKIM_KEY_WHY_SIZE];
    struct dkim_key *key;
    const struct {
        const char *name, *path, *why;
    } rows[] = {
        {"missing", "/nowhere/key", "/nowhere/key: No such file or directory"},
        {"a folder", "/proc/self/fd", "is no regular file"},
        {"1024 bits", dkim_fixture_key_file(small, (char[DKIM_FIXTURE_PATH_SIZE]){0}),
         "is an RSA key of 1024 bits: expected 2048 to 4096"},
        {"2047 bits", dkim_fixture_key_file(almost, (char[DKIM_FIXTURE_PATH_SIZE]){0}),
         "is an RSA key of 2047 bits"},
        {"another kind", dkim_fixture_key_file(curve, (char[DKIM_FIXTURE_PATH_SIZE]){0}),
         "is neither an RSA nor an Ed25519 key"},
        {"empty", dkim_fixture_file("", 0, 0600, (char[DKIM_FIXTURE_PATH_SIZE]){0}),
         "holds no private key in PEM"},
        {"damaged",
         dkim_fixture_file(junk, sizeof(junk) - 1, 0600, (char[DKIM_FIXTURE_PATH_SIZE]){0}),
         "holds no private key in PEM"},
        {"read by others",
         dkim_fixture_file(junk, sizeof(junk) - 1, 0644, (char[DKIM_FIXTURE_PATH_SIZE]){0}),
         "has mode 0644: expected no right for others"},
        {"written by its group",
         dkim_fixture_file(junk, sizeof(junk) - 1, 0660, (char[DKIM_FIXTURE_PATH_SIZE]){0}),
         "has mode 0660: expected no right for others"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_int_equal(ERR_CONFIG_VALUE, dkim_key_load(rows[i].path, &key, why));
        if (strstr(why, rows[i].why) == NULL)
            print_message("# %s: %s\n", rows[i].name, why);
        assert_non_null(strstr(why, rows[i].why));
    }
    assert_int_equal(ERR_OK, dkim_key_load(dkim_fixture_key_file(pkeys[0], path), &key, why));
    assert_string_equal("ed25519-sha256", dkim_key_algorithm(key));
    assert_int_equal(1, dkim_key_cost(key));
    dkim_key_free(key);
    assert_string_equal("rsa-sha256", dkim_key_algorithm(keys[DKIM_FIXTURE_RSA]));
    assert_int_equal(8, dkim_key_cost(keys[DKIM_FIXTURE_RSA]));
    dkim_fixture_key_free(small);
    dkim_fixture_key_free(almost);
    dkim_fixture_key_free(curve);
}

/* Goal: a key with a passphrase is refused, and nobody is asked for it. */
static void key_with_a_passphrase_is_refused(void **state)
{
    char path[DKIM_FIXTURE_PATH_SIZE], why[DKIM_KEY_WHY_SIZE], *text;
    BIO *bio = BIO_new(BIO_s_mem());
    struct dkim_key *key;

    (void)state;
    assert_int_equal(1, PEM_write_bio_PrivateKey(bio, pkeys[0], EVP_aes_128_cbc(),
                                                 (const unsigned char *)"x", 1, NULL, NULL));
    long size = BIO_get_mem_data(bio, &text);
    dkim_fixture_file(text, (uint32_t)size, 0600, path);
    BIO_free(bio);
    assert_int_equal(ERR_CONFIG_VALUE, dkim_key_load(path, &key, why));
    assert_non_null(strstr(why, "without a passphrase"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signatures_of_the_rfcs_verify),
        cmocka_unit_test(signer_makes_the_body_hash_of_the_rfcs),
        cmocka_unit_test(what_is_signed_verifies),
        cmocka_unit_test(field_is_written_as_specified),
        cmocka_unit_test(fields_are_chosen),
        cmocka_unit_test(added_field_breaks_what_is_oversigned),
        cmocka_unit_test(several_rules_sign),
        cmocka_unit_test(rules_are_chosen),
        cmocka_unit_test(rules_are_narrowed),
        cmocka_unit_test(malformed_headers_are_not_signed),
        cmocka_unit_test(header_is_bounded),
        cmocka_unit_test(prefix_is_bounded),
        cmocka_unit_test(split_plays_no_part),
        cmocka_unit_test(key_files_are_judged),
        cmocka_unit_test(key_with_a_passphrase_is_refused),
    };
    return cmocka_run_group_tests(tests, make_keys, free_keys);
}
