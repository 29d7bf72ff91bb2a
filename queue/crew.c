/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next piece of work is a counter that all threads draw from. What cannot be started is done
 * without: the calling thread finishes everything by itself if it must.
 */
#include "queue/crew.h"

#include <pthread.h>
#include <stdatomic.h>

struct crew {
    _Atomic uint32_t next;
    uint32_t count;
    void (*work)(void *context, uint32_t worker, uint32_t index);
    void *context;
};

struct crew_member {
    struct crew *crew;
    uint32_t worker;
    pthread_t thread;
};

static void *member_main(void *argument)
{
    struct crew_member *member = argument;
    struct crew *crew = member->crew;

    for (;;) {
        uint32_t index = atomic_fetch_add_explicit(&crew->next, 1, memory_order_relaxed);
        if (index >= crew->count)
            return NULL;
        crew->work(crew->context, member->worker, index);
    }
}

void crew_run(uint32_t size, uint32_t count,
              void (*work)(void *context, uint32_t worker, uint32_t index), void *context)
{
    struct crew crew = {.count = count, .work = work, .context = context};
    struct crew_member members[CREW_SIZE_MAX];
    uint32_t started = 1;

    CHECK(size > 0 && size <= CREW_SIZE_MAX && count < UINT32_MAX - CREW_SIZE_MAX);
    for (uint32_t i = 0; i < size; i++)
        members[i] = (struct crew_member){.crew = &crew, .worker = i};
    /* pthread_create() and pthread_join() order what is written before and after. */
    while (started < size &&
           pthread_create(&members[started].thread, NULL, member_main, &members[started]) == 0)
        started++;
    member_main(&members[0]);
    for (uint32_t i = 1; i < started; i++)
        (void)pthread_join(members[i].thread, NULL);
}
