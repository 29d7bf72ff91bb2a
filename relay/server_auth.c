/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logins of one shard: who may say whether a password is right, and how the word comes back to the
 * session that waits for it.
 *
 *   session READY -> server_auth_begin() -> helper thread -> server_auth_advance() -> its verdict
 *
 * A login remembers its session by index, id and the number of its request: the session may be gone
 * when the verdict comes, and another one in its place.
 *
 * Unknown and locked users are checked as all others, against somebody else's hash, and refused
 * whatever comes of it: how long an answer takes does not tell who exists.
 *
 * Limits: AUTH_VERIFY_QUEUE logins under way; beyond that 454.
 */
#include <stdlib.h>

#include "relay/auth_users.h"
#include "relay/auth_verify.h"
#include "relay/server_internal.h"

struct login {
    uint64_t session_id;
    uint32_t session_index, number;
    bool is_used;
    bool is_decoy; /* refused, whatever the verdict */
};

struct server_auth {
    struct auth_verifier *verifier;
    struct login logins[AUTH_VERIFY_QUEUE];
};

struct server_auth *server_auth_new(bool is_inline)
{
    struct server_auth *auth = calloc(1, sizeof(*auth));

    CHECK(auth != NULL); /* start-up */
    auth->verifier = auth_verifier_new(is_inline);
    return auth;
}

void server_auth_free(struct server_auth *auth)
{
    auth_verifier_free(auth->verifier);
    free(auth);
}

int server_auth_eventfd(const struct server *server)
{
    return auth_verifier_eventfd(server->auth->verifier);
}

/* Without a thread nobody wakes the shard. */
bool server_auth_is_due(const struct server_auth *auth)
{
    return auth_verifier_eventfd(auth->verifier) < 0 && auth_verifier_is_busy(auth->verifier);
}

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

/* True: a verdict will come. */
static bool file_ask(struct server *server, const struct auth_request *request, struct login *login,
                     uint32_t token, enum auth_verdict *ret_verdict)
{
    const struct auth_users *users = server->settings->auth.users;

    *ret_verdict = AUTH_UNAVAILABLE;
    if (users == NULL)
        return false;
    const struct auth_user *user = auth_users_find(users, request->name);
    login->is_decoy = user == NULL || user->hash == NULL;
    const char *hash = login->is_decoy ? auth_users_decoy(users, request->name) : user->hash;
    if (hash == NULL) { /* nobody can log in */
        *ret_verdict = AUTH_REJECTED;
        return false;
    }
    return auth_verifier_submit(server->auth->verifier, request->password, hash, token) == ERR_OK;
}

void server_auth_tell(struct server *server, uint32_t index, uint64_t session_id, uint32_t number,
                      enum auth_verdict verdict, struct tick_now now)
{
    struct server_session *session = server_session_at(server, index);

    if (session == NULL || session->smtpd.id != session_id)
        return;
    smtpd_auth_verdict(&server->smtpd, &session->smtpd, number, verdict, now);
    server_session_flush(server, session);
    server_session_enqueue(server, session, SERVER_QUEUE_READY);
}

void server_auth_begin(struct server *server, struct server_session *session, struct tick_now now)
{
    enum auth_verdict verdict = AUTH_UNAVAILABLE;
    uint32_t number, token = 0;

    struct auth_request request = smtpd_auth_take(&session->smtpd, now, &number);
    struct login *login = login_new(server->auth, &token);
    if (login != NULL) {
        *login = (struct login){.session_id = session->smtpd.id,
                                .session_index = session->index,
                                .number = number,
                                .is_used = true};
        login->is_used = file_ask(server, &request, login, token, &verdict);
    }
    if (login == NULL || !login->is_used)
        server_auth_tell(server, session->index, session->smtpd.id, number, verdict, now);
}

void server_auth_advance(struct server *server, struct tick_now now)
{
    struct server_auth *auth = server->auth;
    uint32_t token;
    bool is_match;

    while (auth_verifier_poll(auth->verifier, &token, &is_match)) {
        struct login *login = &auth->logins[token];
        CHECK(token < COUNT_OF(auth->logins) && login->is_used);
        login->is_used = false;
        server_auth_tell(server, login->session_index, login->session_id, login->number,
                         is_match && !login->is_decoy ? AUTH_ACCEPTED : AUTH_REJECTED, now);
    }
}
