#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Looking on at conversations of running relays: one that takes mail, and a second one that it logs in to. Every viewer sees what it asked for,
both sides of it, and neither a password nor a body."""
import base64
import http.client
import json
import os
import signal
import smtplib
import socket
import subprocess

from lab import BUILD, Lab, can_connect, free_port, wait_until

lab = Lab('trace')
PASSWORD, USER, BODY = 'correct-horse-battery', 'alice@sender.test', 'the-text-of-the-letter'
SECRETS = [PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), base64.b64encode(USER.encode()).decode(), BODY,
           base64.b64encode(('\0%s\0%s' % (USER, PASSWORD)).encode()).decode()]
HTTP = free_port()
RELAY = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@", limits: {junk: 1000000}}]
relay_from: [127.0.0.0/8]
destinations: {allow: [127.0.0.0/8]}
dns: {resolvers: ["127.0.0.1"]}
http: {listen: "127.0.0.1:%d", admin_token_file: "@FOLDER@/admin"}
delivery: auto
routes:
  - match: far.test
    via: hosts
    hosts: [{host: 127.0.0.1, port: %d}]
    tls: {level: encrypt}
    auth: {user: "%s", password_file: "@FOLDER@/password"}
  - {match: "*", via: discard}
'''
HOST = '''
hostname: host.test
listen: [{address: "127.0.0.1:@PORT@", kind: submission, tls: {self_signed: "@FOLDER@/tls"}}]
relay_from: []
routes: [{match: "*", via: discard}]
dns: {resolvers: ["127.0.0.1"]}
auth: {users_file: "@FOLDER@/users"}
'''
host = relay = None


def start():
    global host, relay
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), 'user', 'hash'], input=PASSWORD + '\n', capture_output=True, check=True,
                          encoding='utf-8')
    for name, text in (('users', '%s:%s:*@client.test\n' % (USER, done.stdout.strip())), ('password', PASSWORD + '\n'),
                       ('admin', 'admin-token-of-24-signs-\n')):
        os.chmod(lab.write(name, text), 0o600)
    host = lab.relay(HOST, 'host')
    relay = lab.relay(RELAY % (HTTP, host.port, USER), 'relay')


class Viewer:
    """angarium trace, with what it printed so far."""

    count = 0

    def __init__(self, of, *arguments):
        Viewer.count += 1
        self.name = 'trace-%d.out' % Viewer.count
        self.of = of
        before = of_log(of).count('event=trace')
        self.child = lab.start([os.path.join(BUILD, 'control/angarium'), '-s', of.socket, 'trace', *arguments], self.name)
        wait_until(lambda: of_log(of).count('event=trace') > before or self.child.poll() is not None, 'the viewer is there')
        of.status() # the shards were told before this was answered

    def text(self):
        return lab.log(self.name)

    def end(self, *needed):
        wait_until(lambda: all(word in self.text() for word in needed), '%r in\n%s' % (needed, self.text()))
        lab.stop(self.child, signal.SIGINT)
        return self.text()


def of_log(of):
    return lab.log(of.name + '.log')


def send(recipient, port=None, sender='a@client.test'):
    with smtplib.SMTP('127.0.0.1', port or relay.port) as client:
        client.sendmail(sender, [recipient], 'Subject: x\r\n\r\n%s\r\n' % BODY)


def check_secrets(text):
    for secret in SECRETS:
        assert secret not in text, (secret, text)


@lab.check('a client is seen on both sides of the relay, without its letter and without our password')
def both_sides():
    viewer = Viewer(relay, '127.0.0.0/8')
    send('b@far.test')
    wait_until(lambda: relay.records('delivery'), 'a record')
    text = viewer.end(' in ', 'closed', 'S: 235')
    check_secrets(text)
    for line in ('C: EHLO', 'C: MAIL FROM:<a@client.test>', 'C: RCPT TO:<b@far.test>', 'message of', 'S: 250 2.0.0 ok'):
        assert sum(line.lower() in row.lower() and ' in ' in row for row in text.splitlines()), (line, text)
        assert sum(line.lower() in row.lower() and 'out ' in row for row in text.splitlines()), (line, text)
    for line in ('connected to', 'STARTTLS', 'TLSv1.3', 'C: AUTH PLAIN [hidden]', 'S: 235 2.7.0'):
        assert sum(line in row and 'out ' in row for row in text.splitlines()), (line, text)


@lab.check('nothing of a login is seen where the client logs in, by whichever mechanism, nor what comes in its place')
def logins():
    viewer = Viewer(host, '127.0.0.1')
    context = __import__('ssl')._create_unverified_context()
    for step in ('PLAIN', 'LOGIN', 'wrong'):
        with smtplib.SMTP('127.0.0.1', host.port) as client:
            client.starttls(context=context)
            client.ehlo()
            client.user, client.password = USER, PASSWORD
            if step == 'wrong': # a mechanism that there is not, and its answer all the same
                client.docmd('AUTH', 'CRAM-MD6')
                client.docmd(SECRETS[1])
                client.docmd('AUTH', PASSWORD)
            else:
                client.auth(step, client.auth_plain if step == 'PLAIN' else client.auth_login)
    text = viewer.end('C: AUTH PLAIN [hidden]', 'C: AUTH LOGIN', 'C: [hidden]', 'S: 334 [hidden]', 'octets that begin with no command')
    check_secrets(text)
    assert text.count('S: 235') == 2, text


@lab.check('a domain, a site and a message show themselves, and nothing else does')
def filters():
    domain, other, site = Viewer(relay, 'far.test'), Viewer(relay, 'near.test'), Viewer(relay, '127.0.0.1', '--json')
    before = len(relay.records('delivery'))
    send('b@far.test')
    row = wait_until(lambda: relay.records('delivery')[before:], 'delivered')[0]
    send('c@elsewhere.test')
    text = domain.end('C: MAIL', 'closed')
    assert 'RCPT TO:<b@far.test>' in text and 'from here on; mail of <a@client.test>' in text and 'c@elsewhere' not in text, text
    assert other.end() == '', other.text()
    rows = [json.loads(line) for line in site.end('c@elsewhere').splitlines()]
    assert {row['side'] for row in rows} == {'inbound', 'outbound'} and all(row['peer'].startswith('127.0.0.1:') for row in rows), rows
    assert row['id'] in {row.get('id') for row in rows if row['side'] == 'outbound'}, rows
    assert row['id'] in {row.get('id') for row in rows if row['side'] == 'inbound'}, rows
    relay.cli('hold', 'domain=held.test', '--duration', '1m')
    send('d@held.test')
    held = wait_until(lambda: json.loads(relay.cli('queue', 'list', 'domain=held.test', '--json'))['rows'], 'held')[0]['id']
    viewer = Viewer(relay, held)
    relay.cli('reroute', 'domain=held.test', '--to', 'far.test', '--reason', 'test')
    relay.cli('release', 'id=' + held)
    text = viewer.end('RCPT TO:<d@held.test>', 'S: 250')
    assert all(held in line for line in text.splitlines()) and 'b@far.test' not in text, text
    relay.cli('hold', 'domain=far.test', '--duration', '1m')
    send('e@far.test')
    wait_until(lambda: json.loads(relay.cli('queue', 'list', 'domain=far.test', '--json'))['rows'], 'held')
    text = relay.cli('explain', 'far.test') # a site that is known, though not to what waits
    assert 'site       far.test' in text and '1 held' in text and '\n  dns' not in text, text
    relay.cli('delete', 'domain=far.test', '--reason', 'test')
    relay.cli('release', 'domain=far.test')


@lab.check('only what is new, only codes, and an end after some lines or seconds')
def choices():
    with socket.create_connection(('127.0.0.1', relay.port)) as old:
        old.recv(512)
        viewer = Viewer(relay, '127.0.0.1', '--only-new', '--terse')
        old.sendall(b'NOOP of-the-old\r\n')
        old.recv(512)
        send('e@near.test')
        text = viewer.end('closed')
        assert 'of-the-old' not in text and 'S: 250-' not in text, text
        assert [line for line in text.splitlines() if line.endswith('S: 250 2.1.0')], text
    viewer = Viewer(relay, '127.0.0.1', '--count', '3')
    send('e@near.test')
    assert wait_until(lambda: viewer.child.poll() is not None, 'the end') and viewer.child.returncode == 0
    assert len(viewer.text().splitlines()) == 4 and '-- 3 lines, 0 lost' in viewer.text(), viewer.text()
    viewer = Viewer(relay, '192.0.2.1', '--seconds', '1')
    assert wait_until(lambda: viewer.child.poll() is not None, 'the end') and viewer.text() == '-- 0 lines, 0 lost\n', viewer.text()
    for wrong in ('a b', '192.0.2.1/33', '192.0.2.1/24', 'x@y', 'what?'):
        done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, 'trace', wrong], capture_output=True, check=False,
                              encoding='utf-8', timeout=60)
        assert done.returncode == 1 and 'trace what?' in done.stderr, (wrong, done)


def is_stopped(viewer):
    with open('/proc/%d/stat' % viewer.child.pid, encoding='utf-8') as file:
        return file.read().rsplit(')', 1)[1].split()[0] == 'T'


@lab.check('a viewer that is stopped and goes on (Ctrl-Z, fg) does not take it for the end of the relay')
def stopped():
    viewer = Viewer(relay, 'stopped.test')
    for _ in range(3):
        viewer.child.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(viewer), 'it is stopped')
        viewer.child.send_signal(signal.SIGCONT)
        wait_until(lambda: not is_stopped(viewer), 'it goes on')
    send('g@stopped.test')
    viewer.end('TO:<g@stopped.test>')


@lab.check('a viewer that does not read loses lines, hears how many, and holds up nobody; a fifth one is turned away')
def slow():
    viewers = []
    for _ in range(4):
        sock = socket.socket(socket.AF_UNIX)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(relay.socket)
        sock.sendall(b'{"verb":"trace","id":"127.0.0.1"}\n')
        viewers.append(sock)
    relay.status()
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, 'trace', '127.0.0.1'], capture_output=True, check=False,
                          encoding='utf-8', timeout=60)
    assert done.returncode == 1 and 'too many' in done.stderr, done
    with socket.create_connection(('127.0.0.1', relay.port)) as client:
        client.settimeout(60)
        lines = client.makefile('rb')
        lines.readline()
        client.sendall(b'EHLO client.test\r\n')
        while lines.readline()[3:4] == b'-':
            pass
        for _ in range(20): # 20 x 400 lines said, and as many answers
            client.sendall(b'RSET\r\n' * 400)
            for _ in range(400):
                line = lines.readline()
                assert line.startswith(b'250'), line
    for viewer in viewers[1:]:
        viewer.close()
    lines = viewers[0].makefile('rb')
    shown = lost = 0
    client = smtplib.SMTP('127.0.0.1', relay.port) # what is said from now on comes with what was missed before
    while shown + lost < 16000:
        row = json.loads(lines.readline())
        shown, lost = shown + ('row' in row), lost + row.get('lost', 0)
        if shown % 10 == 0:
            client.noop()
    client.close()
    assert shown > 100 and lost > 100, (shown, lost)
    viewers[0].close()
    wait_until(lambda: subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, 'trace', '192.0.2.1', '--seconds', '1'],
                                      capture_output=True, check=False).returncode == 0, 'the places are free again')


@lab.check('over HTTP the admin looks on, as lines of JSON')
def over_http():
    wait_until(lambda: can_connect('127.0.0.1', HTTP), 'http')
    connection = http.client.HTTPConnection('127.0.0.1', HTTP, timeout=60)
    connection.request('POST', '/api/v1/trace', json.dumps({'id': 'near.test', 'count': 2}),
                       {'Authorization': 'Bearer admin-token-of-24-signs-', 'Content-Type': 'application/json'})
    wait_until(lambda: of_log(relay).count('what=near.test') > 1, 'the viewer is there')
    relay.status()
    send('f@near.test')
    answer = connection.getresponse()
    lines = [json.loads(line) for line in answer.read().decode().splitlines()]
    assert answer.status == 200 and len(lines) == 3 and lines[-1] == {'ok': True, 'lines': 2, 'lost': 0}, lines


@lab.check('a relay that stops ends its viewers')
def stop():
    viewer = Viewer(relay, '127.0.0.1')
    assert relay.stop() == 0
    assert wait_until(lambda: viewer.child.poll() is not None, 'the end') and viewer.child.returncode == 1
    assert 'the relay has ended' in viewer.text(), viewer.text()


start()
lab.run()
