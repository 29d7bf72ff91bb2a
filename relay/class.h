/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_CLASS_H
#define RELAY_CLASS_H

#include "dataplane/flow.h"
#include "queue/qmgr.h"
#include "relay/header_reader.h"

/*
 * Priority classes: what is transactional and what is bulk. The class of a message is decided once,
 * at its end, and goes with its envelope; the queue hands out lower ones first (qmgr_fair.c).
 */
struct class_rule { /* all that it says must be so; what it does not say is not asked */
    const struct flow_address *listeners; /* one of these */
    uint32_t listener_count;
    const char *sender;      /* "example.org", "*.example.org", or NULL */
    const char *user;        /* as settings_user_matches() takes it, or NULL */
    uint32_t recipients_min; /* so many or more */
    bool is_list_mail;       /* List-Unsubscribe, or Precedence: bulk, list or junk */
    uint8_t class;
};

struct class_settings {        /* part of struct settings */
    struct qmgr_classes order; /* of none all mail is alike */
    uint8_t unsaid;            /* class of mail that nothing below is true of */
    const struct class_rule *rules;
    uint32_t rule_count;
};

struct class_mail {
    const struct envelope *envelope;
    const struct header_reader *fields;
    const struct flow_address *listener;
    bool is_relay_client;
};

/** The class that this mail belongs to: as its header says, if it comes from a client that may send
 * anywhere; else as the first rule that fits; else `unsaid`. */
uint8_t class_decide(const struct class_settings *classes, const struct class_mail *mail);
/** The number of the class with this name; QMGR_ROUND_CLASS_COUNT: none has. */
uint32_t class_find(const struct class_settings *classes, struct span name);

#endif
