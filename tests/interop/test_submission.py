#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Users who log in with real clients: swaks over STARTTLS, curl and Python over TLS from the first octet on, with passwords in a file."""
import base64
import os
import smtplib
import ssl
import subprocess

from lab import BUILD, Lab, free_port, tool, wait_until

lab = Lab('submission')
PASSWORD = 'corr\u00e9ct horse'
TLS_PORT = free_port()
CONFIG = '''
hostname: relay.test
listen:
  - {address: "127.0.0.1:@PORT@", kind: submission, tls: {self_signed: "@FOLDER@/tls"}}
  - {address: "127.0.0.1:%d", kind: submission, tls: {self_signed: "@FOLDER@/tls", implicit: true}}
relay_from: []
routes: [{match: "*", via: discard}]
dns: {resolvers: ["127.0.0.1"]}
''' % TLS_PORT
relay = None


def password_hash():
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), 'user', 'hash'], input=PASSWORD + '\n', capture_output=True, check=True,
                          encoding='utf-8')
    assert done.stdout.startswith('$y$'), done.stdout
    return done.stdout.strip()


def write_users(text):
    os.chmod(lab.write('users', text), 0o600)


def the_relay():
    global relay
    if relay is None:
        write_users('alice@sender.test:%s:*@alias.test\n' % password_hash())
        relay = lab.relay(CONFIG + 'auth: {users_file: "@FOLDER@/users"}\n')
    return relay


def received(sender):
    return [row for row in the_relay().records('reception') if row['sender'] == sender]


def clear_context():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@lab.check('swaks logs in over STARTTLS by PLAIN and by LOGIN, and is known in the records')
def starttls():
    the_relay()
    for mechanism in ('PLAIN', 'LOGIN'):
        sender = '%s@alias.test' % mechanism.lower()
        done = subprocess.run([tool('swaks'), '--server', '127.0.0.1', '--port', str(relay.port), '--tls', '--auth', mechanism,
                               '--auth-user', 'alice@sender.test', '--auth-password', PASSWORD, '--from', sender, '--to', 'b@else.test'],
                              capture_output=True, check=False, encoding='utf-8', timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        row = wait_until(lambda s=sender: received(s), 10, 'a record')[0]
        assert row['user'] == 'alice@sender.test' and row['tls'].startswith('TLSv1'), row


@lab.check('curl logs in where TLS is there from the first octet on')
def implicit():
    the_relay()
    message = lab.write('message', 'From: <alice@sender.test>\r\nSubject: x\r\n\r\ntext\r\n')
    done = subprocess.run([tool('curl'), '-sSk', '--url', 'smtps://127.0.0.1:%d/client.test' % TLS_PORT, '--user',
                           'alice@sender.test:' + PASSWORD, '--mail-from', 'alice@sender.test', '--mail-rcpt', 'b@else.test', '-T', message],
                          capture_output=True, check=False, encoding='utf-8', timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wait_until(lambda: received('alice@sender.test'), 10, 'a record')[0]['user'] == 'alice@sender.test'


@lab.check('what is not allowed is refused: no login before TLS, a wrong password, an address of somebody else')
def refused():
    the_relay()
    with smtplib.SMTP('127.0.0.1', relay.port, timeout=30) as client:
        client.ehlo()
        assert not client.has_extn('auth') and client.has_extn('starttls')
        assert client.docmd('AUTH PLAIN')[0] == 530 and client.docmd('MAIL FROM:<alice@sender.test>')[0] == 530
    with smtplib.SMTP_SSL('127.0.0.1', TLS_PORT, timeout=30, context=clear_context()) as client:
        client.ehlo()
        assert client.esmtp_features['auth'].split() == ['PLAIN', 'LOGIN']
        wrong = base64.b64encode(b'\0alice@sender.test\0wrong').decode()
        right = base64.b64encode(('\0alice@sender.test\0' + PASSWORD).encode()).decode()
        assert client.docmd('AUTH PLAIN ' + wrong)[0] == 535
        assert client.docmd('MAIL FROM:<alice@sender.test>')[0] == 530
        assert client.docmd('AUTH PLAIN ' + right)[0] == 235
        assert client.docmd('MAIL FROM:<eve@sender.test>')[0] == 553
    assert relay.status()['server']['auth.rejected'] >= 1


@lab.check('a reload takes a user away; who is logged in stays')
def reloaded():
    the_relay()
    right = base64.b64encode(('\0alice@sender.test\0' + PASSWORD).encode()).decode()
    with smtplib.SMTP_SSL('127.0.0.1', TLS_PORT, timeout=30, context=clear_context()) as client:
        client.ehlo()
        assert client.docmd('AUTH PLAIN ' + right)[0] == 235
        write_users('bob@sender.test:%s\n' % password_hash())
        relay.cli('reload')
        assert client.docmd('MAIL FROM:<x@alias.test>')[0] == 250
        with smtplib.SMTP_SSL('127.0.0.1', TLS_PORT, timeout=30, context=clear_context()) as other:
            other.ehlo()
            assert other.docmd('AUTH PLAIN ' + right)[0] == 535


lab.run()
