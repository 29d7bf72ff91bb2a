/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_POLICY_H
#define RELAY_POLICY_H

#include "relay/settings.h"
#include "relay/smtp_address.h"

/* Who may send where. Pure functions of the settings snapshot. */
enum policy_verdict {
    POLICY_OK,
    POLICY_RELAY_DENIED,      /* 550 5.7.1 */
    POLICY_ROUTE_REFUSED,     /* 550 5.7.1 with the route's text */
    POLICY_POSTMASTER_ABSENT, /* 550 5.1.1 */
};

struct policy_recipient {
    struct span address; /* what goes into the envelope */
    struct span domain;  /* routing key */
    const struct settings_route *route;
    struct smtp_address postmaster; /* storage when the recipient was mapped */
};

/**
 * Judge one recipient of a client.
 *
 * Bounds:    `address` is a forward path's parse result. is_relay_client:
 * settings_relay_is_allowed(). Ownership: spans of *ret_recipient borrow from `address`, from the
 * settings, or from itself.
 */
enum policy_verdict policy_recipient_check(const struct settings *settings, bool is_relay_client,
                                           const struct smtp_address *address,
                                           struct policy_recipient *ret_recipient);

#endif
