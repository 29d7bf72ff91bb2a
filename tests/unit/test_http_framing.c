/* SPDX-License-Identifier: Apache-2.0 */
/* Where the body of a request over HTTP ends: one field says it, in the one way that all read
 * alike, or the request is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "control/http_request.h"

#define FIELDS_MAX 3u

struct field {
    const char *name, *value;
};

#define SIZE   "Content-Length"
#define CODING "Transfer-Encoding"

/*= rfc9112#section-6.3
 * If a message is received without Transfer-Encoding and with an invalid Content-Length header
 * field, then the message framing is invalid [...] the server MUST respond with a 400 (Bad Request)
 * status code and then close the connection.
 *= rfc9112#section-5.1
 * No whitespace is allowed between the field name and colon. [...] A server MUST reject, with a
 * response status code of 400 (Bad Request), any received request message that contains whitespace
 * between a header field name and colon. */
static void test_rows(void **state)
{
    static const struct {
        const char *name;
        struct field fields[FIELDS_MAX];
        bool is_plain;
    } rows[] = {
        {"no body", {{"Host", "x"}}, true},
        {"a size", {{"Host", "x"}, {SIZE, "29"}}, true},
        {"a size of nothing", {{SIZE, "0"}}, true},
        {"in small letters", {{"content-length", "29"}}, true},
        {"in chunks", {{CODING, "chunked"}}, true},
        {"in chunks, in large letters", {{"TRANSFER-ENCODING", "Chunked"}}, true},
        {"a list of equal sizes", {{SIZE, "29,29"}}, false},
        {"a list of sizes", {{SIZE, "29, 30"}}, false},
        {"a sign", {{SIZE, "+29"}}, false},
        {"less than nothing", {{SIZE, "-29"}}, false},
        {"a blank behind it", {{SIZE, "29 "}}, false},
        {"a blank before it", {{SIZE, " 29"}}, false},
        {"a tab", {{SIZE, "29\t"}}, false},
        {"a blank in it", {{SIZE, "2 9"}}, false},
        {"of sixteen signs", {{SIZE, "0x1d"}}, false},
        {"a point", {{SIZE, "29.0"}}, false},
        {"no size", {{SIZE, ""}}, false},
        {"no value", {{SIZE, NULL}}, false},
        {"two that are equal", {{SIZE, "29"}, {SIZE, "29"}}, false},
        {"two that are not", {{SIZE, "29"}, {SIZE, "2"}}, false},
        {"two, of different letters", {{SIZE, "29"}, {"content-LENGTH", "2"}}, false},
        {"a good one and a bad one", {{SIZE, "x"}, {"Host", "x"}, {SIZE, "29"}}, false},
        {"a size beside chunks", {{SIZE, "29"}, {CODING, "chunked"}}, false},
        {"chunks beside a size", {{CODING, "chunked"}, {SIZE, "29"}}, false},
        {"chunks twice", {{CODING, "chunked"}, {CODING, "chunked"}}, false},
        {"chunks twice in one", {{CODING, "chunked, chunked"}}, false},
        {"chunks of something", {{CODING, "gzip, chunked"}}, false},
        {"something else", {{CODING, "identity"}}, false},
        {"nearly chunks", {{CODING, "xchunked"}}, false},
        {"chunks, and a blank", {{CODING, "chunked "}}, false},
        {"no coding", {{CODING, ""}}, false},
        {"a blank before the colon", {{"Content-Length ", "29"}}, false},
        {"a tab before the colon", {{"Transfer-Encoding\t", "chunked"}}, false},
        {"a blank in another name", {{"X Y", "1"}}, false},
        {"a control character in a name", {{"X\x0b", "1"}}, false},
        {"no name", {{"", "1"}}, false},
        {"a size in two lines", {{"Content-Length9", "2"}}, false},
        {"a coding in two lines", {{"transfer-encodingchunked", ""}}, false},
        {"nearly the name", {{"Content-Lengt", "x"}}, true},
        {"an end of a line in a value", {{"X", "y\rContent-Length: 29"}}, false},
        {"a control character in a value", {{"X", "\x0b"}}, false},
        {"the last one", {{"X", "\x7f"}}, false},
        {"a tab in a value, and what is no ASCII", {{"X", "a\tb \xc3\xbc~"}}, true},
        {"a name of eight bits", {{"X\xc3\xbc", "1"}}, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct http_framing framing = {0};
        for (uint32_t j = 0; j < FIELDS_MAX && rows[i].fields[j].name != NULL; j++)
            http_framing_add(&framing, rows[i].fields[j].name, rows[i].fields[j].value);
        if (http_framing_is_plain(&framing, "HTTP/1.1") != rows[i].is_plain)
            fail_msg("%s", rows[i].name);
    }
}

/*= rfc9112#section-6.1
 * A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header field
 * MUST treat the message as if the framing is faulty */
static void test_version(void **state)
{
    struct http_framing chunks = {0}, size = {0}, none = {0};

    (void)state;
    http_framing_add(&chunks, CODING, "chunked");
    http_framing_add(&size, SIZE, "29");
    assert_false(http_framing_is_plain(&chunks, "HTTP/1.0"));
    assert_true(http_framing_is_plain(&chunks, "HTTP/1.1"));
    assert_true(http_framing_is_plain(&size, "HTTP/1.0"));
    assert_true(http_framing_is_plain(&none, "HTTP/1.0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_version)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
