/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_REGULAR_FILE_H
#define BASE_REGULAR_FILE_H

/**
 * Open a file to be read, unless it is something else: a pipe without a writer would be waited for
 * without end, and a terminal or a device has no end.
 *
 * Ownership: the descriptor is the caller's. -1: `*ret_why` says why, in static memory or errno's.
 */
int regular_file_open(const char *path, const char **ret_why);

#endif
