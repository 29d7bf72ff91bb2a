/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of angarium-load: one row per option makes the parser, the bounds and the help.
 *
 * Options that smtp-source has too keep its letters where they mean the same (-s -m -l -r -f).
 */
#include "bench/load/cli.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/text.h"

#define FILE_MAX (1u << 20)

void cli_refuse(const struct cli *cli, const char *format, ...)
{
    va_list arguments;

    (void)fprintf(stderr, "angarium-load%s%s: ", cli->name[0] == '\0' ? "" : " ", cli->name);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "\nTry: angarium-load%s%s --help\n", cli->name[0] == '\0' ? "" : " ",
                  cli->name);
    exit(2);
}

/* ---- values ---- */

uint64_t cli_number(const struct cli *cli, const struct cli_option *option, const char *text)
{
    uint64_t value;

    if (span_parse_u64(span_from_text(text), &value) != ERR_OK)
        cli_refuse(cli, "--%s: not a number: %s", option->name, text);
    if (value < option->min || value > option->max)
        cli_refuse(cli, "--%s: %s is not within %u and %u", option->name, text, option->min,
                   option->max);
    return value;
}

/* The whole of a small file; valid until the next is read. */
static struct span file_read(const struct cli *cli, const struct cli_option *option,
                             const char *path)
{
    static char text[FILE_MAX + 1];
    FILE *file = fopen(path, "r");

    if (file == NULL)
        cli_refuse(cli, "--%s: cannot read %s", option->name, path);
    size_t size = fread(text, 1, sizeof(text), file);
    bool is_ok = ferror(file) == 0 && size <= FILE_MAX;
    (void)fclose(file);
    if (!is_ok)
        cli_refuse(cli, "--%s: cannot read %s, or it is larger than 1 MB", option->name, path);
    return span_of(text, (uint32_t)size);
}

static void apply_messages(struct cli *cli, const struct cli_option *option, const char *value)
{
    cli->options.messages = (uint32_t)cli_number(cli, option, value);
    cli->has_messages = true;
}

static void apply_sessions(struct cli *cli, const struct cli_option *option, const char *value)
{
    cli->options.sessions = (uint32_t)cli_number(cli, option, value);
    cli->has_sessions = true;
}

static void apply_length(struct cli *cli, const struct cli_option *option, const char *value)
{
    if (dist_size_parse(span_from_text(value), &cli->options.size) != ERR_OK ||
        cli->options.size < option->min || cli->options.size > option->max)
        cli_refuse(cli, "--%s: %s is not a size within %u and %u", option->name, value, option->min,
                   option->max);
    cli->has_size = true;
}

static void apply_rate(struct cli *cli, const struct cli_option *option, const char *value)
{
    uint64_t rate;

    if (dist_decimal_parse(span_from_text(value), 10000000ull * DIST_WEIGHT_ONE, &rate) != ERR_OK ||
        rate == 0)
        cli_refuse(cli, "--%s: %s is not a rate within 0.0001 and 10000000 a second", option->name,
                   value);
    cli->options.rate = (double)rate / DIST_WEIGHT_ONE;
}

static struct dist *dist_of(struct cli *cli, const struct cli_option *option)
{
    return (struct dist *)(void *)((char *)&cli->options + option->offset);
}

/* A list, or "@FILE" */
static void apply_domains(struct cli *cli, const struct cli_option *option, const char *value)
{
    struct dist *dist = dist_of(cli, option);
    char why[DIST_WHY_SIZE];

    dist_fini(dist);
    enum err err = value[0] == '@' ? dist_parse_rows(file_read(cli, option, value + 1), dist, why)
                                   : dist_parse_list(span_from_text(value), dist, why);
    if (err != ERR_OK)
        cli_refuse(cli, "--%s: %s", option->name, why);
}

static void apply_sizes(struct cli *cli, const struct cli_option *option, const char *value)
{
    struct dist *dist = dist_of(cli, option);
    char why[DIST_WHY_SIZE];
    uint32_t size;

    dist_fini(dist);
    if (dist_parse_rows(file_read(cli, option, value), dist, why) != ERR_OK)
        cli_refuse(cli, "--%s: %s: %s", option->name, value, why);
    for (uint32_t i = 0; i < dist->count; i++) {
        struct span name = span_of(dist->rows[i].name, dist->rows[i].name_size);
        if (dist_size_parse(name, &size) != ERR_OK || size < option->min || size > option->max)
            cli_refuse(cli, "--%s: %s: %s is not a size within %u and %u", option->name, value,
                       dist->rows[i].name, option->min, option->max);
    }
}

static void apply_tls(struct cli *cli, const struct cli_option *option, const char *value)
{
    (void)value;
    bool is_start = strcmp(option->name, "starttls") == 0;
    cli->has_starttls |= is_start;
    cli->has_tls |= !is_start;
    cli->options.tls = is_start ? LOAD_TLS_START : LOAD_TLS_IMPLICIT;
}

/* ---- moods ---- */

typedef enum err mood_parser(struct mood *mood, struct span text, char why[MOOD_WHY_SIZE]);

static void mood_apply(struct cli *cli, const struct cli_option *option, mood_parser *parse,
                       struct span text)
{
    char why[MOOD_WHY_SIZE];

    if (parse(&cli->options.mood, text, why) != ERR_OK)
        cli_refuse(cli, "--%s: %s", option->name, why);
}

static void apply_delay(struct cli *cli, const struct cli_option *option, const char *value)
{
    mood_apply(cli, option, mood_delay_parse, span_from_text(value));
}

static void apply_reject(struct cli *cli, const struct cli_option *option, const char *value)
{
    cli->has_reject = true;
    mood_apply(cli, option, mood_reject_parse, span_from_text(value));
}

static void apply_drop(struct cli *cli, const struct cli_option *option, const char *value)
{
    mood_apply(cli, option, mood_drop_parse, span_from_text(value));
}

static void apply_replies(struct cli *cli, const struct cli_option *option, const char *value)
{
    mood_apply(cli, option, mood_replies_parse, file_read(cli, option, value));
}

/* The old short forms of --delay and --reject. */
static void apply_short(struct cli *cli, const struct cli_option *option, const char *value)
{
    char text[64];

    int size = snprintf(text, sizeof(text), "%s%.40s",
                        option->letter == 'w'   ? "end:"
                        : option->letter == '4' ? "rcpt:4:"
                                                : "rcpt:5:",
                        value);
    CHECK(size > 0 && (size_t)size < sizeof(text));
    if (option->letter == 'w')
        apply_delay(cli, option, text);
    else
        apply_reject(cli, option, text);
}

/* ---- the table ---- */

#define OF(member)  offsetof(struct load_options, member)
#define NONE        0, 0
#define SOURCE      CLI_SOURCE
#define SINK        CLI_SINK
#define SOURCE_SINK (CLI_SOURCE | CLI_SINK)
#define ONLY_BOTH   8u
#define WITH_AUDIT  (CLI_SOURCE | CLI_SINK | CLI_AUDIT)
#define COUNT_LARGE UINT32_MAX

/* clang-format off: a table is read by its columns */
const struct cli_option cli_options[] = {
    {'s', "sessions", SOURCE_SINK, CLI_SPECIAL, 0, 1, LOAD_SESSION_MAX, apply_sessions, "N",
     "connections at once (source 20; sink 1000, more wait)"},
    {'m', "messages", SOURCE_SINK, CLI_SPECIAL, 0, 1, COUNT_LARGE, apply_messages, "N",
     "messages in all (source 1000; sink: no end)"},
    {'t', "duration", SOURCE, CLI_NUMBER, OF(duration_s), 1, 10000000, NULL, "S",
     "seconds, instead of -m or whichever is over first"},
    {'c', "per-connection", SOURCE, CLI_NUMBER, OF(messages_per_session), 0, COUNT_LARGE, NULL, "N",
     "messages, then QUIT and a new connection (0: all)"},
    {'R', "rate", SOURCE, CLI_SPECIAL, 0, NONE, apply_rate, "N",
     "open loop: so many are due a second, latency counts from then"},
    {300, "ramp", SOURCE, CLI_NUMBER, OF(ramp_s), 0, 86400, NULL, "S",
     "seconds until the full rate, or until all sessions run"},
    {'l', "length", SOURCE, CLI_SPECIAL, 0, TEXT_SIZE_MIN, TEXT_SIZE_MAX, apply_length, "SIZE",
     "octets of the body: 10240, 10k, 2M (10k)"},
    {301, "sizes", SOURCE, CLI_SPECIAL, OF(sizes), TEXT_SIZE_MIN, TEXT_SIZE_MAX, apply_sizes,
     "FILE", "instead: rows of a size and a weight"},
    {'r', "recipients", CLI_SOURCE | CLI_AUDIT, CLI_NUMBER, OF(recipients), 1, LOAD_RECIPIENT_MAX,
     NULL, "N", "recipients per message (1)"},
    {'d', "domains", SOURCE, CLI_SPECIAL, OF(domains), NONE, apply_domains, "LIST",
     "a.example,b.example in turn; a.example:67.4,... by weight; @FILE"},
    {'f', "from", SOURCE, CLI_TEXT, OF(sender), NONE, NULL, "ADDR", "sender (source@load.example)"},
    {302, "sender-domains", SOURCE, CLI_SPECIAL, OF(sender_domains), NONE, apply_domains, "LIST",
     "instead of the sender's own, as -d"},
    {321, "idle", SOURCE, CLI_NUMBER, OF(idle), 0, LOAD_SESSION_MAX, NULL, "N",
     "connections besides, that say EHLO, and nothing more; opened first"},
    {303, "hello", SOURCE, CLI_TEXT, OF(hello), NONE, NULL, "NAME", "name for EHLO (load.example)"},
    {304, "timeout", SOURCE, CLI_NUMBER, OF(timeout_s), 1, 86400, NULL, "S",
     "for each reply; then the connection is lost (300)"},
    {'p', "patient", SOURCE, CLI_FLAG, OF(is_patient), NONE, NULL, NULL,
     "go on when nobody answers at first"},
    {306, "limit", SINK, CLI_NUMBER, OF(limit), 1, LOAD_SESSION_MAX, NULL, "N",
     "connections; one more gets 421"},
    {'w', "latency", SINK, CLI_SPECIAL, 0, NONE, apply_short, "MS",
     "milliseconds before the final reply: --delay end:MS"},
    {307, "delay", SINK, CLI_SPECIAL, 0, NONE, apply_delay, "STEP:MS[-MS]",
     "before the reply to connect hello mail rcpt data end other, or any"},
    {308, "reject", SINK, CLI_SPECIAL, 0, NONE, apply_reject, "STEP:CODE:%",
     "odds of a reply: rcpt:450:5, end:5:0.5 (any 5xx)"},
    {309, "drop", SINK, CLI_SPECIAL, 0, NONE, apply_drop, "STEP:%",
     "odds of hanging up; also at body, or when taken: kept, no reply"},
    {310, "replies", SINK, CLI_SPECIAL, 0, NONE, apply_replies, "FILE",
     "what refusals say: rows of STEP CODE WEIGHT TEXT"},
    {'4', "tempfail", SINK, CLI_SPECIAL, 0, NONE, apply_short, "%",
     "of recipients: --reject rcpt:4:%"},
    {'5', "permfail", SINK, CLI_SPECIAL, 0, NONE, apply_short, "%",
     "of recipients: --reject rcpt:5:%"},
    {'M', "moody", SINK, CLI_NUMBER, OF(moody_s), 0, 86400, NULL, "S",
     "4xx for everybody in the first seconds"},
    {311, "tarpit", SINK, CLI_NUMBER, OF(tarpit_ms), 0, 60000, NULL, "MS",
     "milliseconds between the octets of replies"},
    {312, "check", SINK, CLI_FLAG, OF(is_checking), NONE, NULL, NULL,
     "compare checksums also without a ledger"},
    {'k', "keep", SINK, CLI_TEXT, OF(keep_directory), NONE, NULL, "DIR", "every message in a file"},
    {313, "certificate", SINK, CLI_TEXT, OF(certificate_file), NONE, NULL, "FILE",
     "PEM, with --key (else self-signed)"},
    {314, "key", SINK, CLI_TEXT, OF(key_file), NONE, NULL, "FILE", "PEM"},
    {315, "no-pipelining", SOURCE_SINK, CLI_FLAG, OF(has_no_pipelining), NONE, NULL, NULL,
     "source: one command at a time; sink: not offered"},
    {316, "chunking", SOURCE_SINK, CLI_FLAG, OF(has_chunking), NONE, NULL, NULL,
     "source: BDAT instead of DATA; sink: offered"},
    {317, "starttls", SOURCE_SINK, CLI_SPECIAL, 0, NONE, apply_tls, NULL,
     "source: used; sink: offered"},
    {318, "tls", SOURCE_SINK, CLI_SPECIAL, 0, NONE, apply_tls, NULL, "TLS from the first octet"},
    {322, "resume", SOURCE, CLI_FLAG, OF(is_resuming), NONE, NULL, NULL,
     "TLS sessions, from the second handshake on"},
    {'L', "ledger", SOURCE_SINK, CLI_TEXT, OF(ledger_path), NONE, NULL, "FILE",
     "appended to; with both, audited at the end"},
    {319, "report", SOURCE_SINK, CLI_TEXT, OF(report_directory), NONE, NULL, "DIR",
     "report.svg, a chart, and report.json"},
    {320, "drain", ONLY_BOTH, CLI_NUMBER, OF(drain_s), 0, 86400, NULL, "S",
     "wait for what is acknowledged to arrive (60)"},
    {'j', "json", WITH_AUDIT, CLI_FLAG, OF(is_json), NONE, NULL, NULL, "an object a line"},
    {'q', "quiet", SOURCE_SINK, CLI_FLAG, OF(is_quiet), NONE, NULL, NULL, "no line a second"},
    {'S', "seed", SOURCE_SINK, CLI_NUMBER, OF(seed), 0, UINT32_MAX, NULL, "N", "of all odds (0)"},
    {'D', "device", SOURCE_SINK, CLI_SPECIAL, 0, NONE, cli_apply_device, "DEVICE",
     "a DPDK port instead of kernel sockets, at most two"},
    {'A', "address", SOURCE_SINK, CLI_SPECIAL, 0, NONE, cli_apply_address, "IP/BITS",
     "ours on that port; a source goes round them"},
    {323, "mtu", SOURCE_SINK, CLI_SPECIAL, 0, CLI_MTU_MIN, CLI_MTU_MAX, cli_apply_mtu, "N",
     "of that port (1500)"},
};
/* clang-format on */
const uint32_t cli_option_count = COUNT_OF(cli_options);

/* ---- parsing ---- */

static bool is_for(const struct cli *cli, const struct cli_option *option)
{
    unsigned int commands = (unsigned int)cli->command;

    return (option->commands & commands) != 0 ||
           (option->commands == ONLY_BOTH && cli->command == CLI_BOTH);
}

static void option_apply(struct cli *cli, const struct cli_option *option, const char *value)
{
    char *member = (char *)&cli->options + option->offset;
    bool yes = true;

    if (!is_for(cli, option))
        cli_refuse(cli, "--%s is not an option of %s", option->name, cli->name);
    if (option->kind == CLI_FLAG) {
        memcpy(member, &yes, sizeof(yes));
    } else if (option->kind == CLI_NUMBER) {
        uint32_t number = (uint32_t)cli_number(cli, option, value);
        memcpy(member, &number, sizeof(number));
    } else if (option->kind == CLI_TEXT) {
        memcpy(member, &value, sizeof(value));
    } else {
        option->apply(cli, option, value);
    }
}

static bool is_word(const char *text, bool may_be_empty)
{
    size_t size = strlen(text);

    for (size_t i = 0; i < size; i++) {
        if (text[i] <= ' ' || text[i] == 0x7f || text[i] == '<' || text[i] == '>')
            return false;
    }
    return size <= 255 && (size > 0 || may_be_empty);
}

static void check_source(struct cli *cli)
{
    struct load_options *options = &cli->options;

    if (!is_word(options->sender, true))
        cli_refuse(cli, "--from: not an address: %s", options->sender);
    if (!is_word(options->hello, false))
        cli_refuse(cli, "--hello: not a name: %s", options->hello);
    if (cli->has_size && options->sizes.count > 0)
        cli_refuse(cli, "--length or --sizes, not both");
    if (options->duration_s > 0 && options->ramp_s >= options->duration_s)
        cli_refuse(cli, "--ramp: it is not over before the end of --duration");
    if (options->sender_domains.count > 0 && options->sender[0] == '\0')
        cli_refuse(cli, "--sender-domains: the sender is empty");
    if (options->is_resuming && options->tls == LOAD_TLS_NONE)
        cli_refuse(cli, "--resume: without --starttls or --tls there is nothing to resume");
    if (options->duration_s > 0 && !cli->has_messages)
        options->messages = 0;
}

static void check_sink(struct cli *cli)
{
    struct load_options *options = &cli->options;

    options->sink_sessions = cli->has_sessions ? options->sessions : 1000;
    if (cli->command == CLI_BOTH && options->sink_sessions < 1000)
        options->sink_sessions = 1000;
    options->sink_messages = cli->command == CLI_SINK && cli->has_messages ? options->messages : 0;
    if (options->limit >= options->sink_sessions)
        cli_refuse(cli, "--limit: %u is never passed, only %u connections are served",
                   options->limit, options->sink_sessions);
    if ((options->certificate_file == NULL) != (options->key_file == NULL))
        cli_refuse(cli, "--certificate and --key go together");
    if (options->certificate_file != NULL && options->tls == LOAD_TLS_NONE)
        cli_refuse(cli, "--certificate: without --starttls or --tls there is no use for it");
    if (options->mood.reply_count > 0 && !cli->has_reject)
        cli_refuse(cli, "--replies: without --reject nothing is refused");
    if (cli->command == CLI_BOTH && options->recipients > 1000)
        cli_refuse(cli, "--recipients: the sink takes 1000 at most");
}

static void check(struct cli *cli)
{
    if (cli->has_tls && cli->has_starttls)
        cli_refuse(cli, "--starttls or --tls, not both");
    if (cli->command == CLI_AUDIT)
        return;
    if (cli->command & CLI_SOURCE)
        check_source(cli);
    if (cli->command & CLI_SINK)
        check_sink(cli);
}

static void getopt_tables(char *letters, struct option *longs)
{
    *letters++ = ':'; /* tell a missing argument from an unknown option */
    *letters++ = 'h';
    for (uint32_t i = 0; i < cli_option_count; i++) {
        const struct cli_option *option = &cli_options[i];
        if (option->letter < 256) {
            *letters++ = (char)option->letter;
            if (option->argument != NULL)
                *letters++ = ':';
        }
        longs[i] = (struct option){option->name,
                                   option->argument == NULL ? no_argument : required_argument, NULL,
                                   option->letter};
    }
    *letters = '\0';
    longs[cli_option_count] = (struct option){"help", no_argument, NULL, 'h'};
    longs[cli_option_count + 1] = (struct option){0};
}

static const struct cli_option *option_find(int letter)
{
    for (uint32_t i = 0; i < cli_option_count; i++) {
        if (cli_options[i].letter == letter)
            return &cli_options[i];
    }
    return NULL;
}

/* A letter among others in one word: getopt() is not behind that word yet. */
__attribute__((noreturn)) static void option_refuse(const struct cli *cli, int letter,
                                                    const char *word)
{
    if (letter == '?' && optopt > 0 && optopt < 256 && option_find(optopt) == NULL)
        cli_refuse(cli, "no such option: -%c", optopt);
    cli_refuse(cli, letter == ':' ? "%s wants a value" : "no such option: %s", word);
}

static void command_find(struct cli *cli, int argc, char **argv)
{
    static const struct {
        const char *name;
        enum cli_command command;
    } commands[] = {
        {"source", CLI_SOURCE}, {"sink", CLI_SINK}, {"both", CLI_BOTH}, {"audit", CLI_AUDIT}};
    const char *word = argc > 1 ? argv[1] : "";

    cli->name = "";
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        if (strcmp(commands[i].name, word) == 0) {
            cli->name = commands[i].name;
            cli->command = commands[i].command;
            return;
        }
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        cli_help(cli);
        exit(0);
    }
    cli_refuse(cli, word[0] == '\0' ? "source, sink, both or audit?%s" : "no such command: %s",
               word);
}

int cli_parse(struct cli *cli, int argc, char **argv)
{
    char letters[2 * COUNT_OF(cli_options) + 4];
    struct option longs[COUNT_OF(cli_options) + 2];
    char why[DIST_WHY_SIZE];
    int letter;

    *cli = (struct cli){.options = {.sessions = 20,
                                    .messages = 1000,
                                    .recipients = 1,
                                    .size = 10240,
                                    .timeout_s = 300,
                                    .drain_s = 60,
                                    .sender = "source@load.example",
                                    .hello = "load.example"}};
    CHECK(dist_parse_list(SPAN_LITERAL("sink.example"), &cli->options.domains, why) == ERR_OK);
    command_find(cli, argc, argv);
    getopt_tables(letters, longs);
    optind = 2;
    opterr = 0;
    while ((letter = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        const struct cli_option *option = option_find(letter);
        if (letter == 'h') {
            cli_help(cli);
            exit(0);
        }
        if (option == NULL)
            option_refuse(cli, letter, argv[optind - 1]);
        option_apply(cli, option, optarg);
    }
    check(cli);
    return optind;
}

void cli_fini(struct cli *cli)
{
    dist_fini(&cli->options.domains);
    dist_fini(&cli->options.sender_domains);
    dist_fini(&cli->options.sizes);
    mood_fini(&cli->options.mood);
}

struct flow_address cli_endpoint(const struct cli *cli, const char *text)
{
    struct flow_address address;
    const char *colon = strrchr(text, ':');
    bool is_bracketed = text[0] == '[' && colon != NULL && colon > text + 1 && colon[-1] == ']';
    const char *start = is_bracketed ? text + 1 : text;
    uint64_t port = 0;

    if (colon == NULL || span_parse_u64(span_from_text(colon + 1), &port) != ERR_OK || port == 0 ||
        port > 65535 ||
        flow_address_parse_ip(span_of(start, (uint32_t)(colon - start) - is_bracketed), &address) !=
            ERR_OK)
        cli_refuse(cli, "not an IP:PORT: %s", text);
    address.port = (uint16_t)port;
    return address;
}
