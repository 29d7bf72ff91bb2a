/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which priority class a message belongs to.
 *
 *   1. Where there are no classes all mail is in class 0.
 *   2. A field in the header decides, if it names a class and the client is one that may send
 *      anywhere: strangers could otherwise overtake everybody's mail.
 *   3. Else the first rule that fits, in the order of the file.
 *   4. Else the default.
 *
 * A name of no class, in a header, is no mistake of the message's sender alone: it goes by the
 * rules, as if nothing had been said.
 */
#include "relay/class.h"

#include "queue/qmgr_filter.h"
#include "relay/settings.h"

uint32_t class_find(const struct class_settings *classes, struct span name)
{
    for (uint32_t i = 0; i < classes->order.count; i++) {
        if (span_is_equal_nocase(span_from_text(classes->order.names[i]), name))
            return i;
    }
    return QMGR_ROUND_CLASS_COUNT;
}

/* The null sender is of no domain. */
static bool sender_fits(const char *pattern, struct span sender)
{
    struct span domain = qmgr_sender_domain_of(sender);

    return domain.size > 0 && settings_name_matches(pattern, domain);
}

static bool is_list_mail(const struct header_reader *fields)
{
    static const struct span words[] = {
        {(const uint8_t *)"bulk", 4}, {(const uint8_t *)"list", 4}, {(const uint8_t *)"junk", 4}};
    struct span precedence = header_reader_value(fields, HEADER_PRECEDENCE);

    for (uint32_t i = 0; i < COUNT_OF(words); i++) {
        if (span_is_equal_nocase(precedence, words[i]))
            return true;
    }
    return header_reader_has(fields, HEADER_LIST_UNSUBSCRIBE);
}

static bool listener_fits(const struct class_rule *rule, const struct flow_address *listener)
{
    for (uint32_t i = 0; i < rule->listener_count; i++) {
        if (flow_address_is_equal(&rule->listeners[i], listener))
            return true;
    }
    return false;
}

static bool rule_fits(const struct class_rule *rule, const struct class_mail *mail)
{
    if (rule->listener_count > 0 && !listener_fits(rule, mail->listener))
        return false;
    if (rule->sender != NULL && !sender_fits(rule->sender, mail->envelope->sender))
        return false;
    if (rule->user != NULL && !settings_user_matches(rule->user, mail->envelope->user))
        return false;
    if (mail->envelope->recipient_count < rule->recipients_min)
        return false;
    return !rule->is_list_mail || is_list_mail(mail->fields);
}

uint8_t class_decide(const struct class_settings *classes, const struct class_mail *mail)
{
    if (classes->order.count == 0)
        return 0;
    uint32_t named = class_find(classes, header_reader_value(mail->fields, HEADER_CLASS));
    if (named < classes->order.count && mail->is_relay_client)
        return (uint8_t)named;
    for (uint32_t i = 0; i < classes->rule_count; i++) {
        if (rule_fits(&classes->rules[i], mail))
            return classes->rules[i].class;
    }
    return classes->unsaid;
}
