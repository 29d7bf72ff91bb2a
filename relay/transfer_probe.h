/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TRANSFER_PROBE_H
#define RELAY_TRANSFER_PROBE_H

#include "relay/transfer.h"

/*
 * Where mail for a domain would go now, without any mail: by the same route, the same answers of
 * DNS and the same rules for sites as a delivery. For operators.
 */
struct transfer_probe {
    struct span domain; /* normalized; the asker's */
    bool is_dns_only;   /* the domain's mail exchangers, whatever the routes say */
    bool is_host_only;  /* addresses of a host of that name */

    /* Found, once transfer_probe_run() says so. Borrowed from the settings until the turn's end. */
    const struct settings_route *route;
    struct mx_answer answer;   /* empty for a route that discards or refuses */
    bool is_dead[MX_HOST_MAX]; /* hosts that have not answered lately: tried last */
    struct settings_site_limits limits;

    bool is_asking; /* the transfer's: DNS has been asked and has not answered */
    bool was_asked; /* what is known was not all in the cache */
};

/**
 * Look. ERR_AGAIN: DNS is asked; call again in a later turn. The probe must not move or go away
 * until it has said something else. ERR_LIMIT: too many questions are out.
 */
enum err transfer_probe_run(struct transfer *transfer, struct transfer_probe *probe,
                            struct tick_now now) MUST_CHECK;

#endif
