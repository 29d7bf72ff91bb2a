/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classes of refusals: three tables, the first row that matches decides.
 *
 *   1. enhanced codes that say exactly what is wrong: these are believed before any text, which may
 *      quote an address with "spam" in it
 *   2. patterns in the text, for codes that say little (x.0.0, x.7.1) and servers that send none
 *   3. the enhanced code's subject, then the code
 *
 * Not here: what is done about a refusal (judge.c). A class never changes the way of a message.
 */
#include "relay/bounce_class.h"

#define TEXT_SIZE 256u
#define ANY       (-1)

static const struct class_by_code {
    int16_t subject, detail; /* of the enhanced code */
    enum bounce_class class;
} exact_rows[] = {
    {1, 1, BOUNCE_BAD_MAILBOX},
    {1, 2, BOUNCE_BAD_DOMAIN},
    {1, 3, BOUNCE_BAD_MAILBOX},
    {1, 4, BOUNCE_BAD_MAILBOX},
    {1, 6, BOUNCE_INACTIVE_MAILBOX},
    {1, 7, BOUNCE_INVALID_SENDER},
    {1, 8, BOUNCE_INVALID_SENDER},
    {1, 10, BOUNCE_BAD_DOMAIN},
    {2, 1, BOUNCE_INACTIVE_MAILBOX},
    {2, 2, BOUNCE_QUOTA},
    {2, 3, BOUNCE_POLICY},
    {2, 4, BOUNCE_BAD_MAILBOX},
    {3, 1, BOUNCE_QUOTA},
    {3, 2, BOUNCE_BAD_CONNECTION},
    {3, 3, BOUNCE_BAD_CONFIGURATION},
    {3, 4, BOUNCE_POLICY},
    {3, 5, BOUNCE_BAD_CONFIGURATION},
    {4, 1, BOUNCE_NO_ANSWER},
    {4, 2, BOUNCE_BAD_CONNECTION},
    {4, 3, BOUNCE_ROUTING},
    {4, 4, BOUNCE_ROUTING},
    {4, 5, BOUNCE_BAD_CONNECTION},
    {4, 6, BOUNCE_ROUTING},
    {4, 7, BOUNCE_EXPIRED},
    {5, 3, BOUNCE_POLICY},
    {7, 7, BOUNCE_CONTENT},
    {7, 8, BOUNCE_BAD_CONFIGURATION},
};

static const struct class_by_code subject_rows[] = {
    {1, ANY, BOUNCE_BAD_MAILBOX}, {2, ANY, BOUNCE_BAD_MAILBOX}, {3, ANY, BOUNCE_BAD_CONFIGURATION},
    {4, ANY, BOUNCE_ROUTING},     {5, ANY, BOUNCE_PROTOCOL},    {6, ANY, BOUNCE_CONTENT},
    {7, ANY, BOUNCE_POLICY},
};

/* Lower case. What names the message's harm comes before what names a rule against it. */
static const struct class_by_text {
    const char *pattern;
    enum bounce_class class;
} text_rows[] = {
    {"virus", BOUNCE_VIRUS},
    {"malware", BOUNCE_VIRUS},
    {"infected", BOUNCE_VIRUS},
    {"spam", BOUNCE_SPAM},
    {"blocklist", BOUNCE_SPAM},
    {"blacklist", BOUNCE_SPAM},
    {"block list", BOUNCE_SPAM},
    {"black list", BOUNCE_SPAM},
    {"dnsbl", BOUNCE_SPAM},
    {"reputation", BOUNCE_SPAM},
    {"unsolicited", BOUNCE_SPAM},
    {"relaying", BOUNCE_RELAYING},
    {"relay access", BOUNCE_RELAYING},
    {"to relay", BOUNCE_RELAYING},
    {"quota", BOUNCE_QUOTA},
    {"mailbox full", BOUNCE_QUOTA},
    {"mailbox is full", BOUNCE_QUOTA},
    {"inbox is full", BOUNCE_QUOTA},
    {"insufficient", BOUNCE_QUOTA},
    {"inactive", BOUNCE_INACTIVE_MAILBOX},
    {"disabled", BOUNCE_INACTIVE_MAILBOX},
    {"deactivated", BOUNCE_INACTIVE_MAILBOX},
    {"suspended", BOUNCE_INACTIVE_MAILBOX},
    {"user unknown", BOUNCE_BAD_MAILBOX},
    {"unknown user", BOUNCE_BAD_MAILBOX},
    {"unknown recipient", BOUNCE_BAD_MAILBOX},
    {"no such user", BOUNCE_BAD_MAILBOX},
    {"no such recipient", BOUNCE_BAD_MAILBOX},
    {"no mailbox", BOUNCE_BAD_MAILBOX},
    {"mailbox not found", BOUNCE_BAD_MAILBOX},
    {"recipient not found", BOUNCE_BAD_MAILBOX},
    {"invalid recipient", BOUNCE_BAD_MAILBOX},
    {"no such domain", BOUNCE_BAD_DOMAIN},
    {"domain not found", BOUNCE_BAD_DOMAIN},
    {"does not exist", BOUNCE_BAD_MAILBOX},
    {"sender rejected", BOUNCE_INVALID_SENDER},
    {"sender address rejected", BOUNCE_INVALID_SENDER},
    {"invalid sender", BOUNCE_INVALID_SENDER},
    {"sender verify", BOUNCE_INVALID_SENDER},
    {"attachment", BOUNCE_CONTENT},
    {"content", BOUNCE_CONTENT},
    {"reverse dns", BOUNCE_BAD_CONFIGURATION},
    {"ptr record", BOUNCE_BAD_CONFIGURATION},
    {"greylist", BOUNCE_POLICY},
    {"graylist", BOUNCE_POLICY},
    {"too many", BOUNCE_POLICY},
    {"throttl", BOUNCE_POLICY},
    {"rate limit", BOUNCE_POLICY},
    {"dmarc", BOUNCE_POLICY},
    {"dkim", BOUNCE_POLICY},
    {"policy", BOUNCE_POLICY},
};

static const struct {
    uint16_t code_min, code_max;
    enum bounce_class class;
} code_rows[] = {
    {421, 421, BOUNCE_BAD_CONNECTION},
    {452, 452, BOUNCE_QUOTA},
    {500, 504, BOUNCE_PROTOCOL},
    {521, 521, BOUNCE_BAD_DOMAIN},
    {530, 538, BOUNCE_BAD_CONFIGURATION},
    {551, 551, BOUNCE_BAD_MAILBOX},
    {552, 552, BOUNCE_QUOTA},
    {553, 553, BOUNCE_BAD_MAILBOX},
    {555, 555, BOUNCE_PROTOCOL},
    {556, 556, BOUNCE_BAD_DOMAIN},
};

static const char *const names[BOUNCE_CLASS_COUNT] = {
#define X(name, text) [BOUNCE_##name] = text,
    BOUNCE_CLASSES
#undef X
};

const char *bounce_class_name(enum bounce_class class)
{
    CHECK(class < BOUNCE_CLASS_COUNT);
    return names[class];
}

static bool code_find(const struct class_by_code *rows, uint32_t count, const uint8_t enhanced[3],
                      enum bounce_class *ret_class)
{
    for (uint32_t i = 0; i < count && enhanced[0] != 0; i++) {
        if (rows[i].subject != enhanced[1] ||
            (rows[i].detail != ANY && rows[i].detail != enhanced[2]))
            continue;
        *ret_class = rows[i].class;
        return true;
    }
    return false;
}

/* Behind "mx.example[192.0.2.1]: ", which says where a reply came from: names may say anything. */
static struct span text_without_host(struct span text)
{
    uint32_t at = 0;

    while (at < text.size && text.data[at] != ' ' && text.data[at] != '[')
        at++;
    if (at == text.size || text.data[at] != '[')
        return text;
    const uint8_t *end = memmem(text.data + at, text.size - at, "]: ", 3);
    return end == NULL ? text : span_skip(text, (uint32_t)(end - text.data) + 3);
}

static bool text_find(struct span text, enum bounce_class *ret_class)
{
    char lower[TEXT_SIZE];

    text = text_without_host(text);
    uint32_t size = text.size < TEXT_SIZE - 1 ? text.size : TEXT_SIZE - 1;

    for (uint32_t i = 0; i < size; i++) {
        uint8_t octet = text.data[i];
        lower[i] = (char)(octet >= 'A' && octet <= 'Z' ? octet + 'a' - 'A' : octet);
    }
    lower[size] = '\0';
    for (uint32_t i = 0; i < COUNT_OF(text_rows); i++) {
        if (strstr(lower, text_rows[i].pattern) == NULL)
            continue;
        *ret_class = text_rows[i].class;
        return true;
    }
    return false;
}

enum bounce_class bounce_classify(uint16_t code, const uint8_t enhanced[3], struct span text)
{
    enum bounce_class class = BOUNCE_OTHER;

    if (code_find(exact_rows, COUNT_OF(exact_rows), enhanced, &class) || text_find(text, &class) ||
        code_find(subject_rows, COUNT_OF(subject_rows), enhanced, &class))
        return class;
    for (uint32_t i = 0; i < COUNT_OF(code_rows); i++) {
        if (code >= code_rows[i].code_min && code <= code_rows[i].code_max)
            return code_rows[i].class;
    }
    return BOUNCE_OTHER;
}
