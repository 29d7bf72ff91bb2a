/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated resolver. Answers are built by hand, without the library that the relay decodes
 * them with: RFC 1035 section 4, names never compressed but for pointers to the question.
 *
 * An answer: the header with the query's id and RD, QR and RA set; the question as it came, octet
 * for octet (its letters' case is part of what the relay checks); the rows; for a negative answer a
 * SOA whose MINIMUM is its TTL (RFC 2308).
 *
 * Limits: ROW_MAX rows, CNAME_MAX links of a chain, CONNECTION_MAX TCP connections.
 */
#include "tests/sim/zone.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define ROW_MAX        2048u
#define ZONE_NAME_MAX  256u
#define CNAME_MAX      10u
#define ANSWER_SIZE    4000u
#define HEADER_SIZE    12u
#define QUERY_SIZE_MAX 512u
#define USER_DATAGRAM  1u
#define USER_LISTENER  2u
#define USER_STREAM    3u
#define NEGATIVE_TTL   60u
#define POOL_COUNT     512u

enum { TYPE_A = 1, TYPE_CNAME = 5, TYPE_SOA = 6, TYPE_MX = 15, TYPE_AAAA = 28 };

static const struct {
    const char *name;
    uint16_t type;
} type_names[] = {{"A", TYPE_A}, {"AAAA", TYPE_AAAA}, {"MX", TYPE_MX}, {"CNAME", TYPE_CNAME}};

static const char *const result_names[] = {
    [ZONE_DATA] = "",           [ZONE_NXDOMAIN] = "NXDOMAIN", [ZONE_SERVFAIL] = "SERVFAIL",
    [ZONE_TIMEOUT] = "TIMEOUT", [ZONE_NODATA] = "NODATA",     [ZONE_TRUNCATED] = "TRUNCATED"};

struct zone_row {
    char name[ZONE_NAME_MAX]; /* without final dot */
    char target[ZONE_NAME_MAX];
    uint16_t type, preference;
    enum zone_result result;
    uint32_t ttl;
    struct flow_address address;
};

struct zone {
    struct net_sim *net;
    struct buf_pool *pool;
    struct flow_plane *plane;
    struct flow datagram, listener;
    struct flow_address address;
    struct zone_row rows[ROW_MAX];
    uint32_t row_count;
    uint32_t silence, servfail;
    struct rng *rng;
};

struct answer {
    uint8_t octets[ANSWER_SIZE];
    uint32_t size;
    uint16_t count; /* of answer records */
    enum zone_result result;
};

/* ---- rows ---- */

static void name_copy(char ret_name[ZONE_NAME_MAX], const char *name)
{
    snprintf(ret_name, ZONE_NAME_MAX, "%s", name);
    size_t size = strlen(ret_name);
    if (size > 0 && ret_name[size - 1] == '.')
        ret_name[size - 1] = '\0';
}

static bool row_set_data(struct zone_row *row, const char *data)
{
    unsigned preference;
    int used = 0;

    for (uint32_t i = ZONE_NXDOMAIN; i < COUNT_OF(result_names); i++) {
        if (strcmp(data, result_names[i]) == 0) {
            row->result = (enum zone_result)i;
            return true;
        }
    }
    switch (row->type) {
    case TYPE_A:
    case TYPE_AAAA:
        return flow_address_parse_ip(span_from_text(data), &row->address) == ERR_OK &&
               (row->address.family == FLOW_FAMILY_IP4) == (row->type == TYPE_A);
    case TYPE_MX:
        if (sscanf(data, "%u %n", &preference, &used) != 1 || preference > UINT16_MAX || used == 0)
            return false;
        row->preference = (uint16_t)preference;
        name_copy(row->target, data + used);
        return true;
    default:
        name_copy(row->target, data);
        return true;
    }
}

bool zone_add(struct zone *zone, const char *name, const char *type, const char *data, uint32_t ttl)
{
    struct zone_row row = {.ttl = ttl};

    CHECK(zone->row_count < ROW_MAX);
    name_copy(row.name, name);
    for (uint32_t i = 0; i < COUNT_OF(type_names); i++) {
        if (strcmp(type, type_names[i].name) == 0)
            row.type = type_names[i].type;
    }
    if (row.type == 0 || !row_set_data(&row, data))
        return false;
    zone->rows[zone->row_count++] = row;
    return true;
}

void zone_clear(struct zone *zone, const char *name)
{
    char wanted[ZONE_NAME_MAX];
    uint32_t kept = 0;

    name_copy(wanted, name);
    for (uint32_t i = 0; i < zone->row_count; i++) {
        if (strcasecmp(zone->rows[i].name, wanted) != 0)
            zone->rows[kept++] = zone->rows[i];
    }
    zone->row_count = kept;
}

void zone_set_faults(struct zone *zone, uint32_t silence, uint32_t servfail, struct rng *rng)
{
    zone->silence = silence;
    zone->servfail = servfail;
    zone->rng = rng;
}

/* ---- building answers ---- */

static void put_octets(struct answer *answer, const void *octets, uint32_t size)
{
    CHECK(answer->size + size <= sizeof(answer->octets));
    memcpy(answer->octets + answer->size, octets, size);
    answer->size += size;
}

static void put_u16(struct answer *answer, uint16_t value)
{
    uint8_t octets[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    put_octets(answer, octets, sizeof(octets));
}

static void put_u32(struct answer *answer, uint32_t value)
{
    put_u16(answer, (uint16_t)(value >> 16));
    put_u16(answer, (uint16_t)value);
}

static void put_name(struct answer *answer, const char *name)
{
    while (*name != '\0') {
        size_t size = strcspn(name, ".");
        uint8_t label = (uint8_t)size;
        CHECK(size < 64);
        put_octets(answer, &label, 1);
        put_octets(answer, name, (uint32_t)size);
        name += size + (name[size] == '.');
    }
    put_octets(answer, "", 1);
}

static void put_record(struct answer *answer, const char *name, uint16_t type, uint32_t ttl,
                       const struct zone_row *row)
{
    put_name(answer, name);
    put_u16(answer, type);
    put_u16(answer, 1);
    put_u32(answer, ttl);
    uint32_t size_at = answer->size;
    put_u16(answer, 0);
    if (type == TYPE_A)
        put_octets(answer, row->address.ip, 4);
    if (type == TYPE_AAAA)
        put_octets(answer, row->address.ip, 16);
    if (type == TYPE_MX)
        put_u16(answer, row->preference);
    if (type == TYPE_MX || type == TYPE_CNAME)
        put_name(answer, row->target);
    if (type == TYPE_SOA) {
        put_name(answer, "ns.example");
        put_name(answer, "hostmaster.example");
        for (uint32_t i = 0; i < 5; i++) /* the fifth is MINIMUM */
            put_u32(answer, NEGATIVE_TTL);
    }
    uint32_t size = answer->size - size_at - 2;
    answer->octets[size_at] = (uint8_t)(size >> 8);
    answer->octets[size_at + 1] = (uint8_t)size;
}

/* Adds the rows of one name. Returns the CNAME to go on with, or NULL. */
static const char *answer_add_rows(const struct zone *zone, struct answer *answer, const char *name,
                                   uint16_t type)
{
    bool has_name = false, has_data = false;

    for (uint32_t i = 0; i < zone->row_count; i++) {
        const struct zone_row *row = &zone->rows[i];
        if (strcasecmp(row->name, name) != 0)
            continue;
        has_name = true;
        bool is_link = row->type == TYPE_CNAME && type != TYPE_CNAME && row->result == ZONE_DATA;
        if (row->type != type && !is_link)
            continue;
        if (row->result != ZONE_DATA)
            answer->result = row->result;
        if (row->result != ZONE_DATA)
            continue;
        put_record(answer, name, row->type, row->ttl, row);
        answer->count++;
        has_data = true;
        if (is_link)
            return row->target;
    }
    if (answer->result == ZONE_DATA && !has_data)
        answer->result = has_name ? ZONE_NODATA : ZONE_NXDOMAIN;
    return NULL;
}

static void answer_build(const struct zone *zone, struct answer *answer, const char *name,
                         uint16_t type)
{
    const char *at = name;

    for (uint32_t i = 0; i < CNAME_MAX && at != NULL; i++)
        at = answer_add_rows(zone, answer, at, type);
}

/* The question's name and type, and its end; false when the packet is no query. */
static bool query_parse(struct span query, char ret_name[ZONE_NAME_MAX], uint16_t *ret_type,
                        uint32_t *ret_end)
{
    uint32_t at = HEADER_SIZE, size = 0;

    if (query.size < HEADER_SIZE + 5 || query.data[4] != 0 || query.data[5] != 1)
        return false;
    while (at < query.size && query.data[at] != 0) {
        uint32_t label = query.data[at];
        if (label > 63 || at + 1 + label >= query.size || size + label + 1 >= ZONE_NAME_MAX)
            return false;
        if (size > 0)
            ret_name[size++] = '.';
        memcpy(ret_name + size, query.data + at + 1, label);
        size += label;
        at += 1 + label;
    }
    ret_name[size] = '\0';
    if (at + 5 > query.size)
        return false;
    *ret_type = (uint16_t)(query.data[at + 1] << 8 | query.data[at + 2]);
    *ret_end = at + 5;
    return true;
}

static bool zone_chance(struct zone *zone, uint32_t per_million)
{
    return per_million > 0 && rng_below(zone->rng, 1000000) < per_million;
}

/* False: no answer. */
static bool zone_answer(struct zone *zone, struct span query, bool is_datagram,
                        struct answer *answer)
{
    static const uint8_t codes[] = {[ZONE_DATA] = 0,    [ZONE_NXDOMAIN] = 3, [ZONE_SERVFAIL] = 2,
                                    [ZONE_TIMEOUT] = 0, [ZONE_NODATA] = 0,   [ZONE_TRUNCATED] = 0};
    char name[ZONE_NAME_MAX];
    uint16_t type;
    uint32_t end;

    *answer = (struct answer){.result = ZONE_DATA};
    if (!query_parse(query, name, &type, &end) || zone_chance(zone, zone->silence))
        return false;
    put_octets(answer, query.data, end);
    answer_build(zone, answer, name, type);
    if (zone_chance(zone, zone->servfail))
        answer->result = ZONE_SERVFAIL;
    if (answer->result == ZONE_TIMEOUT)
        return false;
    bool is_truncated = answer->result == ZONE_TRUNCATED && is_datagram;
    if (is_truncated || answer->result == ZONE_SERVFAIL) {
        answer->size = end;
        answer->count = 0;
    }
    uint16_t authority = 0;
    if (answer->result == ZONE_NXDOMAIN || answer->result == ZONE_NODATA) {
        put_record(answer, "example", TYPE_SOA, NEGATIVE_TTL, NULL);
        authority = 1;
    }
    answer->octets[2] = (uint8_t)(0x80 | (query.data[2] & 0x01) | (is_truncated ? 0x02 : 0));
    answer->octets[3] = (uint8_t)(0x80 | codes[answer->result]);
    const uint16_t counts[] = {1, answer->count, authority, 0};
    for (uint32_t i = 0; i < COUNT_OF(counts); i++) {
        answer->octets[4 + 2 * i] = (uint8_t)(counts[i] >> 8);
        answer->octets[5 + 2 * i] = (uint8_t)counts[i];
    }
    return true;
}

/* ---- transport ---- */

static void zone_on_datagrams(struct zone *zone)
{
    struct flow_address from;
    struct span query = {NULL, 0};
    struct answer answer;

    while (net_sim_receive_datagram(zone->net, zone->plane, zone->datagram, &from, &query) !=
           ERR_AGAIN) {
        if (query.size <= QUERY_SIZE_MAX && zone_answer(zone, query, true, &answer))
            net_sim_send_datagram(zone->net, zone->plane, &zone->address, &from,
                                  span_of(answer.octets, answer.size));
        query = (struct span){NULL, 0};
    }
}

static void zone_on_stream(struct zone *zone, const struct flow_event *event)
{
    struct answer answer;

    while (flow_readable(zone->plane, event->flow) >= 2) {
        struct span head = flow_pull(zone->plane, event->flow, 2);
        uint32_t size = (uint32_t)(head.data[0] << 8 | head.data[1]);
        if (size > QUERY_SIZE_MAX) {
            flow_abort(zone->plane, event->flow);
            return;
        }
        if (flow_readable(zone->plane, event->flow) < size + 2)
            break;
        struct span query = span_skip(flow_pull(zone->plane, event->flow, size + 2), 2);
        if (zone_answer(zone, query, false, &answer)) {
            struct span_mut room = flow_reserve(zone->plane, event->flow, answer.size + 2);
            CHECK(room.data != NULL);
            room.data[0] = (uint8_t)(answer.size >> 8);
            room.data[1] = (uint8_t)answer.size;
            memcpy(room.data + 2, answer.octets, answer.size);
            flow_commit(zone->plane, event->flow, answer.size + 2);
        }
        flow_consume(zone->plane, event->flow, size + 2);
    }
    if (event->events & (FLOW_PEER_CLOSED | FLOW_RESET))
        flow_close(zone->plane, event->flow);
}

void zone_turn(struct zone *zone)
{
    struct flow_event events[32];
    struct flow_address peer;
    struct flow flow;
    tick_us now = net_sim_now(zone->net);

    uint32_t count = flow_poll(zone->plane, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++) {
        if (events[i].user == USER_DATAGRAM)
            continue;
        if (events[i].user == USER_STREAM)
            zone_on_stream(zone, &events[i]);
        else
            while (flow_accept(zone->plane, zone->listener, USER_STREAM, &flow, &peer) == ERR_OK)
                continue;
    }
    zone_on_datagrams(zone);
    flow_flush(zone->plane, now);
}

struct zone *zone_new(struct net_sim *net, const struct flow_address *address)
{
    struct zone *zone = calloc(1, sizeof(*zone));
    CHECK(zone != NULL);

    zone->net = net;
    zone->address = *address;
    zone->address.port = 53;
    zone->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = ANSWER_SIZE + 2, .count_max = POOL_COUNT, .backing = BUF_BACKING_SLAB});
    zone->plane =
        net_sim_plane_new(net, &(struct net_sim_plane_options){.pool = zone->pool,
                                                               .flow_count_max = POOL_COUNT,
                                                               .orphan_time = TICK_S(1),
                                                               .address4 = zone->address,
                                                               .address6 = zone->address});
    enum err err =
        net_sim_open_datagram(net, zone->plane, &zone->address, USER_DATAGRAM, &zone->datagram);
    CHECK(err == ERR_OK);
    err = flow_listen(
        zone->plane, &(struct flow_listen_options){.address = zone->address, .user = USER_LISTENER},
        &zone->listener);
    CHECK(err == ERR_OK);
    return zone;
}

void zone_free(struct zone *zone)
{
    flow_plane_free(zone->plane);
    buf_pool_free(zone->pool);
    free(zone);
}
