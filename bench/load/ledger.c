/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ledgers: the texts of messages, and the account of what was sent, acknowledged and received.
 *
 * The account is set algebra over message ids (load.h has the line formats):
 *   lost        acknowledged (A 2xx) and not received by all recipients
 *   damaged     received with an octet changed
 *   ghosts      refused for good (A or F 5xx) and received all the same, or received and never sent
 *   duplicated  received more than once by a recipient (allowed after crashes, always counted)
 *   unknown     sent, no answer seen: both fates are right
 */
#include "bench/load/load.h"

#include <stdlib.h>
#include <string.h>

struct span load_template(uint32_t size, uint32_t index)
{
    static struct span texts[LOAD_TEMPLATE_COUNT];
    static uint32_t texts_size;
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 +";

    CHECK(index < LOAD_TEMPLATE_COUNT && size >= 4);
    CHECK(texts_size == 0 || texts_size == size);
    texts_size = size;
    if (texts[index].data != NULL)
        return texts[index];
    struct rng rng;
    rng_init_seed(&rng, index * 1000003ull + size);
    uint8_t *text = malloc(size);
    CHECK(text != NULL);
    for (uint32_t i = 0; i < size; i++) {
        bool is_line_end = i % 78 == 76 && i + 3 < size;
        text[i] = (uint8_t)alphabet[rng_below(&rng, 64)];
        if (is_line_end) {
            text[i++] = '\r';
            text[i] = '\n';
        }
    }
    text[size - 2] = '\r';
    text[size - 1] = '\n';
    texts[index] = span_of(text, size);
    return texts[index];
}

struct audit_entry {
    char id[64];
    uint32_t received, bad;
    int code;
    bool is_sent, is_answered;
    struct audit_entry *next;
    char *recipients; /* "u0@a u1@b ": who got it, to find doubles */
    uint32_t doubles;
};

struct audit {
    struct audit_entry **buckets;
    uint32_t bucket_count;
    uint64_t foreign;
};

static struct audit_entry *audit_get(struct audit *audit, const char *id)
{
    uint64_t hash = 1469598103934665603ull;
    for (const char *c = id; *c != '\0'; c++)
        hash = (hash ^ (uint8_t)*c) * 1099511628211ull;
    struct audit_entry **link = &audit->buckets[hash % audit->bucket_count];
    for (; *link != NULL; link = &(*link)->next) {
        if (strcmp((*link)->id, id) == 0)
            return *link;
    }
    *link = calloc(1, sizeof(**link));
    CHECK(*link != NULL);
    (void)snprintf((*link)->id, sizeof((*link)->id), "%s", id);
    return *link;
}

static void audit_received(struct audit_entry *entry, const char *recipient, const char *fate)
{
    char needle[600];
    int size = snprintf(needle, sizeof(needle), " %s ", recipient);
    CHECK(size > 0 && (size_t)size < sizeof(needle));
    entry->bad += strcmp(fate, "ok") != 0;
    if (entry->recipients != NULL && strstr(entry->recipients, needle) != NULL) {
        entry->doubles++;
        return;
    }
    entry->received++;
    size_t old = entry->recipients == NULL ? 0 : strlen(entry->recipients);
    entry->recipients = realloc(entry->recipients, old + (size_t)size + 1);
    CHECK(entry->recipients != NULL);
    memcpy(entry->recipients + old, needle, (size_t)size + 1);
}

static void audit_line(struct audit *audit, const char *line)
{
    char kind, id[64], third[512] = "", fourth[16] = "";

    if (sscanf(line, "%c %63s %511s %15s", &kind, id, third, fourth) < 2)
        return; /* a line cut short by the end of its writer */
    if (strcmp(id, "-") == 0) {
        audit->foreign++;
        return;
    }
    struct audit_entry *entry = audit_get(audit, id);
    if (kind == 'S') {
        entry->is_sent = true;
    } else if (kind == 'A' || kind == 'F') {
        entry->is_answered = true;
        entry->is_sent = true;
        entry->code = (int)strtol(third, NULL, 10);
    } else if (kind == 'R') {
        audit_received(entry, third, fourth);
    }
}

static int audit_read(struct audit *audit, const char *path)
{
    char line[1024];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        return 2;
    }
    while (fgets(line, sizeof(line), file) != NULL)
        audit_line(audit, line);
    (void)fclose(file);
    return 0;
}

struct audit_sum {
    unsigned long long sent, acknowledged, delivered, lost, damaged, ghosts, duplicated, deferred,
        refused, unknown;
};

static void audit_add(struct audit_sum *sum, const struct audit_entry *entry, uint32_t recipients)
{
    bool is_acknowledged = entry->is_answered && entry->code >= 200 && entry->code < 300;
    bool is_refused = entry->is_answered && entry->code >= 500;

    sum->sent += entry->is_sent;
    sum->acknowledged += is_acknowledged;
    sum->refused += is_refused;
    sum->deferred += entry->is_answered && entry->code >= 400 && entry->code < 500;
    sum->unknown += entry->is_sent && !entry->is_answered;
    sum->delivered += entry->received >= recipients;
    sum->lost += is_acknowledged && entry->received < recipients;
    sum->damaged += entry->bad > 0;
    sum->ghosts += entry->received > 0 && (is_refused || !entry->is_sent);
    sum->duplicated += entry->doubles;
}

int load_audit_run(int path_count, char *const *paths, uint32_t recipients, bool is_json)
{
    struct audit audit = {.bucket_count = 1u << 18};
    struct audit_sum sum = {0};

    audit.buckets = calloc(audit.bucket_count, sizeof(*audit.buckets));
    CHECK(audit.buckets != NULL);
    for (int i = 0; i < path_count; i++) {
        if (audit_read(&audit, paths[i]) != 0)
            return 2;
    }
    for (uint32_t bucket = 0; bucket < audit.bucket_count; bucket++) {
        struct audit_entry *entry;
        while ((entry = audit.buckets[bucket]) != NULL) {
            audit_add(&sum, entry, recipients);
            audit.buckets[bucket] = entry->next;
            free(entry->recipients);
            free(entry);
        }
    }
    free(audit.buckets);
    (void)printf(is_json ? "{\"sent\":%llu,\"acknowledged\":%llu,\"delivered\":%llu,\"lost\":%llu,"
                           "\"duplicated\":%llu,"
                           "\"damaged\":%llu,\"ghosts\":%llu,\"deferred\":%llu,\"refused\":%llu,"
                           "\"unknown\":%llu,\"foreign\":%llu}\n"
                         : "sent %llu, acknowledged %llu, delivered %llu, lost %llu, duplicated "
                           "%llu, damaged %llu, ghosts %llu "
                           "(deferred %llu, refused %llu, unknown %llu, notifications %llu)\n",
                 sum.sent, sum.acknowledged, sum.delivered, sum.lost, sum.duplicated, sum.damaged,
                 sum.ghosts, sum.deferred, sum.refused, sum.unknown,
                 (unsigned long long)audit.foreign);
    return sum.lost + sum.damaged + sum.ghosts == 0 ? 0 : 1;
}
