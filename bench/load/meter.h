/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_METER_H
#define BENCH_LOAD_METER_H

#include "base/tick.h"
#include "bench/load/histogram.h"

/* What is measured, second by second and in all. */
enum meter_latency {
    METER_CONNECT,    /* source: connect() */
    METER_BANNER,     /* connection to the greeting */
    METER_HELLO,      /* EHLO to its reply */
    METER_TLS,        /* STARTTLS, or the first octet, to the end of the handshake */
    METER_MAIL,       /* a command to its reply; the flight's start under PIPELINING */
    METER_RCPT,       /* ... of each recipient */
    METER_DATA,       /* ... to the 354 */
    METER_FINAL,      /* the text handed to the network to the final reply */
    METER_MESSAGE,    /* MAIL to the final reply; with a rate: from when it was meant to be sent */
    METER_WAIT,       /* with a rate: how late MAIL was, behind when it was meant to be sent */
    METER_END_TO_END, /* sink: from the message's stamp to its last octet here */
    METER_TURN,       /* a turn of our own loop: what all figures above are uncertain by */
    METER_LATENCY_COUNT
};

enum meter_count {
    METER_MESSAGES,
    METER_RECIPIENTS,
    METER_OCTETS,
    METER_TEMPFAILS,
    METER_PERMFAILS,
    METER_LOST,    /* connections lost with a message under way */
    METER_DAMAGED, /* sink: an octet changed */
    METER_CONNECTIONS,
    METER_REFUSED,   /* connections that ended before a message could be sent */
    METER_UNSENT,    /* source with a rate: meant to be sent by the end, and not sent */
    METER_NOT_TAKEN, /* source: recipients refused */
    METER_SKEWED,    /* sink: stamped in the future; not in END_TO_END */
    METER_RESUMED,   /* source: TLS handshakes that resumed a session */
    METER_IDLE,      /* source: connections that were ready to be idle */
    METER_IDLE_LOST, /* source: ended while they were */
    METER_COUNT_COUNT
};

struct meter_sample {
    double at, seconds; /* its end since the start; how long */
    uint64_t counts[METER_COUNT_COUNT];
    uint32_t open; /* connections at its end */
    uint64_t latency_count, p50, p99, p999, max;
};

struct meter {
    const char *what;           /* "source", "sink" */
    enum meter_latency charted; /* the latency told every second */
    tick_us started, line_at, last_at;
    uint32_t open;
    uint64_t counts[METER_COUNT_COUNT], before[METER_COUNT_COUNT];
    struct histogram latencies[METER_LATENCY_COUNT];
    struct histogram second; /* of `charted` */
    struct meter_sample *samples;
    uint32_t sample_count, sample_capacity;
};

/** Heap. */
struct meter *meter_new(const char *what, enum meter_latency charted, tick_us now);
void meter_free(struct meter *meter);
static inline void meter_count(struct meter *meter, enum meter_count what, uint64_t by)
{
    meter->counts[what] += by;
}
static inline void meter_latency(struct meter *meter, enum meter_latency what, tick_us time)
{
    histogram_add(&meter->latencies[what], time);
    if (what == meter->charted)
        histogram_add(&meter->second, time);
}
/** Close a second, if one is over. The sample, or NULL. */
const struct meter_sample *meter_tick(struct meter *meter, tick_us now);
/** Close what is left. Call once. */
void meter_end(struct meter *meter, tick_us now);

/** Name of a latency, static. */
const char *meter_latency_name(enum meter_latency what);
/** One line for people, or for programs, on standard output. */
void meter_print_sample(const struct meter *meter, const struct meter_sample *sample, bool is_json);
/** The whole run; `note` is a line of what was negotiated, or "". */
void meter_print_total(const struct meter *meter, tick_us began, tick_us now, const char *note,
                       bool is_json);

#include <stdio.h>
/** The JSON object of a sample, and of the whole run. */
void meter_write_sample(FILE *file, const struct meter *meter, const struct meter_sample *sample);
void meter_write_total(FILE *file, const struct meter *meter, double seconds);
/** "1.25 ms" */
#define METER_TIME_SIZE 24u
const char *meter_time(uint64_t time_us, char ret_text[METER_TIME_SIZE]);

#endif
