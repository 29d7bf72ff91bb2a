# SPDX-License-Identifier: Apache-2.0
"""
Two relays that the playbook makes and upgrades, one after the other: each hands over to the new program, keeps its mail, and must
deliver before the next is touched; one that does not ends the run.
"""
import json
import os
import re
import shutil

from fleet import NAMES, Fleet, expect
from machine import Machine, must, packages

FETCHED = ["unbound", "dns-root-data"]
CONFIGURATION = {
    "hostname": "relay.example",
    "listen": [{"address": "127.0.0.1:2525"}],
    "relay_from": ["127.0.0.0/8"],
    "dns": {"resolvers": ["127.0.0.1"]},
    "spool": {"directory": "/var/spool/angarium", "size": "1GB"},
}
SEND = ("import smtplib; smtplib.SMTP('127.0.0.1', 2525, timeout=20).sendmail('a@sender.example', ['c@waits.invalid'], "
        "'Subject: x\\r\\n\\r\\nbody\\r\\n')")
PROBE = "Send a message through the relay and wait for it"


class Pair:
    def __init__(self):
        self.machines = []
        try:
            for _ in NAMES:
                self.machines.append(Machine(packages()[:1] + tuple(FETCHED)))
                self.machines[-1].boot()
        except BaseException:
            self.remove()
            raise
        self.fleet = Fleet(self.machines, {
            "relay_package_file": packages()[0], "relay_configuration": CONFIGURATION, "resolver_threads": 1,
            # nobody answers there: mail for it waits
            "resolver_local_zones": [{"name": "waits.invalid", "records": ["waits.invalid. MX 10 mx.waits.invalid.", "mx.waits.invalid. A 198.51.100.1"]}],
        })

    def must(self, *arguments):
        return [machine.must(*arguments) for machine in self.machines]

    def versions(self):
        return self.must("dpkg-query", "-W", "-f", "${Version}", "angarium")

    def later_package(self, version):
        """The same package by another version."""
        folder = os.path.join(self.machines[0].folder, "later")
        must("dpkg-deb", "-R", packages()[0], folder)
        with open(folder + "/DEBIAN/control", encoding="utf-8") as file:
            text = file.read()
        with open(folder + "/DEBIAN/control", "w", encoding="utf-8") as file:
            file.write(re.sub(r"^Version: .*", "Version: " + version, text, flags=re.M))
        made = os.path.join(self.machines[0].folder, "later-" + version + ".deb")
        must("dpkg-deb", "--root-owner-group", "-b", folder, made)
        shutil.rmtree(folder)
        return made

    def remove(self):
        for machine in self.machines:
            machine.remove()


def moments(text, *wanted):
    """Where each (task, host) is first heard of in what the playbook printed; in order, they rise."""
    found, task = {}, None
    for position, line in enumerate(text.splitlines()):
        if match := re.match(r"(?:TASK|RUNNING HANDLER) \[(?:\w+ : )?(.*?)\]", line):
            task = match[1]
        elif match := re.match(r"(?:ok|changed|fatal|skipping): \[(\w+)\]", line):
            found.setdefault((task, match[1]), position)
    return [found.get(one) for one in wanted]


def makes_two_relays_in_turn(pair):
    status, _, text = pair.fleet.play()
    expect(status == 0, text[-3000:])
    one, two = moments(text, (PROBE, "one"), ("Set kernel parameters", "two"))
    expect(one is not None and two is not None and one < two, text[-3000:])
    pair.must("python3", "-c", SEND)


def mail_waits(pair):
    rows = [json.loads(text)["rows"] for text in pair.must("angarium", "queue", "list", "--json")]
    return [[row["recipient"] for row in host] for host in rows] == [["c@waits.invalid"]] * 2


def said(pair, event):
    return [text.count("event=" + event) for text in pair.must("journalctl", "-u", "angarium")]


def upgrades_one_after_the_other(pair):
    before, old = [said(pair, event) for event in ("upgrade over", "stop")], pair.versions()
    expect(mail_waits(pair))
    status, _, text = pair.fleet.play(relay_package_file=pair.later_package(old[0] + "+1"))
    expect(status == 0, text[-3000:])
    expect(pair.versions() == [old[0] + "+1"] * 2, pair.versions())
    after = [said(pair, event) for event in ("upgrade over", "stop")]
    expect([now - then for now, then in zip(after[0], before[0])] == [1, 1], (before, after))
    install = "Install the package, which takes the place of a relay that runs"
    order = moments(text, (install, "one"), (PROBE, "one"), (install, "two"), (PROBE, "two"))
    expect(None not in order and order == sorted(order), order)
    expect(mail_waits(pair), "mail was lost")


def stops_at_a_host_that_does_not_deliver(pair):
    old = pair.versions()
    later = pair.later_package(old[0].split("+")[0] + "+2")
    # nobody takes mail at the port that its message is sent to
    status, _, text = pair.fleet.play(relay_package_file=later, verify_port="{{ 2526 if inventory_hostname == 'one' else 2525 }}")
    expect(status != 0 and "did not take the message" in text, text[-3000:])
    expect(pair.versions() == [old[0].split("+")[0] + "+2", old[1]], pair.versions())
    status, _, text = pair.fleet.play(relay_package_file=later)
    expect(status == 0 and pair.versions() == [old[0].split("+")[0] + "+2"] * 2, text[-3000:])
    expect(mail_waits(pair), "mail was lost")


TESTS = [makes_two_relays_in_turn, upgrades_one_after_the_other, stops_at_a_host_that_does_not_deliver]
