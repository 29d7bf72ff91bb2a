/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confinement. Whoever takes over the process by a mistake in it finds a user of its own, no
 * capabilities, and a kernel that answers few questions.
 *
 *   1. confine_user()    at the start: the user, supplementary groups, capabilities, the bounding
 *                        set; no new privileges; no core dump and no debugger
 *   2. confine_calls()   when everything is open and every thread runs: a list of system calls that
 *                        are allowed, on all threads (seccomp)
 *
 * The list. What is not on it fails with EPERM, as under systemd's filter; what nobody but an
 * intruder would ask for (another program, another process' memory, kernel modules) ends the
 * process. Memory can no longer become code, new processes cannot be made, threads can.
 *
 * Ports below 1024 are opened anew when a reload changes listeners: CAP_NET_BIND_SERVICE stays
 * where there is such a port, and nothing else does. Keys and passwords are read at a reload, too,
 * by the user that the process is then. Ports of the engine keep what their drivers need.
 *
 * Ways that remain: whatever the user may open, write and connect to; as root (without `user`) also
 * its own memory, by /proc/self/mem; operations of a ring of io_uring (spool.method) are not looked
 * at one by one, and none of them runs a program.
 *
 * Sanitizers need more than a relay: a build with them is not filtered.
 */
#include "control/confine.h"

#include <cap-ng.h>
#include <errno.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

/* ---- the user ---- */

static const struct {
    unsigned capability;
    bool is_of_ports; /* else of listeners */
} needed[] = {
    {CAP_NET_BIND_SERVICE, false},
    {CAP_NET_RAW, true},   /* net_af_packet, net_af_xdp */
    {CAP_NET_ADMIN, true}, /* net_tap */
    {CAP_IPC_LOCK, true},  /* memory that does not move */
};

/* What is needed, of what there is: a process that was given less keeps less. */
static void capabilities_choose(const struct confine_options *options)
{
    bool has[COUNT_OF(needed)];

    (void)capng_get_caps_process();
    for (uint32_t i = 0; i < COUNT_OF(needed); i++)
        has[i] = capng_have_capability(CAPNG_PERMITTED, needed[i].capability) != 0;
    capng_clear(CAPNG_SELECT_BOTH);
    for (uint32_t i = 0; i < COUNT_OF(needed); i++) {
        if (has[i] && (needed[i].is_of_ports ? options->has_ports : options->has_low_ports))
            capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, needed[i].capability);
    }
}

static enum err fail(char ret_why[CONFINE_WHY_SIZE], enum err err, const char *what,
                     const char *name)
{
    (void)snprintf(ret_why, CONFINE_WHY_SIZE, "%s %.100s: %s", what, name,
                   err == ERR_NOT_FOUND ? "there is none of that name" : strerror(errno));
    return err;
}

enum err confine_user(const struct confine_options *options, char ret_why[CONFINE_WHY_SIZE])
{
    bool is_root = geteuid() == 0;

    capabilities_choose(options);
    if (is_root && options->user != NULL) {
        const struct passwd *user = getpwnam(options->user);
        if (user == NULL)
            return fail(ret_why, ERR_NOT_FOUND, "cannot become user", options->user);
        if (capng_change_id((int)user->pw_uid, (int)user->pw_gid,
                            CAPNG_INIT_SUPP_GRP | CAPNG_CLEAR_BOUNDING) != 0)
            return fail(ret_why, ERR_SYSTEM, "cannot become user", options->user);
    } else if (capng_apply(is_root ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS) != 0) {
        return fail(ret_why, ERR_SYSTEM, "cannot drop", "capabilities");
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return fail(ret_why, ERR_SYSTEM, "cannot give up", "privileges");
    if (geteuid() == 0)
        log_line(LOG_WARNING, "event=confine: runs as root; `confine: {user: ...}` says who it is "
                              "to be");
    return ERR_OK;
}

/* ---- system calls ---- */

static const int allowed[] = {
    /* octets */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(preadv),
    SCMP_SYS(pwritev),
    SCMP_SYS(preadv2),
    SCMP_SYS(pwritev2),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendto),
    SCMP_SYS(recvmmsg),
    SCMP_SYS(sendmmsg),
    SCMP_SYS(io_uring_enter),
    /* waiting */
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(eventfd2),
    SCMP_SYS(pipe2),
    SCMP_SYS(futex),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(sched_yield),
    /* connections */
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(accept4),
    SCMP_SYS(connect),
    SCMP_SYS(shutdown),
    SCMP_SYS(socketpair), /* libcurl's threads wake each other */
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    /* files */
    SCMP_SYS(openat),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(fstatfs),
    SCMP_SYS(statfs),
    SCMP_SYS(lseek),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(fallocate),
    SCMP_SYS(ftruncate),
    SCMP_SYS(flock),
    SCMP_SYS(fcntl),
    SCMP_SYS(unlink),
    SCMP_SYS(unlinkat),
    SCMP_SYS(rename),
    SCMP_SYS(renameat),
    SCMP_SYS(renameat2),
    SCMP_SYS(mkdir),
    SCMP_SYS(mkdirat),
    SCMP_SYS(getdents64),
    SCMP_SYS(access),
    SCMP_SYS(faccessat2),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(umask),
    SCMP_SYS(fchmod),
    SCMP_SYS(getcwd),
    SCMP_SYS(open),
    SCMP_SYS(stat),
    SCMP_SYS(lstat),
    /* memory and threads; mmap, mprotect, clone, prctl and ioctl have rules of their own */
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(membarrier),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(set_tid_address),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(sched_setaffinity),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(tgkill),
    SCMP_SYS(setitimer), /* before it leaves its place to another process */
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    /* about oneself and the machine */
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getrandom),
    SCMP_SYS(uname),
    SCMP_SYS(sysinfo),
    SCMP_SYS(getrusage),
    SCMP_SYS(prlimit64),
    SCMP_SYS(getcpu),
    SCMP_SYS(capget),
};

/* What DPDK asks for while ports run: its thread for interrupts makes its epoll anew and sets
 * alarms; net_memif accepts whoever connects, and makes memory for it. */
static const int allowed_for_ports[] = {
    SCMP_SYS(epoll_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(accept),
    SCMP_SYS(memfd_create),
};

/* Nobody but an intruder asks for these. */
static const int deadly[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(bpf),
    SCMP_SYS(mount),
    SCMP_SYS(pivot_root),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(keyctl),
};

#ifdef __SANITIZE_ADDRESS__
enum err confine_calls(const struct confine_options *options, char ret_why[CONFINE_WHY_SIZE])
{
    (void)options;
    (void)ret_why;
    (void)allowed;
    (void)allowed_for_ports;
    (void)deadly;
    return ERR_OK;
}
#else

/* To name a thread, and to look. Who could make the process dumpable again could write to its code
 * by /proc/self/mem. */
static const scmp_datum_t prctls[] = {
    PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP, PR_CAPBSET_READ,
};

/* What libraries ask of descriptors and interfaces: nothing that types at a terminal. */
static const scmp_datum_t ioctls[] = {TCGETS, FIONREAD, FIONBIO, FIOCLEX, SIOCGIFINDEX};

/* The kernel looks at the low half of the argument alone, and so must the filter. */
static int rule_add_values(scmp_filter_ctx filter, int call, unsigned argument,
                           const scmp_datum_t *values, uint32_t count)
{
    int error = 0;

    for (uint32_t i = 0; i < count && error == 0; i++)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                                 SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, UINT32_MAX, values[i]));
    return error;
}

/* 0, or a negative errno as libseccomp's. */
static int rules_with_arguments(scmp_filter_ctx filter, const struct confine_options *options)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    int error = 0;

    for (uint32_t i = 0; i < COUNT_OF(families) && error == 0; i++)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                 SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0));
    if (error == 0 && options->has_ports)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                 SCMP_A0(SCMP_CMP_EQ, AF_PACKET, 0));
    if (error == 0) /* the link to a new program that takes our place */
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1,
                                 SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
    if (error == 0)
        error = rule_add_values(filter, SCMP_SYS(prctl), 0, prctls, COUNT_OF(prctls));
    if (error == 0 && options->has_ports) /* drivers have many of their own */
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 0);
    else if (error == 0)
        error = rule_add_values(filter, SCMP_SYS(ioctl), 1, ioctls, COUNT_OF(ioctls));
    /* Threads only. What flags clone3 has cannot be seen here: libc then takes clone. */
    if (error == 0)
        error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (error == 0)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                 SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    if (error == 0)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (error == 0)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return error;
}

static int rules_add(scmp_filter_ctx filter, const struct confine_options *options)
{
    int error = 0;

    for (uint32_t i = 0; i < COUNT_OF(allowed) && error == 0; i++)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
    for (uint32_t i = 0; i < COUNT_OF(allowed_for_ports) && options->has_ports && error == 0; i++)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_for_ports[i], 0);
    for (uint32_t i = 0; i < COUNT_OF(deadly) && error == 0; i++)
        error = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
    return error == 0 ? rules_with_arguments(filter, options) : error;
}

enum err confine_calls(const struct confine_options *options, char ret_why[CONFINE_WHY_SIZE])
{
    if (!options->has_calls_filter)
        return ERR_OK;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int error = filter == NULL ? -ENOMEM : rules_add(filter, options);
    if (error == 0)
        error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (error == 0)
        error = seccomp_load(filter);
    seccomp_release(filter);
    if (error == 0)
        return ERR_OK;
    errno = -error;
    return fail(ret_why, ERR_SYSTEM, "cannot filter", "system calls (`confine: {calls: false}`)");
}
#endif

/* ---- how it is ---- */

/* Looked up once: it is asked for once a second for as long as somebody looks on. */
static const char *user_name(void)
{
    static _Thread_local uid_t known;
    static _Thread_local char name[64];

    if (name[0] != '\0' && geteuid() == known)
        return name;
    const struct passwd *user = getpwuid(geteuid());
    if (user == NULL)
        return "?";
    known = geteuid();
    (void)snprintf(name, sizeof(name), "%s", user->pw_name);
    return name;
}

/* The effective set, of the thread that asks. */
static uint64_t capabilities_get(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};

    (void)syscall(SYS_capget, &head, data);
    return (uint64_t)data[1].effective << 32 | data[0].effective;
}

json_t *confine_posture(void)
{
    uint64_t capabilities = capabilities_get();
    json_t *names = json_array();

    for (unsigned i = 0; i <= CAP_LAST_CAP; i++) {
        if (capabilities >> i & 1)
            json_array_append_new(names, json_string(capng_capability_to_name(i)));
    }
    return json_pack("{ss,so,sb,sb,sb}", "user", user_name(), "capabilities", names,
                     "no_new_privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
                     "system_calls_filtered", prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2, "dumpable",
                     prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);
}
