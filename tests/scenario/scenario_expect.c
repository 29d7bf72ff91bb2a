/* SPDX-License-Identifier: Apache-2.0 */
/* Counters and records that a scenario expects. */
#include <stdio.h>
#include <stdlib.h>

#include "relay/bounce_class.h"
#include "tests/scenario/scenario.h"

/* ---- counters ---- */

#define COUNTER(name, field)                                                                       \
    {                                                                                              \
        name, offsetof(struct shard_status, field), sizeof(((struct shard_status *)0)->field)      \
    }

static const struct {
    const char *name;
    size_t offset, size;
} counters[] = {
    COUNTER("server.sessions", server.sessions),
    COUNTER("server.refused", server.refused),
    COUNTER("server.open", server.open),
    COUNTER("server.logins", server.auth.accepted),
    COUNTER("server.logins_rejected", server.auth.rejected),
    COUNTER("server.logins_locked", server.auth.locked),
    COUNTER("server.braked", server.brakes.connections),
    COUNTER("server.signed", server.dkim.messages),
    COUNTER("server.gate_waits", server.gate_waits),
    COUNTER("server.sign_waits", server.sign_waits),
    COUNTER("server.malformed", server.dkim.malformed),
    COUNTER("server.accepted", server.messages_accepted),
    COUNTER("server.rejected", server.messages_rejected),
    COUNTER("server.pools_unknown", server.pools_unknown),
    COUNTER("server.timeouts", server.timeouts),
    COUNTER("server.desynchronised", server.desynchronised),
    COUNTER("client.connections", client.connections),
    COUNTER("client.reused", client.reused),
    COUNTER("client.followed", client.followed),
    COUNTER("client.bdat_ahead", client.bdat_ahead),
    COUNTER("client.shied", client.shied),
    COUNTER("client.open", client.open),
    COUNTER("client.idle", client.idle),
    COUNTER("client.transactions", client.transactions),
    COUNTER("client.uncertain", client.uncertain),
    COUNTER("client.desynchronised", client.desynchronised),
    COUNTER("queue.messages", queue.messages),
    COUNTER("queue.waiting", queue.deliveries_waiting),
    COUNTER("queue.active", queue.deliveries_active),
    COUNTER("queue.held", queue.deliveries_held),
    COUNTER("queue.quota_held", queue.quota_held),
    COUNTER("queue.quota_messages", queue.quota_messages),
    COUNTER("queue.unreadable", queue.unreadable),
    COUNTER("queue.deferrals", queue.deferrals),
    COUNTER("queue.notices", queue.dsns),
    COUNTER("queue.double_bounces", queue.double_bounces),
    COUNTER("spool.live", spool.messages_live),
    COUNTER("spool.commits", spool.commits),
    COUNTER("spool.voids", spool.voids),
    COUNTER("spool.stuck", spool.is_stuck),
    COUNTER("spool.recovered", spool.messages_recovered),
    COUNTER("dns.queries", dns.queries_udp),
    COUNTER("dns.tcp", dns.queries_tcp),
    COUNTER("dns.wrong", dns.wrong_packets),
    COUNTER("dns.hits", dns.hits),
    COUNTER("dns.stale", dns.stale_served),
    COUNTER("dns.timeouts", dns.timeouts),
    COUNTER("relay.flows", flow.flows),
    COUNTER("relay.handovers", handovers),
    COUNTER("ways.unstored", ways.unstored),
    COUNTER("ways.in_doubt", ways.in_doubt),
#define X(symbol, name, meaning) COUNTER("ways." #name, ways.name),
#include "queue/way.def"
#undef X
    COUNTER("relay.violations", invariant_violations),
};

static const struct {
    const char *name;
    enum record_kind kind;
} record_kinds[] = {{"reception", RECORD_RECEPTION}, {"delivery", RECORD_DELIVERY},
                    {"deferral", RECORD_DEFERRAL},   {"bounce", RECORD_BOUNCE},
                    {"expiry", RECORD_EXPIRY},       {"rejection", RECORD_REJECTION},
                    {"order", RECORD_ORDER}};

static uint16_t record_kind_find(const char *name)
{
    for (uint32_t i = 0; i < COUNT_OF(record_kinds); i++) {
        if (strcmp(name, record_kinds[i].name) == 0)
            return (uint16_t)record_kinds[i].kind;
    }
    return 0;
}

bool scenario_counter(const struct scenario *scenario, const char *name, uint64_t *ret_value)
{
    *ret_value = 0;
    if (strncmp(name, "records.", 8) == 0) {
        uint16_t kind = record_kind_find(name + 8);
        for (uint32_t i = 0; i < scenario->record_count; i++)
            *ret_value += scenario->records[i].kind == kind;
        return kind != 0;
    }
    for (uint32_t i = 0; i < COUNT_OF(counters); i++) {
        if (strcmp(name, counters[i].name) != 0)
            continue;
        for (uint32_t shard = 0; scenario->node != NULL && shard < node_shard_count(scenario->node);
             shard++) {
            struct shard_status status = node_status(scenario->node, shard);
            const char *field = (const char *)&status + counters[i].offset;
            uint32_t value32;
            uint64_t value64;
            memcpy(&value32, field, sizeof(value32));
            memcpy(&value64, field, counters[i].size == 8 ? sizeof(value64) : sizeof(value32));
            *ret_value += counters[i].size == 8 ? value64 : value32;
        }
        return true;
    }
    return false;
}

struct expectation {
    char name[64], operator[4];
    unsigned long long wanted;
};

static bool expectation_is_met(const struct scenario *scenario, const void *argument)
{
    const struct expectation *expectation = argument;
    uint64_t value;

    if (!scenario_counter(scenario, expectation->name, &value))
        return true;
    if (strcmp(expectation->operator, "==") == 0)
        return value == expectation->wanted;
    if (strcmp(expectation->operator, "!=") == 0)
        return value != expectation->wanted;
    if (strcmp(expectation->operator, "<=") == 0)
        return value <= expectation->wanted;
    if (strcmp(expectation->operator, ">=") == 0)
        return value >= expectation->wanted;
    return expectation->operator[0] == '<' ? value < expectation->wanted
                                           : value> expectation->wanted;
}

bool scenario_expect(struct scenario *scenario, const char *argument)
{
    struct expectation expectation = {0};
    uint64_t value;

    if (!scenario_begin(scenario))
        return false;
    if (sscanf(argument, "%63s %3[<>=!] %llu", expectation.name,
               expectation.operator, & expectation.wanted) != 3)
        return scenario_fail(scenario, "expect NAME == N");
    if (!scenario_counter(scenario, expectation.name, &value))
        return scenario_fail(scenario, "there is no counter %s", expectation.name);
    if (scenario_run(scenario, scenario->patience, expectation_is_met, &expectation))
        return true;
    if (scenario->has_failed)
        return false;
    (void)scenario_counter(scenario, expectation.name, &value);
    return scenario_fail(scenario, "expected %s, got %llu", argument, (unsigned long long)value);
}

/* ---- records ---- */

void scenario_record_emit(void *context, const struct record *record)
{
    struct scenario *scenario = context;

    if (scenario->record_count == SCENARIO_RECORD_MAX)
        return;
    scenario->records[scenario->record_count++] = *record;
    scenario_note(scenario, "* record %s code=%u enhanced=%u.%u.%u recipient=%s text=%s",
                  record_kinds[record->kind - 1].name, record->code, record->enhanced[0],
                  record->enhanced[1], record->enhanced[2], record->recipient, record->text);
}

/* ---- their sink ---- */

static uint64_t sink_emitted(void *context)
{
    const struct scenario *scenario = context;

    return scenario->record_count;
}

static uint64_t sink_kept(void *context)
{
    const struct scenario *scenario = context;

    return scenario->sink.is_losing ? scenario->sink.kept : scenario->record_count;
}

static wall_us sink_since(void *context)
{
    const struct scenario *scenario = context;

    return scenario->sink.since;
}

static void sink_replayed(void *context)
{
    struct scenario *scenario = context;

    if (!scenario->sink.is_losing)
        scenario->sink.since = INT64_MAX;
}

static bool sink_is_behind(void *context)
{
    const struct scenario *scenario = context;

    return scenario->sink.is_behind;
}

struct record_sink scenario_sink_get(struct scenario *scenario)
{
    static const struct record_holder holder = {sink_emitted, sink_kept, sink_since, sink_replayed};

    return (struct record_sink){
        .emit = scenario_record_emit,
        .context = scenario,
        .is_behind = sink_is_behind,
        .holder = &holder,
        .is_holding = scenario->sink.is_holding,
    };
}

bool scenario_sink(struct scenario *scenario, const char *argument)
{
    const struct tick_source *clock = net_sim_clock(scenario->net);

    if (strcmp(argument, "hold") == 0) {
        scenario->sink.is_holding = true;
        return !scenario->has_begun || scenario_fail(scenario, "the relay runs already");
    }
    if (strcmp(argument, "keep") != 0 && strcmp(argument, "lose") != 0 &&
        strcmp(argument, "stall") != 0)
        return scenario_fail(scenario, "records hold|keep|lose|stall");
    bool is_losing = strcmp(argument, "keep") != 0;
    if (is_losing && !scenario->sink.is_losing) {
        scenario->sink.kept = scenario->record_count;
        scenario->sink.since = clock->wall(clock->context);
    }
    scenario->sink.is_losing = is_losing;
    scenario->sink.is_behind = strcmp(argument, "stall") == 0;
    return scenario_begin(scenario);
}

static bool record_field(const struct record *record, const char *field, char *ret_value,
                         size_t size)
{
    char event[RECORD_EVENT_SIZE];

    *ret_value = '\0';
    if (strcmp(field, "code") == 0)
        snprintf(ret_value, size, "%u", record->code);
    else if (strcmp(field, "attempts") == 0)
        snprintf(ret_value, size, "%u", record->attempts);
    else if (strcmp(field, "enhanced") == 0)
        snprintf(ret_value, size, "%u.%u.%u", record->enhanced[0], record->enhanced[1],
                 record->enhanced[2]);
    else if (strcmp(field, "sender") == 0)
        snprintf(ret_value, size, "%s", record->sender);
    else if (strcmp(field, "user") == 0)
        snprintf(ret_value, size, "%s", record->user);
    else if (strcmp(field, "recipient") == 0)
        snprintf(ret_value, size, "%s", record->recipient);
    else if (strcmp(field, "host") == 0)
        snprintf(ret_value, size, "%s", record->host);
    else if (strcmp(field, "source") == 0)
        snprintf(ret_value, size, "%s", record->source_name);
    else if (strcmp(field, "text") == 0)
        snprintf(ret_value, size, "%s", record->text);
    else if (strcmp(field, "way") == 0)
        snprintf(ret_value, size, "%s", way_name((enum way)record->way));
    else if (strcmp(field, "passed_on") == 0)
        snprintf(ret_value, size, "%d", (record->flags & RECORD_PASSED_ON) != 0);
    else if (strcmp(field, "replayed") == 0)
        snprintf(ret_value, size, "%d", (record->flags & RECORD_REPLAYED) != 0);
    else if (strcmp(field, "event") == 0) /* without the id, which no file can know */
        snprintf(ret_value, size, "%s", strrchr(record_event_format(record, event), '-') + 1);
    else if (strcmp(field, "class") == 0)
        snprintf(ret_value, size, "%s",
                 bounce_class_name(bounce_classify(record->code, record->enhanced,
                                                   span_from_text(record->text))));
    else
        return false;
    return true;
}

struct record_wait {
    uint16_t kind;
    uint32_t from;
};

static const struct record *record_find(const struct scenario *scenario, uint16_t kind,
                                        uint32_t from)
{
    for (uint32_t i = from; i < scenario->record_count; i++) {
        if (scenario->records[i].kind == kind)
            return &scenario->records[i];
    }
    return NULL;
}

static bool record_has_come(const struct scenario *scenario, const void *argument)
{
    const struct record_wait *wait = argument;
    return record_find(scenario, wait->kind, wait->from) != NULL;
}

static bool record_compare(struct scenario *scenario, const struct record *record, char *fields)
{
    char value[512], *rest = NULL;

    for (char *field = strtok_r(fields, " ", &rest); field != NULL;
         field = strtok_r(NULL, " ", &rest)) {
        char *pattern = strchr(field, '=');
        if (pattern == NULL)
            return scenario_fail(scenario, "record: `%s` is not FIELD=PATTERN", field);
        *pattern++ = '\0';
        if (!record_field(record, field, value, sizeof(value)))
            return scenario_fail(scenario, "a record has no field %s", field);
        if (!scenario_matches(pattern, value))
            return scenario_fail(scenario, "expected %s=%s\n#   got: %s=%s", field, pattern, field,
                                 value);
    }
    return true;
}

bool scenario_record(struct scenario *scenario, const char *argument)
{
    char kind_name[16], fields[1024];
    int used = 0;

    if (sscanf(argument, "%15s %n", kind_name, &used) != 1 || record_kind_find(kind_name) == 0)
        return scenario_fail(scenario, "record KIND FIELD=PATTERN ...");
    struct record_wait wait = {.kind = record_kind_find(kind_name)};
    wait.from = scenario->record_next[wait.kind];
    if (!scenario_run(scenario, scenario->patience, record_has_come, &wait)) {
        if (scenario->has_failed)
            return false;
        return scenario_fail(scenario, "expected a record %s, got none", kind_name);
    }
    const struct record *record = record_find(scenario, wait.kind, wait.from);
    scenario->record_next[wait.kind] = (uint32_t)(record - scenario->records) + 1;
    snprintf(fields, sizeof(fields), "%s", argument + used);
    return record_compare(scenario, record, fields);
}
