#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The relay on the engine, with real mail systems in another namespace: they send to it and it delivers to them, over net_tap and over a veth.

    mail (10.9.1.1: Postfix, sinks, senders) - home (10.9.0.1: router, name server on loopback) - the relay's own 10.9.0.2
"""
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import time

from lab import LONG, Lab, Skip, audit, segments_of_replies, source_message, tool, wait_until
from netns import Net

lab = Lab('wire-mail')
net = Net(lab)

RELAY4, RELAY6 = '10.9.0.2', 'fd09::2'
HOME4, HOME6, MAIL_ROUTER4, MAIL_ROUTER6 = '10.9.0.1', 'fd09::1', '10.9.1.2', 'fd09:1::2'
POSTFIX4, POSTFIX6, SINK4, SINK6 = '10.9.1.1', 'fd09:1::1', '10.9.1.3', 'fd09:1::3'
DEVICES = {'tap': 'net_tap0,iface=wire0', 'af_packet': 'net_af_packet0,iface=wire0'}
COUNT = 10_000 if LONG else 500
IDLE_SECONDS = 30 if LONG else 3

ZONES = {'test': ['postfix MX 5 mx.postfix', 'mx.postfix A ' + POSTFIX4, 'six MX 5 mx.six', 'mx.six AAAA ' + POSTFIX6,
                  'sink MX 5 mx.sink', 'mx.sink A ' + SINK4, 'mx.sink AAAA ' + SINK6]}

CONFIG = '''
hostname: relay.test
cores: %(cores)d
listen:
  - address: 10.9.0.2:25
    tls: {self_signed: "@FOLDER@"}
  - address: "[fd09::2]:25"
    tls: {self_signed: "@FOLDER@"}
  - address: 127.0.0.1:@PORT@
relay_from: [127.0.0.0/8, 10.9.0.0/16, "fd09::/16"]
dns: {resolvers: ["%(resolver)s"]}
destinations: {allow: [10.9.0.0/16, "fd09::/16"]}
sources: [{name: out, addresses: [10.9.0.2, "fd09::2"]}]
client: {idle_timeout: 1s}
retry: {min: 1s, max: 4s}
http: {socket: "@FOLDER@/%(driver)s-http.sock"}
dataplane:
  driver: dpdk
  memory: 64MiB
  ports:
    - device: "%(device)s"
      addresses: [10.9.0.2/24, "fd09::2/64"]
      gateway: [10.9.0.1, "fd09::1"]
'''


class World:
    def __init__(self, driver, cores):
        if driver == 'tap' and not os.path.exists('/dev/net/tun'):
            raise Skip('no /dev/net/tun')
        self.driver, self.cores = driver, cores
        self.home, self.mail = net.namespace(driver + '-home'), net.namespace(driver + '-mail')
        self.relay_home = self.home
        if driver == 'tap':
            net.veth(self.home, 'mail0', self.mail, 'home0')
        else:
            self.relay_home = net.namespace(driver + '-relay')
            net.veth(self.home, 'mail0', self.mail, 'home0')
            net.veth(self.relay_home, 'wire0', self.home, 'relay0')
            self.relay_home.silence('wire0')
            self.home.address('relay0', HOME4 + '/24', HOME6 + '/64')
        self.home.forward()
        self.home.address('mail0', MAIL_ROUTER4 + '/24', MAIL_ROUTER6 + '/64')
        self.mail.address('home0', *(a + n for a, n in ((POSTFIX4, '/24'), (SINK4, '/24'), (POSTFIX6, '/64'), (SINK6, '/64'))))
        self.mail.route('default', MAIL_ROUTER4)
        self.mail.route('default', MAIL_ROUTER6)
        self.resolver = '127.0.0.1:%d' % lab.nsd(ZONES, prefix=self.relay_home.prefix(), reach=self.relay_home.can_connect)
        self.relay = lab.relay(self.config(), driver, self.relay_home.prefix(), self.reach)
        self.reached()

    def config(self, **other):
        return CONFIG % {'cores': self.cores, 'driver': self.driver, 'device': DEVICES[self.driver], 'resolver': self.resolver, **other}

    def reach(self, address, port):
        """The relay listens; on a TAP interface the kernel's side is only there then."""
        if not self.relay_home.can_connect(address, port):
            return False
        if self.driver == 'tap' and HOME4 not in self.home.ip('address', 'show', 'dev', 'wire0'):
            self.home.address('wire0', HOME4 + '/24', HOME6 + '/64')
        return True

    def reached(self):
        for address in (RELAY4, RELAY6):
            wait_until(lambda address=address: self.mail.can_connect(address, 25), 'the relay is reached at ' + address)

    def restart(self):
        self.relay.start()
        self.reached()

    def delivered(self, recipient):
        return [row for row in self.relay.records('delivery') if row['recipient'] == recipient]

    def run(self, *arguments, code=0, **more):
        done = subprocess.run(self.mail.prefix() + [str(a) for a in arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              stdin=subprocess.DEVNULL, encoding='utf-8', errors='replace', **{'timeout': 90, **more})
        assert done.returncode == code, '%s gave %d:\n%s' % (arguments[0], done.returncode, done.stdout)
        return done.stdout


worlds = {}


def world(driver):
    if driver not in worlds:
        worlds[driver] = World(driver, 2 if driver == 'tap' else 1)
    return worlds[driver]


def load(w, *arguments, log):
    return lab.load(*arguments, log=log, prefix=w.mail.prefix())


def dialogues(driver):
    """By swaks, and by Python where swaks has no IPv6 without a module of its own."""
    w = world(driver)
    sink = load(w, 'sink', '-q', '-s', '100', SINK4 + ':25', log='sink.log')
    wait_until(lambda: w.mail.can_connect(SINK4, 25), 'the sink listens')
    try:
        swaks = [tool('swaks'), '--server', RELAY4 + ':25', '--from', 'a@load.example', '--to', 'u@sink.test', '--timeout', '60']
        assert 'CHUNKING' in w.run(*swaks)
        assert 'TLS started' in w.run(*swaks, '--tls')
        for has_tls in (False, True):
            with w.mail.entered():
                client = smtplib.SMTP(RELAY6, 25, timeout=60)
            with client:
                if has_tls:
                    client.starttls()
                client.sendmail('a@load.example', ['u@sink.test'], source_message().encode())
        wait_until(lambda: len(w.delivered('u@sink.test')) == 4, 'all four delivered')
    finally:
        lab.stop(sink)


def batched(driver):
    """RFC 2920 section 3.2: the replies to commands that came together, and the last of them waits for none."""
    with world(driver).mail.entered():
        sock = socket.create_connection((RELAY4, 25), 60)
    with sock:
        assert segments_of_replies(sock, b'', 1)[1].startswith(b'220')
        assert segments_of_replies(sock, b'EHLO load.example\r\n', 1)[0] == 1
        commands = b'MAIL FROM:<a@load.example>\r\n' + b''.join(b'RCPT TO:<u%d@sink.test>\r\n' % i for i in range(40)) + b'DATA\r\n'
        segments, replies = segments_of_replies(sock, commands, 42)
        assert segments == 1 and replies.count(b'250 ') == 41 and b'\r\n354 ' in replies, (segments, replies)


POSTFIX_MAIN = ('myhostname = mx.postfix.test', 'virtual_mailbox_domains = postfix.test, six.test', 'virtual_mailbox_maps = static:box/',
                'virtual_uid_maps = static:5000', 'virtual_gid_maps = static:5000', 'message_size_limit = 0', 'virtual_mailbox_limit = 0',
                'smtpd_tls_security_level = may', 'inet_interfaces = all', 'inet_protocols = all', 'mynetworks = 10.9.0.0/16, [fd09::]/16',
                'smtpd_peername_lookup = no')


def pem(text):
    for name in os.listdir(lab.folder):
        path = lab.path(name)
        if os.path.isfile(path) and text in open(path, encoding='utf-8', errors='replace').read(64):
            return path
    raise AssertionError('no file with ' + text)


def to_postfix(driver):
    w = world(driver)
    path = lab.write('message.txt', source_message().replace('\r\n', '\n'))
    shutil.rmtree(lab.path('postfix'), ignore_errors=True)
    postfix = lab.postfix(POSTFIX4, 25, POSTFIX_MAIN + ('virtual_mailbox_base = %s/mail' % lab.path('postfix'),
                                                        'smtpd_tls_cert_file = ' + pem('BEGIN CERTIFICATE'), 'smtpd_tls_key_file = ' + pem('PRIVATE KEY')),
                          ['virtual unix - n n - - virtual', '[%s]:25 inet n - n - 200 smtpd' % POSTFIX6], w.mail.prefix(), w.mail.can_connect)
    try:
        began = time.monotonic()
        for server, domain in ((RELAY4, 'postfix'), ('[%s]' % RELAY6, 'six')):
            w.run(tool('smtp-source'), '-d', '-s', 20, '-m', COUNT // 2, '-f', 'a@load.example', '-t', 'u@%s.test' % domain, '-F', path, server + ':25')
        box = lab.path('postfix', 'mail/box/new')
        wait_until(lambda: os.path.isdir(box) and len(os.listdir(box)) >= COUNT, '%d messages in the mailbox' % COUNT)
        took = time.monotonic() - began
        wanted, changed = source_message().replace('\r\n', '\n').encode(), 0
        for name in os.listdir(box):
            with open(os.path.join(box, name), 'rb') as file:
                changed += wanted not in file.read()
        assert changed == 0 and len(os.listdir(box)) == COUNT, '%d of %d changed' % (changed, len(os.listdir(box)))
        # Postfix may say so a little after the message is in the mailbox.
        wait_until(lambda: len(w.delivered('u@postfix.test') + w.delivered('u@six.test')) >= COUNT, 'Postfix has said so of all')
        rows = w.delivered('u@postfix.test') + w.delivered('u@six.test')
        assert len(rows) == COUNT and all(row.get('tls', '').startswith('TLS') for row in rows), rows[:1]
        return '%.0f messages/s' % (COUNT / took)
    finally:
        postfix.stop()


def ledger(driver):
    """Who was told 250 is delivered once, though next hops answer 4xx now and then."""
    w = world(driver)
    sent, got = lab.path(driver + '-sent'), lab.path(driver + '-got')
    sinks = [load(w, 'sink', '-q', '-s', '200', '-4', '5', '-L', got + str(i), target, log='sink%d.log' % i)
             for i, target in enumerate((SINK4 + ':25', '[%s]:25' % SINK6))]
    wait_until(lambda: w.mail.can_connect(SINK4, 25) and w.mail.can_connect(SINK6, 25), 'the sinks listen')
    sources = [load(w, 'source', '-q', '-s', '20', '-m', COUNT, '-d', 'sink.test', '-L', sent + str(i), target, log='source%d.log' % i)
               for i, target in enumerate((RELAY4 + ':25', '[%s]:25' % RELAY6))]
    assert [source.wait(90) for source in sources] == [0, 0]
    wanted = 'acknowledged %d, delivered %d, lost 0, duplicated 0,' % (2 * COUNT, 2 * COUNT)
    ledgers = [name + str(i) for name in (sent, got) for i in (0, 1)]
    wait_until(lambda: wanted in audit(*ledgers), 'all arrive: ' + audit(*ledgers), 90)
    for sink in sinks:
        lab.stop(sink)
    return audit(*ledgers)


def seen(driver):
    w = world(driver)
    with w.mail.entered():
        client = smtplib.SMTP(RELAY4, 25, timeout=60)
    with client:
        client.ehlo('client.test')
        flows = w.relay.cli('flows')
        assert re.search(r'ESTABLISHED\s+10\.9\.0\.2:25\s+10\.9\.1\.1:\d', flows) and flows.count('LISTEN') == 2 * w.cores, flows
    counters = {}
    for row in json.loads(w.relay.cli('counters', '--json', '--limit', '10000'))['rows']:
        counters[row['name']] = counters.get(row['name'], 0) + row['value']
    assert counters['tcp_handshakes'] > 20 and counters['frames_received'] > 1000, counters
    odd = {name: value for name, value in counters.items() if value and re.search('malformed|checksum|martian|spoofed|no_buffer', name)}
    assert not odd, odd
    return '%d frames in, %d out' % (counters['frames_received'], counters['frames_sent'])


def idle(driver):
    """An idle relay sleeps: what it uses of one core."""
    w = world(driver)
    wait_until(lambda: 'ESTABLISHED' not in w.relay.cli('flows'), 'idle connections are closed')
    pid, tick = w.relay.child.pid, os.sysconf('SC_CLK_TCK')

    def used():
        with open('/proc/%d/stat' % pid, encoding='ascii') as file:
            fields = file.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / tick
    before, began = used(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    share = 100 * (used() - before) / (time.monotonic() - began)
    assert share < 20 * w.cores, '%.1f %% of a core when idle' % share
    return '%.1f %% of a core with %d core%s (to reach: 5)' % (share, w.cores, 's' if w.cores > 1 else '')


def settled(*ledgers):
    """What the ledgers say, once all that was acknowledged is delivered."""
    match = re.search(r'acknowledged (\d+), delivered (\d+), lost (\d+)', audit(*ledgers))
    return match[0] if match and int(match[1]) > COUNT // 2 and match[1] == match[2] and match[3] == '0' else None


def drain(driver):
    """SIGTERM in the middle of traffic: it ends in good order, and after a restart nothing is missing."""
    w = world(driver)
    sent, got = lab.path(driver + '-drain-sent'), lab.path(driver + '-drain-got')
    before = len(w.relay.records('delivery'))
    sink = load(w, 'sink', '-q', '-s', '200', '-w', '20', '-L', got, SINK4 + ':25', log='sink.log')
    wait_until(lambda: w.mail.can_connect(SINK4, 25), 'the sink listens')
    source = load(w, 'source', '-q', '-p', '-s', '20', '-m', COUNT, '-R', COUNT, '-d', 'sink.test', '-L', sent, RELAY4 + ':25', log='source.log')
    wait_until(lambda: len(w.relay.records('delivery')) > before + COUNT // 4, 'traffic')
    began = time.monotonic()
    code = w.relay.stop()
    took = time.monotonic() - began
    assert code == 0, 'ended with %d after %.1f s' % (code, took)
    w.restart()
    assert source.wait(60) == 0
    counts = wait_until(lambda: settled(sent, got), 'all arrive')
    lab.stop(sink)
    return 'ended after %.1f s; %s' % (took, counts)


def captured(driver):
    """Over HTTP, as it comes: the frames of a conversation, by their octets, and no others."""
    w = world(driver)
    curl = subprocess.Popen([tool('curl'), '-sN', '--unix-socket', lab.path(driver + '-http.sock'), '-H', 'Content-Type: application/json', '-d',
                             '{"id": "tcp port 25", "seconds": 60}', 'http://relay/api/v1/capture'], stdout=subprocess.PIPE)
    octets = os.read(curl.stdout.fileno(), 24)
    assert octets[:4] == b'\xd4\xc3\xb2\xa1', octets
    with w.mail.entered():
        client = smtplib.SMTP(RELAY4, 25, timeout=60)
    with client:
        client.ehlo('captured.test')
    deadline = time.monotonic() + 60
    while b'ehlo captured.test\r\n' not in octets or b'221 ' not in octets:
        assert time.monotonic() < deadline, octets
        octets += os.read(curl.stdout.fileno(), 65536)
    curl.kill()
    curl.wait()
    at, frames = 24, 0
    while at + 16 <= len(octets):
        kept, whole = struct.unpack('<II', octets[at + 8:at + 16])
        assert kept == whole <= 1514 and octets[at + 28:at + 30] == b'\x08\x00', (at, kept, whole)
        at, frames = at + 16 + kept, frames + 1
    assert frames > 8, frames
    return '%d frames' % frames


def names_by_wire(driver):
    """The resolver is in another network: questions and answers are datagrams of the engine."""
    w = world(driver)
    w.relay.stop()
    port = lab.nsd(ZONES, MAIL_ROUTER4, 5353, w.home.prefix(), w.home.can_connect)
    relay = lab.relay(w.config(resolver='%s:%d' % (MAIL_ROUTER4, port)), driver + '-names', w.relay_home.prefix(), w.reach)
    w.reached()
    sink = load(w, 'sink', '-q', '-s', '100', SINK4 + ':25', log='sink.log')
    try:
        w.run(tool('swaks'), '--server', RELAY4 + ':25', '--from', 'a@load.example', '--to', 'names@sink.test', '--timeout', '60')
        wait_until(lambda: relay.records('delivery'), 'delivered: %s' % relay.records())
    finally:
        lab.stop(sink)
        assert relay.stop() == 0


for name in DEVICES:
    for title, function in (('dialogues: plain and STARTTLS, IPv4 and IPv6', dialogues),
                            ('smtp-source, through the relay, to a real Postfix under STARTTLS, octet for octet, IPv4 and IPv6', to_postfix),
                            ('replies to commands that came together leave in one segment', batched),
                            ('the ledger: nothing lost, nothing doubled', ledger), ('flows and counters show it', seen), ('a capture over HTTP has its frames', captured),
                            ('idle', idle),
                            ('SIGTERM drains', drain), ('names by the engine\'s own datagrams', names_by_wire)):
        lab.check('%s: %s' % (name, title))(lambda function=function, name=name: function(name))

@lab.check('what a spinning core lost to others is counted')
def stalled():
    """Stopped for 100 ms, for want of somebody who takes the core away."""
    w = world('af_packet')
    relay = lab.relay(w.config().replace('driver: dpdk', 'driver: dpdk\n  poll: busy'), 'busy', w.relay_home.prefix(), w.reach)
    try:
        before = relay.status()['shards']['stalled_us']
        os.kill(relay.child.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(relay.child.pid, signal.SIGCONT)
        wait_until(lambda: relay.status()['shards']['stalled_us'] >= before + 90_000, 'it is counted: %s' % relay.status()['shards'])
    finally:
        relay.stop()


if __name__ == '__main__':
    lab.run()
