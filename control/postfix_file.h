/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_POSTFIX_FILE_H
#define CONTROL_POSTFIX_FILE_H

#include "base/span.h"

/* Postfix's main.cf and master.cf, read as it reads them (postconf(5), master(5)). */
#define POSTFIX_PARAMETERS_MAX 4000u /* postconf -d has a thousand */
#define POSTFIX_SERVICES_MAX   100u
#define POSTFIX_VALUE_SIZE     8192u   /* of an expanded value, with its NUL */
#define POSTFIX_LOOKUPS_MAX    100000u /* of names within values, in all */

struct postfix_parameter {
    struct span name, value;
    uint32_t line;
    bool is_used; /* the reader's */
};

struct postfix_service {
    struct span name, type, command, options; /* options: what is behind the command */
    uint32_t line;
};

struct postfix {
    struct postfix_parameter parameters[POSTFIX_PARAMETERS_MAX];
    struct postfix_service services[POSTFIX_SERVICES_MAX];
    uint32_t parameter_count, service_count;
    uint32_t lookup_count; /* of postfix_expand() */
};

/**
 * Read a file's text; what was read before stays.
 *
 * Ownership: lines that go on are joined in `text`, from which the spans borrow.
 * Errors:    ERR_CONFIG_SYNTAX, ERR_LIMIT: *ret_line says where.
 */
enum err postfix_main_parse(struct postfix *postfix, struct span_mut text,
                            uint32_t *ret_line) MUST_CHECK;
enum err postfix_master_parse(struct postfix *postfix, struct span_mut text,
                              uint32_t *ret_line) MUST_CHECK;
/** The last one of that name; NULL: it is not set. */
struct postfix_parameter *postfix_find(struct postfix *postfix, struct span name);
/**
 * With the values of other parameters for `$name`, `${name}` and `$(name)`; what is not set is
 * empty. False: it has a condition (`${name?...}`), is too long or goes round in a circle, or there
 * were POSTFIX_LOOKUPS_MAX names before it.
 */
bool postfix_expand(struct postfix *postfix, struct span value,
                    char ret_text[POSTFIX_VALUE_SIZE]) MUST_CHECK;
/** The value of `-o name=value` among a service's options. False: it is not there. */
bool postfix_option_find(struct span options, const char *name, struct span *ret_value);
/** The next word, ended by blanks or one of `separators`; false: there is none. */
bool postfix_word_next(struct span *rest, const char *separators, struct span *ret_word);

#endif
