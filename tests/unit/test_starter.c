/* SPDX-License-Identifier: Apache-2.0 */
/* The process that starts a successor, with programs that are none of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/starter.h"

static char folder[] = "/tmp/angarium-starter-XXXXXX", program[64], config[64];

static void program_write(const char *text)
{
    FILE *file = fopen(program, "w");

    assert_non_null(file);
    (void)fprintf(file, "#!/bin/sh\n%s\n", text);
    (void)fclose(file);
    assert_int_equal(0, chmod(program, 0700));
}

static enum starter_state outcome(struct starter *starter, char ret_text[STARTER_TEXT_SIZE])
{
    const struct timespec pause = {.tv_nsec = 10000000};
    enum starter_state state = STARTER_RUNNING;

    for (uint32_t i = 0; i < 2000 && state == STARTER_RUNNING; i++) {
        (void)nanosleep(&pause, NULL);
        state = starter_look(starter, ret_text);
    }
    return state;
}

/* It has ended, and the kernel keeps nothing of it for us to ask after. */
static void assert_no_child(void)
{
    assert_int_equal(-1, wait(NULL));
    assert_int_equal(ECHILD, errno);
}

/* Goal: the program runs with the file it was told at the beginning, and what it says is told when
 * it fails; then another try may come, and none behind one that worked. */
static void test_outcomes(void **state)
{
    char text[STARTER_TEXT_SIZE], wanted[128];
    struct starter *starter = starter_new(program, config);

    (void)state;
    assert_non_null(starter);
    assert_int_equal(STARTER_IDLE, starter_look(starter, text));
    program_write("echo \"$@\" >&2; exit 1");
    assert_true(starter_begin(starter));
    assert_int_equal(STARTER_FAILED, outcome(starter, text));
    (void)snprintf(wanted, sizeof(wanted), "-u -c %s\n", config);
    assert_string_equal(wanted, text);
    program_write("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1");
    assert_true(starter_begin(starter));
    assert_int_equal(STARTER_FAILED, outcome(starter, text));
    assert_int_equal(STARTER_TEXT_SIZE - 2, strlen(text));
    program_write("sleep 0.3");
    assert_true(starter_begin(starter));
    assert_false(starter_begin(starter)); /* it runs */
    assert_int_equal(STARTER_DONE, outcome(starter, text));
    assert_string_equal("", text);
    assert_false(starter_begin(starter)); /* the place is another's */
    starter_free(starter);
    assert_no_child();
}

/* The first child that this process has. */
static pid_t child_find(void)
{
    long child = 0;
    FILE *file = fopen("/proc/thread-self/children", "r");

    assert_non_null(file);
    assert_int_equal(1, fscanf(file, "%ld", &child));
    (void)fclose(file);
    return (pid_t)child;
}

static bool is_started_anew(pid_t child)
{
    char path[64], name[sizeof(STARTER_NAME)] = "";

    (void)snprintf(path, sizeof(path), "/proc/%ld/cmdline", (long)child);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t size = fread(name, 1, sizeof(name), file);
    (void)fclose(file);
    return size == sizeof(name) && memcmp(name, STARTER_NAME, sizeof(name)) == 0;
}

/* Goal: the process is no copy of this one, which may know secrets; one that was killed is gone,
 * and no upgrade that is under way. A hangup means others. */
static void test_memory_and_end(void **state)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    char text[STARTER_TEXT_SIZE];
    struct starter *starter = starter_new(program, config);
    pid_t child = child_find();
    bool is_anew = false;

    (void)state;
    for (uint32_t i = 0; i < 1000 && !is_anew; i++) {
        (void)nanosleep(&pause, NULL);
        is_anew = is_started_anew(child);
    }
    assert_true(is_anew);
    program_write("echo \"$@\" >&2; exit 1");
    for (uint32_t i = 0; i < 2; i++) { /* behind the first it surely listens */
        assert_true(starter_begin(starter));
        assert_int_equal(STARTER_FAILED, outcome(starter, text));
        assert_int_equal(0, kill(child, SIGHUP));
    }
    assert_int_equal(STARTER_FAILED, starter_look(starter, text));
    assert_int_equal(0, kill(child, SIGKILL));
    assert_no_child();
    assert_int_equal(STARTER_GONE, starter_look(starter, text));
    assert_false(starter_begin(starter));
    assert_int_equal(STARTER_GONE, starter_look(starter, text));
    starter_free(starter);
}

/* Goal: what cannot be run is a failure with its reason; without a process nothing is begun. */
static void test_nobody(void **state)
{
    char text[STARTER_TEXT_SIZE];
    struct starter *starter = starter_new("/nowhere/angariumd", config);

    (void)state;
    assert_true(starter_begin(starter));
    assert_int_equal(STARTER_FAILED, outcome(starter, text));
    assert_non_null(strstr(text, "/nowhere/angariumd"));
    starter_free(starter);
    assert_no_child();
    assert_false(starter_begin(NULL));
    assert_int_equal(STARTER_GONE, starter_look(NULL, text));
    starter_free(NULL);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_memory_and_end),
        cmocka_unit_test(test_nobody),
    };

    starter_enter(count, arguments);
    assert_non_null(mkdtemp(folder));
    (void)snprintf(program, sizeof(program), "%s/program", folder);
    (void)snprintf(config, sizeof(config), "%s/relay.yaml", folder);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(program);
    rmdir(folder);
    return failed;
}
