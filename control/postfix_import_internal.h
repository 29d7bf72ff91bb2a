/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_POSTFIX_IMPORT_INTERNAL_H
#define CONTROL_POSTFIX_IMPORT_INTERNAL_H

#include "control/postfix_file.h"
#include "control/postfix_import.h"

/*
 * Shared by postfix_import.c (values, numbers, who we are, the whole), postfix_import_listen.c and
 * postfix_import_route.c.
 */
struct import {
    const struct postfix_import_source *source;
    const char *directory;
    struct postfix *postfix;
    FILE *out, *notes;
    char *notes_text; /* what was written to `notes`, as of its last flush */
    size_t notes_size;
    uint32_t route_count, listener_count;
    char value[POSTFIX_VALUE_SIZE];
};

/** A comment behind the configuration, about a parameter, service or domain. What is asked for
 * several times, as for each listener, is told once. */
void import_note(struct import *import, struct span name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** The value of a parameter, expanded, good until the next call; NULL: it is not set, or a note
 * says why it cannot be used. */
const char *import_get(struct import *import, const char *name);
/** A string of YAML, or a comment, can hold it as it is. */
bool import_is_plain(struct span text);
bool import_is_domain(struct span text);
/** The numbers of one section that are set, in one line. */
void import_section_write(struct import *import, const char *section, const char *before,
                          const char *after);

/* postfix_import_listen.c */
/** "smtp", "587", "127.0.0.1:10025", "[::1]:25": what is before the port, and the port; 0: none. */
uint16_t import_port_split(struct span name, struct span *ret_host);
void import_listeners_write(struct import *import);

/* postfix_import_route.c */
void import_routes_write(struct import *import);

#endif
