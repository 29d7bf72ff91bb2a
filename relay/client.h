/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_CLIENT_H
#define RELAY_CLIENT_H

#include "base/buf.h"
#include "dataplane/flow.h"
#include "dns/dns.h"
#include "queue/envelope.h"
#include "relay/client_feed.h"
#include "relay/copies.h"
#include "relay/settings.h"
#include "relay/stamps.h"
#include "relay/trace.h"

/*
 * Outbound SMTP of one shard: connections, their reuse, and transactions on each, one after the
 * other or, where a server offers PIPELINING, some of them ahead of what the ones before lead to.
 * The protocol engine is smtpc.c (no I/O); client.c drives it over stream.h, walks the MX hosts of
 * a request, keeps idle connections, enforces deadlines.
 *
 * A request (struct client_request) carries one message for the recipients of one domain and ends
 * in exactly one on_result(). A connection occupies one site slot from client_start() until
 * on_closed(). Kept connections are found by key: (site, host, source, TLS level, verified
 * identity, AUTH) - the key is made of what the request says, by client.c.
 */
#define CLIENT_FLOW_USER_TAG  0x434c540000000000ull
#define CLIENT_FLOW_USER_MASK 0xffffff0000000000ull

/* Who is to blame for a reply, from the table in judge.c: (stage, code, enhanced code, pattern). */
enum smtp_scope {
    SMTP_SCOPE_MESSAGE,
    SMTP_SCOPE_RECIPIENT,
    SMTP_SCOPE_HOST,
    SMTP_SCOPE_SOURCE,
    SMTP_SCOPE_PROTOCOL
};
enum smtp_stage {
    SMTP_STAGE_CONNECT,
    SMTP_STAGE_GREETING,
    SMTP_STAGE_EHLO,
    SMTP_STAGE_STARTTLS,
    SMTP_STAGE_AUTH,
    SMTP_STAGE_MAIL,
    SMTP_STAGE_RCPT,
    SMTP_STAGE_DATA,
    SMTP_STAGE_BODY,
    SMTP_STAGE_END,
    SMTP_STAGE_COUNT
};

struct client_recipient_result {
    enum recipient_state state; /* DUE (try again), DELIVERED, FAILED */
    bool retry_now;             /* left over from a batch (452/552 too many recipients) */
    bool is_told;               /* to on_refusal() */
    bool is_dsn_passed_on;      /* DELIVERED to a host that offered DSN: notices are its duty now */
    uint16_t code;
    uint8_t enhanced[3];
    enum smtp_scope scope;
    enum smtp_stage stage;
    struct span reply; /* printable ASCII, at most 1,000 octets; valid during on_result() */
};

struct client_result {
    uint64_t user;
    const struct client_recipient_result
        *recipients; /* one per recipient of the request, same order */
    uint32_t recipient_count;
    bool is_in_doubt; /* connection lost after the end of data was appended and before its reply */
    bool has_connected;    /* some host spoke SMTP to us: the site is alive */
    bool was_attempted;    /* false: no connection was tried (cancelled before) */
    bool has_followed;     /* it was begun before the one in front of it was answered */
    bool is_bdat_ahead;    /* its body went before any reply to it */
    bool is_source_broken; /* nothing can leave from the source's address: not this host's fault */
    /* Of the families, 1 << enum flow_family: a connection came about; none did, or another was
     * there first; nothing leaves from the source's address. */
    uint8_t families_connected, families_failed, families_broken;
    char host[MX_NAME_MAX]; /* last host tried */
    struct flow_address peer, source;
    uint64_t connection; /* id for records */
    uint32_t connection_use;
    tick_us connect_time, transmit_time;
    const char *tls_version; /* NULL: clear */
};

/* A reply that refuses, and the host that gave it. */
struct client_refusal {
    uint64_t user; /* of the request */
    enum smtp_stage stage;
    uint16_t code;
    uint8_t enhanced[3];
    struct span text; /* code and text; printable */
    const char *host;
    struct flow_address peer;
    bool is_about_address; /* ours: judge_is_about_address() */
};

struct client_request {
    uint64_t user;
    const struct settings_route *route;   /* TLS level, AUTH; borrowed from the snapshot */
    const struct settings_source *source; /* where to connect from; borrowed likewise */
    uint8_t families_avoided;             /* 1 << enum flow_family: not to be tried now */
    uint64_t site;                        /* key; opaque */
    const struct mx_answer *hosts;        /* copied; already ordered, dead hosts last */
    const struct envelope *envelope;      /* borrowed until on_result() */
    const uint32_t *recipients;           /* indexes, borrowed until on_result() */
    uint32_t recipient_count;             /* <= recipients_per_transaction_max */
    uint32_t messages_per_connection_max; /* 0: as the settings say */
    enum settings_bdat_ahead bdat_ahead;  /* its body ahead of replies; never UNSAID */
    /* Body as stored: whole in memory, by reference; kept until on_result(). */
    struct buf_queue *body;
    /* Or a body that is still coming: a reference of its own is held until on_result(). NULL: it is
     * in `body`. */
    struct client_feed *feed;
    tick_us deadline; /* absolute, for the whole attempt */
    uint64_t heard;   /* a stamp: when its last octet was received; 0: that is not timed */
    bool is_alone;    /* in-doubt mail: nothing pipelined ahead of it or behind it */
};

struct client;
struct client_options {
    struct flow_plane *plane;
    struct rng *rng;
    uint32_t connection_count_max;
    void *context;
    void (*on_result)(void *context, const struct client_result *result);
    /* A connection that occupied a slot of `site` is gone (FIN or RST seen, or given up). */
    void (*on_closed)(void *context, uint64_t site);
    /* A connection of `site` became idle and is kept: another delivery for the site may start at
     * once. */
    void (*on_idle)(void *context, uint64_t site);
    /* A connection of `site` takes one request more, behind the one whose end it has sent:
     * client_follow(). May come inside any call, before it has ended. NULL: nobody follows. */
    void (*on_room)(void *context, uint64_t site);
    /* Rights to say MAIL. Every request begins with one; may_mail() is asked before each MAIL, and
     * without `has_right`, when it is to be said once more, at another host, it gives one: false
     * ends the attempt. on_mail() tells that one is over: used, when the answer to MAIL is in, or
     * its connection is over and the peer knows it, or not. Both may be NULL: no limit. */
    bool (*may_mail)(void *context, uint64_t site, bool has_right);
    void (*on_mail)(void *context, uint64_t site, bool was_used);
    /* Another slot of this site, for a connection over the other address family beside one that
     * takes its time: true: it is the caller's until on_closed(). NULL: never. */
    bool (*may_race)(void *context, uint64_t site);
    /* A host has refused a request, or recipients of it; the same text is told once a host and
     * attempt. Before on_result(); NULL: nobody wants to know. */
    void (*on_refusal)(void *context, const struct client_refusal *refusal);
    /* Health of one host, for dead-host memory. */
    void (*on_host)(void *context, uint64_t site, const struct flow_address *address, bool is_ok);
    struct trace *trace;   /* NULL: nobody can look on */
    struct stamps *stamps; /* NULL: nothing is timed */
    /* A site's name, for a trace; NULL: it has none. */
    struct span (*site_label)(void *context, uint64_t site);
};

struct client *client_new(const struct client_options *options, const struct settings *settings);
void client_free(struct client *client);
void client_set_settings(struct client *client, const struct settings *settings);

/** True while a request or a kept connection still borrows from the snapshot with this serial; kept
 * ones of older snapshots are closed by client_set_settings(). */
bool client_uses_settings(const struct client *client, uint64_t serial);

/** Is a kept connection usable for this request? It is reserved by the client_start() that must
 * follow in the same turn. */
bool client_has_idle(struct client *client, const struct client_request *request);
/** Is there a connection for an attempt at this site? Half of all are kept for sites where somebody
 * answered within the last hour, so that those that never do leave room for the others. */
bool client_has_room(struct client *client, uint64_t site, tick_us now);
/**
 * Start. With client_has_idle() the kept connection is used and no slot is needed; otherwise the
 * caller has acquired one slot, which on_closed() returns. In both cases it has acquired a right to
 * say MAIL, which on_mail() ends. on_result() never comes inside this call. Errors: ERR_LIMIT:
 * nothing was started, slot and right are still the caller's.
 */
enum err client_start(struct client *client, const struct client_request *request,
                      tick_us now) MUST_CHECK;
/** May this request go behind another on a connection that is busy with that? */
bool client_may_follow(struct client *client, const struct client_request *request);
/**
 * Start behind another request, on its connection and its slot: client_may_follow() was said in the
 * same turn. The caller has a right to say MAIL, as for client_start(). If the connection ends
 * before it is this request's turn, it was not attempted, or is in doubt. Errors: ERR_LIMIT:
 * nothing was started, the right is still the caller's.
 */
enum err client_follow(struct client *client, const struct client_request *request,
                       tick_us now) MUST_CHECK;
/** Ask a request to end early; on_result() follows (DELIVERED wins if the reply is in). */
void client_cancel(struct client *client, uint64_t user, tick_us now);
/** Is the end of this request's data with the next hop, and its reply not in? */
bool client_is_in_doubt(const struct client *client, uint64_t user);
/** A waiting delivery of another site wants a slot: close idle connections of this site (all when
 * 0). */
void client_close_idle(struct client *client, uint64_t site, tick_us now);

/* What is sent to a site before its turn. */
#define CLIENT_LEARN_COUNT 8u /* messages by BDAT in their turn before the first goes ahead */
#define CLIENT_DEPTH_MAX   8u /* messages of which none is answered, on a connection */
struct client_ahead_view {
    bool has_next;                 /* the next message's commands go with the end of one */
    bool has_bdat;                 /* bodies go ahead of replies */
    enum settings_bdat_ahead bdat; /* as configured */
    uint32_t learned;              /* messages, of CLIENT_LEARN_COUNT */
    tick_us shy_until; /* neither before then, since that did no good there; 0: it is not so */
};
/** As this shard has it; `bdat` is what the configuration says of the site. */
struct client_ahead_view client_get_ahead(const struct client *client, uint64_t site,
                                          enum settings_bdat_ahead bdat);

/** Kept connections of a site that nothing uses now. */
uint32_t client_idle_count(const struct client *client, uint64_t site);

void client_on_flow(struct client *client, const struct flow_event *event, tick_us now);
void client_advance(struct client *client, tick_us now);
tick_us client_deadline(const struct client *client);

struct client_stats {
    struct relay_copied copied; /* `dots` and `signatures` */
    uint64_t connections, reused, transactions, accepted, deferred, refused, uncertain,
        desynchronised, tls_handshakes, tls_failures;
    uint64_t followed;   /* transactions that were begun before the one in front was answered */
    uint64_t bdat_ahead; /* transactions whose body went before any reply */
    uint64_t shied;      /* sites where that did no good, and is left for a time */
    uint64_t races, races_won; /* connections over the other family begun; and sooner there */
    uint32_t open, idle;
    uint32_t open_max,
        strangers; /* strangers: open ones at sites where nobody has answered lately */
};
struct client_stats client_get_stats(const struct client *client);

#endif
