/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge: one table says who is to blame for a refusal, for the queue and every other user of
 * the outbound client alike.
 *
 * A reply is judged by (stage, code, enhanced code, pattern in its text); the first row that
 * matches decides. What the scopes mean to the caller:
 *
 *   MESSAGE    this message (content, sender, size): all recipients of the transaction
 *   RECIPIENT  this recipient
 *   HOST       this server, now: the next MX host within the same attempt
 *   SOURCE     us: our address, our reputation, our credentials: defer, other hosts would say the
 *              same
 *   PROTOCOL   the dialogue itself: once more without the extension that broke it, else defer
 *
 * Invariants
 *   1. Only MESSAGE and RECIPIENT are ever permanent, and only with a 5xx code. Whatever is our own
 *      fault, or a broken dialogue's, or one server's, waits and is tried again until it expires.
 *   2. 421 is HOST at every stage: the server says that it is closing.
 *   3. "Too many recipients" is never permanent, whatever its code says (RFC 5321 4.5.3.1.10).
 *   4. Patterns are consulted only where the enhanced code is missing or is about policy (x.7.x): a
 *      5.1.1 stays the recipient's, whatever its text mentions.
 *
 * Not here: what becomes of a scope (client_request.c), positive replies (smtpc.c).
 */
#include "relay/judge.h"

#define IN(stage)    (1u << SMTP_STAGE_##stage)
#define BLAME(scope) SMTP_SCOPE_##scope
#define IN_ANY       ((1u << SMTP_STAGE_COUNT) - 1)
/* From MAIL on the reply is about mail, before it about the session. */
#define IN_SESSION  (IN(CONNECT) | IN(GREETING) | IN(EHLO))
#define IN_ENVELOPE (IN(MAIL) | IN(RCPT))
#define IN_CONTENT  (IN(DATA) | IN(BODY) | IN(END))
#define IN_MAIL     (IN_ENVELOPE | IN_CONTENT)

#define ANY       (-1) /* any subject or detail, also no enhanced code at all */
#define NONE      (-2) /* as subject: the reply has no enhanced code */
#define SECURITY  7    /* x.7.x: security or policy status, RFC 3463 section 3.8 */
#define SYSTEM    3    /* x.3.x: mail system status, section 3.4 */
#define NETWORK   4    /* x.4.x: network and routing status, section 3.5 */
#define TEXT_SIZE 256  /* octets of text in which patterns are looked for */

/* Lower case; the reply's text is compared in lower case. */
static const char *const about_source[] = {"spamhaus",
                                           "blocklist",
                                           "blacklist",
                                           "block list",
                                           "black list",
                                           "dnsbl",
                                           "reputation",
                                           "your ip",
                                           "ip address",
                                           "client host",
                                           "throttl",
                                           "rate limit",
                                           "rate-limit",
                                           "too fast",
                                           "reverse dns",
                                           "ptr record",
                                           "too many connections",
                                           NULL};
static const char *const about_too_many[] = {"too many recipients", "too many rcpt",
                                             "recipient limit", NULL};

static const char *const about_session[] = {"per session",          "per connection",
                                            "this session",         "this connection",
                                            "no more transactions", NULL};

enum judge_flags { TOO_MANY = 1, OF_SESSION = 2 };

static const struct judge_row {
    uint32_t stages;
    uint16_t code_min, code_max;
    int16_t subject, detail; /* of the enhanced code */
    const char *const *patterns;
    enum smtp_scope scope;
    uint32_t flags;
} judge_rows[] = {
    /* An answer of the wrong kind: 250 to DATA, 354 to MAIL, 220 where 250 belongs. */
    {IN_ANY, 200, 399, ANY, ANY, NULL, BLAME(PROTOCOL), 0},
    {IN_ANY, 421, 421, ANY, ANY, NULL, BLAME(HOST), 0},
    {IN_SESSION, 400, 599, ANY, ANY, NULL, BLAME(HOST), 0},
    {IN(STARTTLS), 400, 599, ANY, ANY, NULL, BLAME(PROTOCOL), 0},
    {IN(AUTH), 400, 499, ANY, ANY, NULL, BLAME(HOST), 0},
    {IN(AUTH), 500, 599, ANY, ANY, NULL, BLAME(SOURCE), 0},
    /* Too many recipients for one transaction: 452 by RFC 5321, 552 by RFC 821. */
    {IN(RCPT), 452, 452, NONE, ANY, NULL, BLAME(RECIPIENT), TOO_MANY},
    {IN(RCPT), 400, 599, 5, 3, NULL, BLAME(RECIPIENT), TOO_MANY},
    {IN(RCPT), 400, 599, ANY, ANY, about_too_many, BLAME(RECIPIENT), TOO_MANY},
    /* RFC 7504: this host takes no mail at all. */
    {IN_MAIL, 521, 521, ANY, ANY, NULL, BLAME(HOST), 0},
    /* TLS, authentication or a stronger mechanism is wanted of us (RFC 3207, RFC 4954). */
    {IN_MAIL, 530, 538, ANY, ANY, NULL, BLAME(SOURCE), 0},
    /* Commands or parameters not understood, or in an order the server did not expect. */
    {IN_MAIL, 500, 500, ANY, ANY, NULL, BLAME(PROTOCOL), 0},
    {IN_MAIL, 502, 504, ANY, ANY, NULL, BLAME(PROTOCOL), 0},
    {IN_ENVELOPE, 501, 501, 5, 4, NULL, BLAME(PROTOCOL), 0},
    {IN_ENVELOPE, 555, 555, ANY, ANY, NULL, BLAME(PROTOCOL), 0},
    {IN(DATA), 554, 554, 5, 1, NULL, BLAME(PROTOCOL), 0},
    /* So many messages over one connection: another one takes the next. x.5.3 is OpenSMTPD's. */
    {IN(MAIL), 400, 499, 5, 3, NULL, BLAME(HOST), OF_SESSION},
    {IN(MAIL) | IN(DATA) | IN(END), 400, 499, ANY, ANY, about_session, BLAME(HOST), OF_SESSION},
    /* Our address: no reverse name (RFC 7372), lists, rates. */
    {IN_MAIL, 400, 599, SECURITY, 25, NULL, BLAME(SOURCE), 0},
    {IN_MAIL, 400, 599, SECURITY, ANY, about_source, BLAME(SOURCE), 0},
    {IN_MAIL, 400, 599, NONE, ANY, about_source, BLAME(SOURCE), 0},
    {IN(MAIL), 400, 499, SECURITY, ANY, NULL, BLAME(SOURCE), 0},
    /* The server's own trouble: another one may be well. */
    {IN(MAIL) | IN(DATA) | IN(END), 400, 499, SYSTEM, ANY, NULL, BLAME(HOST), 0},
    {IN(MAIL) | IN(DATA), 400, 499, NETWORK, ANY, NULL, BLAME(HOST), 0},
    {IN(RCPT), 400, 599, ANY, ANY, NULL, BLAME(RECIPIENT), 0},
    {IN(MAIL) | IN_CONTENT, 400, 599, ANY, ANY, NULL, BLAME(MESSAGE), 0},
};

/* Of these, and of how greetings refuse: what speaks of the address itself. */
static const char *const about_address[] = {
    "spamhaus",      "blocklist",  "blacklist",  "block list", "black list",
    "blocked using", "dnsbl",      "reputation", "your ip",    "client host",
    "reverse dns",   "ptr record", NULL};
/* The same words where they ask for nothing but patience. */
static const char *const about_patience[] = {"greylist",   "graylist",   "throttl",
                                             "rate limit", "rate-limit", "too fast",
                                             "too many",   "try again",  NULL};

static bool text_has_any(const char *text, const char *const *patterns)
{
    for (uint32_t i = 0; patterns[i] != NULL; i++) {
        if (strstr(text, patterns[i]) != NULL)
            return true;
    }
    return false;
}

static void text_to_lower(struct span from, char ret_text[TEXT_SIZE])
{
    uint32_t size = from.size < TEXT_SIZE - 1 ? from.size : TEXT_SIZE - 1;

    for (uint32_t i = 0; i < size; i++) {
        char octet = (char)from.data[i];
        ret_text[i] = octet >= 'A' && octet <= 'Z' ? (char)(octet + 'a' - 'A') : octet;
    }
    ret_text[size] = '\0';
}

static bool enhanced_matches(const struct judge_row *row, const struct smtp_reply *reply)
{
    if (row->subject == NONE)
        return reply->enhanced[0] == 0;
    if (row->subject == ANY)
        return true;
    return reply->enhanced[0] != 0 && reply->enhanced[1] == row->subject &&
           (row->detail == ANY || reply->enhanced[2] == row->detail);
}

struct judge_verdict judge_reply(enum smtp_stage stage, const struct smtp_reply *reply)
{
    char text[TEXT_SIZE];
    const struct judge_row *row = NULL;

    CHECK(stage < SMTP_STAGE_COUNT);
    CHECK(reply->code >= 200 && reply->code <= 599);

    text_to_lower(span_of(reply->text, reply->text_size), text);
    for (uint32_t i = 0; i < COUNT_OF(judge_rows) && row == NULL; i++) {
        const struct judge_row *candidate = &judge_rows[i];
        if ((candidate->stages & 1u << stage) == 0 || reply->code < candidate->code_min ||
            reply->code > candidate->code_max || !enhanced_matches(candidate, reply))
            continue;
        if (candidate->patterns == NULL || text_has_any(text, candidate->patterns))
            row = candidate;
    }
    CHECK(row != NULL); /* the rows without pattern and enhanced code cover every stage and code */

    bool is_about_mail = row->scope == SMTP_SCOPE_MESSAGE || row->scope == SMTP_SCOPE_RECIPIENT;
    return (struct judge_verdict){
        .scope = row->scope,
        .is_permanent = is_about_mail && reply->code >= 500 && (row->flags & TOO_MANY) == 0,
        .is_of_session = (row->flags & OF_SESSION) != 0,
        .is_too_many = (row->flags & TOO_MANY) != 0,
    };
}

bool judge_is_about_address(enum smtp_stage stage, uint16_t code, const uint8_t enhanced[3],
                            struct span text)
{
    bool is_bare = enhanced[0] == 0, is_policy = enhanced[1] == SECURITY;
    char lower[TEXT_SIZE];

    if (code < 400 || code > 599 || code == 421 ||
        (1u << stage & (IN(CONNECT) | IN(GREETING) | IN(EHLO) | IN_MAIL)) == 0)
        return false;
    if (!is_bare && is_policy && enhanced[2] == 25) /* RFC 7372: no reverse name */
        return true;
    text_to_lower(text, lower);
    return (is_bare || is_policy) && text_has_any(lower, about_address) &&
           !text_has_any(lower, about_patience);
}
