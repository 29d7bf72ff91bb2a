/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that starts a successor. It is made when the relay has become its user and given up
 * its privileges, and before its system calls are filtered: of these two, it alone may run a
 * program, and it runs one: the file that the relay was started from, as `angariumd -u -c FILE`
 * with the file that the relay was started with. Whoever takes over the relay can make it do that,
 * at most once at a time, and nothing else: what it hears is that something came, not what.
 *
 *   relay -> process   one octet
 *   process -> relay   one octet, 1: done, and what the program said to its standard error
 *
 * It is this program from its beginning again: a copy of the relay would keep in its memory what
 * keys and tokens were in the configuration, also those that a reload has replaced since. It keeps
 * no descriptor but the link, and ends when the relay has: its end of the link is then at its end.
 * It is asked and answered in whole messages (SOCK_SEQPACKET).
 */
#include "control/starter.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

#define LINK         3 /* the descriptor, in the process */
#define PROGRAM_SELF "/proc/self/exe"

extern char **environ;

struct starter {
    pthread_mutex_t lock;
    int link;
    enum starter_state state;
    char text[STARTER_TEXT_SIZE];
};

struct answer {
    char is_done;
    char text[STARTER_TEXT_SIZE - 1];
};

/* ---- the process ---- */

/* Everything it says, of which the beginning is kept. */
static void text_read(int fd, char ret_text[STARTER_TEXT_SIZE - 1])
{
    char octets[512];
    size_t size = 0;
    ssize_t got;

    while ((got = read(fd, octets, sizeof(octets))) > 0 || (got < 0 && errno == EINTR)) {
        size_t room = STARTER_TEXT_SIZE - 2 - size, taken = got > 0 ? (size_t)got : 0;
        taken = taken < room ? taken : room;
        memcpy(ret_text + size, octets, taken);
        size += taken;
    }
    ret_text[size] = '\0';
}

static void successor_start(const char *program, const char *config_path, struct answer *ret_answer)
{
    const char *arguments[] = {program, "-u", "-c", config_path, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2] = {-1, -1}, status = -1;
    pid_t child;

    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO) == 0);
    int error =
        posix_spawn(&child, program, &actions, NULL, (char *const *)(uintptr_t)arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (error == 0) {
        text_read(ends[0], ret_answer->text);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
    } else {
        (void)snprintf(ret_answer->text, sizeof(ret_answer->text), "cannot run %s: %s", program,
                       strerror(error));
    }
    close(ends[0]);
    ret_answer->is_done = error == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Who sends a hangup to all processes of a service means the relay's files. A program that is run
 * knows nothing of it. */
static void on_hangup(int number)
{
    (void)number;
}

_Noreturn static void starter_main(const char *program, const char *config_path)
{
    struct answer answer;
    char octet;

    (void)prctl(PR_SET_NAME, STARTER_NAME);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)signal(SIGHUP, on_hangup); /* what it breaks off goes on */
    (void)signal(SIGCHLD, SIG_DFL);
    (void)setsid();
    CHECK(fcntl(LINK, F_SETFD, FD_CLOEXEC) == 0);
    closefrom(LINK + 1);
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < LINK; i++)
        CHECK(dup2(null, i) == i);
    closefrom(LINK + 1);
    while (recv(LINK, &octet, 1, 0) > 0) {
        answer = (struct answer){0};
        successor_start(program, config_path, &answer);
        (void)send(LINK, &answer, 1 + strlen(answer.text), MSG_NOSIGNAL);
    }
    _exit(EXIT_SUCCESS);
}

void starter_enter(int count, char **arguments)
{
    if (count == 3 && strcmp(arguments[0], STARTER_NAME) == 0)
        starter_main(arguments[1], arguments[2]);
}

/* From fork() on. The link goes first: it may be one of those that are not there. */
_Noreturn static void starter_execute(int link, const char *program, const char *config_path)
{
    const char *arguments[] = {STARTER_NAME, program, config_path, NULL};

    if (dup2(link, LINK) == LINK && fcntl(LINK, F_SETFD, 0) == 0)
        (void)execv(PROGRAM_SELF, (char *const *)(uintptr_t)arguments);
    _exit(EXIT_FAILURE);
}

/* ---- the relay ---- */

struct starter *starter_new(const char *program, const char *config_path)
{
    struct starter *starter = calloc(1, sizeof(*starter));
    int ends[2] = {-1, -1};

    if (starter == NULL || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        free(starter);
        return NULL;
    }
    /* The relay has no other child: the kernel takes this one away when it ends, however that comes
     * about and without a system call of ours. */
    (void)signal(SIGCHLD, SIG_IGN);
    pid_t child = fork();
    if (child == 0)
        starter_execute(ends[1], program, config_path);
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        free(starter);
        return NULL;
    }
    pthread_mutex_init(&starter->lock, NULL);
    starter->link = ends[0];
    return starter;
}

void starter_free(struct starter *starter)
{
    if (starter == NULL)
        return;
    close(starter->link);
    pthread_mutex_destroy(&starter->lock);
    free(starter);
}

/* What it has answered meanwhile; or that it is gone. */
static void starter_update(struct starter *starter)
{
    struct answer answer = {0};

    if (starter->state == STARTER_DONE || starter->state == STARTER_GONE)
        return;
    ssize_t got = recv(starter->link, &answer, sizeof(answer) - 1, MSG_DONTWAIT);
    if (got < 0)
        return;
    starter->state = got == 0 ? STARTER_GONE : answer.is_done ? STARTER_DONE : STARTER_FAILED;
    (void)snprintf(starter->text, sizeof(starter->text), "%s", answer.text);
}

bool starter_begin(struct starter *starter)
{
    if (starter == NULL)
        return false;
    pthread_mutex_lock(&starter->lock);
    starter_update(starter);
    bool is_asked = (starter->state == STARTER_IDLE || starter->state == STARTER_FAILED) &&
                    send(starter->link, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
    if (is_asked)
        starter->state = STARTER_RUNNING;
    pthread_mutex_unlock(&starter->lock);
    return is_asked;
}

enum starter_state starter_look(struct starter *starter, char ret_text[STARTER_TEXT_SIZE])
{
    ret_text[0] = '\0';
    if (starter == NULL)
        return STARTER_GONE;
    pthread_mutex_lock(&starter->lock);
    starter_update(starter);
    enum starter_state state = starter->state;
    (void)snprintf(ret_text, STARTER_TEXT_SIZE, "%s",
                   state == STARTER_RUNNING ? "" : starter->text);
    pthread_mutex_unlock(&starter->lock);
    return state;
}
