#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
angariumd under a service manager, played by a datagram socket: ready when it listens, reload, a shard
that is stuck (its thread is held by ptrace) starves the watchdog, stop. And the unit file itself.
Arguments: angariumd, folder of the unit. Prints TAP.
"""
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

DAEMON, UNITS = sys.argv[1:3]
FOLDER = tempfile.mkdtemp(prefix="test_service.")
WATCHDOG = 0.5
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000  # waitpid() for a thread


class Skip(Exception):
    pass


def path(name):
    return os.path.join(FOLDER, name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PORT = free_port()


class Manager:
    """The daemon, and the fields that it said."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path("notify"))
        self.said = []
        self.position = 0  # behind what wait() has found
        with open(path("relay.yaml"), "w", encoding="utf-8") as file:
            file.write(f"""hostname: relay.example
cores: 2
listen: [{{address: "127.0.0.1:{PORT}"}}]
dns: {{resolvers: ["127.0.0.1:9"]}}
spool: {{directory: {path("spool")}, size: 128MB, segment: 4MiB, reserve: 4MiB}}
buffers: {{memory: 64MiB}}
queue: {{body_memory: 4MiB}}
flows: 256
records: {{file: {path("records.json")}}}
control: {{socket: {path("control.sock")}}}
delivery: spool
""")
        environment = dict(os.environ, NOTIFY_SOCKET=path("notify"), WATCHDOG_USEC=str(int(WATCHDOG * 1e6)))
        with open(path("log"), "w", encoding="utf-8") as log:
            self.child = subprocess.Popen([DAEMON, "-c", path("relay.yaml")], env=environment, stderr=log)

    def hear(self, seconds):
        """What is said in this time."""
        end, first = time.monotonic() + seconds, len(self.said)
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                text = self.socket.recv(4096).decode()
                self.said += text.splitlines()
        return self.said[first:]

    def wait(self, start, seconds=60):
        """The next field that starts so, behind what was waited for before."""
        end = time.monotonic() + seconds
        while True:
            while self.position < len(self.said):
                field = self.said[self.position]
                self.position += 1
                if field.startswith(start):
                    return field
            expect(time.monotonic() < end and self.child.poll() is None, f"never said: {start}; {self.said}")
            self.hear(0.05)


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


def is_ready_when_it_listens(manager):
    manager.wait("READY=1")
    with socket.create_connection(("127.0.0.1", PORT), 60) as client:
        expect(client.recv(100).startswith(b"220 "))


def feeds_while_all_is_well(manager):
    manager.wait("STATUS=0 sessions open, 0 messages in the queue")
    fed = []
    while max(fed, default=0) < 6 and len(fed) < 10:  # four times in its time, unless others have the processors for a while
        fed.append(manager.hear(2 * WATCHDOG).count("WATCHDOG=1"))
    expect(max(fed) >= 6, fed)


def tells_of_a_reload(manager):
    manager.child.send_signal(signal.SIGHUP)
    manager.wait("RELOADING=1")
    manager.wait("READY=1")
    with open(path("relay.yaml"), "r+", encoding="utf-8") as file:
        right = file.read()
        file.write("coers: 1\n")
    manager.child.send_signal(signal.SIGHUP)
    expect("the last reload failed" in manager.wait("STATUS=0 sessions open, 0 messages in the queue; "), manager.said)
    with open(path("relay.yaml"), "w", encoding="utf-8") as file:
        file.write(right)


def shard_thread(process):
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/comm", encoding="utf-8") as file:
            if file.read().strip() == "shard 1":
                return int(thread)
    raise AssertionError("no thread of shard 1")


def a_stuck_shard_starves_the_watchdog(manager):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    thread = shard_thread(manager.child.pid)
    if libc.ptrace(PTRACE_SEIZE, thread, None, None) != 0:
        raise Skip("ptrace is not allowed: " + os.strerror(ctypes.get_errno()))
    libc.ptrace(PTRACE_INTERRUPT, thread, None, None)
    os.waitpid(thread, WALL)
    manager.hear(2 * WATCHDOG)  # of the round that was under way
    manager.child.send_signal(signal.SIGHUP)
    said = manager.hear(2 * WATCHDOG)
    libc.ptrace(PTRACE_DETACH, thread, None, None)
    expect("WATCHDOG=1" not in said, said)
    expect("RELOADING=1" in said and "READY=1" not in said, said)  # it has not all new settings
    with open(path("log"), encoding="utf-8") as file:
        expect("event=stuck shard=1" in file.read())
    manager.position = len(manager.said)
    manager.wait("READY=1")
    manager.wait("WATCHDOG=1")  # it moves again


def tells_of_the_stop(manager):
    manager.child.send_signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    expect(manager.child.wait(60) == 0)


def unit_is_valid(_):
    tool = shutil.which("systemd-analyze")
    if tool is None:
        raise Skip("systemd-analyze is not installed")
    for drop_in in (None, "dpdk.conf"):
        folder = path("units-" + str(drop_in))
        os.makedirs(folder + "/angarium.service.d")
        with open(UNITS + "/angarium.service", encoding="utf-8") as file:
            text = file.read().replace("/usr/sbin/angariumd", "/bin/true").replace("/usr/bin/angarium", "/bin/true")
        with open(folder + "/angarium.service", "w", encoding="utf-8") as file:
            file.write(text)
        if drop_in:
            shutil.copy(f"{UNITS}/{drop_in}", folder + "/angarium.service.d")
        done = subprocess.run([tool, "verify", "--man=no", "--recursive-errors=no", folder + "/angarium.service"],
                              capture_output=True, text=True, timeout=60, check=False)
        complaints = [line for line in done.stderr.splitlines() if "angarium" in line]
        expect(done.returncode == 0 and not complaints, done.stderr)


def unit_lets_it_confine_itself(_):
    """Both are in @privileged, or in no set at all with Debian 12's systemd: refused, the relay would end at its start."""
    with open(UNITS + "/angarium.service", encoding="utf-8") as file:
        filters = [line.split("=", 1)[1].split() for line in file.read().splitlines() if line.startswith("SystemCallFilter=")]
    last = max(i for i, words in enumerate(filters) if words[0].startswith("~"))
    later = {word for words in filters[last + 1:] for word in words}
    expect({"capset", "seccomp"} <= later, f"not let through behind the last refusal: {filters}")


def main():
    tests = [is_ready_when_it_listens, feeds_while_all_is_well, tells_of_a_reload, a_stuck_shard_starves_the_watchdog,
             tells_of_the_stop, unit_is_valid, unit_lets_it_confine_itself]
    print(f"1..{len(tests)}")
    manager, failed = Manager(), 0
    for number, test in enumerate(tests, 1):
        try:
            test(manager)
            print(f"ok {number} - {test.__name__}", flush=True)
        except Skip as reason:
            print(f"ok {number} - {test.__name__} # SKIP {reason}", flush=True)
        except Exception as error:  # a test that breaks is a test that fails
            failed += 1
            for line in f"{type(error).__name__}: {error}".splitlines():
                print("#", line)
            print(f"not ok {number} - {test.__name__}", flush=True)
    if failed:
        with open(path("log"), encoding="utf-8", errors="replace") as file:
            for line in file.read().splitlines()[-60:]:
                print("#", line)
    if manager.child.poll() is None:
        manager.child.kill()
        manager.child.wait()
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
