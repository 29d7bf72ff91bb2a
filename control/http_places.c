/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places, and the thread that looks after them: libmicrohttpd has a thread for each connection, and
 * these wait in calls that nobody wakes them from. Whoever is late has its socket shut down, upon
 * which its own thread finds the connection ended and cleans up.
 *
 *   a seat:   READING   the next request is not whole     until `deadline`
 *             ASKED     it is the relay's turn            no bound here: questions have theirs
 *             TAKING    the client takes what it was told until `deadline`
 *
 * Invariants
 *   1. A descriptor is shut down under the lock only, and a connection leaves under the lock before
 *      its descriptor is closed: no other's is ever hit.
 *   2. A listener with all but HTTP_CLIENT_SPARE of its places taken loses the stranger who has
 *      been there for longest: who shows no token cannot keep out who has one.
 *   3. A stream whose client has left ends, also while the relay has nothing to tell.
 *
 * The thread sleeps without a limit while nobody is connected.
 */
#include "control/http_places.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "base/span.h"

#define LISTENERS 2u
#define NEVER     INT64_MAX
#define LOOK_MS   1000 /* after clients who leave their stream */

const struct http_patience http_patience_usual = {
    .question = 10000, .stranger = 10000, .request = 60000, .take = 20000};

enum seat_state { SEAT_FREE, SEAT_READING, SEAT_ASKED, SEAT_TAKING };

struct http_seat {
    enum seat_state state;
    enum http_role role; /* shown with its last request */
    int fd, control;     /* control: of its stream; -1: none */
    uint32_t listener;
    int64_t since, deadline;
    bool is_sent_away;
};

struct http_places {
    struct http_patience patience;
    pthread_mutex_t lock;
    pthread_cond_t room;   /* a question or work has ended */
    pthread_cond_t sooner; /* the usher is needed before `next` */
    int64_t next;
    pthread_t usher;
    bool is_stopping;
    uint32_t questions, viewer_questions, streams, viewer_streams, work;
    struct http_seat seats[LISTENERS * HTTP_CLIENT_MAX];
};

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct timespec time_of(int64_t ms)
{
    return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
}

/* ---- seats ---- */

static void usher_call(struct http_places *places, int64_t at)
{
    if (at < places->next)
        pthread_cond_signal(&places->sooner);
}

static void seat_send_away(struct http_seat *seat)
{
    (void)shutdown(seat->fd, SHUT_RDWR);
    seat->is_sent_away = true;
    seat->deadline = NEVER;
}

/* Who has shown no token, and has been here for longest; NULL: nobody. */
static struct http_seat *stranger_find(struct http_places *places, uint32_t listener)
{
    struct http_seat *oldest = NULL;

    for (uint32_t i = 0; i < COUNT_OF(places->seats); i++) {
        struct http_seat *seat = &places->seats[i];
        if (seat->state != SEAT_FREE && seat->listener == listener && !seat->is_sent_away &&
            seat->role == HTTP_ROLE_NONE && (oldest == NULL || seat->since < oldest->since))
            oldest = seat;
    }
    return oldest;
}

struct http_seat *http_seat_take(struct http_places *places, int fd, uint32_t listener)
{
    struct http_seat *taken = NULL;
    uint32_t count = 0;

    CHECK(listener < LISTENERS);
    pthread_mutex_lock(&places->lock);
    for (uint32_t i = 0; i < COUNT_OF(places->seats); i++) {
        struct http_seat *seat = &places->seats[i];
        count += seat->state != SEAT_FREE && seat->listener == listener && !seat->is_sent_away;
        if (seat->state == SEAT_FREE)
            taken = seat;
    }
    if (count >= HTTP_CLIENT_MAX - HTTP_CLIENT_SPARE) {
        struct http_seat *stranger = stranger_find(places, listener);
        if (stranger != NULL)
            seat_send_away(stranger);
    }
    if (taken != NULL)
        *taken = (struct http_seat){.state = SEAT_READING,
                                    .fd = fd,
                                    .control = -1,
                                    .listener = listener,
                                    .since = now_ms(),
                                    .deadline = now_ms() + places->patience.stranger};
    if (taken != NULL)
        usher_call(places, taken->deadline);
    pthread_mutex_unlock(&places->lock);
    return taken;
}

void http_seat_leave(struct http_places *places, struct http_seat *seat)
{
    if (seat == NULL)
        return;
    pthread_mutex_lock(&places->lock);
    CHECK(seat->control < 0);
    seat->state = SEAT_FREE;
    pthread_mutex_unlock(&places->lock);
}

static void seat_set(struct http_places *places, struct http_seat *seat, enum seat_state state,
                     int64_t time_ms)
{
    seat->state = state;
    if (!seat->is_sent_away)
        seat->deadline = time_ms == NEVER ? NEVER : now_ms() + time_ms;
    usher_call(places, seat->deadline);
}

void http_seat_asked(struct http_places *places, struct http_seat *seat, enum http_role role)
{
    pthread_mutex_lock(&places->lock);
    seat->role = role;
    seat_set(places, seat, SEAT_ASKED, NEVER);
    pthread_mutex_unlock(&places->lock);
}

void http_seat_given(struct http_places *places, struct http_seat *seat, bool is_given)
{
    pthread_mutex_lock(&places->lock);
    seat_set(places, seat, is_given ? SEAT_TAKING : SEAT_ASKED,
             is_given ? places->patience.take : NEVER);
    pthread_mutex_unlock(&places->lock);
}

void http_seat_answered(struct http_places *places, struct http_seat *seat)
{
    pthread_mutex_lock(&places->lock);
    seat_set(places, seat, SEAT_READING,
             seat->role == HTTP_ROLE_NONE ? places->patience.stranger : places->patience.request);
    pthread_mutex_unlock(&places->lock);
}

/* ---- questions and streams ---- */

static bool question_has_room(const struct http_places *places, enum http_role role)
{
    return places->questions < HTTP_QUESTION_MAX &&
           (role == HTTP_ROLE_ADMIN || places->viewer_questions < HTTP_QUESTION_VIEWERS);
}

bool http_question_begin(struct http_places *places, enum http_role role)
{
    struct timespec until = time_of(now_ms() + places->patience.question);
    int error = 0;

    pthread_mutex_lock(&places->lock);
    while (!question_has_room(places, role) && error == 0)
        error = pthread_cond_timedwait(&places->room, &places->lock, &until);
    bool has_room = question_has_room(places, role);
    places->questions += has_room;
    places->viewer_questions += has_room && role != HTTP_ROLE_ADMIN;
    pthread_mutex_unlock(&places->lock);
    return has_room;
}

void http_question_end(struct http_places *places, enum http_role role)
{
    pthread_mutex_lock(&places->lock);
    CHECK(places->questions > 0);
    places->questions -= 1;
    places->viewer_questions -= role != HTTP_ROLE_ADMIN;
    pthread_cond_broadcast(&places->room);
    pthread_mutex_unlock(&places->lock);
}

bool http_work_begin(struct http_places *places)
{
    struct timespec until = time_of(now_ms() + places->patience.question);
    int error = 0;

    pthread_mutex_lock(&places->lock);
    while (places->work == HTTP_WORK_MAX && error == 0)
        error = pthread_cond_timedwait(&places->room, &places->lock, &until);
    bool has_room = places->work < HTTP_WORK_MAX;
    places->work += has_room;
    pthread_mutex_unlock(&places->lock);
    return has_room;
}

void http_work_end(struct http_places *places)
{
    pthread_mutex_lock(&places->lock);
    CHECK(places->work > 0);
    places->work -= 1;
    pthread_cond_broadcast(&places->room);
    pthread_mutex_unlock(&places->lock);
}

bool http_stream_begin(struct http_places *places, enum http_role role)
{
    pthread_mutex_lock(&places->lock);
    bool has_room = places->streams < HTTP_STREAM_MAX &&
                    (role == HTTP_ROLE_ADMIN || places->viewer_streams < HTTP_STREAM_VIEWERS);
    places->streams += has_room;
    places->viewer_streams += has_room && role != HTTP_ROLE_ADMIN;
    pthread_mutex_unlock(&places->lock);
    return has_room;
}

void http_stream_follow(struct http_places *places, struct http_seat *seat, int control)
{
    pthread_mutex_lock(&places->lock);
    CHECK(seat->control < 0 && control >= 0);
    seat->control = control;
    usher_call(places, now_ms() + LOOK_MS);
    pthread_mutex_unlock(&places->lock);
}

void http_stream_end(struct http_places *places, struct http_seat *seat, enum http_role role)
{
    pthread_mutex_lock(&places->lock);
    CHECK(places->streams > 0);
    if (seat != NULL)
        seat->control = -1;
    places->streams -= 1;
    places->viewer_streams -= role != HTTP_ROLE_ADMIN;
    pthread_mutex_unlock(&places->lock);
}

/* ---- the usher ---- */

static bool has_left(const struct http_seat *seat)
{
    struct pollfd look = {.fd = seat->fd, .events = POLLRDHUP};

    return poll(&look, 1, 0) > 0;
}

bool http_seat_is_left(struct http_places *places, const struct http_seat *seat)
{
    pthread_mutex_lock(&places->lock);
    bool is_left = has_left(seat);
    pthread_mutex_unlock(&places->lock);
    return is_left;
}

/* Returns when to look again. */
static int64_t seats_review(struct http_places *places, int64_t now)
{
    int64_t next = NEVER;

    for (uint32_t i = 0; i < COUNT_OF(places->seats); i++) {
        struct http_seat *seat = &places->seats[i];
        if (seat->state == SEAT_FREE)
            continue;
        if (seat->deadline <= now)
            seat_send_away(seat);
        if (seat->deadline < next)
            next = seat->deadline;
        if (seat->control < 0)
            continue;
        if (has_left(seat))
            (void)shutdown(seat->control, SHUT_RDWR);
        if (now + LOOK_MS < next)
            next = now + LOOK_MS;
    }
    return next;
}

static void *usher_main(void *context)
{
    struct http_places *places = context;

    pthread_mutex_lock(&places->lock);
    while (!places->is_stopping) {
        places->next = seats_review(places, now_ms());
        struct timespec until = time_of(places->next);
        if (places->next == NEVER)
            pthread_cond_wait(&places->sooner, &places->lock);
        else
            pthread_cond_timedwait(&places->sooner, &places->lock, &until);
    }
    pthread_mutex_unlock(&places->lock);
    return NULL;
}

/* ---- start and end ---- */

struct http_places *http_places_new(const struct http_patience *patience)
{
    struct http_places *places = calloc(1, sizeof(*places));
    pthread_condattr_t monotonic;

    if (places == NULL)
        return NULL;
    places->patience = *patience;
    pthread_mutex_init(&places->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&places->room, &monotonic);
    pthread_cond_init(&places->sooner, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&places->usher, NULL, usher_main, places) != 0) {
        free(places);
        return NULL;
    }
    pthread_setname_np(places->usher, "http-places");
    return places;
}

void http_places_free(struct http_places *places)
{
    if (places == NULL)
        return;
    pthread_mutex_lock(&places->lock);
    places->is_stopping = true;
    pthread_cond_signal(&places->sooner);
    pthread_mutex_unlock(&places->lock);
    pthread_join(places->usher, NULL);
    pthread_cond_destroy(&places->room);
    pthread_cond_destroy(&places->sooner);
    pthread_mutex_destroy(&places->lock);
    free(places);
}
