#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The life of angariumd as its operator sees it: start, refusals at start, reload, rotation of records,
control socket, stop, restart with mail in the spool. Arguments: angariumd, angarium. Prints TAP.
"""
import base64
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import smtplib
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time

DAEMON, CLI = sys.argv[1:3]
FOLDER = tempfile.mkdtemp(prefix="test_daemon.")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


PORT, SECOND_PORT, DEAD_PORT, HOP_PORT = free_port(), free_port(), free_port(), free_port()


def path(name):
    return os.path.join(FOLDER, name)


def write_config(name, port=PORT, spool="spool", control="control.sock", more="", cores=1):
    with open(path(name), "w", encoding="utf-8") as file:
        file.write(f"""hostname: relay.example
cores: {cores}
listen: [{{address: "127.0.0.1:{port}", tls: {{self_signed: {path("tls")}}}}}]
dns: {{resolvers: ["127.0.0.1:9"]}}
routes:
  - {{match: dead.example, hosts: [{{host: 127.0.0.1, port: {DEAD_PORT}}}]}}
  - {{match: hole.example, via: discard}}
  - {{match: hop.example, hosts: [{{host: 127.0.0.1, port: {HOP_PORT}}}]}}
spool: {{directory: {path(spool)}, size: 128MB, segment: 4MiB, reserve: 4MiB}}
buffers: {{memory: 64MiB}}
queue: {{body_memory: 4MiB}}
flows: 256
records: {{file: {path("records.json")}, raw: {path("records.raw")}}}
control: {{socket: {path(control)}}}
{more}delivery: spool
""")
    return path(name)


def wait_until(is_true, what, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise AssertionError("never happened: " + what)
        time.sleep(0.02)


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Daemon:
    all = []

    def __init__(self, config, port=PORT, descriptors=None):
        self.log = open(path("log"), "ab+")
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))) if descriptors else None
        self.child = subprocess.Popen([DAEMON, "-c", config], stdout=self.log, stderr=self.log, preexec_fn=limit)
        Daemon.all.append(self)
        wait_until(lambda: self.child.poll() is not None or is_open(port), "listens")

    def log_text(self):
        with open(path("log"), encoding="utf-8") as file:
            return file.read()

    def stop(self, number=signal.SIGTERM):
        begun = time.monotonic()
        self.child.send_signal(number)
        status = self.child.wait(60)
        self.log.close()
        return status, time.monotonic() - begun


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


def cli(*arguments):
    return run(CLI, "-s", path("control.sock"), *arguments)


def ask(request):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path("control.sock"))
        client.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(client.makefile().read())


def queue_rows():
    status, text = cli("queue", "list", "--json")
    expect(status == 0, text)
    return json.loads(text)["rows"]


def submit(recipient, port=PORT):
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.sendmail("sender@example.org", [recipient], "Subject: x\r\n\r\nbody\r\n")


def records(name="records.json"):
    with open(path(name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def refuses_wrong_arguments():
    for arguments in ([DAEMON, "-x"], [DAEMON, "file"], [DAEMON, "-c"]):
        status, text = run(*arguments)
        expect(status == 1 and "usage:" in text, text)


def refuses_a_bad_configuration():
    config = write_config("bad.yaml", more="coers: 1\n")
    for arguments in ([DAEMON, "-c", config], [CLI, "check", config]):
        status, text = run(*arguments)
        expect(status == 1 and config + ":15: unknown key \"coers\"" in text, text)
    status, text = run(DAEMON, "-c", path("missing.yaml"))
    expect(status == 1 and "cannot be read" in text, text)


def checks_a_good_one():
    status, text = run(CLI, "check", write_config("relay.yaml"))
    expect(status == 0 and text.endswith("relay.yaml: ok\n"), text)


def the_one_that_is_installed_is_good():
    installed = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../packaging/angarium.yaml")
    status, text = run(CLI, "check", installed)
    expect(status == 0 and text.endswith("angarium.yaml: ok\n"), text)
    text = run(CLI, "config", "show", installed)[1]
    expect(re.search(r"provider +google +# .*providers.yaml:\d+", text), text)


def warns_of_a_small_disk():
    os.makedirs(path("spool"), exist_ok=True)
    with open(path("relay.yaml"), encoding="utf-8") as file:
        text = file.read()
    expect("size: 128MB" in text)
    with open(path("huge.yaml"), "w", encoding="utf-8") as file:
        file.write(text.replace("size: 128MB", "size: 1000TB"))
    status, text = run(CLI, "check", path("huge.yaml"))
    expect(status == 0 and "warning: spool.size is 953674316 MiB, and the disk of " + path("spool") in text, text)
    status, text = run(CLI, "check", path("relay.yaml"))
    expect(status == 0 and "warning" not in text, text)


def looks_without_making_a_key():
    run(CLI, "check", path("relay.yaml"))
    expect(not os.path.exists(path("tls/self-signed.key")), "made by who looked")


def makes_a_private_key(_):
    mode = stat.S_IMODE(os.stat(path("tls/self-signed.key")).st_mode)
    expect(mode == 0o600, oct(mode))
    before = open(path("tls/self-signed.pem"), "rb").read()
    run(CLI, "check", path("relay.yaml"))
    expect(before == open(path("tls/self-signed.pem"), "rb").read(), "made twice")


def tells_what_runs(daemon):
    wait_until(lambda: "control=" in daemon.log_text(), "told")
    text = daemon.log_text()
    for part in (f"listen=127.0.0.1:{PORT} tls=starttls", "spool=" + path("spool"),
                 "records=" + path("records.json"), "control=" + path("control.sock")):
        expect(part in text, text)


def refuses_a_second_on_the_same(_):
    for config, part in (
            (write_config("b.yaml", spool="other", control="other.sock"), f"cannot listen on 127.0.0.1:{PORT}"),
            (write_config("c.yaml", port=SECOND_PORT, control="other.sock"), "another relay uses the spool directory"),
            (write_config("d.yaml", port=SECOND_PORT, spool="other"), "another relay answers there")):
        status, text = run(DAEMON, "-c", config)
        expect(status == 1 and part in text, text)
    expect(cli("status")[0] == 0, "the first one has lost its socket")
    expect(not os.path.exists(path("other.sock")), "a relay that did not start left its socket")


def answers_on_its_socket(_):
    expect(stat.S_IMODE(os.stat(path("control.sock")).st_mode) == 0o600)
    submit("a@hole.example")
    submit("b@dead.example")
    wait_until(lambda: len(records()) >= 4, "records")
    status, text = cli("status")
    expect(status == 0 and "2 messages" in text, text)
    rows = queue_rows()
    expect(len(rows) == 1 and rows[0]["recipient"] == "b@dead.example", rows)
    status, text = cli("queue", "show", rows[0]["id"])
    expect(status == 0 and "<b@dead.example>, waiting, attempts 1, next in" in text, text)
    status, text = cli("queue", "list")
    expect(status == 0 and rows[0]["id"] in text, text)
    for terms, count in ((["domain=dead.example"], 1), (["domain=x.example"], 0), (["state=waiting", "older=1h"], 0)):
        status, text = cli("queue", "list", "--json", *terms)
        expect(status == 0 and len(json.loads(text)["rows"]) == count, text)
    status, text = cli("queue", "list", "--limit", "0", "--json")
    expect(status == 0 and json.loads(text)["id"] == rows[0]["id"], text)
    status, text = cli("queue", "list", "--limit", "0", "state=waiting")
    expect(status == 0 and rows[0]["id"] in text, text)
    expect(cli("queue", "list", "stat=waiting")[0] == 1)
    status, text = cli("queue", "summary", "--by", "domain")
    expect(status == 0 and re.search(r"^dead.example +1 +1 +0", text, re.M), text)
    status, text = cli("site", "show", "dead.example")
    expect(status == 0 and "dead.example" in text and "pauses for" in text and "no rate" in text, text)
    status, text = cli("site", "show", "never.example")
    expect(status == 0 and "no such site" in text, text)
    expect(cli("delete", "domain=dead.example")[0] == 1)  # without a reason
    expect(cli("hold")[0] == 2)
    status, text = cli("hold", "domain=dead.example", "--dry-run")
    expect(status == 0 and text == "1 recipients match; nothing was done\n", text)
    status, text = cli("hold", "domain=dead.example", "--reason", "a look first")
    expect(status == 0 and re.match(r"order \d+: 1 recipients match, 1 done\n", text), text)
    order = text.split()[1].rstrip(":")
    status, text = cli("queue", "list", "order=" + order)
    expect(status == 0 and " held " in text, text)
    status, text = cli("queue", "show", rows[0]["id"])
    expect(status == 0 and "<b@dead.example>, held, attempts 1, next held" in text, text)
    expect(cli("reroute", "domain=dead.example", "--reason", "x")[0] == 1)  # without a domain
    expect(cli("reroute", "domain=dead.example", "--reason", "x", "--to", "a b")[0] == 1)
    expect(cli("hold", "domain=dead.example", "--to", "x.example")[0] == 2)
    status, text = cli("reroute", "domain=dead.example", "--to", "Other.Dead.Example.", "--reason", "moved")
    expect(status == 0 and "1 recipients match, 1 done" in text, text)
    status, text = cli("queue", "list", "order=" + order, "domain=other.dead.example")
    expect(status == 0 and " held " in text, text)
    status, text = cli("release", "order=" + order)
    expect(status == 0 and "1 done" in text, text)
    wait_until(lambda: any(record["type"] == "order" for record in records()), "the record of the order")
    expect(cli("queue", "show", "x")[0] == 1)
    expect(cli("nothing")[0] == 2)
    kinds = [record["type"] for record in records()]
    expect(set(kinds) == {"deferral", "delivery", "order", "reception"} and kinds.count("order") == 3, kinds)


def does_nothing_that_was_not_meant(_):
    """An option that a verb does not look at may be the one that somebody relies on."""
    for words in (["drain", "end", "--dry-run"], ["capture", "--file", "/x", "--dry-run"], ["status", "--limit", "5"],
                  ["queue", "list", "--limit", "x"], ["queue", "list", "--limit"], ["queue", "show", "x", "--header"], ["hold", "all", "-x"]):
        status, text = cli(*words)
        expect(status == 2 and "does not take this: " in text, (words, text))
    expect(is_open(PORT) and "intake" not in cli("status")[1], "nobody drained")
    for verb in ("drain end", "upgrade", "capture", "capture stop"):
        answer = ask({"verb": verb, "dry_run": True})
        expect(answer == {"ok": False, "error": "there is no dry run of this"}, (verb, answer))
    for words in (["drain", "--dry-run"], ["drain", "--stop", "--dry-run"], ["reload", "--dry-run"]):
        status, text = cli(*words)
        expect(status == 0 and text.startswith("nothing was done"), (words, text))
    expect(is_open(PORT), "nobody drained")
    before = [row["id"] for row in queue_rows()]
    for members, why in (({"dry_run": "yes"}, "dry_run must be true or false"), ({"dry_run": 1}, "dry_run must be"),
                         ({"dryrun": True}, "there is no member dryrun"), ({"reason": 5}, "reason must be a string"),
                         ({"dry\u00fc": True}, r"there is no member dry\xc3\xbc")):
        for verb in ("delete", "site resume"):
            answer = ask({"verb": verb, "all": True, "id": "dead.example", "reason": "x", **members})
            expect(answer["ok"] is False and why in answer["error"], (members, answer))
    expect([row["id"] for row in queue_rows()] == before and ask({"verb": "status", "bogus": 1})["ok"], "nothing was done")


def says_how_it_is_used(_):
    status, text = cli("explain", "")
    expect(status == 1 and "say which site, or domain" in text, text)
    status, text = cli("reload", "x.yaml")
    expect(status == 2 and "FILE goes with --or-upgrade" in text, text)
    status, text = cli("queue", "nosuch")
    expect(status == 2 and "no such verb: queue nosuch\n" in text, text)
    status, text = cli("help")
    expect(status == 0 and max(map(len, text.splitlines())) <= 80, text)
    for words, wanted in ((["help", "site"], "  site set NAME connections=N"), (["site", "set", "--help"], "  site set NAME connections=N"), (["-h"], "usage: "),
                          (["help", "drain"], "  drain [--seconds N]")):
        status, text = cli(*words)
        expect(status == 0 and wanted in text and max(map(len, text.splitlines())) <= 80, (words, text))
    for words, wanted in ((["site"], "  site suspend NAME"), (["site", "set"], "  site set NAME"), (["frob"], "no such verb: frob"),
                          (["help", "frob"], "no such verb: frob"), ([], "usage: ")):
        status, text = cli(*words)
        expect(status == 2 and wanted in text, (words, text))


def submit_octets(octets):
    """By BDAT, so that nothing is stuffed or ended. Returns the id."""
    with smtplib.SMTP("127.0.0.1", PORT, timeout=60) as client:
        client.ehlo("client.example")
        client.mail("s@example.org", ["BODY=8BITMIME", "ENVID=QQ314"])
        client.rcpt("c@dead.example", ["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;c@old.example"])
        client.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
        code, text = client.getreply()
        expect(code == 250, text)
        return text.decode().split()[-1]


def cat(*arguments):
    done = subprocess.run([CLI, "-s", path("control.sock"), "queue", "cat", *arguments], capture_output=True, timeout=60,
                          check=False)
    return done.returncode, done.stdout, done.stderr.decode()


def prints_messages_as_they_are(_):
    header = b"Subject: \xc3\xa4\r\n\r\n"
    large = header + b".\xff\x1b[31m\r\n..\r\n" * (3 << 16)
    for octets in (header + b".\r\n..x\r\n", header + b"no end", large):
        number = submit_octets(octets)
        status, raw, error = cat(number, "--message")
        expect(status == 0 and error == "" and raw.startswith(b"Received: ") and raw.endswith(b"\r\n" + octets), error)
        expect(raw[:-len(octets)].count(b"Received: ") == 1, raw[:999])
    prints_each_part(number, raw)
    prints_at_once_and_halfway(number, raw)
    tells_of_a_damaged_body()
    expect(cli("delete", "sender=s@example.org", "--reason", "test")[0] == 0)
    status, raw, error = cat(number, "--message")
    expect(status == 1 and raw == b"" and "no such message in the queue" in error, error)
    expect(cat(number, "--header", "--envelope")[0] == 2)


def prints_each_part(number, raw):
    status, whole, error = cat(number)
    envelope, _, rest = whole.partition(b"\n\n")
    expect(status == 0 and rest == raw, error)
    for part in ("id         " + number, "sender     <s@example.org>", "client     ", "envid      QQ314",
                 f"size       {len(raw)}, header ", "flags      8-bit", "recipient  <c@dead.example>, ", ", to dead.example",
                 "NOTIFY FAILURE, DELAY", "ORCPT rfc822;c@old.example"):
        expect(part in envelope.decode(), envelope)
    expect(cat(number, "--envelope")[1].startswith(b"id         " + number.encode()))
    expect(cat(number, "--header")[1] == raw[:raw.index(b"\r\n\r\n") + 4])
    lines = [json.loads(line) for line in cat(number, "--json")[1].splitlines()]
    expect(b"".join(base64.b64decode(line["octets"]) for line in lines if "octets" in line) == raw)
    expect(lines[0]["message"]["envid"] == "QQ314" and lines[1]["row"]["notify"] == ["FAILURE", "DELAY"], lines[:2])


def prints_at_once_and_halfway(number, raw):
    command = [CLI, "-s", path("control.sock"), "queue", "cat", number, "--message"]
    files = [open(path(f"cat{i}"), "wb+") for i in range(2)]
    children = [subprocess.Popen(command, stdout=file) for file in files]
    for file, child in zip(files, children):
        expect(child.wait(60) == 0)
        file.seek(0)
        expect(file.read() == raw)
        file.close()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        expect(child.stdout.read(1000) == raw[:1000])
        status, text = cli("status")  # it has not been read to its end: others do not wait for that
        expect(status == 0, text)
        child.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        expect(child.stdout.read(1000) == raw[:1000])
        expect(cli("delete", "id=" + number, "--reason", "test")[0] == 0)
        _, error = child.communicate(timeout=60)
        expect(child.returncode == 1 and b"has left the queue while it was read" in error, error)


def tells_of_a_damaged_body():
    mark = b"this octet will change: "
    number = submit_octets(b"Subject: x\r\n\r\n" + mark * 10)
    for name in os.listdir(path("spool")):
        with open(os.path.join(path("spool"), name), "rb+") as file:
            at = file.read().find(mark)
            if at >= 0:
                file.seek(at)
                file.write(b"T")
    status, raw, error = cat(number, "--message")
    expect(status == 1 and raw == b"" and ("damaged" in error or "no such message" in error), error)


def reloads(daemon):
    write_config("relay.yaml", more="mx_port: 0\n")
    status, text = cli("reload")
    expect(status == 1 and "relay.yaml:15: mx_port: expected a number" in text, text)
    expect(is_open(PORT), "the old configuration went")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        write_config("relay.yaml", port=busy.getsockname()[1])
        status, text = cli("reload")
        expect(status == 1 and "cannot listen on 127.0.0.1:" in text, text)
    write_config("relay.yaml", port=SECOND_PORT, more="mx_port: 2526\n")
    status, text = cli("reload")
    expect(status == 0 and text == "reloaded: listen, mx_port\n", text)
    wait_until(lambda: is_open(SECOND_PORT) and not is_open(PORT), "listens elsewhere")
    included = write_config("relay.yaml", port=SECOND_PORT, more='mx_port: 2526\ninclude: ["more.d/*.yaml"]\n')
    os.makedirs(os.path.join(os.path.dirname(included), "more.d"), exist_ok=True)
    more = os.path.join(os.path.dirname(included), "more.d", "a.yaml")
    for line, want in (("max_messages: 1", "a.yaml:1: unknown key"), ("cores: 2", "a.yaml:1: cores: given twice: also in "),
                       ("sources: [{name: s, addresses: [127.0.0.1]}]", "reloaded: sources\n"), ("", "reloaded: sources\n")):
        with open(more, "w", encoding="utf-8") as file:
            file.write(line + "\n")
        text = cli("reload")[1]
        expect(want in text, text)
    write_config("relay.yaml", cores=2)
    daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: "only a restart changes: cores" in daemon.log_text(), "reload by signal")
    wait_until(lambda: is_open(PORT), "listens again")
    write_config("relay.yaml")


def bounds_reloads_by_open_sessions(_):
    """Each session holds the configuration that it began with: there are 32 of them at most."""
    with contextlib.ExitStack() as sessions:
        outcomes = []
        for _ in range(36):
            held = sessions.enter_context(socket.create_connection(("127.0.0.1", PORT), 5))
            held.recv(100)
            outcomes.append(cli("reload")[0])
        expect(outcomes[0] == 0 and outcomes[25] == 0 and outcomes[-1] == 1, outcomes)
    wait_until(lambda: cli("reload")[0] == 0, "old snapshots are freed")


def keeps_records_in_binary(_):
    def printed(*more):
        status, text = cli("records", "print", path("records.raw"), *more)
        expect(status == 0, text)
        return text

    with open(path("records.json"), encoding="utf-8") as file:
        lines = file.read()
    expect(lines.count("\n") > 3, lines)
    wait_until(lambda: printed() == lines, "the same records in binary")
    one = next(record for record in records() if record["type"] == "reception")
    story = [record for record in records() if record.get("id") == one["id"]]
    status, text = cli("records", "find", one["id"], path("records.raw"), "--json")
    expect(status == 0 and json.loads(text)["rows"] == story, text)
    expect(printed("--csv").startswith("type,timeLogged,"))
    status, text = cli("records", "print", path("records.json"))
    expect(status == 1 and "no records in binary" in text, text)


def rotates_records(daemon):
    before = len(records())
    os.rename(path("records.json"), path("records.old"))
    daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: os.path.exists(path("records.json")), "a new file")
    submit("a@hole.example")
    wait_until(lambda: len(records()) == 2, "new records")
    expect(len(records("records.old")) == before)


def resets_who_goes_on_sending(_):
    with socket.create_connection(("127.0.0.1", PORT), 5) as client:
        client.recv(100)
        client.sendall(b"QUIT\r\n")
        sent = 0
        try:
            while sent < 256 << 20:
                sent += client.send(bytes(1 << 20))
        except OSError:
            pass
        expect(sent < 256 << 20, "what comes after the end was read without end")


def drains_on_sigterm(daemon):
    with socket.create_connection(("127.0.0.1", PORT), 5) as idle:
        idle.recv(100)
        status, seconds = daemon.stop()
        expect(status == 0 and seconds < 20, (status, seconds))  # shutdown_timeout: 30 s
        expect(idle.recv(100).startswith(b"421 "), "the idle session was not told")
    expect(not os.path.exists(path("control.sock")))


def has_its_mail_after_a_restart():
    os.unlink(path("spool/learned"))  # the pause would go on, and the mail of this test wait for its end
    daemon = Daemon(write_config("relay.yaml", cores=2))
    wait_until(lambda: len(queue_rows()) == 1, "recovered")
    submit("c@dead.example")
    wait_until(lambda: re.search(r"binds +site pauses for [0-9]+[sm] more after 1 failures", cli("explain", "dead.example")[1]),
               "the site pauses")
    status, text = cli("explain", [row["id"] for row in queue_rows() if row["recipient"] == "c@dead.example"][0])
    expect(status == 0 and "deferred 1 times, pauses grow from" in text and "last reply: " in text, text)
    expect(text.count("site       dead.example") == 1 and text.count("\ncore ") == 2, text)
    goes_on_when_told()
    daemon.stop(signal.SIGKILL)
    daemon = Daemon(path("relay.yaml"))
    wait_until(lambda: len(queue_rows()) == 2, "recovered")
    status, _ = daemon.stop(signal.SIGINT)
    expect(status == 0, status)


def goes_on_when_told():
    """The other side is mended: a retry says that the site pauses, and what ends that; then mail goes at once."""
    ends = "(angarium site resume dead.example ends it)"
    expect("  ahead    next message with this one's end: yes\n" in cli("explain", "dead.example")[1], cli("explain", "dead.example")[1])
    row = json.loads(cli("site", "show", "dead.example", "--json")[1])["rows"][0]
    expect(row["ahead"] == {"next": True, "bdat": False, "bdat_ahead": "never", "learned": 0, "learned_of": 8, "depth": 8, "shy_us": 0}, row)
    expect(ends in cli("explain", "dead.example")[1] and "(site resume ends it)" in cli("site", "show", "dead.example")[1])
    said = r"site dead.example pauses for \d+[sm] more: .* angarium site resume dead.example\n"
    status, text = cli("retry", "domain=dead.example", "--dry-run")
    expect(status == 0 and "pauses" not in text, text)
    for _ in range(2):  # the second time all of it is due already
        status, text = cli("retry", "domain=dead.example")
        expect(status == 0 and "1 recipients match" in text and re.search(said, text), text)
    status, text = cli("retry", "all", "--json")
    expect([row["site"] for row in json.loads(text)["paused"]] == ["dead.example"], text)
    status, text = cli("site", "resume", "dead.example", "--dry-run")
    expect(status == 0 and "nothing was done\nwould end: 1 pauses after failures, 1 sites whose back-off had grown, 1 sites that took "
           "fewer connections, 1 addresses that were tried last\n" in text, text)
    expect(cli("site", "resume", "dead.example", "--reason", "")[0] == 1)
    with socket.create_server(("127.0.0.1", DEAD_PORT)) as mended:
        mended.settimeout(20)
        status, text = cli("site", "resume", "dead.example", "--reason", "mended")
        expect(status == 0 and "1 sites match, 1 done\nended: 1 pauses" in text and "angarium retry site=NAME" in text, text)
        mended.accept()[0].close()
    status, text = cli("site", "resume", "hole.example")
    expect(status == 1 and "no such site" in text, text)
    with open(path("log"), encoding="utf-8") as log:
        expect('verb=resume order=0 site="dead.example" duration_s=0 reason="mended" matched=1 done=1' in log.read())


def remembers_what_it_sent():
    """One message an hour is one, though the relay stops in between, is killed, and comes back with other cores."""
    more = 'sites: [{match: "*", rate: 1/1h}]\n'
    with socket.create_server(("127.0.0.1", HOP_PORT)) as hop:
        hop.settimeout(20)
        daemon = Daemon(write_config("relay.yaml", spool="limited", more=more))
        submit("a@hop.example")
        submit("b@hop.example")
        peer = hop.accept()[0]
        talk = peer.makefile("rw", newline="\r\n")
        for reply in "220 hop", "250 hop", "250 ok", "250 ok", "354 go on":
            talk.write(reply + "\r\n")
            talk.flush()
            talk.readline()
        while talk.readline() != ".\r\n":
            pass
        talk.write("250 ok\r\n")
        talk.flush()
        status, text = cli("site", "show", "hop.example")
        expect(status == 0 and "1/1h has 1, 0 more on their way, the next in 59m" in text, text)
        explains_what_binds()
        operators_suspend_a_site()
        daemon.stop()
        peer.close()
        for number, cores in (signal.SIGTERM, 2), (signal.SIGKILL, 1):
            daemon = Daemon(write_config("relay.yaml", spool="limited", cores=cores, more=more))
            wait_until(lambda: len(queue_rows()) == 1, "recovered")
            text = cli("site", "show", "hop.example")[1]
            expect("suspended for 1h more, by operator: moved" in text, text)
            cli("site", "resume", "hop.example")
            wait_until(lambda: "1/1h has 1, 0 more on their way" in cli("site", "show", "hop.example")[1],
                       f"counted with {cores} cores")
            cli("site", "suspend", "hop.example", "--reason", "moved", "--duration", "1h")
            time.sleep(2.5 if number == signal.SIGKILL else 0)
            daemon.stop(number)
        hop.settimeout(1)
        with contextlib.suppress(TimeoutError):
            hop.accept()
            expect(False, "the second message was tried")
    with open(path("limited/limits"), "r+b") as file: # as the first version wrote it
        new = file.read()
        file.seek(0)
        file.write(new[:16] + b"1" + new[17:32] + new[48:48 + 40 * int.from_bytes(new[24:28], "little")])
        file.truncate()
    daemon = Daemon(path("relay.yaml"))
    expect("suspended" not in cli("site", "show", "hop.example")[1])
    wait_until(lambda: "1/1h has 1," in cli("site", "show", "hop.example")[1], "counted as by the first version")
    daemon.stop()
    with open(path("limited/limits"), "r+b") as file:
        file.seek(48)
        file.write(b"x")
    daemon = Daemon(path("relay.yaml"))
    expect("is damaged" in daemon.log_text(), daemon.log_text())
    daemon.stop()


def patterns_file_is_read():
    """Patterns come from a file of their own, which a reload reads again; a mistake there has its name and line."""
    with open(path("patterns.yaml"), "w", encoding="utf-8") as file:
        file.write("patterns:\n- {name: busy, reply: too many, action: suspend}\n")
    config = write_config("relay.yaml", more="patterns_file: patterns.yaml\n"
                          "patterns: [{name: first, reply: x, action: bounce}]\n")
    daemon = Daemon(config)
    status, text = cli("site", "patterns")
    expect(status == 0 and text.index("first ") < text.index("busy "), text)
    wrong = (("patterns:\n- {name: a, reply: x, action: bounce}\n- {name: b, reply: 'a(b', action: bounce}\n",
              ":3: patterns[]: reply: missing closing parenthesis"),
             ("\nhostname: a.example\n", ":2: hostname: does not belong here"),
             ("patterns:\n- {name: first, reply: x, action: bounce}\n", ":2: patterns[]: name: another pattern has it"),
             ("patterns: [\n", ": YAML: "))
    for content, reason in wrong:
        with open(path("patterns.yaml"), "w", encoding="utf-8") as file:
            file.write(content)
        for status, text in cli("reload"), run(CLI, "check", config):
            expect(status == 1 and path("patterns.yaml") in text and reason in text, text)
    expect("busy " in cli("site", "patterns")[1])
    with open(path("patterns.yaml"), "w", encoding="utf-8") as file:
        file.write("patterns:\n- {name: calm, reply: too many, action: suspend}\n")
    status, text = cli("reload")
    expect(status == 0, text)
    wait_until(lambda: "calm " in cli("site", "patterns")[1] and "busy " not in cli("site", "patterns")[1], "reloaded")
    with open(path("patterns.yaml"), "w", encoding="utf-8") as file:
        file.write("patterns:\n- {name: mild, reply: too many, action: suspend}\n")
    seen = ask({"verb": "site patterns", "max_age_ms": 1000})
    daemon.child.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.log_text().count("event=reload: ") >= 2, "reloaded by signal")
    expect("calm" in str(seen) and "mild" in str(ask({"verb": "site patterns", "max_age_ms": 1000})), "an answer from before")
    daemon.stop()
    os.unlink(path("patterns.yaml"))
    status, text = run(CLI, "check", config)
    expect(status == 1 and re.search(r"relay.yaml:\d+: patterns_file: .*patterns.yaml cannot be read", text), text)


def explains_a_failing_dns(daemon):
    """Its mail waits, and it is said why, since when, and when DNS is asked again; behind a restart, that this is not known. Returns who runs now."""
    submit("f@nowhere.example")
    said = (r"domain +nowhere.example\n +dns +has failed for \d+s: the name servers of the domain do not answer; it is asked again in "
            r"\d+[sm] \(angarium dns lookup nowhere.example asks at once\)\n")
    wait_until(lambda: re.search(said, cli("explain", "nowhere.example")[1]), "it is said that DNS fails", seconds=60)
    dns = json.loads(cli("explain", "nowhere.example", "--json")[1])["explained"][0]["dns"]
    expect(dns["since_us"] < 60e6 and dns["next_us"] > 0 and "name servers" in dns["text"], dns)
    row = next(row for row in queue_rows() if row["recipient"] == "f@nowhere.example")
    expect("dns      has failed for" in cli("explain", row["id"])[1], cli("explain", row["id"]))
    daemon.stop()
    daemon = Daemon(path("relay.yaml"))
    wait_until(lambda: any(row["recipient"] == "f@nowhere.example" for row in queue_rows()), "recovered")
    for what in ("nowhere.example", row["id"]):
        text = cli("explain", what)[1]
        expect("dns      not asked yet for the mail that waits" in text and "has failed" not in text and "site is forgotten" not in text, text)
    expect(json.loads(cli("explain", "nowhere.example", "--json")[1])["explained"][0]["is_looked_up"] is False, "it was")
    cli("delete", "domain=nowhere.example", "--reason", "test")
    return daemon


def operators_suspend_a_source():
    """A source is shown, suspended for a time, with a reason, and resumed, on all cores."""
    daemon = Daemon(write_config("relay.yaml", more="sources:\n- {name: out1, addresses: [127.0.0.1], hello: out1.example}\n"
                                 "- {name: out2, warmup: {schedule: [50, 100], start: 2999-01-01}}\n"))
    status, text = cli("source", "show")
    expect(status == 0 and "127.0.0.1" in text and "out1.example" in text and text.count("in use") >= 2, text)
    expect("its warm-up has not begun" in text, text)
    daemon = explains_a_failing_dns(daemon)
    submit("e@dead.example")
    wait_until(lambda: "site       dead.example from out1\n" in cli("explain", "dead.example")[1], "a site is seen from the source")
    wrong = (("suspend", "out1", "--duration", "1h"), ("suspend", "out1", "--reason", "x"), ("resume", "out3"), ("show", "out3"),
             ("suspend", "out1", "--reason", "x", "--duration", "32d"), ("suspend", "out3", "--reason", "x", "--duration", "1h"))
    for arguments in wrong:
        status, text = cli("source", *arguments)
        expect(status == 1 and text.startswith("angarium: "), text)
    suspend = ("source", "suspend", "OUT1", "--reason", "listed", "--duration", "1h")
    expect("suspended" not in cli(*suspend, "--dry-run")[1])
    status, text = cli(*suspend)
    expect(status == 0 and "suspended for 1h more: listed" in text and "out2" not in text, text)
    expect("suspended" in cli("source", "show", "out1")[1] and "event=source_order" in daemon.log_text())
    text = cli("explain", "dead.example")[1]
    expect(re.search(r"site +dead.example from out1\n +binds +source suspended for (59m|1h) more: listed\n", text), text)
    status, text = cli("source", "resume", "out1")
    expect(status == 0 and "in use" in text and "suspended" not in cli("source", "show")[1], text)
    daemon.stop()


def explains_what_binds():
    """A rate that is used up, mail whose turn it is and mail that is held, a suspended site, and what nobody knows."""
    status, text = cli("explain", "HOP.example")
    expect(status == 0 and re.search(r"binds +rate 1/1h: 1 of 1, the next in (59m|1h)\n", text), text)
    expect(len(re.findall(r"limit +connections configured: 1 of 20\n", text)) == 1, text)
    message = queue_rows()[0]["id"]
    status, text = cli("hold", "domain=hop.example")
    order = text.split()[1].rstrip(":")
    wait_until(lambda: f"held by order {order} until it is released" in cli("explain", message)[1], "held")
    expect("class 0: 0 ready, 0 active, 1 held, 0 waiting" in cli("explain", message)[1], text)
    cli("release", "all")
    wait_until(lambda: "its turn" in cli("explain", message)[1] or "due: 0 of" in cli("explain", message)[1], "released")
    cli("site", "suspend", "hop.example", "--reason", "long", "--duration", "2h")
    status, text = cli("explain", "hop.example")
    expect(re.search(r"binds +site suspended for (1|2)h more \(angarium site resume hop.example ends it\)\n", text) and re.search(r"also +rate 1/1h: 1 of 1", text), text)
    cli("site", "resume", "hop.example")
    status, text = cli("explain", message, "--json")
    answer = json.loads(text)
    expect(status == 0 and answer["explained"][0]["sites"][0]["binds"] == "rate", text)
    expect(answer["recipients"][0]["id"] == message and answer["explained"][0]["goes_to"] == ["hop.example"], text)
    status, text = cli("explain", "nobody.example")
    expect(status == 1 and "no such site or domain" in text, text)
    status, text = cli("explain", message[:-1] + ("0" if message[-1] != "0" else "1"))
    expect(status == 1 and text.startswith("angarium: no such"), text)


def operators_suspend_a_site():
    wrong = (("suspend", "hop.example", "--duration", "1h"), ("suspend", "hop.example", "--reason", "x"),
             ("suspend", "hop.example", "--reason", "x", "--duration", "32d"), ("resume", "other.example"),
             ("suspend", "0123456789abcdef", "--reason", "x", "--duration", "1h"), ("resume", "12345"),
             ("set", "hop.example", "--reason", "x", "--duration", "1h", "connections=0"),
             ("set", "hop.example", "--reason", "x", "--duration", "1h", "rate=1/1m,2/1h"))
    for arguments in wrong:
        status, text = cli("site", *arguments)
        expect(status == 1 and text.startswith("angarium: "), text)
    status, text = cli("site", "suspend", "other.example", "--reason", "early", "--duration", "1h")
    expect(status == 0 and "0 sites match, 0 done; it holds for those that come" in text, text)
    status, text = cli("site", "resume", text.split()[1].rstrip(":"))
    expect(status == 0 and "0 sites match" in text, text)
    suspend = ("site", "suspend", "hop.example", "--reason", "moved", "--duration", "1h")
    status, text = cli(*suspend, "--dry-run")
    expect(status == 0 and "1 sites match; nothing was done" in text, text)
    status, text = cli("site", "show", "hop.example")
    expect("suspended" not in text, text)
    status, text = cli("site", "set", "hop.example", "connections=1", "rate=5/1m", "--reason", "slow", "--duration", "2h")
    expect(status == 0 and ": 1 sites match, 1 done" in text, text)
    number = text.split()[1].rstrip(":")
    status, text = cli("site", "show", "hop.example")
    expect(f"order {number}: connections=1 rate=5/1m for 2h more, by operator: slow" in text, text)
    status, text = cli("site", "resume", number)
    expect(status == 0 and "1 sites match, 1 done" in text, text)
    for _ in range(2):
        status, text = cli(*suspend)
        expect(status == 0 and ": 1 sites match, 1 done" in text, text)
    status, text = cli("site", "show", "hop.example")
    expect(text.count("suspended for 1h more, by operator: moved") == 2, text)
    status, text = cli("site", "resume", "hop.example")
    expect(status == 0 and "1 sites match, 1 done" in text and "suspended" not in cli("site", "show")[1], text)
    cli(*suspend)


def stop_is_bounded():
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path("spool/brakes"))
    config = write_config("relay.yaml", more="relay_from: [127.0.0.1/32]\nshutdown_timeout: 500ms\n")
    with open(config, "r+", encoding="utf-8") as file:
        text = file.read().replace("tls: {", "brakes: {errors_per_minute: 9}, tls: {")
        file.seek(0)
        file.write(text)
    daemon = Daemon(config)
    with smtplib.SMTP("127.0.0.1", PORT, timeout=60, source_address=("127.0.0.2", 0)) as stranger:
        stranger.docmd("NOSUCH")
    client = smtplib.SMTP("127.0.0.1", PORT, timeout=60)
    client.ehlo()
    client.mail("sender@example.org")
    client.rcpt("a@hole.example")
    client.docmd("DATA")
    client.send(b"Subject: never ends\r\n")
    status, seconds = daemon.stop()
    client.close()
    expect(status == 0 and 0.4 < seconds < 20, (status, seconds))
    expect(os.path.getsize(path("spool/brakes")) > 32, "what was counted is forgotten")


def crc32c(octets):
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    value = 0xFFFFFFFF
    for octet in octets:
        value = value >> 8 ^ table[(value ^ octet) & 255]
    return value ^ 0xFFFFFFFF


def counts_of_many_sites_come_back():
    """More than a shard is given in one turn; half of them are another's."""
    count, now = 9000, int(time.time() * 1e6)
    rows = b"".join(struct.pack("<QQqqII", key, 3600000000, now, now, 1, 0) for key in range(1, count + 1))
    os.makedirs(path("many"), exist_ok=True)
    with open(path("many/limits"), "wb") as file:
        file.write(struct.pack("<24s6I", b"angarium limits 3\n", count, crc32c(rows), 0, 0, 0, 0) + rows)
    Daemon(write_config("relay.yaml", spool="many", cores=2)).stop()
    with open(path("many/limits"), "rb") as file:
        kept = struct.unpack("<24s6I", file.read(48))[1]
    expect(kept == count, kept)


def leaves_descriptors_for_mail_that_goes_out():
    with socket.socket() as hop:
        hop.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hop.bind(("127.0.0.1", DEAD_PORT))
        hop.listen()
        hop.settimeout(20)
        daemon = Daemon(write_config("relay.yaml"), descriptors=256 + 80)
        expect("flows=256: 80 are used" in daemon.log_text(), daemon.log_text())
        with smtplib.SMTP("127.0.0.1", PORT, timeout=60) as client:
            client.ehlo()
            crowd = []
            for _ in range(300):
                with contextlib.suppress(ConnectionResetError):
                    crowd.append(socket.create_connection(("127.0.0.1", PORT), 5))
            client.sendmail("sender@example.org", ["d@dead.example"], "Subject: x\r\n\r\nbody\r\n")
            hop.accept()[0].close()
        for member in crowd:
            member.close()
    wait_until(lambda: cli("reload")[1] == "reloaded: no option has changed\n", "no option is said to have changed")
    daemon.stop()


def asks_again():
    """A relay that was upgraded just now says so and does nothing: the command asks its successor."""
    with socket.socket(socket.AF_UNIX) as relay:
        relay.bind(path("again.sock"))
        relay.listen()
        relay.settimeout(20)
        answers = [{"ok": False, "error": "ask again", "again": True}] * 2 + [{"ok": True, "text": "done"}]
        child = subprocess.Popen([CLI, "-s", path("again.sock"), "drain", "end"], stdout=subprocess.PIPE, text=True)
        for answer in answers:
            with relay.accept()[0] as client:
                expect(json.loads(client.makefile().readline())["verb"] == "drain end")
                client.sendall(json.dumps(answer).encode() + b"\n")
        expect(child.communicate(timeout=60)[0] == "done\n" and child.returncode == 0, child.returncode)


def finds_records():
    one, other = "aadgckcewtj4v57ch2f23dzjeq", "aadgckcewtj4v57ch2f23dzjey"
    parts = (("told.json.2", [(one, "reception", "")]), ("told.json.1", [(other, "reception", ""), (one, "deferral", "451")]),
             ("told.json", [(one, "delivery", "250"), (other, "bounce", "550")]))
    for name, rows in parts:
        with open(path(name), "w", encoding="utf-8") as file:
            for message, kind, code in rows:
                file.write('{"type":"%s","time":"2026-11-26T10:00:00.000000Z","event":"x","id":"%s","recipient":"b@c.d"%s}\n' %
                           (kind, message, ',"code":' + code if code else ""))
            file.write('{"type":"deli')
    with open(path("acct.csv"), "w", encoding="utf-8") as file:
        file.write("type,attempts,id,event\nd,1,%s,%s-d0\nd,1,%s,%s-d0\n" % (one, one, other, other))
    status, text = cli("records", "find", one, path("told.json"), path("acct.csv"))
    lines = text.splitlines()
    expect(status == 0 and [line.split()[1] for line in lines[:3]] == ["reception", "deferral", "delivery"], text)
    expect(lines[3:] == ["d,1,%s,%s-d0" % (one, one)], text)
    status, text = cli("records", "find", one, path("told.json"), "--json")
    expect(status == 0 and [row["type"] for row in json.loads(text)["rows"]] == ["reception", "deferral", "delivery"], text)
    status, text = cli("records", "find", "aadgckcewtj4v57ch2f23dzjeu", path("told.json"))
    expect(status == 1 and "no record of" in text, text)
    status, text = cli("records", "find", one, path("none.json"))
    expect(status == 1 and "No such file" in text, text)
    status, text = cli("records", "find", "b@c.d", path("told.json"))
    expect(status == 2 and "26 letters" in text, text)


def main():
    alone = [finds_records, asks_again, refuses_wrong_arguments, refuses_a_bad_configuration, checks_a_good_one, the_one_that_is_installed_is_good,
             warns_of_a_small_disk, looks_without_making_a_key]
    running = [tells_what_runs, makes_a_private_key, refuses_a_second_on_the_same, answers_on_its_socket, does_nothing_that_was_not_meant,
               says_how_it_is_used, prints_messages_as_they_are, reloads, bounds_reloads_by_open_sessions, keeps_records_in_binary, rotates_records, resets_who_goes_on_sending, drains_on_sigterm]
    after = [has_its_mail_after_a_restart, remembers_what_it_sent, patterns_file_is_read, operators_suspend_a_source,
             stop_is_bounded, counts_of_many_sites_come_back, leaves_descriptors_for_mail_that_goes_out]
    print(f"1..{len(alone + running + after)}")
    daemon, failed = None, 0
    for number, test in enumerate(alone + running + after, 1):
        try:
            if test in running and daemon is None:
                daemon = Daemon(path("relay.yaml"))
            if test in running:
                test(daemon)
            else:
                test()
            print(f"ok {number} - {test.__name__}", flush=True)
        except Exception as error:  # a test that breaks is a test that fails
            failed += 1
            for line in f"{type(error).__name__}: {error}".splitlines():
                print("#", line)
            print(f"not ok {number} - {test.__name__}", flush=True)
    if failed:
        with open(path("log"), encoding="utf-8", errors="replace") as file:
            for line in file.read().splitlines()[-60:]:
                print("#", line)
    for left in Daemon.all:
        if left.child.poll() is None:
            left.child.kill()
            left.child.wait()
    shutil.rmtree(FOLDER, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
