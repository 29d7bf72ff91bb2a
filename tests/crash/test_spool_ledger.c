/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool on a real directory: its process is killed, or the power of its file system is cut, at
 * random moments, again and again; a ledger says what must be there.
 *
 * Power loss is ext4's shutdown ioctl on a loop mount: everything that was not committed is gone.
 * It needs root and a loop device, and is skipped without them. A writer that leaves its syncs out
 * must be caught by the same ledger.
 *
 * ANGARIUM_KILLS, ANGARIUM_CUTS and ANGARIUM_SEED override the counts and the seed.
 */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/crash/spool_ledger.h"

#define WORDS_MAX                400u /* of a writer, before the crash */
#define EXT4_IOC_SHUTDOWN_       _IOR('X', 125, uint32_t)
#define EXT4_SHUTDOWN_NOLOGFLUSH 2u

static uint32_t count_of(const char *variable, uint32_t usual, uint32_t usual_long)
{
    const char *value = getenv(variable), *is_long = getenv("ANGARIUM_TEST_LONG");
    if (value != NULL)
        return (uint32_t)strtoul(value, NULL, 10);
    return is_long != NULL && is_long[0] == '1' ? usual_long : usual;
}

static uint64_t seed_of(void)
{
    struct tick_now now = tick_now_read(tick_source_system());
    const char *value = getenv("ANGARIUM_SEED");
    uint64_t seed = value != NULL ? strtoull(value, NULL, 10) : (uint64_t)now.wall / 1000000;
    print_message("# ANGARIUM_SEED=%lu\n", seed);
    return seed;
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...)
{
    char command[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    if (system(command) != 0)
        fail_msg("%s", command);
}

/* ---- the machinery of power loss ---- */

struct medium {
    char path[64];  /* of the spool */
    char image[80]; /* of the file system; empty: an ordinary directory */
};

/* `size` of the file system, as truncate has it; NULL: an ordinary directory. */
static struct medium medium_new(const char *size)
{
    struct medium medium = {0};
    snprintf(medium.path, sizeof(medium.path), "/var/tmp/angarium-crash-XXXXXX");
    assert_non_null(mkdtemp(medium.path));
    if (size == NULL)
        return medium;
    snprintf(medium.image, sizeof(medium.image), "%s.img", medium.path);
    shell("truncate -s %s %s && mkfs.ext4 -q -F %s", size, medium.image, medium.image);
    shell("mount -o loop %s %s", medium.image, medium.path);
    return medium;
}

static void medium_free(const struct medium *medium)
{
    if (medium->image[0] != 0)
        shell("umount %s && rm -f %s", medium->path, medium->image);
    shell("rm -rf %s", medium->path);
}

/* What the test that runs now has made. */
static struct medium medium_now;
static pid_t writer_now;

/* After every test: one that failed has left them behind. */
static int run_end(void **state)
{
    (void)state;
    if (writer_now > 0) {
        kill(writer_now, SIGKILL);
        waitpid(writer_now, NULL, 0);
    }
    writer_now = 0;
    if (medium_now.path[0] != 0) {
        if (medium_now.image[0] != 0) {
            umount2(medium_now.path, MNT_DETACH);
            unlink(medium_now.image);
        }
        shell("rm -rf --one-file-system %s", medium_now.path);
    }
    medium_now = (struct medium){0};
    return 0;
}

/* The file system loses its power: whatever was not committed is gone. */
static void medium_cut(const struct medium *medium)
{
    uint32_t flags = EXT4_SHUTDOWN_NOLOGFLUSH;
    int fd = open(medium->path, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    assert_int_equal(0, ioctl(fd, EXT4_IOC_SHUTDOWN_, &flags));
    close(fd);
}

/* Mounts are seen by nobody else: one that a namespace of somebody else's had copied would outlive
 * our umount, and be mounted again as it was left, without power. */
static bool has_own_mounts;

static bool can_cut_power(void)
{
    return has_own_mounts && access("/dev/loop-control", R_OK) == 0 &&
           system("(command -v mkfs.ext4 && command -v mount) >/dev/null 2>&1") == 0;
}

/* ---- rounds ---- */

struct run {
    enum disk_kind kind;
    uint32_t rounds;
    bool is_power_loss, is_unsafe, must_fill;
    const char *size; /* of a file system of its own; NULL: none */
    uint64_t seed;
};

/* Octets that the spool could still take. */
static uint64_t medium_free_octets(const struct medium *medium)
{
    struct statvfs status;
    assert_int_equal(0, statvfs(medium->path, &status));
    return status.f_bavail * status.f_frsize;
}

static uint32_t run_rounds(const struct run *run)
{
    struct medium medium = medium_now = medium_new(run->size);
    if (run->must_fill) /* room for three segments and a half */
        shell("fallocate -l %lu %s/ballast && sync -f %s",
              medium_free_octets(&medium) - (3500u << 10), medium.path, medium.path);
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    struct rng rng;
    assert_non_null(ledger);
    rng_init_seed(&rng, run->seed);
    for (uint32_t round = 0; round < run->rounds && ledger->violations == 0; round++) {
        int pipe, status;
        pid_t child = ledger_spawn(medium.path, run->kind, ledger->next, run->is_unsafe,
                                   run->seed + round, &pipe);
        writer_now = child;
        /* Counted in what the writer says, so that a crash finds it at work however busy the
         * machine is; and now and then while it still looks for what is there. */
        bool is_early = rng_below(&rng, 16) == 0;
        uint32_t words = is_early ? UINT32_MAX : 1 + rng_below(&rng, WORDS_MAX);
        tick_us wait = is_early ? TICK_MS(5) + rng_below(&rng, TICK_MS(20)) : TICK_MS(500);
        ledger_listen(ledger, pipe, words, tick_now_read(tick_source_system()).tick + wait);
        usleep(rng_below(&rng, 1500));
        if (run->is_power_loss) {
            /* Nothing is said after the power is gone: a call under way at the shutdown may still
             * come back without an error. */
            kill(child, SIGSTOP);
            assert_int_equal(child, waitpid(child, &status, WUNTRACED));
            medium_cut(&medium);
        }
        kill(child, SIGKILL);
        if (!run->is_power_loss || WIFSTOPPED(status))
            assert_int_equal(child, waitpid(child, &status, 0));
        writer_now = 0;
        ledger_listen(ledger, pipe, UINT32_MAX, TICK_NEVER);
        close(pipe);
        if (run->is_power_loss) {
            shell("umount %s", medium.path);
            shell("mount -o loop %s %s", medium.image, medium.path);
        }
        ledger_audit(ledger, medium.path, run->kind);
        if (ledger->violations > 0)
            print_message("# round %u: %u violations, first: %s\n", round, ledger->violations,
                          ledger->first_violation);
    }
    print_message("# %u rounds: %u acknowledged, %u finished, %u violations\n", run->rounds,
                  ledger->acknowledged, ledger->finished, ledger->violations);
    if (!run->is_unsafe)
        assert_true(ledger->acknowledged > run->rounds && (run->must_fill || ledger->finished > 0));
    if (run->must_fill) /* no segment more fits */
        assert_true(medium_free_octets(&medium) < 1u << 20);
    uint32_t violations = ledger->violations;
    free(ledger);
    medium_free(&medium);
    medium_now = (struct medium){0};
    return violations;
}

static void test_killed(void **state)
{
    (void)state;
    uint32_t rounds = count_of("ANGARIUM_KILLS", 50, 500);
    static const enum disk_kind kinds[] = {DISK_KIND_THREAD, DISK_KIND_URING};
    for (uint32_t i = 0; i < COUNT_OF(kinds); i++) {
        struct disk *disk;
        if (disk_new("/var/tmp", kinds[i], &disk) != ERR_OK) {
            print_message("# io_uring is denied here\n");
            continue;
        }
        disk_free(disk);
        struct run run = {.kind = kinds[i], .rounds = (rounds + 1) / 2, .seed = seed_of()};
        assert_int_equal(0, run_rounds(&run));
    }
}

static void test_power_loss(void **state)
{
    (void)state;
    if (!can_cut_power()) {
        print_message("# power loss needs root, a loop device, mount and mkfs.ext4\n");
        skip();
    }
    struct run run = {.kind = DISK_KIND_AUTO,
                      .rounds = count_of("ANGARIUM_CUTS", 50, 1000),
                      .is_power_loss = true,
                      .size = "96M",
                      .seed = seed_of()};
    assert_int_equal(0, run_rounds(&run));
}

/* The spool may grow to more than its file system has: what does not fit is refused, what was
 * acknowledged stays, through kills and power losses. */
static void test_full_file_system(void **state)
{
    (void)state;
    if (!can_cut_power()) {
        print_message("# a full file system needs root, a loop device, mount and mkfs.ext4\n");
        skip();
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct run run = {.kind = DISK_KIND_AUTO,
                          .rounds = count_of("ANGARIUM_CUTS", 20, 500) / 2,
                          .is_power_loss = i == 1,
                          .must_fill = true,
                          .size = "96M",
                          .seed = seed_of()};
        assert_int_equal(0, run_rounds(&run));
    }
}

/* Negative control: without its syncs the spool loses mail, and the ledger says so. */
static void test_power_loss_without_sync_is_caught(void **state)
{
    (void)state;
    if (!can_cut_power()) {
        print_message("# power loss needs root, a loop device, mount and mkfs.ext4\n");
        skip();
    }
    struct run run = {.kind = DISK_KIND_AUTO,
                      .rounds = 20,
                      .is_power_loss = true,
                      .size = "96M",
                      .is_unsafe = true,
                      .seed = seed_of()};
    assert_true(run_rounds(&run) > 0);
}

int main(void)
{
    has_own_mounts =
        unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_killed, run_end),
        cmocka_unit_test_teardown(test_power_loss, run_end),
        cmocka_unit_test_teardown(test_full_file_system, run_end),
        cmocka_unit_test_teardown(test_power_loss_without_sync_is_caught, run_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
