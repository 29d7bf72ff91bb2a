/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The capture of the control socket. Bounds have defaults, so that a forgotten capture ends by
 * itself: FRAMES_DEFAULT frames, SIZE_MAX octets, SECONDS_DEFAULT seconds.
 */
#include "control/admin_capture.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAMES_DEFAULT  100000
#define FRAMES_MAX      100000000
#define SECONDS_DEFAULT 60
#define SECONDS_MAX     86400
#define FILE_SIZE_MAX   (1ull << 30)
#define DRAIN_TIME      TICK_MS(100)
#define LATE_TIME       TICK_S(2) /* for a reader of a stream who is behind at the end */

static json_int_t number_within(const json_t *request, const char *name, json_int_t none,
                                json_int_t max)
{
    json_int_t value = json_integer_value(json_object_get(request, name));

    if (value <= 0)
        return none;
    return value < max ? value : max;
}

static bool refuse(char ret_why[DATAPLANE_CAPTURE_ERROR_SIZE], const char *why)
{
    (void)snprintf(ret_why, DATAPLANE_CAPTURE_ERROR_SIZE, "%s", why);
    return false;
}

/* To a file, or to who reads the first of `ends`. */
static bool capture_make(struct admin_capture *capture, struct dataplane_capture_options *options,
                         int ends[2], char ret_why[DATAPLANE_CAPTURE_ERROR_SIZE])
{
    if (options->path == NULL && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return refuse(ret_why, "there is no socket left");
    options->stream = ends[1];
    if (dataplane_capture_new(options, &capture->capture, ret_why) == ERR_OK)
        return true;
    for (uint32_t i = 0; i < 2 && options->path == NULL; i++)
        close(ends[i]);
    return false;
}

bool admin_capture_begin(struct admin_capture *capture, const json_t *request, uint32_t shard_count,
                         int *ret_reader, char ret_why[DATAPLANE_CAPTURE_ERROR_SIZE])
{
    const struct tick_source *clock = tick_source_system();
    bool is_stream = json_is_true(json_object_get(request, "stream"));
    int ends[2] = {-1, -1};
    const char *path = json_string_value(json_object_get(request, "file"));
    const char *filter = json_string_value(json_object_get(request, "id"));
    struct dataplane_capture_options options = {
        .path = is_stream ? NULL : path,
        .filter = filter == NULL ? "" : filter,
        .frames_max = (uint32_t)number_within(request, "count", FRAMES_DEFAULT, FRAMES_MAX),
        .size_max = FILE_SIZE_MAX,
        .core_count = shard_count,
    };

    if (capture->state != ADMIN_CAPTURE_NONE)
        return refuse(ret_why, "a capture runs: angarium capture stop");
    if (!is_stream && (path == NULL || path[0] != '/'))
        return refuse(ret_why, "--file needs an absolute path");
    if (!capture_make(capture, &options, ends, ret_why))
        return false;
    *ret_reader = ends[0];
    tick_us now = clock->monotonic(clock->context);
    capture->state = ADMIN_CAPTURE_STARTING;
    capture->is_over = false;
    capture->deadline =
        now + TICK_S(number_within(request, "seconds", SECONDS_DEFAULT, SECONDS_MAX));
    capture->drain_at = now + DRAIN_TIME;
    return true;
}

bool admin_capture_end(struct admin_capture *capture)
{
    if (capture->state != ADMIN_CAPTURE_RUNNING)
        return false;
    capture->state = ADMIN_CAPTURE_ENDING;
    return true;
}

/* On the shard's thread. */
static void look_at_frames(struct shard_query *query, struct flow_plane *plane)
{
    const struct admin_capture *capture = query->found;

    dataplane_capture_tap(capture->capture, plane, capture->shard,
                          capture->state == ADMIN_CAPTURE_STARTING);
    query->cursor = UINT64_MAX;
}

void admin_capture_query(struct admin_capture *capture, uint32_t shard, struct shard_query *query)
{
    capture->shard = shard;
    query->kind = SHARD_QUERY_PLANE;
    query->look = look_at_frames;
    query->found = capture;
}

void admin_capture_done(struct admin_capture *capture)
{
    if (capture->state == ADMIN_CAPTURE_STARTING) {
        capture->state = ADMIN_CAPTURE_RUNNING;
        return;
    }
    CHECK(capture->state == ADMIN_CAPTURE_ENDING);
    capture->stats = dataplane_capture_free(capture->capture);
    capture->capture = NULL;
    capture->state = ADMIN_CAPTURE_NONE;
}

void admin_capture_run(struct admin_capture *capture, tick_us now)
{
    if (capture->state != ADMIN_CAPTURE_RUNNING || now < capture->drain_at)
        return;
    capture->drain_at = now + DRAIN_TIME;
    if (now >= capture->deadline)
        dataplane_capture_stop(capture->capture);
    if (!dataplane_capture_drain(capture->capture) || now >= capture->deadline + LATE_TIME)
        capture->is_over = true;
}

tick_us admin_capture_deadline(const struct admin_capture *capture)
{
    return capture->state == ADMIN_CAPTURE_RUNNING ? capture->drain_at : TICK_NEVER;
}

json_t *admin_capture_answer(const struct admin_capture *capture)
{
    char text[160];
    json_t *answer = json_object();

    if (capture->state == ADMIN_CAPTURE_NONE)
        snprintf(text, sizeof(text), "captured %llu frames, %llu octets; %llu found no room",
                 (unsigned long long)capture->stats.written,
                 (unsigned long long)capture->stats.size,
                 (unsigned long long)capture->stats.dropped);
    else
        snprintf(text, sizeof(text), "capturing; angarium capture stop ends it");
    json_object_set_new(answer, "ok", json_true());
    json_object_set_new(answer, "text", json_string(text));
    json_object_set_new(answer, "frames", json_integer((json_int_t)capture->stats.written));
    json_object_set_new(answer, "dropped", json_integer((json_int_t)capture->stats.dropped));
    return answer;
}

void admin_capture_fini(struct admin_capture *capture)
{
    if (capture->capture != NULL)
        dataplane_capture_free(capture->capture);
    capture->capture = NULL;
}
