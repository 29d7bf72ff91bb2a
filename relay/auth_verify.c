/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passwords against hashes, on a thread of their own.
 *
 * A ring of slots with one producer (the shard) and one consumer (the helper):
 *
 *   collected <= done <= submitted          all only rise
 *
 * The helper publishes `done` with release; the owner reads it with acquire and finds the result in
 * the slot. The helper sleeps in read() of an eventfd that the owner writes for every submission: a
 * password costs so much that the call does not count.
 *
 * Invariants
 *   1. Slots in [done, submitted) belong to the helper, all others to the owner.
 *   2. A password is overwritten as soon as it was checked, whatever the result.
 *   3. The helper touches nothing but slots: a session may end, and a configuration go, meanwhile.
 *
 * Limits: AUTH_VERIFY_QUEUE slots. Not here: whose hash it is, and what follows (server_auth.c).
 */
#include "relay/auth_verify.h"

#include "relay/auth_scram.h"

#include <crypt.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct verify_slot {
    uint32_t token;
    bool is_match;
    char password[AUTH_PASSWORD_MAX + 1];
    char hash[AUTH_HASH_MAX + 1];
};

struct auth_verifier {
    bool is_inline, is_started;
    pthread_t thread;
    int wakeup;  /* of the helper */
    int eventfd; /* of the owner */
    atomic_bool is_stopping;
    atomic_uint submitted, done;
    uint32_t collected; /* owner only */
    struct verify_slot slots[AUTH_VERIFY_QUEUE];
};

/* ---- the work ---- */

static bool is_same(const char *a, const char *b)
{
    size_t size = strlen(a);
    uint8_t difference = 0;

    if (strlen(b) != size)
        return false;
    for (size_t i = 0; i < size; i++)
        difference |= (uint8_t)(a[i] ^ b[i]);
    return difference == 0;
}

static bool scram_matches(const char *password, const char *hash)
{
    struct auth_scram_secret secret;

    return auth_scram_parse(hash, &secret) == ERR_OK && auth_scram_matches(password, &secret);
}

bool auth_password_matches(const char *password, const char *hash)
{
    if (auth_scram_is_hash(hash))
        return scram_matches(password, hash);
    struct crypt_data *data = calloc(1, sizeof(*data));
    bool is_match = false;

    if (data == NULL)
        return false;
    const char *made = crypt_rn(password, hash, data, (int)sizeof(*data));
    /* A failure is told by "*0" or NULL, which is no hash. */
    if (made != NULL && made[0] != '*')
        is_match = is_same(made, hash);
    explicit_bzero(data, sizeof(*data));
    free(data);
    return is_match;
}

static void slot_run(struct verify_slot *slot)
{
    slot->is_match = auth_password_matches(slot->password, slot->hash);
    explicit_bzero(slot->password, sizeof(slot->password));
    explicit_bzero(slot->hash, sizeof(slot->hash));
}

/* ---- helper side ---- */

static void *verify_main(void *context)
{
    struct auth_verifier *verifier = context;
    uint32_t done = 0;
    eventfd_t ignored;

    /* Not on the shard's processor, to which its thread may be pinned. */
    cpu_set_t all;
    memset(&all, 0xff, sizeof(all));
    (void)pthread_setaffinity_np(pthread_self(), sizeof(all), &all); /* as before, if refused */
    while (!atomic_load_explicit(&verifier->is_stopping, memory_order_acquire)) {
        /* partner: auth_verifier_submit() */
        if (atomic_load_explicit(&verifier->submitted, memory_order_acquire) == done) {
            if (eventfd_read(verifier->wakeup, &ignored) != 0)
                CHECK(errno == EINTR);
            continue;
        }
        slot_run(&verifier->slots[done % AUTH_VERIFY_QUEUE]);
        /* partner: auth_verifier_poll() */
        atomic_store_explicit(&verifier->done, ++done, memory_order_release);
        CHECK(eventfd_write(verifier->eventfd, 1) == 0 || errno == EAGAIN);
    }
    return NULL;
}

/* ---- owner side ---- */

static bool helper_start(struct auth_verifier *verifier)
{
    if (verifier->is_started || verifier->is_inline)
        return true;
    if (pthread_create(&verifier->thread, NULL, verify_main, verifier) != 0)
        return false;
    pthread_setname_np(verifier->thread, "auth");
    verifier->is_started = true;
    return true;
}

enum err auth_verifier_submit(struct auth_verifier *verifier, struct span password,
                              const char *hash, uint32_t token)
{
    uint32_t submitted = atomic_load_explicit(&verifier->submitted, memory_order_relaxed);
    size_t hash_size = strlen(hash);

    CHECK(password.size <= AUTH_PASSWORD_MAX && hash_size <= AUTH_HASH_MAX);
    if (submitted - verifier->collected == AUTH_VERIFY_QUEUE)
        return ERR_LIMIT;
    if (!helper_start(verifier))
        return ERR_SYSTEM;
    struct verify_slot *slot = &verifier->slots[submitted % AUTH_VERIFY_QUEUE];
    slot->token = token;
    if (password.size > 0)
        memcpy(slot->password, password.data, password.size);
    slot->password[password.size] = '\0';
    memcpy(slot->hash, hash, hash_size + 1);
    /* partner: verify_main() */
    atomic_store_explicit(&verifier->submitted, submitted + 1, memory_order_release);
    if (!verifier->is_inline)
        CHECK(eventfd_write(verifier->wakeup, 1) == 0);
    return ERR_OK;
}

bool auth_verifier_is_busy(const struct auth_verifier *verifier)
{
    return atomic_load_explicit(&verifier->submitted, memory_order_relaxed) != verifier->collected;
}

bool auth_verifier_poll(struct auth_verifier *verifier, uint32_t *ret_token, bool *ret_is_match)
{
    eventfd_t ignored;

    if (!auth_verifier_is_busy(verifier))
        return false;
    struct verify_slot *slot = &verifier->slots[verifier->collected % AUTH_VERIFY_QUEUE];
    if (verifier->is_inline) {
        slot_run(slot);
    } else {
        /* Read before `done` is looked at: a result that comes between is told again. */
        (void)eventfd_read(verifier->eventfd, &ignored);
        if (atomic_load_explicit(&verifier->done, memory_order_acquire) == verifier->collected)
            return false;
    }
    verifier->collected += 1;
    *ret_token = slot->token;
    *ret_is_match = slot->is_match;
    return true;
}

int auth_verifier_eventfd(const struct auth_verifier *verifier)
{
    return verifier->eventfd;
}

struct auth_verifier *auth_verifier_new(bool is_inline)
{
    struct auth_verifier *verifier = calloc(1, sizeof(*verifier));

    CHECK(verifier != NULL); /* start-up */
    verifier->is_inline = is_inline;
    verifier->wakeup = verifier->eventfd = -1;
    if (is_inline)
        return verifier;
    verifier->wakeup = eventfd(0, EFD_CLOEXEC);
    verifier->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(verifier->wakeup >= 0 && verifier->eventfd >= 0);
    return verifier;
}

void auth_verifier_free(struct auth_verifier *verifier)
{
    if (verifier->is_started) {
        /* partner: verify_main() */
        atomic_store_explicit(&verifier->is_stopping, true, memory_order_release);
        CHECK(eventfd_write(verifier->wakeup, 1) == 0);
        pthread_join(verifier->thread, NULL);
    }
    if (verifier->wakeup >= 0)
        close(verifier->wakeup);
    if (verifier->eventfd >= 0)
        close(verifier->eventfd);
    explicit_bzero(verifier->slots, sizeof(verifier->slots));
    free(verifier);
}
