#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a real Postfix sees of two sources: both addresses, each with its name in EHLO; and of the field that names the pool: nothing."""
import os
import re
import smtplib

from lab import Lab, free_port, wait_until

lab = Lab('sources')
MX_PORT = free_port()
POSTFIX = '127.0.0.2'
ZONES = {'test': ['postfix MX 5 mx.postfix', 'mx.postfix A ' + POSTFIX, 'dual MX 5 mx.dual', 'mx.dual A ' + POSTFIX, 'mx.dual AAAA ::1']}
CONFIG = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8, "::1/128"]}
sources:
  - {name: one, addresses: [127.0.0.3], hello: one.relay.test}
  - {name: two, addresses: [127.0.0.4], hello: two.relay.test}
  - {name: bulk, addresses: [127.0.0.5, "2001:db8::5"], hello: bulk.relay.test}
pools:
  - {name: default, members: [{source: one}, {source: two}]}
  - {name: bulk, members: [{source: bulk}]}
pool_header: {name: X-Angarium-Pool}
client: {idle_timeout: 0}
retry: {min: 1s, max: 4s}
'''
MAIN = ['myhostname = mx.postfix.test', 'virtual_mailbox_domains = postfix.test, dual.test', 'virtual_mailbox_maps = static:box/',
        'virtual_mailbox_base = %s/mail' % lab.path('postfix'), 'virtual_uid_maps = static:5000', 'virtual_gid_maps = static:5000']


def box():
    """Every message in the mailbox that serves all addresses."""
    folder, texts = lab.path('postfix', 'mail/box/new'), []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name), encoding='utf-8') as file:
            texts.append(file.read())
    return texts


def trace(text):
    """Name and address that Postfix noted of who brought the message."""
    return re.search(r'Received: from (\S+) \([^)]*\[(\S+)\]\)\s+by mx\.postfix\.test', text).groups()


@lab.check('a Postfix sees both addresses of a pool, each by its name, and a third for the pool that the header names')
def both():
    relay = lab.relay(CONFIG % (lab.nsd(ZONES), MX_PORT))
    postfix = lab.postfix(POSTFIX, MX_PORT, MAIN, ['virtual unix - n n - - virtual'])
    try:
        for number in range(4):
            with smtplib.SMTP('127.0.0.1', relay.port, timeout=60) as client:
                client.sendmail('s@postfix.test', ['u@postfix.test'], 'Subject: plain %d\r\n\r\ntext\r\n' % number)
            wait_until(lambda: len(box()) == number + 1, 'the mail of the default pool')
        with smtplib.SMTP('127.0.0.1', relay.port, timeout=60) as client:
            client.sendmail('s@postfix.test', ['u@dual.test'], 'x-angarium-pool:\r\n bulk\r\nSubject: bulk\r\n\r\ntext\r\n')
        wait_until(lambda: len(box()) == 5, 'the mail of the other pool')
        plain = sorted(trace(text) for text in box() if 'Subject: plain' in text)
        assert plain == 2 * [('one.relay.test', '127.0.0.3')] + 2 * [('two.relay.test', '127.0.0.4')], plain
        bulk = [text for text in box() if 'Subject: bulk' in text][0]
        assert trace(bulk) == ('bulk.relay.test', '127.0.0.5') and 'angarium-pool' not in bulk.lower(), bulk
        wait_until(lambda: len(relay.records('delivery')) == 5, 'Postfix has said so of all')
        names = sorted(record['source_name'] for record in relay.records('delivery'))
        assert names == ['bulk', 'one', 'one', 'two', 'two'], names
        # nobody has its IPv6 address here
        why = relay.cli('explain', 'dual.test')
        assert re.search(r'IPv6 of the source rests for \S+ more, the other family is used: \S', why) and 'binds    nothing' in why, why
        sources = relay.status()['sources']
        assert sources == {'suspended': 0, 'resting': 0, 'resting_partly': 1}, sources
    finally:
        postfix.stop()


lab.run()
