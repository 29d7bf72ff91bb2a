/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet script may look at inside the stack: rows of `angarium flows`, counters, usage. */
#include "tests/wire/script.h"

static bool flow_row(struct script *script, const struct script_peer *peer,
                     struct stack_flow_row *ret_row)
{
    struct stack_flow_row rows[32];
    uint64_t cursor = 0;
    uint32_t count;

    while ((count = stack_flows(script->world->stack, &cursor, rows, COUNT_OF(rows))) > 0) {
        for (uint32_t i = 0; i < count; i++) {
            if (flow_address_is_equal(&rows[i].remote, &peer->remote) &&
                rows[i].local.port == peer->local.port) {
                *ret_row = rows[i];
                return true;
            }
        }
    }
    return false;
}

bool script_state(struct script *script, struct script_peer *peer, const char *argument)
{
    struct stack_flow_row row = {.state = "none"};
    char word[SCRIPT_LINE_MAX];

    if (!script_word(&argument, word))
        return script_fail(script, "state NAME");
    (void)flow_row(script, peer, &row);
    return strcmp(row.state, word) == 0 ||
           script_fail(script, "%s is in state %s", peer->name, row.state);
}

/* A number of `angarium flows`. False: no such field. */
static bool row_field(const struct stack_flow_row *row, const char *name, uint64_t *ret_value)
{
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {{"flight", row->in_flight},
                  {"cwnd", row->window_congestion},
                  {"peer_window", row->window_peer},
                  {"mss", row->mss},
                  {"rtt", row->rtt_us},
                  {"rto", row->rto_us},
                  {"retransmitted", row->retransmitted},
                  {"lost", row->lost},
                  {"received", row->octets_received},
                  {"queued", row->receive_queued}};

    for (uint32_t i = 0; i < COUNT_OF(fields); i++) {
        if (strcmp(fields[i].name, name) == 0) {
            *ret_value = fields[i].value;
            return true;
        }
    }
    return false;
}

bool script_field(struct script *script, struct script_peer *peer, const char *name,
                  const char *argument)
{
    struct stack_flow_row row = {0};
    uint64_t value;
    bool holds;

    if (!row_field(&row, name, &value))
        return script_fail(script, "what is `%s`?", name);
    if (!flow_row(script, peer, &row))
        return script_fail(script, "%s is no connection", peer->name);
    (void)row_field(&row, name, &value);
    if (!script_compare(&argument, value, &holds))
        return script_fail(script, "%s OP VALUE", name);
    return holds || script_fail(script, "%s is %llu", name, (unsigned long long)value);
}

bool script_counter(struct script *script, const char *argument)
{
    char name[SCRIPT_LINE_MAX];
    bool holds;

    if (!script_word(&argument, name) || !script_wait(script))
        return script_fail(script, "counter NAME OP N");
    for (uint32_t i = 0; i < STACK_COUNTER_COUNT; i++) {
        if (strcmp(stack_counter_name((enum stack_counter)i), name) != 0)
            continue;
        uint64_t value = stack_counter(script->world->stack, (enum stack_counter)i);
        if (!script_compare(&argument, value, &holds))
            return script_fail(script, "counter NAME OP N");
        return holds || script_fail(script, "%s is %llu", name, (unsigned long long)value);
    }
    return script_fail(script, "there is no counter %s", name);
}

bool script_usage(struct script *script, const char *argument)
{
    char name[SCRIPT_LINE_MAX];
    bool holds;

    if (!script_word(&argument, name) || !script_wait(script))
        return script_fail(script, "usage NAME OP N");
    struct stack_usage usage = stack_get_usage(script->world->stack);
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {{"connections", usage.connections},
                {"half_open", usage.half_open},
                {"time_wait", usage.time_wait},
                {"orphans", usage.orphans},
                {"neighbours", usage.neighbours},
                {"destinations", usage.destinations},
                {"datagram_flows", usage.datagram_flows},
                {"out_of_order_buffers", usage.out_of_order_buffers},
                {"sent_segments", usage.sent_segments},
                {"frames_waiting", usage.frames_waiting},
                {"memory", usage.memory},
                {"receive_buffers", buf_pool_in_use(script->world->receive_pool)},
                {"buffers", buf_pool_in_use(script->world->pool)}};
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        if (strcmp(rows[i].name, name) != 0)
            continue;
        if (!script_compare(&argument, rows[i].value, &holds))
            return script_fail(script, "usage NAME OP N");
        return holds || script_fail(script, "%s is %llu", name, (unsigned long long)rows[i].value);
    }
    return script_fail(script, "nothing is called %s", name);
}
