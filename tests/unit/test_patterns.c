/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The patterns that come with the relay: each matches what its receiver says, and neither what
 * another one says nor what the same one says of a recipient or a message.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "control/config.h"
#include "relay/smtp_reply.h"

static const char *patterns_path; /* the argument */

static const struct {
    const char *name; /* of the pattern; NULL: none matches */
    const char *host;
    enum smtp_stage stage;
    const char *reply;
} rows[] = {
    {"gmail throttles a user's mail", "gmail-smtp-in.l.google.com", SMTP_STAGE_RCPT,
     "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents "
     "additional messages from being delivered."},
    {NULL, "gmail-smtp-in.l.google.com", SMTP_STAGE_RCPT,
     "450 4.2.1 The user you are trying to contact has an inactive account"},
    {"gmail throttles us", "alt1.aspmx.l.google.com", SMTP_STAGE_END,
     "421 4.7.28 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail "
     "originating from your IP address. To protect our users from spam, mail sent from your IP "
     "address has been temporarily rate limited."},
    {"gmail throttles us", "aspmx.l.google.com", SMTP_STAGE_END,
     "421 4.7.28 Gmail has detected an unusual rate of mail containing one of your URL domains."},
    {NULL, "aspmx.l.google.com", SMTP_STAGE_END, "421 4.3.0 Temporary System Problem."},
    {NULL, "mx.example.org", SMTP_STAGE_END, "421 4.7.28 unusual rate"},
    {"gmail blocks us", "aspmx.l.google.com", SMTP_STAGE_END,
     "550 5.7.1 [192.0.2.1] Our system has detected that this message is likely unsolicited mail."},
    {"gmail blocks us", "aspmx.l.google.com", SMTP_STAGE_END,
     "550 5.7.25 [192.0.2.1] The IP address sending this message does not have a PTR record setup"},
    {NULL, "aspmx.l.google.com", SMTP_STAGE_RCPT,
     "550 5.1.1 The email account that you tried to reach does not exist."},
    {NULL, "aspmx.l.google.com", SMTP_STAGE_END,
     "550 5.7.26 This mail has been blocked because the sender is unauthenticated."},

    {"microsoft has too many connections", "x.mail.protection.outlook.com", SMTP_STAGE_GREETING,
     "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit"},
    {"microsoft throttles us", "hotmail-com.olc.protection.outlook.com", SMTP_STAGE_MAIL,
     "451 4.7.651 The mail server [192.0.2.1] has been temporarily rate limited due to IP "
     "reputation. (S3114)"},
    {"microsoft throttles us", "x.mail.protection.outlook.com", SMTP_STAGE_MAIL,
     "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS77712344)"},
    {"microsoft throttles us", "mx1.hotmail.com", SMTP_STAGE_GREETING,
     "421 RP-001 (BAY) Unfortunately, some messages from 192.0.2.1 weren't sent"},
    {NULL, "x.mail.protection.outlook.com", SMTP_STAGE_RCPT,
     "451 4.7.0 Temporary server error. Please try again later."},
    {"microsoft blocks us", "eur.olc.protection.outlook.com", SMTP_STAGE_MAIL,
     "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your "
     "Internet service provider since part of their network is on our block list (S3150)."},
    {"microsoft blocks us", "x.mail.protection.outlook.com", SMTP_STAGE_RCPT,
     "550 5.7.606 Access denied, banned sending IP [192.0.2.1]."},
    {NULL, "x.mail.protection.outlook.com", SMTP_STAGE_RCPT,
     "550 5.4.1 Recipient address rejected: Access denied."},

    {"yahoo has too many connections", "mta5.am0.yahoodns.net", SMTP_STAGE_GREETING,
     "421 4.7.0 too many concurrent connections from 192.0.2.1"},
    {"yahoo defers us", "mta5.am0.yahoodns.net", SMTP_STAGE_MAIL,
     "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or "
     "user complaints - 4.16.55.1"},
    {"yahoo defers us", "mx-aol.mail.gm0.yahoodns.net", SMTP_STAGE_MAIL,
     "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred"},
    {NULL, "mta5.am0.yahoodns.net", SMTP_STAGE_END, "451 Resources temporarily not available"},
    {"yahoo blocks us", "mta5.am0.yahoodns.net", SMTP_STAGE_GREETING,
     "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1"},
    {NULL, "mta5.am0.yahoodns.net", SMTP_STAGE_RCPT,
     "552 1 Requested mail action aborted, mailbox not found"},

    {"icloud throttles us", "mx01.mail.icloud.com", SMTP_STAGE_RCPT,
     "421 4.7.1 Messages to b@icloud.com deferred due to excessive volume. Try again later"},
    {NULL, "mx01.mail.icloud.com", SMTP_STAGE_RCPT, "450 4.2.2 user is overquota"},
    {"icloud blocks us", "mx01.mail.icloud.com", SMTP_STAGE_END,
     "550 5.7.1 [CS01] Message rejected due to local policy."},
    {NULL, "mx01.mail.icloud.com", SMTP_STAGE_END,
     "550 5.7.1 Your message was rejected due to example.com DMARC policy."},

    {"gmx throttles us", "mx00.gmx.net", SMTP_STAGE_MAIL,
     "421 Rate limit reached. Please try again later"},
    {"gmx throttles us", "mx-ha02.web.de", SMTP_STAGE_MAIL, "450 Reject due to policy violations."},
    {NULL, "mx00.gmx.net", SMTP_STAGE_END,
     "451 Requested action aborted: local error in processing"},
    {"gmx blocks us", "mx00.gmx.net", SMTP_STAGE_GREETING,
     "554 gmx.net (mxgmx007) Nemesis ESMTP Service not available No SMTP service IP address is "
     "black listed."},
    {"gmx blocks us", "mx00.kundenserver.de", SMTP_STAGE_GREETING,
     "554 No SMTP service Bad DNS PTR resource record."},
    {NULL, "mx00.gmx.net", SMTP_STAGE_RCPT, "550 Requested action not taken: mailbox unavailable"},

    {"comcast throttles us", "mx1.comcast.net", SMTP_STAGE_GREETING,
     "421 4.1.0 192.0.2.1 Throttled - try again later. #RL000010"},
    {NULL, "mx1.comcast.net", SMTP_STAGE_GREETING, "421 Reverse DNS failure : Try again later"},
    {"comcast blocks us", "mx1.comcast.net", SMTP_STAGE_GREETING,
     "554 5.7.1 resimta 192.0.2.1 found on one or more DNSBLs, see smtp-error-codes#BL000001"},
    {NULL, "mx1.comcast.net", SMTP_STAGE_RCPT, "550 5.1.1 Not our Customer"},

    {"orange has too many connections", "smtp-in.orange.fr", SMTP_STAGE_GREETING,
     "421 mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration. Too many "
     "connections, slow down. OFR004_104 [104]"},
    {"orange refuses us for now", "smtp-in.orange.fr", SMTP_STAGE_GREETING,
     "421 mwinf5c04 ME Service refuse. Veuillez essayer plus tard. OFR_999 [999]"},
    {NULL, "smtp-in.orange.fr", SMTP_STAGE_RCPT, "450 4.2.0 Greylisted"},
    {"orange blocks us", "smtp-in.orange.fr", SMTP_STAGE_END,
     "550 5.2.0 Mail rejete. Mail rejected. OFR_506 [506]"},
    {NULL, "smtp-in.orange.fr", SMTP_STAGE_RCPT,
     "550 5.1.1 Adresse d au moins un destinataire invalide. OFR_416 [416]"},

    {"t-online has too many connections", "mx00.t-online.de", SMTP_STAGE_GREETING,
     "421 too many connections"},
    {NULL, "mx00.t-online.de", SMTP_STAGE_GREETING, "421 service not available"},
    {"t-online blocks us", "mx03.t-online.de", SMTP_STAGE_GREETING,
     "554 IP=192.0.2.1 - A problem occurred. (Ask your postmaster for help)"},
    {"t-online blocks us", "mx03.t-online.de", SMTP_STAGE_GREETING,
     "554 IP=192.0.2.1 - None/bad reputation."},
    {NULL, "mx03.t-online.de", SMTP_STAGE_RCPT, "550 user unknown"},

    {"spamhaus lists us", "mx.example.org", SMTP_STAGE_RCPT,
     "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"},
    {NULL, "mx.example.org", SMTP_STAGE_END,
     "550 5.7.1 rejected due to having a domain present in the Spamhaus DBL"},
    {"too many connections", "mx.example.org", SMTP_STAGE_GREETING,
     "421 4.7.0 mx.example.org Error: too many connections from 192.0.2.1"},
    {NULL, "mx.example.org", SMTP_STAGE_RCPT, "421 4.7.0 too many errors"},
};

/* "421 4.7.0 ...": as the reply parser reads it. */
static void codes_take(const char *text, struct reaction_reply *reply)
{
    uint16_t parts[3];
    struct span rest = span_skip(span_from_text(text), 4);

    reply->code = (uint16_t)strtoul(text, NULL, 10);
    if (smtp_enhanced_parse(rest, parts) > 0) {
        for (uint32_t i = 0; i < 3; i++)
            reply->enhanced[i] = (uint8_t)(parts[i] > 255 ? 255 : parts[i]);
    }
    reply->text = span_from_text(text);
}

static struct config *patterns_load(void)
{
    static struct config_report report;
    struct config *config = NULL;

    config_report_init(&report, patterns_path);
    if (config_load(patterns_path, &config, &report) != ERR_OK)
        fail_msg("%s", report.text);
    return config;
}

static void samples_match_their_pattern(void **state)
{
    struct config *config = patterns_load();
    struct reaction_matcher *matcher = reaction_matcher_new();

    (void)state;
    reaction_matcher_use(matcher, config->settings.reactions);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct reaction_reply reply = {.domain = SPAN_LITERAL("example.org"),
                                       .host = span_from_text(rows[i].host),
                                       .stage = rows[i].stage};
        codes_take(rows[i].reply, &reply);
        const struct reaction_spec *found = reaction_find(matcher, &reply);
        if ((found == NULL) != (rows[i].name == NULL) ||
            (found != NULL && strcmp(found->name, rows[i].name) != 0))
            fail_msg("%s: %s", rows[i].reply, found == NULL ? "none" : found->name);
    }
    for (uint32_t i = 0; i < reaction_set_count(config->settings.reactions); i++) {
        if (reaction_matcher_stats(matcher, i).matches == 0)
            fail_msg("%s: no sample", reaction_set_get(config->settings.reactions, i)->name);
        assert_int_equal(0, reaction_matcher_stats(matcher, i).given_up);
    }
    reaction_matcher_free(matcher);
    config_free(config);
}

/* Of each receiver there is a sample that must not match. */
static void every_receiver_has_a_harmless_sample(void **state)
{
    static const char *const receivers[] = {"google.com", "outlook.com", "yahoodns.net",
                                            "icloud.com", "gmx.net",     "comcast.net",
                                            "orange.fr",  "t-online.de", "example.org"};

    (void)state;
    for (uint32_t r = 0; r < COUNT_OF(receivers); r++) {
        uint32_t harmless = 0;
        for (uint32_t i = 0; i < COUNT_OF(rows); i++)
            harmless += rows[i].name == NULL && strstr(rows[i].host, receivers[r]) != NULL;
        assert_true(harmless > 0);
    }
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_match_their_pattern),
        cmocka_unit_test(every_receiver_has_a_harmless_sample),
    };

    if (count != 2)
        return 2;
    patterns_path = arguments[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
