/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any header in any pieces: the reader gives the same content and the same values as for one piece,
 * what it cuts out is gone, and a second reading finds nothing more to cut. No line is left that
 * could be read as a lenient field. The first octet says how large the pieces are, whether what is
 * missing is added, and whether bare line ends are mended.
 */
#include <stdlib.h>

#include "relay/header_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define POOL "X-Pool"

static const struct header_names names = {
    .fields = {[HEADER_CLASS] = {"X-Class", true, false},
               [HEADER_POOL] = {POOL, true, true},
               [HEADER_LIST_UNSUBSCRIBE] = {"X-Class-List", false, false},
               [HEADER_PRECEDENCE] = {"X", false, false},
               [HEADER_DATE] = {"Date", false, false},
               [HEADER_MESSAGE_ID] = {"Message-ID", false, false}}};
static const struct header_completion completion = {
    .date = {(const uint8_t *)"Date: d\r\n\r\n", 11},
    .message_id = {(const uint8_t *)"Message-ID: <m>\r\n\r\n", 19},
    .both = {(const uint8_t *)"Date: d\r\nMessage-ID: <m>\r\n\r\n", 28}};
static bool is_completing;

struct result {
    struct header_reader reader;
    uint8_t *content;
    uint32_t size;
};

static void add(struct result *result, struct span octets)
{
    if (octets.size > 0)
        memcpy(result->content + result->size, octets.data, octets.size);
    result->size += octets.size;
}

static void read_through(struct span left, uint32_t piece, bool is_normalizing,
                         struct result *result)
{
    struct span before = {0};
    struct smtp_body body;
    bool is_borrowed;

    result->size = 0;
    result->content = malloc(2ull * left.size + 64);
    CHECK(result->content != NULL);
    smtp_body_init(&body, false, is_normalizing, 1000, SMTP_BODY_BEST);
    header_reader_init(&result->reader, &names);
    if (is_completing)
        header_reader_complete(&result->reader, &completion);
    while (left.size > 0) {
        struct span part = span_head(left, left.size < piece ? left.size : piece);
        part = span_head(part, header_reader_wants(&result->reader, part));
        CHECK(part.size > 0);
        struct smtp_body_step step = smtp_body_scan(&body, part);
        step = header_reader_step(&result->reader, part, &step, &is_borrowed);
        add(result, span_head(part, step.pass));
        left = span_skip(left, step.pass + step.skip);
        before = step.insert;
        if (left.size > 0)
            add(result, before);
    }
    add(result, header_reader_finish(&result->reader, before, smtp_body_finish(&body)));
}

static bool is_pool(struct span line)
{
    uint32_t size = (uint32_t)strlen(POOL);

    return line.size > size && span_is_equal_nocase(span_head(line, size), SPAN_LITERAL(POOL)) &&
           (line.data[size] == ':' || line.data[size] == ' ' || line.data[size] == '\t');
}

static void check_lines(struct span text)
{
    while (text.size > 0 &&
           !span_is_equal(span_head(text, text.size < 2 ? 0 : 2), SPAN_LITERAL("\r\n"))) {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        CHECK(!is_pool(text));
        text = span_skip(text, end == NULL ? text.size : (uint32_t)(end - text.data) + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct result whole, split, again;

    if (size < 1 || size > 65536)
        return 0;
    struct span text = span_of(data + 1, (uint32_t)size - 1);
    uint32_t piece = 1 + (data[0] & 0x3fu);
    is_completing = (data[0] & 0x40) != 0;
    read_through(text, UINT32_MAX, data[0] & 0x80, &whole);
    read_through(text, piece, data[0] & 0x80, &split);
    CHECK(span_is_equal(span_of(whole.content, whole.size), span_of(split.content, split.size)));
    for (uint32_t i = 0; i < HEADER_FIELD_COUNT; i++) {
        CHECK(header_reader_has(&whole.reader, i) == header_reader_has(&split.reader, i));
        CHECK(header_reader_is_clear(&whole.reader, i) == header_reader_is_clear(&split.reader, i));
        CHECK(span_is_equal(header_reader_value(&whole.reader, i),
                            header_reader_value(&split.reader, i)));
    }
    check_lines(span_of(whole.content, whole.size));
    if (data[0] & 0x80) { /* else a bare LF or CR may begin a line for one reader only */
        read_through(span_of(whole.content, whole.size), piece, true, &again);
        CHECK(!header_reader_has(&again.reader, HEADER_CLASS));
        free(again.content);
    }
    free(whole.content);
    free(split.content);
    return 0;
}
