/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_OPTION_H
#define CONTROL_OPTION_H

#include <stdio.h>

#include "base/arena.h"

/*
 * The options of the configuration as rows of one table (option.def): type, bounds, default, help,
 * and the place where the value goes. What parses a value here is all that parses values: the
 * loader, the defaults and the reference page use the same rows.
 */
enum option_kind {
    OPTION_MAPPING,  /* more options below */
    OPTION_SEQUENCE, /* a list of mappings */
    OPTION_COUNT,    /* field: uint16_t, uint32_t or uint64_t */
    OPTION_SIZE,     /* octets: "64MB", "1GiB"; uint32_t or uint64_t */
    OPTION_DURATION, /* "5m", "20 minutes", "500ms"; tick_us */
    OPTION_SECONDS,  /* a duration kept in whole seconds; uint32_t */
    OPTION_LIMIT,    /* as COUNT, also "1,000", "1_000", "local:10" */
    OPTION_DATE,     /* wall_us: "2026-11-26", its first moment, UTC */
    OPTION_BOOL,     /* bool */
    OPTION_CHOICE,   /* one of the words; enum, or uint32_t: its position */
    OPTION_TEXT,     /* const char *: printable, no control characters */
    OPTION_WORD,     /* const char *: a name of ours: letters (made small), digits, "._-" */
    OPTION_NAME,     /* const char *: a domain, made lower-case A-labels */
    OPTION_PATTERN,  /* const char *: a domain, "*." and a domain, or "*" */
    OPTION_HOST,     /* const char *: a domain or an address */
    OPTION_PATH,     /* const char * */
    OPTION_RATE,     /* struct rate_set: "100/10m", "50/s, 1000/1m"; "": none */
    OPTION_ENDPOINT, /* struct flow_address, with port */
    OPTION_PREFIX_LIST,
    OPTION_ENDPOINT_LIST, /* the port may be missing: 0 */
    OPTION_IP_LIST,
    OPTION_INTERFACE_LIST, /* struct flow_prefix: an address of ours with the size of its network */
    OPTION_PATTERN_LIST,   /* const char *, as PATTERN */
    OPTION_FIELD_LIST,     /* const char *: the name of a header field */
    OPTION_LIMIT_LIST,     /* uint32_t, as LIMIT, from 1 on */
    OPTION_CHOICE_LIST,    /* uint32_t: positions of words, as CHOICE */
    OPTION_PATH_LIST,      /* const char * */
};

enum option_owner {
    OPTION_OWNER_CONFIG,
    OPTION_OWNER_LISTENER,
    OPTION_OWNER_ROUTE,
    OPTION_OWNER_HOST,
    OPTION_OWNER_PORT,
    OPTION_OWNER_SITE,
    OPTION_OWNER_SOURCE,
    OPTION_OWNER_POOL,
    OPTION_OWNER_MEMBER,
    OPTION_OWNER_PATTERN,
    OPTION_OWNER_POOL_RULE,
    OPTION_OWNER_DELIVERY_RULE,
    OPTION_OWNER_CLASS,
    OPTION_OWNER_CLASS_RULE,
    OPTION_OWNER_DKIM,
    OPTION_OWNER_WEBHOOK,
    OPTION_OWNER_COUNT
};

struct option {
    const char *path;
    enum option_kind kind;
    const char *choices; /* "a|b|c" */
    uint64_t min, max;
    const char *default_text; /* NULL: required */
    bool is_reloadable;
    enum option_owner owner;   /* whose field it is */
    enum option_owner element; /* SEQUENCE: what an element is */
    uint32_t offset, size;     /* of the field in its owner */
    const char *help;
};

/* The field behind a list: elements lie one behind the other in the configuration's arena. */
struct option_list {
    void *items;
    uint32_t count;
};

#define OPTION_CHOICE_NONE UINT32_MAX /* a choice with default "" that was not given */
#define OPTION_WHY_SIZE    256u
#define OPTION_PATH_SIZE   96u

extern const struct option option_table[];
extern const uint32_t option_count;

/** Size of an owner's structure. */
uint32_t option_owner_size(enum option_owner owner);
/** The row of `key` inside `section` ("" at the top, "listen[].limits"); NULL when there is none.
 */
const struct option *option_find(const char *section, struct span key);
/** Is this row an immediate member of the section? */
bool option_is_in(const struct option *option, const char *section);
/** The last word of the path. */
const char *option_key(const struct option *option);
/** Room for one more value of a list or sequence: octets per element. */
uint32_t option_element_size(const struct option *option);
bool option_is_list(const struct option *option);
/** Its elements are const char *. */
bool option_is_text_list(const struct option *option);
/** Its elements are uint32_t. */
bool option_is_number_list(const struct option *option);
/** Its elements are struct flow_prefix. */
bool option_is_prefix_list(const struct option *option);

/**
 * Parse one value and store it in its field of `object`; for a list: in element `index`, whose room
 * must be there.
 *
 * Ownership: text is copied to `arena`.
 * Errors:    ERR_CONFIG_VALUE with what was expected in ret_why; the field is untouched.
 */
enum err option_parse(const struct option *option, struct span text, struct arena *arena,
                      void *object, uint32_t index, char ret_why[OPTION_WHY_SIZE]) MUST_CHECK;
/** Make room for `count` elements. Errors: ERR_CONFIG_VALUE (bounds), ERR_MEMORY, with ret_why. */
enum err option_list_begin(const struct option *option, uint32_t count, struct arena *arena,
                           void *object, char ret_why[OPTION_WHY_SIZE]) MUST_CHECK;
/** Set every field of an owner's new structure to its default. Required ones stay zero. Errors:
 * ERR_MEMORY. */
enum err option_set_defaults(enum option_owner owner, struct arena *arena, void *object) MUST_CHECK;
/** Do two structures of one owner differ in this field? Lists compare by their elements. */
bool option_differs(const struct option *option, const void *a, const void *b);

/** What is expected, for people: "a duration from 1s to 1h". Returns ret_text. */
const char *option_expectation(const struct option *option, char ret_text[OPTION_WHY_SIZE]);
/** The reference page, Markdown. */
void option_write_reference(FILE *out);

/* Units; also for output. Errors: ERR_PEER_SYNTAX; untouched then. */
enum err option_duration_parse(struct span text, uint64_t *ret_us) MUST_CHECK;
enum err option_size_parse(struct span text, uint64_t *ret_octets) MUST_CHECK;
/** The shortest exact form: "90s", "5m", "1500us". */
const char *option_duration_format(uint64_t us, char ret_text[32]);
const char *option_size_format(uint64_t octets, char ret_text[32]);

#endif
