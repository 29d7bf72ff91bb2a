/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_POSTFIX_IMPORT_H
#define CONTROL_POSTFIX_IMPORT_H

#include <stdio.h>

#include "base/span.h"

/*
 * A first configuration from Postfix's: what has a counterpart, and behind it, as comments, what
 * has none and why (docs/migrate-postfix.md has all of it).
 */
#define POSTFIX_IMPORT_WHY_SIZE 160u

struct postfix_import_source {
    void *context;
    /* A file's text, for free(); NULL: it cannot be read. */
    uint8_t *(*read)(void *context, const char *path, uint32_t *ret_size);
};

/**
 * Write the configuration that main.cf and master.cf in `directory` amount to.
 *
 * Errors: ERR_NOT_FOUND, ERR_CONFIG_SYNTAX, ERR_LIMIT, ERR_MEMORY: nothing is written, ret_why says
 *         more.
 */
enum err postfix_import(const struct postfix_import_source *source, const char *directory,
                        FILE *out, char ret_why[POSTFIX_IMPORT_WHY_SIZE]) MUST_CHECK;
/** The same, from files. False: told on standard error. */
bool postfix_import_files(const char *directory, FILE *out);

#endif
