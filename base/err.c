/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of operating errors: base/err.def is its only source; enum, class, name and text all
 * come from the same rows, so that none can be forgotten.
 */
#include "base/err.h"

static const enum err_class err_classes[ERR_COUNT] = {
#define X(symbol, class, text) [ERR_##symbol] = ERR_CLASS_##class,
#include "base/err.def"
#undef X
};

static const char *const err_names[ERR_COUNT] = {
    [ERR_OK] = "OK",
#define X(symbol, class, text) [ERR_##symbol] = #symbol,
#include "base/err.def"
#undef X
};

static const char *const err_texts[ERR_COUNT] = {
    [ERR_OK] = "success",
#define X(symbol, class, text) [ERR_##symbol] = text,
#include "base/err.def"
#undef X
};

enum err_class err_class(enum err err)
{
    CHECK((unsigned)err < ERR_COUNT);
    return err_classes[err];
}

const char *err_text(enum err err)
{
    CHECK((unsigned)err < ERR_COUNT);
    return err_texts[err];
}

const char *err_name(enum err err)
{
    CHECK((unsigned)err < ERR_COUNT);
    return err_names[err];
}
