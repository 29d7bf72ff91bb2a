/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The account of what was sent, acknowledged and received: set algebra over message ids (ledger.h
 * has the lines).
 *   lost        acknowledged (A 2xx) and not received by all accepted recipients
 *   damaged     received with an octet changed
 *   ghosts      refused for good (A or F 5xx) and received all the same; received and never sent;
 * or received by more recipients than were accepted duplicated  received more than once by a
 * recipient (allowed after crashes, always counted) unknown     sent, no answer seen: both fates
 * are right
 */
#include "bench/load/ledger.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/load/text.h"

#define AUDIT_BUCKETS (1u << 20)

struct audit_entry {
    char id[TEXT_ID_SIZE + 16];
    uint32_t received, bad, doubles, accepted; /* accepted 0: not told */
    int code;
    bool is_sent, is_answered;
    struct audit_entry *next;
    char *recipients; /* " u0@a  u1@b ": who got it, to find doubles */
    size_t recipients_size;
};

struct audit {
    struct audit_entry **buckets;
    uint64_t foreign;
};

static struct audit_entry *audit_get(struct audit *audit, const char *id)
{
    uint64_t hash = 1469598103934665603ull;
    for (const char *c = id; *c != '\0'; c++)
        hash = (hash ^ (uint8_t)*c) * 1099511628211ull;
    struct audit_entry **link = &audit->buckets[(hash ^ hash >> 32) % AUDIT_BUCKETS];
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
    entry->recipients = realloc(entry->recipients, entry->recipients_size + (size_t)size + 1);
    CHECK(entry->recipients != NULL);
    memcpy(entry->recipients + entry->recipients_size, needle, (size_t)size + 1);
    entry->recipients_size += (size_t)size;
}

static uint32_t count_of(const char *word)
{
    return (uint32_t)strtoul(word, NULL, 10);
}

static void audit_line(struct audit *audit, const char *line)
{
    char kind, id[TEXT_ID_SIZE], third[512] = "", fourth[16] = "";

    if (sscanf(line, "%c %47s %511s %15s", &kind, id, third, fourth) < 2 ||
        strchr(line, '\n') == NULL)
        return; /* a line cut short by the end of its writer */
    if (strcmp(id, "-") == 0) {
        audit->foreign++;
        return;
    }
    struct audit_entry *entry = audit_get(audit, id);
    if (kind == 'S') {
        entry->is_sent = true;
        entry->accepted = third[0] != '\0' ? count_of(third) : entry->accepted;
    } else if (kind == 'A' || kind == 'F') {
        entry->is_answered = true;
        entry->is_sent = true;
        entry->code = (int)strtol(third, NULL, 10);
        entry->accepted = fourth[0] != '\0' ? count_of(fourth) : entry->accepted;
    } else if (kind == 'R') {
        audit_received(entry, third, fourth);
    }
}

static bool audit_read(struct audit *audit, const char *path)
{
    char line[1024];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        return false;
    }
    while (fgets(line, sizeof(line), file) != NULL)
        audit_line(audit, line);
    (void)fclose(file);
    return true;
}

static void audit_add(struct audit_sum *sum, const struct audit_entry *entry, uint32_t recipients)
{
    bool is_acknowledged = entry->is_answered && entry->code >= 200 && entry->code < 300;
    bool is_refused = entry->is_answered && entry->code >= 500;
    bool is_told = entry->accepted > 0;
    uint32_t wanted = is_told ? entry->accepted : recipients;

    sum->sent += entry->is_sent;
    sum->acknowledged += is_acknowledged;
    sum->refused += is_refused;
    sum->deferred += entry->is_answered && entry->code >= 400 && entry->code < 500;
    sum->unknown += entry->is_sent && !entry->is_answered;
    sum->delivered += entry->received >= wanted;
    sum->lost += is_acknowledged && entry->received < wanted;
    sum->damaged += entry->bad > 0;
    sum->ghosts += entry->received > 0 && (is_refused || !entry->is_sent ||
                                           (is_told && entry->received > entry->accepted));
    sum->duplicated += entry->doubles;
}

static void audit_close(struct audit *audit, uint32_t recipients, struct audit_sum *ret_sum)
{
    *ret_sum = (struct audit_sum){.foreign = audit->foreign};
    for (uint32_t bucket = 0; bucket < AUDIT_BUCKETS; bucket++) {
        struct audit_entry *entry;
        while ((entry = audit->buckets[bucket]) != NULL) {
            audit_add(ret_sum, entry, recipients);
            audit->buckets[bucket] = entry->next;
            free(entry->recipients);
            free(entry);
        }
    }
    free(audit->buckets);
}

bool audit_files(int path_count, char *const *paths, uint32_t recipients, struct audit_sum *ret_sum)
{
    struct audit audit = {.buckets = calloc(AUDIT_BUCKETS, sizeof(struct audit_entry *))};
    bool is_ok = true;

    CHECK(audit.buckets != NULL);
    for (int i = 0; i < path_count; i++)
        is_ok = audit_read(&audit, paths[i]) && is_ok;
    audit_close(&audit, recipients, ret_sum);
    return is_ok;
}

bool audit_is_clean(const struct audit_sum *sum)
{
    return sum->lost + sum->damaged + sum->ghosts == 0;
}

void audit_print(const struct audit_sum *sum, bool is_json)
{
    (void)printf(is_json ? "{\"what\":\"audit\",\"sent\":%llu,\"acknowledged\":%llu,\"delivered\":%"
                           "llu,\"lost\":%llu,"
                           "\"duplicated\":%llu,\"damaged\":%llu,\"ghosts\":%llu,"
                           "\"deferred\":%llu,\"refused\":%llu,\"unknown\":%llu,"
                           "\"foreign\":%llu}\n"
                         : "sent %llu, acknowledged %llu, delivered %llu, lost %llu, duplicated "
                           "%llu, damaged %llu, ghosts %llu "
                           "(deferred %llu, refused %llu, unknown %llu, notifications %llu)\n",
                 sum->sent, sum->acknowledged, sum->delivered, sum->lost, sum->duplicated,
                 sum->damaged, sum->ghosts, sum->deferred, sum->refused, sum->unknown,
                 sum->foreign);
}
