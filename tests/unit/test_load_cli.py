#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
angarium-load: what it refuses to do and how it says so, source against sink in every mode with a ledger, moods as a client sees them, the report,
and relays with planted bugs, each of which the ledger must see. Argument: angarium-load. Prints TAP.
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

LOAD = sys.argv[1]
FOLDER = tempfile.mkdtemp(prefix="test_load_cli.")
CHECKS = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def path(name, text=None):
    full = os.path.join(FOLDER, name)
    if text is not None:
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
    return full


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


def check(title):
    def register(function):
        CHECKS.append((title, function))
        return function
    return register


def run(*arguments, status=0, **environment):
    done = subprocess.run([LOAD] + [str(a) for a in arguments], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, **environment})
    expect(done.returncode == status, "%s: status %d\n%s%s" % (arguments, done.returncode, done.stdout, done.stderr))
    return done


def both(*arguments, status=0):
    """Totals of source and sink, by name."""
    place = "127.0.0.1:%d" % free_port()
    done = run("both", "-j", "-q", *arguments, place, place, status=status)
    return {row["what"]: row for row in map(json.loads, done.stdout.splitlines())}


class Sink:
    def __init__(self, *arguments):
        self.port = free_port()
        self.child = subprocess.Popen([LOAD, "sink", "-q", "-j"] + [str(a) for a in arguments] + ["127.0.0.1:%d" % self.port],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                expect(time.monotonic() < end and self.child.poll() is None, "the sink does not listen")
                time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.output = self.child.communicate(timeout=60)
        expect(self.child.returncode == 0, "sink: " + str(self.output))

    def total(self):
        return json.loads(self.output[0].splitlines()[-1])


class Client:
    """One connection, octet by octet."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.settimeout(10)
        self.file = self.socket.makefile("rb")

    def reply(self):
        lines = []
        while True:
            try:
                line = self.file.readline().decode()
            except ConnectionResetError:
                line = ""
            lines.append(line.rstrip("\r\n"))
            if line == "" or line[3:4] != "-":
                return "\n".join(lines)

    def say(self, text):
        self.socket.sendall(text.encode())
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()


def take_message(client):
    """One message of a client of ours: (recipient, text with dots on)."""
    recipient = ""
    while True:
        line = client.readline()
        if line == b"":
            return None
        verb = line[:4].upper()
        if verb == b"RCPT":
            recipient = line[line.index(b"<") + 1:line.index(b">")].decode()
        if verb == b"DATA":
            client.write(b"354 go on\r\n")
            client.flush()
            text = b""
            while not text.endswith(b"\r\n.\r\n"):
                text += client.readline()
            client.write(b"250 taken\r\n")
            client.flush()
            return recipient, text
        client.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
        client.flush()
        if verb == b"QUIT":
            return None


def serve(function):
    """A server of one connection on a thread; returns its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def body():
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as client:
            function(client)
        listener.close()
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return listener.getsockname()[1]


# ---- the command line ----

# command, option, the lowest and the highest it takes, and the next beyond both (None: there is none)
BOUNDS = [
    ("source", "-s", "1", "1000000", "0", "1000001"),
    ("source", "-m", "1", "4294967295", "0", "4294967296"),
    ("source", "-t", "1", "10000000", "0", "10000001"),
    ("source", "-c", "0", "4294967295", None, "4294967296"),
    ("source", "-R", "0.0001", "10000000", "0", "10000000.0001"),
    ("source", "--ramp", "0", "86400", None, "86401"),
    ("source", "--idle", "0", "1000000", None, "1000001"),
    ("source", "-l", "4", "64M", "3", "67108865"),
    ("source", "-r", "1", "10000", "0", "10001"),
    ("source", "--timeout", "1", "86400", "0", "86401"),
    ("source", "-S", "0", "4294967295", None, "4294967296"),
    ("sink", "--limit", "1", "1000000", "0", "1000001"),
    ("sink", "-w", "0", "3600000", None, "3600001"),
    ("sink", "-4", "0", "100", None, "100.0001"),
    ("sink", "-M", "0", "86400", None, "86401"),
    ("sink", "--tarpit", "0", "60000", None, "60001"),
    ("both", "--drain", "0", "86400", None, "86401"),
    ("audit", "-r", "1", "10000", "0", "10001"),
]


@check("every bound is taken, and the next value beyond it is not")
def bounds():
    for command in ("source", "sink", "both", "audit"):
        rows = [row for row in BOUNDS if row[0] == command]
        run(command, *[word for row in rows for value in row[2:4] for word in (row[1], value)], "--help")
        for row in rows:
            for value in filter(None, row[4:]):
                done = run(command, row[1], value, "--help", status=2, ASAN_OPTIONS="detect_leaks=0")
                expect(value in done.stderr, "%s %s: %s" % (row, value, done.stderr))
    run("sink", "-D", "x", "--mtu", "576", "--mtu", "9198", "--help")


REFUSED = [
    ((), "source, sink, both or audit?"),
    (("send",), "no such command: send"),
    (("source",), "one address is wanted"),
    (("source", "127.0.0.1:25", "127.0.0.1:26"), "one address is wanted"),
    (("both", "127.0.0.1:25"), "two addresses are wanted"),
    (("audit",), "which ledgers?"),
    (("source", "127.0.0.1"), "not an IP:PORT"),
    (("source", "127.0.0.1:0"), "not an IP:PORT"),
    (("source", "127.0.0.1:65536"), "not an IP:PORT"),
    (("source", "localhost:25"), "not an IP:PORT"),
    (("source", "::1:25x"), "not an IP:PORT"),
    (("source", "--frobnicate", "127.0.0.1:25"), "no such option: --frobnicate"),
    (("source", "-m", "5", "-zq", "127.0.0.1:25"), "no such option: -z"),
    (("source", "-q", "-z", "127.0.0.1:25"), "no such option: -z"),
    (("source", "--quiet=5", "127.0.0.1:25"), "no such option: --quiet=5"),
    (("source", "-m"), "-m wants a value"),
    (("source", "-m", "x", "127.0.0.1:25"), "--messages: not a number: x"),
    (("source", "-m", "-1", "127.0.0.1:25"), "--messages: not a number"),
    (("source", "-s", "1000001", "127.0.0.1:25"), "--sessions: 1000001 is not within"),
    (("source", "-l", "3", "127.0.0.1:25"), "--length: 3 is not a size within 4 and 67108864"),
    (("source", "-R", "0", "127.0.0.1:25"), "--rate: 0 is not a rate"),
    (("source", "-t", "10", "--ramp", "10", "127.0.0.1:25"), "--ramp: it is not over before"),
    (("source", "-f", "a b", "127.0.0.1:25"), "--from: not an address"),
    (("source", "-f", "x" * 256, "127.0.0.1:25"), "--from: not an address"),
    (("source", "--hello", "", "127.0.0.1:25"), "--hello: not a name"),
    (("source", "-f", "", "--sender-domains", "a", "127.0.0.1:25"), "the sender is empty"),
    (("source", "-d", "a:1,b", "127.0.0.1:25"), "--domains: row 2: either all have a weight or none"),
    (("source", "-d", "@/nowhere", "127.0.0.1:25"), "--domains: cannot read /nowhere"),
    (("source", "--sizes", "/nowhere", "127.0.0.1:25"), "--sizes: cannot read /nowhere"),
    (("source", "--starttls", "--tls", "127.0.0.1:25"), "--starttls or --tls, not both"),
    (("source", "--latency", "5", "127.0.0.1:25"), "--latency is not an option of source"),
    (("sink", "--rate", "5", "127.0.0.1:25"), "--rate is not an option of sink"),
    (("sink", "--drain", "5", "127.0.0.1:25"), "--drain is not an option of sink"),
    (("sink", "-4", "60", "-5", "40.0001", "127.0.0.1:25"), "--permfail: the odds of this step add up to more than 100 %: rcpt"),
    (("sink", "--delay", "rcpt:x", "127.0.0.1:25"), "--delay: STEP:MS or STEP:MS-MS is wanted"),
    (("sink", "--reject", "rcpt:250:1", "127.0.0.1:25"), "--reject: STEP:CODE:PERCENT is wanted"),
    (("sink", "--drop", "nowhere:1", "127.0.0.1:25"), "--drop: no step at which to hang up: nowhere:1"),
    (("sink", "-s", "5", "--limit", "5", "127.0.0.1:25"), "--limit: 5 is never passed"),
    (("sink", "--certificate", "x", "127.0.0.1:25"), "--certificate and --key go together"),
    (("sink", "--certificate", "x", "--key", "y", "127.0.0.1:25"), "there is no use for it"),
    (("both", "-r", "1001", "127.0.0.1:25", "127.0.0.1:26"), "--recipients: the sink takes 1000"),
    (("source", "-A", "192.0.2.1/24", "127.0.0.1:25"), "--address: give --device first"),
    (("source", "-D", "x", "-A", "192.0.2.1/33", "127.0.0.1:25"), "--address: not an IP/BITS"),
    (("source", "--mtu", "1500", "-D", "x", "127.0.0.1:25"), "--mtu: give --device first"),
    (("source", "-D", "x", "--mtu", "575", "127.0.0.1:25"), "--mtu: 575 is not within 576 and 9198"),
    (("source", "-D", "x", "--mtu", "9199", "127.0.0.1:25"), "--mtu: 9199 is not within 576 and 9198"),
    (("source", "--resume", "127.0.0.1:25"), "--resume: without --starttls or --tls"),
    (("sink", "--idle", "5", "127.0.0.1:25"), "--idle is not an option of sink"),
]


@check("what cannot be is refused, with the option's name, a reason, and where to look")
def refusals():
    for arguments, reason in REFUSED:
        done = run(*arguments, status=2, ASAN_OPTIONS="detect_leaks=0")  # which takes most of the time of so short a life
        expect(reason in done.stderr, "%s: %s" % (arguments, done.stderr))
        expect("--help" in done.stderr and done.stdout == "", str(arguments))
    sizes = path("sizes", "1k 5\n2x 1\n")
    expect("2x is not a size" in run("source", "--sizes", sizes, "127.0.0.1:25", status=2).stderr)
    expect("not both" in run("source", "-l", "5", "--sizes", path("sizes", "1k 1\n"), "127.0.0.1:25", status=2).stderr)
    expect("nothing is refused" in run("sink", "--replies", path("replies", "rcpt 450 1 x\n"), "127.0.0.1:25", status=2).stderr)


@check("every command's help is one screen")
def helps():
    for arguments in (("--help",), ("source", "--help"), ("sink", "-h"), ("both", "--help"), ("audit", "--help")):
        lines = run(*arguments).stdout.splitlines()
        expect(3 < len(lines) <= 40 and max(map(len, lines)) <= 100, "%s: %d lines of %d" % (arguments, len(lines), max(map(len, lines))))


@check("a source with nobody there, refused, or without what it needs, says so and ends")
def hopeless():
    done = run("source", "-q", "127.0.0.1:%d" % free_port(), status=1)
    expect("cannot connect: the peer refused" in done.stderr, done.stderr)
    with Sink("--reject", "connect:554:100") as sink:
        done = run("source", "-q", "-s", 1, "127.0.0.1:%d" % sink.port, status=1)
        expect("the greeting was a refusal: 554" in done.stderr, done.stderr)
    with Sink() as sink:
        for option, what in (("--chunking", "CHUNKING"), ("--starttls", "STARTTLS")):
            done = run("source", "-q", option, "127.0.0.1:%d" % sink.port, status=1)
            expect("%s: the peer does not offer %s" % (option, what) in done.stderr, done.stderr)
        done = run("source", "-q", "-s", 1, "--tls", "127.0.0.1:%d" % sink.port, status=1)
        expect("the peer speaks in the clear" in done.stderr or "before a message could be sent" in done.stderr, done.stderr)
        done = run("sink", "127.0.0.1:%d" % sink.port, status=1)
        expect("cannot listen on 127.0.0.1:%d" % sink.port in done.stderr, done.stderr)
    expect("cannot write the ledger" in run("source", "-L", "/nowhere/x", "127.0.0.1:25", status=1).stderr)


# ---- source against sink ----

MODES = [
    ("plain", ()),
    ("one command at a time", ("--no-pipelining",)),
    ("BDAT", ("--chunking",)),
    ("BDAT, one command at a time", ("--chunking", "--no-pipelining")),
    ("STARTTLS", ("--starttls", "-c", 10)),
    ("TLS from the first octet, BDAT", ("--tls", "--chunking", "-c", 10)),
    ("one message per connection", ("-c", 1)),
    ("open loop with a ramp", ("-R", 300, "--ramp", 1)),
    ("tiny", ("-l", 4)),
    ("large", ("-l", "300k", "-m", 30)),
    ("many recipients, weighted domains", ("-r", 300, "-m", 10, "-d", "a.example:70,b.example:30", "--sender-domains", "x.example,y.example")),
    ("late and octet by octet", ("-m", 5, "--delay", "any:1-3", "--tarpit", 1)),
    ("a null sender, a name", ("-f", "", "--hello", "me.example")),
]


@check("source and sink agree in every mode, and the ledger is clean")
def modes():
    sizes = path("mixed", "# small and large\n100 50\n3k 40\n70k 10\n")
    for number, (name, arguments) in enumerate(MODES + [("a mixture of sizes", ("--sizes", sizes))]):
        ledger = path("ledger%d" % number)
        count = arguments[arguments.index("-m") + 1] if "-m" in arguments else 60
        totals = both("-s", 5, "-m", count, "-L", ledger, *arguments)
        source, sink = totals["source-total"], totals["sink-total"]
        expect(source["messages"] == count == sink["messages"] and sink["damaged"] == 0, "%s: %s" % (name, totals))
        expect(source["recipients"] == sink["recipients"] and source["octets"] == sink["octets"], "%s: %s" % (name, totals))
        expect(sink["latency_us"]["end_to_end"]["count"] == count and sink["skewed"] == 0, "%s: %s" % (name, totals))
        result = totals["audit"]
        expect(result["delivered"] == count and result["lost"] + result["duplicated"] + result["ghosts"] == 0, "%s: %s" % (name, result))


@check("refusals are counted on both sides, and nobody is lost or invented")
def refused_messages():
    for number, mode in enumerate(((), ("--no-pipelining",), ("--chunking",), ("--chunking", "--no-pipelining"))):
        totals = both("-s", 5, "-m", 200, "-r", 2, "-l", 100, "-L", path("refused%d" % number), "-4", 20, "-5", 20, "--reject", "end:5:10",
                      "--reject", "mail:4:5", *mode)
        result, source = totals["audit"], totals["source-total"]
        expect(result["lost"] + result["ghosts"] + result["duplicated"] == 0 and result["refused"] > 5 and result["deferred"] > 5, str(result))
        expect(200 * 2 * 0.2 < source["recipients_refused"] < 200 * 2 * 0.6, str(totals))
        expect(result["acknowledged"] == source["messages"] == totals["sink-total"]["messages"], str(totals))
        expect(source["recipients"] == totals["sink-total"]["recipients"], str(totals))
    again = both("-s", 1, "-m", 200, "-l", 100, "-4", 20, "-S", 7)["sink-total"]["tempfails"]
    expect(again == both("-s", 1, "-m", 200, "-l", 100, "-4", 20, "-S", 7)["sink-total"]["tempfails"] and again > 10, "a seed decides")


@check("a sink that hangs up at any step loses nothing that was acknowledged")
def drops():
    for step in ("connect", "hello", "mail", "rcpt", "data", "body", "end", "taken"):
        ledger = path("drop-" + step)
        result = both("-p", "-s", 3, "-m", 40, "-l", 100, "-L", ledger, "--drop", step + ":20")["audit"]
        expect(result["lost"] + result["ghosts"] + result["damaged"] == 0, "%s: %s" % (step, result))
        expect((result["unknown"] > 0) == (step in ("body", "end", "taken")), "%s: %s" % (step, result))
        expect((result["delivered"] > result["acknowledged"]) == (step == "taken"), "%s: %s" % (step, result))


@check("open loop: a stalled peer shows in the latency from the intended time, not only in its replies")
def no_omission():
    latency = both("-s", 1, "-m", 20, "-R", 200, "-l", 100, "-w", 30)["source-total"]["latency_us"]
    expect(latency["final"]["p50"] < 200000, str(latency))
    # twenty are due within 95 ms, and take 30 ms each, one after the other
    expect(latency["message"]["max"] > 400000 and latency["wait"]["max"] > 400000, str(latency))
    done = both("-s", 1, "-t", 1, "-R", 500, "-l", 100, "-w", 50)["source-total"]
    expect(400 < done["unsent"] < 500 and done["messages"] + done["unsent"] in range(495, 503), str(done))


@check("closed loop: a ramp lets connections in one after the other; the end does not wait for those that hang")
def ramp():
    with Sink("--tarpit", 500) as sink:  # nobody ever gets ready
        started = time.monotonic()
        done = run("source", "-j", "-s", 10, "-t", 3, "--ramp", 2, "127.0.0.1:%d" % sink.port)
        expect(time.monotonic() - started < 20, "it waited")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        expect(rows[0]["open"] in range(4, 8) and rows[-1]["connections"] == 10 and rows[-1]["messages"] == 0, done.stdout)


@check("a session is resumed when that is asked for, from the second handshake on, and not without")
def resumption():
    for mode in ("--starttls", "--tls"):
        total = both("-s", 1, "-c", 1, "-m", 8, "-l", 100, mode, "--resume")["source-total"]
        expect(total["resumed"] == 7 == total["connections"] - 1, str(total))
        expect(both("-s", 1, "-c", 1, "-m", 3, "-l", 100, mode)["source-total"]["resumed"] == 0, mode)


@check("idle connections are there before the first message and until the end, beyond what descriptors were allowed at first")
def idle():
    for arguments in ((), ("--starttls", "-R", 2000), ("-c", 1)):
        totals = both("-s", 3, "--idle", 300, "-m", 50, "-l", 100, *arguments)
        source, sink = totals["source-total"], totals["sink-total"]
        expect(source["idle"] == 300 and source["idle_lost"] == 0 and source["messages"] == 50, str(source))
        # one for each of 50 messages, and at most one a session that was let in when the last had begun
        expect(sink["connections"] == source["connections"] in (range(350, 354) if arguments == ("-c", 1) else (303,)), str(totals))
    script = 'ulimit -Sn 200; exec "$0" "$@"'  # both ends of each connection are this process'
    place = "127.0.0.1:%d" % free_port()
    done = subprocess.run(["sh", "-c", script, LOAD, "both", "-j", "-q", "-s", "1", "--idle", "150", "-m", "1", place, place], capture_output=True, text=True,
                          timeout=60, check=True)
    expect(json.loads(done.stdout.splitlines()[0])["idle"] == 150, done.stdout)


def drop_the_idle(listener):
    """Hangs up on the first connection when a second one is there, and answers the second when there is a third."""
    def greet():
        connection = listener.accept()[0]
        client = connection.makefile("rwb")
        client.write(b"220 x\r\n")
        client.flush()
        client.readline()
        client.write(b"250 x\r\n")
        client.flush()
        return connection, client
    silent, file = greet()
    sender = greet()[1]
    file.close()
    silent.close()
    again = greet()[1]
    for client in (sender, sender, sender, again): # two messages and their QUIT; QUIT
        take_message(client)


@check("an idle connection that is lost is counted and opened again; messages do not wait for what never comes")
def idle_lost():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drop_the_idle, args=(listener,), daemon=True)
        thread.start()
        total = json.loads(run("source", "-j", "-q", "-s", 1, "--idle", 1, "-m", 2, "127.0.0.1:%d" % listener.getsockname()[1]).stdout)
        thread.join(60)
    expect((total["messages"], total["idle"], total["idle_lost"]) == (2, 2, 1), str(total))
    with Sink("--limit", 20, "-s", 100) as sink:
        total = json.loads(run("source", "-p", "-j", "-q", "-s", 1, "--idle", 19, "-m", 1, "--timeout", 30, "127.0.0.1:%d" % sink.port).stdout)
        expect(total["messages"] == 1 and total["idle"] == 19, str(total))
        started = time.monotonic()
        total = json.loads(run("source", "-p", "-j", "-q", "-s", 1, "--idle", 30, "-t", 1, "--timeout", 1, "127.0.0.1:%d" % sink.port).stdout)
        expect(total["idle"] == 20 and total["messages"] == 0 and 1.9 < time.monotonic() - started < 30, str(total))


# ---- moods as a client sees them ----

@check("what a mood says: texts from a file, 421 closes, limits, unknown commands, injected text after STARTTLS")
def dialogues():
    replies = path("words", "rcpt 452 1 4.2.2 mailbox full\n")
    with Sink("--reject", "rcpt:4:100", "--replies", replies, "--limit", 1, "--chunking", "--starttls") as sink:
        one = Client(sink.port)
        while one.reply().startswith("421"):  # the one that looked whether the sink listens is not gone yet
            one = Client(sink.port)
        two = Client(sink.port)
        expect(two.reply().startswith("421 4.7.0") and two.reply() == "", "one too many")
        two.close()
        hello = one.say("EHLO me\r\n")
        expect(all(word in hello for word in ("PIPELINING", "CHUNKING", "STARTTLS", "SIZE")), hello)
        expect(one.say("RCPT TO:<a@b>\r\n").startswith("501"), "no sender yet")
        expect(one.say("MAIL FROM:<>\r\n").startswith("250"), "MAIL")
        expect(one.say("RCPT TO:<a@b>\r\n") == "452 4.2.2 mailbox full", "the file's words")
        expect(one.say("DATA\r\n").startswith("554"), "nobody to send to")
        expect(one.say("BDAT 4 LAST\r\nabcd").startswith("503"), "nor by BDAT, but the octets are taken")
        expect(one.say("NOOP\r\n").startswith("250") and one.say("HELP\r\n").startswith("500"), "others")
        expect(one.say("BDAT x\r\n").startswith("501") and one.reply() == "", "no chunk: the end")
        one.close()
        three = Client(sink.port)
        three.reply()
        said = three.say("STARTTLS\r\nNOOP\r\n") + three.reply()
        expect("250" not in said, "nothing in the clear behind STARTTLS: " + said)
        three.close()
    with Sink("--reject", "mail:421:100") as sink:
        client = Client(sink.port)
        client.reply()
        expect(client.say("MAIL FROM:<a@b>\r\n").startswith("421") and client.reply() == "", "421 ends it")
        client.close()
    with Sink("--chunking", "--reject", "data:554:100") as sink:
        client = Client(sink.port)
        client.reply()
        for command in ("EHLO me\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n"):
            client.say(command)
        expect(client.say("BDAT 4\r\nabcd").startswith("554"), "the chunk is refused")
        expect(client.say("BDAT 4 LAST\r\nabcd").startswith("503"), "and so is what was on its way behind it")
        client.close()
    expect(sink.total()["messages"] == 0, "a message of which a part was refused")
    with Sink("--tarpit", 5) as sink:
        started = time.monotonic()
        client = Client(sink.port)
        client.reply()
        expect(time.monotonic() - started > 0.1, "24 octets of greeting, 5 ms each")
        client.close()


@check("a message of the size that EHLO says is taken, one octet more is not, by DATA and by BDAT")
def large():
    size = 104857600
    text = b"x" * 998 + b"\r\n"
    with Sink("--chunking") as sink:
        for extra, code in ((0, "250"), (1, "552")):
            client = Client(sink.port)
            client.reply()
            expect("SIZE %d" % size in client.say("EHLO me\r\n"), "EHLO")
            for command in ("MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", "DATA\r\n"):
                client.say(command)
            rest = size + extra
            while rest > 1048576:
                client.socket.sendall(text * 1024)
                rest -= 1024000
            client.socket.sendall(b"y" * (rest - 2) + b"\r\n")
            expect(client.say(".\r\n").startswith(code), "DATA of %d" % (size + extra))
            expect(client.say("RSET\r\n").startswith("250"), "and goes on")
            client.close()
        for chunk, reply in (("BDAT %d\r\n" % (size + 1), "552"), ("BDAT 4\r\nabcdBDAT %d LAST\r\n" % (size - 3), "552"),
                             ("BDAT 4294967297 LAST\r\n", "552"), ("BDAT 18446744073709551616 LAST\r\n", "501")):
            client = Client(sink.port)
            for command in ("EHLO me\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", "NOOP\r\n"):
                client.say(command)
            client.reply()
            said = client.say(chunk)
            if chunk.startswith("BDAT 4\r"):
                expect(said.startswith("250"), said)
                said = client.reply()
            expect(said.startswith(reply) and client.reply() == "", chunk + said)
            client.close()


# ---- the report ----

@check("the report: a chart that is XML and has every second, figures that add up")
def report():
    folder = path("report")
    totals = both("-s", 3, "-t", 1, "-R", 200, "-l", 100, "--report", folder)
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        figures = json.load(file)
    for part in ("source", "sink"):
        seconds = figures[part]["seconds"]
        expect(sum(row["messages"] for row in seconds) == figures[part]["total"]["messages"] == totals[part + "-total"]["messages"], part)
        expect(len(seconds) in (1, 2), str(seconds))
    tree = xml.etree.ElementTree.parse(os.path.join(folder, "report.svg"))
    svg = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points").split() for line in tree.iter(svg + "polyline")]
    expect(len(lines) == 5 and all(len(line) >= 2 for line in lines), str(lines))
    for line in lines:
        for point in line:
            x, y = map(float, point.split(","))
            expect(0 <= x <= 960 and 0 <= y <= 600, point)
    text = "".join(tree.getroot().itertext())
    expect("200 messages/s offered" in text and "prefers-color-scheme:dark" in text, text)
    expect("cannot make" in run("both", "-q", "-m", 1, "--report", "/proc/x", *["127.0.0.1:%d" % free_port()] * 2, status=1).stderr)


# ---- planted bugs ----

def forward(port, recipient, text):
    client = Client(port)
    client.reply()
    for command in ("EHLO relay\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<%s>\r\n" % recipient, "DATA\r\n"):
        client.say(command)
    client.socket.sendall(text)
    expect(client.reply().startswith("250"), "forwarded")
    client.close()


def faulty_relay(client, port, harm):
    """Acknowledges everything; message number 3 is harmed."""
    client.write(b"220 relay\r\n")
    client.flush()
    number = 0
    while True:
        message = take_message(client)
        if message is None:
            return
        recipient, text = message
        for harmed in harm(text) if number == 3 else [text]:
            forward(port, recipient, harmed)
        number += 1


PLANTED = [
    ("nothing", lambda text: [text], {}),
    ("one acknowledged message dropped", lambda text: [], {"lost": 1}),
    ("one message doubled", lambda text: [text, text], {"duplicated": 1}),
    ("one octet changed", lambda text: [text.replace(b"======", b"====+=", 1)], {"damaged": 1}),
    ("one octet missing", lambda text: [text.replace(b"======", b"=====", 1)], {"damaged": 1}),
    ("a line lost", lambda text: [text[:text.index(b"\r\n", 400)] + text[text.index(b"\r\n", 500):]], {"damaged": 1}),
    ("a size that lies", lambda text: [text.replace(b" 1000 1 ", b" 1001 1 ")], {"damaged": 1}),
    ("another's name", lambda text: [text.replace(b"-3 1000", b"-2 1000")], {"damaged": 1, "lost": 1}),
]


@check("planted bugs of a relay: lost, doubled, altered: the ledger sees each")
def planted():
    for number, (name, harm, wanted) in enumerate(PLANTED):
        sent, got = path("planted-sent%d" % number), path("planted-got%d" % number)
        with Sink("-L", got) as sink:
            relay = serve(lambda client, harm=harm, port=sink.port: faulty_relay(client, port, harm))
            run("source", "-q", "-s", 1, "-m", 6, "-l", 1000, "-L", sent, "127.0.0.1:%d" % relay)
        result = json.loads(run("audit", "-j", sent, got, status=1 if wanted.get("lost") or wanted.get("damaged") else 0).stdout)
        for key in ("lost", "duplicated", "damaged", "ghosts"):
            # the one that took another's name is a double of that one
            expect(result[key] == wanted.get(key, 0) or (name == "another's name" and key == "duplicated"), "%s: %s" % (name, result))


@check("whose refused mail arrives, or more recipients than were taken, is a ghost")
def ghosts():
    ledger = path("ghosts", "S 1-1 1\nA 1-1 550 1\nR 1-1 u ok\nR 1-2 u ok\nS 1-3 1\nA 1-3 250 1\nR 1-3 u ok\nR 1-3 v ok\nR - w ok\nR 1-4 u o")
    result = json.loads(run("audit", "-j", ledger, status=1).stdout)
    expect(result["ghosts"] == 3 and result["foreign"] == 1 and result["lost"] == 0, str(result))


def main():
    failed = 0
    print("1..%d" % len(CHECKS), flush=True)
    for number, (title, function) in enumerate(CHECKS, 1):
        started = time.monotonic()
        try:
            function()
            print("ok %d - %s (%.1f s)" % (number, title, time.monotonic() - started), flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print("not ok %d - %s" % (number, title))
            for line in (type(error).__name__ + ": " + str(error)).splitlines():
                print("# " + line, flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    sys.exit(1 if failed else 0)


main()
