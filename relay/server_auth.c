/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logins of one shard: who may say whether a password is right, and how the word comes back to the
 * session that waits for it.
 *
 *   session READY -> server_auth_begin() -> helper thread -> server_auth_advance() -> its verdict
 *                                        -> Dovecot       -> on_dovecot()          ->
 *
 * A login remembers its session by index, id and the number of its request: the session may be gone
 * when the verdict comes, and another one in its place.
 *
 * By SCRAM the verdict is a challenge at first, and the login waits for its client: as long as the
 * session lets it, and no longer than the session goes on with it (clients_review()). Dovecot makes
 * the challenges, or for users of a file we do (auth_scram.h), at once: that takes no thread.
 *
 * Unknown and locked users are checked as all others, against somebody else's hash, and refused
 * whatever comes of it: how long an answer takes does not tell who exists.
 *
 * Wrong passwords are counted by user and network, and by network: who had too many is told 454
 * without being asked about, whatever the password. A stranger who tries a user's name locks out
 * his own network, not the user's.
 *
 * Limits: LOGINS_MAX logins under way, of which AUTH_VERIFY_QUEUE may wait for the thread; beyond
 * that 454. Those under way are not counted yet:
 * so many more may pass a limit. FAILURES_KNOWN_MAX users and networks are known.
 */
#include <stdlib.h>

#include "base/base64.h"
#include "relay/auth_scram.h"
#include "relay/auth_users.h"
#include "relay/auth_verify.h"
#include "relay/server_dovecot.h"
#include "relay/server_internal.h"
#include "relay/tally.h"

#define LOGINS_MAX         256u
#define FAILURES_KNOWN_MAX 16384u
#define NONCE_OCTETS       18u /* of SCRAM: 24 characters */
#define KEY_NETWORK_SIZE   18u /* kind, family, address */

/* kind, family, 16 octets of the network's address, the hash of the user's name: what it is counted
 * by goes to the disk (tally.h), and what strangers type as a name may be a password. */
struct failure_key {
    uint8_t octets[KEY_NETWORK_SIZE + sizeof(struct quota_key)];
};
_Static_assert(sizeof(struct failure_key) <= TALLY_KEY_MAX, "a tally takes it");

struct login {
    struct failure_key key;
    uint64_t session_id;
    uint32_t session_index, number;
    uint32_t dovecot_number;  /* 0: it is not Dovecot's */
    struct auth_scram *scram; /* of our own making; NULL: none */
    tick_us since;            /* Dovecot's turn began; TICK_NEVER: it is the client's */
    bool is_used;
    bool is_decoy; /* refused, whatever the verdict */
};

struct server_auth {
    struct auth_verifier *verifier;
    struct tally *failures;
    struct dovecot_link *dovecot;
    uint32_t dovecot_number, dovecot_count; /* requests so far; those without a verdict */
    uint32_t challenged_count;              /* of those, the ones that wait for their client */
    struct login logins[LOGINS_MAX];
};

int server_auth_eventfd(const struct server *server)
{
    return auth_verifier_eventfd(server->auth->verifier);
}

/* Without a thread nobody wakes the shard. */
bool server_auth_is_due(const struct server_auth *auth)
{
    return auth_verifier_eventfd(auth->verifier) < 0 && auth_verifier_is_busy(auth->verifier);
}

/* ---- failures ---- */

static struct failure_key failure_key_of(const struct server_session *session, struct span name)
{
    struct flow_address network =
        brake_network_of(&session->smtpd.peer, &session->smtpd.listener->brakes);
    struct quota_key user = quota_key_of(name);
    struct failure_key key = {{0}};

    CHECK(name.size <= AUTH_NAME_MAX);
    key.octets[1] = (uint8_t)network.family;
    memcpy(key.octets + 2, network.ip, 16);
    memcpy(key.octets + KEY_NETWORK_SIZE, &user, sizeof(user));
    return key;
}

static struct span user_key(struct failure_key *key)
{
    key->octets[0] = 'u';
    return span_of(key->octets, sizeof(key->octets));
}

static struct span network_key(struct failure_key *key)
{
    key->octets[0] = 'n';
    return span_of(key->octets, KEY_NETWORK_SIZE);
}

static bool is_locked(const struct server *server, struct failure_key *key, tick_us now)
{
    const struct auth_settings *settings = &server->settings->auth;
    struct tally *failures = server->auth->failures;
    bool is_first;

    return !tally_has_room(failures, user_key(key), &settings->user_failures, now, &is_first) ||
           !tally_has_room(failures, network_key(key), &settings->network_failures, now, &is_first);
}

static void failure_add(const struct server *server, struct failure_key *key, tick_us now)
{
    const struct auth_settings *settings = &server->settings->auth;
    struct tally *failures = server->auth->failures;

    tally_add(failures, user_key(key), &settings->user_failures, now);
    tally_add(failures, network_key(key), &settings->network_failures, now);
}

/* ---- logins ---- */

static struct login *login_new(struct server_auth *auth, uint32_t *ret_token)
{
    for (uint32_t i = 0; i < COUNT_OF(auth->logins); i++) {
        if (auth->logins[i].is_used)
            continue;
        *ret_token = i;
        return &auth->logins[i];
    }
    return NULL;
}

void server_auth_tell(struct server *server, uint32_t index, uint64_t session_id, uint32_t number,
                      enum auth_verdict verdict, struct span user, struct tick_now now)
{
    struct server_session *session = server_session_at(server, index);

    if (session == NULL || session->smtpd.id != session_id)
        return;
    if (user.size > 0)
        smtpd_auth_name(&session->smtpd, number, user);
    smtpd_auth_verdict(&server->smtpd, &session->smtpd, number, verdict, now);
    server_session_flush(server, session);
    server_session_enqueue(server, session, SERVER_QUEUE_READY);
}

static void scram_forget(struct login *login)
{
    if (login->scram != NULL)
        explicit_bzero(login->scram, sizeof(*login->scram));
    free(login->scram);
    login->scram = NULL;
}

/* A login has its verdict. `user`: who that is; empty: who it said it is. */
static void login_end(struct server *server, struct login *login, enum auth_verdict verdict,
                      struct span user, struct tick_now now)
{
    login->is_used = false;
    scram_forget(login);
    server->auth->dovecot_count -= login->dovecot_number != 0;
    server->auth->challenged_count -= login->since == TICK_NEVER;
    if (verdict == AUTH_REJECTED)
        failure_add(server, &login->key, now.tick);
    server_auth_tell(server, login->session_index, login->session_id, login->number, verdict, user,
                     now);
}

static struct server_session *login_session(const struct server *server, const struct login *login)
{
    struct server_session *session = server_session_at(server, login->session_index);

    return session != NULL && session->smtpd.id == login->session_id ? session : NULL;
}

static void login_challenge(struct server *server, struct login *login, struct span challenge,
                            struct tick_now now)
{
    struct server_session *session = login_session(server, login);

    if (login->since != TICK_NEVER) {
        login->since = TICK_NEVER;
        server->auth->challenged_count += 1;
    }
    if (session == NULL)
        return; /* clients_review() */
    smtpd_auth_challenge(&server->smtpd, &session->smtpd, login->number, challenge, now);
    server_session_flush(server, session);
    server_session_enqueue(server, session, SERVER_QUEUE_READY);
}

/* ---- SCRAM with users of a file ---- */

static void scram_challenge(struct server *server, struct login *login, struct span challenge,
                            struct tick_now now)
{
    char text[BASE64_SIZE(AUTH_SCRAM_CHALLENGE_MAX)];

    base64_encode(challenge, text);
    login_challenge(server, login, span_of(text, BASE64_SIZE(challenge.size)), now);
}

/* Unknown and locked users get the same challenges, and nobody's proof is right. */
static void scram_secret_of(const struct auth_users *users, const struct auth_request *request,
                            struct login *login, struct auth_scram_secret *ret_secret)
{
    const struct auth_user *user = auth_users_find(users, request->name);
    struct auth_scram_secret like = {0}, own = {0};

    enum err err = auth_scram_parse(auth_users_decoy(users, request->name), &like);
    CHECK(err == ERR_OK); /* auth_users_has_scram() */
    auth_scram_decoy(&like, request->name, ret_secret);
    login->is_decoy =
        user == NULL || user->hash == NULL || auth_scram_parse(user->hash, &own) != ERR_OK;
    if (!login->is_decoy)
        *ret_secret = own;
}

static bool scram_ask(struct server *server, const struct auth_request *request,
                      struct login *login, struct tick_now now, enum auth_verdict *ret_verdict)
{
    uint8_t octets[NONCE_OCTETS];
    char nonce[BASE64_SIZE(NONCE_OCTETS)];
    struct auth_scram_secret secret;
    struct span challenge;

    *ret_verdict = AUTH_REJECTED;
    if (!auth_users_has_scram(server->settings->auth.users))
        return false; /* a reload came between the offer and this */
    scram_secret_of(server->settings->auth.users, request, login, &secret);
    rng_fill(server->options.rng, octets, sizeof(octets));
    base64_encode(span_of(octets, sizeof(octets)), nonce);
    login->scram = malloc(sizeof(*login->scram));
    bool is_begun = login->scram != NULL &&
                    auth_scram_begin(login->scram, &secret, request->message,
                                     span_of(nonce, sizeof(nonce)), &challenge) == ERR_OK;
    explicit_bzero(&secret, sizeof(secret));
    if (is_begun)
        scram_challenge(server, login, challenge, now);
    else
        scram_forget(login);
    return is_begun;
}

/* The client's proof, or its word that our signature is right: an empty message. */
static void scram_continue(struct server *server, struct login *login, struct span message,
                           struct tick_now now)
{
    struct span challenge;

    if (login->scram->is_proved)
        login_end(server, login, message.size == 0 ? AUTH_ACCEPTED : AUTH_REJECTED,
                  (struct span){0}, now);
    else if (auth_scram_prove(login->scram, message, &challenge) == ERR_OK && !login->is_decoy)
        scram_challenge(server, login, challenge, now);
    else
        login_end(server, login, AUTH_REJECTED, (struct span){0}, now);
}

/* True: a verdict will come, as in the next two. */
static bool file_ask(struct server *server, const struct auth_request *request, struct login *login,
                     uint32_t token, struct tick_now now, enum auth_verdict *ret_verdict)
{
    const struct auth_users *users = server->settings->auth.users;

    if (users == NULL)
        return false;
    if (request->is_scram)
        return scram_ask(server, request, login, now, ret_verdict);
    const struct auth_user *user = auth_users_find(users, request->name);
    login->is_decoy = user == NULL || user->hash == NULL;
    const char *hash = login->is_decoy ? auth_users_decoy(users, request->name) : user->hash;
    if (hash == NULL) { /* nobody can log in */
        *ret_verdict = AUTH_REJECTED;
        return false;
    }
    return auth_verifier_submit(server->auth->verifier, request->password, hash, token) == ERR_OK;
}

static bool dovecot_ask(struct server *server, const struct server_session *session,
                        const struct auth_request *request, struct login *login,
                        struct tick_now now)
{
    struct server_auth *auth = server->auth;
    struct dovecot_client client = {.local = &session->smtpd.local,
                                    .peer = &session->smtpd.peer,
                                    .is_secured = session->smtpd.is_tls};

    login->dovecot_number = ++auth->dovecot_number;
    login->since = now.tick;
    if (dovecot_link_ask(auth->dovecot, server->settings->auth.dovecot, login->dovecot_number,
                         request, &client, now) != ERR_OK)
        return false;
    auth->dovecot_count += 1;
    return true;
}

static bool login_ask(struct server *server, const struct server_session *session,
                      const struct auth_request *request, struct login *login, uint32_t token,
                      struct tick_now now, enum auth_verdict *ret_verdict)
{
    *ret_verdict = AUTH_LOCKED;
    if (is_locked(server, &login->key, now.tick))
        return false;
    *ret_verdict = AUTH_UNAVAILABLE;
    if (server->settings->auth.dovecot != NULL)
        return dovecot_ask(server, session, request, login, now);
    return file_ask(server, request, login, token, now, ret_verdict);
}

/* The client has answered a challenge. False: nobody waits for that any more. */
static bool login_continue(struct server *server, const struct server_session *session,
                           uint32_t number, const struct auth_request *request, struct tick_now now)
{
    struct server_auth *auth = server->auth;

    for (uint32_t i = 0; i < LOGINS_MAX; i++) {
        struct login *login = &auth->logins[i];
        if (!login->is_used || login->session_id != session->smtpd.id || login->number != number ||
            login->since != TICK_NEVER)
            continue;
        auth->challenged_count -= 1;
        login->since = now.tick;
        if (login->scram != NULL) {
            scram_continue(server, login, request->message, now);
            return true;
        }
        /* If it cannot be told, the link is lost, and the review gives the login up. */
        if (dovecot_link_continue(auth->dovecot, login->dovecot_number, request) != ERR_OK)
            dovecot_link_drop(auth->dovecot, now.tick);
        return true;
    }
    return false;
}

void server_auth_begin(struct server *server, struct server_session *session, struct tick_now now)
{
    enum auth_verdict verdict = AUTH_UNAVAILABLE;
    uint32_t number, token = 0;

    struct auth_request request = smtpd_auth_take(&session->smtpd, now, &number);
    if (request.goes_on) {
        if (!login_continue(server, session, number, &request, now))
            server_auth_tell(server, session->index, session->smtpd.id, number, verdict,
                             (struct span){0}, now);
        return;
    }
    struct login *login = login_new(server->auth, &token);
    if (login != NULL) {
        *login = (struct login){.key = failure_key_of(session, request.name),
                                .session_id = session->smtpd.id,
                                .session_index = session->index,
                                .number = number,
                                .is_used = true};
        login->is_used = login_ask(server, session, &request, login, token, now, &verdict);
    }
    if (login == NULL || !login->is_used)
        server_auth_tell(server, session->index, session->smtpd.id, number, verdict,
                         (struct span){0}, now);
}

/* Clients that have given up between challenges, or are gone. */
static void clients_review(struct server *server, struct tick_now now)
{
    struct server_auth *auth = server->auth;

    for (uint32_t i = 0; auth->challenged_count > 0 && i < LOGINS_MAX; i++) {
        struct login *login = &auth->logins[i];
        if (!login->is_used || login->since != TICK_NEVER)
            continue;
        struct server_session *session = login_session(server, login);
        if (session != NULL && smtpd_auth_goes_on(&session->smtpd, login->number))
            continue;
        if (login->scram == NULL)
            dovecot_link_cancel(auth->dovecot, login->dovecot_number, now.tick);
        login->is_used = false;
        auth->dovecot_count -= login->scram == NULL;
        scram_forget(login);
        auth->challenged_count -= 1;
    }
}

static void on_dovecot(void *context, uint32_t number, enum auth_verdict verdict, struct span user,
                       struct tick_now now)
{
    struct server *server = context;
    struct login *logins = server->auth->logins;

    for (uint32_t i = 0; number != 0 && i < LOGINS_MAX; i++) {
        if (logins[i].is_used && logins[i].dovecot_number == number) {
            if (verdict == AUTH_CHALLENGED)
                login_challenge(server, &logins[i], user, now);
            else
                login_end(server, &logins[i], verdict, user, now);
            return;
        }
    }
}

/* What a lost connection, or one that is silent for too long, leaves without a verdict. */
static void dovecot_review(struct server *server, struct tick_now now)
{
    struct server_auth *auth = server->auth;
    tick_us patience = (tick_us)server->settings->auth.timeout;

    for (uint32_t i = 0; auth->dovecot_count > 0 && i < LOGINS_MAX; i++) {
        const struct login *login = &auth->logins[i];
        if (login->is_used && login->dovecot_number != 0 && login->since != TICK_NEVER &&
            now.tick >= login->since + patience)
            dovecot_link_drop(auth->dovecot, now.tick);
    }
    if (!dovecot_link_was_lost(auth->dovecot))
        return;
    for (uint32_t i = 0; i < LOGINS_MAX; i++) {
        if (auth->logins[i].is_used && auth->logins[i].dovecot_number != 0)
            login_end(server, &auth->logins[i], AUTH_UNAVAILABLE, (struct span){0}, now);
    }
}

void server_auth_on_flow(struct server *server, const struct flow_event *event, struct tick_now now)
{
    dovecot_link_on_flow(server->auth->dovecot, event, now);
}

void server_auth_advance(struct server *server, struct tick_now now)
{
    struct server_auth *auth = server->auth;
    uint32_t token;
    bool is_match;

    while (auth_verifier_poll(auth->verifier, &token, &is_match)) {
        struct login *login = &auth->logins[token];
        CHECK(token < LOGINS_MAX && login->is_used);
        login_end(server, login, is_match && !login->is_decoy ? AUTH_ACCEPTED : AUTH_REJECTED,
                  (struct span){0}, now);
    }
    if (server->settings->auth.dovecot != NULL)
        dovecot_link_prepare(auth->dovecot, server->settings->auth.dovecot, now.tick);
    dovecot_review(server, now);
    clients_review(server, now);
    const struct auth_users *users = server->settings->auth.users;
    server->smtpd.has_scram = server->settings->auth.dovecot != NULL
                                  ? dovecot_link_has_scram(auth->dovecot)
                                  : users != NULL && auth_users_has_scram(users);
}

/* ---- life ---- */

struct tally *server_auth_failures(const struct server_auth *auth)
{
    return auth->failures;
}

struct server_auth *server_auth_new(struct server *server, uint64_t seed)
{
    struct server_auth *auth = calloc(1, sizeof(*auth));

    CHECK(auth != NULL); /* start-up */
    auth->verifier = auth_verifier_new(server->options.is_auth_inline);
    auth->failures = tally_new(seed, FAILURES_KNOWN_MAX);
    auth->dovecot =
        dovecot_link_new(&(struct dovecot_link_options){.plane = server->options.plane,
                                                        .user = SERVER_AUTH_USER,
                                                        .client = (uint32_t)(seed >> 33) | 1u,
                                                        .context = server,
                                                        .tell = on_dovecot});
    return auth;
}

void server_auth_free(struct server_auth *auth)
{
    for (uint32_t i = 0; i < LOGINS_MAX; i++)
        scram_forget(&auth->logins[i]);
    auth_verifier_free(auth->verifier);
    dovecot_link_free(auth->dovecot);
    tally_free(auth->failures);
    explicit_bzero(auth->logins, sizeof(auth->logins));
    free(auth);
}
