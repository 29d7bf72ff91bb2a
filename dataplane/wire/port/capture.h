/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_CAPTURE_H
#define DATAPLANE_WIRE_PORT_CAPTURE_H

#include "dataplane/wire/port/capture_filter.h"
#include "dataplane/wire/stack.h"

/*
 * What passes the wire, into a file that tcpdump and Wireshark read, or as the octets of one to
 * whoever reads them from a socket: `angarium capture`. Bounded in size and number. Who reads too
 * slowly loses frames, and holds up nobody. Each shard's stack writes into a ring of its own and
 * never waits: what finds no room is dropped and counted. The control thread moves it to the file.
 */
#define CAPTURE_EVERY_PORT UINT32_MAX

struct capture_options {
    const char *path;   /* made, mode 0600; must not be there yet: it will hold mail. NULL: */
    int stream;         /* a connected socket instead, the capture's unless there is an error */
    const char *filter; /* pcap-filter(7); "": everything */
    uint32_t snap_size; /* octets kept of a frame; 0: all, up to CAPTURE_SNAP_MAX */
    uint32_t frames_max;
    uint64_t size_max;     /* of the file, octets; at least 4,096 */
    uint32_t port;         /* of the stack, or CAPTURE_EVERY_PORT */
    bool is_l3;            /* the port has no Ethernet headers (NIC_IS_L3) */
    uint32_t source_count; /* stacks */
    struct tick_now now;   /* both clocks at one moment */
};

struct capture_stats {
    uint64_t written, dropped; /* frames; dropped: the ring was full */
    uint64_t size;             /* of the file */
    enum err err; /* ERR_OK, ERR_LIMIT: a bound was reached, ERR_DISK_IO: also, nobody reads */
};

struct capture;

/**
 * The file is there, and the header in it.
 *
 * Errors:     ERR_CONFIG_SYNTAX: the filter; ERR_DISK_IO: the file; `ret_error` says why.
 */
enum err capture_new(const struct capture_options *options, struct capture **ret_capture,
                     char ret_error[CAPTURE_ERROR_SIZE]) MUST_CHECK;
/** After the tap was taken off every stack. Writes what is left, closes the file. */
struct capture_stats capture_free(struct capture *capture);

/** What stack_set_tap() of stack number `index` gets as context, with capture_tap(). */
void *capture_source(struct capture *capture, uint32_t index);
/** A stack_tap. Threading: the shard of that source. Cost: the filter and, if it matches, a copy;
 * no system call, no waiting. */
void capture_tap(void *source, uint32_t port, bool is_sent, const struct buf *frame, tick_us now);

/** Nothing more is taken: what came in goes out, and then it is over. Threading: control thread. */
void capture_stop(struct capture *capture);
/** Move what came in to the file, in order of time. False: it is over (stats say why), and what was
 * taken is out; taps do nothing any more, and should be taken off. Threading: control thread, some
 * ten times a second. */
bool capture_drain(struct capture *capture);
/** Threading: control thread. */
struct capture_stats capture_get_stats(const struct capture *capture);

#endif
