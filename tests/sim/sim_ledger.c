/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: what was promised to whom, and what became of it.
 *
 * Every transaction of a sender is a message of its own with a number, written in its header and in
 * its recipients' addresses ("r17-2@d3.example" is recipient 2 of message 17). The content follows
 * from the number and the seed, so a receiver's copy can be compared without keeping it.
 *
 * Violations
 *   lost         250 to the end of data, and a recipient that was neither delivered nor bounced
 *   resurrected  delivered after 5xx, or a recipient whose RCPT was refused
 *   unfinished   delivered although the end of data was never sent
 *   damaged      what arrived does not end with exactly what was sent, or begins with anything but
 *                Received fields
 *   void         delivered after a 451 of ours to the end of data that came within the commit
 *                deadline: such a message is void; where mail is passed on before it is stored,
 *                an attempt that was under way then may still have ended well
 *   bounced      a bounce, although the client was told 5xx
 *   revived      tried again although an operator's bounce of it was durable
 *   duplicate    delivered again although the relay had read the 250, and no crash came before the
 *                record of it had to be durable
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

#define SIZE_SMALL_MAX  4000u
#define SIZE_LARGE_MAX  600000u
#define SIZE_STREAM_MAX 200000u
#define LAZY_MARGIN     TICK_S(2)
/* What is under way is asked to end within two looks of a second each; a MAIL may be on the wire.
 */
#define END_GRACE        TICK_S(4)
#define ATTEMPT_REST     TICK_S(420) /* the slowest receiver, and what is on its way */
#define LETTERS_OF_DRAW  12u         /* 39^12 < 2^64 */
#define LEDGER_FIELD     "X-Ledger: "
#define VIOLATION_PRINTS 20u

/* ---- text ---- */

void sim_text_add(struct sim_text *text, const void *octets, uint32_t size)
{
    if (text->dropped > 0 && text->dropped + text->size + size + 1 > text->capacity) {
        text->data = memmove(text->data - text->dropped, text->data, text->size + 1);
        text->dropped = 0;
    }
    if (text->dropped + text->size + size + 1 > text->capacity) {
        text->capacity = (text->size + size + 1) * 2;
        text->data = realloc(text->data, text->capacity);
        CHECK(text->data != NULL);
    }
    if (size > 0)
        memcpy(text->data + text->size, octets, size);
    text->size += size;
    text->data[text->size] = '\0';
}

void sim_text_format(struct sim_text *text, const char *format, ...)
{
    char line[1024];
    va_list list;

    va_start(list, format);
    int size = vsnprintf(line, sizeof(line), format, list);
    va_end(list);
    CHECK(size >= 0 && (size_t)size < sizeof(line));
    sim_text_add(text, line, (uint32_t)size);
}

void sim_text_drop(struct sim_text *text, uint32_t size)
{
    CHECK(size <= text->size);
    if (size == 0)
        return;
    text->data += size;
    text->dropped += size;
    text->size -= size;
}

void sim_text_fini(struct sim_text *text)
{
    if (text->data != NULL)
        free(text->data - text->dropped);
    *text = (struct sim_text){0};
}

static void print_time(const struct ledger *ledger)
{
    tick_us now = net_sim_now(ledger->net);
    printf("# %6llu.%06llu ", (unsigned long long)(now / 1000000),
           (unsigned long long)(now % 1000000));
}

void ledger_violation(struct ledger *ledger, const char *format, ...)
{
    va_list list;

    ledger->violations++;
    if (ledger->violations > VIOLATION_PRINTS)
        return;
    print_time(ledger);
    printf("VIOLATION ");
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n");
}

void ledger_trace(struct ledger *ledger, const char *format, ...)
{
    va_list list;

    if (!ledger->is_traced)
        return;
    print_time(ledger);
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n");
}

/* ---- messages ---- */

struct ledger_message *ledger_message_new(struct ledger *ledger, struct rng *rng,
                                          uint32_t domain_count)
{
    if (ledger->count == ledger->capacity) {
        ledger->capacity = ledger->capacity == 0 ? 256 : ledger->capacity * 2;
        ledger->messages = realloc(ledger->messages, ledger->capacity * sizeof(*ledger->messages));
        CHECK(ledger->messages != NULL);
    }
    struct ledger_message *message = &ledger->messages[ledger->count];
    *message = (struct ledger_message){.number = ledger->count++};
    /* Most are small; a few are larger than a BODY record, a few than what is kept in memory. */
    uint32_t size_max = rng_below(rng, 20) == 0 ? SIZE_LARGE_MAX : SIZE_SMALL_MAX;
    message->size = 1 + rng_below(rng, size_max);
    message->is_poisoned = rng_below(rng, 25) == 0;
    message->recipient_count = 1 + rng_below(rng, SIM_RECIPIENT_MAX);
    for (uint32_t i = 0; i < message->recipient_count; i++)
        message->recipients[i] = (struct ledger_recipient){.domain = rng_below(rng, domain_count),
                                                           .wants_all = rng_below(rng, 3) == 0};
    if (ledger->is_streaming && message->number % 2 == 0) {
        message->size = 20000 + rng_below(rng, SIZE_STREAM_MAX);
        message->is_poisoned = rng_below(rng, 8) == 0;
        message->recipients[0].wants_all = false;
    }
    for (uint32_t i = 0;
         ledger->is_cut_through && message->number % 2 == 0 && i < message->recipient_count; i++) {
        message->recipients[i].domain = message->recipients[0].domain;
        message->recipients[i].wants_all = message->recipients[0].wants_all;
    }
    return message;
}

void ledger_content(const struct ledger *ledger, const struct ledger_message *message,
                    struct sim_text *ret_content)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz .,0123456789";
    struct rng rng;
    uint64_t draw = 0; /* worth some letters more */
    char line[80];

    rng_init_seed(&rng, ledger->seed * 1000003u + message->number);
    ret_content->size = 0;
    sim_text_format(ret_content,
                    "From: <s%u@sender.example>\r\n" LEDGER_FIELD "%u\r\n"
                    "Subject: message %u\r\n\r\n",
                    message->number, message->number, message->number);
    uint32_t end = ret_content->size + message->size;
    while (ret_content->size < end) {
        uint32_t size = rng_below(&rng, sizeof(line) - 2);
        for (uint32_t i = 0; i < size; i++, draw /= sizeof(letters) - 1) {
            if (i % LETTERS_OF_DRAW == 0)
                draw = rng_u64(&rng);
            line[i] = letters[draw % (sizeof(letters) - 1)];
        }
        if (size > 0 && rng_below(&rng, 8) == 0)
            line[0] = '.';
        line[size] = '\r';
        line[size + 1] = '\n';
        sim_text_add(ret_content, line, size + 2);
    }
    if (message->is_poisoned)
        sim_text_format(ret_content, "one line\nanother\r\n");
}

void ledger_address(const struct ledger_message *message, uint32_t recipient, char ret_text[64])
{
    snprintf(ret_text, 64, "r%u-%u@d%u.example", message->number, recipient,
             message->recipients[recipient].domain);
}

static struct ledger_recipient *address_find(struct ledger *ledger, const char *address,
                                             struct ledger_message **ret_message)
{
    unsigned number, recipient, domain;

    if (sscanf(address, "r%u-%u@d%u.example", &number, &recipient, &domain) != 3 ||
        number >= ledger->count || recipient >= ledger->messages[number].recipient_count ||
        ledger->messages[number].recipients[recipient].domain != domain)
        return NULL;
    *ret_message = &ledger->messages[number];
    return &ledger->messages[number].recipients[recipient];
}

/* ---- deliveries ---- */

static bool is_received_field(const char *line, uint32_t size)
{
    static const char name[] = "received:";

    if (size > 0 && (line[0] == ' ' || line[0] == '\t'))
        return true;
    return size >= sizeof(name) - 1 && strncasecmp(line, name, sizeof(name) - 1) == 0;
}

/* Whole: Received fields of ours, then what was sent, to the last octet. */
static bool content_is_whole(const struct ledger *ledger, const struct ledger_message *message,
                             const struct sim_text *content)
{
    struct sim_text sent = {0};
    bool is_whole;

    ledger_content(ledger, message, &sent);
    is_whole = content->size > sent.size &&
               memcmp(content->data + content->size - sent.size, sent.data, sent.size) == 0;
    uint32_t added = is_whole ? content->size - sent.size : 0;
    for (uint32_t at = 0; is_whole && at < added;) {
        const char *line = content->data + at, *end = memchr(line, '\n', added - at);
        is_whole = end != NULL && is_received_field(line, (uint32_t)(end - line));
        at = end == NULL ? added : (uint32_t)(end - content->data) + 1;
    }
    sim_text_fini(&sent);
    return is_whole;
}

/* A receiver may take its time between the message and its 250: the relay's time to write the end
 * of it down runs from when it surely had read that. */
static bool duplicate_is_explained(const struct ledger *ledger,
                                   const struct ledger_recipient *recipient)
{
    if (!recipient->is_confirmed)
        return true;
    for (uint32_t i = 0; i < ledger->crash_count; i++) {
        if (ledger->crashes[i] >= recipient->delivered_at &&
            (ledger->has_disk_faults ||
             ledger->crashes[i] <= recipient->confirmed_at + ledger->lazy_time + LAZY_MARGIN))
            return true;
    }
    return false;
}

static void recipient_delivered(struct ledger *ledger, const struct ledger_message *message,
                                struct ledger_recipient *recipient, const char *address)
{
    tick_us now = net_sim_now(ledger->net);

    if (message->fate == LEDGER_UNFINISHED)
        ledger_violation(ledger, "unfinished: %s was delivered", address);
    if (message->fate == LEDGER_REFUSED)
        ledger_violation(ledger, "resurrected: %s was delivered after %u", address, message->code);
    if (message->fate == LEDGER_ACCEPTED && !recipient->is_accepted)
        ledger_violation(ledger, "resurrected: %s was refused at RCPT", address);
    if (message->fate == LEDGER_DEFERRED && message->code == 451 &&
        message->answered < message->finished + ledger->commit_deadline &&
        (!ledger->is_cut_through || now > message->answered + ATTEMPT_REST))
        ledger_violation(ledger, "void: %s was delivered after 451", address);
    if (recipient->delivered > 0) {
        ledger->duplicates++;
        if (!duplicate_is_explained(ledger, recipient))
            ledger_violation(ledger, "duplicate: %s was delivered before, at %llu us", address,
                             (unsigned long long)recipient->delivered_at);
    }
    recipient->delivered++;
    recipient->delivered_at = now;
    recipient->is_confirmed = false;
    ledger->delivered++;
}

static void notice_received(struct ledger *ledger, struct ledger_recipient *recipient,
                            const char *address, const char *action)
{
    ledger_trace(ledger, "%s: %s", address, action);
    if (strcmp(action, "failed") == 0) {
        recipient->is_bounced = true;
        ledger->bounced++;
        return;
    }
    if (!recipient->wants_all)
        ledger_violation(ledger, "unasked: %s is said to be %s", address, action);
    if (strcmp(action, "relayed") != 0)
        return;
    if (recipient->delivered == 0)
        ledger_violation(ledger, "untrue: %s is said to be relayed", address);
    recipient->is_told = true;
}

/* Every "Final-Recipient: rfc822; ADDRESS" of a bounce, and the "Action:" behind it. */
static void bounce_received(struct ledger *ledger, const struct sim_text *content)
{
    static const char field[] = "Final-Recipient: rfc822;";
    const char *at = content->data;

    while ((at = strcasestr(at, field)) != NULL) {
        char address[128], action[16];
        struct ledger_message *message;
        at += sizeof(field) - 1;
        if (sscanf(at, " %127[^\r\n ]\r\nAction: %15[a-z]", address, action) != 2) {
            ledger_violation(ledger, "a notice without an action");
            continue;
        }
        struct ledger_recipient *recipient = address_find(ledger, address, &message);
        if (recipient == NULL) {
            ledger_violation(ledger, "a bounce names %s", address);
            continue;
        }
        notice_received(ledger, recipient, address, action);
    }
}

void ledger_on_delivery(struct ledger *ledger, const char *sender, char (*recipients)[128],
                        const bool *has_notify, uint32_t recipient_count,
                        const struct sim_text *content)
{
    for (uint32_t i = 0; i < recipient_count; i++) {
        struct ledger_message *message;
        struct ledger_recipient *recipient = address_find(ledger, recipients[i], &message);

        ledger_trace(ledger, "delivered to %s from <%s>, %u octets", recipients[i], sender,
                     content->size);
        if (recipient == NULL && *sender == '\0') {
            bounce_received(ledger, content);
            continue;
        }
        if (recipient == NULL) {
            ledger_violation(ledger, "nobody sent to %s", recipients[i]);
            continue;
        }
        if (!content_is_whole(ledger, message, content))
            ledger_violation(ledger, "damaged: %s got %u octets that were not sent", recipients[i],
                             content->size);
        recipient_delivered(ledger, message, recipient, recipients[i]);
        recipient->passed_on += has_notify[i];
        if (has_notify[i] && !recipient->wants_all)
            ledger_violation(ledger, "invented: NOTIFY for %s", recipients[i]);
    }
}

void ledger_on_ended(struct ledger *ledger, uint32_t domain, tick_us begun)
{
    for (uint32_t i = 0; i < ledger->count; i++) {
        struct ledger_message *message = &ledger->messages[i];
        bool was_there = message->fate == LEDGER_ACCEPTED && message->answered < begun;
        for (uint32_t j = 0; j < message->recipient_count && was_there; j++) {
            if (message->recipients[j].domain == domain && message->recipients[j].ended_at == 0)
                message->recipients[j].ended_at = net_sim_now(ledger->net);
        }
    }
}

void ledger_on_rcpt(struct ledger *ledger, const char *address, tick_us mail_at)
{
    struct ledger_message *message;
    struct ledger_recipient *recipient = address_find(ledger, address, &message);

    if (recipient != NULL && recipient->ended_at > 0 && mail_at > recipient->ended_at + END_GRACE)
        ledger_violation(ledger, "revived: %s was returned by an operator at %llu us", address,
                         (unsigned long long)recipient->ended_at);
}

void ledger_on_confirmed(struct ledger *ledger, const char *address)
{
    struct ledger_message *message;
    struct ledger_recipient *recipient = address_find(ledger, address, &message);

    if (recipient == NULL || recipient->is_confirmed)
        return;
    recipient->confirmed_at = net_sim_now(ledger->net);
    recipient->is_confirmed = true;
}

/* What was delivered before its sender knew the fate: judged now that it is known. */
static void recipient_settle(struct ledger *ledger, const struct ledger_message *message,
                             uint32_t index)
{
    const struct ledger_recipient *recipient = &message->recipients[index];
    char address[64];

    ledger_address(message, index, address);
    if (message->fate == LEDGER_ACCEPTED && recipient->is_accepted && recipient->delivered == 0 &&
        !recipient->is_bounced)
        ledger_violation(ledger, "lost: %s, accepted at %llu us", address,
                         (unsigned long long)message->answered);
    if (message->fate == LEDGER_ACCEPTED && recipient->wants_all && recipient->delivered > 0 &&
        recipient->passed_on == 0 && !recipient->is_told && !recipient->is_bounced)
        ledger_violation(ledger, "untold: %s was relayed, its sender does not know", address);
    if (message->fate == LEDGER_ACCEPTED && !recipient->is_accepted && recipient->delivered > 0)
        ledger_violation(ledger, "resurrected: %s was refused at RCPT", address);
    if (message->fate == LEDGER_REFUSED && recipient->is_bounced)
        ledger_violation(ledger, "bounced: %s, its sender heard %u", address, message->code);
    if (message->fate == LEDGER_REFUSED && recipient->delivered > 0)
        ledger_violation(ledger, "resurrected: %s was delivered, its sender heard %u", address,
                         message->code);
}

void ledger_settle(struct ledger *ledger)
{
    for (uint32_t i = 0; i < ledger->count; i++) {
        for (uint32_t j = 0; j < ledger->messages[i].recipient_count; j++)
            recipient_settle(ledger, &ledger->messages[i], j);
    }
}
