/* SPDX-License-Identifier: Apache-2.0 */
/* What control/ needs of dataplane/wire/port/capture.h. */
#include "dataplane/dataplane_capture.h"

#include <stdio.h>

#include "dataplane/flow_pair.h"
#include "dataplane/wire/port/capture.h"

static struct capture *capture_of(struct dataplane_capture *capture)
{
    return (struct capture *)(void *)capture;
}

enum err dataplane_capture_new(const struct dataplane_capture_options *options,
                               struct dataplane_capture **ret_capture,
                               char ret_error[DATAPLANE_CAPTURE_ERROR_SIZE])
{
    struct capture *capture = NULL;
    char error[CAPTURE_ERROR_SIZE] = "";
    struct capture_options wanted = {.path = options->path,
                                     .stream = options->stream,
                                     .filter = options->filter,
                                     .frames_max = options->frames_max,
                                     .size_max = options->size_max,
                                     .port = CAPTURE_EVERY_PORT,
                                     .source_count = options->core_count,
                                     .now = tick_now_read(tick_source_system())};

    enum err err = capture_new(&wanted, &capture, error);
    snprintf(ret_error, DATAPLANE_CAPTURE_ERROR_SIZE, "%s", error);
    if (err == ERR_OK)
        *ret_capture = (struct dataplane_capture *)(void *)capture;
    return err;
}

void dataplane_capture_tap(struct dataplane_capture *capture, struct flow_plane *plane,
                           uint32_t core, bool is_on)
{
    struct flow_plane *wire = flow_pair_wire(plane);

    if (wire == NULL)
        return;
    if (is_on)
        stack_set_tap(stack_of_plane(wire), capture_tap, capture_source(capture_of(capture), core));
    else
        stack_set_tap(stack_of_plane(wire), NULL, NULL);
}

void dataplane_capture_stop(struct dataplane_capture *capture)
{
    capture_stop(capture_of(capture));
}

bool dataplane_capture_drain(struct dataplane_capture *capture)
{
    return capture_drain(capture_of(capture));
}

struct dataplane_capture_stats dataplane_capture_free(struct dataplane_capture *capture)
{
    struct capture_stats stats = capture_free(capture_of(capture));

    return (struct dataplane_capture_stats){stats.written, stats.dropped, stats.size};
}
