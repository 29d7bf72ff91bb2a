/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One DNS question: how it is written, which packet is its reply, and what in the reply counts.
 *
 * Forgery is made expensive three times: 16 bits of ID, the case of each letter of the name
 * (draft-vixie-dnsext-dns0x20), and the source port (the flow plane's). A reply must repeat the
 * question octet by octet; anything else is not ours, and is ignored rather than believed or
 * treated as a failure: an attacker who floods wrong packets must not be able to end a query.
 *
 * Invariants
 *   1. query_judge() reads the header and the question only and never fails.
 *   2. Nothing but the CNAME chain from the question's name and the records at its end leaves
 *      query_read(); glue, and records of other names in any section, have no effect.
 *   3. ttl_s is the least TTL of chain and records, within the limits. A TTL with the top bit set
 *      counts as 0 (RFC 2181 section 8).
 *   4. A negative answer is taken as such only from RCODE; what cannot be understood is an error,
 *      which the caller treats like SERVFAIL.
 *
 * Not here: when to ask, whom, and over what (transport.c).
 */
#include "dns/query.h"

#define FLAG_QR           0x8000u
#define FLAG_OPCODE       0x7800u
#define FLAG_TC           0x0200u
#define FLAG_RD           0x0100u
#define FLAG_RCODE        0x000fu
#define RCODE_NOERROR     0u
#define RCODE_SERVFAIL    2u
#define RCODE_NXDOMAIN    3u
#define CLASS_IN          1u
#define TYPE_OPT          41u
#define LABEL_MAX         63u
#define TTL_WITHOUT_SOA_S 60u /* a negative answer that does not say how long it holds */

static uint16_t read_u16(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

static void write_u16(uint8_t *data, uint32_t value)
{
    data[0] = (uint8_t)(value >> 8);
    data[1] = (uint8_t)value;
}

/* Labels of `name` at `out`, each letter's case decided by one random bit. */
static uint32_t name_write(struct span name, struct rng *rng, uint8_t *out)
{
    uint8_t bits[(QUERY_NAME_MAX + 7) / 8];
    uint32_t label = 0;

    CHECK(name.size >= 1 && name.size <= QUERY_NAME_MAX);
    rng_fill(rng, bits, (name.size + 7) / 8);
    for (uint32_t i = 0; i <= name.size; i++) {
        if (i < name.size && name.data[i] != '.') {
            uint8_t octet = name.data[i];
            bool is_letter = octet >= 'a' && octet <= 'z';
            bool is_upper = is_letter && (bits[i / 8] >> i % 8 & 1);
            out[i + 1] = is_upper ? (uint8_t)(octet - ('a' - 'A')) : octet;
            continue;
        }
        CHECK(i > label && i - label <= LABEL_MAX);
        out[label] = (uint8_t)(i - label);
        label = i + 1;
    }
    out[name.size + 1] = 0;
    return name.size + 2;
}

bool query_name_is_sound(struct span name)
{
    uint32_t label = 0;

    if (name.size < 1 || name.size > QUERY_NAME_MAX)
        return false;
    for (uint32_t i = 0; i <= name.size; i++) {
        if (i == name.size || name.data[i] == '.') {
            if (i == label || i - label > LABEL_MAX)
                return false;
            label = i + 1;
            continue;
        }
        uint8_t octet = name.data[i];
        if (!(octet >= 'a' && octet <= 'z') && !(octet >= '0' && octet <= '9') && octet != '-' &&
            octet != '_') {
            return false;
        }
    }
    return true;
}

void query_init(struct query *query, struct span name, uint16_t type)
{
    CHECK(query_name_is_sound(name));

    query->type = type;
    query->question_end = query->size = 0;
    memcpy(query->name, name.data, name.size);
    query->name[name.size] = '\0';
}

void query_write(struct query *query, struct rng *rng)
{
    uint8_t *packet = query->packet;

    memset(packet, 0, CODEC_HEADER_SIZE);
    rng_fill(rng, packet, 2);
    write_u16(packet + 2, FLAG_RD);
    write_u16(packet + 4, 1);  /* QDCOUNT */
    write_u16(packet + 10, 1); /* ARCOUNT: OPT */
    uint32_t at = CODEC_HEADER_SIZE;
    at += name_write(span_from_text(query->name), rng, packet + at);
    write_u16(packet + at, query->type);
    write_u16(packet + at + 2, CLASS_IN);
    at += 4;
    query->question_end = (uint16_t)at;

    /* RFC 6891: root owner, type OPT, our UDP size, no extended flags, no options. */
    memset(packet + at, 0, 11);
    write_u16(packet + at + 1, TYPE_OPT);
    write_u16(packet + at + 3, QUERY_EDNS_SIZE);
    query->size = (uint16_t)(at + 11);
    CHECK(query->size <= QUERY_SIZE_MAX);
}

enum query_verdict query_judge(const struct query *query, struct span packet)
{
    if (packet.size < query->question_end || packet.size > CODEC_MESSAGE_MAX)
        return QUERY_WRONG;
    uint16_t flags = read_u16(packet.data + 2);
    uint32_t question_size = query->question_end - CODEC_HEADER_SIZE;
    if (memcmp(packet.data, query->packet, 2) != 0 || !(flags & FLAG_QR) || (flags & FLAG_OPCODE) ||
        read_u16(packet.data + 4) != 1 ||
        memcmp(packet.data + CODEC_HEADER_SIZE, query->packet + CODEC_HEADER_SIZE, question_size) !=
            0) {
        return QUERY_WRONG;
    }

    uint32_t rcode = flags & FLAG_RCODE;
    if (rcode == RCODE_SERVFAIL)
        return QUERY_SERVFAIL;
    if (rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN)
        return QUERY_REFUSED;
    return flags & FLAG_TC ? QUERY_TRUNCATED : QUERY_ANSWERED;
}

static uint32_t ttl_read(uint32_t ttl)
{
    return ttl > INT32_MAX ? 0 : ttl;
}

static uint32_t u32_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Where a configuration's bounds cross, the upper one wins. */
static uint32_t clamp(uint32_t value, uint32_t low, uint32_t high)
{
    return u32_min(value < low ? low : value, high);
}

static const struct codec_record *record_find(const struct codec_message *message,
                                              const char *owner, uint16_t type)
{
    for (uint32_t i = 0; i < message->answer_count; i++) {
        const struct codec_record *record = &message->answers[i];
        if (record->type == type && strcmp(record->owner, owner) == 0)
            return record;
    }
    return NULL;
}

/* The name at the end of the CNAME chain; the least TTL on the way goes to *ttl. */
static enum err chain_follow(const struct codec_message *message, const struct query *query,
                             uint32_t *ttl, const char **ret_name)
{
    const char *name = query->name;

    for (uint32_t links = 0; links <= QUERY_CNAME_MAX; links++) {
        const struct codec_record *alias = NULL;
        if (record_find(message, name, query->type) == NULL)
            alias = record_find(message, name, CODEC_TYPE_CNAME);
        if (alias == NULL) {
            *ret_name = name;
            return ERR_OK;
        }
        if (alias->target[0] == '\0')
            return ERR_PEER_SYNTAX;
        *ttl = u32_min(*ttl, ttl_read(alias->ttl));
        name = alias->target;
    }
    return ERR_PEER_SYNTAX;
}

static void value_add_address(struct query_answer *answer, const struct codec_record *record)
{
    uint32_t size = record->type == CODEC_TYPE_A ? 4 : 16;

    if (answer->value_size == QUERY_ADDRESS_MAX * size)
        return;
    memcpy(answer->value + answer->value_size, record->ip, size);
    answer->value_size += size;
}

/* The records of the asked type at `name`: addresses as they come. */
static uint32_t addresses_collect(const struct codec_message *message, const char *name,
                                  const struct query *query, struct query_answer *answer)
{
    uint32_t ttl = UINT32_MAX;

    for (uint32_t i = 0; i < message->answer_count; i++) {
        const struct codec_record *record = &message->answers[i];
        if (record->type != query->type || strcmp(record->owner, name) != 0)
            continue;
        ttl = u32_min(ttl, ttl_read(record->ttl));
        value_add_address(answer, record);
    }
    return ttl;
}

static void value_add_exchanger(struct query_answer *answer, const struct codec_record *record)
{
    uint8_t *out = answer->value + answer->value_size;
    uint32_t size = (uint32_t)strlen(record->target);

    CHECK(size <= QUERY_NAME_MAX && answer->value_size + 3 + size <= QUERY_VALUE_MAX);
    memcpy(out, &record->preference, 2);
    out[2] = (uint8_t)size;
    memcpy(out + 3, record->target, size);
    answer->value_size += 3 + size;
}

/* The QUERY_MX_MAX best exchangers, by preference and then by order in the answer. */
static uint32_t exchangers_collect(const struct codec_message *message, const char *name,
                                   struct query_answer *answer)
{
    const struct codec_record *best[QUERY_MX_MAX];
    uint32_t count = 0, ttl = UINT32_MAX;

    for (uint32_t i = 0; i < message->answer_count; i++) {
        const struct codec_record *record = &message->answers[i];
        if (record->type != CODEC_TYPE_MX || strcmp(record->owner, name) != 0)
            continue;
        ttl = u32_min(ttl, ttl_read(record->ttl));
        uint32_t at = count < QUERY_MX_MAX ? count++ : QUERY_MX_MAX;
        while (at > 0 && best[at - 1]->preference > record->preference) {
            if (at < QUERY_MX_MAX)
                best[at] = best[at - 1];
            at--;
        }
        if (at < QUERY_MX_MAX)
            best[at] = record;
    }
    for (uint32_t i = 0; i < count; i++)
        value_add_exchanger(answer, best[i]);
    return ttl;
}

static bool name_is_within(const char *name, const char *zone)
{
    size_t name_size = strlen(name), zone_size = strlen(zone);

    if (strcmp(zone, ".") == 0)
        return true;
    if (zone_size == 0 || zone_size > name_size ||
        strcmp(name + name_size - zone_size, zone) != 0) {
        return false;
    }
    return zone_size == name_size || name[name_size - zone_size - 1] == '.';
}

/* RFC 2308 section 5: a negative answer lives for the lesser of the SOA's TTL and its MINIMUM. */
static uint32_t negative_ttl(const struct codec_message *message, const char *name)
{
    if (!message->has_soa || !name_is_within(name, message->soa.owner))
        return TTL_WITHOUT_SOA_S;
    return u32_min(ttl_read(message->soa.ttl), ttl_read(message->soa.soa_minimum));
}

enum err query_read(const struct query *query, struct span packet,
                    const struct query_limits *limits, struct codec_message *scratch,
                    struct query_answer *ret_answer)
{
    const char *name = NULL;
    uint32_t ttl = UINT32_MAX;

    TRY(codec_message_parse(packet, query->question_end, scratch));
    TRY(chain_follow(scratch, query, &ttl, &name));

    bool is_nxdomain = (read_u16(packet.data + 2) & FLAG_RCODE) == RCODE_NXDOMAIN;
    ret_answer->value_size = 0;
    uint32_t record_ttl = query->type == CODEC_TYPE_MX
                              ? exchangers_collect(scratch, name, ret_answer)
                              : addresses_collect(scratch, name, query, ret_answer);
    ttl = u32_min(ttl, record_ttl);
    if (ret_answer->value_size > 0 && !is_nxdomain) {
        ret_answer->outcome = DNS_OUTCOME_POSITIVE;
        ret_answer->ttl_s = clamp(ttl, limits->ttl_min_s, limits->ttl_max_s);
        return ERR_OK;
    }
    /* What we did not read might have held it; an alias that ends nowhere, without a SOA that says
     * so, is an unfinished answer. Neither is proof that there is nothing. */
    if (!is_nxdomain && (scratch->is_cut || (name != query->name && !scratch->has_soa)))
        return ERR_PEER_SYNTAX;
    ret_answer->value_size = 0;
    ret_answer->outcome = is_nxdomain ? DNS_OUTCOME_NXDOMAIN : DNS_OUTCOME_NODATA;
    ret_answer->ttl_s = clamp(u32_min(ttl, negative_ttl(scratch, name)), limits->ttl_min_s,
                              limits->negative_ttl_max_s);
    return ERR_OK;
}
