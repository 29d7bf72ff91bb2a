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

FETCHED = ["unbound", "dns-root-data"]
CONFIGURATION = {
    "hostname": "relay.example",
    "listen": [{"address": "127.0.0.1:2525"}, {"address": "127.0.0.1:25", "tls": {
        "certificate": "/etc/angarium/tls/mail.pem", "key": "/etc/angarium/tls/mail.key"}}],
    "relay_from": ["127.0.0.0/8"],
    "dns": {"resolvers": ["127.0.0.1"]},
    "spool": {"directory": "/var/spool/angarium", "size": "1GB"},
    "patterns_file": "/etc/angarium/patterns.yaml",
}


def why_not():
    missing = [tool for tool in ("ansible-playbook", "ansible-lint", "openssl") if shutil.which(tool) is None]
    return "needs " + ", ".join(missing) if missing else None


def expect(condition, text=""):
    if not condition:
        raise AssertionError(text)


class Fleet:
    """An inventory of one host, entered as a chroot is: by a program of ours in chroot's place."""

    def __init__(self, machine, package):
        self.machine = machine
        self.package = package
        self.folder = machine.folder
        enter = os.path.join(self.folder, "enter")
        with open(enter, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nshift\nexec " + " ".join(machine.enter('"$@"')) + "\n")
        os.chmod(enter, 0o755)
        with open(os.path.join(self.folder, "hosts"), "w", encoding="utf-8") as file:
            file.write(f"[relays]\n{machine.root} ansible_connection=community.general.chroot ansible_chroot_exe={enter} "
                       "ansible_python_interpreter=/usr/bin/python3\n")
        self.certificate()

    def certificate(self):
        status, text = run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=relay.example",
                           "-keyout", self.folder + "/mail.key", "-out", self.folder + "/mail.pem")
        expect(status == 0, text)

    def play(self, *arguments, configuration=None, **more):
        variables = {
            "relay_package_file": self.package,
            "relay_configuration": configuration or CONFIGURATION,
            "certificates_files": [{"name": "mail", "certificate": self.folder + "/mail.pem", "key": self.folder + "/mail.key"}],
            "resolver_threads": 1, "kernel_huge_pages": 16,
        }
        variables.update(more)
        environment = dict(os.environ, ANSIBLE_CONFIG=TOP + "/ansible/ansible.cfg", ANSIBLE_HOME=self.folder + "/ansible",
                           ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8")
        status, text = run("ansible-playbook", "-i", self.folder + "/hosts", "-e", json.dumps(variables), *arguments,
                           TOP + "/ansible/site.yml", env=environment)
        counts = {name: int(count) for name, count in re.findall(r"(ok|changed|failed|unreachable|skipped)=(\d+)", text)}
        return status, counts, text


FLEET = {}


def playbook_is_clean(_):
    status, text = run("ansible-lint", "-c", ".ansible-lint", "--offline", "site.yml", "roles", cwd=TOP + "/ansible")
    expect(status == 0, text[-3000:])


def checks_a_bare_machine(machine):
    FLEET["it"] = Fleet(machine, packages()[0])
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


def changes_nothing_the_second_time(_):
    status, counts, text = FLEET["it"].play()
    expect(status == 0 and counts["changed"] == 0, text[-3000:])
    status, counts, text = FLEET["it"].play("--check")
    expect(status == 0 and counts["changed"] == 0, text[-3000:])


def process_of(machine):
    return machine.must("systemctl", "show", "-P", "MainPID", "angarium")


def keeps_a_mistake_from_going_live(machine):
    before = machine.must("cat", "/etc/angarium/angarium.yaml")
    status, _, text = FLEET["it"].play(configuration=dict(CONFIGURATION, coers=1))
    expect(status != 0 and 'unknown key \\"coers\\"' in text, text[-3000:])
    expect(machine.must("cat", "/etc/angarium/angarium.yaml") == before, "a file with a mistake went live")


def reloads_what_it_can(machine):
    process = process_of(machine)
    status, _, text = FLEET["it"].play(configuration=dict(CONFIGURATION, mx_port=26))
    expect(status == 0 and process_of(machine) == process, text[-3000:])


def restarts_for_the_rest(machine):
    process = process_of(machine)
    status, _, text = FLEET["it"].play(configuration=dict(CONFIGURATION, mx_port=26, flows=1000))
    expect(status == 0 and process_of(machine) != process, text[-3000:])
    expect("event=drain" in machine.must("journalctl", "-u", "angarium"))


def tells_of_a_relay_that_does_not_deliver(_):
    status, _, text = FLEET["it"].play("--start-at-task", "Send a message through the relay and wait for it", verify_sink_port=2600, verify_time=3)
    expect(status != 0 and "did not deliver it" in text, text[-3000:])


TESTS = [checks_a_bare_machine, makes_a_relay_that_delivers, changes_nothing_the_second_time, keeps_a_mistake_from_going_live,
         reloads_what_it_can, restarts_for_the_rest, tells_of_a_relay_that_does_not_deliver]
