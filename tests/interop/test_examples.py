#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every example of the manual page angarium(1), in its order, against a running relay: it does what it says, exits with 0 and prints something."""
import json
import os
import pty
import re
import select
import shlex
import signal
import smtplib
import subprocess
import time

from lab import BUILD, ROOT, Lab, free_port, wait_until

lab = Lab('examples')
ANGARIUM = os.path.join(BUILD, 'control/angarium')
relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
destinations: {allow: [127.0.0.0/8]}
dns: {resolvers: ["127.0.0.1"]}
sources: [{name: out1, addresses: [127.0.0.1]}]
routes: [{match: "*", via: hosts, hosts: [{host: 127.0.0.1, port: %d}]}]
''' % free_port())
known = {}  # what the examples name, and what it is here


def examples():
    with open(os.path.join(ROOT, 'packaging/examples.txt'), encoding='utf-8') as file:
        return [line.strip() for line in file if not line.startswith('#')]


def prepare():
    """Mail that waits, a site that is known, an order that stands, and the files that the examples name."""
    with smtplib.SMTP('127.0.0.1', relay.port) as client:
        for sender in ('a@client.test', 'b@spam.example'):
            client.sendmail(sender, ['postmaster@example.org'], 'Subject: x\r\n\r\ntext\r\n')
    rows = wait_until(lambda: json.loads(relay.cli('queue', 'list', 'sender=a@client.test', '--json'))['rows'], 10, 'mail waits')
    wait_until(lambda: json.loads(relay.cli('site', 'show', '--json'))['rows'], 10, 'a site is known')
    known.update({'aadgckcewtj4v57ch2f23dzjeq': rows[0]['id'], '/etc/angarium/angarium.yaml': relay.config, '/var/spool/angarium': relay.spool,
                  '/mnt/dead-host/spool': lab.path('dead'), '/tmp/mail.pcap': lab.path('mail.pcap')})
    os.makedirs(lab.path('dead'))


def put_in(example):
    if example.startswith('queue cancel'):
        held = json.loads(relay.cli('queue', 'orders', '--json'))
        known['1234'] = re.search(r'"(?:order|id)": ?(\d+)', json.dumps(held))[1]
    if example.startswith('spool ') and relay.child.poll() is None:
        assert relay.child.wait(20) == 0, 'the relay was to end'
    return [known.get(word, word) for word in shlex.split(example)]


def on_a_terminal(arguments):
    """`top` wants one; it is left by a key."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ['TERM'] = 'xterm'
        os.execv(arguments[0], arguments)
    text, end = b'', time.monotonic() + 20
    while time.monotonic() < end:
        if b'queue' in text:
            os.write(terminal, b'q')
        try:
            if select.select([terminal], [], [], 0.2)[0]:
                text += os.read(terminal, 65536)
        except OSError:
            break
    else:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text.decode(errors='replace')


def run(example):
    arguments = [ANGARIUM, '-s', relay.socket] + put_in(example)
    if example == 'top':
        return on_a_terminal(arguments)
    done = subprocess.run(arguments, input='a password\n', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', timeout=30, check=False)
    return done.returncode, done.stdout


@lab.check('every verb has an example')
def every_verb():
    verbs = [line.split('\t')[0] for line in relay.cli('help', '--reference').splitlines()]
    missing = [verb for verb in verbs if not any((line + ' ').startswith(verb + ' ') for line in examples())]
    assert len(verbs) > 40 and not missing, missing


@lab.check('every example exits with 0 and prints something')
def every_example():
    prepare()
    failed = []
    for example in examples():
        status, text = run(example)
        if status != 0 or text.strip() == '':
            failed.append((example, status, text))
    assert not failed, failed


lab.run()
