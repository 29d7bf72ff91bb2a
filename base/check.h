/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK __attribute__((warn_unused_result))
/* Not zeroed at entry, as other locals are (-ftrivial-auto-var-init=zero): for arrays that are
 * written before they are read, and are so large that it costs. */
#define UNINITIALIZED __attribute__((uninitialized))

/* Always on, also in release builds: a violated CHECK is a bug in this program, never the peer's or
 * the disk's doing. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            check_failed(#condition, __func__, __FILE__, __LINE__);                                \
    } while (0)

/** Print the failed condition on standard error and abort with a core. Async-signal safe, allocates
 * nothing. */
__attribute__((noreturn, cold)) void check_failed(const char *condition, const char *function,
                                                  const char *file, int line);

/* Return early on error. Only where this function owns nothing that needs releasing. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum err try_err_ = (call);                                                                \
        if (try_err_ != ERR_OK)                                                                    \
            return try_err_;                                                                       \
    } while (0)

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
