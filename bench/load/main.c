/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium-load source|sink|both|audit: the command line. Options with smtp-source's letters mean
 * what they mean there
 * (-s sessions, -m messages, -l length, -r recipients, -f sender).
 */
#include "bench/load/load.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

volatile int load_is_stopping;

static const char usage[] =
    "usage: angarium-load source [options] IP:PORT     send\n"
    "       angarium-load sink [options] IP:PORT       receive until SIGTERM\n"
    "       angarium-load both [options] TO LISTEN     both in one process\n"
    "       angarium-load audit [-r N] FILE...         compare ledgers\n"
    "  -s N  sessions (source: at once; sink: at most)   -m N  messages in all (sink: end then)\n"
    "  -l N  body octets, told to source and sink alike  -r N  recipients per message\n"
    "  -c N  messages per connection (0: all)            -f A  sender address\n"
    "  -d LIST  recipient domains, comma separated       -t N  seconds instead of -m\n"
    "  -R N  messages per second                         -L FILE  ledger, appended to\n"
    "  -w N  sink: milliseconds before the final 250     -4 N, -5 N  sink: percent of recipients "
    "refused so\n"
    "  -M N  sink: 4xx for everything in the first N seconds\n"
    "  -k DIR  sink: keep every message in a file        -S N  seed\n"
    "  -p  source: reconnect for ever                    -q quiet, -j JSON\n"
    "  -D DEVICE -A IP/BITS ...  a DPDK port and our addresses there, instead of kernel sockets; "
    "at most two ports\n";

__attribute__((noreturn)) static void usage_exit(void)
{
    (void)fputs(usage, stderr);
    exit(2);
}

static void on_signal(int number)
{
    (void)number;
    load_is_stopping = 1;
}

static uint64_t number_parse(const char *text)
{
    uint64_t value;
    if (span_parse_u64(span_from_text(text), &value) != ERR_OK) {
        (void)fprintf(stderr, "angarium-load: not a number: %s\n", text);
        exit(2);
    }
    return value;
}

static struct flow_address endpoint_parse(const char *text)
{
    struct flow_address address;
    const char *colon = strrchr(text, ':');
    const char *start = text[0] == '[' ? text + 1 : text;
    size_t size = colon == NULL ? 0 : (size_t)(colon - start) - (text[0] == '[');
    uint64_t port = colon == NULL ? 0 : number_parse(colon + 1);

    if (port == 0 || port > 65535 ||
        flow_address_parse_ip(span_of(start, (uint32_t)size), &address) != ERR_OK) {
        (void)fprintf(stderr, "angarium-load: not an IP:PORT: %s\n", text);
        exit(2);
    }
    address.port = (uint16_t)port;
    return address;
}

static void port_add(struct load_options *options, const char *device)
{
    if (options->port_count == LOAD_PORT_MAX)
        usage_exit();
    options->ports[options->port_count] = (struct dataplane_port_options){
        .device = device, .addresses = options->addresses[options->port_count], .mtu = 1500};
    options->port_count++;
}

/* "192.0.2.1/24", of the port given last. */
static void address_add(struct load_options *options, const char *text)
{
    const char *slash = strchr(text, '/');
    uint32_t port = options->port_count - 1;

    if (options->port_count == 0 || slash == NULL ||
        options->ports[port].address_count == LOAD_ADDRESS_MAX)
        usage_exit();
    struct flow_prefix *address = &options->addresses[port][options->ports[port].address_count++];
    if (flow_address_parse_ip(span_of(text, (uint32_t)(slash - text)), &address->address) != ERR_OK)
        usage_exit();
    address->bits = (uint8_t)number_parse(slash + 1);
}

static void option_apply(struct load_options *options, int letter, const char *value)
{
    switch (letter) {
    case 's':
        options->sessions = (uint32_t)number_parse(value);
        break;
    case 'm':
        options->messages = (uint32_t)number_parse(value);
        options->has_messages = true;
        break;
    case 'l':
        options->size = (uint32_t)number_parse(value);
        break;
    case 'r':
        options->recipients = (uint32_t)number_parse(value);
        break;
    case 'c':
        options->messages_per_session = (uint32_t)number_parse(value);
        break;
    case 't':
        options->duration_s = (uint32_t)number_parse(value);
        break;
    case 'R':
        options->rate = (uint32_t)number_parse(value);
        break;
    case 'w':
        options->latency_ms = (uint32_t)number_parse(value);
        break;
    case '4':
        options->percent_tempfail = (uint32_t)number_parse(value);
        break;
    case '5':
        options->percent_permfail = (uint32_t)number_parse(value);
        break;
    case 'M':
        options->moody_s = (uint32_t)number_parse(value);
        break;
    case 'S':
        options->seed = number_parse(value);
        break;
    case 'f':
        options->sender = value;
        break;
    case 'd':
        options->domains = value;
        break;
    case 'L':
        options->ledger_path = value;
        break;
    case 'k':
        options->keep_directory = value;
        break;
    case 'p':
        options->is_patient = true;
        break;
    case 'q':
        options->is_quiet = true;
        break;
    case 'j':
        options->is_json = true;
        break;
    case 'D':
        port_add(options, value);
        break;
    case 'A':
        address_add(options, value);
        break;
    default:
        usage_exit();
    }
}

void load_print_line(const struct load_options *options, const char *what,
                     const struct load_stats *now, const struct load_stats *before, double seconds)
{
    unsigned long long messages = now->messages - before->messages;
    unsigned long long recipients = now->recipients - before->recipients;
    unsigned long long octets = now->octets - before->octets;
    unsigned long long tempfails = now->tempfails - before->tempfails;
    unsigned long long permfails = now->permfails - before->permfails;
    unsigned long long lost = now->lost_connections - before->lost_connections;
    unsigned long long damaged = now->damaged - before->damaged;
    double rate = seconds > 0 ? (double)messages / seconds : 0.0;

    if (options->is_json)
        (void)printf(
            "{\"what\":\"%s\",\"seconds\":%.3f,\"messages\":%llu,\"messages_per_second\":%.1f,"
            "\"recipients\":%llu,\"octets\":%llu,\"tempfails\":%llu,\"permfails\":%llu,"
            "\"lost_connections\":%llu,\"damaged\":%llu}\n",
            what, seconds, messages, rate, recipients, octets, tempfails, permfails, lost, damaged);
    else
        (void)printf(
            "%-12s %8.3f s %9llu messages %10.1f/s %9llu recipients %12llu octets %6llu 4xx "
            "%6llu 5xx %4llu lost connections %4llu damaged\n",
            what, seconds, messages, rate, recipients, octets, tempfails, permfails, lost, damaged);
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    struct load_options options = {.sessions = 20,
                                   .messages = 1000,
                                   .recipients = 1,
                                   .size = 10240,
                                   .sender = "source@load.example",
                                   .domains = "sink.example"};
    struct sigaction action = {.sa_handler = on_signal};
    const char *what = argc > 1 ? argv[1] : "";
    int letter;

    optind = 2;
    while (argc > 1 &&
           (letter = getopt(argc, argv, "s:m:l:r:c:t:R:w:4:5:M:S:f:d:L:k:D:A:pqj")) != -1)
        option_apply(&options, letter, optarg);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    options.run = (uint64_t)tick_source_system()->wall(NULL) / 1000 * 100000u + (uint64_t)getpid();
    if (strcmp(what, "sink") == 0 && !options.has_messages)
        options.messages = 0;
    if (options.sessions == 0 || options.recipients == 0 || options.size < 4 ||
        options.size > 16u << 20)
        usage_exit();
    if (strcmp(what, "audit") == 0 && optind < argc)
        return load_audit_run(argc - optind, argv + optind, options.recipients, options.is_json);
    bool has_source = strcmp(what, "source") == 0 || strcmp(what, "both") == 0;
    bool has_sink = strcmp(what, "sink") == 0 || strcmp(what, "both") == 0;
    if ((!has_source && !has_sink) || optind + has_source + has_sink != argc)
        usage_exit();
    if (has_source)
        options.target = endpoint_parse(argv[optind]);
    if (has_sink)
        options.listen = endpoint_parse(argv[optind + has_source]);
    return load_run(&options, has_source, has_sink);
}
