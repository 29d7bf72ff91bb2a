/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_BOUNCE_CLASS_H
#define RELAY_BOUNCE_CLASS_H

#include "base/span.h"

/*
 * Why mail was not taken, in the words that operators of bulk mail sort by: PowerMTA's bounce
 * categories.
 */
#define BOUNCE_CLASSES                                                                             \
    X(BAD_CONFIGURATION, "bad-configuration")                                                      \
    X(BAD_CONNECTION, "bad-connection")                                                            \
    X(BAD_DOMAIN, "bad-domain")                                                                    \
    X(BAD_MAILBOX, "bad-mailbox")                                                                  \
    X(CONTENT, "content-related")                                                                  \
    X(INACTIVE_MAILBOX, "inactive-mailbox")                                                        \
    X(INVALID_SENDER, "invalid-sender")                                                            \
    X(EXPIRED, "message-expired")                                                                  \
    X(NO_ANSWER, "no-answer-from-host")                                                            \
    X(POLICY, "policy-related")                                                                    \
    X(PROTOCOL, "protocol-errors")                                                                 \
    X(QUOTA, "quota-issues")                                                                       \
    X(RELAYING, "relaying-issues")                                                                 \
    X(ROUTING, "routing-errors")                                                                   \
    X(SPAM, "spam-related")                                                                        \
    X(VIRUS, "virus-related")                                                                      \
    X(OTHER, "other") /* what fits none */

enum bounce_class {
#define X(name, text) BOUNCE_##name,
    BOUNCE_CLASSES
#undef X
        BOUNCE_CLASS_COUNT
};

/**
 * The class of a reply, or of what we say ourselves when there was none (code 0).
 *
 * Spec:   RFC 3463 and its registry for the enhanced code; RFC 5321 4.2.2 for the code alone.
 * Bounds: patterns are looked for in the first 256 octets of the text.
 */
enum bounce_class bounce_classify(uint16_t code, const uint8_t enhanced[3], struct span text);
const char *bounce_class_name(enum bounce_class class);

#endif
