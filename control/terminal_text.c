/* SPDX-License-Identifier: Apache-2.0 */
#include "control/terminal_text.h"

#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

#define CHARACTER_MAX 4u /* octets */
#define ESCAPE_MAX    4u /* signs that show one octet */

/* Characters that nobody sees, or that show others in another place than they stand. */
static const struct {
    uint32_t first, last;
} hidden[] = {
    {0x80, 0x9f},       /* control characters */
    {0xad, 0xad},       /* a hyphen that is not shown */
    {0x34f, 0x34f},     /* joins, and shows nothing */
    {0x61c, 0x61c},     /* direction */
    {0x115f, 0x1160},   /* fillers of Hangul */
    {0x17b4, 0x17b5},   /* vowels that are not shown */
    {0x180b, 0x180f},   /* selectors of variants */
    {0x200b, 0x200f},   /* no width, direction */
    {0x2028, 0x202e},   /* ends of lines, direction */
    {0x2060, 0x206f},   /* no width, direction */
    {0x3164, 0x3164},   /* a filler of Hangul */
    {0xd800, 0xf8ff},   /* halves of characters; for private use */
    {0xfdd0, 0xfdef},   /* no characters */
    {0xfe00, 0xfe0f},   /* selectors of variants */
    {0xfeff, 0xfeff},   /* no width */
    {0xffa0, 0xffa0},   /* a filler of Hangul */
    {0xfff0, 0xfffc},   /* for notes between lines */
    {0x1bca0, 0x1bca3}, /* for shorthand */
    {0x1d173, 0x1d17a}, /* for notes of music */
    {0xe0000, 0x10ffff} /* tags, selectors; for private use */
};

/* Octets of the character in front, and it; 0: there is none in UTF-8. */
static uint32_t character_take(struct span octets, uint32_t *ret_character)
{
    static const uint32_t least[CHARACTER_MAX + 1] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = octets.data[0];
    uint32_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 0;

    if (size == 0 || first >= 0xf8 || octets.size < size)
        return 0;
    uint32_t character = first & (0x7fu >> size);
    for (uint32_t i = 1; i < size; i++) {
        if ((octets.data[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (octets.data[i] & 0x3f);
    }
    if (character < least[size] || character > 0x10ffff)
        return 0;
    *ret_character = character;
    return size;
}

static bool is_seen(uint32_t character)
{
    if ((character & 0xfffe) == 0xfffe)
        return false;
    for (uint32_t i = 0; i < COUNT_OF(hidden); i++) {
        if (character >= hidden[i].first && character <= hidden[i].last)
            return false;
    }
    return true;
}

bool terminal_has_utf8(void)
{
    /* The program's own locale stays "C": what is a letter in a configuration is not to change. */
    locale_t locale = newlocale(LC_CTYPE_MASK, "", (locale_t)0);
    bool is_utf8 = locale != (locale_t)0 && strcmp(nl_langinfo_l(CODESET, locale), "UTF-8") == 0;

    if (locale != (locale_t)0)
        freelocale(locale);
    return is_utf8;
}

/* What of it fits; `keeps_signs`: quotes and backslashes stay. */
static void text_put(struct span octets, bool has_utf8, bool keeps_signs, char *ret_text,
                     uint32_t size)
{
    uint32_t used = 0;

    for (uint32_t at = 0; at < octets.size;) {
        char piece[CHARACTER_MAX + 1];
        uint32_t character = 0, taken = character_take(span_skip(octets, at), &character);
        bool is_sign = keeps_signs && (octets.data[at] == '"' || octets.data[at] == '\\');
        bool is_shown = is_sign || (has_utf8 && taken > 0 && is_seen(character));
        if (is_sign)
            taken = 1;
        if (is_shown)
            memcpy(piece, octets.data + at, taken);
        else /* octet by octet */
            (void)log_escape(span_of(octets.data + at, 1), piece, sizeof(piece));
        uint32_t needed = is_shown ? taken : (uint32_t)strlen(piece);
        if (needed > size - 1 - used)
            break;
        memcpy(ret_text + used, piece, needed);
        used += needed;
        at += is_shown ? taken : 1;
    }
    ret_text[used] = '\0';
}

const char *terminal_text(struct span octets, bool has_utf8, char *ret_text, uint32_t size)
{
    CHECK(ret_text != NULL && size > 0);
    text_put(octets, has_utf8, false, ret_text, size);
    return ret_text;
}

void terminal_line(struct span line, bool has_utf8, FILE *out)
{
    CHECK(line.size < UINT32_MAX / ESCAPE_MAX);
    uint32_t size = ESCAPE_MAX * line.size + 1;
    char *text = malloc(size);

    CHECK(text != NULL);
    text_put(line, has_utf8, true, text, size);
    (void)fprintf(out, "%s\n", text);
    free(text);
}
