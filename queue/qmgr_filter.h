/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_QMGR_FILTER_H
#define QUEUE_QMGR_FILTER_H

#include "queue/envelope.h"

/*
 * Which of the mail that waits an operator means: `domain=example.org state=waiting older=2h`.
 * Terms stand with spaces between them and must all be true; no term is everything.
 *
 *   id=ID                  one message
 *   domain=NAME            the domain that its delivery goes to
 *   site=NAME              the site, as `queue summary` calls it
 *   source=NAME            the source pool; `source=default` for mail without one
 *   class=NAME, class=N    the priority class, by its name or number (0 to 255)
 *   state=NAME[,NAME...]   ready, waiting, active, held, failed
 *   order=N                held by that order
 *   older=TIME, younger=TIME   since its arrival: 90s, 5m, 2h, 1d12h, 4w
 *   sender=ADDRESS         <> is the null sender
 *   sender_domain=NAME     <> is the null sender
 *   recipient=ADDRESS
 *   user=NAME              who was logged in when it came
 *
 * Names and addresses are compared without regard to case. A space inside double quotes belongs to
 * the address.
 */
enum qmgr_filter_term {
    QMGR_FILTER_ID = 1u << 0,
    QMGR_FILTER_DOMAIN = 1u << 1,
    QMGR_FILTER_SITE = 1u << 2,
    QMGR_FILTER_SOURCE = 1u << 3,
    QMGR_FILTER_CLASS = 1u << 4,
    QMGR_FILTER_STATE = 1u << 5,
    QMGR_FILTER_OLDER = 1u << 6,
    QMGR_FILTER_YOUNGER = 1u << 7,
    QMGR_FILTER_SENDER = 1u << 8,
    QMGR_FILTER_SENDER_DOMAIN = 1u << 9,
    QMGR_FILTER_RECIPIENT = 1u << 10,
    QMGR_FILTER_ORDER = 1u << 11,
    QMGR_FILTER_USER = 1u << 12,
};

enum qmgr_filter_state {
    QMGR_FILTER_READY = 1u << 0,
    QMGR_FILTER_WAITING = 1u << 1,
    QMGR_FILTER_ACTIVE = 1u << 2,
    QMGR_FILTER_HELD = 1u << 3,   /* by an operator */
    QMGR_FILTER_FAILED = 1u << 4, /* its notification is not written yet */
};

struct qmgr_filter_text {
    uint16_t size;
    char octets[ENVELOPE_ADDRESS_SIZE_MAX];
};

struct qmgr_filter {
    uint32_t terms;  /* enum qmgr_filter_term */
    uint32_t states; /* enum qmgr_filter_state */
    uint16_t class;  /* unless it has a name */
    uint32_t order;
    struct message_id id;
    tick_us older, younger;
    struct qmgr_filter_text domain, site, source, sender, sender_domain, recipient, class_name,
        user;
};

#define QMGR_FILTER_WHY_SIZE 128u

/**
 * Parse the terms.
 *
 * Errors: ERR_CONFIG_VALUE, with text for people in `ret_why`; `*ret_filter` is then unchanged.
 */
enum err qmgr_filter_parse(struct span text, struct qmgr_filter *ret_filter,
                           char ret_why[QMGR_FILTER_WHY_SIZE]) MUST_CHECK;

/** A time as filters have it: "90s", "1d12h"; at most ten years. False: it is none. */
bool qmgr_filter_time_parse(struct span text, tick_us *ret_time);

static inline bool qmgr_filter_has(const struct qmgr_filter *filter, uint32_t terms)
{
    return (filter->terms & terms) != 0;
}
static inline struct span qmgr_filter_span(const struct qmgr_filter_text *text)
{
    return span_of(text->octets, text->size);
}

/** The domain of an address as the queue indexes senders by it: behind the last @; empty for the
 * null sender. */
struct span qmgr_sender_domain_of(struct span address);

#endif
