/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_JUDGE_H
#define RELAY_JUDGE_H

#include "relay/client.h"
#include "relay/smtp_reply.h"

struct judge_verdict {
    enum smtp_scope scope;
    bool is_permanent;  /* only with scope MESSAGE or RECIPIENT: the recipients have failed for good
                         */
    bool is_of_session; /* with scope HOST: it takes no more messages over this connection */
    bool is_too_many;   /* too many recipients for one transaction: the rest goes in the next */
};

/**
 * Who is to blame for a reply that is not the one hoped for, and whether that is for ever.
 *
 * Spec: RFC 5321 sections 4.2 and 4.5.3.1.10, RFC 3463, RFC 7504; the table in judge.c.
 * Cost: a dozen compares; patterns are looked for only where a row asks for them.
 */
struct judge_verdict judge_reply(enum smtp_stage stage, const struct smtp_reply *reply);

/**
 * Does a refusal speak of the address that we come from - a list it is on, its reputation, its
 * name - so that other sites may say the same? Not of how much we send, nor of mail.
 */
bool judge_is_about_address(enum smtp_stage stage, uint16_t code, const uint8_t enhanced[3],
                            struct span text);

#endif
