/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversations of wire_talk.h over lwIP as Debian ships it: a TCP without SACK and without
 * timestamps, small windows, its own idea of everything. It stands on a TAP interface.
 *
 * usage: lwip_peer TAP IP4 IP6 serve PORT
 *        lwip_peer TAP IP4 IP6 ask ADDRESS PORT COUNT REQUEST...    one after the other; "good N
 * bad N"
 *
 * The networks are IP4/24 and IP6/64. "ready" is printed when it is on the wire. Each conversation
 * is a thread with blocking calls, as lwIP's users write them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>

#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <lwip/ethip6.h>
#include <lwip/netif.h>
#include <lwip/sockets.h>
#include <lwip/tcpip.h>
#include <netif/etharp.h>

#define CHUNK      8192u
#define LINE_SIZE  64u
#define FRAME_SIZE 1518u
#define PATIENCE_S 60

struct wire {
    struct netif netif;
    int fd;
};

__attribute__((noreturn)) static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint8_t pattern(uint64_t position)
{
    return (uint8_t)(position * 7 + (position >> 8) * 13 + (position >> 16) * 31);
}

/* ---- the wire ---- */

static err_t frame_send(struct netif *netif, struct pbuf *frame)
{
    const struct wire *wire = netif->state;
    uint8_t octets[FRAME_SIZE];
    uint16_t size = pbuf_copy_partial(frame, octets, sizeof(octets), 0);

    return write(wire->fd, octets, size) == size ? ERR_OK : ERR_IF;
}

static err_t wire_start(struct netif *netif)
{
    static const uint8_t address[6] = {0x02, 0x6c, 0x77, 0x69, 0x70, 0x01};

    netif->name[0] = 't';
    netif->name[1] = 'p';
    netif->output = etharp_output;
    netif->output_ip6 = ethip6_output;
    netif->linkoutput = frame_send;
    netif->mtu = 1500;
    netif->hwaddr_len = sizeof(address);
    memcpy(netif->hwaddr, address, sizeof(address));
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
                   NETIF_FLAG_LINK_UP | NETIF_FLAG_MLD6;
    return ERR_OK;
}

static void *wire_read(void *context)
{
    struct wire *wire = context;
    uint8_t octets[FRAME_SIZE];
    ssize_t size;

    while ((size = read(wire->fd, octets, sizeof(octets))) > 0) {
        struct pbuf *frame = pbuf_alloc(PBUF_RAW, (uint16_t)size, PBUF_RAM);
        if (frame == NULL)
            continue;
        pbuf_take(frame, octets, (uint16_t)size);
        if (wire->netif.input(frame, &wire->netif) != ERR_OK)
            pbuf_free(frame);
    }
    return NULL;
}

static void wire_open(struct wire *wire, const char *tap, const char *ip4, const char *ip6)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    ip4_addr_t address, mask, gateway = {0};
    ip6_addr_t address6;
    pthread_t reader;
    int8_t index = 1;

    wire->fd = open("/dev/net/tun", O_RDWR);
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", tap);
    if (wire->fd < 0 || ioctl(wire->fd, TUNSETIFF, &request) < 0)
        fail(tap);
    IP4_ADDR(&mask, 255, 255, 255, 0);
    if (!ip4addr_aton(ip4, &address) || !ip6addr_aton(ip6, &address6))
        fail("addresses");
    tcpip_init(NULL, NULL);
    LOCK_TCPIP_CORE();
    netif_add(&wire->netif, &address, &mask, &gateway, wire, wire_start, tcpip_input);
    netif_set_default(&wire->netif);
    netif_create_ip6_linklocal_address(&wire->netif, 1);
    netif_add_ip6_address(&wire->netif, &address6, &index);
    netif_ip6_addr_set_state(&wire->netif, 0, IP6_ADDR_PREFERRED);
    netif_ip6_addr_set_state(&wire->netif, index, IP6_ADDR_PREFERRED);
    netif_set_up(&wire->netif);
    UNLOCK_TCPIP_CORE();
    if (pthread_create(&reader, NULL, wire_read, wire) != 0)
        fail("thread");
}

/* ---- octets ---- */

static bool all_send(int flow, const void *octets, size_t size)
{
    const uint8_t *place = octets;

    while (size > 0) {
        ssize_t sent = lwip_send(flow, place, size, 0);
        if (sent <= 0)
            return false;
        place += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool pattern_send(int flow, uint64_t from, uint64_t until)
{
    uint8_t octets[CHUNK];

    while (from < until) {
        uint64_t left = until - from;
        uint32_t size = left < CHUNK ? (uint32_t)left : CHUNK;
        for (uint32_t i = 0; i < size; i++)
            octets[i] = pattern(from + i);
        if (!all_send(flow, octets, size))
            return false;
        from += size;
    }
    return true;
}

/* Up to the peer's FIN, but no more than `size`; what comes is sent back if `is_echo`. */
static bool pattern_receive(int flow, uint64_t size, bool is_echo)
{
    uint8_t octets[CHUNK];
    uint64_t got = 0;

    while (got < size) {
        ssize_t part = lwip_recv(flow, octets, size - got < CHUNK ? size - got : CHUNK, 0);
        if (part <= 0)
            return false;
        for (ssize_t i = 0; i < part; i++) {
            if (octets[i] != pattern(got + (uint64_t)i))
                return false;
        }
        if (is_echo && !all_send(flow, octets, (size_t)part))
            return false;
        got += (uint64_t)part;
    }
    return true;
}

static bool is_at_end(int flow)
{
    char octet;

    return lwip_recv(flow, &octet, 1, 0) == 0;
}

/* ---- serving ---- */

/* The end of RESET's line stays unread: lwIP resets a connection that is closed then, and has no
 * other way to. */
static bool line_receive(int flow, char line[LINE_SIZE])
{
    for (uint32_t i = 0; i < LINE_SIZE; i++) {
        if (lwip_recv(flow, line + i, 1, 0) != 1)
            return false;
        if (line[i] == '\n') {
            line[i] = '\0';
            return true;
        }
        if (i == 4 && memcmp(line, "RESET", 5) == 0) {
            line[5] = '\0';
            return true;
        }
    }
    return false;
}

static bool answer_sink(int flow, uint64_t size)
{
    char text[LINE_SIZE];

    if (!pattern_receive(flow, size, false))
        return false;
    int length = snprintf(text, sizeof(text), "OK %llu\n", (unsigned long long)size);
    return all_send(flow, text, (size_t)length);
}

static bool answer(int flow, const char *line)
{
    unsigned long long size = 0, time = 0;

    if (sscanf(line, "ECHO %llu", &size) == 1)
        return pattern_receive(flow, size, true) && is_at_end(flow) &&
               lwip_shutdown(flow, SHUT_WR) == 0;
    if (sscanf(line, "STALL %llu %llu", &time, &size) == 2)
        (void)usleep((useconds_t)time * 1000);
    else if (sscanf(line, "SINK %llu", &size) != 1 && sscanf(line, "SOURCE %llu", &size) != 1)
        return false;
    bool is_good = line[1] == 'O' ? pattern_send(flow, 0, size) : answer_sink(flow, size);
    return is_good && lwip_shutdown(flow, SHUT_WR) == 0 && is_at_end(flow);
}

static void *serve_one(void *context)
{
    int flow = (int)(intptr_t)context;
    char line[LINE_SIZE];

    if (line_receive(flow, line) && strcmp(line, "RESET") != 0 && !answer(flow, line))
        (void)fprintf(stderr, "lwip_peer: served \"%s\": wrong or missing octets\n", line);
    (void)lwip_close(flow);
    return NULL;
}

static void serve(uint16_t port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int listener = lwip_socket(AF_INET6, SOCK_STREAM, 0);

    if (listener < 0 || lwip_bind(listener, (struct sockaddr *)&any, sizeof(any)) != 0 ||
        lwip_listen(listener, 64) != 0)
        fail("listen");
    for (;;) {
        int flow = lwip_accept(listener, NULL, NULL);
        pthread_t thread;
        if (flow < 0 || pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)flow) != 0)
            continue;
        pthread_detach(thread);
    }
}

/* ---- asking ---- */

static int connect_to(const char *text, uint16_t port, uint16_t from)
{
    struct sockaddr_in ip4 = {.sin_family = AF_INET}, local4 = ip4;
    struct sockaddr_in6 ip6 = {.sin6_family = AF_INET6}, local6 = ip6;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    bool is_ip4 = inet_pton(AF_INET, text, &ip4.sin_addr) == 1;
    socklen_t size = is_ip4 ? sizeof(ip4) : sizeof(ip6);

    if (!is_ip4 && inet_pton(AF_INET6, text, &ip6.sin6_addr) != 1)
        fail("address");
    ip4.sin_port = ip6.sin6_port = htons(port);
    local4.sin_port = local6.sin6_port = htons(from);
    int flow = lwip_socket(is_ip4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    if (flow < 0)
        return -1;
    (void)lwip_setsockopt(flow, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (lwip_bind(flow, is_ip4 ? (struct sockaddr *)&local4 : (struct sockaddr *)&local6, size) ==
            0 &&
        lwip_connect(flow, is_ip4 ? (struct sockaddr *)&ip4 : (struct sockaddr *)&ip6, size) == 0)
        return flow;
    (void)lwip_close(flow);
    return -1;
}

struct sender {
    int flow;
    uint64_t size;
    bool is_good;
};

static void *echo_send(void *context)
{
    struct sender *sender = context;

    sender->is_good =
        pattern_send(sender->flow, 0, sender->size) && lwip_shutdown(sender->flow, SHUT_WR) == 0;
    return NULL;
}

static bool ask_echo(int flow, uint64_t size)
{
    struct sender sender = {.flow = flow, .size = size};
    pthread_t thread;

    if (pthread_create(&thread, NULL, echo_send, &sender) != 0)
        fail("thread");
    bool is_good = pattern_receive(flow, size, false) && is_at_end(flow);
    pthread_join(thread, NULL);
    return is_good && sender.is_good;
}

static bool ask(int flow, const char *request)
{
    unsigned long long size = 0, time = 0;
    char line[LINE_SIZE], expected[LINE_SIZE];

    int length = snprintf(line, sizeof(line), "%s\n", request);
    if (!all_send(flow, line, (size_t)length))
        return false;
    if (strcmp(request, "RESET") == 0)
        return lwip_recv(flow, line, 1, 0) < 0 && errno == ECONNRESET;
    if (sscanf(request, "SOURCE %llu", &size) == 1)
        return pattern_receive(flow, size, false) && is_at_end(flow);
    if (sscanf(request, "ECHO %llu", &size) == 1)
        return ask_echo(flow, size);
    if (sscanf(request, "STALL %llu %llu", &time, &size) != 2 &&
        sscanf(request, "SINK %llu", &size) != 1)
        return false;
    (void)snprintf(expected, sizeof(expected), "OK %llu", size);
    return pattern_send(flow, 0, size) && line_receive(flow, line) && strcmp(line, expected) == 0 &&
           is_at_end(flow);
}

static int ask_all(char **words, int count)
{
    uint16_t port = (uint16_t)strtoul(words[1], NULL, 10);
    uint16_t from = (uint16_t)strtoul(words[2], NULL, 10);
    int good = 0, wanted = count - 3;

    for (int i = 0; i < wanted; i++) {
        int flow = connect_to(words[0], port, (uint16_t)(from + i));
        bool is_good = flow >= 0 && ask(flow, words[3 + i]);
        good += is_good ? 1 : 0;
        if (!is_good)
            (void)fprintf(stderr, "lwip_peer: asked \"%s\": failed\n", words[3 + i]);
        if (flow >= 0)
            (void)lwip_close(flow);
    }
    (void)printf("good %d bad %d\n", good, wanted - good);
    (void)fflush(stdout);
    return good == wanted ? 0 : 1;
}

int main(int count, char **words)
{
    static struct wire wire;

    if (count < 6 || (strcmp(words[4], "ask") == 0 && count < 9)) {
        (void)fputs("lwip_peer: wrong usage, see the head of its source\n", stderr);
        return 2;
    }
    wire_open(&wire, words[1], words[2], words[3]);
    (void)puts("ready");
    (void)fflush(stdout);
    if (strcmp(words[4], "ask") == 0)
        return ask_all(words + 5, count - 5);
    serve((uint16_t)strtoul(words[5], NULL, 10));
}
