/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the EAL so that it fits into a daemon.
 *
 * Left to itself it pins the thread that starts it, puts its helper threads on CPUs that shards
 * have, probes every PCI device, opens a telemetry socket, leaves files behind, logs to syslog, and
 * fails where there are no huge pages.
 *
 * Memory: with enough free huge pages --in-memory, which needs no hugetlbfs and leaves no file.
 * Else --no-huge: that excludes --in-memory, takes its amount from -m alone, and cannot serve
 * hardware, which is said in so many words.
 *
 * CPUs: the EAL computes where its helper threads run from the affinity of the calling thread and
 * from its lcores. So the caller runs on the CPUs without shards while it starts, and the only
 * lcore floats over the same ones; nothing else remains for the helpers. Shards are no lcores: they
 * are threads of ours that register.
 *
 * Signals: helper threads inherit the caller's mask, so this is all signals blocked but the
 * real-time ones (net_tap counts received packets by them, and stalls for ever if all threads
 * block them) and those that mean a crash.
 *
 * There is no stop. rte_eal_cleanup() unmaps the memory under the interrupt thread, which cannot be
 * ended and still looks at what some drivers leave registered there (net_memif's listening
 * sockets). Nothing of the EAL outlives the process: with --in-memory the kernel takes huge pages
 * back.
 *
 * Drivers are shared objects that the EAL loads from its plugin folder; nothing of them is linked.
 *
 * The stack's flag in buffers (nic.h) is claimed as soon as the EAL is up, when drivers have taken
 * theirs; what is left of a start that finds it taken is not used.
 *
 * The log stream is static: the EAL is one per process, and so is its log.
 */
#include "dataplane/wire/port/eal.h"

#include <errno.h>
#include <pthread.h>
#include <rte_alarm.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf_dyn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "dataplane/wire/nic.h"
#include "dataplane/wire/port/gate.h"

#define ARGUMENTS_MAX     (16u + 2u * EAL_PCI_MAX)
#define ARGUMENT_SIZE     160u
#define CPUS_TEXT_SIZE    1024u
#define HUGE_PAGES_FOLDER "/sys/kernel/mm/hugepages"

#define ERRAND_INTERVAL_US 500u

struct arguments {
    char texts[ARGUMENTS_MAX][ARGUMENT_SIZE];
    char cpus[CPUS_TEXT_SIZE]; /* may be long: --lcores */
    char *pointers[ARGUMENTS_MAX + 1];
    int count;
};

/* ---- log ---- */

static struct eal_log {
    FILE *stream;
    char *complaint; /* the first one goes here, too; NULL: nobody asked */
    uint32_t complaint_size;
} eal_log;

/* The EAL flushes after each message: `octets` is one. */
static ssize_t log_write(void *context, const char *octets, size_t size)
{
    struct eal_log *log = context;
    uint32_t level = (uint32_t)rte_log_cur_msg_loglevel();
    size_t shown = size;

    while (shown > 0 && (octets[shown - 1] == '\n' || octets[shown - 1] == ' '))
        shown--;
    if (shown > 0)
        log_line(level <= RTE_LOG_ERR ? LOG_WARNING : LOG_INFO, "dpdk text=\"%.*s\"", (int)shown,
                 octets);
    if (shown > 0 && log->complaint != NULL && log->complaint[0] == '\0' && level <= RTE_LOG_ERR)
        snprintf(log->complaint, log->complaint_size, "%.*s", (int)shown, octets);
    return (ssize_t)size;
}

void eal_complaints_to(char *text, uint32_t size)
{
    if (text != NULL)
        text[0] = '\0';
    eal_log.complaint = text;
    eal_log.complaint_size = size;
}

static void log_open(void)
{
    const cookie_io_functions_t functions = {.write = log_write};

    eal_log.stream = fopencookie(&eal_log, "w", functions);
    if (eal_log.stream != NULL)
        (void)rte_openlog_stream(eal_log.stream);
}

static void log_close(void)
{
    (void)rte_openlog_stream(NULL);
    if (eal_log.stream != NULL)
        fclose(eal_log.stream);
    eal_log = (struct eal_log){0};
}

/* ---- what there is ---- */

static uint64_t number_in_file(const char *path)
{
    unsigned long long number = 0;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    if (fscanf(file, "%llu", &number) != 1)
        number = 0;
    fclose(file);
    return number;
}

/* Megabytes in free huge pages of the two sizes of this architecture. */
static uint64_t huge_pages_free_mb(void)
{
    uint64_t small = number_in_file(HUGE_PAGES_FOLDER "/hugepages-2048kB/free_hugepages");
    uint64_t large = number_in_file(HUGE_PAGES_FOLDER "/hugepages-1048576kB/free_hugepages");

    return small * 2 + large * 1024;
}

static enum err choose_memory(const struct eal_options *options, struct eal_report *report)
{
    uint64_t free_mb = options->huge == EAL_HUGE_NEVER ? 0 : huge_pages_free_mb();

    report->has_huge_pages = options->huge != EAL_HUGE_NEVER && free_mb >= options->memory_mb;
    if (report->has_huge_pages)
        return ERR_OK;
    if (options->huge == EAL_HUGE_REQUIRED || options->pci_count > 0) {
        snprintf(report->error, sizeof(report->error),
                 "%u MB of huge pages are needed%s, %llu MB are free: write the number of pages "
                 "to /proc/sys/vm/nr_hugepages",
                 options->memory_mb, options->pci_count > 0 ? " for a hardware port" : "",
                 (unsigned long long)free_mb);
        return ERR_SYSTEM;
    }
    uint64_t machine_mb = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;
    if (options->memory_mb > machine_mb) {
        snprintf(report->error, sizeof(report->error),
                 "%u MB of memory are wanted and this machine has %llu MB", options->memory_mb,
                 (unsigned long long)machine_mb);
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

/* Where the EAL's threads may run: what the caller may use, without the shards'; or all of it if
 * nothing is left. */
static void choose_cpus(const struct eal_options *options, const cpu_set_t *ours,
                        cpu_set_t *ret_cpus)
{
    CPU_ZERO(ret_cpus);
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, ours) &&
            (options->shard_cpus == NULL || !CPU_ISSET(cpu, options->shard_cpus)))
            CPU_SET(cpu, ret_cpus);
    if (CPU_COUNT(ret_cpus) == 0)
        *ret_cpus = *ours;
}

/* ---- arguments ---- */

__attribute__((format(printf, 2, 3))) static void add(struct arguments *arguments,
                                                      const char *format, ...)
{
    char *text = arguments->texts[arguments->count];
    va_list list;

    CHECK(arguments->count < (int)ARGUMENTS_MAX);
    va_start(list, format);
    int size = vsnprintf(text, ARGUMENT_SIZE, format, list);
    va_end(list);
    CHECK(size >= 0 && size < (int)ARGUMENT_SIZE);
    arguments->pointers[arguments->count++] = text;
}

/* One lcore that floats: "0@(1-3,7)". Ranges, since machines have hundreds of CPUs. */
static void add_lcores(struct arguments *arguments, const cpu_set_t *cpus)
{
    uint32_t size = (uint32_t)snprintf(arguments->cpus, CPUS_TEXT_SIZE, "0@(");
    const char *comma = "";

    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        uint32_t last = cpu;

        if (!CPU_ISSET(cpu, cpus))
            continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cpus))
            last++;
        size += (uint32_t)snprintf(arguments->cpus + size, CPUS_TEXT_SIZE - size, "%s%u-%u", comma,
                                   cpu, last);
        CHECK(size < CPUS_TEXT_SIZE - 1);
        comma = ",";
        cpu = last;
    }
    arguments->cpus[size++] = ')';
    arguments->cpus[size] = '\0';
    add(arguments, "--lcores");
    arguments->pointers[arguments->count++] = arguments->cpus;
}

static void add_all(struct arguments *arguments, const struct eal_options *options,
                    bool has_huge_pages, const cpu_set_t *cpus)
{
    add(arguments, "angarium");
    add_lcores(arguments, cpus);
    /* Neither leaves files in /run/dpdk, nor are there secondary processes; the prefix keeps what
     * is named after it apart from other processes of this machine. */
    add(arguments, has_huge_pages ? "--in-memory" : "--no-huge");
    add(arguments, "--no-shconf");
    add(arguments, "--file-prefix=angarium-%d", (int)getpid());
    add(arguments, "-m");
    add(arguments, "%u", options->memory_mb);
    /* Virtual addresses: no look at /proc/self/pagemap, which containers refuse. */
    add(arguments, "--iova-mode=va");
    add(arguments, "--no-telemetry");
    add(arguments, "--log-level=warning");
    if (options->pci_count == 0)
        add(arguments, "--no-pci");
    for (uint32_t i = 0; i < options->pci_count; i++) {
        add(arguments, "-a");
        add(arguments, "%s", options->pci_devices[i]);
    }
}

/* ---- start ---- */

static void mask_for_helpers(sigset_t *ret_mask)
{
    const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};

    sigfillset(ret_mask);
    for (uint32_t i = 0; i < COUNT_OF(crashes); i++)
        sigdelset(ret_mask, crashes[i]);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        sigdelset(ret_mask, number);
}

static void ignore_sigio(void)
{
    struct sigaction action;

    if (sigaction(SIGIO, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
        signal(SIGIO, SIG_IGN);
}

enum err eal_flag_claim(const char *owner, struct eal_report *ret_report)
{
    const unsigned int number = (unsigned int)__builtin_ctzll(NIC_STACK_FLAG);
    struct rte_mbuf_dynflag flag = {0};

    CHECK(strlen(owner) < sizeof(flag.name));
    memcpy(flag.name, owner, strlen(owner));
    if (rte_mbuf_dynflag_register_bitnum(&flag, number) == (int)number)
        return ERR_OK;
    snprintf(ret_report->error, sizeof(ret_report->error),
             "flag %u of DPDK's buffers, which the TCP stack needs, is not to be had: %s", number,
             rte_errno == EBUSY ? "a driver has it" : rte_strerror(rte_errno));
    return ERR_SYSTEM;
}

static enum err init(struct arguments *arguments, struct eal_report *report)
{
    log_open();
    eal_complaints_to(report->error, sizeof(report->error));
    int result = rte_eal_init(arguments->count, arguments->pointers);
    int number = rte_errno;

    eal_complaints_to(NULL, 0);
    if (result >= 0) {
        report->error[0] = '\0';
        enum err err = eal_flag_claim("angarium_stack", report);
        if (err != ERR_OK)
            log_close();
        return err;
    }
    log_close();
    if (report->error[0] == '\0')
        snprintf(report->error, sizeof(report->error), "the EAL does not start: %s",
                 rte_strerror(number));
    return ERR_SYSTEM;
}

static bool is_argument(const char *text)
{
    return strlen(text) > 0 && strlen(text) < ARGUMENT_SIZE;
}

enum err eal_start(const struct eal_options *options, struct eal_report *ret_report)
{
    CHECK(options->memory_mb >= EAL_MEMORY_MB_MIN && options->memory_mb <= EAL_MEMORY_MB_MAX);
    CHECK(options->pci_count <= EAL_PCI_MAX);
    *ret_report = (struct eal_report){0};
    for (uint32_t i = 0; i < options->pci_count; i++)
        CHECK(is_argument(options->pci_devices[i]));

    cpu_set_t ours, helpers;
    sigset_t mask, mask_before;
    enum err err = choose_memory(options, ret_report);
    if (err != ERR_OK)
        return err;
    struct arguments *arguments = calloc(1, sizeof(*arguments));
    CHECK(arguments != NULL);
    CHECK(pthread_getaffinity_np(pthread_self(), sizeof(ours), &ours) == 0);
    choose_cpus(options, &ours, &helpers);
    add_all(arguments, options, ret_report->has_huge_pages, &helpers);
    ignore_sigio();
    mask_for_helpers(&mask);

    CHECK(pthread_sigmask(SIG_SETMASK, &mask, &mask_before) == 0);
    CHECK(pthread_setaffinity_np(pthread_self(), sizeof(helpers), &helpers) == 0);
    err = init(arguments, ret_report);
    CHECK(pthread_setaffinity_np(pthread_self(), sizeof(ours), &ours) == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, &mask_before, NULL) == 0);
    free(arguments); /* the EAL copied what it keeps */
    return err;
}

/* ---- the interrupt thread ---- */

struct errand {
    void (*run)(void *context);
    void *context;
    _Atomic bool is_done;
};

static void run_errand(void *context)
{
    struct errand *errand = context;

    errand->run(errand->context);
    atomic_store(&errand->is_done, true);
}

void eal_run_in_interrupt_thread(void (*run)(void *context), void *context)
{
    struct errand errand = {.run = run, .context = context};

    if (rte_eal_alarm_set(1, run_errand, &errand) != 0) {
        run(context);
        return;
    }
    atomic_fetch_add(&gate_wanted, 1);
    while (!atomic_load(&errand.is_done))
        rte_delay_us_sleep(ERRAND_INTERVAL_US);
    atomic_fetch_sub(&gate_wanted, 1);
}

enum err eal_thread_enter(void)
{
    return rte_thread_register() == 0 ? ERR_OK : ERR_LIMIT;
}

void eal_thread_leave(void)
{
    rte_thread_unregister();
}
