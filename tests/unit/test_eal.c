/* SPDX-License-Identifier: Apache-2.0 */
/* The EAL as a guest in a daemon: where its threads run, which signals they take, what it says when
 * it cannot start. Started once, for all tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_mbuf_dyn.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "dataplane/wire/nic.h"
#include "dataplane/wire/port/eal.h"

#define MEMORY_MB 32u

/* What was so before the start. */
static struct before {
    cpu_set_t cpus;
    cpu_set_t shard_cpus; /* empty if there is only one processor */
    sigset_t mask;
    pthread_t thread;
} before;

/* ---- the thread that starts it ---- */

static void test_the_caller_is_as_before(void **state)
{
    cpu_set_t cpus;
    sigset_t mask;
    struct sigaction action;
    (void)state;

    assert_int_equal(0, pthread_getaffinity_np(pthread_self(), sizeof(cpus), &cpus));
    assert_true(CPU_EQUAL(&before.cpus, &cpus));
    assert_int_equal(0, pthread_sigmask(SIG_SETMASK, NULL, &mask));
    for (int number = 1; number <= SIGRTMAX; number++)
        assert_int_equal(sigismember(&before.mask, number), sigismember(&mask, number));
    assert_int_equal(0, sigaction(SIGIO, NULL, &action));
    assert_ptr_equal(SIG_IGN, action.sa_handler);
    assert_int_not_equal(LCORE_ID_ANY, rte_lcore_id());
}

/* ---- its helpers ---- */

struct helper {
    uint64_t blocked; /* signals, number 1 in the lowest bit */
    cpu_set_t cpus;
};

static uint64_t blocked_in_status(const char *task)
{
    char path[300], line[256];
    unsigned long long blocked = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%s/status", task);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
            break;
    fclose(file);
    return blocked;
}

/* Every thread but this one is the EAL's. Returns how many. */
static uint32_t find_helpers(struct helper *ret_helpers, uint32_t max)
{
    DIR *tasks = opendir("/proc/self/task");
    uint32_t count = 0;

    assert_non_null(tasks);
    for (struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        int task = atoi(entry->d_name);

        if (task == 0 || task == getpid() || count == max)
            continue;
        ret_helpers[count].blocked = blocked_in_status(entry->d_name);
        assert_int_equal(0, sched_getaffinity(task, sizeof(cpu_set_t), &ret_helpers[count].cpus));
        count++;
    }
    closedir(tasks);
    return count;
}

static void test_helpers_keep_off_the_shards(void **state)
{
    struct helper helpers[8];
    uint32_t count = find_helpers(helpers, COUNT_OF(helpers));
    (void)state;

    assert_true(count >= 1);
    if (CPU_COUNT(&before.shard_cpus) == 0)
        skip();
    for (uint32_t i = 0; i < count; i++)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            assert_false(CPU_ISSET(cpu, &helpers[i].cpus) && CPU_ISSET(cpu, &before.shard_cpus));
}

/* net_tap's signals reach somebody; the daemon's go to the daemon. */
static void test_helpers_take_real_time_signals_only(void **state)
{
    struct helper helpers[8];
    uint32_t count = find_helpers(helpers, COUNT_OF(helpers));
    static const int ours[] = {SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGCHLD, SIGPIPE};
    (void)state;

    assert_true(count >= 1);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < COUNT_OF(ours); k++)
            assert_true(helpers[i].blocked >> (ours[k] - 1) & 1);
        for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
            assert_false(helpers[i].blocked >> (number - 1) & 1);
        assert_false(helpers[i].blocked >> (SIGSEGV - 1) & 1);
    }
}

static void note_thread(void *context)
{
    *(pthread_t *)context = pthread_self();
}

static void test_interrupt_thread(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        pthread_t thread = pthread_self();

        eal_run_in_interrupt_thread(note_thread, &thread);
        assert_false(pthread_equal(thread, before.thread));
    }
}

/* ---- threads of ours ---- */

static void *enter_and_leave(void *context)
{
    unsigned int *lcore = context;

    if (rte_lcore_id() != LCORE_ID_ANY || eal_thread_enter() != ERR_OK)
        return "cannot enter";
    *lcore = rte_lcore_id();
    eal_thread_leave();
    return rte_lcore_id() == LCORE_ID_ANY ? NULL : "cannot leave";
}

static void test_threads_enter(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2 * RTE_MAX_LCORE; i++) { /* places are used again */
        pthread_t thread;
        void *complaint = NULL;
        unsigned int lcore = LCORE_ID_ANY;

        assert_int_equal(0, pthread_create(&thread, NULL, enter_and_leave, &lcore));
        assert_int_equal(0, pthread_join(thread, &complaint));
        if (complaint != NULL)
            fail_msg("%s", (const char *)complaint);
        assert_int_not_equal(LCORE_ID_ANY, lcore);
        assert_int_not_equal(rte_lcore_id(), lcore);
    }
}

/* ---- what is refused ---- */

struct refusal {
    const char *name;
    struct eal_options options;
    const char *text;
};

static const char *const cards[] = {"0000:01:00.0"};

static const struct refusal refusals[] = {
    {"more huge pages than there are",
     {.memory_mb = EAL_MEMORY_MB_MAX, .huge = EAL_HUGE_REQUIRED},
     "MB of huge pages are needed, "},
    {"a card without huge pages",
     {.memory_mb = EAL_MEMORY_MB_MAX, .pci_devices = cards, .pci_count = 1},
     "MB of huge pages are needed for a hardware port"},
    {"a card and no huge pages wanted",
     {.memory_mb = MEMORY_MB, .huge = EAL_HUGE_NEVER, .pci_devices = cards, .pci_count = 1},
     "MB of huge pages are needed for a hardware port"},
    {"more memory than the machine has",
     {.memory_mb = EAL_MEMORY_MB_MAX, .huge = EAL_HUGE_NEVER},
     "1048576 MB of memory are wanted and this machine has "},
    {"a second start", {.memory_mb = MEMORY_MB, .huge = EAL_HUGE_NEVER}, "already"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(refusals); i++) {
        struct eal_report report;

        assert_int_equal(ERR_SYSTEM, eal_start(&refusals[i].options, &report));
        if (strstr(report.error, refusals[i].text) == NULL)
            fail_msg("%s: %s", refusals[i].name, report.error);
    }
}

/* Goal: nobody else gets the flag that the stack writes, and a start that comes too late for it
 * says so. */
static void test_the_flag_of_the_stack(void **state)
{
    struct eal_report report = {0};
    (void)state;

    assert_true(rte_mbuf_dynflag_lookup("angarium_stack", NULL) == __builtin_ctzll(NIC_STACK_FLAG));
    assert_int_equal(ERR_OK, eal_flag_claim("angarium_stack", &report));
    assert_string_equal("", report.error);
    assert_int_equal(ERR_SYSTEM, eal_flag_claim("driver", &report));
    assert_non_null(strstr(report.error, "a driver has it"));
}

static void test_no_huge_pages_when_not_wanted(void **state)
{
    (void)state;
    assert_false(rte_eal_has_hugepages());
    assert_int_equal(RTE_IOVA_VA, rte_eal_iova_mode());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_caller_is_as_before),
        cmocka_unit_test(test_helpers_keep_off_the_shards),
        cmocka_unit_test(test_helpers_take_real_time_signals_only),
        cmocka_unit_test(test_interrupt_thread),
        cmocka_unit_test(test_threads_enter),
        cmocka_unit_test(test_the_flag_of_the_stack),
        cmocka_unit_test(test_no_huge_pages_when_not_wanted),
        cmocka_unit_test(test_refusals),
    };
    struct eal_options options = {
        .memory_mb = MEMORY_MB, .huge = EAL_HUGE_NEVER, .shard_cpus = &before.shard_cpus};
    struct eal_report report;

    before.thread = pthread_self();
    sigemptyset(&before.mask);
    sigaddset(&before.mask, SIGTERM);
    sigaddset(&before.mask, SIGRTMIN + 1);
    pthread_sigmask(SIG_SETMASK, &before.mask, NULL);
    pthread_getaffinity_np(pthread_self(), sizeof(before.cpus), &before.cpus);
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
        if (CPU_ISSET(cpu, &before.cpus) && CPU_COUNT(&before.cpus) > 1 &&
            CPU_COUNT(&before.shard_cpus) == 0)
            CPU_SET(cpu, &before.shard_cpus);
    if (eal_start(&options, &report) != ERR_OK) {
        print_message("Bail out! %s\n", report.error);
        return 1;
    }
    return cmocka_run_group_tests_name("eal", tests, NULL, NULL);
}
