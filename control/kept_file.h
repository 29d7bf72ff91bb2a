/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_KEPT_FILE_H
#define CONTROL_KEPT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Small files in the spool's directory that a restart reads back: rows of one size, whole or not at
 * all. Control thread only.
 */
struct kept_form {
    const char *name;  /* of the file */
    const char *magic; /* its first line, with its end; at most 23 octets */
    uint32_t row_size, count_max;
};

enum kept_state {
    KEPT_ABSENT,
    KEPT_DAMAGED, /* or of another version, or nothing that may be read, or no file */
    KEPT_WHOLE,
};

/** Replace the file: a crash leaves the old one or the new one. False, with errno: it is as it was.
 */
bool kept_file_write(const char *directory, const struct kept_form *form, const void *rows,
                     uint32_t count);
/** Ownership: KEPT_WHOLE: `*ret_rows` is the caller's to free. The outputs are unchanged otherwise.
 */
enum kept_state kept_file_read(const char *directory, const struct kept_form *form, void **ret_rows,
                               uint32_t *ret_count);
/** All these octets are written; false, with errno: they are not. */
bool kept_octets_write(int fd, const void *octets, size_t size);

#endif
