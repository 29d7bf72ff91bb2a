#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
From nothing to a relay on a bare Debian 12 under a systemd of its own: the packages are built, installed,
used, removed and purged; then the playbook makes a relay of it, upgrades two in turn, and docs/quickstart.md is
done as it says. Minutes, and the network for Debian's packages. Arguments: parts of names of tests, none for all. Prints TAP.
"""
import ctypes
import glob
import json
import os
import sys
import time

import fleet
import machine as machines
import quickstart
import rolling
from machine import TOP, Machine, must, packages

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000  # waitpid() for a thread
SEND = ("import smtplib, sys; smtplib.SMTP('127.0.0.1', 2525, timeout=20).sendmail('a@sender.example', [sys.argv[1]], "
        "'Subject: x\\r\\n\\r\\nbody\\r\\n')")


class Skip(Exception):
    pass


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


def wait_until(is_true, what, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        expect(time.monotonic() < end, "never happened: " + what)
        time.sleep(0.2)


def status_line(machine):
    return machine.must("systemctl", "show", "-P", "StatusText", "angarium")


def install(machine):
    for path in packages():
        machine.must("apt-get", "-q", "-y", "--no-install-recommends", "install", "/root/" + os.path.basename(path))
    wait_until(lambda: machine.run("systemctl", "is-active", "angarium")[0] == 0, "runs")


def builds_packages(_):
    must(TOP + "/script/package")  # fails on any complaint of lintian's


def installs_and_runs(machine):
    install(machine)
    expect(machine.must("angarium", "check") == "/etc/angarium/angarium.yaml: ok\n")
    expect(machine.must("systemctl", "is-enabled", "angarium") == "enabled\n")
    process = machine.must("systemctl", "show", "-P", "MainPID", "angarium").strip()
    status = machine.must("cat", f"/proc/{process}/status")
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"):
        expect(line in status, status)
    expect("\nUid:\t0\t" not in status, status)


def listens_on_loopback_alone(machine):
    text = machine.must("ss", "-Hltnp")
    addresses = [line.split()[3] for line in text.splitlines() if "angariumd" in line]
    expect(addresses == ["127.0.0.1:2525"], text)


def takes_mail(machine):
    machine.must("python3", "-c", SEND, "c@never.invalid")
    rows = json.loads(machine.must("angarium", "queue", "list", "--json"))["rows"]
    expect([row["recipient"] for row in rows] == ["c@never.invalid"], rows)
    wait_until(lambda: "1 messages in the queue" in status_line(machine), "the status line")


def reloads(machine):
    machine.must("systemctl", "reload", "angarium")
    with open(machine.path("/etc/angarium/angarium.yaml"), encoding="utf-8") as file:
        good = file.read()
    with open(machine.path("/etc/angarium/angarium.yaml"), "a", encoding="utf-8") as file:
        file.write("coers: 1\n")
    expect(machine.run("systemctl", "reload", "angarium")[0] != 0)
    expect(machine.run("systemctl", "is-active", "angarium")[0] == 0)
    wait_until(lambda: "the last reload failed" in status_line(machine), "the status line")
    with open(machine.path("/etc/angarium/angarium.yaml"), "w", encoding="utf-8") as file:
        file.write(good)
    machine.must("systemctl", "reload", "angarium")


def restarts_when_a_shard_is_stuck(machine):
    os.makedirs(machine.path("/etc/systemd/system/angarium.service.d"), exist_ok=True)
    with open(machine.path("/etc/systemd/system/angarium.service.d/quick.conf"), "w", encoding="utf-8") as file:
        file.write("[Service]\nWatchdogSec=2\n")
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", "angarium")
    inner = machine.must("systemctl", "show", "-P", "MainPID", "angarium").strip()
    process = next(pid for pid in os.listdir("/proc") if pid.isdigit() and is_inner(pid, machine, inner))
    threads = [int(thread) for thread in os.listdir(f"/proc/{process}/task")
               if open(f"/proc/{process}/task/{thread}/comm", encoding="utf-8").read() == "shard 0\n"]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_SEIZE, threads[0], None, None) != 0:
        raise Skip("ptrace is not allowed")
    libc.ptrace(PTRACE_INTERRUPT, threads[0], None, None)
    os.waitpid(threads[0], WALL)
    begun = time.monotonic()
    wait_until(lambda: os.waitpid(threads[0], WALL | os.WNOHANG)[0] != 0, "killed")
    expect(time.monotonic() - begun < 10)
    libc.ptrace(PTRACE_DETACH, threads[0], None, ctypes.c_void_p(6))
    wait_until(lambda: machine.must("systemctl", "show", "-P", "NRestarts", "angarium") == "1\n", "restarted")
    wait_until(lambda: "1 messages in the queue" in status_line(machine), "has its mail")
    expect("event=stuck shard=0" in machine.must("journalctl", "-u", "angarium"))
    os.remove(machine.path("/etc/systemd/system/angarium.service.d/quick.conf"))
    machine.must("systemctl", "daemon-reload")


def is_inner(pid, machine, inner):
    """Is this process number `inner` inside the machine?"""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            numbers = [line.split()[-1] for line in file if line.startswith("NSpid:")]
        return numbers == [inner] and os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{machine.pid}/ns/pid")
    except OSError:
        return False


def purge_keeps_mail(machine):
    text = machine.must("apt-get", "-q", "-y", "purge", "angarium")
    expect("may hold mail: it is kept" in text, text)
    expect(glob.glob(machine.path("/var/spool/angarium/*.spool")), "the spool went")
    for gone in ("/etc/angarium", "/var/log/angarium", "/var/lib/angarium", "/usr/sbin/angariumd", "/etc/logrotate.d/angarium"):
        expect(not os.path.exists(machine.path(gone)), gone + " is left")


def purge_takes_an_empty_spool(machine):
    install(machine)
    machine.must("angarium", "delete", "all", "--reason", "test")
    machine.must("apt-get", "-q", "-y", "purge", "angarium")
    expect(not os.path.exists(machine.path("/var/spool/angarium")), "the spool is left")


TESTS = [installs_and_runs, listens_on_loopback_alone, takes_mail, reloads, restarts_when_a_shard_is_stuck, purge_keeps_mail,
         purge_takes_an_empty_spool]


def machine_boot():
    made = Machine(list(packages()) + fleet.FETCHED)
    made.boot()
    return made


# Who makes what the tests want, and the tests.
GROUPS = [
    (lambda: None, [builds_packages, fleet.playbook_is_clean]),
    (machine_boot, TESTS + fleet.TESTS),
    (rolling.Pair, rolling.TESTS),
    (quickstart.Newcomer, quickstart.TESTS),
]
BY_PLAYBOOK = [fleet.playbook_is_clean] + fleet.TESTS + rolling.TESTS


def why_not(test):
    return machines.why_not() or (fleet.why_not() if test in BY_PLAYBOOK else None)


class Run:
    def __init__(self, wanted):
        self.wanted, self.number, self.failed = wanted, 0, 0

    def one(self, test, make, made):
        """`made` is kept from test to test of a group."""
        self.number += 1
        try:
            if why_not(test):
                raise Skip(why_not(test))
            if not made:
                made.append(make())
            test(made[0])
            print(f"ok {self.number} - {test.__name__}", flush=True)
        except Skip as why:
            print(f"ok {self.number} - {test.__name__} # SKIP {why}", flush=True)
        except Exception as error:  # a test that breaks is a test that fails
            self.failed += 1
            for line in f"{type(error).__name__}: {error}".splitlines()[-40:]:
                print("#", line)
            print(f"not ok {self.number} - {test.__name__}", flush=True)

    def group(self, make, tests):
        made = []
        try:
            for test in tests:
                if test in self.wanted:
                    self.one(test, make, made)
        finally:
            if made and made[0] is not None:
                made[0].remove()


def main():
    wanted = [test for _, tests in GROUPS for test in tests
              if not sys.argv[1:] or any(part in test.__name__ for part in sys.argv[1:]) or test is builds_packages]
    print(f"1..{len(wanted)}")
    whole = Run(wanted)
    for make, tests in GROUPS:
        whole.group(make, tests)
    return 1 if whole.failed else 0


if __name__ == "__main__":
    sys.exit(main())
