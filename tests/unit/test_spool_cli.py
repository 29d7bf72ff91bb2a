#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
`angarium spool check|stats|dump|adopt`, and what is no number. On the spool of a relay that has mail it cannot deliver. Arguments: angariumd, angarium. Prints TAP.
"""
import json
import os
import resource
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import sys
import tempfile
import time

DAEMON, CLI = sys.argv[1:3]
FOLDER = tempfile.mkdtemp(prefix="test_spool_cli.")
MESSAGES = 5
CHECKSUM_TABLE = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PORT, DEAD_PORT = free_port(), free_port()


def path(name):
    return os.path.join(FOLDER, name)


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


def wait_until(is_true, what, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise AssertionError("never happened: " + what)
        time.sleep(0.05)


def cli(*arguments):
    done = subprocess.run((CLI, "-s", path("control.sock")) + arguments, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def queue_count():
    status, text, _ = cli("status", "--json")
    return json.loads(text)["queue"]["messages"] if status == 0 else -1


class Relay:
    running = []

    def __init__(self, spool):
        with open(path("relay.yaml"), "w", encoding="utf-8") as file:
            file.write(f"""hostname: relay.example
listen: [{{address: "127.0.0.1:{PORT}"}}]
dns: {{resolvers: ["127.0.0.1:9"]}}
routes: [{{match: "*", hosts: [{{host: 127.0.0.1, port: {DEAD_PORT}}}]}}]
spool: {{directory: {path(spool)}, size: 128MB, segment: 4MiB, reserve: 4MiB}}
buffers: {{memory: 64MiB}}
queue: {{body_memory: 4MiB}}
flows: 256
control: {{socket: {path("control.sock")}}}
delivery: spool
""")
        with open(path("log"), "ab") as log:
            self.child = subprocess.Popen([DAEMON, "-c", path("relay.yaml")], stdout=log, stderr=log)
        Relay.running.append(self.child)

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        expect(self.child.wait(60) == 0, "the relay's end")

    def refuses_to_start(self):
        return self.child.wait(60) == 1


def submit():
    with smtplib.SMTP("127.0.0.1", PORT, timeout=60) as client:
        for number in range(MESSAGES):
            client.sendmail("sender@example.org", ["somebody@dead.example"], f"Subject: {number}\r\n\r\n" + "text\r\n" * 1000)


def records(spool="spool", *more):
    status, text, errors = cli("spool", "dump", path(spool), *more, "--json")
    expect(status == 0, errors)
    return [json.loads(line) for line in text.splitlines()]


def summary(spool="spool"):
    status, text, errors = cli("spool", "check", path(spool), "--json")
    return status, json.loads(text) if text else errors


def checksum(octets):
    """CRC-32C, as the format has it."""
    if not CHECKSUM_TABLE:
        for value in range(256):
            for _ in range(8):
                value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
            CHECKSUM_TABLE.append(value)
    value = 0xffffffff
    for octet in octets:
        value = value >> 8 ^ CHECKSUM_TABLE[(value ^ octet) & 255]
    return value ^ 0xffffffff


def a_running_relays_spool_is_left_alone():
    relay = Relay("spool")
    wait_until(lambda: queue_count() == 0, "the relay runs")
    submit()
    for verb in ("check", "stats", "dump"):
        status, _, errors = cli("spool", verb, path("spool"))
        expect(status == 1 and "a relay uses this spool" in errors, errors)
    status, _, errors = cli("spool", "adopt", path("spool"), path("spool"))
    expect(status == 1 and "a relay uses this spool" in errors, errors)
    relay.stop()


def check_finds_nothing_wrong():
    status, counts = summary()
    expect(status == 0, counts)
    expect(counts["messages_live"] == MESSAGES and counts["messages_lost"] == 0, counts)
    expect(counts["records"]["MESSAGE"] == MESSAGES and counts["records"]["damaged"] == 0, counts)
    expect(MESSAGES * 6000 < counts["octets_live"] < counts["octets_total"], counts)


def stats_tell_of_every_segment():
    status, text, errors = cli("spool", "stats", path("spool"))
    expect(status == 0, errors)
    names = [name for name in os.listdir(path("spool")) if name.endswith(".spool")]
    expect(all(name in text for name in names), text)
    expect(f"messages   {MESSAGES} live, 0 lost" in text, text)


def dump_has_the_records_of_one_message():
    some = [record["id"] for record in records() if record["type"] == "MESSAGE"][0]
    types = [record["type"] for record in records("spool", some)]
    expect(types[:2] == ["BODY", "MESSAGE"] and set(types[2:]) <= {"PROGRESS"}, types)
    status, _, errors = cli("spool", "dump", path("spool"), "x")
    expect(status == 1 and "not the id of a message" in errors, errors)


def damage_is_found_and_costs_its_own_message():
    """In a segment without an index, which later batches prove to have been durable. A body that is damaged is found when it is read."""
    for kind, offset, live in (("BODY", 64 + 100, MESSAGES), ("BODY", 20, MESSAGES), ("MESSAGE", 64 + 20, MESSAGES - 1), ("MESSAGE", 4, MESSAGES - 1)):
        shutil.rmtree(path("copy"), ignore_errors=True)
        shutil.copytree(path("spool"), path("copy"))
        # Not the last record of the log: a torn end was never acknowledged, and is no damage.
        record = [record for record in records("copy") if record["type"] == kind][0]
        with open(os.path.join(path("copy"), record["segment"]), "r+b") as file:
            file.seek(record["offset"] + offset)
            octet = file.read(1)[0]
            file.seek(record["offset"] + offset)
            file.write(bytes([octet ^ 16]))
        status, counts = summary("copy")
        expect(status == 1 and counts["records"]["damaged"] == 1, (kind, offset, counts))
        expect(counts["messages_live"] == live and counts["segments"]["damaged"] == 1, (kind, offset, counts))


def a_newer_format_is_refused():
    shutil.rmtree(path("newer"), ignore_errors=True)
    shutil.copytree(path("spool"), path("newer"))
    name = sorted(name for name in os.listdir(path("newer")) if name.endswith(".spool"))[0]
    with open(os.path.join(path("newer"), name), "r+b") as file:
        header = bytearray(file.read(60))
        struct.pack_into("<I", header, 8, struct.unpack_from("<I", header, 8)[0] + 1)
        file.seek(0)
        file.write(bytes(header) + struct.pack("<I", checksum(header)))
    status, errors = summary("newer")
    expect(status == 1 and "newer version" in errors, errors)
    before = {name: os.stat(os.path.join(path("newer"), name)).st_mtime_ns for name in os.listdir(path("newer"))}
    expect(Relay("newer").refuses_to_start(), "a relay started on a newer spool")
    after = {name: os.stat(os.path.join(path("newer"), name)).st_mtime_ns for name in os.listdir(path("newer"))}
    expect(before == after, "something was written")
    with open(path("log"), encoding="utf-8") as file:
        expect("written by a newer version" in file.read())


def adopt_moves_a_dead_hosts_mail():
    relay = Relay("other")
    wait_until(lambda: queue_count() == 0, "the other relay runs")
    shutil.copytree(path("spool"), path("dead"))
    status, text, errors = cli("spool", "adopt", path("dead"), path("other"))
    expect(status == 0 and f"with {MESSAGES} messages moved" in text, text + errors)
    expect(not [name for name in os.listdir(path("dead")) if name.endswith(".spool")], os.listdir(path("dead")))
    relay.stop()
    relay = Relay("other")
    wait_until(lambda: queue_count() == MESSAGES, "the mail of the dead host")
    relay.stop()


def adopt_may_be_repeated():
    """Broken off between its steps, it leaves the segment in both places: the next one only removes it."""
    shutil.copytree(path("spool"), path("again"))
    os.mkdir(path("target"))
    saved = path("saved")
    shutil.copytree(path("again"), saved)
    expect(cli("spool", "adopt", path("again"), path("target"))[0] == 0)
    names = sorted(os.listdir(path("target")))
    for name in os.listdir(saved):
        shutil.copy(os.path.join(saved, name), path("again"))
    status, text, errors = cli("spool", "adopt", path("again"), path("target"))
    expect(status == 0, text + errors)
    expect(sorted(os.listdir(path("target"))) == names, os.listdir(path("target")))
    status, counts = summary("target")
    expect(status == 0 and counts["messages_live"] == MESSAGES, counts)


def a_segment_that_was_cut_short_keeps_what_it_has():
    """As a rescue of a dying disk may leave it: behind the first message, and in the middle of the last one's body. A slow disk has mail in several segments."""
    messages = [record for record in records() if record["type"] == "MESSAGE"]
    last_body = [record for record in records() if record["type"] == "BODY"][-1]
    for segment, at in ((messages[0]["segment"], messages[0]["offset"] + 64 + messages[0]["size"]), (last_body["segment"], last_body["offset"] + 100)):
        shutil.rmtree(path("cut"), ignore_errors=True)
        shutil.copytree(path("spool"), path("cut"))
        os.truncate(os.path.join(path("cut"), segment), at)
        live = sum(message["segment"] != segment or message["offset"] < at for message in messages)
        status, counts = summary("cut")
        expect(status == 1 and counts["segments"]["damaged"] == 1, counts)
        expect(counts["messages_live"] == live, (live, counts))
    expect(live == MESSAGES - 1, live)
    relay = Relay("cut")
    wait_until(lambda: queue_count() == MESSAGES - 1, "the mail before the cut")
    relay.stop()


def what_is_no_file_is_passed_over():
    """Pipes by the names of segments and of kept files: nothing waits for who might write to them."""
    shutil.copytree(path("spool"), path("pipes"))
    os.mkdir(path("pipes_heir"))
    for name in ("pipes/00000001-9-9.spool", "pipes/limits", "pipes/orders.adopted", "pipes_heir/orders.adopted"):
        os.mkfifo(path(name))
    relay = Relay("pipes")
    wait_until(lambda: queue_count() == MESSAGES, "the mail beside a pipe")
    relay.stop()
    status, text, errors = cli("spool", "adopt", path("pipes"), path("pipes_heir"))
    expect(status == 0 and f"with {MESSAGES} messages moved" in text, text + errors)


def adopt_to_a_full_disk_says_so():
    """To another file system, with room for half a segment: nothing is left there, all of it here."""
    target = tempfile.mkdtemp(prefix="test_spool_cli.", dir="/dev/shm")
    try:
        if os.stat(target).st_dev == os.stat(FOLDER).st_dev:
            return
        shutil.copytree(path("spool"), path("large"))
        done = subprocess.run((CLI, "spool", "adopt", path("large"), target), capture_output=True, text=True, timeout=60, check=False,
                              preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                                                  resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 19, 5 << 19))))
        expect(done.returncode == 1 and "File too large" in done.stderr, done.stdout + done.stderr)
        expect(not [name for name in os.listdir(target) if "spool" in name], os.listdir(target))
        expect(summary("large")[1]["messages_live"] == MESSAGES)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def order(*words):
    """Its number, and how many recipients it met."""
    status, text, errors = cli(*words, "--json")
    expect(status == 0, text + errors)
    answer = json.loads(text)
    return answer["order"], answer["matched"]


def held():
    status, text, errors = cli("queue", "list", "state=held", "--json")
    expect(status == 0, errors)
    return len(json.loads(text)["rows"])


def orders_of_a_dead_host_keep_their_numbers():
    """What they hold stays held, under their numbers, which no order of the living host gets."""
    relay = Relay("held")
    wait_until(lambda: queue_count() == 0, "the relay runs")
    submit()
    wait_until(lambda: queue_count() == MESSAGES, "the mail")
    dead, matched = order("hold", "all", "--reason", "for later")
    expect(matched == MESSAGES, matched)
    relay.stop()
    last = (dead + 100000) % 4000000  # it has gone on giving numbers, faster than the clock
    row = struct.pack("<I", last)
    with open(os.path.join(path("held"), "orders"), "wb") as file:
        file.write(b"angarium orders 2\n".ljust(24, b"\0") + struct.pack("<II", 1, checksum(row)) + row)
    os.mkdir(path("heir"))
    status, text, errors = cli("spool", "adopt", path("held"), path("heir"))
    expect(status == 0, text + errors)
    relay = Relay("heir")
    wait_until(lambda: queue_count() == MESSAGES, "the mail of the dead host")
    expect(held() == MESSAGES, held())
    ours, matched = order("hold", "domain=else.example", "--duration", "1h", "--reason", "else")
    expect(matched == 0 and last < ours < last + 100, (last, ours))
    expect(cli("queue", "cancel", str(ours))[0] == 0)
    expect(held() == MESSAGES, held())
    status, text, errors = cli("release", f"order={dead}")
    expect(status == 0, text + errors)
    wait_until(lambda: held() == 0, "nothing is held")
    relay.stop()


def numbers_are_numbers():
    for words in (("flows", "--limit", "x"), ("flows", "--limit", "-1"), ("flows", "--limit", ""), ("flows", "--limit", "9" * 19),
                  ("capture", "--file", path("pcap"), "--seconds", "-1"), ("capture", "--file", path("pcap"), "--count", "1e3")):
        status, _, errors = cli(*words)
        expect(status == 2 and "\nusage: " in errors, f"{words}: {status}: {errors}")
    for number in ("0", "9" * 18):
        status, _, errors = cli("flows", "--limit", number)
        expect(status == 1 and "no relay at" in errors, errors)


def main():
    tests = [numbers_are_numbers, a_running_relays_spool_is_left_alone, check_finds_nothing_wrong, stats_tell_of_every_segment,
             dump_has_the_records_of_one_message, damage_is_found_and_costs_its_own_message, a_newer_format_is_refused, adopt_moves_a_dead_hosts_mail, adopt_may_be_repeated, a_segment_that_was_cut_short_keeps_what_it_has,
             what_is_no_file_is_passed_over, adopt_to_a_full_disk_says_so, orders_of_a_dead_host_keep_their_numbers]
    print(f"1..{len(tests)}")
    failed = 0
    for number, test in enumerate(tests, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}", flush=True)
        except Exception as error:  # a test that breaks is a test that fails
            failed += 1
            for line in f"{type(error).__name__}: {error}".splitlines():
                print("#", line)
            print(f"not ok {number} - {test.__name__}", flush=True)
    for child in Relay.running:
        if child.poll() is None:
            child.kill()
            child.wait()
    if failed:
        with open(path("log"), encoding="utf-8", errors="replace") as file:
            for line in file.read().splitlines()[-40:]:
                print("#", line)
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
