/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The POST itself, by libcurl. What a receiver sends is not looked at but for its status and
 * Retry-After. Redirections are not followed, proxies of the environment not asked, and nothing is
 * spoken but HTTP; certificates are verified, and TLS is 1.2 at least.
 *
 * Limits: ANSWER_SIZE_MAX octets of an answer's body; of one that is longer the status counts, and
 * the connection is closed.
 */
#include "control/webhook_post.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "control/webhook.h"

#define ANSWER_SIZE_MAX (1u << 20)
#define FIELD_SIZE      640u

struct webhook_post {
    const struct config_webhook *webhook;
    const atomic_bool *must_stop;
    CURL *curl;
    size_t answer_size;
    char why[CURL_ERROR_SIZE];
};

bool webhook_posts_begin(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

void webhook_posts_end(void)
{
    curl_global_cleanup();
}

static size_t on_answer(char *octets, size_t size, size_t count, void *context)
{
    struct webhook_post *post = context;

    (void)octets;
    post->answer_size += size * count;
    return post->answer_size > ANSWER_SIZE_MAX ? 0 : size * count;
}

static int on_progress(void *context, curl_off_t down_all, curl_off_t down, curl_off_t up_all,
                       curl_off_t up)
{
    const struct webhook_post *post = context;

    (void)down_all;
    (void)down;
    (void)up_all;
    (void)up;
    return atomic_load_explicit(post->must_stop, memory_order_relaxed) ? 1 : 0;
}

static void options_set(struct webhook_post *post)
{
    const struct config_webhook *webhook = post->webhook;
    CURL *curl = post->curl;
    long timeout = (long)(webhook->timeout / 1000);

    (void)curl_easy_setopt(curl, CURLOPT_URL, webhook->url);
    CHECK(curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK);
    (void)curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    CHECK(curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK);
    CHECK(curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK);
    CHECK(curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK);
    if (webhook->ca != NULL)
        CHECK(curl_easy_setopt(curl, CURLOPT_CAINFO, webhook->ca) == CURLE_OK);
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, timeout);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, timeout);
    (void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "Angarium");
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_answer);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, post);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFODATA, post);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, post->why);
}

struct webhook_post *webhook_post_new(const struct config_webhook *webhook,
                                      const atomic_bool *must_stop)
{
    struct webhook_post *post = calloc(1, sizeof(*post));

    CHECK(post != NULL);
    post->webhook = webhook;
    post->must_stop = must_stop;
    post->curl = curl_easy_init();
    CHECK(post->curl != NULL);
    options_set(post);
    return post;
}

void webhook_post_free(struct webhook_post *post)
{
    curl_easy_cleanup(post->curl);
    free(post);
}

static struct curl_slist *field_add(struct curl_slist *fields, const char *field)
{
    struct curl_slist *more = curl_slist_append(fields, field);

    CHECK(more != NULL);
    return more;
}

static struct curl_slist *fields_make(const struct webhook_post *post, struct span body,
                                      uint32_t count, uint32_t attempt)
{
    const struct config_webhook *webhook = post->webhook;
    char field[FIELD_SIZE], signature[WEBHOOK_SIGNATURE_SIZE];
    struct curl_slist *fields = field_add(NULL, "Content-Type: application/json");

    fields = field_add(fields, "Expect:"); /* no question beforehand */
    (void)snprintf(field, sizeof(field), "X-Angarium-Webhook: %s", webhook->name);
    fields = field_add(fields, field);
    (void)snprintf(field, sizeof(field), "X-Angarium-Records: %u", count);
    fields = field_add(fields, field);
    (void)snprintf(field, sizeof(field), "X-Angarium-Attempt: %u", attempt);
    fields = field_add(fields, field);
    if (webhook->secret == NULL)
        return fields;
    if (webhook->auth == WEBHOOK_BEARER) {
        (void)snprintf(field, sizeof(field), "Authorization: Bearer %s", webhook->secret);
    } else {
        webhook_sign(webhook->secret, time(NULL), body, signature);
        (void)snprintf(field, sizeof(field), "X-Angarium-Signature: %s", signature);
    }
    return field_add(fields, field);
}

struct webhook_answer webhook_post_run(struct webhook_post *post, struct span body, uint32_t count,
                                       uint32_t attempt)
{
    struct curl_slist *fields = fields_make(post, body, count, attempt);
    struct webhook_answer answer = {0};
    long status = 0;
    curl_off_t asked = 0;

    post->answer_size = 0;
    post->why[0] = '\0';
    (void)curl_easy_setopt(post->curl, CURLOPT_HTTPHEADER, fields);
    (void)curl_easy_setopt(post->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.size);
    (void)curl_easy_setopt(post->curl, CURLOPT_POSTFIELDS, (const char *)body.data);
    CURLcode code = curl_easy_perform(post->curl);
    (void)curl_easy_setopt(post->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(fields);
    bool is_enough = code == CURLE_WRITE_ERROR && post->answer_size > ANSWER_SIZE_MAX;
    if (code != CURLE_OK && !is_enough) { /* an answer that was cut off in the middle is none */
        (void)snprintf(answer.why, sizeof(answer.why), "%.120s",
                       post->why[0] != '\0' ? post->why : curl_easy_strerror(code));
        return answer;
    }
    (void)curl_easy_getinfo(post->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(post->curl, CURLINFO_RETRY_AFTER, &asked);
    answer.status = (uint32_t)status;
    answer.asked = asked > 0 && asked < 86400 ? TICK_S((tick_us)asked) : 0;
    (void)snprintf(answer.why, sizeof(answer.why), "HTTP status %ld", status);
    return answer;
}
