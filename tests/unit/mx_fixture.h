/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_MX_FIXTURE_H
#define TESTS_UNIT_MX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/dns_fake.h"

/* One shard's resolver on a plane of the test's own, its zone as rows, and a clock. */
struct fixture {
    struct fake *fake;
    struct dns *dns;
    struct rng rng;
    struct tick_now now;
    uint32_t wakes;
    uint64_t woken[64];
    struct mx_policy policy;
};

void fixture_init(struct fixture *f, const struct fake_row *rows, uint32_t row_count);
void fixture_fini(struct fixture *f);
void pass(struct fixture *f, tick_us time);
/** Answer what is asked; let time pass while questions are open, at most a minute. */
void settle(struct fixture *f);
/** Look up to the end. */
void look_up(struct fixture *f, const char *domain, struct mx_answer *ret_answer);
/** "mx1.example=192.0.2.1,2001:db8::1 mx2.example=... +name without an address" */
void answer_format(const struct mx_answer *answer, char *ret_text, size_t size);

#define A    DNS_TYPE_A
#define AAAA DNS_TYPE_AAAA
#define MX   DNS_TYPE_MX
#define CN   DNS_TYPE_CNAME

#endif
