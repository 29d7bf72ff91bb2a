/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of conversations with another TCP (wire_talk.h): this one stands on the dataplane, the
 * other on the kernel (wire_peer.py) or on lwIP (lwip_peer.c).
 *
 * usage: wire_peer -D DEVICE -A IP/BITS ... -G GATEWAY ... -m MTU -V VLAN -E EXCEPTION -K PREFIX
 *        (without -D: kernel sockets)
 *
 * Commands come on stdin, a line each, and are answered on stdout by a line; the end of stdin or
 * SIGTERM ends it:
 *   serve IP:PORT                          "serving"
 *   ask IP:PORT[+N] COUNT AT_A_TIME REQUEST[;REQUEST...]
 *        COUNT conversations, AT_A_TIME at once, with the N addresses from IP on in turn, requests
 *        in turn; when all have ended: "good N bad N"
 *   counters                               "counter VALUE PORT NAME" for each that is not 0, "end"
 *   flows                                  "flow STATE MSS RTT RETRANSMITTED LOCAL REMOTE", "end"
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/dataplane.h"
#include "tests/interop/wire_talk.h"

#define COMMAND_SIZE 512u
#define MEMORY       (64u << 20)

struct setup {
    struct dataplane_options options;
    struct dataplane_port_options port;
    struct flow_prefix addresses[DATAPLANE_ADDRESS_MAX], kernel;
};

struct peer {
    struct flow_plane *plane;
    struct talk *talk;
    char command[COMMAND_SIZE];
    uint32_t command_size;
    bool is_over;
};

static volatile sig_atomic_t is_stopping;

static void on_signal(int number)
{
    (void)number;
    is_stopping = 1;
}

__attribute__((noreturn)) static void fail(const char *what)
{
    (void)fprintf(stderr, "wire_peer: %s\n", what);
    exit(1);
}

/* ---- words ---- */

static uint32_t number_of(const char *text)
{
    uint64_t value;

    if (text == NULL || span_parse_u64(span_from_text(text), &value) != ERR_OK ||
        value > UINT32_MAX)
        fail("a number was expected");
    return (uint32_t)value;
}

static struct flow_address address_of(const char *text, size_t size)
{
    struct flow_address address;

    if (flow_address_parse_ip(span_of(text, (uint32_t)size), &address) != ERR_OK)
        fail("an address was expected");
    return address;
}

/* IP:PORT or [IP]:PORT */
static struct flow_address endpoint_of(const char *text)
{
    const char *colon = text == NULL ? NULL : strrchr(text, ':');
    struct flow_address address;

    if (colon == NULL)
        fail("an address and port were expected");
    address = text[0] == '[' ? address_of(text + 1, (size_t)(colon - text) - 2)
                             : address_of(text, (size_t)(colon - text));
    address.port = (uint16_t)number_of(colon + 1);
    return address;
}

/* ---- commands ---- */

static void command_ask(struct peer *peer, char **words)
{
    struct talk_order order = {.address_count = 1};
    char *target = strsep(words, " ");
    char *plus = target == NULL ? NULL : strchr(target, '+');
    char *request;

    if (plus != NULL) {
        *plus = '\0';
        order.address_count = number_of(plus + 1);
    }
    order.address = endpoint_of(target);
    order.count = number_of(strsep(words, " "));
    order.at_a_time = number_of(strsep(words, " "));
    while ((request = strsep(words, ";")) != NULL) {
        if (order.request_count == TALK_REQUEST_MAX || strlen(request) >= TALK_LINE_SIZE)
            fail("too many requests, or too long");
        (void)snprintf(order.requests[order.request_count++], TALK_LINE_SIZE, "%s", request);
    }
    if (talk_ask(peer->talk, &order) != ERR_OK)
        fail("impossible to ask");
}

static void command_counters(struct peer *peer)
{
    struct dataplane_counter *counters = calloc(DATAPLANE_COUNTERS_MAX, sizeof(*counters));

    CHECK(counters != NULL);
    uint32_t count = dataplane_counters(peer->plane, counters, DATAPLANE_COUNTERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        if (counters[i].value > 0)
            (void)printf("counter %llu %s %s\n", (unsigned long long)counters[i].value,
                         counters[i].port[0] == '\0' ? "-" : counters[i].port, counters[i].name);
    }
    (void)puts("end");
    free(counters);
}

static void command_flows(struct peer *peer)
{
    struct dataplane_flow flow;
    uint64_t cursor = 0;

    while (dataplane_flows(peer->plane, &cursor, &flow, 1) == 1) {
        char local[FLOW_ADDRESS_TEXT_MAX], remote[FLOW_ADDRESS_TEXT_MAX];
        (void)printf("flow %s %u %u %u %s %s\n", flow.state, flow.mss, flow.rtt_us,
                     flow.retransmitted, flow_address_format(&flow.local, local),
                     flow_address_format(&flow.remote, remote));
    }
    (void)puts("end");
}

static void command_do(struct peer *peer, char *line)
{
    char *words = line;
    const char *verb = strsep(&words, " ");

    if (verb != NULL && strcmp(verb, "serve") == 0) {
        struct flow_address address = endpoint_of(strsep(&words, " "));
        if (talk_serve(peer->talk, &address) != ERR_OK)
            fail("cannot listen");
        (void)puts("serving");
    } else if (verb != NULL && strcmp(verb, "ask") == 0) {
        command_ask(peer, &words);
    } else if (verb != NULL && strcmp(verb, "counters") == 0) {
        command_counters(peer);
    } else if (verb != NULL && strcmp(verb, "flows") == 0) {
        command_flows(peer);
    } else {
        fail("no such command");
    }
}

static void commands_read(struct peer *peer)
{
    char *end;
    ssize_t size =
        read(STDIN_FILENO, peer->command + peer->command_size, COMMAND_SIZE - peer->command_size);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        peer->is_over = true;
        return;
    }
    peer->command_size += (uint32_t)size;
    while ((end = memchr(peer->command, '\n', peer->command_size)) != NULL) {
        uint32_t length = (uint32_t)(end - peer->command) + 1;
        *end = '\0';
        command_do(peer, peer->command);
        peer->command_size -= length;
        memmove(peer->command, peer->command + length, peer->command_size);
    }
    (void)fflush(stdout);
}

static void turn(struct peer *peer)
{
    const struct tick_source *clock = tick_source_system();
    struct talk_result result;

    commands_read(peer);
    talk_turn(peer->talk, clock->monotonic(clock->context));
    if (talk_is_answered(peer->talk, &result)) {
        (void)printf("good %u bad %u\n", result.good, result.bad);
        (void)fflush(stdout);
    }
}

/* ---- start ---- */

static void address_add(struct setup *setup, const char *value)
{
    const char *slash = strchr(value, '/');

    if (slash == NULL || setup->port.address_count == DATAPLANE_ADDRESS_MAX)
        fail("IP/BITS was expected");
    setup->addresses[setup->port.address_count++] = (struct flow_prefix){
        address_of(value, (size_t)(slash - value)), (uint8_t)number_of(slash + 1)};
}

static void gateway_set(struct setup *setup, const char *value)
{
    struct flow_address gateway = address_of(value, strlen(value));

    if (gateway.family == FLOW_FAMILY_IP4)
        setup->port.gateway4 = gateway;
    else
        setup->port.gateway6 = gateway;
}

static void option_apply(struct setup *setup, int letter, const char *value)
{
    switch (letter) {
    case 'D':
        setup->port.device = value;
        break;
    case 'A':
        address_add(setup, value);
        break;
    case 'G':
        gateway_set(setup, value);
        break;
    case 'm':
        setup->port.mtu = (uint16_t)number_of(value);
        break;
    case 'V':
        setup->port.vlan = (uint16_t)number_of(value);
        break;
    case 'E':
        setup->port.exception = value;
        break;
    case 'K':
        if (flow_prefix_parse(span_from_text(value), &setup->kernel) != ERR_OK)
            fail("a prefix was expected");
        setup->options.kernel = &setup->kernel;
        setup->options.kernel_count = 1;
        break;
    default:
        fail("wrong usage, see the head of its source");
    }
}

static struct flow_plane *plane_new(struct setup *setup, struct dataplane **ret_dataplane)
{
    char why[DATAPLANE_WHY_SIZE] = "";
    struct flow_plane *plane = NULL;

    setup->port.addresses = setup->addresses;
    if (setup->port.device != NULL) {
        setup->options.driver = DATAPLANE_DPDK;
        setup->options.ports = &setup->port;
        setup->options.port_count = 1;
    }
    if (dataplane_new(&setup->options, ret_dataplane, why) != ERR_OK ||
        dataplane_core_new(*ret_dataplane, 0, 1, &plane, why) != ERR_OK)
        fail(why);
    dataplane_thread_begin(*ret_dataplane);
    return plane;
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct setup setup = {.options = {.core_count = 1,
                                      .flow_count_max = 2 * TALK_COUNT_MAX,
                                      .buffer_size = 8192,
                                      .buffer_memory = MEMORY,
                                      .memory = MEMORY},
                          .port = {.mtu = 1500}};
    struct dataplane *dataplane = NULL;
    struct peer peer = {0};
    int letter;

    while ((letter = getopt(count, words, "D:A:G:m:V:E:K:")) != -1)
        option_apply(&setup, letter, optarg);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    peer.plane = plane_new(&setup, &dataplane);
    peer.talk = talk_new(peer.plane);
    (void)puts("ready");
    (void)fflush(stdout);
    while (!is_stopping && !peer.is_over)
        turn(&peer);
    talk_free(peer.talk);
    dataplane_thread_end(dataplane);
    dataplane_core_free(dataplane, 0);
    dataplane_free(dataplane);
    return 0;
}
