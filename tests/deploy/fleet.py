# SPDX-License-Identifier: Apache-2.0
"""
The playbook against a machine: check mode before and after, a first run that makes a relay, a second that
changes nothing, a configuration with a mistake that never goes live, one that only a restart changes.
"""
import json
import os
import re
import shutil

from machine import TOP, packages, run

FETCHED = ["unbound", "dns-root-data", "dovecot-lmtpd", "dovecot-imapd", "dovecot-pop3d", "prometheus"]
NAMES = ("one", "two")
PASSWORD = "correct horse"
CONFIGURATION = {
    "hostname": "relay.example",
    "listen": [{"address": "127.0.0.1:2525"}, {"address": "127.0.0.1:25", "tls": {
        "certificate": "/etc/angarium/tls/mail.pem", "key": "/etc/angarium/tls/mail.key"}},
        {"address": "127.0.0.1:587", "kind": "submission", "tls": {
            "certificate": "/etc/angarium/tls/mail.pem", "key": "/etc/angarium/tls/mail.key"}}],
    "relay_from": ["127.0.0.0/8"],
    "dns": {"resolvers": ["127.0.0.1"]},
    "spool": {"directory": "/var/spool/angarium", "size": "1GB"},
    "patterns_file": "/etc/angarium/patterns.yaml",
    "http": {"listen": "127.0.0.1:8025", "open_metrics": True},
}
# As a user's programs do it: log in and send to oneself, fetch by IMAP and by POP3; and who has no mailbox is refused.
USE_MAILBOX = """
import imaplib, poplib, smtplib, ssl, time
user, password = 'alice@own.example', '%s'
context = ssl._create_unverified_context()
with smtplib.SMTP('127.0.0.1', 587, timeout=30) as client:
    client.starttls(context=context)
    client.login(user, password)
    client.sendmail(user, [user], 'From: <alice@own.example>\\r\\nSubject: kept\\r\\n\\r\\ntext\\r\\n')
    try:
        client.sendmail(user, ['nobody@own.example'], 'From: <alice@own.example>\\r\\nSubject: lost\\r\\n\\r\\ntext\\r\\n')
        raise SystemExit('nobody has a mailbox')
    except smtplib.SMTPDataError as refusal:
        assert refusal.smtp_code == 550, refusal
box = imaplib.IMAP4('127.0.0.1')
box.starttls(context)
box.login(user, password)
for _ in range(100):
    count = int(box.select()[1][0])
    if count:
        break
    time.sleep(0.1)
assert b'Subject: kept' in box.fetch('1', '(RFC822)')[1][0][1], count
post = poplib.POP3('127.0.0.1')
post.stls(context)
post.user(user)
post.pass_(password)
assert post.stat()[0] == count
print('fetched')
""" % PASSWORD
# Prometheus has asked the relay, and knows the rules.
WATCH = """
import json, time, urllib.request
def ask(what):
    with urllib.request.urlopen('http://127.0.0.1:9090/api/v1/' + what, timeout=10) as answer:
        return json.load(answer)['data']
for _ in range(300):
    try:
        health = [target['health'] for target in ask('targets')['activeTargets'] if target['labels']['job'] == 'angarium']
        if health == ['up'] and ask('query?query=angarium_build_info')['result']:
            break
    except OSError as error:
        health = error
    time.sleep(0.1)
assert health == ['up'], health
rules = [rule for group in ask('rules')['groups'] for rule in group['rules']]
assert len(rules) > 10 and all(rule['health'] != 'err' for rule in rules), rules
print('watched')
"""


def why_not():
    missing = [tool for tool in ("ansible-playbook", "ansible-lint", "openssl") if shutil.which(tool) is None]
    return "needs " + ", ".join(missing) if missing else None


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


class Fleet:
    """An inventory of machines, entered as a chroot is: by a program of ours in chroot's place. The first is watched by Prometheus, if any is."""

    def __init__(self, machines, variables, is_watched=False):
        self.folder = machines[0].folder
        self.variables = variables
        rows = [self.row(name, machine) for name, machine in zip(NAMES, machines)]
        with open(os.path.join(self.folder, "hosts"), "w", encoding="utf-8") as file:
            file.write("\n".join(["[monitoring]"] + [NAMES[0]] * is_watched + ["[relays]"] + rows) + "\n")

    @staticmethod
    def row(name, machine):
        enter = os.path.join(machine.folder, "enter")
        with open(enter, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nshift\nexec " + " ".join(machine.enter('"$@"')) + "\n")
        os.chmod(enter, 0o755)
        return (f"{name} ansible_host={machine.root} ansible_connection=community.general.chroot ansible_chroot_exe={enter} "
                "ansible_python_interpreter=/usr/bin/python3")

    def play(self, *arguments, **more):
        environment = dict(os.environ, ANSIBLE_CONFIG=TOP + "/ansible/ansible.cfg", ANSIBLE_HOME=self.folder + "/ansible",
                           ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8")
        status, text = run("ansible-playbook", "-i", self.folder + "/hosts", "-e", json.dumps(dict(self.variables, **more)), *arguments,
                           TOP + "/ansible/site.yml", env=environment)
        counts = {name: int(count) for name, count in re.findall(r"(ok|changed|failed|unreachable|skipped)=(\d+)", text)}
        return status, counts, text


def certificate_make(folder):
    status, text = run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=relay.example",
                       "-keyout", folder + "/mail.key", "-out", folder + "/mail.pem")
    expect(status == 0, text)
    return [{"name": "mail", "certificate": folder + "/mail.pem", "key": folder + "/mail.key"}]


def variables_of(machine):
    return {
        "relay_package_file": packages()[0],
        "relay_configuration": CONFIGURATION,
        "certificates_files": certificate_make(machine.folder),
        "resolver_threads": 1, "kernel_huge_pages": 16,
        "mailstore_domains": ["own.example"], "mailstore_addresses": ["127.0.0.1"],
        "mailstore_users": [{"name": "alice@own.example", "hash": run("openssl", "passwd", "-6", PASSWORD)[1].strip(), "quota": "1G"}],
        "monitoring_targets": ["127.0.0.1:8025"], "monitoring_scheme": "http", "monitoring_interval": "1s",
    }


FLEET = {}


def playbook_is_clean(_):
    status, text = run("ansible-lint", "-c", ".ansible-lint", "--offline", "site.yml", "trial.yml", "roles", cwd=TOP + "/ansible")
    expect(status == 0, text[-3000:])


def checks_a_bare_machine(machine):
    FLEET["it"] = Fleet([machine], variables_of(machine), is_watched=True)
    status, counts, text = FLEET["it"].play("--check", "--diff")
    expect(status == 0 and counts["changed"] > 0, text[-3000:])
    expect(not os.path.exists(machine.path("/usr/sbin/angariumd")), "check mode has installed something")
    expect(not os.path.exists(machine.path("/etc/sysctl.d/60-angarium.conf")), "check mode has written something")


def makes_a_relay_that_delivers(machine):
    status, counts, text = FLEET["it"].play()
    expect(status == 0 and counts["changed"] > 5, text[-3000:])
    expect(machine.must("systemctl", "is-active", "angarium", "unbound") == "active\nactive\n")
    records = machine.must("angarium", "status", "--json")
    expect(json.loads(records)["ok"], records)
    listens = machine.must("ss", "-Hltn")
    expect("127.0.0.1:25 " in listens and "127.0.0.1:53 " in listens, listens)
    expect(machine.must("stat", "-c", "%U:%G %a", "/etc/angarium/tls/mail.key", "/etc/angarium/angarium.yaml") ==
           "root:angarium 640\nroot:angarium 640\n")


def keeps_the_mail_of_own_domains(machine):
    expect(machine.must("python3", "-c", USE_MAILBOX) == "fetched\n")
    expect(machine.must("stat", "-c", "%U:%G %a", "/etc/dovecot/angarium-users", "/var/vmail") == "root:dovecot 640\nvmail:vmail 700\n")
    expect("via lmtp" in machine.must("angarium", "route", "alice@own.example"))


def watches_the_relay(machine):
    expect(machine.must("python3", "-c", WATCH) == "watched\n")


def changes_nothing_the_second_time(_):
    status, counts, text = FLEET["it"].play()
    expect(status == 0 and counts["changed"] == 0, text[-3000:])
    status, counts, text = FLEET["it"].play("--check")
    expect(status == 0 and counts["changed"] == 0, text[-3000:])


def process_of(machine):
    return machine.must("systemctl", "show", "-P", "MainPID", "angarium")


def keeps_a_mistake_from_going_live(machine):
    before = machine.must("cat", "/etc/angarium/angarium.yaml")
    status, _, text = FLEET["it"].play(relay_configuration=dict(CONFIGURATION, coers=1))
    expect(status != 0 and 'unknown key \\"coers\\"' in text, text[-3000:])
    expect(machine.must("cat", "/etc/angarium/angarium.yaml") == before, "a file with a mistake went live")


def reloads_what_it_can(machine):
    process = process_of(machine)
    status, _, text = FLEET["it"].play(relay_configuration=dict(CONFIGURATION, mx_port=26))
    expect(status == 0 and process_of(machine) == process, text[-3000:])


def restarts_for_the_rest(machine):
    process = process_of(machine)
    status, _, text = FLEET["it"].play(relay_configuration=dict(CONFIGURATION, mx_port=26, flows=1000))
    expect(status == 0 and process_of(machine) != process, text[-3000:])
    expect("event=upgrade over" in machine.must("journalctl", "-u", "angarium"))


def tells_of_a_relay_that_does_not_deliver(_):
    status, _, text = FLEET["it"].play("--start-at-task", "Send a message through the relay and wait for it", verify_sink_port=2600, verify_time=3)
    expect(status != 0 and "did not deliver it" in text, text[-3000:])


TESTS = [checks_a_bare_machine, makes_a_relay_that_delivers, keeps_the_mail_of_own_domains, watches_the_relay,
         changes_nothing_the_second_time, keeps_a_mistake_from_going_live, reloads_what_it_can, restarts_for_the_rest,
         tells_of_a_relay_that_does_not_deliver]
