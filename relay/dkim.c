/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message's way through the signer: the header is kept until it is complete, then the rules
 * that are for its author are chosen, then the body is hashed as it passes.
 *
 *   OPEN, header:  octets are kept
 *     -> end of the header, or of the message: fields, author, rules
 *          -> SIGN: the body is hashed, once for each canonical form that some rule wants
 *          -> all other verdicts: nothing is kept, nothing is looked at any more
 *
 * Who is signed for: only clients in relay_from come here. A rule may be narrowed to listeners and
 * to networks of clients, and is for the domain of the From field, or for that of MAIL FROM.
 *
 * Invariants
 *   1. What is signed is what was fed, in order: how it was split plays no part.
 *   2. Memory is bounded: DKIM_HEADER_SIZE_MAX octets of header, its table of fields, two hashes.
 *
 * Limits: the first DKIM_SIGNATURE_MAX rules that are for a message sign it. Rules are searched
 * from end to end, once for each message.
 */
#include "relay/dkim_internal.h"

#include <stdlib.h>

#define HEADER_SIZE_FIRST 4096u
#define CANON_COUNT       2u

/* How much of CRLF CRLF, the end of the header, was seen. A message may begin with its body. */
enum end_state { END_TEXT, END_CR, END_LINE, END_LINE_CR, END_DONE };

struct dkim_signer {
    const struct settings *settings;
    const struct settings_listener *listener;
    struct flow_address client;
    char sender_domain[MX_NAME_MAX]; /* "": none */
    bool (*is_author)(const void *context, struct span domain);
    const void *context;
    enum dkim_verdict verdict;
    enum end_state end;
    uint8_t *octets; /* the header, without the empty line */
    uint32_t size, capacity;
    struct dkim_header header;
    const struct settings_dkim *rules[DKIM_SIGNATURE_MAX];
    uint32_t rule_count;
    struct dkim_hash *hashes[CANON_COUNT]; /* by enum dkim_canon; NULL: not wanted */
    struct dkim_body bodies[CANON_COUNT];
    uint8_t digests[CANON_COUNT][DKIM_DIGEST_SIZE];
    bool has_failed; /* the library or the heap did not do its part */
    uint8_t *text;   /* the fields that were made */
};

/* ---- rules ---- */

static bool rule_is_for_client(const struct settings_dkim *rule, const struct dkim_origin *origin)
{
    bool is_found = rule->listener_count == 0;

    for (uint32_t i = 0; i < rule->listener_count && !is_found; i++) {
        struct flow_address listener = rule->listeners[i];
        if (listener.port == 0)
            listener.port = origin->listener->address.port;
        is_found = flow_address_is_equal(&listener, &origin->listener->address);
    }
    if (!is_found || rule->client_count == 0)
        return is_found;
    for (uint32_t i = 0; i < rule->client_count; i++) {
        if (flow_prefix_contains(&rule->clients[i], origin->client))
            return true;
    }
    return false;
}

static bool pattern_matches(const char *pattern, struct span domain)
{
    struct span wanted = span_from_text(pattern);

    if (pattern[0] != '*')
        return span_is_equal_nocase(wanted, domain);
    wanted = span_skip(wanted, 1); /* "" or ".example.org" */
    return domain.size > wanted.size &&
           span_is_equal_nocase(wanted, span_skip(domain, domain.size - wanted.size));
}

/* Without `match`: the signing domain itself, and what is below it. */
static bool rule_is_for_domain(const struct settings_dkim *rule, struct span domain)
{
    struct span own = span_from_text(rule->domain);

    for (uint32_t i = 0; i < rule->match_count; i++) {
        if (pattern_matches(rule->match[i], domain))
            return true;
    }
    if (rule->match_count > 0 || domain.size < own.size)
        return false;
    uint32_t before = domain.size - own.size;
    return span_is_equal_nocase(span_skip(domain, before), own) &&
           (before == 0 || domain.data[before - 1] == '.');
}

static void rules_choose(struct dkim_signer *signer, const char *author_domain)
{
    const struct settings *settings = signer->settings;
    struct dkim_origin origin = {.listener = signer->listener, .client = &signer->client};
    bool is_author = signer->is_author == NULL ||
                     signer->is_author(signer->context, span_from_text(author_domain));

    for (uint32_t i = 0; i < settings->dkim_count && signer->rule_count < DKIM_SIGNATURE_MAX; i++) {
        const struct settings_dkim *rule = &settings->dkim[i];
        bool is_by_sender = rule->by == SETTINGS_DKIM_BY_SENDER;
        const char *domain = is_by_sender ? signer->sender_domain : author_domain;
        if (!is_by_sender && !is_author)
            continue;
        if (domain[0] != '\0' && rule_is_for_domain(rule, span_from_text(domain)) &&
            rule_is_for_client(rule, &origin))
            signer->rules[signer->rule_count++] = rule;
    }
}

/* ---- the header ---- */

static void header_forget(struct dkim_signer *signer)
{
    dkim_header_fini(&signer->header);
    free(signer->octets);
    signer->octets = NULL;
    signer->size = signer->capacity = 0;
}

/* RFC 6376 section 5.4: From must be signed, so there must be one, and for everybody the same. */
static enum dkim_verdict author_judge(struct dkim_signer *signer, char domain[MX_NAME_MAX])
{
    const struct dkim_header *header = &signer->header;
    uint32_t from = dkim_header_find_above(header, SPAN_LITERAL("From"), header->count);

    if (from == header->count)
        return DKIM_FROM_ABSENT;
    if (dkim_header_find_above(header, SPAN_LITERAL("From"), from) < header->count)
        return DKIM_FROM_TWICE;
    return dkim_author_domain(header->fields[from].text, domain) == ERR_OK ? DKIM_SIGN
                                                                           : DKIM_FROM_UNCLEAR;
}

static enum dkim_verdict header_judge(struct dkim_signer *signer)
{
    char domain[MX_NAME_MAX] = "";

    switch (dkim_header_parse(span_of(signer->octets, signer->size), &signer->header)) {
    case ERR_OK:
        break;
    case ERR_PEER_SYNTAX:
        return DKIM_NOT_A_FIELD;
    case ERR_LIMIT:
        return DKIM_OVERSIZED;
    default:
        signer->has_failed = true;
        return DKIM_SIGN;
    }
    enum dkim_verdict verdict = author_judge(signer, domain);
    if (verdict != DKIM_SIGN)
        return verdict;
    rules_choose(signer, domain);
    return signer->rule_count > 0 ? DKIM_SIGN : DKIM_UNMATCHED;
}

static void hashes_begin(struct dkim_signer *signer)
{
    for (uint32_t i = 0; i < signer->rule_count; i++) {
        enum dkim_canon canon = signer->rules[i]->body_canon;
        if (signer->hashes[canon] != NULL)
            continue;
        signer->hashes[canon] = dkim_hash_new();
        signer->has_failed |= signer->hashes[canon] == NULL;
        dkim_body_init(&signer->bodies[canon], canon, dkim_hash_add, signer->hashes[canon]);
    }
}

/* The header is complete: from here on the verdict is fixed. */
static void header_end(struct dkim_signer *signer)
{
    CHECK(signer->verdict == DKIM_OPEN);
    signer->end = END_DONE;
    signer->verdict = header_judge(signer);
    if (signer->verdict == DKIM_SIGN)
        hashes_begin(signer);
    else
        header_forget(signer);
}

/* Octets of the header at the front of `octets`, up to and with the empty line. */
static uint32_t header_size(struct dkim_signer *signer, struct span octets)
{
    uint32_t at = 0;

    while (at < octets.size && signer->end != END_DONE) {
        if (signer->end == END_TEXT) {
            const uint8_t *cr = memchr(octets.data + at, '\r', octets.size - at);
            at = cr == NULL ? octets.size : (uint32_t)(cr - octets.data) + 1;
            signer->end = cr == NULL ? END_TEXT : END_CR;
            continue;
        }
        uint8_t octet = octets.data[at++];
        if (octet == '\n' && signer->end != END_LINE)
            signer->end = signer->end == END_CR ? END_LINE : END_DONE;
        else if (octet == '\r')
            signer->end = signer->end == END_LINE ? END_LINE_CR : END_CR;
        else
            signer->end = END_TEXT;
    }
    return at;
}

static bool header_grow(struct dkim_signer *signer, uint32_t size)
{
    uint32_t capacity = signer->capacity == 0 ? HEADER_SIZE_FIRST : signer->capacity;

    while (capacity < size)
        capacity *= 2;
    if (capacity == signer->capacity)
        return true;
    uint8_t *octets = realloc(signer->octets, capacity);
    if (octets == NULL)
        return false;
    signer->octets = octets;
    signer->capacity = capacity;
    return true;
}

static void header_feed(struct dkim_signer *signer, struct span octets)
{
    uint32_t size = signer->size + octets.size;

    if (octets.size > DKIM_HEADER_SIZE_MAX || size > DKIM_HEADER_SIZE_MAX) {
        signer->verdict = DKIM_OVERSIZED;
    } else if (!header_grow(signer, size)) {
        signer->verdict = DKIM_SIGN;
        signer->has_failed = true;
    } else {
        memcpy(signer->octets + signer->size, octets.data, octets.size);
        signer->size = size;
    }
    if (signer->verdict != DKIM_OPEN) {
        signer->end = END_DONE;
        header_forget(signer);
    } else if (signer->end == END_DONE) {
        signer->size -= 2; /* the empty line */
        header_end(signer);
    }
}

/* ---- public ---- */

/* What follows the last '@'. "": the null sender, or none that a rule could name. */
static void sender_domain_set(struct dkim_signer *signer, struct span sender)
{
    const uint8_t *at = sender.size == 0 ? NULL : memrchr(sender.data, '@', sender.size);

    if (at == NULL || dkim_domain_normalize(span_skip(sender, (uint32_t)(at - sender.data) + 1),
                                            signer->sender_domain) != ERR_OK)
        signer->sender_domain[0] = '\0';
}

enum err dkim_signer_new(const struct settings *settings, const struct dkim_origin *origin,
                         struct dkim_signer **ret_signer)
{
    bool is_wanted = false;

    *ret_signer = NULL;
    for (uint32_t i = 0; i < settings->dkim_count && !is_wanted; i++)
        is_wanted = rule_is_for_client(&settings->dkim[i], origin);
    if (!is_wanted)
        return ERR_OK;
    struct dkim_signer *signer = calloc(1, sizeof(*signer));
    if (signer == NULL)
        return ERR_MEMORY;
    signer->settings = settings;
    signer->listener = origin->listener;
    signer->client = *origin->client;
    signer->is_author = origin->is_author;
    signer->context = origin->context;
    signer->end = END_LINE;
    sender_domain_set(signer, origin->sender);
    *ret_signer = signer;
    return ERR_OK;
}

void dkim_signer_free(struct dkim_signer *signer)
{
    if (signer == NULL)
        return;
    header_forget(signer);
    for (uint32_t i = 0; i < CANON_COUNT; i++)
        dkim_hash_free(signer->hashes[i]);
    free(signer->text);
    free(signer);
}

void dkim_signer_feed(struct dkim_signer *signer, struct span octets)
{
    if (octets.size > 0 && signer->end != END_DONE) {
        uint32_t size = header_size(signer, octets);
        header_feed(signer, span_head(octets, size));
        octets = span_skip(octets, size);
    }
    for (uint32_t i = 0; i < CANON_COUNT && octets.size > 0; i++) {
        if (signer->hashes[i] != NULL)
            dkim_body_feed(&signer->bodies[i], octets);
    }
}

enum dkim_verdict dkim_signer_finish(struct dkim_signer *signer)
{
    if (signer->verdict == DKIM_OPEN)
        header_end(signer); /* no empty line: no body */
    for (uint32_t i = 0; i < CANON_COUNT; i++) {
        if (signer->hashes[i] == NULL)
            continue;
        dkim_body_finish(&signer->bodies[i]);
        if (dkim_hash_end(signer->hashes[i], signer->digests[i]) != ERR_OK)
            signer->has_failed = true;
    }
    return signer->verdict;
}

uint32_t dkim_signer_cost(const struct dkim_signer *signer)
{
    uint32_t cost = 0;

    for (uint32_t i = 0; i < signer->rule_count; i++)
        cost += dkim_key_cost(signer->rules[i]->key);
    return cost;
}

struct header_hash {
    struct dkim_sink sink;
    enum dkim_canon canon;
};

static void hash_field(void *opaque, struct span name, const struct dkim_field *field)
{
    struct header_hash *hash = opaque;

    (void)name;
    if (field != NULL) /* a field that is not there is the empty string: section 5.4 */
        dkim_field_put(&hash->sink, hash->canon, field->text, true);
}

/* RFC 6376 section 3.7: the chosen fields, then the signature's own without its last CRLF. */
static enum err header_digest(const struct dkim_signer *signer, const struct settings_dkim *rule,
                              struct span own, struct dkim_hash *hash,
                              uint8_t digest[DKIM_DIGEST_SIZE])
{
    struct header_hash header_hash = {.canon = rule->header_canon};

    dkim_sink_init(&header_hash.sink, dkim_hash_add, hash);
    dkim_signed_fields(rule, &signer->header, hash_field, &header_hash);
    dkim_field_put(&header_hash.sink, rule->header_canon, own, false);
    dkim_sink_flush(&header_hash.sink);
    return dkim_hash_end(hash, digest);
}

static enum err sign_by(const struct dkim_signer *signer, const struct settings_dkim *rule,
                        struct dkim_hash *hash, wall_us now, struct dkim_writer *writer)
{
    uint8_t digest[DKIM_DIGEST_SIZE], signature[DKIM_SIGNATURE_SIZE_MAX];
    uint32_t begin = writer->size, size = 0;

    dkim_signature_begin(writer, rule, &signer->header, signer->digests[rule->body_canon], now);
    if (writer->is_full)
        return ERR_LIMIT;
    struct span own = span_of(writer->octets + begin, writer->size - begin);
    TRY(header_digest(signer, rule, own, hash, digest));
    TRY(dkim_key_sign(rule->key, digest, signature, &size));
    dkim_signature_end(writer, span_of(signature, size));
    return writer->is_full ? ERR_LIMIT : ERR_OK;
}

enum err dkim_signer_sign(struct dkim_signer *signer, wall_us now, struct span *ret_fields,
                          uint32_t *ret_count)
{
    CHECK(signer->verdict == DKIM_SIGN && signer->text == NULL);
    if (signer->has_failed)
        return ERR_MEMORY;
    struct dkim_hash *hash = dkim_hash_new();
    struct dkim_writer writer = {.octets = malloc(DKIM_PREFIX_SIZE_MAX),
                                 .room = DKIM_PREFIX_SIZE_MAX};
    signer->text = writer.octets;
    enum err err = hash == NULL || writer.octets == NULL ? ERR_MEMORY : ERR_OK;
    for (uint32_t i = 0; i < signer->rule_count && err == ERR_OK; i++)
        err = sign_by(signer, signer->rules[i], hash, now, &writer);
    dkim_hash_free(hash);
    TRY(err);
    header_forget(signer);
    uint8_t *less = realloc(signer->text, writer.size);
    signer->text = less == NULL ? signer->text : less;
    *ret_fields = span_of(signer->text, writer.size);
    *ret_count = signer->rule_count;
    return ERR_OK;
}
