/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of the process when it finds a bug in itself.
 *
 * A failed CHECK may happen anywhere, also in a signal handler or with a broken heap. So the text
 * is put together in a local buffer, written with one write(2), and then abort() leaves a core for
 * whoever looks into it. The service manager starts the process anew; the spool has the mail.
 *
 * Limits: CHECK_TEXT_SIZE octets of text; what is longer is cut.
 */
#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK_TEXT_SIZE 512u

struct check_text {
    char octets[CHECK_TEXT_SIZE];
    size_t size;
};

static void check_put(struct check_text *text, const char *words)
{
    while (*words != '\0' && text->size < sizeof(text->octets) - 1)
        text->octets[text->size++] = *words++;
}

static void check_put_decimal(struct check_text *text, unsigned value)
{
    char digits[12];
    size_t at = sizeof(digits);

    digits[--at] = '\0';
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0 && at > 0);
    check_put(text, digits + at);
}

void check_failed(const char *condition, const char *function, const char *file, int line)
{
    struct check_text text = {.size = 0};

    check_put(&text, "severity=fatal CHECK failed: ");
    check_put(&text, condition);
    check_put(&text, " in ");
    check_put(&text, function);
    check_put(&text, "() at ");
    check_put(&text, file);
    check_put(&text, ":");
    check_put_decimal(&text, (unsigned)line);
    text.octets[text.size++] = '\n';
    /* Nobody is left to be told if standard error cannot be written. */
    ssize_t ignored = write(STDERR_FILENO, text.octets, text.size);
    (void)ignored;
    abort();
}
