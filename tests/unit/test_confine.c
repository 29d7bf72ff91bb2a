/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter of system calls in a process of its own: what a relay needs still works, what it does
 * not need is refused, what only an intruder asks for ends the process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "control/confine.h"

#define WORKS   0
#define REFUSED 1

static void *nothing(void *argument)
{
    return argument;
}

static int result_of(long result)
{
    return result >= 0 ? WORKS : errno == EPERM ? REFUSED : 99;
}

static int make_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, nothing, NULL) != 0)
        return REFUSED;
    pthread_join(thread, NULL);
    return WORKS;
}

static int map(int protection)
{
    void *memory = mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return result_of(memory == MAP_FAILED ? -1 : 0);
}

static int map_memory(void)
{
    return map(PROT_READ | PROT_WRITE);
}

static int map_code(void)
{
    return map(PROT_READ | PROT_EXEC);
}

static int make_code(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return result_of(mprotect(memory, 4096, PROT_READ | PROT_EXEC));
}

static int open_connection(void)
{
    return result_of(socket(AF_INET6, SOCK_STREAM, 0));
}

static int open_packets(void)
{
    return result_of(socket(AF_PACKET, SOCK_RAW, 0));
}

static int open_vsock(void)
{
    return result_of(socket(AF_VSOCK, SOCK_STREAM, 0));
}

/* As DPDK's thread for interrupts does whenever a descriptor comes or goes. */
static int make_epoll(void)
{
    return result_of(syscall(SYS_epoll_create, 1));
}

/* As net_memif does; there is nothing to accept. */
static int accept_any(void)
{
    return result_of(syscall(SYS_accept, -1, NULL, NULL) < 0 && errno == EBADF ? 0 : -1);
}

static int make_process(void)
{
    return result_of(fork());
}

static int change_owner(void)
{
    return result_of(chown("/tmp", 0, 0));
}

static int send_signal(void)
{
    return result_of(kill(getppid(), 0));
}

static int name_thread(void)
{
    return result_of(prctl(PR_SET_NAME, "x"));
}

static int ask_posture(void)
{
    return result_of(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) | prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) |
                     prctl(PR_GET_SECCOMP, 0, 0, 0, 0) | prctl(PR_CAPBSET_READ, 0, 0, 0, 0));
}

static int become_dumpable(void)
{
    return result_of(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int count_readable(void)
{
    int ends[2], count;

    CHECK(pipe2(ends, 0) == 0);
    return result_of(ioctl(ends[0], FIONREAD, &count));
}

static int type_at_terminal(void)
{
    return result_of(ioctl(0, TIOCSTI, "x"));
}

/* The kernel takes it for TIOCSTI. */
static int type_at_terminal_hidden(void)
{
    return result_of(syscall(SYS_ioctl, 0L, (1L << 32) | TIOCSTI, "x"));
}

static int run_program(void)
{
    return result_of(execl("/bin/true", "true", NULL));
}

static int look_into_others(void)
{
    return result_of(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
}

static const struct {
    const char *name;
    int (*act)(void);
    bool has_ports;
    int result, signal;
} rows[] = {
    {"a thread", make_thread, false, WORKS, 0},
    {"memory", map_memory, false, WORKS, 0},
    {"a connection", open_connection, false, WORKS, 0},
    {"packets, with ports of its own", open_packets, true, WORKS, 0},
    {"packets, without", open_packets, false, REFUSED, 0},
    {"an epoll as drivers make it, with ports", make_epoll, true, WORKS, 0},
    {"an epoll as drivers make it, without", make_epoll, false, REFUSED, 0},
    {"a peer of a driver, with ports", accept_any, true, WORKS, 0},
    {"a peer of a driver, without", accept_any, false, REFUSED, 0},
    {"another family", open_vsock, true, REFUSED, 0},
    {"memory that is code", map_code, false, REFUSED, 0},
    {"memory that becomes code", make_code, false, REFUSED, 0},
    {"a process", make_process, false, REFUSED, 0},
    {"an owner", change_owner, false, REFUSED, 0},
    {"a signal", send_signal, false, REFUSED, 0},
    {"a thread's name", name_thread, false, WORKS, 0},
    {"how it is confined", ask_posture, false, WORKS, 0},
    {"to be dumpable again", become_dumpable, false, REFUSED, 0},
    {"octets that wait", count_readable, false, WORKS, 0},
    {"octets that wait, with ports", count_readable, true, WORKS, 0},
    {"a key at the terminal", type_at_terminal, false, REFUSED, 0},
    {"a key at the terminal, hidden", type_at_terminal_hidden, false, REFUSED, 0},
    {"a program", run_program, false, 0, SIGSYS},
    {"another process", look_into_others, false, 0, SIGSYS},
};

static void test_calls(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        pid_t child = fork();
        int status = 0;
        assert_true(child >= 0);
        if (child == 0) {
            char why[CONFINE_WHY_SIZE];
            struct confine_options options = {.has_ports = rows[i].has_ports,
                                              .has_calls_filter = true};
            _exit(confine_calls(&options, why) == ERR_OK ? rows[i].act() : 100);
        }
        assert_int_equal(child, waitpid(child, &status, 0));
        if (WIFEXITED(status) && (rows[i].signal != 0 || WEXITSTATUS(status) != rows[i].result))
            print_message("# %s: %d\n", rows[i].name, WEXITSTATUS(status));
        if (rows[i].signal != 0)
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == rows[i].signal);
        else
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == rows[i].result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_calls)};

#ifdef __SANITIZE_ADDRESS__
    (void)tests;
    printf("1..0 # SKIP sanitizers need more system calls\n");
    return 0;
#else
    return cmocka_run_group_tests(tests, NULL, NULL);
#endif
}
