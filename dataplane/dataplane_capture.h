/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_DATAPLANE_CAPTURE_H
#define DATAPLANE_DATAPLANE_CAPTURE_H

#include "dataplane/flow.h"

/* Frames of every core's engine as one pcap file, or as a stream of its octets, for control/. */
#define DATAPLANE_CAPTURE_ERROR_SIZE 256u

struct dataplane_capture;

struct dataplane_capture_options {
    const char *path;   /* made, mode 0600; must not be there yet. NULL: */
    int stream;         /* a connected socket instead, the capture's unless there is an error */
    const char *filter; /* pcap-filter(7); "": everything */
    uint32_t frames_max;
    uint64_t size_max; /* octets of the file */
    uint32_t core_count;
};

struct dataplane_capture_stats {
    uint64_t written, dropped, size; /* frames; frames for which the ring was full; octets */
};

/** Errors: ERR_CONFIG_SYNTAX (the filter), ERR_DISK_IO (the file); ret_error says why. Control
 * thread, as all but the tap. */
enum err dataplane_capture_new(const struct dataplane_capture_options *options,
                               struct dataplane_capture **ret_capture,
                               char ret_error[DATAPLANE_CAPTURE_ERROR_SIZE]) MUST_CHECK;
/** The core's engine shows its frames to the capture from now on, or no more. Core's thread.
 * Nothing happens with kernel sockets. */
void dataplane_capture_tap(struct dataplane_capture *capture, struct flow_plane *plane,
                           uint32_t core, bool is_on);
/** Nothing more is taken: what came in goes out. */
void dataplane_capture_stop(struct dataplane_capture *capture);
/** Move what came in to the file; some ten times a second. False: a bound was reached, or it was
 * stopped, and what was taken is out. */
bool dataplane_capture_drain(struct dataplane_capture *capture);
/** After the tap was taken off every core. */
struct dataplane_capture_stats dataplane_capture_free(struct dataplane_capture *capture);

#endif
