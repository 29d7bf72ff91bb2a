/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From Postfix's parameters to options. Numbers and times are rows of a table; addresses, networks,
 * listeners and routes have a function each. Whatever cannot be said here, or cannot be understood,
 * becomes a note.
 *
 * Invariants
 *   1. What is written is accepted by config_parse(): names and paths that a string of YAML cannot
 *      hold as they are become notes, numbers are kept within the option's bounds, and say so.
 *   2. No password is copied.
 *
 * Limits: those of postfix_file.h.
 */
#include "control/postfix_import.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/postfix_import_internal.h"
#include "dataplane/flow.h"
#include "dns/dns.h"

#define FILE_SIZE_MAX (1u << 20)

/* ---- notes and values ---- */

bool import_is_plain(struct span text)
{
    for (uint32_t i = 0; i < text.size; i++) {
        if (text.data[i] < ' ' || text.data[i] > '~' || text.data[i] == '"' || text.data[i] == '\\')
            return false;
    }
    return text.size > 0;
}

static bool is_noted(struct import *import, const char *line)
{
    const char *text = fflush(import->notes) == 0 ? import->notes_text : NULL;
    const char *found = text == NULL ? NULL : strstr(text, line);

    return found != NULL && (found == text || found[-1] == '\n');
}

void import_note(struct import *import, struct span name, const char *format, ...)
{
    char *said = NULL, *line = NULL;
    va_list arguments;

    if (!import_is_plain(name))
        name = SPAN_LITERAL("(a name that is none)");
    va_start(arguments, format);
    int size = vasprintf(&said, format, arguments);
    va_end(arguments);
    CHECK(size >= 0);
    size = asprintf(&line, "#   %.*s: %s\n", (int)name.size, (const char *)name.data, said);
    CHECK(size >= 0);
    if (!is_noted(import, line))
        fputs(line, import->notes);
    free(said);
    free(line);
}

const char *import_get(struct import *import, const char *name)
{
    struct postfix_parameter *found = postfix_find(import->postfix, span_from_text(name));

    if (found == NULL)
        return NULL;
    found->is_used = true;
    if (postfix_expand(import->postfix, found->value, import->value))
        return import->value;
    import_note(import, found->name, "line %u has a condition, names itself, or too many others",
                found->line);
    return NULL;
}

/* As the options that take one read it: a top-level domain is never all digits. */
bool import_is_domain(struct span text)
{
    char name[MX_NAME_MAX];
    uint32_t size;

    if (!import_is_plain(text) || dns_name_normalize(text, name, &size) != ERR_OK)
        return false;
    const char *dot = strrchr(name, '.'), *top = dot == NULL ? name : dot + 1;
    return top[strspn(top, "0123456789")] != '\0';
}

/* ---- numbers and times ---- */

static const struct number {
    const char *name, *section, *option;
    uint64_t min, max;
    uint32_t unit;     /* of a time without one, in seconds; 0: a number */
    bool zero_is_none; /* 0 is no limit there, and nothing here */
} numbers[] = {
    {"maximal_queue_lifetime", "", "message_lifetime", 60, 2592000, 86400, false},
    {"minimal_backoff_time", "retry", "min", 1, 86400, 1, false},
    {"maximal_backoff_time", "retry", "max", 1, 604800, 1, false},
    {"default_destination_concurrency_limit", "client", "connections_per_site", 1, 100000, 0, true},
    {"initial_destination_concurrency", "client", "connections_at_first", 1, 100000, 0, false},
    {"default_destination_recipient_limit", "client", "recipients_per_transaction", 1, 10000, 0,
     false},
    {"smtp_connect_timeout", "client", "connect_timeout", 1, 300, 1, true},
    {"smtp_helo_timeout", "client", "greeting_timeout", 1, 3600, 1, false},
    {"smtp_mail_timeout", "client", "command_timeout", 1, 3600, 1, false},
    {"smtp_data_done_timeout", "client", "data_end_timeout", 1, 3600, 1, false},
    {"message_size_limit", "limits", "message_size", 65536, 4294967295, 0, true},
    {"smtpd_recipient_limit", "limits", "recipients", 100, 10000, 0, false},
    {"smtpd_hard_error_limit", "limits", "errors", 1, 100000, 0, false},
    {"smtpd_junk_command_limit", "limits", "junk", 1, 1000000, 0, false},
    {"smtpd_timeout", "limits", "command_timeout", 1, 3600, 1, false},
    {"hopcount_limit", "limits", "received", 10, 10000, 0, false},
    {"smtpd_client_connection_count_limit", "brakes", "connections", 0, 1000000, 0, false},
    {"smtpd_client_connection_rate_limit", "brakes", "connections_per_minute", 0, 100000000, 0,
     false},
    {"smtpd_client_message_rate_limit", "brakes", "messages_per_minute", 0, 100000000, 0, false},
    {"smtpd_client_recipient_rate_limit", "brakes", "recipients_per_minute", 0, 100000000, 0,
     false},
};

/* A number, or a time with its unit, in seconds. */
static bool number_parse(const char *text, uint32_t unit, uint64_t *ret_value)
{
    static const struct {
        char letter;
        uint32_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    uint32_t digits = (uint32_t)strspn(text, "0123456789");
    uint64_t value;

    if (digits == 0 || digits > 12 || span_parse_u64(span_of(text, digits), &value) != ERR_OK)
        return false;
    for (uint32_t i = 0; unit > 0 && i < COUNT_OF(units); i++) {
        if (text[digits] == units[i].letter && text[digits + 1] == '\0') {
            *ret_value = value * units[i].seconds;
            return true;
        }
    }
    *ret_value = value * (unit > 0 ? unit : 1);
    return text[digits] == '\0';
}

void import_section_write(struct import *import, const char *section, const char *before,
                          const char *after)
{
    const char *comma = "";

    for (uint32_t i = 0; i < COUNT_OF(numbers); i++) {
        const struct number *row = &numbers[i];
        const char *text =
            strcmp(row->section, section) == 0 ? import_get(import, row->name) : NULL;
        uint64_t value;
        if (text == NULL)
            continue;
        if (!number_parse(text, row->unit, &value)) {
            import_note(import, span_from_text(row->name), "is no number or time");
            continue;
        }
        if (value == 0 && row->zero_is_none) {
            import_note(import, span_from_text(row->name),
                        "0, no limit, is not there: the default of %s stays", row->option);
            continue;
        }
        uint64_t kept = value < row->min ? row->min : value > row->max ? row->max : value;
        if (kept != value)
            import_note(import, span_from_text(row->name),
                        "%" PRIu64 " is beyond the bounds here: %" PRIu64, value, kept);
        fprintf(import->out, "%s%s: %" PRIu64 "%s", comma[0] == '\0' ? before : comma, row->option,
                kept, row->unit > 0 ? "s" : "");
        comma = ", ";
    }
    if (comma[0] != '\0')
        fputs(after, import->out);
}

/* ---- who we are, and for whom we relay ---- */

static void networks_write(struct import *import)
{
    const char *text = import_get(import, "mynetworks");
    struct span rest = span_from_text(text == NULL ? "" : text), word;
    const char *comma = "relay_from: [";

    while (postfix_word_next(&rest, ",", &word)) {
        struct flow_prefix prefix;
        char plain[64] = "";
        uint32_t size = 0;
        for (uint32_t i = 0; i < word.size && size < sizeof(plain) - 1; i++) {
            if (word.data[i] != '[' && word.data[i] != ']')
                plain[size++] = (char)word.data[i];
        }
        if (word.size < sizeof(plain) &&
            flow_prefix_parse(span_of(plain, size), &prefix) == ERR_OK) {
            fprintf(import->out, "%s\"%.*s\"", comma, (int)size, plain);
            comma = ", ";
        } else {
            import_note(
                import, SPAN_LITERAL("mynetworks"),
                "one of them is no prefix: its bits end where the network does, and neither files "
                "nor `!` are read");
        }
    }
    if (comma[0] == ',')
        fputs("]\n", import->out);
    if (text == NULL)
        import_note(import, SPAN_LITERAL("mynetworks"), "not set: this machine alone may relay");
}

static void names_write(struct import *import)
{
    const char *text = import_get(import, "myhostname");
    struct span name = span_from_text(text == NULL ? "" : text);

    if (text != NULL && import_is_domain(name) && strchr(text, '.') != NULL)
        fprintf(import->out, "hostname: \"%s\"\n", text);
    else
        import_note(import, SPAN_LITERAL("myhostname"),
                    "not set, or no domain: the machine's name is used");
    text = import_get(import, "inet_protocols");
    if (text != NULL && strcmp(text, "ipv4") == 0)
        fputs("destinations: {ipv6: false}\n", import->out);
    else if (text != NULL && strcmp(text, "ipv6") == 0)
        fputs("destinations: {ipv4: false}\n", import->out);
}

static void source_write(struct import *import)
{
    static const char *const parameters[] = {"smtp_bind_address", "smtp_bind_address6"};
    const char *comma = "", *text;
    struct flow_address address;
    char addresses[2 * FLOW_ADDRESS_TEXT_MAX + 8] = "";
    size_t used = 0;

    for (uint32_t i = 0; i < COUNT_OF(parameters); i++) {
        char ip[FLOW_ADDRESS_TEXT_MAX];
        text = import_get(import, parameters[i]);
        if (text == NULL || text[0] == '\0')
            continue;
        if (flow_address_parse_ip(span_from_text(text), &address) != ERR_OK ||
            (address.family == FLOW_FAMILY_IP4) != (i == 0)) {
            import_note(import, span_from_text(parameters[i]), "is no address of its family");
            continue;
        }
        used += (size_t)snprintf(addresses + used, sizeof(addresses) - used, "%s\"%s\"", comma,
                                 flow_address_format_ip(&address, ip));
        comma = ", ";
    }
    text = import_get(import, "smtp_helo_name");
    bool has_hello =
        text != NULL && import_is_domain(span_from_text(text)) && strchr(text, '.') != NULL;
    if (used == 0 && !has_hello)
        return;
    fputs("sources: [{name: out", import->out);
    if (used > 0)
        fprintf(import->out, ", addresses: [%s]", addresses);
    if (has_hello)
        fprintf(import->out, ", hello: \"%s\"", text);
    fputs("}]\n", import->out);
}

/* ---- the whole ---- */

/* What is set, and nobody asked for. */
static void rest_note(struct import *import)
{
    static const char *const silent[] = {"compatibility_level",
                                         "queue_directory",
                                         "command_directory",
                                         "daemon_directory",
                                         "data_directory",
                                         "mail_owner",
                                         "setgid_group",
                                         "debugger_command",
                                         "sendmail_path",
                                         "newaliases_path",
                                         "mailq_path",
                                         "html_directory",
                                         "manpage_directory",
                                         "sample_directory",
                                         "readme_directory",
                                         "meta_directory",
                                         "shlib_directory",
                                         "debug_peer_level",
                                         "biff",
                                         "append_dot_mydomain",
                                         "unknown_local_recipient_reject_code"};

    for (uint32_t i = 0; i < import->postfix->parameter_count; i++) {
        const struct postfix_parameter *row = &import->postfix->parameters[i];
        bool is_silent = row->is_used || row->value.size == 0;
        for (uint32_t j = 0; j < COUNT_OF(silent); j++)
            is_silent = is_silent || span_is_equal(row->name, span_from_text(silent[j]));
        if (!is_silent)
            import_note(import, row->name, "main.cf line %u: not mapped", row->line);
    }
}

static void all_write(struct import *import)
{
    names_write(import);
    networks_write(import);
    import_section_write(import, "", "", "\n");
    import_section_write(import, "retry", "retry: {", "}\n");
    import_section_write(import, "client", "client: {", "}\n");
    source_write(import);
    import_listeners_write(import);
    import_routes_write(import);
    rest_note(import);
}

static enum err file_parse(struct import *import, const char *name,
                           enum err (*parse)(struct postfix *, struct span_mut, uint32_t *),
                           uint8_t **ret_text, char ret_why[POSTFIX_IMPORT_WHY_SIZE])
{
    char path[4096];
    uint32_t size = 0, line = 0;

    (void)snprintf(path, sizeof(path), "%s/%s", import->directory, name);
    *ret_text = import->source->read(import->source->context, path, &size);
    if (*ret_text == NULL) {
        (void)snprintf(ret_why, POSTFIX_IMPORT_WHY_SIZE, "%s cannot be read", name);
        return ERR_NOT_FOUND;
    }
    enum err err = parse(import->postfix, (struct span_mut){*ret_text, size}, &line);
    if (err != ERR_OK)
        (void)snprintf(ret_why, POSTFIX_IMPORT_WHY_SIZE, "%s:%u: %s", name, line,
                       err == ERR_LIMIT ? "there are too many of these"
                                        : "not as Postfix writes it");
    return err;
}

enum err postfix_import(const struct postfix_import_source *source, const char *directory,
                        FILE *out, char ret_why[POSTFIX_IMPORT_WHY_SIZE])
{
    struct import *import = calloc(1, sizeof(*import));
    struct postfix *postfix = calloc(1, sizeof(*postfix));
    uint8_t *main_text = NULL, *master_text = NULL;
    FILE *notes = import == NULL ? NULL : open_memstream(&import->notes_text, &import->notes_size);
    enum err err = postfix == NULL || notes == NULL ? ERR_MEMORY : ERR_OK;

    (void)snprintf(ret_why, POSTFIX_IMPORT_WHY_SIZE, "no memory");
    if (err == ERR_OK) {
        import->source = source;
        import->directory = directory;
        import->postfix = postfix;
        import->out = out;
        import->notes = notes;
        postfix->parameters[postfix->parameter_count++] =
            (struct postfix_parameter){.name = SPAN_LITERAL("config_directory"),
                                       .value = span_from_text(directory),
                                       .is_used = true};
        err = file_parse(import, "main.cf", postfix_main_parse, &main_text, ret_why);
    }
    if (err == ERR_OK)
        err = file_parse(import, "master.cf", postfix_master_parse, &master_text, ret_why);
    if (err == ERR_OK)
        all_write(import);
    if (notes != NULL)
        fclose(notes);
    if (err == ERR_OK && import->notes_size > 0)
        fprintf(out, "\n# Not mapped, or not as it was (docs/migrate-postfix.md):\n%s",
                import->notes_text);
    if (import != NULL)
        free(import->notes_text);
    free(main_text);
    free(master_text);
    free(postfix);
    free(import);
    return err;
}

/* Whoever writes a pipe could keep us waiting for ever, and a device has no end. */
static bool is_regular(int fd, const char *path)
{
    struct stat status;

    if (fd < 0)
        return false;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        return true;
    fprintf(stderr, "angarium: %s: no regular file\n", path);
    return false;
}

static uint8_t *file_read(void *context, const char *path, uint32_t *ret_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is not waited for */
    uint8_t *text = is_regular(fd, path) ? malloc(FILE_SIZE_MAX + 1) : NULL;
    ssize_t got = text == NULL ? -1 : 1;
    uint32_t size = 0;

    (void)context;
    while (got > 0 && size <= FILE_SIZE_MAX) {
        got = read(fd, text + size, FILE_SIZE_MAX + 1 - size);
        size += got > 0 ? (uint32_t)got : 0;
    }
    if (fd >= 0)
        close(fd);
    if (got == 0 && size <= FILE_SIZE_MAX) {
        *ret_size = size;
        return text;
    }
    free(text);
    return NULL;
}

bool postfix_import_files(const char *directory, FILE *out)
{
    struct postfix_import_source source = {.read = file_read};
    char why[POSTFIX_IMPORT_WHY_SIZE];

    if (postfix_import(&source, directory, out, why) == ERR_OK)
        return true;
    fprintf(stderr, "angarium: %s: %s\n", directory, why);
    return false;
}
