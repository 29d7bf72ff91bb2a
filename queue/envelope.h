/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_ENVELOPE_H
#define QUEUE_ENVELOPE_H

#include "base/arena.h"
#include "base/tick.h"

/*
 * What the queue knows of a message besides its body, and its durable form: the payload of the
 * spool's MESSAGE record (TLVs, specified byte by byte in envelope.c) and of PROGRESS records.
 * Unknown TLVs are kept and written back.
 */
#define MESSAGE_ID_TEXT_SIZE 27u /* 26 letters of base32 (RFC 4648 alphabet, lower case) + NUL */

/* high: microseconds since 1970 at acceptance; low: random. A DSN's id derives from (message, run),
 * see dsn.h. */
struct message_id {
    uint64_t high, low;
};

static inline bool message_id_is_equal(struct message_id a, struct message_id b)
{
    return a.high == b.high && a.low == b.low;
}
const char *message_id_format(struct message_id id, char ret_text[MESSAGE_ID_TEXT_SIZE]);
enum err message_id_parse(struct span text, struct message_id *ret_id) MUST_CHECK;

enum envelope_flags {
    ENVELOPE_EIGHT_BIT = 1u << 0, /* an octet above 127 in the content */
    ENVELOPE_SMTPUTF8 = 1u << 1,  /* the sender asked for SMTPUTF8 */
    ENVELOPE_UTF8_NEEDED =
        1u << 2, /* a non-ASCII address or header field: cannot go without SMTPUTF8 */
    ENVELOPE_DOT_LINES = 1u << 3,     /* some line begins with '.': DATA needs stuffing */
    ENVELOPE_NO_FINAL_CRLF = 1u << 4, /* content does not end in CRLF (BDAT): DATA adds one */
    ENVELOPE_IS_DSN = 1u << 5,        /* made by us */
    ENVELOPE_IN_DOUBT = 1u << 6, /* an earlier attempt ended without the reply to the end of data */
    ENVELOPE_RET_FULL = 1u << 7, /* RET=FULL: a failure returns the message whole */
    ENVELOPE_RET_HEADERS = 1u << 8, /* RET=HDRS */
    ENVELOPE_DELAY_TOLD = 1u << 9,  /* the sender has had the notice that it is delayed */
    ENVELOPE_RELEASED =
        1u << 10, /* an operator released it: orders that stood then do not hold it */
    ENVELOPE_OVER_QUOTA = 1u << 11, /* its user had sent enough: held until it is RELEASED */
};
/* What a PROGRESS may set. */
#define ENVELOPE_PROGRESS_FLAGS (ENVELOPE_IN_DOUBT | ENVELOPE_DELAY_TOLD | ENVELOPE_RELEASED)

/* What the sender wants to be told of a recipient (NOTIFY, RFC 3461 section 4.1); 0: not said. */
enum envelope_notify {
    ENVELOPE_NOTIFY_NEVER = 1u << 0, /* alone */
    ENVELOPE_NOTIFY_SUCCESS = 1u << 1,
    ENVELOPE_NOTIFY_FAILURE = 1u << 2,
    ENVELOPE_NOTIFY_DELAY = 1u << 3,
};

enum recipient_state {
    RECIPIENT_DUE = 0,   /* to be tried (again) */
    RECIPIENT_DELIVERED, /* a next hop's 2xx; final */
    RECIPIENT_FAILED,    /* refused for good, or expired, or bounced by the operator: DSN owed */
    RECIPIENT_SETTLED,   /* its DSN is durable, or none is owed; final */
    RECIPIENT_RELAYED,   /* a next hop's 2xx that ends the sender's view of it: a DSN is owed */
    RECIPIENT_STATE_COUNT
};

struct envelope_recipient {
    struct span address; /* exact octets between the angle brackets, source route stripped */
    struct span domain;  /* routing key: lower-case A-labels without final dot */
    struct span origin;  /* the domain as committed, where an operator chose another; else empty */
    struct span orcpt;   /* ORCPT as it was said: type, ';', xtext; empty: not said */
    enum recipient_state state;
    uint8_t notify; /* enum envelope_notify */
};

/* Recipients of one group are one delivery. */
static inline struct span envelope_recipient_group(const struct envelope_recipient *recipient)
{
    return recipient->origin.size > 0 ? recipient->origin : recipient->domain;
}

#define ENVELOPE_SIZE_MAX      (1u << 20)
#define ENVELOPE_RECIPIENT_MAX 10000u
#define ENVELOPE_ADDRESS_SIZE_MAX                                                                  \
    512u /* sender and recipients; RFC 5321 section 4.5.3.1.3 asks for 256 */
#define ENVELOPE_DOMAIN_SIZE_MAX 255u
#define ENVELOPE_POOL_SIZE_MAX   255u
#define ENVELOPE_USER_SIZE_MAX   255u
#define ENVELOPE_CLIENT_SIZE_MAX 1024u
#define ENVELOPE_REPLY_SIZE_MAX  1000u
#define ENVELOPE_ENVID_SIZE_MAX  100u /* RFC 3461 section 4.4 */
#define ENVELOPE_ORCPT_SIZE_MAX  500u /* RFC 3461 section 4.2 */
#define ENVELOPE_PREFIX_SIZE_MAX 16384u

struct envelope {
    struct message_id id;
    wall_us arrived, expires;
    uint64_t body_size;      /* octets, dot-unstuffed, with the header fields we added */
    uint32_t header_size;    /* octets up to and with the empty line; what a DSN quotes */
    uint32_t flags;          /* enum envelope_flags */
    uint8_t class;           /* priority, 0 first */
    struct span source_pool; /* name; empty: the default */
    struct span sender;      /* exact octets; empty: null sender */
    struct span client;      /* "name [192.0.2.1]", printable: for records */
    struct span envid;       /* ENVID as it was said, xtext; empty: not said */
    struct span prefix;      /* header fields that go ahead of the stored body; counted in body_size
                                and header_size */
    struct span user;        /* who was logged in; empty: nobody */
    struct envelope_recipient *recipients;
    uint32_t recipient_count;
    struct span unknown; /* TLVs that a newer program has added, kept verbatim */
};

/** Octets of the body as it is stored: without the prefix. */
static inline uint64_t envelope_stored_size(const struct envelope *envelope)
{
    return envelope->body_size - envelope->prefix.size;
}
/**
 * Within every bound: sizes above, 1 to ENVELOPE_RECIPIENT_MAX recipients, encoded at most
 * ENVELOPE_SIZE_MAX, 0 <= arrived <= expires, header_size <= body_size, no NUL, CR or LF in an
 * address or a name, a prefix of whole lines that neither dot-stuffing nor an eight-bit rule is
 * about. Whoever makes an envelope from what a peer said asks this before it encodes.
 */
bool envelope_is_valid(const struct envelope *envelope);
/** Octets envelope_encode() will need. */
uint32_t envelope_encoded_size(const struct envelope *envelope);
/** Encode into exactly envelope_encoded_size() octets. CHECKs envelope_is_valid(). */
void envelope_encode(const struct envelope *envelope, uint8_t *ret_data);
/** Likewise, into memory of malloc(), which is the caller's. */
uint8_t *envelope_encode_new(const struct envelope *envelope, uint32_t *ret_size);
/**
 * Decode. Ownership: spans borrow from `encoded`; arrays come from `arena`.
 * Errors: ERR_DISK_CORRUPT for anything that envelope_encode() cannot have made, ERR_MEMORY.
 */
enum err envelope_decode(struct span encoded, struct arena *arena,
                         struct envelope *ret_envelope) MUST_CHECK;
/** Likewise, of octets that envelope_encode() has made in this process, or that decoded before:
 * what they say is not judged once more. */
enum err envelope_decode_known(struct span encoded, struct arena *arena,
                               struct envelope *ret_envelope) MUST_CHECK;

/* The part of an envelope that has a fixed place: read and patched without decoding the rest. */
struct envelope_basic {
    struct message_id id;
    wall_us arrived, expires;
    uint64_t body_size;
    uint32_t header_size, flags;
    uint8_t class;
};
/** `encoded` decoded without error before. */
struct envelope_basic envelope_basic_get(const uint8_t *encoded);
void envelope_patch_flags(uint8_t *encoded, uint32_t flags);
void envelope_patch_sizes(uint8_t *encoded, uint64_t body_size, uint32_t header_size);
/** `recipient` is one that envelope_decode() made from this `encoded`; its own state follows too.
 */
void envelope_patch_state(uint8_t *encoded, struct envelope_recipient *recipient,
                          enum recipient_state state);

/* One PROGRESS record: what changed for some recipients, and when their delivery is tried next. */
struct envelope_settle {
    uint32_t recipient_index;
    enum recipient_state state;
    uint16_t code;       /* of the reply; 0: none */
    uint8_t enhanced[3]; /* 0.0.0: none */
    bool is_expired;
    struct span
        reply; /* printable, at most ENVELOPE_REPLY_SIZE_MAX octets; what the DSN will say */
};
#define ENVELOPE_DELIVERY_NONE UINT32_MAX
struct envelope_progress {
    wall_us next_try;  /* 0: unchanged */
    uint32_t attempts; /* in all, after this one */
    uint32_t flags;    /* envelope flags to set, of ENVELOPE_PROGRESS_FLAGS */
    uint32_t delivery; /* a recipient of the domain that next_try, attempts and last_reply speak of,
                          or ENVELOPE_DELIVERY_NONE */
    uint32_t dsn_runs; /* DSNs made for this message, with this one */
    struct span last_reply; /* printable, at most 1,000 octets; for `queue show` */
    const struct envelope_settle *settles;
    uint32_t settle_count;
    const struct envelope_settle *wishes; /* what becomes of recipients of which no settle tells,
                                             also no later one: FAILED or SETTLED */
    uint32_t wish_count;
    struct span route;   /* the delivery is routed by this domain, not by its recipients'; empty: by
                            theirs. At most ENVELOPE_DOMAIN_SIZE_MAX octets, without NUL, CR, LF */
    uint32_t hold_order; /* the operator's order that holds this delivery, until next_try
                            (INT64_MAX: until it is released); 0: it is not held */
    wall_us told_time;   /* of the first `told_count` settles, and of all that are expired, a record
                            tells (relay/record.h), of this time; 0: of none */
    uint32_t told_count;
};
/** Octets envelope_progress_encode() will need; it CHECKs envelope_progress_is_valid(). */
uint32_t envelope_progress_encoded_size(const struct envelope_progress *progress);
void envelope_progress_encode(const struct envelope_progress *progress, uint8_t *ret_data);
/**
 * Does it tell of one delivery only how often it was tried and when it is tried next? Whatever
 * later one does the same for the delivery replaces it. False also for what does not decode.
 */
bool envelope_progress_is_retry(struct span encoded, uint32_t *ret_delivery);
/** Within every bound, as envelope_is_valid(). */
bool envelope_progress_is_valid(const struct envelope_progress *progress);
/** As envelope_decode(). The recipient indexes are not checked against a message: the caller does.
 */
enum err envelope_progress_decode(struct span encoded, struct arena *arena,
                                  struct envelope_progress *ret_progress) MUST_CHECK;

#endif
