/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of users. One per line; empty lines and lines that begin with '#' say nothing:
 *
 *   name:hash
 *   name:hash:address,address...
 *   name:hash:address,address...:messages=100/1h,500/1d recipients=1000/1d
 *
 * name       up to 255 octets of UTF-8 without control characters, spaces and colons; ASCII case
 *            does not matter
 * hash       of the password, as crypt(5) writes it and `angarium user hash` prints it: yescrypt
 *            ($y$), gost-yescrypt ($gy$), scrypt ($7$), bcrypt ($2b$, $2y$), SHA-512 ($6$), SHA-256
 *            ($5$); keys for SCRAM-SHA-256 (relay/auth_scram.h); `!` or `*` in front, or alone: the
 *            user is locked
 * address    that the user may send under: user@example.org, *@example.org, *@*.example.org, or *
 *            for all. A name that is an address is always the user's own.
 * messages=, recipients=, held=   rates (queue/rate.h) instead of those for all users
 * beyond=    refuse or hold: what becomes of messages beyond these
 *
 * All is kept in one arena, with an open-addressed table of names beside it. The table's hash needs
 * no key: its names are the operator's; what strangers ask for finds a chain or not.
 *
 * Limits: AUTH_USERS_MAX users, AUTH_USERS_FILE_SIZE_MAX octets, ADDRESS_COUNT_MAX addresses each.
 */
#include "relay/auth_users.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "relay/auth_scram.h"
#include "relay/settings.h"
#include "relay/smtp_address.h"

#define ADDRESS_COUNT_MAX 1000u
#define USERS_BLOCK_SIZE  65536u
#define USERS_ARENA_MAX   (1u << 30)

struct auth_users {
    struct arena arena;
    struct auth_user *items;
    uint32_t count, capacity;
    uint32_t hash_count, scram_count; /* users with a password; with keys for SCRAM */
    uint32_t *table;                  /* number + 1, 0: free */
    uint32_t table_size;
};

/* What is wrong, and on which line. */
struct complaint {
    char *text;
    uint32_t line;
};

static enum err refuse(const struct complaint *complaint, const char *reason)
{
    snprintf(complaint->text, AUTH_USERS_WHY_SIZE, "line %u: %.180s", complaint->line, reason);
    return ERR_CONFIG_SYNTAX;
}

static uint8_t small(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet | 0x20) : octet;
}

static uint32_t name_hash(struct span name)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (uint32_t i = 0; i < name.size; i++)
        hash = (hash ^ small(name.data[i])) * 16777619u;
    return hash ^ hash >> 15;
}

static const char *text_keep(struct arena *arena, struct span text, bool is_small)
{
    char *copy = arena_acquire(arena, text.size + 1ull);

    if (copy == NULL)
        return NULL;
    for (uint32_t i = 0; i < text.size; i++)
        copy[i] = (char)(is_small ? small(text.data[i]) : text.data[i]);
    copy[text.size] = '\0';
    return copy;
}

/* ---- addresses ---- */

/* "example.org", "*.example.org", "*". */
static enum err domain_keep(struct arena *arena, struct span domain, const char **ret_pattern)
{
    char pattern[MX_NAME_MAX + 2] = "";
    uint32_t size, prefix = 0;

    if (domain.size > 2 && memcmp(domain.data, "*.", 2) == 0) {
        memcpy(pattern, "*.", 2);
        prefix = 2;
    } else if (span_is_equal(domain, SPAN_LITERAL("*"))) {
        *ret_pattern = "*";
        return ERR_OK;
    }
    if (dns_name_normalize(span_skip(domain, prefix), pattern + prefix, &size) != ERR_OK)
        return ERR_CONFIG_SYNTAX;
    *ret_pattern = text_keep(arena, span_of(pattern, prefix + size), false);
    return *ret_pattern == NULL ? ERR_MEMORY : ERR_OK;
}

static enum err address_keep(struct arena *arena, struct span text, struct auth_address *ret)
{
    uint32_t size = text.size;

    if (span_is_equal(text, SPAN_LITERAL("*"))) {
        *ret = (struct auth_address){.domain = "*"};
        return ERR_OK;
    }
    while (size > 0 && text.data[size - 1] != '@')
        size -= 1;
    if (size < 2)
        return ERR_CONFIG_SYNTAX;
    struct span local = span_head(text, size - 1);
    TRY(domain_keep(arena, span_skip(text, size), &ret->domain));
    if (span_is_equal(local, SPAN_LITERAL("*"))) {
        ret->local = NULL;
        return ERR_OK;
    }
    ret->local = text_keep(arena, local, false);
    return ret->local == NULL ? ERR_MEMORY : ERR_OK;
}

static struct span trim(struct span text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = span_skip(text, 1);
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t' ||
                             text.data[text.size - 1] == '\r'))
        text.size -= 1;
    return text;
}

/* The front of `*rest` up to `separator`, which is taken away with it. */
static struct span part_take(struct span *rest, uint8_t separator)
{
    const uint8_t *end = rest->size == 0 ? NULL : memchr(rest->data, separator, rest->size);
    uint32_t size = end == NULL ? rest->size : (uint32_t)(end - rest->data);
    struct span part = span_head(*rest, size);

    *rest = span_skip(*rest, end == NULL ? size : size + 1);
    return trim(part);
}

static uint32_t part_count(struct span text, uint8_t separator)
{
    uint32_t count = text.size > 0;

    for (uint32_t i = 0; i < text.size; i++)
        count += text.data[i] == separator;
    return count;
}

/* The name, when it is an address, and the list. */
static enum err addresses_read(struct auth_users *users, struct span name, struct span list,
                               struct auth_user *user, const struct complaint *complaint)
{
    uint32_t count = part_count(list, ',') + 1;
    struct auth_address *addresses;

    if (count > ADDRESS_COUNT_MAX + 1)
        return refuse(complaint, "has too many addresses");
    addresses = arena_acquire(&users->arena, count * sizeof(*addresses));
    if (addresses == NULL)
        return ERR_MEMORY;
    if (memchr(name.data, '@', name.size) != NULL && name.data[0] != '*' &&
        address_keep(&users->arena, name, &addresses[0]) == ERR_OK)
        user->address_count = 1;
    while (list.size > 0) {
        struct span text = part_take(&list, ',');
        enum err err = address_keep(&users->arena, text, &addresses[user->address_count]);
        if (err == ERR_MEMORY)
            return err;
        if (err != ERR_OK)
            return refuse(complaint, "expected addresses: user@example.org, *@example.org or *");
        user->address_count++;
    }
    user->addresses = addresses;
    return ERR_OK;
}

bool auth_user_owns(const struct auth_user *user, struct span local, struct span domain)
{
    for (uint32_t i = 0; i < user->address_count; i++) {
        const struct auth_address *own = &user->addresses[i];
        if (own->local != NULL && !span_is_equal_nocase(span_from_text(own->local), local))
            continue;
        if (settings_name_matches(own->domain, domain))
            return true;
    }
    return false;
}

/* ---- hashes ---- */

/* Methods that are worth their time; crypt(3) itself knows more. How much a hash costs, and what
 * the library calls legacy, is the operator's choice. */
static bool hash_is_strong(const char *hash)
{
    static const char *const prefixes[] = {"$y$", "$gy$", "$7$", "$2b$", "$2y$", "$6$", "$5$"};

    int verdict = crypt_checksalt(hash);
    if (verdict == CRYPT_SALT_INVALID || verdict == CRYPT_SALT_METHOD_DISABLED)
        return false;
    for (uint32_t i = 0; i < COUNT_OF(prefixes); i++) {
        if (strncmp(hash, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

static enum err hash_read(struct auth_users *users, struct span text, struct auth_user *user,
                          const struct complaint *complaint)
{
    if (text.size == 0)
        return refuse(complaint, "expected name:hash");
    if (text.data[0] == '!' || text.data[0] == '*')
        return ERR_OK;
    if (text.size > AUTH_HASH_MAX)
        return refuse(complaint, "the hash is too long");
    user->hash = text_keep(&users->arena, text, false);
    if (user->hash == NULL)
        return ERR_MEMORY;
    struct auth_scram_secret ignored;
    bool is_scram = auth_scram_parse(user->hash, &ignored) == ERR_OK;
    users->hash_count += 1;
    users->scram_count += is_scram;
    if (strlen(user->hash) != text.size || (!is_scram && !hash_is_strong(user->hash)))
        return refuse(complaint, "is no hash of a password that is understood: see `angarium user "
                                 "hash`");
    return ERR_OK;
}

/* ---- limits ---- */

static enum err rate_read(struct auth_users *users, struct span text,
                          const struct rate_set **ret_rates, const struct complaint *complaint)
{
    struct rate_set set;

    if (rate_set_parse(text, &set) != ERR_OK)
        return refuse(complaint, "expected a rate such as 100/1h or 100/1h,500/1d");
    struct rate_set *kept = arena_acquire(&users->arena, sizeof(*kept));
    if (kept == NULL)
        return ERR_MEMORY;
    *kept = set;
    *ret_rates = kept;
    return ERR_OK;
}

static enum err beyond_read(struct span text, struct auth_user *user,
                            const struct complaint *complaint)
{
    static const enum auth_beyond refused = AUTH_BEYOND_REFUSE, held = AUTH_BEYOND_HOLD;

    if (span_is_equal(text, SPAN_LITERAL("hold")))
        user->beyond = &held;
    else if (span_is_equal(text, SPAN_LITERAL("refuse")))
        user->beyond = &refused;
    else
        return refuse(complaint, "expected beyond=refuse or beyond=hold");
    return ERR_OK;
}

static enum err limit_read(struct auth_users *users, struct span word, struct auth_user *user,
                           const struct complaint *complaint)
{
    const struct {
        struct span name;
        const struct rate_set **rates;
    } limits[] = {
        {SPAN_LITERAL("messages="), &user->messages},
        {SPAN_LITERAL("recipients="), &user->recipients},
        {SPAN_LITERAL("held="), &user->held},
    };
    struct span beyond = SPAN_LITERAL("beyond=");

    for (uint32_t i = 0; i < COUNT_OF(limits); i++) {
        if (span_has_prefix_nocase(word, limits[i].name))
            return rate_read(users, span_skip(word, limits[i].name.size), limits[i].rates,
                             complaint);
    }
    if (span_has_prefix_nocase(word, beyond))
        return beyond_read(span_skip(word, beyond.size), user, complaint);
    return refuse(complaint, "expected messages=RATE, recipients=RATE, beyond=WORD or held=RATE");
}

static enum err limits_read(struct auth_users *users, struct span text, struct auth_user *user,
                            const struct complaint *complaint)
{
    while (text.size > 0) {
        struct span word = part_take(&text, ' ');
        if (word.size > 0)
            TRY(limit_read(users, word, user, complaint));
    }
    return ERR_OK;
}

/* ---- lines ---- */

static bool name_is_good(struct span name)
{
    if (name.size == 0 || name.size > AUTH_NAME_MAX)
        return false;
    for (uint32_t i = 0; i < name.size; i++) {
        if (name.data[i] <= ' ' || name.data[i] == 127)
            return false;
    }
    return true;
}

static enum err line_read(struct auth_users *users, struct span line,
                          const struct complaint *complaint)
{
    struct auth_user user = {0};

    struct span name = part_take(&line, ':');
    struct span hash = part_take(&line, ':');
    struct span addresses = part_take(&line, ':');
    struct span limits = part_take(&line, ':');
    if (!name_is_good(name))
        return refuse(complaint, "expected a name of up to 255 octets without spaces");
    if (line.size > 0)
        return refuse(complaint, "expected name:hash:addresses:limits");
    user.name = text_keep(&users->arena, name, true);
    if (user.name == NULL)
        return ERR_MEMORY;
    TRY(hash_read(users, hash, &user, complaint));
    TRY(addresses_read(users, name, addresses, &user, complaint));
    TRY(limits_read(users, limits, &user, complaint));
    CHECK(users->count < users->capacity);
    users->items[users->count++] = user;
    return ERR_OK;
}

static enum err lines_read(struct auth_users *users, struct span text, struct complaint *complaint)
{
    while (text.size > 0) {
        struct span line = part_take(&text, '\n');
        complaint->line += 1;
        if (line.size == 0 || line.data[0] == '#')
            continue;
        TRY(line_read(users, line, complaint));
    }
    return ERR_OK;
}

/* ---- the table ---- */

static bool user_is(const struct auth_user *user, struct span name)
{
    return span_is_equal_nocase(span_from_text(user->name), name);
}

/* Its place, or the free one where it would be. */
static uint32_t *slot_find(const struct auth_users *users, struct span name)
{
    uint32_t mask = users->table_size - 1, slot = name_hash(name) & mask;

    while (users->table[slot] != 0 && !user_is(&users->items[users->table[slot] - 1], name))
        slot = (slot + 1) & mask;
    return &users->table[slot];
}

static enum err table_make(struct auth_users *users, char why[AUTH_USERS_WHY_SIZE])
{
    users->table_size = 16;
    while (users->table_size < 2 * users->count)
        users->table_size *= 2;
    users->table = calloc(users->table_size, sizeof(*users->table));
    if (users->table == NULL)
        return ERR_MEMORY;
    for (uint32_t i = 0; i < users->count; i++) {
        uint32_t *slot = slot_find(users, span_from_text(users->items[i].name));
        if (*slot != 0) {
            snprintf(why, AUTH_USERS_WHY_SIZE, "\"%.100s\" is there twice", users->items[i].name);
            return ERR_CONFIG_SYNTAX;
        }
        *slot = i + 1;
    }
    return ERR_OK;
}

const struct auth_user *auth_users_find(const struct auth_users *users, struct span name)
{
    uint32_t number = *slot_find(users, name);

    return number == 0 ? NULL : &users->items[number - 1];
}

const char *auth_users_decoy(const struct auth_users *users, struct span name)
{
    uint32_t first = users->count == 0 ? 0 : name_hash(name) % users->count;

    for (uint32_t i = 0; i < users->count; i++) {
        const char *hash = users->items[(first + i) % users->count].hash;
        if (hash != NULL)
            return hash;
    }
    return NULL;
}

bool auth_users_has_scram(const struct auth_users *users)
{
    return users->scram_count > 0 && users->scram_count == users->hash_count;
}

uint32_t auth_users_count(const struct auth_users *users)
{
    return users->count;
}

/* ---- life ---- */

enum err auth_users_parse(struct span text, struct auth_users **ret_users,
                          char ret_why[AUTH_USERS_WHY_SIZE])
{
    struct complaint complaint = {.text = ret_why};
    struct auth_users *users;

    snprintf(ret_why, AUTH_USERS_WHY_SIZE, "there is no memory for so many users");
    uint32_t lines = part_count(text, '\n');
    if (lines > AUTH_USERS_MAX) {
        snprintf(ret_why, AUTH_USERS_WHY_SIZE, "has more than %u lines", AUTH_USERS_MAX);
        return ERR_CONFIG_SYNTAX;
    }
    users = calloc(1, sizeof(*users));
    if (users == NULL)
        return ERR_MEMORY;
    arena_init(&users->arena, USERS_BLOCK_SIZE, USERS_ARENA_MAX);
    users->capacity = lines;
    users->items = calloc(lines + 1ull, sizeof(*users->items));
    enum err err = users->items == NULL ? ERR_MEMORY : lines_read(users, text, &complaint);
    if (err == ERR_OK)
        err = table_make(users, ret_why);
    if (err != ERR_OK) {
        auth_users_free(users);
        return err;
    }
    *ret_users = users;
    return ERR_OK;
}

void auth_users_free(struct auth_users *users)
{
    if (users == NULL)
        return;
    arena_fini(&users->arena);
    free(users->items);
    free(users->table);
    free(users);
}

/* The whole file. Ownership: *ret_text is the caller's to free. */
static enum err file_read(int fd, const struct stat *status, uint8_t **ret_text, uint32_t *ret_size)
{
    uint32_t size = (uint32_t)status->st_size, got = 0;
    uint8_t *text = malloc(size + 1ull);
    ssize_t piece = 1;

    if (text == NULL)
        return ERR_MEMORY;
    while (got < size && piece > 0) {
        piece = read(fd, text + got, size - got);
        got += piece > 0 ? (uint32_t)piece : 0;
    }
    if (piece < 0) {
        free(text);
        return ERR_NOT_FOUND;
    }
    *ret_text = text;
    *ret_size = got;
    return ERR_OK;
}

/* Who can read hashes can try passwords. */
static const char *file_fault(const struct stat *status)
{
    if (!S_ISREG(status->st_mode))
        return "is no regular file";
    if ((status->st_mode & (S_IRWXO | S_IWGRP)) != 0)
        return "may be read or written by others: expected a mode such as 0640";
    if (status->st_size > (off_t)AUTH_USERS_FILE_SIZE_MAX)
        return "is too large";
    return NULL;
}

enum err auth_users_load(const char *path, struct auth_users **ret_users,
                         char ret_why[AUTH_USERS_WHY_SIZE])
{
    char why[AUTH_USERS_WHY_SIZE] = "";
    uint8_t *text = NULL;
    struct stat status;
    uint32_t size = 0;

    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* it may be a pipe */
    if (fd < 0 || fstat(fd, &status) != 0) {
        snprintf(ret_why, AUTH_USERS_WHY_SIZE, "%.180s: %.60s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return ERR_NOT_FOUND;
    }
    const char *fault = file_fault(&status);
    enum err err = fault != NULL ? ERR_CONFIG_VALUE : file_read(fd, &status, &text, &size);
    snprintf(why, sizeof(why), "%s", fault != NULL ? fault : "cannot be read");
    close(fd);
    if (err == ERR_OK)
        err = auth_users_parse(span_of(text, size), ret_users, why);
    if (text != NULL)
        explicit_bzero(text, size);
    free(text);
    if (err != ERR_OK)
        snprintf(ret_why, AUTH_USERS_WHY_SIZE, "%.100s: %.150s", path, why);
    return err;
}
