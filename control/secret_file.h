/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_SECRET_FILE_H
#define CONTROL_SECRET_FILE_H

#include "base/err.h"

/*
 * Secrets come from files of their own, one line each, so that the configuration may be shown to
 * anybody. Such a file is regular, and others than its owner and group have nothing to do with it.
 */
#define SECRET_WHY_SIZE 128u

/**
 * The first line of the file, without its end; what is behind it is passed over.
 *
 * Bounds:  `size` octets of room, with the NUL; a line of 1 to size - 1 octets.
 * Errors:  ERR_SYSTEM, ERR_CONFIG_VALUE with the reason in ret_why; ret_line is cleansed.
 */
enum err secret_line_read(const char *path, char *ret_line, uint32_t size,
                          char ret_why[SECRET_WHY_SIZE]) MUST_CHECK;
/** Are these rights few enough for a secret? */
bool secret_mode_is_good(uint32_t mode);

#endif
