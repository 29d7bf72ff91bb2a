/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SETTINGS_H
#define RELAY_SETTINGS_H

#include "dataplane/flow.h"
#include "dns/dns.h"
#include "queue/rate.h"
#include "relay/auth.h"
#include "relay/class.h"

/*
 * What the configuration means to the relay: one immutable snapshot. control/config makes it from
 * YAML (each field's row in control/option.def says type, bounds, default and help), shards get the
 * pointer by message, and the last shard to let go of it frees it.
 */
struct ssl_ctx_st;
struct reaction_set;
struct dkim_key;

enum settings_tls_level {
    SETTINGS_TLS_NONE,
    SETTINGS_TLS_MAY,
    SETTINGS_TLS_ENCRYPT,
    SETTINGS_TLS_VERIFY
};
enum settings_bare_lf { SETTINGS_BARE_LF_REJECT, SETTINGS_BARE_LF_NORMALIZE };
enum settings_delivery {
    SETTINGS_DELIVERY_AUTO,
    SETTINGS_DELIVERY_CUT_THROUGH, /* the client waits for its mail's turn */
    SETTINGS_DELIVERY_SPOOL,
    SETTINGS_DELIVERY_UNSAID = UINT32_MAX
};
enum settings_long_lines { SETTINGS_LONG_LINES_PASS, SETTINGS_LONG_LINES_REJECT };
enum settings_eight_bit { SETTINGS_EIGHT_BIT_SEND, SETTINGS_EIGHT_BIT_BOUNCE };
/* In the order of client.bdat_ahead. */
enum settings_bdat_ahead {
    SETTINGS_BDAT_AHEAD_NEVER,
    SETTINGS_BDAT_AHEAD_LEARNED,
    SETTINGS_BDAT_AHEAD_ALWAYS,
    SETTINGS_BDAT_AHEAD_UNSAID = UINT32_MAX
};
enum settings_pool_unknown { SETTINGS_POOL_UNKNOWN_DEFAULT, SETTINGS_POOL_UNKNOWN_REFUSE };
enum settings_route_kind {
    SETTINGS_ROUTE_MX,
    SETTINGS_ROUTE_HOSTS,
    SETTINGS_ROUTE_DISCARD,
    SETTINGS_ROUTE_REFUSE,
    SETTINGS_ROUTE_LMTP /* to mailbox servers: `hosts`, of which a path is a Unix socket */
};

enum settings_dkim_by { SETTINGS_DKIM_BY_FROM, SETTINGS_DKIM_BY_SENDER };
enum settings_malformed { SETTINGS_MALFORMED_PASS, SETTINGS_MALFORMED_REJECT };
enum dkim_canon { DKIM_SIMPLE, DKIM_RELAXED };

struct settings_limits { /* of one listener's sessions; RFC 5321 section 4.5.3 sets the minima */
    uint32_t command_line_size_max; /* with CRLF; 512 to 4,096; default 2,048 (room for SMTPUTF8) */
    uint32_t recipient_max;         /* >= 100; default 1,000 */
    uint64_t message_size_max;      /* >= 65,536; default 50 MB */
    uint32_t text_line_size_max;    /* for long_lines: reject; >= 1,000 with CRLF; default 1,000 */
    uint32_t received_max;          /* loop detection; default 100 */
    uint32_t error_max;             /* 5xx per session before 421; default 20 */
    uint32_t junk_max; /* NOOP, RSET, VRFY, HELP without progress before 421; default 100 */
    uint32_t messages_per_session_max; /* 0: no bound */
    uint32_t session_max;              /* concurrent sessions per shard */
    uint32_t transactions_ahead_max;   /* pipelined behind a pending end of data; default 2 */
    tick_us command_timeout;           /* waiting for a command; default 300 s */
    tick_us data_timeout;              /* waiting for body octets; default 180 s */
    tick_us session_timeout;           /* in all; default 1 h */
    tick_us transaction_timeout;       /* MAIL to end of data; default 30 min */
};

/* What a client network may do, see brake.h; 0: no bound. */
struct settings_brakes {
    uint32_t connection_max, connections_per_minute, messages_per_minute, recipients_per_minute;
    uint32_t refused_per_minute; /* recipients */
    uint32_t errors_per_minute;
    uint32_t ipv4_prefix, ipv6_prefix; /* bits that make a network; 32, 64 */
    bool brakes_relay_clients;
};

struct settings_listener {
    struct flow_address address;
    struct settings_limits limits;
    struct settings_brakes brakes;
    enum settings_bare_lf bare_lf;
    enum settings_long_lines long_lines;
    enum settings_delivery delivery; /* never UNSAID */
    enum auth_need auth;
    bool is_submission;            /* what is missing in a header is added */
    bool is_tls_implicit;          /* from the first octet on (RFC 8314 section 3.3) */
    bool offer_starttls;           /* a certificate is configured, and it is not implicit */
    struct ssl_ctx_st *tls_server; /* NULL without; owned by the snapshot */
};

struct settings_host {           /* of a route with a list of hosts */
    const char *name;            /* host name, address literal text, or path of a socket */
    struct flow_address address; /* family NONE: `name` is looked up; UNIX: it is a path */
    uint16_t port, weight;
};

struct settings_auth {
    const char *user, *password; /* read from the secret file */
};

struct settings_route {
    const char *pattern; /* "example.org", "*.example.org" (any depth below), or "*" */
    enum settings_route_kind kind;
    bool is_served; /* clients outside relay_from may send here */
    const struct settings_host *hosts;
    uint32_t host_count;
    enum settings_tls_level tls;
    const char *tls_name; /* verify: expected name; NULL: the host's */
    struct ssl_ctx_st
        *tls_client; /* for encrypt and verify with this route's CA; NULL for none and may */
    const struct settings_auth *auth; /* NULL: none */
    const char *refuse_text;          /* REFUSE: text behind 550 5.7.1 */
    uint32_t connection_max;          /* per site; 0: the default */
};

struct settings_site {     /* a rule of `sites`; 0, and no rate: as the rule for "*" */
    const char *pattern;   /* of a domain, as a route's; NULL with a provider */
    const char *provider;  /* its name; NULL with a pattern */
    const char *const *mx; /* patterns of its mail exchangers' names */
    uint32_t mx_count;
    uint32_t connection_max, messages_per_connection_max, recipient_max;
    struct rate_set rates;
    enum settings_delivery delivery;
    enum settings_bdat_ahead bdat_ahead;
};

/* What holds for one destination; 0, and no rate: nothing is said. */
struct settings_site_limits {
    const char *provider;        /* its site is the provider's; NULL: none */
    char name[MX_NAME_MAX + 16]; /* tells its site from others at the same hosts, or "" */
    uint32_t connection_max, messages_per_connection_max, recipient_max;
    struct rate_set rates;
    enum settings_delivery delivery;
    enum settings_bdat_ahead bdat_ahead;
};

/* A rule of `dkim`: which mail gets which signature; see dkim.h. */
struct settings_dkim {
    const char *domain, *selector; /* d=, s= */
    const char *identity;          /* i=; NULL: none */
    const struct dkim_key *key;    /* owned by the snapshot */
    enum settings_dkim_by by;      /* whose domain `match` is about */
    const char *const *match;      /* patterns, as a route's; none: `domain` and all below it */
    uint32_t match_count;
    const struct flow_address *listeners; /* none: all; port 0: any */
    uint32_t listener_count;
    const struct flow_prefix *clients; /* none: all of relay_from */
    uint32_t client_count;
    enum dkim_canon header_canon, body_canon;
    const char *const *headers; /* names of fields that are signed */
    uint32_t header_count;
    const char *const *oversign; /* and those that must not be added */
    uint32_t oversign_count;
    uint32_t expire_s; /* 0: no x= */
};

#define SETTINGS_SOURCE_NAME_MAX 31u
#define SETTINGS_MEMBER_MAX      64u

enum settings_overflow { SETTINGS_OVERFLOW_POOL, SETTINGS_OVERFLOW_WAIT };

struct settings_warmup {
    const uint32_t *schedule; /* messages in any 24 hours, by day */
    uint32_t day_count;       /* 0: it is warm */
    wall_us start;            /* the first moment of the first day */
    enum settings_overflow overflow;
};

struct settings_source { /* an address that mail leaves from */
    const char *name;
    const char *hello_name;
    struct flow_address ip4, ip6; /* family NONE: not over it; both: as the system chooses */
    bool is_implied;              /* nobody wrote it down */
    struct settings_warmup warmup;
};

struct settings_member {
    uint32_t source; /* its number */
    uint32_t weight; /* 1 to 1,000 */
};

struct settings_pool { /* sources that share mail */
    const char *name;
    const struct settings_member *members;
    uint32_t member_count; /* 1 to SETTINGS_MEMBER_MAX */
};

struct settings_delivery_rule { /* the first that matches decides */
    const char *const *senders; /* patterns of the sender's domain */
    uint32_t sender_count;      /* 0: any, also none */
    const struct flow_prefix *clients;
    uint32_t client_count; /* 0: any */
    const char *user;      /* a pattern of who is logged in; NULL: anybody, also nobody */
    enum settings_delivery delivery;
};
struct settings_mail {         /* what rules about senders look at */
    struct span sender_domain; /* empty: the null sender, or a bare local part */
    struct span user;          /* empty: nobody is logged in */
    const struct flow_address *client;
};
struct settings_pool_rule { /* the first that matches decides */
    const struct flow_address *listeners;
    uint32_t listener_count;    /* 0: any */
    const char *const *senders; /* patterns of the sender's domain */
    uint32_t sender_count;      /* 0: any, also none */
    const char *user;           /* a pattern of who is logged in; NULL: anybody, also nobody */
    const char *pool;
};

struct settings_client {
    tick_us connect_timeout;                 /* 30 s */
    tick_us greeting_timeout;                /* 300 s */
    tick_us command_timeout;                 /* 300 s */
    tick_us data_init_timeout;               /* 120 s, for the 354 */
    tick_us data_block_timeout;              /* 180 s without progress while sending */
    tick_us data_end_timeout;                /* 600 s for the reply to the end of data */
    tick_us attempt_timeout;                 /* absolute, per attempt: 30 min */
    tick_us idle_timeout;                    /* kept connections: 5 s */
    uint32_t messages_per_connection_max;    /* 1000 */
    uint32_t recipients_per_transaction_max; /* 100 */
    enum settings_eight_bit eight_bit;
    bool use_bdat; /* where offered */
    bool use_next; /* the next transaction's commands with this body's end */
    enum settings_bdat_ahead bdat_ahead;
    tick_us race_after; /* how long a connection over one address family is waited for alone; 0:
                           for ever */
    struct ssl_ctx_st *tls_may; /* the opportunistic context: ignores openssl.cnf, takes old TLS */
};

/* When what attempts tell makes a source rest: source_rest.c. */
struct settings_source_rest {
    uint32_t sites; /* that must tell so; 0: it takes more than that */
    tick_us within, first, longest;
};

/* Snapshots that are in use at a time: the present one, and those that sessions or attempts began
 * with. Who makes more must wait (control/reload.c). */
#define SETTINGS_SNAPSHOT_MAX 32u

struct settings {
    const char *hostname; /* banner, Received, EHLO */
    const struct settings_listener *listeners;
    uint32_t listener_count;
    const struct flow_prefix *relay_from;
    uint32_t relay_from_count;
    const char
        *postmaster; /* address that bare postmaster and postmaster@served go to; NULL: refused */
    const struct settings_route *routes; /* the last is the default, pattern "*" */
    uint32_t route_count;
    const uint32_t *route_table; /* of settings_route_table_new(); NULL: routes are searched from
                                    end to end */
    uint32_t route_table_size;
    const struct settings_site *sites; /* providers first, in the order of the file */
    uint32_t site_count;
    const struct settings_source *sources;
    uint32_t source_count; /* at least 1 */
    struct settings_source_rest source_rest;
    const struct settings_pool *pools;
    uint32_t pool_count, default_pool;
    const struct reaction_set *reactions; /* NULL: no patterns */
    const struct settings_pool_rule *pool_rules;
    uint32_t pool_rule_count;
    const struct settings_delivery_rule *delivery_rules; /* in the order of the file */
    uint32_t delivery_rule_count;
    const struct flow_prefix *pool_header_from;
    uint32_t pool_header_from_count;
    enum settings_pool_unknown pool_unknown;
    const struct settings_dkim *dkim; /* in the order of the file */
    uint32_t dkim_count;
    enum settings_malformed dkim_malformed; /* mail that cannot be signed for its header */
    struct settings_client client;
    struct auth_settings auth;
    struct settings_cut_through {
        enum settings_delivery delivery; /* of listeners that say nothing */
        uint64_t size_max;               /* of a message that is complete before it goes; 256 KiB */
        bool may_stream;                 /* larger ones go while they come */
        uint64_t keep;                   /* octets of such a one kept in memory; 1 MiB */
        uint64_t rate_min;               /* octets a second that its sender keeps; 32 KiB */
        tick_us patience;                /* how long its client waits; 30 s */
    } cut_through;
    struct mx_policy mx;
    struct class_settings classes;
    /* Fields of a message that say something to us; those of users' mail, with what may be missing
     * in it. */
    struct header_names header, header_submission;
    tick_us retry_min, retry_max, message_lifetime; /* 5 min, 4 h (80 min ...), 5 d */
    uint32_t dsn_header_size_max;                   /* octets of header quoted in a DSN; 50,000 */
    uint32_t dsn_message_size_max;                  /* larger mail is not returned whole; 50,000 */
    tick_us dsn_delay_after;                        /* 4 h; 0: no notices of delay */
    bool is_dsn_delay_unasked;
    uint32_t dsn_per_sender_max; /* in an hour; 0: no bound */
    uint64_t serial;             /* of the snapshot */
};

/** Most specific route for a normalized domain: exact, then the longest "*." suffix, then "*".
 * Never NULL. */
const struct settings_route *settings_route_find(const struct settings *settings,
                                                 struct span domain);
/** The address that stands for a Unix socket: two sockets have two. */
struct flow_address settings_socket_address(const char *path);
/** Index over the routes' patterns: heap, the snapshot's owner frees it. */
uint32_t *settings_route_table_new(const struct settings *settings, uint32_t *ret_size);
/** What is allowed to a domain with these mail exchangers: by the first provider that all of them
 * belong to, else by the most specific pattern. */
struct settings_site_limits settings_site_find(const struct settings *settings, struct span domain,
                                               const struct mx_answer *answer);
/** The pool of this name (ASCII case ignored), or NULL. */
const struct settings_pool *settings_pool_find(const struct settings *settings, struct span name);
/** Where mail goes that asks for this pool: the default for "" and for one that is no more. */
const struct settings_pool *settings_pool_of(const struct settings *settings, struct span name);
/** The pool that the rules have for mail that came in here from a sender of this domain, by this
 * user (empty: nobody is logged in). */
const struct settings_pool *settings_pool_choose(const struct settings *settings,
                                                 const struct flow_address *listener,
                                                 struct span sender_domain, struct span user);
/** What `delivery_rules` say; UNSAID: nothing. */
enum settings_delivery settings_delivery_find(const struct settings *settings,
                                              const struct settings_mail *mail);
/** May this client name a pool? */
bool settings_pool_header_is_allowed(const struct settings *settings,
                                     const struct flow_address *client);
const struct settings_source *settings_source_find(const struct settings *settings,
                                                   struct span name);
#define SETTINGS_WARM UINT32_MAX
#define SETTINGS_DAY  ((wall_us)TICK_S(86400))
/** How many messages a source may send to one site in any 24 hours, as of this day: SETTINGS_WARM:
 * any number; 0: its first day is to come. */
uint32_t settings_warmup_limit(const struct settings_source *source, wall_us now);
/** When that changes, for some source; INT64_MAX: never again. */
wall_us settings_warmup_next(const struct settings *settings, wall_us now);
/** May hosts with addresses of this family be reached from it? */
bool settings_source_has_family(const struct settings_source *source, enum flow_family family);
/** Do hosts of this route see which source mail leaves from? Mailbox servers do not: they are ours.
 */
bool settings_route_has_source(const struct settings_route *route);
/** What to connect from, to such a host; family NONE: any. */
struct flow_address settings_source_address(const struct settings_source *source,
                                            enum flow_family family);
/** "*" matches every name, "*.example.org" those below it, others themselves; ASCII case ignored.
 */
bool settings_name_matches(const char *pattern, struct span name);
/** Is this user meant? "*": whoever is logged in; "*@example.org": whose name ends so; else the
 * name itself; ASCII case ignored. Nobody (empty) is never meant. */
bool settings_user_matches(const char *pattern, struct span user);
/** Is this the rule for "*"? */
bool settings_site_is_default(const struct settings_site *rule);
bool settings_relay_is_allowed(const struct settings *settings, const struct flow_address *client);

#endif
