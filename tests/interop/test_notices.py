#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who tells the sender: a real Postfix that offers DSN and takes the duty over, one that does not and leaves it to the relay, and one that
refuses."""
import os
import smtplib

from lab import Lab, free_port, wait_until

lab = Lab('notices')
MX_PORT = free_port()
POSTFIX = '127.0.0.2'
ZONES = {'test': ['postfix MX 5 mx.postfix', 'mx.postfix A ' + POSTFIX]}
CONFIG = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8]}
sources: [{name: out, addresses: [127.0.0.1]}]
client: {idle_timeout: 1s}
retry: {min: 1s, max: 4s}
'''
MAIN = ['myhostname = mx.postfix.test', 'virtual_mailbox_domains = postfix.test', 'virtual_mailbox_maps = static:box/',
        'virtual_mailbox_base = %s/mail' % lab.path('postfix'), 'virtual_uid_maps = static:5000', 'virtual_gid_maps = static:5000']
relay = None


def the_relay():
    global relay
    if relay is None:
        relay = lab.relay(CONFIG % (lab.nsd(ZONES), MX_PORT))
    return relay


def box():
    """Every message in the mailbox that serves all addresses."""
    folder, texts = lab.path('postfix', 'mail/box/new'), []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name), encoding='utf-8') as file:
            texts.append(file.read())
    return texts


def send(envid, rcpt_options):
    with smtplib.SMTP('127.0.0.1', the_relay().port, timeout=60) as client:
        client.sendmail('s@postfix.test', ['u@postfix.test'], 'Subject: %s\r\n\r\ntext\r\n' % envid,
                        ['RET=HDRS', 'ENVID=' + envid], rcpt_options)


def notice_about(envid, what):
    return wait_until(lambda: [t for t in box() if 'Original-Envelope-Id: %s\n' % envid in t], what)


ASKED = ['NOTIFY=SUCCESS,FAILURE', 'ORCPT=rfc822;first@list.test']


@lab.check('a Postfix that offers DSN is told what the sender wants, and tells the sender of the delivery')
def passed_on():
    the_relay()
    postfix = lab.postfix(POSTFIX, MX_PORT, MAIN, ['virtual unix - n n - - virtual'])
    try:
        send('passed-1', ASKED)
        notice = notice_about('passed-1', 'a notice from Postfix')[0]
        for part in ('Reporting-MTA: dns; mx.postfix.test', 'Original-Recipient: rfc822;first@list.test', 'Action: delivered'):
            assert part in notice, notice
        wait_until(lambda: relay.records('delivery'), 'the record of it') # Postfix may have told the sender before it answers
        assert len(relay.records('delivery')) == 1 and relay.status()['queue']['dsns'] == 0
    finally:
        postfix.stop()


@lab.check('for a Postfix that offers no DSN the relay tells the sender that the mail was relayed')
def relayed():
    the_relay()
    postfix = lab.postfix(POSTFIX, MX_PORT, MAIN + ['smtpd_discard_ehlo_keywords = dsn'], ['virtual unix - n n - - virtual'])
    try:
        send('relayed-1', ASKED)
        notice = notice_about('relayed-1', 'a notice from the relay')[0]
        for part in ('Reporting-MTA: dns; relay.test', 'Original-Recipient: rfc822;first@list.test', 'Action: relayed', 'Status: 2.1.9'):
            assert part in notice, notice
        send('silent-1', ['NOTIFY=NEVER'])
        wait_until(lambda: any('Subject: silent-1\n' in t for t in box()), 'the silent one arrives')
    finally:
        postfix.stop()


@lab.check('what a Postfix refuses is told by the relay, and only to those who want to hear it')
def refused():
    the_relay()
    postfix = lab.postfix(POSTFIX, MX_PORT, MAIN + ['smtpd_recipient_restrictions = check_recipient_access inline:{{u@postfix.test = 550 5.1.1 no u}}, permit'],
                          ['virtual unix - n n - - virtual'])
    try:
        send('refused-1', ['NOTIFY=NEVER'])
        send('refused-2', ASKED)
        notice = notice_about('refused-2', 'a notice from the relay')[0]
        for part in ('Reporting-MTA: dns; relay.test', 'Original-Recipient: rfc822;first@list.test', 'Action: failed', 'Status: 5.1.1'):
            assert part in notice, notice
        assert not [t for t in box() if 'Original-Envelope-Id: refused-1' in t]
    finally:
        postfix.stop()


lab.run()
