/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS wire format to plain records. The only file that includes ldns.
 *
 * ldns decodes, but it is not trusted with hostile input: it follows pointers forward and up to
 * 65,535 of them per name, and it builds records with missing RDATA. So each record is first walked
 * by us, and only when its names, its RDLENGTH and its RDATA are what the type demands do ldns'
 * accessors see it. Records of types that nobody here asks for are stepped over by RDLENGTH, their
 * RDATA unread.
 *
 * Invariants
 *   1. No octet outside the packet is read, whatever the counts, lengths and pointers say.
 *   2. A pointer's target lies before the pointer's own run of labels and behind the header, so
 *      each jump goes strictly backward; at most POINTER_MAX jumps, 255 octets, 63 a label.
 *   3. A record of a wanted type is handed to ldns only after record_is_sound().
 *   4. At most CODEC_RECORD_MAX wanted records come out; WALK_MAX records are walked at all.
 *
 * Text form: lower-case ASCII letters, digits, '-' and '_', labels joined by '.'. A name with other
 * octets cannot be a mail host: an owner like that is skipped, a target like that becomes "".
 *
 * Not here: header, question, acceptance, which records answer the question (query.c).
 */
#include "dns/codec.h"

#include <ldns/ldns.h>

#define POINTER_MAX       126u
#define NAME_WIRE_MAX     255u
#define LABEL_MAX         63u
#define RECORD_FIXED_SIZE 10u  /* type, class, TTL, RDLENGTH */
#define WALK_MAX          512u /* records of both sections that are stepped over or read */
#define CLASS_IN          1u
#define SOA_NUMBERS_SIZE  20u

/* One record as it lies in the packet. */
struct wire_record {
    uint32_t start, rdata, end;
    uint16_t type, class;
};

static uint16_t read_u16(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

/* Step over a name, checking all of it. */
static bool name_walk(struct span packet, uint32_t *position)
{
    uint32_t at = *position, run_start = at, jumps = 0, size = 0, after = 0;

    for (;;) {
        if (at >= packet.size)
            return false;
        uint8_t length = packet.data[at];
        if (length >= 0xc0) {
            if (at + 2 > packet.size || ++jumps > POINTER_MAX)
                return false;
            uint32_t target = read_u16(packet.data + at) & 0x3fffu;
            if (target < CODEC_HEADER_SIZE || target >= run_start)
                return false;
            if (after == 0)
                after = at + 2;
            at = run_start = target;
            continue;
        }
        size += 1u + length;
        if (length > LABEL_MAX || size > NAME_WIRE_MAX)
            return false;
        at += 1u + length;
        if (length == 0)
            break;
    }
    *position = after != 0 ? after : at;
    return true;
}

static bool record_walk(struct span packet, uint32_t *position, struct wire_record *ret_record)
{
    uint32_t at = *position;

    ret_record->start = at;
    if (!name_walk(packet, &at) || packet.size - at < RECORD_FIXED_SIZE)
        return false;
    ret_record->type = read_u16(packet.data + at);
    ret_record->class = read_u16(packet.data + at + 2);
    uint32_t rdata_size = read_u16(packet.data + at + 8);
    ret_record->rdata = at + RECORD_FIXED_SIZE;
    if (packet.size - ret_record->rdata < rdata_size)
        return false;
    ret_record->end = ret_record->rdata + rdata_size;
    *position = ret_record->end;
    return true;
}

/* `names` names from `at` on, then exactly `numbers` octets, fill the RDATA to its end. */
static bool rdata_is_names(struct span packet, const struct wire_record *record, uint32_t at,
                           uint32_t names, uint32_t numbers)
{
    struct span rdata = span_head(packet, record->end);

    for (uint32_t i = 0; i < names; i++) {
        if (!name_walk(rdata, &at))
            return false;
    }
    return record->end - at == numbers;
}

static bool record_is_sound(struct span packet, const struct wire_record *record)
{
    uint32_t size = record->end - record->rdata;

    switch (record->type) {
    case CODEC_TYPE_A:
        return size == 4;
    case CODEC_TYPE_AAAA:
        return size == 16;
    case CODEC_TYPE_CNAME:
        return rdata_is_names(packet, record, record->rdata, 1, 0);
    case CODEC_TYPE_MX:
        return size >= 3 && rdata_is_names(packet, record, record->rdata + 2, 1, 0);
    case CODEC_TYPE_SOA:
        return rdata_is_names(packet, record, record->rdata, 2, SOA_NUMBERS_SIZE);
    default:
        return false;
    }
}

static bool type_is_wanted(uint16_t type)
{
    return type == CODEC_TYPE_A || type == CODEC_TYPE_AAAA || type == CODEC_TYPE_CNAME ||
           type == CODEC_TYPE_MX;
}

static char octet_to_text(uint8_t octet)
{
    if (octet >= 'A' && octet <= 'Z')
        return (char)(octet + ('a' - 'A'));
    bool is_plain = (octet >= 'a' && octet <= 'z') || (octet >= '0' && octet <= '9') ||
                    octet == '-' || octet == '_';
    return is_plain ? (char)octet : '\0';
}

/* Uncompressed name to text; "" when it has octets that no host name has. */
static void name_to_text(const ldns_rdf *name, char ret_text[CODEC_NAME_MAX])
{
    const uint8_t *wire = ldns_rdf_data(name);
    size_t size = ldns_rdf_size(name), at = 0;
    uint32_t used = 0;

    ret_text[0] = '\0';
    CHECK(size >= 1 && size <= NAME_WIRE_MAX);
    if (size == 1) {
        ret_text[0] = '.';
        ret_text[1] = '\0';
        return;
    }
    while (at < size && wire[at] != 0) {
        size_t label_end = at + 1 + wire[at];
        if (used > 0)
            ret_text[used++] = '.';
        for (at++; at < label_end && at < size; at++) {
            char c = octet_to_text(wire[at]);
            if (c == '\0') {
                ret_text[0] = '\0';
                return;
            }
            ret_text[used++] = c;
        }
    }
    ret_text[used] = '\0';
}

/* Fill in what the type has, from a record that is sound. */
static void record_fill(const ldns_rr *rr, struct codec_record *record)
{
    switch (record->type) {
    case CODEC_TYPE_A:
        memcpy(record->ip, ldns_rdf_data(ldns_rr_rdf(rr, 0)), 4);
        break;
    case CODEC_TYPE_AAAA:
        memcpy(record->ip, ldns_rdf_data(ldns_rr_rdf(rr, 0)), 16);
        break;
    case CODEC_TYPE_CNAME:
        name_to_text(ldns_rr_rdf(rr, 0), record->target);
        break;
    case CODEC_TYPE_MX:
        record->preference = ldns_rdf2native_int16(ldns_rr_rdf(rr, 0));
        name_to_text(ldns_rr_rdf(rr, 1), record->target);
        break;
    default:
        record->soa_minimum = ldns_rdf2native_int32(ldns_rr_rdf(rr, 6));
        break;
    }
}

static enum err record_decode(struct span packet, const struct wire_record *wire,
                              ldns_pkt_section section, struct codec_record *ret_record)
{
    size_t position = wire->start;
    ldns_rr *rr = NULL;

    if (!record_is_sound(packet, wire))
        return ERR_PEER_SYNTAX;
    if (ldns_wire2rr(&rr, packet.data, packet.size, &position, section) != LDNS_STATUS_OK)
        return ERR_PEER_SYNTAX;
    *ret_record = (struct codec_record){.type = wire->type, .ttl = ldns_rr_ttl(rr)};
    name_to_text(ldns_rr_owner(rr), ret_record->owner);
    record_fill(rr, ret_record);
    ldns_rr_free(rr);
    return ERR_OK;
}

static enum err answers_parse(struct span packet, uint32_t *position, uint32_t count,
                              struct codec_message *message)
{
    struct wire_record wire;

    message->is_cut = count > WALK_MAX;
    for (uint32_t i = 0; i < count && i < WALK_MAX; i++) {
        if (!record_walk(packet, position, &wire))
            return ERR_PEER_SYNTAX;
        if (!type_is_wanted(wire.type) || wire.class != CLASS_IN)
            continue;
        if (message->answer_count == CODEC_RECORD_MAX) {
            message->is_cut = true;
            return ERR_OK;
        }
        struct codec_record *record = &message->answers[message->answer_count];
        TRY(record_decode(packet, &wire, LDNS_SECTION_ANSWER, record));
        if (record->owner[0] != '\0')
            message->answer_count++;
    }
    return ERR_OK;
}

static enum err authority_parse(struct span packet, uint32_t *position, uint32_t count,
                                struct codec_message *message)
{
    struct wire_record wire;

    for (uint32_t i = 0; i < count && i < WALK_MAX && !message->has_soa; i++) {
        if (!record_walk(packet, position, &wire))
            return ERR_PEER_SYNTAX;
        if (wire.type != CODEC_TYPE_SOA || wire.class != CLASS_IN)
            continue;
        TRY(record_decode(packet, &wire, LDNS_SECTION_AUTHORITY, &message->soa));
        message->has_soa = true;
    }
    return ERR_OK;
}

enum err codec_message_parse(struct span packet, uint32_t offset, struct codec_message *ret_message)
{
    CHECK(packet.size >= CODEC_HEADER_SIZE && packet.size <= CODEC_MESSAGE_MAX);
    CHECK(offset >= CODEC_HEADER_SIZE && offset <= packet.size);

    uint32_t position = offset;
    ret_message->answer_count = 0;
    ret_message->has_soa = false;
    TRY(answers_parse(packet, &position, read_u16(packet.data + 6), ret_message));
    if (ret_message->is_cut)
        return ERR_OK;
    return authority_parse(packet, &position, read_u16(packet.data + 8), ret_message);
}
