/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_EXCEPTION_H
#define DATAPLANE_WIRE_PORT_EXCEPTION_H

#include "base/buf.h"

/*
 * The exception path of a port: a TAP interface of the kernel that gets what is not the engine's
 * (SSH, BGP, other addresses) and sends through the same port. It has the port's link address.
 *
 * A thread of its own makes the system calls; shards only touch rings.
 */
struct exception_options {
    const char *name; /* of the interface */
    uint8_t mac[6];
    uint16_t mtu;
    uint16_t queue_count; /* shards that send to it */
};

struct exception_stats {
    uint64_t out, in; /* to and from the interface */
    uint64_t dropped; /* either way: the interface or the pool was full, or the frame impossible */
};

struct exception;

/**
 * The interface is up and the thread runs. Needs CAP_NET_ADMIN and the EAL.
 *
 * Errors:     ERR_SYSTEM, with `ret_error` of `error_size` octets for people.
 */
enum err exception_new(const struct exception_options *options, struct exception **ret_exception,
                       char *ret_error, uint32_t error_size) MUST_CHECK;
/** After shards stopped. Frames inside are released. */
void exception_free(struct exception *exception);

/** Give it a frame; true: taken. Threading: the shard of `queue`. Cost: a system call only if the
 * thread sleeps. */
bool exception_send(struct exception *exception, uint16_t queue, struct buf *frame) MUST_CHECK;
/** Frames from the kernel; the caller's. Threading: one shard. */
uint32_t exception_receive(struct exception *exception, struct buf **ret_frames, uint32_t max);
/** Threading: any. */
struct exception_stats exception_get_stats(const struct exception *exception);

#endif
