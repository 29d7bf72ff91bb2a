/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/check.h"

enum err_class {
    ERR_CLASS_NONE = 0,
    ERR_CLASS_AGAIN,   /* call again later */
    ERR_CLASS_PEER,    /* the other side's fault */
    ERR_CLASS_REFUSED, /* a clear no */
    ERR_CLASS_LIMIT,   /* a bound of ours */
    ERR_CLASS_TIMEOUT,
    ERR_CLASS_DISK,
    ERR_CLASS_CONFIG,
};

enum err {
    ERR_OK = 0,
#define X(symbol, class, text) ERR_##symbol,
#include "base/err.def"
#undef X
    ERR_COUNT
};

/** The class callers switch on; ERR_OK has ERR_CLASS_NONE. */
enum err_class err_class(enum err err);

/** Static text for people, never NULL. */
const char *err_text(enum err err);

/** Static symbol without the ERR_ prefix, for logs and records. */
const char *err_name(enum err err);

#endif
