/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plane behind dns_fake.h. It keeps what is sent, hands out what the test delivers, and draws
 * local ports from its own generator as a driver does. Not here: poll, listen, and everything else
 * that dns/ does not call.
 */
#include "tests/unit/dns_fake.h"

#include <stdlib.h>

static struct fake *fake_of(struct flow_plane *plane)
{
    return (struct fake *)(void *)plane;
}

static struct fake_flow *flow_get(struct fake *fake, struct flow flow)
{
    CHECK(flow.index < FAKE_FLOW_MAX);
    struct fake_flow *self = &fake->flows[flow.index];
    return self->is_open && self->generation == flow.generation ? self : NULL;
}

static struct fake_flow *flow_open(struct fake *fake, const struct flow_address *remote,
                                   uint64_t user, struct flow *ret_flow)
{
    for (uint32_t i = 0; i < FAKE_FLOW_MAX; i++) {
        struct fake_flow *flow = &fake->flows[i];
        if (flow->is_open)
            continue;
        uint32_t generation = flow->generation + 1;
        *flow = (struct fake_flow){.is_open = true, .generation = generation, .user = user};
        flow->remote = *remote;
        flow->local = (struct flow_address){.family = remote->family};
        flow->local.port = (uint16_t)(1024 + rng_below(&fake->rng, 65536 - 1024));
        flow->error = ERR_AGAIN;
        fake->open_count++;
        *ret_flow = (struct flow){i, generation};
        return flow;
    }
    abort(); /* FAKE_FLOW_MAX is too small for the test */
}

static void query_note(struct fake *fake, struct flow flow, struct span packet)
{
    struct fake_flow *self = flow_get(fake, flow);
    struct fake_query *query = &fake->queries[fake->query_count++ % FAKE_QUERY_MAX];
    uint32_t at = 12, used = 0;

    *query = (struct fake_query){.flow = flow,
                                 .local = self->local,
                                 .remote = self->remote,
                                 .is_tcp = self->is_tcp,
                                 .size = packet.size};
    CHECK(packet.size <= sizeof(query->packet));
    memcpy(query->packet, packet.data, packet.size);
    while (packet.data[at] != 0) {
        uint32_t label = packet.data[at++];
        if (used > 0)
            query->name[used++] = '.';
        for (uint32_t i = 0; i < label; i++, at++) {
            uint8_t octet = packet.data[at];
            query->name[used++] = (char)(octet >= 'A' && octet <= 'Z' ? octet + 32 : octet);
        }
    }
    query->type = (uint16_t)(packet.data[at + 1] << 8 | packet.data[at + 2]);
}

static enum err open_datagram(struct flow_plane *plane, const struct flow_address *local,
                              const struct flow_address *remote, uint64_t user,
                              struct flow *ret_flow)
{
    struct fake *fake = fake_of(plane);

    CHECK(local->family == remote->family && local->port == 0);
    if (fake->open_error != ERR_OK)
        return fake->open_error;
    flow_open(fake, remote, user, ret_flow);
    return ERR_OK;
}

static enum err send_datagram(struct flow_plane *plane, struct flow flow, struct span octets)
{
    struct fake *fake = fake_of(plane);

    if (fake->send_error != ERR_OK)
        return fake->send_error;
    query_note(fake, flow, octets);
    return ERR_OK;
}

static void inbox_drop(struct fake_flow *flow)
{
    struct fake_octets *octets = flow->inbox;

    flow->inbox = octets->next;
    free(octets->data);
    free(octets);
}

static enum err receive_datagram(struct flow_plane *plane, struct flow flow,
                                 struct flow_address *ret_from, struct span *ret_octets)
{
    static uint8_t last[CODEC_MESSAGE_MAX];
    struct fake_flow *self = flow_get(fake_of(plane), flow);

    CHECK(self != NULL);
    if (self->inbox == NULL)
        return self->error;
    *ret_from = self->inbox->from;
    *ret_octets = span_of(last, self->inbox->size);
    memcpy(last, self->inbox->data, self->inbox->size);
    inbox_drop(self);
    return ERR_OK;
}

static enum err connect_tcp(struct flow_plane *plane, const struct flow_connect_options *options,
                            struct flow *ret_flow)
{
    struct fake *fake = fake_of(plane);

    if (fake->connect_error != ERR_OK)
        return fake->connect_error;
    struct fake_flow *flow = flow_open(fake, &options->remote, options->user, ret_flow);
    flow->is_tcp = true;
    flow->deadline = options->deadline;
    fake->opened_tcp++;
    return ERR_OK;
}

static uint32_t readable(struct flow_plane *plane, struct flow flow)
{
    struct fake_flow *self = flow_get(fake_of(plane), flow);
    uint32_t size = 0;

    for (struct fake_octets *o = self->inbox; o != NULL; o = o->next)
        size += o->size - o->from_index;
    return size;
}

static uint32_t peek(struct flow_plane *plane, struct flow flow, struct span *ret_spans,
                     uint32_t max)
{
    struct fake_flow *self = flow_get(fake_of(plane), flow);

    CHECK(max == 1);
    if (self->inbox == NULL)
        return 0;
    ret_spans[0] =
        span_skip(span_of(self->inbox->data, self->inbox->size), self->inbox->from_index);
    return 1;
}

static void consume(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct fake_flow *self = flow_get(fake_of(plane), flow);

    CHECK(size <= readable(plane, flow));
    self->inbox->from_index += size;
    CHECK(self->inbox->from_index <= self->inbox->size);
    if (self->inbox->from_index == self->inbox->size)
        inbox_drop(self);
}

static struct span_mut reserve(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct fake_flow *self = flow_get(fake_of(plane), flow);

    CHECK(self->is_connected && size <= sizeof(self->reserved));
    return (struct span_mut){self->reserved, size};
}

static void commit(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct fake_flow *self = flow_get(fake_of(plane), flow);
    uint32_t framed = (uint32_t)(self->reserved[0] << 8 | self->reserved[1]);

    CHECK(framed + 2 == size);
    query_note(fake_of(plane), flow, span_of(self->reserved + 2, framed));
}

static void push(struct flow_plane *plane, struct flow flow)
{
    CHECK(flow_get(fake_of(plane), flow) != NULL);
}

static void close_flow(struct flow_plane *plane, struct flow flow)
{
    struct fake *fake = fake_of(plane);
    struct fake_flow *self = flow_get(fake, flow);

    CHECK(self != NULL);
    while (self->inbox != NULL)
        inbox_drop(self);
    fake->closed_tcp += self->is_tcp;
    self->is_open = false;
    fake->open_count--;
}

static const struct flow_ops fake_ops = {
    .open_datagram = open_datagram,
    .send_datagram = send_datagram,
    .receive_datagram = receive_datagram,
    .connect = connect_tcp,
    .readable = readable,
    .peek = peek,
    .consume = consume,
    .reserve = reserve,
    .commit = commit,
    .push = push,
    .close = close_flow,
    .abort = close_flow,
};

struct fake *fake_new(uint64_t seed)
{
    struct fake *fake = calloc(1, sizeof(*fake));

    CHECK(fake != NULL);
    fake->plane.ops = &fake_ops;
    rng_init_seed(&fake->rng, seed);
    return fake;
}

void fake_free(struct fake *fake)
{
    CHECK(fake->open_count == 0);
    free(fake);
}

void wire_u16(struct wire *wire, uint32_t value)
{
    wire->data[wire->size++] = (uint8_t)(value >> 8);
    wire->data[wire->size++] = (uint8_t)value;
}

void wire_u32(struct wire *wire, uint32_t value)
{
    wire_u16(wire, value >> 16);
    wire_u16(wire, value & 0xffff);
}

void wire_octets(struct wire *wire, const void *data, uint32_t size)
{
    memcpy(wire->data + wire->size, data, size);
    wire->size += size;
}

void wire_name(struct wire *wire, const char *name)
{
    while (*name != '\0' && *name != '.') {
        size_t size = strcspn(name, ".");
        wire->data[wire->size++] = (uint8_t)size;
        wire_octets(wire, name, (uint32_t)size);
        name += size + (name[size] == '.');
    }
    wire->data[wire->size++] = 0;
}

void wire_reply(struct wire *wire, const uint8_t *query, uint32_t query_size, uint32_t flags)
{
    wire->size = 0;
    wire_octets(wire, query, 2);
    wire_u16(wire, flags);
    wire_u16(wire, 1);
    wire_octets(wire, "\0\0\0\0\0\0", 6);
    wire_octets(wire, query + 12, query_size - 12 - 11); /* the question; not the OPT record */
}

void wire_count(struct wire *wire, uint32_t at, uint32_t more)
{
    uint32_t count = (uint32_t)(wire->data[at] << 8 | wire->data[at + 1]) + more;

    wire->data[at] = (uint8_t)(count >> 8);
    wire->data[at + 1] = (uint8_t)count;
}

static void record_header(struct wire *wire, const char *owner, uint16_t type, uint32_t ttl)
{
    wire_name(wire, owner);
    wire_u16(wire, type);
    wire_u16(wire, 1);
    wire_u32(wire, ttl);
}

void wire_record(struct wire *wire, const char *owner, uint16_t type, uint32_t ttl,
                 const void *rdata, uint32_t size)
{
    record_header(wire, owner, type, ttl);
    wire_u16(wire, size);
    wire_octets(wire, rdata, size);
    wire_count(wire, 6, 1);
}

static uint32_t rdata_begin(struct wire *wire)
{
    wire_u16(wire, 0);
    return wire->size;
}

static void rdata_end(struct wire *wire, uint32_t start)
{
    wire->data[start - 2] = (uint8_t)((wire->size - start) >> 8);
    wire->data[start - 1] = (uint8_t)(wire->size - start);
}

void wire_mx(struct wire *wire, const char *owner, uint32_t ttl, uint16_t preference,
             const char *target)
{
    record_header(wire, owner, DNS_TYPE_MX, ttl);
    uint32_t start = rdata_begin(wire);
    wire_u16(wire, preference);
    wire_name(wire, target);
    rdata_end(wire, start);
    wire_count(wire, 6, 1);
}

void wire_cname(struct wire *wire, const char *owner, uint32_t ttl, const char *target)
{
    record_header(wire, owner, DNS_TYPE_CNAME, ttl);
    uint32_t start = rdata_begin(wire);
    wire_name(wire, target);
    rdata_end(wire, start);
    wire_count(wire, 6, 1);
}

void wire_a(struct wire *wire, const char *owner, uint32_t ttl, uint32_t ip)
{
    uint8_t octets[4] = {(uint8_t)(ip >> 24), (uint8_t)(ip >> 16), (uint8_t)(ip >> 8), (uint8_t)ip};

    wire_record(wire, owner, DNS_TYPE_A, ttl, octets, 4);
}

void wire_soa(struct wire *wire, const char *owner, uint32_t ttl, uint32_t minimum)
{
    record_header(wire, owner, CODEC_TYPE_SOA, ttl);
    uint32_t start = rdata_begin(wire);
    wire_name(wire, "ns.example");
    wire_name(wire, "hostmaster.example");
    for (uint32_t i = 0; i < 4; i++)
        wire_u32(wire, 3600);
    wire_u32(wire, minimum);
    rdata_end(wire, start);
    wire_count(wire, 8, 1);
}

struct flow_event fake_event(struct fake *fake, struct flow flow, uint32_t events)
{
    struct fake_flow *self = flow_get(fake, flow);

    return (struct flow_event){.flow = flow, .events = events, .user = self ? self->user : 0};
}

struct flow_event fake_deliver(struct fake *fake, const struct fake_query *query, const void *data,
                               uint32_t size, const struct flow_address *from)
{
    struct fake_flow *self = flow_get(fake, query->flow);
    if (self == NULL)
        return (struct flow_event){.flow = query->flow};

    struct fake_octets *octets = calloc(1, sizeof(*octets)), **end = &self->inbox;
    CHECK(octets != NULL);
    octets->data = malloc(size + 1);
    CHECK(octets->data != NULL);
    memcpy(octets->data, data, size);
    octets->size = size;
    octets->from = from != NULL ? *from : self->remote;
    while (*end != NULL)
        end = &(*end)->next;
    *end = octets;
    return fake_event(fake, query->flow, FLOW_READABLE);
}

struct flow_event fake_deliver_framed(struct fake *fake, const struct fake_query *query,
                                      const struct wire *wire)
{
    uint8_t prefix[2] = {(uint8_t)(wire->size >> 8), (uint8_t)wire->size};

    fake_deliver(fake, query, prefix, 2, NULL);
    return fake_deliver(fake, query, wire->data, wire->size, NULL);
}

struct fake_query *fake_last(struct fake *fake)
{
    return fake->query_count == 0 ? NULL : &fake->queries[(fake->query_count - 1) % FAKE_QUERY_MAX];
}

static const struct fake_row *row_find(const struct fake *fake, const char *name, uint16_t type,
                                       uint32_t *from)
{
    for (; *from < fake->row_count; (*from)++) {
        const struct fake_row *row = &fake->rows[*from];
        if (strcmp(row->name, name) == 0 && ((row->type & 0xffff) == type || row->type == 0)) {
            (*from)++;
            return row;
        }
    }
    return NULL;
}

static void row_write(struct wire *wire, const struct fake_row *row)
{
    uint32_t ttl = row->type & FAKE_TTL_1 ? 1 : 300;
    uint16_t type = (uint16_t)row->type;
    struct flow_address address;

    if (type == DNS_TYPE_MX) {
        char *target;
        unsigned long preference = strtoul(row->data, &target, 10);
        wire_mx(wire, row->name, ttl, (uint16_t)preference, target + 1);
    } else if (type == DNS_TYPE_CNAME) {
        wire_cname(wire, row->name, ttl, row->data);
    } else {
        CHECK(flow_address_parse_ip(span_from_text(row->data), &address) == ERR_OK);
        wire_record(wire, row->name, type, ttl, address.ip, type == DNS_TYPE_A ? 4 : 16);
    }
}

/* Write what the rows say. False: no reply at all. */
static bool answer_write(struct fake *fake, const struct fake_query *query, struct wire *wire)
{
    uint32_t from = 0, ttl = 300;
    const char *name = query->name;
    const struct fake_row *row = row_find(fake, name, query->type, &from), *alias;

    wire_reply(wire, query->packet, query->size, WIRE_RESPONSE);
    for (uint32_t links = 0; row == NULL && links < 12; links++) {
        from = 0;
        alias = row_find(fake, name, DNS_TYPE_CNAME, &from);
        if (alias == NULL)
            break;
        row_write(wire, alias);
        name = alias->data;
        from = 0;
        row = row_find(fake, name, query->type, &from);
    }
    if (row == NULL) { /* NODATA */
        wire_soa(wire, name, ttl, ttl);
        return true;
    }
    if ((row->type & FAKE_TRUNCATED) && !query->is_tcp) {
        wire->data[2] |= WIRE_TC >> 8;
        return true;
    }
    if (strcmp(row->data, "TIMEOUT") == 0)
        return false;
    if (strcmp(row->data, "SERVFAIL") == 0 || strcmp(row->data, "REFUSED") == 0) {
        wire->data[3] |= row->data[0] == 'S' ? 2 : 5;
        return true;
    }
    if (strcmp(row->data, "BROKEN") == 0) {
        wire_count(wire, 6, 7);
        return true;
    }
    if (strcmp(row->data, "NXDOMAIN") == 0 || strcmp(row->data, "NODATA") == 0) {
        wire->data[3] |= row->data[1] == 'X' ? 3 : 0;
        wire_soa(wire, name, ttl, 900);
        return true;
    }
    for (; row != NULL; row = row_find(fake, name, query->type, &from))
        row_write(wire, row);
    return true;
}

void fake_connect(struct fake *fake, struct dns *dns, struct tick_now now)
{
    for (uint32_t i = 0; i < FAKE_FLOW_MAX; i++) {
        struct fake_flow *flow = &fake->flows[i];
        if (!flow->is_open || !flow->is_tcp || flow->is_connected)
            continue;
        flow->is_connected = true;
        struct flow_event event =
            fake_event(fake, (struct flow){i, flow->generation}, FLOW_CONNECTED);
        dns_on_flow(dns, &event, now);
    }
}

void fake_answer_all(struct fake *fake, struct dns *dns, struct tick_now now)
{
    static struct wire wire;

    fake_connect(fake, dns, now);
    for (uint32_t i = 0; i < fake->query_count; i++) {
        struct fake_query *query = &fake->queries[i % FAKE_QUERY_MAX];
        CHECK(fake->query_count < FAKE_QUERY_MAX);
        if (query->is_done)
            continue;
        query->is_done = true;
        if (answer_write(fake, query, &wire)) {
            struct flow_event event = query->is_tcp
                                          ? fake_deliver_framed(fake, query, &wire)
                                          : fake_deliver(fake, query, wire.data, wire.size, NULL);
            dns_on_flow(dns, &event, now);
            fake_connect(fake, dns, now);
        }
    }
}
