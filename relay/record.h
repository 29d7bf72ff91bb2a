/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_RECORD_H
#define RELAY_RECORD_H

#include "base/tick.h"
#include "dataplane/flow.h"
#include "queue/envelope.h"

/*
 * What happened to mail, for people and programs: shards emit fixed binary records to a ring, a
 * writer thread formats them (control/record_writer.c). Text fields are truncated, may hold any
 * octet, and are escaped by the writer.
 */
enum record_kind {
    RECORD_RECEPTION = 1, /* 250 to the end of data */
    RECORD_DELIVERY,      /* a next hop's 2xx, one per recipient */
    RECORD_DEFERRAL,
    RECORD_BOUNCE, /* refused for good */
    RECORD_EXPIRY,
    RECORD_REJECTION, /* 4xx or 5xx to a client at MAIL, RCPT or end of data */
    RECORD_ORDER,     /* an operator's order was carried out on a recipient; text says which */
};

struct record {
    uint16_t kind; /* enum record_kind */
    uint16_t code; /* SMTP reply code, 0: none */
    uint8_t enhanced[3];
    uint8_t attempts;
    uint8_t way; /* enum way */
    uint32_t shard;
    wall_us time;
    struct message_id id;
    uint64_t size;
    uint64_t session; /* id of the inbound session (reception, rejection) or outbound connection */
    struct flow_address source; /* our address */
    struct flow_address peer;
    uint32_t delays_ms[4];    /* before the queue, in the queue, connection, transmission */
    uint32_t connection_use;  /* n-th transaction on its connection */
    uint16_t recipient_count; /* reception */
    uint16_t flags;           /* enum record_flags */
    uint32_t recipient_index; /* delivery, bounce, expiry: of the message; part of the event's id */
    uint64_t sequence;        /* of the shard's records since the start; the sink's */
    char tls[24];             /* "TLSv1.3", empty: none */
    char host[96];            /* next hop's name, or client's EHLO name */
    char site[64];
    char source_name[32]; /* of `source` */
    char user[64];        /* who is, or wants to be, logged in; empty: nobody */
    char sender[128];
    char recipient[128];
    char text[256]; /* reply text */
};
enum record_flags {
    RECORD_UNCERTAIN = 1,
    RECORD_IS_DSN = 2,
    RECORD_PASSED_ON = 4,   /* BOUNCE: the client heard it, nothing is returned */
    RECORD_REPLAYED = 8,    /* written again after a crash, from what the spool knows */
    RECORD_NEXT_AHEAD = 16, /* begun before the message in front of it was answered */
    RECORD_BDAT_AHEAD = 32, /* its body went before any reply to it */
};

/*
 * What a sink that holds mail back promises, and what is to be replayed. A number counts the
 * shard's records since the start.
 */
struct record_holder {
    uint64_t (*emitted)(void *context); /* number of the last record */
    uint64_t (*kept)(void *context);    /* all up to this one outlive a crash */
    wall_us (*since)(void *context); /* records of this time or later may be lost; INT64_MAX: none
                                        are. As the process before left it: asked when its mail
                                        is found */
    void (*replayed)(void *context); /* nothing is left to replay */
};

/*
 * Where shards put them: an SPSC ring in the daemon, a list in tests. A sink that is full drops and
 * counts; one that holds is asked before more mail is begun.
 */
struct record_sink {
    void (*emit)(void *context, const struct record *record);
    void *context;
    bool (*is_behind)(void *context);   /* more waits than should; NULL: never */
    const struct record_holder *holder; /* NULL: nothing is kept for certain, nor replayed */
    bool is_holding; /* mail waits: no DONE before its records are kept, nothing new is begun while
                        it is behind */
};

/** A sink that holds is behind: begin nothing that makes records. */
static inline bool record_sink_holds(const struct record_sink *sink)
{
    return sink->is_holding && sink->is_behind(sink->context);
}
#define RECORD_EVENT_SIZE 56u
/**
 * The name of the event: equal for all records of one event, whichever run wrote them, when it is a
 * reception or the end of a recipient; else this record's alone. Returns ret_text.
 */
const char *record_event_format(const struct record *record, char ret_text[RECORD_EVENT_SIZE]);
/** Copy text into a fixed field, truncated, NUL-terminated. */
void record_text(char *ret_field, uint32_t field_size, struct span text);

#endif
