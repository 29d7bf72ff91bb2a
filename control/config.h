/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CONFIG_H
#define CONTROL_CONFIG_H

#include "control/http_access.h"
#include "control/option.h"
#include "dataplane/dataplane.h"
#include "dns/dns.h"
#include "queue/disk.h"
#include "relay/reaction.h"
#include "relay/settings.h"

/*
 * The configuration: one immutable snapshot with all that the relay was told, made from YAML by
 * the rows of option.def. Everything it points to lives in its arena, except TLS contexts, DKIM
 * keys and the index of routes, and is freed with it by config_free().
 *
 *   config_parse()       text -> typed values with their lines; no files, no network
 *   config_assemble()    cross checks, derived values, what the relay sees (settings)
 *   config_complete()    what comes from this machine: names, certificates, passwords, resolvers
 *   config_load()        all three, for a file
 */
#define CONFIG_FILE_SIZE_MAX  (1u << 20)
#define CONFIG_ARENA_SIZE_MAX (64u << 20)
#define CONFIG_REPORT_SIZE    8192u
#define CONFIG_COMPLAINT_MAX  20u
#define CONFIG_DEFAULT_PATH   "/etc/angarium/angarium.yaml"
#define CONFIG_RESOLVER_COUNT 4u
#define CONFIG_RESOLV_CONF    "/etc/resolv.conf"

/* What is wrong, for people: lines of "file:line: key: reason". */
#define CONFIG_OPTIONS_MAX 320u /* rows of option.def, at most */

/* Who asks which value each option has: told in the order of the file, defaults behind what a
 * section gives. */
#define CONFIG_PLACE_SIZE 160u /* "listen[1].limits.errors" */
struct config_values {
    void *context;
    /* `text` as it is written, at `line` of `file`; line 0: the default. */
    void (*on_value)(void *context, const char *place, struct span text, const char *file,
                     uint32_t line);
};

/* Who wants complaints one by one, as well as in the text. */
struct config_complaints {
    void *context;
    /* line 0: the file as a whole; column 0: not known; key "": none. */
    void (*on_complaint)(void *context, const char *file, uint32_t line, uint32_t column,
                         const char *key, const char *reason);
};

/* A line is kept with the number of its file: both fit one number. */
#define CONFIG_FILES_MAX  128u
#define CONFIG_LINE_BITS  24u
#define CONFIG_LINE_MASK  ((1u << CONFIG_LINE_BITS) - 1)
#define CONFIG_WHERE_SIZE 300u
#define CONFIG_DEPTH_MAX  8u /* of includes */

struct config_report {
    const char *file;                    /* the first one */
    const char *files[CONFIG_FILES_MAX]; /* by number; borrowed while it is being loaded */
    uint32_t file_count, at;             /* at: of the one that is being read */
    uint32_t
        lines[CONFIG_OPTIONS_MAX]; /* by row, where the file has it; 0: nowhere, or in a list */
    const struct config_values *values;         /* NULL: nobody asks, as the next */
    const struct config_complaints *complaints; /* all that are in the text */
    bool is_look; /* nobody is to run with it: nothing is made that is made at first use */
    uint32_t mark_line, mark_column; /* of what the parser looked at last; 0: nothing */
    uint32_t count; /* complaints; the first CONFIG_COMPLAINT_MAX are in the text */
    uint32_t size;
    char text[CONFIG_REPORT_SIZE];
};
void config_report_init(struct config_report *report, const char *file);
/** A file that is read from now on. Errors: ERR_LIMIT. */
enum err config_report_add(struct config_report *report, const char *file) MUST_CHECK;
/** The file of a line; of line 0 the one that is being read. */
const char *config_file_of(const struct config_report *report, uint32_t line);
/** Where a line is: "line 3", or with more files than one "FILE:3". Returns ret_text. */
const char *config_where(const struct config_report *report, uint32_t line,
                         char ret_text[CONFIG_WHERE_SIZE]);
/** Add a complaint. line 0: where the file has `key`, if it does, else the file as a whole; key "":
 * none. */
__attribute__((format(printf, 4, 5))) void config_complain(struct config_report *report,
                                                           uint32_t line, const char *key,
                                                           const char *format, ...);

/* A TLS context, shared by all routes that ask for the same. */
struct config_context {
    struct config_context *next;
    struct ssl_ctx_st *context;
    bool is_verify;
    const char *ca; /* NULL for servers and without verification */
};

/* Elements of sequences: the line first, as the loader expects it. */
struct config_listener {
    uint32_t line, tls_line, limits_line, brakes_line;
    struct settings_listener settings;
    uint32_t kind; /* enum config_kind */
    const char *certificate, *key, *self_signed;
};

enum config_kind { CONFIG_KIND_RELAY, CONFIG_KIND_SUBMISSION };

struct config_host {
    uint32_t line;
    struct settings_host settings;
};

struct config_route {
    uint32_t line, tls_line, auth_line;
    struct settings_route settings;
    struct option_list hosts;  /* struct config_host */
    const char *socket;        /* NULL: none */
    const char *ca;            /* "system" or a file */
    struct settings_auth auth; /* password: by config_complete() */
    const char *password_file;
};

struct config_spool {
    const char *directory;
    uint64_t size, reserve;
    uint32_t segment_size, spare_count;
    tick_us commit_deadline, lazy_time, scrub_pause;
    uint64_t scrub_rate;
    enum disk_kind method;
};

/* An element of dataplane.ports. */
struct config_port {
    uint32_t line;
    const char *device, *exception;
    struct option_list addresses; /* struct flow_prefix */
    struct option_list gateway;   /* struct flow_address */
    uint16_t mtu, vlan;
};

/* An element of sites. */
struct config_site {
    uint32_t line;
    struct settings_site settings;
    struct option_list mx; /* const char * */
};

/* An element of sources. */
struct config_source {
    uint32_t line, warmup_line;
    struct settings_source settings;
    struct option_list addresses; /* struct flow_address */
    struct option_list schedule;  /* uint32_t */
};

/* An element of a pool's members. */
struct config_member {
    uint32_t line;
    const char *source;
    uint32_t weight;
};

/* An element of pool_rules. */
struct config_pool_rule {
    uint32_t line;
    struct settings_pool_rule settings;
    struct option_list listeners; /* struct flow_address */
    struct option_list senders;   /* const char * */
};

/* An element of delivery_rules. */
struct config_delivery_rule {
    uint32_t line;
    struct settings_delivery_rule settings;
    struct option_list senders; /* const char * */
    struct option_list clients; /* struct flow_prefix */
};

/* An element of pools. */
struct config_pool {
    uint32_t line;
    struct settings_pool settings;
    struct option_list members; /* struct config_member */
};

/* An element of patterns. */
struct config_pattern {
    uint32_t line;
    struct reaction_spec spec; /* stages and mx: by config_patterns_assemble() */
    uint32_t stage;            /* the word's number */
    struct option_list mx;     /* const char * */
};

/* An element of classes. */
struct config_class {
    uint32_t line;
    const char *name;
    uint32_t least;
};

/* An element of class_rules. */
struct config_class_rule {
    uint32_t line;
    struct class_rule settings;
    struct option_list listeners; /* struct flow_address */
    const char *class;
};

/* An element of dkim. */
struct config_dkim {
    uint32_t line;
    struct settings_dkim settings;
    const char *key_file;
    uint32_t canon;                              /* two bits: header, body; enum dkim_canon */
    struct option_list match, headers, oversign; /* const char * */
    struct option_list listeners;                /* struct flow_address */
    struct option_list clients;                  /* struct flow_prefix */
};

enum records_on_slow { RECORDS_DROP, RECORDS_HOLD };

struct config_records {
    const char *file, *accounting, *raw; /* NULL: none */
    uint32_t buffer_count;
    uint64_t rotate_size; /* as the next three: record_file.h */
    tick_us rotate_time, sync_time;
    uint32_t keep;
    uint32_t on_slow; /* enum records_on_slow */
};

/* An element of webhooks. */
enum webhook_auth { WEBHOOK_HMAC, WEBHOOK_BEARER };

struct config_webhook {
    uint32_t line;
    const char *name, *url;
    const char *secret_file, *ca; /* NULL: none */
    const char *secret;           /* by config_complete() */
    struct option_list events;    /* uint32_t */
    uint32_t kinds;               /* bits 1 << enum record_kind */
    uint32_t auth;                /* enum webhook_auth */
    uint32_t batch_count, batch_size;
    tick_us batch_time, timeout, retry_min, retry_max;
    bool is_plaintext;
};

/* Management over HTTP. */
struct config_http {
    uint32_t line, tls_line;
    struct flow_address listen; /* port 0: not over TCP */
    const char *socket;         /* as the next four: NULL: none */
    const char *viewer_token_file, *admin_token_file;
    const char *certificate_file, *key_file;
    bool metrics_open;
    struct http_access access;     /* what the files say */
    const char *certificate, *key; /* PEM; NULL: no TLS */
};

struct config_confine {
    const char *user; /* NULL: whoever started it */
    bool has_calls_filter;
};

struct config {
    uint32_t line; /* of the document's first key */
    struct settings settings;
    struct dns_options dns; /* what the file decides of it; the rest is the shard's */
    struct config_spool spool;
    struct config_records records;
    struct dataplane_options dataplane; /* what the file decides of it */
    uint32_t cores;
    uint32_t connections_per_site, connections_at_first, message_count_max;
    uint32_t buffer_size, flow_count_max;
    uint32_t flow_count_allowed; /* not an option: by the descriptors at start; 0: all */
    uint64_t body_memory, buffer_memory;
    tick_us shutdown_timeout, upgrade_timeout;
    const char *control_socket;
    struct config_http http;
    struct config_confine confine;
    uint32_t confine_line;
    uint32_t log_level; /* enum log_severity: the words are in its order */

    /* As written: settings are derived from these. */
    struct option_list includes; /* const char *: of the file that was read last */
    struct option_list listen;   /* struct config_listener */
    struct option_list routes;   /* struct config_route */
    struct option_list sites;    /* struct config_site */
    struct option_list dkim;     /* struct config_dkim */
    struct option_list webhooks; /* struct config_webhook */
    struct option_list sources;  /* struct config_source */
    struct option_list pools;    /* struct config_pool */
    const char *default_pool;
    struct option_list patterns;         /* struct config_pattern */
    const char *patterns_file;           /* NULL: none */
    struct config *more_patterns;        /* what is in it: its `patterns` alone count */
    struct option_list pool_rules;       /* struct config_pool_rule */
    struct option_list delivery_rules;   /* struct config_delivery_rule */
    struct option_list pool_header_from; /* struct flow_prefix */
    struct option_list relay_from;       /* struct flow_prefix, as deny and allow */
    struct option_list classes, class_rules;
    const char *class_header, *class_default, *pool_header;
    struct option_list deny, allow;
    struct option_list resolvers; /* struct flow_address, as the next two */
    struct option_list own_addresses;
    struct option_list dataplane_kernel; /* struct flow_prefix */
    struct option_list dataplane_ports;  /* struct config_port */
    uint32_t pool_header_line, source_rest_line, auth_line;
    const char *auth_users_file;   /* NULL: none */
    struct auth_users *auth_users; /* what is in it */
    void (*auth_users_free)(struct auth_users *users);
    uint32_t dns_line, destinations_line, client_line, cut_through_line, retry_line, bounce_line,
        spool_line, queue_line, buffers_line, dataplane_line, records_line, control_line, log_line;

    struct reaction_set *reactions;
    struct config_context *contexts; /* newest first */
    void (*context_free)(struct ssl_ctx_st *context);
    struct dkim_key **keys; /* one for each of settings.dkim, NULL where it was not loaded */
    void (*key_free)(struct dkim_key *key);
    struct arena arena;
};

/**
 * Load, check and complete a configuration file.
 *
 * Threading: control thread; blocks on files.
 * Errors:    ERR_CONFIG_SYNTAX, ERR_CONFIG_VALUE, ERR_NOT_FOUND, ERR_MEMORY; the report says why.
 */
enum err config_load(const char *path, struct config **ret_config,
                     struct config_report *report) MUST_CHECK;
void config_free(struct config *config);

/** A new configuration with every default, from text; what it includes is not read. Errors: as
 * config_load(). */
enum err config_parse(struct span text, struct config **ret_config,
                      struct config_report *report) MUST_CHECK;
/* The same in steps, with more texts than one; the report has the complaints. Errors: ERR_MEMORY.
 */
enum err config_parse_begin(struct config **ret_config, struct config_report *report) MUST_CHECK;
/** Another text: its file is report->at. */
void config_parse_text(struct config *config, struct span text, struct config_report *report);
/** What must be given, and the defaults of what was not. */
void config_parse_end(struct config_report *report);
enum err config_assemble(struct config *config, struct config_report *report) MUST_CHECK;
/** Errors: ERR_CONFIG_VALUE, ERR_MEMORY. */
enum err config_complete(struct config *config, struct config_report *report) MUST_CHECK;

/** Part of config_assemble(): who logs in where. */
void config_auth_assemble(struct config *config, struct config_report *report);
/** Likewise, behind all that looks for fields: what is looked for in users' mail. */
void config_auth_headers(struct config *config);
/** Part of config_complete(): the users. Errors: ERR_MEMORY. */
enum err config_auth_complete(struct config *config, struct config_report *report) MUST_CHECK;
/** Part of config_assemble(): the ports, and whether listeners and sources fit them. Errors:
 * ERR_MEMORY. */
enum err config_dataplane_assemble(struct config *config, struct config_report *report) MUST_CHECK;
/** Part of config_assemble(): the rules of `sites`. Errors: ERR_MEMORY. */
/** The text of `patterns_file`; before config_assemble(). */
enum err config_patterns_parse(struct config *config, struct span text,
                               struct config_report *report) MUST_CHECK;
/** The set of rules. Complaints are in the report. */
void config_patterns_assemble(struct config *config, struct config_report *report);
enum err config_sites_assemble(struct config *config, struct config_report *report) MUST_CHECK;
/** Part of config_assemble(): sources and pools. Errors: ERR_MEMORY. */
/** Is this an address of `listen`, or without a port one of its hosts? After listeners were
 * assembled. */
bool config_has_listener(const struct config *config, const struct flow_address *address);
/** A header field that this relay may cut out of mail: X-... */
bool config_is_own_field(const char *name);
enum err config_sources_assemble(struct config *config, struct config_report *report) MUST_CHECK;
/** Part of config_assemble(): priority classes and their rules. Errors: ERR_MEMORY. */
enum err config_delivery_assemble(struct config *config, struct config_report *report) MUST_CHECK;
enum err config_classes_assemble(struct config *config, struct config_report *report) MUST_CHECK;
/** Part of config_assemble(): the rules of `dkim`, without their keys. Errors: ERR_MEMORY. */
enum err config_dkim_assemble(struct config *config, struct config_report *report) MUST_CHECK;
/** Part of config_assemble(): the rules of `webhooks`. */
void config_webhooks_assemble(struct config *config, struct config_report *report);
/** Part of config_complete(): their secrets. Errors: ERR_MEMORY. */
enum err config_webhooks_complete(struct config *config, struct config_report *report) MUST_CHECK;
/** Part of config_complete(): tokens, key and certificate of `http`. */
void config_http_complete(struct config *config, struct config_report *report);
/** Is this (port unused) an address of a port of the dataplane? */
bool config_is_port_address(const struct config *config, const struct flow_address *address);

/** Options that differ and that a reload takes over, of lists of mappings the list: "relay_from,
 * routes", or "". */
const char *config_changes(const struct config *running, const struct config *next, char *ret_text,
                           uint32_t size);
/** Options that differ and take effect only at a restart: "spool.size, cores", or "". */
const char *config_restart_needed(const struct config *running, const struct config *next,
                                  char *ret_text, uint32_t size);

#endif
