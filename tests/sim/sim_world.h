/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_SIM_WORLD_H
#define TESTS_SIM_SIM_WORLD_H

#include "tests/sim/node.h"
#include "tests/sim/zone.h"

/*
 * The parts of sim_relay: the ledger of all promises, the senders, the receivers. See sim_relay.c.
 */
#define SIM_RECIPIENT_MAX 6u
#define SIM_DOMAIN_MAX    12u
#define SIM_SENDER_DOMAIN SIM_DOMAIN_MAX /* where bounces go */
#define SIM_PORT          25u
#define SIM_LMTP_PORT     24u  /* who listens here speaks LMTP */
#define SIM_BOUNCE_HOST   200u /* the last octet of the address of the senders' own server */

struct sim_text { /* grows on the heap; NUL-terminated */
    char *data;
    uint32_t size, capacity;
    uint32_t dropped; /* octets before `data`: still there, so that dropping costs nothing */
};
void sim_text_add(struct sim_text *text, const void *octets, uint32_t size);
__attribute__((format(printf, 2, 3))) void sim_text_format(struct sim_text *text,
                                                           const char *format, ...);
/** Drop octets from the front. */
void sim_text_drop(struct sim_text *text, uint32_t size);
void sim_text_fini(struct sim_text *text);

/* ---- the ledger ---- */

enum ledger_fate {                    /* what the sender knows of its message */
                   LEDGER_UNFINISHED, /* the end of data was never sent: must not arrive */
                   LEDGER_UNKNOWN,    /* no reply to the end of data: may arrive, whole */
                   LEDGER_ACCEPTED,   /* 250: every accepted recipient is delivered or bounced */
                   LEDGER_DEFERRED,   /* 4xx */
                   LEDGER_REFUSED,    /* 5xx: must not arrive */
};

struct ledger_recipient {
    uint32_t domain;
    bool is_accepted;              /* its RCPT got 250 */
    bool is_bounced;               /* a bounce that names it was taken by the sender's own server */
    bool wants_all;                /* NOTIFY=SUCCESS,FAILURE,DELAY was said */
    bool is_told;                  /* a notice said that it was relayed */
    uint32_t delivered, passed_on; /* in all, and with NOTIFY */
    tick_us delivered_at;          /* last time */
    bool is_confirmed;             /* the relay surely read the receiver's 250 */
    tick_us ended_at;              /* an operator's bounce of it had to be durable; 0: none */
    tick_us confirmed_at;          /* first seen */
};

struct ledger_message {
    uint32_t number, size;
    enum ledger_fate fate;
    bool is_poisoned;           /* has a bare LF */
    tick_us finished, answered; /* end of data sent; its reply */
    uint16_t code;
    uint32_t recipient_count;
    struct ledger_recipient recipients[SIM_RECIPIENT_MAX];
};

#define LEDGER_CRASH_MAX 16u

struct ledger {
    struct net_sim *net;
    uint64_t seed;
    struct ledger_message *messages;
    uint32_t count, capacity;
    tick_us crashes[LEDGER_CRASH_MAX];
    uint32_t crash_count;
    tick_us lazy_time, commit_deadline;
    bool is_streaming;    /* then every other message is large */
    uint32_t streamed;    /* messages that went on while they came */
    uint32_t ahead;       /* deliveries that were begun, or whose body went, before their turn */
    bool is_cut_through;  /* then half of the mail is for one domain each */
    uint32_t straight;    /* messages that went without the disk */
    bool has_disk_faults; /* then progress may be late, and duplicates after a crash too */
    uint32_t violations, delivered, bounced, duplicates;
    bool is_traced;
};

struct ledger_message *ledger_message_new(struct ledger *ledger, struct rng *rng,
                                          uint32_t domain_count);
/** The message as the sender has it, without dot-stuffing. */
void ledger_content(const struct ledger *ledger, const struct ledger_message *message,
                    struct sim_text *ret_content);
void ledger_address(const struct ledger_message *message, uint32_t recipient, char ret_text[64]);
/** A receiver took a message: `recipients` are addresses as given in RCPT. `is_sure`: the relay
 * will surely read the reply. */
void ledger_on_delivery(struct ledger *ledger, const char *sender, char (*recipients)[128],
                        const bool *has_notify, uint32_t recipient_count,
                        const struct sim_text *content);
/** An operator's bounce of what waited for this domain, begun at `begun`, is durable by now. */
void ledger_on_ended(struct ledger *ledger, uint32_t domain, tick_us begun);
/** The relay names a recipient, in a transaction that began at `mail_at`. */
void ledger_on_rcpt(struct ledger *ledger, const char *address, tick_us mail_at);
/** The relay has read the 250 of the delivery of this address. */
void ledger_on_confirmed(struct ledger *ledger, const char *address);
/** Everything has come to its end: check what was promised. */
void ledger_settle(struct ledger *ledger);
__attribute__((format(printf, 2, 3))) void ledger_violation(struct ledger *ledger,
                                                            const char *format, ...);
__attribute__((format(printf, 2, 3))) void ledger_trace(struct ledger *ledger, const char *format,
                                                        ...);

/* ---- senders ---- */

struct senders;
struct senders_options {
    struct net_sim *net;
    struct ledger *ledger;
    uint64_t seed;
    struct flow_address relay;
    uint32_t sender_count, messages_per_sender, domain_count;
    tick_us start_spread; /* each begins at a random time within this */
};
struct senders *senders_new(const struct senders_options *options);
void senders_free(struct senders *senders);
void senders_turn(struct senders *senders);
tick_us senders_deadline(const struct senders *senders);
bool senders_are_done(const struct senders *senders);

/* ---- receivers ---- */

enum receiver_stage {
    RECEIVER_BANNER,
    RECEIVER_HELLO,
    RECEIVER_MAIL,
    RECEIVER_RCPT,
    RECEIVER_DATA,
    RECEIVER_END,
    RECEIVER_STAGE_COUNT
};
struct receiver_mood { /* chances per million, at every reply */
    uint32_t temporary, permanent, drop, silent, slow;
    uint32_t drop_after_reply; /* at the end of data: 250, then gone */
    uint32_t
        in_body; /* whenever octets of a body come: gone, silent, or a refusal before its end */
    bool has_chunking, has_pipelining, has_dsn;
};
struct receivers;
struct receivers *receivers_new(struct net_sim *net, struct ledger *ledger, uint64_t seed);
void receivers_free(struct receivers *receivers);
/** One more server, listening on this address. */
void receivers_listen(struct receivers *receivers, const struct flow_address *address,
                      const struct receiver_mood *mood);
void receivers_set_mood(struct receivers *receivers, uint32_t index,
                        const struct receiver_mood *mood);
/* The relay's sources in a run with sources: 192.0.2.(SIM_SOURCE_BASE + n), by the name
 * out-n.example, n from 1 on; those of its pool first. 0: any other address. */
#define SIM_SOURCE_BASE  10u
#define SIM_SOURCE_COUNT 3u
#define SIM_SOURCE_OURS  2u /* in the pool */
/** What one server saw of one source: connections at the same time, a connection being over when
 * the relay's FIN or RST arrived or the server ended it; MAIL commands in any closed window of that
 * length. */
struct receiver_peak {
    uint32_t connections, mails;
};
struct receiver_peak receivers_peak(const struct receivers *receivers, uint32_t index,
                                    uint32_t source, tick_us window);
/** A MAIL that comes within that time is a violation. */
void receivers_set_quiet(struct receivers *receivers, uint32_t index, tick_us from, tick_us until);
/** From now on whoever connects is one of the pool's sources, and says the name that it has. */
void receivers_expect_sources(struct receivers *receivers);
/** From now on each server has, for some minutes at a time, one of the pool's sources on a list,
 * and refuses it. `is_misread`: in words that blame the recipient. */
void receivers_keep_lists(struct receivers *receivers, bool is_misread);
void receivers_turn(struct receivers *receivers);
tick_us receivers_deadline(const struct receivers *receivers);

/* ---- records that hold mail (sim_records.c) ---- */

struct sim_records;
struct sim_records_options {
    struct ledger *ledger;
    struct record_sink also; /* hears of each record at once */
    bool is_waited_for;      /* who finds no room waits for a quick writer, as the relay does */
    bool is_deaf;            /* planted bug: the relay does not hear that records are behind */
    bool is_false;           /* planted bug: records are said to be kept before they are */
};
struct sim_records_counts {
    uint64_t kept, replayed, behind; /* behind: times that the relay was told so */
};
struct sim_records *sim_records_new(const struct sim_records_options *options);
/** NULL is legal. */
void sim_records_free(struct sim_records *records);
/** A life of the relay begins: what waited to be written in the one before is lost. */
void sim_records_begin(struct sim_records *records, uint32_t shard_count);
/** One for each shard, of this life. */
const struct record_sink *sim_records_sinks(const struct sim_records *records);
void sim_records_turn(struct sim_records *records, tick_us now);
tick_us sim_records_deadline(const struct sim_records *records);
/** Some are not written yet. */
bool sim_records_wait(const struct sim_records *records);
/** The writer is quick from now on. */
void sim_records_heal(struct sim_records *records);
/** Mail has come to its end: check what the file has. */
void sim_records_settle(struct sim_records *records);
struct sim_records_counts sim_records_count(const struct sim_records *records);

/* ---- the operator ---- */

struct sim_operator;
struct sim_operator_options {
    struct receivers *receivers;
    uint32_t receiver_count;
    char labels[SIM_DOMAIN_MAX + 1][SITE_LABEL_MAX + 1]; /* of the receivers' sites */
    uint64_t seed;
    uint32_t order_count;
    bool is_holding;       /* holds all mail, instead of suspending sites */
    bool is_bouncing;      /* returns what waits for a domain, instead of that */
    wall_us wall;          /* when the clock of the world was 0 */
    bool is_deaf;          /* planted bug: the relay hears of no order */
    struct ledger *ledger; /* BOUNCING; and what follows */
    uint32_t domain_count;
    tick_us *crash_at; /* he makes it crash soon after some orders */
};
struct sim_operator *sim_operator_new(const struct sim_operator_options *options);
void sim_operator_free(struct sim_operator *operator);
void sim_operator_turn(struct sim_operator *operator, struct node * node, tick_us now);
tick_us sim_operator_deadline(const struct sim_operator *operator);
/** How many suspensions there were. */
uint32_t sim_operator_suspended(const struct sim_operator *operator);

#endif
