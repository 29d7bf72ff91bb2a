/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of hosts share: one resolver, one zone, one clock. */
#include "tests/unit/mx_fixture.h"

#include <stdio.h>

static void on_wake(void *context, uint64_t user)
{
    struct fixture *f = context;

    f->woken[f->wakes++ % 64] = user;
}

void fixture_init(struct fixture *f, const struct fake_row *rows, uint32_t row_count)
{
    struct dns_options options = {.resolver_count = 1,
                                  .cache_count_max = 512,
                                  .stale_max_s = 3600,
                                  .outstanding_max = 64,
                                  .shard_count = 1,
                                  .context = f,
                                  .wake = on_wake};

    *f = (struct fixture){.now.tick = TICK_S(1000),
                          .policy = {.port = 25, .ipv4 = true, .ipv6 = true}};
    f->fake = fake_new(1);
    f->fake->rows = rows;
    f->fake->row_count = row_count;
    rng_init_seed(&f->rng, 7);
    assert_int_equal(ERR_OK,
                     flow_address_parse_ip(SPAN_LITERAL("127.0.0.1"), &options.resolvers[0]));
    options.resolvers[0].port = 53;
    f->dns = dns_new(&options, &f->fake->plane, &f->rng, f->now);
}

void fixture_fini(struct fixture *f)
{
    dns_free(f->dns);
    fake_free(f->fake);
}

void pass(struct fixture *f, tick_us time)
{
    f->now.tick += time;
    dns_advance(f->dns, f->now);
}

void settle(struct fixture *f)
{
    for (uint32_t i = 0; i < 600; i++) {
        fake_answer_all(f->fake, f->dns, f->now);
        if (dns_get_stats(f->dns).outstanding == 0)
            return;
        pass(f, TICK_MS(100));
    }
    fail_msg("questions stay open");
}

void look_up(struct fixture *f, const char *domain, struct mx_answer *ret_answer)
{
    uint32_t wakes = f->wakes;
    enum err err = mx_lookup(f->dns, &f->policy, span_from_text(domain), 42, f->now, ret_answer);

    if (err == ERR_AGAIN) {
        settle(f);
        assert_int_equal(wakes + 1, f->wakes);
        assert_int_equal(42, f->woken[wakes % 64]);
        err = mx_lookup(f->dns, &f->policy, span_from_text(domain), 42, f->now, ret_answer);
    }
    assert_int_equal(ERR_OK, err);
}

void answer_format(const struct mx_answer *answer, char *ret_text, size_t size)
{
    char ip[FLOW_ADDRESS_TEXT_MAX];
    size_t used = 0;

    ret_text[0] = '\0';
    for (uint32_t i = 0; i < answer->host_count; i++) {
        const struct mx_host *host = &answer->hosts[i];
        used +=
            (size_t)snprintf(ret_text + used, size - used, "%s%s=", i > 0 ? " " : "", host->name);
        for (uint32_t j = 0; j < host->address_count; j++) {
            used += (size_t)snprintf(ret_text + used, size - used, "%s%s", j > 0 ? "," : "",
                                     flow_address_format_ip(&host->addresses[j], ip));
        }
    }
    for (uint32_t i = 0; i < answer->other_count; i++) {
        used += (size_t)snprintf(ret_text + used, size - used, " +%s",
                                 answer->hosts[answer->host_count + i].name);
    }
}
