/* SPDX-License-Identifier: Apache-2.0 */
/* Captures: what is written is read back by libpcap itself; bounds, drops, order, filters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pcap/pcap.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "dataplane/wire/format/packet.h"
#include "dataplane/wire/port/capture.h"

#define WALL        1700000000123456
#define TICK        5000000u
#define HEADERS     (ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + TCP_HEADER_SIZE)
#define FILE_HEADER 24u
#define PER_FRAME   16u

static char folder[] = "/tmp/test_capture.XXXXXX";
static char path[64];
static struct buf_pool *pool;

static struct capture_options usual(void)
{
    return (struct capture_options){
        .path = path,
        .filter = "",
        .frames_max = 1000000,
        .size_max = 1u << 30,
        .port = CAPTURE_EVERY_PORT,
        .source_count = 1,
        .now = {.tick = TICK, .wall = WALL},
    };
}

static struct capture *open_usual(const struct capture_options *options)
{
    struct capture *capture = NULL;
    char error[CAPTURE_ERROR_SIZE];

    unlink(path);
    if (capture_new(options, &capture, error) != ERR_OK)
        fail_msg("%s", error);
    return capture;
}

/* A TCP segment from port 25 to `port`, `size` octets in all, over buffers of at most `part`. */
static struct buf *frame_new(uint16_t port, uint32_t size, uint32_t part)
{
    uint8_t octets[CAPTURE_SNAP_MAX + 1u] = {0};
    struct ethernet_header ethernet = {.type = ETHERTYPE_IP4};
    struct ip_header ip = {.family = 4, .protocol = IP_PROTOCOL_TCP, .ttl = 64};
    struct buf *head = NULL, *last = NULL;

    ip.payload_size = (uint16_t)(size - ETHERNET_HEADER_SIZE - IP4_HEADER_SIZE);
    memcpy(ip.source, "\x0a\x00\x00\x01", 4);
    memcpy(ip.destination, "\x0a\x00\x00\x02", 4);
    ethernet_build(&ethernet, octets);
    ip4_build(&ip, true, octets + ETHERNET_HEADER_SIZE);
    store_be16(octets + ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE, 25);
    store_be16(octets + ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + 2, port);
    octets[ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + 12] = 0x50;
    for (uint32_t i = HEADERS; i < size; i++)
        octets[i] = (uint8_t)(port + i);
    for (uint32_t at = 0; at < size;) {
        struct buf *buf = buf_acquire(pool);
        uint32_t here = size - at < part ? size - at : part;

        buf_extend(buf, here);
        memcpy(buf_data(buf), octets + at, here);
        at += here;
        if (head == NULL)
            head = buf;
        else
            last->mbuf.next = &buf->mbuf;
        last = buf;
    }
    head->mbuf.pkt_len = size;
    return head;
}

static void tap(struct capture *capture, uint32_t source, struct buf *frame, tick_us now)
{
    capture_tap(capture_source(capture, source), 0, true, frame, now);
    buf_release_chain(frame);
}

/* ---- reading back ---- */

struct reader {
    pcap_t *file;
    struct pcap_pkthdr *header;
    const uint8_t *octets;
};

static void reader_open(struct reader *reader)
{
    char error[PCAP_ERRBUF_SIZE];

    reader->file = pcap_open_offline(path, error);
    if (reader->file == NULL)
        fail_msg("%s", error);
}

static bool reader_next(struct reader *reader)
{
    int result = pcap_next_ex(reader->file, &reader->header, &reader->octets);

    assert_true(result == 1 || result == PCAP_ERROR_BREAK);
    return result == 1;
}

static uint16_t port_of(const struct reader *reader)
{
    return load_be16(reader->octets + ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + 2);
}

static uint64_t wall_of(const struct reader *reader)
{
    return (uint64_t)reader->header->ts.tv_sec * 1000000 + (uint64_t)reader->header->ts.tv_usec;
}

static uint64_t file_size(void)
{
    struct stat status;

    assert_int_equal(0, stat(path, &status));
    assert_int_equal(0600, status.st_mode & 0777);
    return (uint64_t)status.st_size;
}

/* ---- tests ---- */

static void test_frames_are_kept(void **state)
{
    struct capture_options options = usual();
    struct capture *capture = open_usual(&options);
    struct reader reader;
    (void)state;

    tap(capture, 0, frame_new(1, HEADERS, 4000), TICK);
    tap(capture, 0, frame_new(2, 1514, 4000), TICK + 1);
    tap(capture, 0, frame_new(3, 1514, 100), TICK + 1000000);
    assert_true(capture_drain(capture));
    struct capture_stats stats = capture_free(capture);
    assert_int_equal(3, stats.written);
    assert_int_equal(0, stats.dropped);
    assert_int_equal(ERR_OK, stats.err);
    assert_int_equal(stats.size, file_size());
    assert_int_equal(0, buf_pool_in_use(pool));

    reader_open(&reader);
    assert_int_equal(DLT_EN10MB, pcap_datalink(reader.file));
    for (uint16_t i = 1; i <= 3; i++) {
        assert_true(reader_next(&reader));
        assert_int_equal(i, port_of(&reader));
        assert_int_equal(i == 1 ? HEADERS : 1514, reader.header->len);
        assert_int_equal(reader.header->len, reader.header->caplen);
        assert_int_equal(WALL + (i == 1 ? 0 : i == 2 ? 1 : 1000000), wall_of(&reader));
        for (uint32_t k = HEADERS; k < reader.header->len; k++)
            assert_int_equal((uint8_t)(i + k), reader.octets[k]);
    }
    assert_false(reader_next(&reader));
    pcap_close(reader.file);
}

/* The filter, and whether a segment from 10.0.0.1 port 25 to 10.0.0.2 port 4000 matches it. */
struct filter_row {
    const char *filter;
    bool is_match;
};
static const struct filter_row filter_rows[] = {
    {"", true},
    {"  ", true},
    {"tcp", true},
    {"udp", false},
    {"ip6", false},
    {"tcp port 25", true},
    {"tcp dst port 25", false},
    {"dst port 4000 and src host 10.0.0.1", true},
    {"net 10.0.0.0/8 and not port 26", true},
    {"host 10.0.0.3", false},
    {"less 60", false},
    {"greater 200", true},
    {"tcp[20] = 0xd6", true}, /* the first octet of payload */
    {"tcp[20] = 0xd7", false},
    {"ether[199] = 0x67", true},  /* the last octet */
    {"ether[200] = 0x68", false}, /* beyond */
};

static void test_filters(void **state)
{
    static const uint32_t parts[] = {4000, HEADERS, 60};
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(filter_rows); i++)
        for (uint32_t k = 0; k < COUNT_OF(parts); k++) {
            struct capture_options options = usual();

            options.filter = filter_rows[i].filter;
            struct capture *capture = open_usual(&options);
            tap(capture, 0, frame_new(4000, 200, parts[k]), TICK);
            if (capture_free(capture).written != filter_rows[i].is_match)
                fail_msg("\"%s\", buffers of %u", filter_rows[i].filter, parts[k]);
        }
}

static void test_filters_that_do_not_compile(void **state)
{
    static const char *const filters[] = {"tcp port", "nonsense 25", "host 1.2.3.4.5", "(tcp",
                                          "port 70000"};
    (void)state;

    unlink(path);
    for (uint32_t i = 0; i < COUNT_OF(filters); i++) {
        struct capture_options options = usual();
        struct capture *capture = NULL;
        char error[CAPTURE_ERROR_SIZE];

        options.filter = filters[i];
        assert_int_equal(ERR_CONFIG_SYNTAX, capture_new(&options, &capture, error));
        assert_true(strlen(error) > 0);
        assert_null(capture);
        assert_int_not_equal(0, access(path, F_OK));
    }
}

static void test_without_ethernet(void **state)
{
    struct capture_options options = usual();
    struct reader reader;
    (void)state;

    options.is_l3 = true;
    options.filter = "tcp port 25";
    struct capture *capture = open_usual(&options);
    struct buf *frame = frame_new(1, 100, 4000);
    frame->mbuf.data_off = (uint16_t)(frame->mbuf.data_off + ETHERNET_HEADER_SIZE);
    frame->mbuf.data_len = (uint16_t)(frame->mbuf.data_len - ETHERNET_HEADER_SIZE);
    tap(capture, 0, frame, TICK);
    assert_int_equal(1, capture_free(capture).written);
    reader_open(&reader);
    assert_int_equal(DLT_RAW, pcap_datalink(reader.file));
    assert_true(reader_next(&reader));
    assert_int_equal(100 - ETHERNET_HEADER_SIZE, reader.header->len);
    pcap_close(reader.file);
}

static void test_snap(void **state)
{
    struct capture_options options = usual();
    struct reader reader;
    (void)state;

    options.snap_size = 68;
    struct capture *capture = open_usual(&options);
    tap(capture, 0, frame_new(1, 67, 4000), TICK);
    tap(capture, 0, frame_new(2, 68, 4000), TICK);
    tap(capture, 0, frame_new(3, 69, 4000), TICK);
    tap(capture, 0, frame_new(4, 1514, 50), TICK);
    assert_int_equal(4, capture_free(capture).written);
    reader_open(&reader);
    assert_int_equal(68, pcap_snapshot(reader.file));
    for (uint32_t i = 0; i < 4; i++) {
        static const uint32_t sizes[] = {67, 68, 69, 1514};

        assert_true(reader_next(&reader));
        assert_int_equal(sizes[i], reader.header->len);
        assert_int_equal(sizes[i] < 68 ? sizes[i] : 68, reader.header->caplen);
    }
    pcap_close(reader.file);
}

static void test_longest_frame(void **state)
{
    struct capture_options options = usual();
    struct capture *capture = open_usual(&options);
    struct reader reader;
    (void)state;

    for (uint32_t i = 0; i < 40; i++) {
        tap(capture, 0, frame_new(1, CAPTURE_SNAP_MAX + i % 2, 4000), TICK);
        assert_true(capture_drain(capture));
    }
    assert_int_equal(40, capture_free(capture).written);
    reader_open(&reader);
    for (uint32_t i = 0; i < 40; i++) {
        assert_true(reader_next(&reader));
        assert_int_equal(CAPTURE_SNAP_MAX, reader.header->caplen);
        assert_int_equal(CAPTURE_SNAP_MAX + i % 2, reader.header->len);
    }
    assert_false(reader_next(&reader));
    pcap_close(reader.file);
}

static void test_number_is_bounded(void **state)
{
    struct capture_options options = usual();
    (void)state;

    options.frames_max = 3;
    struct capture *capture = open_usual(&options);
    for (uint32_t i = 0; i < 3; i++)
        tap(capture, 0, frame_new(1, 100, 4000), TICK);
    assert_true(capture_drain(capture));
    tap(capture, 0, frame_new(1, 100, 4000), TICK);
    assert_false(capture_drain(capture));
    assert_int_equal(ERR_LIMIT, capture_get_stats(capture).err);
    tap(capture, 0, frame_new(1, 100, 4000), TICK);
    assert_false(capture_drain(capture));
    assert_int_equal(3, capture_free(capture).written);
}

static void test_size_is_bounded(void **state)
{
    const uint32_t frame = 4096 - FILE_HEADER - 2 * PER_FRAME - 100;
    (void)state;

    for (uint32_t extra = 0; extra <= 1; extra++) {
        struct capture_options options = usual();

        options.size_max = 4096;
        struct capture *capture = open_usual(&options);
        tap(capture, 0, frame_new(1, 100, 4000), TICK);
        tap(capture, 0, frame_new(1, frame + extra, 2000), TICK);
        assert_int_equal(extra == 0, capture_drain(capture));
        struct capture_stats stats = capture_free(capture);
        assert_int_equal(extra == 0 ? ERR_OK : ERR_LIMIT, stats.err);
        assert_int_equal(extra == 0 ? 2 : 1, stats.written);
        assert_int_equal(stats.size, file_size());
        assert_true(file_size() <= 4096);
    }
}

/* A shard never waits: what does not fit is counted, and only if the filter wants it. */
static void test_full_ring(void **state)
{
    struct capture_options options = usual();
    (void)state;

    options.filter = "tcp port 1";
    struct capture *capture = open_usual(&options);
    for (uint32_t i = 0; i < 2000; i++)
        tap(capture, 0, frame_new(1, 1000, 4000), TICK);
    struct capture_stats stats = capture_get_stats(capture);
    assert_true(stats.dropped > 900 && stats.dropped < 1100);
    tap(capture, 0, frame_new(2, 1000, 4000), TICK);
    tap(capture, 0, frame_new(2, 1000, 100), TICK);
    assert_int_equal(stats.dropped, capture_get_stats(capture).dropped);
    tap(capture, 0, frame_new(1, 1000, 100), TICK);
    assert_int_equal(stats.dropped + 1, capture_get_stats(capture).dropped);
    assert_true(capture_drain(capture));
    tap(capture, 0, frame_new(1, 1000, 4000), TICK);
    stats = capture_free(capture);
    assert_int_equal(2002, stats.written + stats.dropped);
}

static void test_other_ports_are_left_out(void **state)
{
    struct capture_options options = usual();
    struct buf *frame = frame_new(1, 100, 4000);
    (void)state;

    options.port = 2;
    struct capture *capture = open_usual(&options);
    for (uint32_t port = 0; port < 4; port++)
        capture_tap(capture_source(capture, 0), port, false, frame, TICK);
    buf_release(frame);
    assert_int_equal(1, capture_free(capture).written);
}

static void test_sources_are_in_order_of_time(void **state)
{
    struct capture_options options = usual();
    struct reader reader;
    (void)state;

    options.source_count = 3;
    struct capture *capture = open_usual(&options);
    for (uint32_t i = 0; i < 300; i++)
        tap(capture, i * 7 % 3, frame_new((uint16_t)i, 100, 4000), TICK + i);
    assert_int_equal(300, capture_free(capture).written);
    reader_open(&reader);
    for (uint32_t i = 0; i < 300; i++) {
        assert_true(reader_next(&reader));
        assert_int_equal(i, port_of(&reader));
    }
    pcap_close(reader.file);
}

static void test_files_that_cannot_be(void **state)
{
    struct capture_options options = usual();
    struct capture *capture = NULL;
    char error[CAPTURE_ERROR_SIZE];
    (void)state;

    /* What is there is not overwritten, nor what a link points to. */
    capture = open_usual(&options);
    (void)capture_free(capture);
    assert_int_equal(ERR_DISK_IO, capture_new(&options, &capture, error));
    assert_non_null(strstr(error, path));
    unlink(path);
    assert_int_equal(0, symlink("/dev/null", path));
    assert_int_equal(ERR_DISK_IO, capture_new(&options, &capture, error));
    unlink(path);
    options.path = "/nonesuch/file";
    assert_int_equal(ERR_DISK_IO, capture_new(&options, &capture, error));
    assert_non_null(strstr(error, "/nonesuch/file"));
}

/* ---- streams ---- */

static struct capture *open_stream(struct capture_options *options, int *ret_reader)
{
    struct capture *capture = NULL;
    char error[CAPTURE_ERROR_SIZE];
    int ends[2];

    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    options->path = NULL;
    options->stream = ends[1];
    assert_int_equal(ERR_OK, capture_new(options, &capture, error));
    *ret_reader = ends[0];
    return capture;
}

/* What is there to be read, into the file. */
static uint64_t stream_take(int reader, int file, size_t max)
{
    static uint8_t octets[65536];
    uint64_t taken = 0;
    ssize_t got = 1;

    while (taken < max && got > 0) {
        size_t size = max - taken < sizeof(octets) ? max - taken : sizeof(octets);
        got = recv(reader, octets, size, MSG_DONTWAIT);
        if (got > 0)
            assert_int_equal(got, write(file, octets, (size_t)got));
        taken += got > 0 ? (uint64_t)got : 0;
    }
    return taken;
}

/* Goal: a reader who is behind holds up nobody, and reads whole frames in the end, all that were
 * counted; what found no room is counted, too. */
static void test_slow_reader(void **state)
{
    struct capture_options options = usual();
    struct reader reader;
    int stream, file = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    struct capture *capture = open_stream(&options, &stream);
    uint64_t count = 0;
    uint32_t late = 0;
    (void)state;

    for (uint32_t i = 0; i < 3000; i++) {
        tap(capture, 0, frame_new(1, 1000, 4000), TICK + i);
        if (i % 100 == 0) {
            assert_true(capture_drain(capture));
            (void)stream_take(stream, file, 1000); /* also within a frame */
        }
    }
    capture_stop(capture);
    while (capture_drain(capture)) {
        (void)stream_take(stream, file, 50000);
        assert_true(++late < 1000);
    }
    struct capture_stats stats = capture_free(capture);
    while (stream_take(stream, file, SIZE_MAX) > 0)
        ;
    assert_int_equal(3000, stats.written + stats.dropped);
    assert_true(stats.dropped > 0 && stats.written > 1000 && stats.err == ERR_LIMIT);
    close(stream);
    close(file);
    assert_int_equal(stats.size, file_size());
    reader_open(&reader);
    while (reader_next(&reader))
        count++;
    assert_int_equal(stats.written, count);
    pcap_close(reader.file);
}

/* Goal: a bound ends a stream, but not before what was taken is read. */
static void test_stream_is_bounded(void **state)
{
    struct capture_options options = usual();
    int stream;
    options.frames_max = 400;
    struct capture *capture = open_stream(&options, &stream);
    int file = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    (void)state;

    for (uint32_t i = 0; i < 500; i++)
        tap(capture, 0, frame_new(1, 1000, 4000), TICK);
    assert_true(capture_drain(capture)); /* the socket has no room for all */
    for (uint32_t i = 0; i < 100 && capture_drain(capture); i++)
        (void)stream_take(stream, file, SIZE_MAX);
    assert_false(capture_drain(capture));
    assert_int_equal(400, capture_free(capture).written);
    close(stream);
    close(file);
}

/* Goal: who leaves ends it, also when nothing comes. */
static void test_reader_leaves(void **state)
{
    struct capture_options options = usual();
    int stream;
    struct capture *capture = open_stream(&options, &stream);
    (void)state;

    assert_true(capture_drain(capture));
    close(stream);
    assert_false(capture_drain(capture));
    assert_int_equal(ERR_DISK_IO, capture_free(capture).err);
}

static void test_full_disk_ends_it(void **state)
{
    struct capture_options options = usual();
    struct capture *capture = open_usual(&options);
    struct rlimit before, small;
    (void)state;

    for (uint32_t i = 0; i < 100; i++)
        tap(capture, 0, frame_new(1, 1000, 4000), TICK);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(0, getrlimit(RLIMIT_FSIZE, &before));
    small = before;
    small.rlim_cur = 50000;
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &small));
    bool goes_on = capture_drain(capture);
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &before));
    assert_false(goes_on);
    assert_false(capture_drain(capture));
    assert_int_equal(ERR_DISK_IO, capture_free(capture).err);
}

/* ---- a shard and the control thread at the same time ---- */

#define RACE_FRAMES 60000u

static void *shard(void *context)
{
    struct capture *capture = context;
    struct buf_pool *own = buf_pool_new(
        &(struct buf_pool_options){.data_size = 4000, .count_max = 1, .backing = BUF_BACKING_SLAB});
    struct buf *frame = buf_acquire(own);
    struct rng rng;

    rng_init_seed(&rng, 5);
    memset(buf_data(frame), 0, 4000);
    for (uint32_t i = 0; i < RACE_FRAMES; i++) {
        uint32_t size = 14 + rng_below(&rng, 1500);

        frame->mbuf.data_len = (uint16_t)size;
        memset(buf_data(frame), (int)(i & 255), size);
        memcpy(buf_data(frame), &i, 4);
        capture_tap(capture_source(capture, 0), 0, true, frame, TICK + i);
    }
    buf_release(frame);
    buf_pool_free(own);
    return NULL;
}

static void test_race(void **state)
{
    struct capture_options options = usual();
    struct capture *capture = open_usual(&options);
    struct reader reader;
    pthread_t thread;
    uint64_t count = 0;
    uint32_t last = 0;
    (void)state;

    assert_int_equal(0, pthread_create(&thread, NULL, shard, capture));
    for (uint32_t i = 0; i < 200; i++) {
        assert_true(capture_drain(capture));
        usleep(500);
    }
    assert_int_equal(0, pthread_join(thread, NULL));
    struct capture_stats stats = capture_free(capture);
    assert_int_equal(RACE_FRAMES, stats.written + stats.dropped);

    reader_open(&reader);
    while (reader_next(&reader)) {
        uint32_t number;

        memcpy(&number, reader.octets, 4);
        assert_true(count == 0 || number > last);
        assert_int_equal(WALL + number, wall_of(&reader));
        for (uint32_t i = 4; i < reader.header->caplen; i++)
            assert_int_equal(number & 255, reader.octets[i]);
        last = number;
        count++;
    }
    assert_int_equal(stats.written, count);
    pcap_close(reader.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_are_kept),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_filters_that_do_not_compile),
        cmocka_unit_test(test_without_ethernet),
        cmocka_unit_test(test_snap),
        cmocka_unit_test(test_longest_frame),
        cmocka_unit_test(test_number_is_bounded),
        cmocka_unit_test(test_size_is_bounded),
        cmocka_unit_test(test_full_ring),
        cmocka_unit_test(test_other_ports_are_left_out),
        cmocka_unit_test(test_sources_are_in_order_of_time),
        cmocka_unit_test(test_files_that_cannot_be),
        cmocka_unit_test(test_full_disk_ends_it),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_stream_is_bounded),
        cmocka_unit_test(test_reader_leaves),
        cmocka_unit_test(test_race),
    };

    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(path, sizeof(path), "%s/frames.pcap", folder);
    pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 4000, .count_max = 2000, .backing = BUF_BACKING_HEAP});
    int failed = cmocka_run_group_tests_name("capture", tests, NULL, NULL);
    unlink(path);
    rmdir(folder);
    buf_pool_free(pool);
    return failed;
}
