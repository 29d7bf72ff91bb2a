#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Users who log in with real clients: swaks over STARTTLS, curl and Python over TLS from the first octet on, with passwords in a file; and with
a real Dovecot that knows the passwords."""
import base64
import hashlib
import hmac
import os
import signal
import smtplib
import ssl
import subprocess

from lab import BUILD, Lab, Skip, free_port, tool, wait_until

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
        row = wait_until(lambda s=sender: received(s), 'a record')[0]
        assert row['user'] == 'alice@sender.test' and row['tls'].startswith('TLSv1'), row


@lab.check('curl logs in where TLS is there from the first octet on')
def implicit():
    the_relay()
    message = lab.write('message', 'From: <alice@sender.test>\r\nSubject: x\r\n\r\ntext\r\n')
    done = subprocess.run([tool('curl'), '-sSk', '--url', 'smtps://127.0.0.1:%d/client.test' % TLS_PORT, '--user',
                           'alice@sender.test:' + PASSWORD, '--mail-from', 'alice@sender.test', '--mail-rcpt', 'b@else.test', '-T', message],
                          capture_output=True, check=False, encoding='utf-8', timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wait_until(lambda: received('alice@sender.test'), 'a record')[0]['user'] == 'alice@sender.test'


@lab.check('what is not allowed is refused: no login before TLS, a wrong password, an address of somebody else')
def refused():
    the_relay()
    with smtplib.SMTP('127.0.0.1', relay.port, timeout=60) as client:
        client.ehlo()
        assert not client.has_extn('auth') and client.has_extn('starttls')
        assert client.docmd('AUTH PLAIN')[0] == 530 and client.docmd('MAIL FROM:<alice@sender.test>')[0] == 530
    with smtplib.SMTP_SSL('127.0.0.1', TLS_PORT, timeout=60, context=clear_context()) as client:
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
    with smtplib.SMTP_SSL('127.0.0.1', TLS_PORT, timeout=60, context=clear_context()) as client:
        client.ehlo()
        assert client.docmd('AUTH PLAIN ' + right)[0] == 235
        write_users('bob@sender.test:%s\n' % password_hash())
        relay.cli('reload')
        assert client.docmd('MAIL FROM:<x@alias.test>')[0] == 250
        with smtplib.SMTP_SSL('127.0.0.1', TLS_PORT, timeout=60, context=clear_context()) as other:
            other.ehlo()
            assert other.docmd('AUTH PLAIN ' + right)[0] == 535


SCRAM_PASSWORDS = {'alice@sender.test': PASSWORD, 'carol': 'secret', 'dave': 'pass,word=1'}


def scram_keys():
    """Of three makers: our own, Dovecot's, where it is installed, and the standard's words in Python."""
    def ours(password):
        return subprocess.run([os.path.join(BUILD, 'control/angarium'), 'user', 'hash', '--scram'], input=password + '\n', capture_output=True, check=True,
                              encoding='utf-8').stdout.strip()

    def dovecots(password):
        try:
            program = tool('doveadm')
        except Skip:
            return ours(password)
        config = lab.write('doveadm.conf', 'protocols =\n')
        return subprocess.run([program, '-c', config, 'pw', '-s', 'SCRAM-SHA-256', '-p', password], capture_output=True, check=True,
                              encoding='utf-8').stdout.strip()

    def pythons(password):
        salt = os.urandom(9)
        salted = hashlib.pbkdf2_hmac('sha256', password.encode(), salt, 5000)
        keys = (hashlib.sha256(hmac.new(salted, b'Client Key', 'sha256').digest()).digest(), hmac.new(salted, b'Server Key', 'sha256').digest())
        return '{SCRAM-SHA-256}5000,' + ','.join(base64.b64encode(part).decode() for part in (salt,) + keys)
    return [maker(password) for maker, password in zip((ours, dovecots, pythons), SCRAM_PASSWORDS.values())]


@lab.check('SCRAM-SHA-256 with a file of keys: ours, Dovecot\'s, by hand; PLAIN against them; strangers are told what others are; offered to all or none')
def scram_file():
    alice, carol, dave = scram_keys()
    os.chmod(lab.write('keys', 'alice@sender.test:%s\ncarol:%s\ndave:%s:*@sender.test\ngone:!\n' % (alice, carol, dave)), 0o600)
    other = lab.relay(CONFIG.replace(str(TLS_PORT), str(free_port())) + 'auth: {users_file: "@FOLDER@/keys"}\n', 'keys')

    def connected():
        client = smtplib.SMTP('127.0.0.1', other.port, timeout=60)
        client.starttls(context=clear_context())
        client.ehlo()
        return client
    with connected() as client:
        assert client.esmtp_features['auth'].split() == ['PLAIN', 'LOGIN', 'SCRAM-SHA-256'], client.esmtp_features
    for name, password in SCRAM_PASSWORDS.items():
        for word, wrong, code in ((password, False, 235), (password, True, 535), ('wrong', False, 535)):
            with connected() as client:
                assert scram(client, name, word, wrong) == code, (name, word, wrong)
                assert client.docmd('MAIL FROM:<alice@sender.test>')[0] == (530 if code == 535 else 553 if name == 'carol' else 250)
        for word, code in ((password, 235), ('wrong', 535)):
            with connected() as client:
                assert client.docmd(plain(name, word))[0] == code, (name, word)
    salts = {}
    for name in ('eve', 'EVE', 'gone', 'mallory', 'carol') * 2:
        with connected() as client:
            code, said = client.docmd('AUTH SCRAM-SHA-256 ' + base64.b64encode(('n,,n=%s,r=x' % name).encode()).decode())
            fields = dict(field.split('=', 1) for field in base64.b64decode(said).decode().split(','))
            assert code == 334 and int(fields['i']) >= 4096 and fields['r'].startswith('x') and len(fields['r']) > 16, said
            salts.setdefault(name.lower(), set()).add(fields['s'])
            assert client.docmd('*')[0] == 501 and scram(client, name, 'x') == 535
    assert all(len(salt) == 1 for salt in salts.values()) and len(set.union(*salts.values())) == 4, salts
    for first in (b'p=tls-exporter,,n=carol,r=x', b'n,a=boss,n=carol,r=x', b'n,,n=carol,r=', b'n,,m=1,n=carol,r=x', b'n,,n=carol,r=' + b'r' * 500):
        with connected() as client:
            assert client.docmd('AUTH SCRAM-SHA-256 ' + base64.b64encode(first).decode())[0] in (501, 535), first
    with connected() as client:
        assert client.docmd('AUTH SCRAM-SHA-256 ' + base64.b64encode(b'n,,n=carol,r=x').decode())[0] == 334
        other.cli('reload')
        assert client.docmd(base64.b64encode(b'c=biws,r=y,p=AAAA').decode())[0] == 535
    os.chmod(lab.write('keys', 'carol:%s\nalice@sender.test:%s\n' % (carol, password_hash())), 0o600)
    other.cli('reload')
    with connected() as client:
        assert client.esmtp_features['auth'].split() == ['PLAIN', 'LOGIN']
        assert client.docmd('AUTH SCRAM-SHA-256')[0] == 504
        assert client.docmd(plain('carol', 'secret'))[0] == 235
    assert other.stop() == 0


DOVECOT = '''
base_dir = %(folder)s/dovecot/run
state_dir = %(folder)s/dovecot/state
log_path = %(folder)s/dovecot.log
protocols =
ssl = no
default_internal_user = %(user)s
default_internal_group = %(group)s
default_login_user = %(user)s
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = scheme=PLAIN %(folder)s/dovecot/passwd
}
userdb {
  driver = static
  args = uid=5000 gid=5000 home=/nonexistent
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener auth-client {
    mode = 0666
  }
}
'''
dovecot = None


def start_dovecot():
    global dovecot
    for name in ('run', 'state'):
        os.makedirs(lab.path('dovecot', name), exist_ok=True)
    lab.write('dovecot/passwd', 'alice@sender.test:%s\ncarol:secret\n'
              'boss@sender.test:secret::::::user=carol\nalias:secret::::::user=alice@sender.test\n' % PASSWORD)
    config = lab.write('dovecot/dovecot.conf', DOVECOT % {'folder': lab.folder, 'user': 'nobody', 'group': 'nogroup'})
    dovecot = lab.start([tool('dovecot'), '-F', '-c', config], 'dovecot-start.log', start_new_session=True)
    wait_until(lambda: os.path.exists(lab.path('dovecot/run/auth-client')), 'Dovecot listens')


def stop_dovecot():
    """With all its processes: the one that we talk to outlives its master otherwise, for as long as we are there."""
    os.killpg(dovecot.pid, signal.SIGKILL)
    lab.stop(dovecot)
    os.unlink(lab.path('dovecot/run/auth-client'))


def scram(client, name, password, wrong=False):
    """The client's side of RFC 5802 with SHA-256; returns the code that ends it, having checked the server's signature."""
    def answer(text):
        code, said = client.docmd(text)
        return code, base64.b64decode(said).decode() if code == 334 else said

    def digest(key, text):
        return hmac.new(key, text.encode(), 'sha256').digest()

    first = 'n=%s,r=%s' % (name, base64.b64encode(os.urandom(18)).decode())
    code, server_first = answer('AUTH SCRAM-SHA-256 ' + base64.b64encode(('n,,' + first).encode()).decode())
    if code != 334:
        return code
    fields = dict(field.split('=', 1) for field in server_first.split(','))
    assert fields['r'].startswith(first.split('r=')[1]), server_first
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), base64.b64decode(fields['s']), int(fields['i']))
    client_key = digest(salted, 'Client Key')
    bare = 'c=biws,r=' + fields['r']
    message = '%s,%s,%s' % (first, server_first, bare)
    signature = digest(hashlib.sha256(client_key).digest(), message)
    proof = bytes(a ^ b ^ wrong for a, b in zip(client_key, signature))
    code, server_final = answer(base64.b64encode((bare + ',p=' + base64.b64encode(proof).decode()).encode()).decode())
    if code != 334:
        return code
    expected = base64.b64encode(digest(digest(salted, 'Server Key'), message)).decode()
    assert server_final == 'v=' + expected, server_final
    return client.docmd('')[0]


def plain(name, password):
    return 'AUTH PLAIN ' + base64.b64encode(('\0%s\0%s' % (name, password)).encode()).decode()


@lab.check('Dovecot says who may log in; while it is away nobody can, and when it is back everybody may again')
def with_dovecot():
    if os.geteuid() != 0:
        raise Skip('needs root')
    tool('dovecot')
    start_dovecot()
    other = lab.relay(CONFIG.replace(str(TLS_PORT), str(free_port())) + 'auth: {dovecot: "@FOLDER@/dovecot/run/auth-client"}\n', 'second')

    def login(name, password):
        with smtplib.SMTP('127.0.0.1', other.port, timeout=60) as client:
            client.starttls(context=clear_context())
            client.ehlo()
            code = client.docmd(plain(name, password))[0]
            return code, client.docmd('MAIL FROM:<%s>' % name)[0] if '@' in name else 0

    assert login('alice@sender.test', PASSWORD) == (235, 250)
    assert login('carol', 'secret')[0] == 235
    # Dovecot says who that is: the name that was typed gives no right.
    assert login('boss@sender.test', 'secret') == (235, 553)
    assert login('alias', 'secret')[0] == 235
    assert login('alice@sender.test', 'wrong') == (535, 530)
    assert login('eve@sender.test', 'x') == (535, 530)
    with smtplib.SMTP('127.0.0.1', other.port, timeout=60) as client:
        client.starttls(context=clear_context())
        client.ehlo()
        assert client.docmd('AUTH LOGIN')[0] == 334
        assert client.docmd(base64.b64encode(b'carol').decode())[0] == 334
        assert client.docmd(base64.b64encode(b'secret').decode())[0] == 235
    for name, password, wrong, code in (('alice@sender.test', PASSWORD, False, 235), ('alice@sender.test', PASSWORD, True, 535),
                                        ('carol', 'wrong', False, 535), ('eve@sender.test', 'x', False, 535)):
        with smtplib.SMTP('127.0.0.1', other.port, timeout=60) as client:
            client.ehlo()
            assert not client.has_extn('auth')
            client.starttls(context=clear_context())
            client.ehlo()
            assert client.esmtp_features['auth'].split() == ['PLAIN', 'LOGIN', 'SCRAM-SHA-256'], client.esmtp_features
            assert scram(client, name, password, wrong) == code
            assert client.docmd('MAIL FROM:<%s>' % name)[0] == (250 if code == 235 else 530)
    # Who gives up in the middle, or is gone, leaves nothing behind: others log in, over the same connection to Dovecot.
    for _ in range(5):
        with smtplib.SMTP('127.0.0.1', other.port, timeout=60) as client:
            client.starttls(context=clear_context())
            client.ehlo()
            assert client.docmd('AUTH SCRAM-SHA-256 ' + base64.b64encode(b'n,,n=carol,r=x').decode())[0] == 334
            assert client.docmd('*')[0] == 501 and scram(client, 'carol', 'secret') == 235
        gone = smtplib.SMTP('127.0.0.1', other.port, timeout=60)
        gone.starttls(context=clear_context())
        gone.ehlo()
        assert gone.docmd('AUTH SCRAM-SHA-256 ' + base64.b64encode(b'n,,n=carol,r=x').decode())[0] == 334
        gone.close()
    assert 'dovecot_lost' not in lab.log('second.log')
    before = other.status()['server']
    stop_dovecot()
    wait_until(lambda: login('alice@sender.test', PASSWORD) == (454, 530), 'Dovecot is missed')
    start_dovecot()
    wait_until(lambda: login('alice@sender.test', PASSWORD) == (235, 250), 'Dovecot is found again')
    status = other.status()['server']
    assert status['auth.rejected'] == 5 and before['auth.unavailable'] == 0 and before['auth.accepted'] == 11, (before, status)
    assert status['auth.unavailable'] >= 1 and status['auth.accepted'] == 12, status
    stop_dovecot()


lab.run()
