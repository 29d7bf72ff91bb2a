/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers on the path of every message: replies of the next hop. */
#include "bench/micro/harness.h"

#include <stdlib.h>

#include "relay/smtp_reply.h"

static void *reply_set_up(void)
{
    struct smtp_reply_parser *parser = malloc(sizeof(*parser));

    CHECK(parser != NULL);
    smtp_reply_parser_init(parser);
    return parser;
}

/* What a server says to one message: MAIL, RCPT, DATA, end of data. */
static void reply_parse(void *parser, uint64_t iterations)
{
    static const struct span replies =
        SPAN_LITERAL("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
                     "250 2.0.0 Ok: queued as 4bXyZ12345\r\n");

    for (uint64_t i = 0; i < iterations; i++) {
        for (struct span left = replies; left.size > 0;) {
            uint32_t consumed;

            CHECK(smtp_reply_feed(parser, left, &consumed) == ERR_OK);
            left = span_skip(left, consumed);
        }
    }
}

const struct micro_bench micro_bench_relay[] = {
    {"smtp_reply_parse", reply_set_up, reply_parse, free, 4, 0,
     "replies to MAIL, RCPT, DATA and end of data, per reply, 1 core"},
    {0},
};
