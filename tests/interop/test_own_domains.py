#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole story of mail, with two domains that each have a relay and a Dovecot of their own, and a real unbound: users submit, the relays find
each other by MX, hand what is theirs to their Dovecot by LMTP, and users fetch it by IMAP and POP3.

    people 10.9.1.9 --- a.test: relay and Dovecot 10.9.0.1, unbound
           10.9.2.9 --- b.test: relay and Dovecot 10.9.0.2
"""
import re
import smtplib
import subprocess

from dovecot import Dovecot
from lab import Lab, tool, wait_until
from netns import Net

lab = Lab('own-domains')
net = Net(lab)
PASSWORD = 'corr3ct horse'
CONFIG = '''
hostname: mx.%(domain)s
listen:
  - {address: "127.0.0.1:@PORT@"}
  - {address: "%(address)s:25", tls: {self_signed: "@FOLDER@/tls-%(domain)s"}}
  - {address: "0.0.0.0:587", kind: submission, tls: {self_signed: "@FOLDER@/tls-%(domain)s"}}
  - {address: "0.0.0.0:465", kind: submission, tls: {self_signed: "@FOLDER@/tls-%(domain)s", implicit: true}}
relay_from: []
auth: {dovecot: "%(auth)s"}
destinations: {allow: [10.9.0.0/16]}
dns: {resolvers: ["10.9.0.1"]}
routes:
  - {match: %(domain)s, served: true, via: lmtp, %(store)s}
'''
UNBOUND = '''
server:
  interface: 10.9.0.1
  access-control: 10.9.0.0/16 allow
  username: ""
  chroot: ""
  directory: "%s"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  local-zone: "test." static
%s
remote-control:
  control-enable: no
'''
NAMES = ['a.test. MX 10 mx.a.test.', 'mx.a.test. A 10.9.0.1', 'b.test. MX 10 mx.b.test.', 'mx.b.test. A 10.9.0.2']


class World:
    def __init__(self):
        self.a, self.b, self.people = net.namespace('a'), net.namespace('b'), net.namespace('people')
        net.veth(self.a, 'b0', self.b, 'a0')
        net.veth(self.people, 'a0', self.a, 'people0')
        net.veth(self.people, 'b0', self.b, 'people0')
        self.a.address('b0', '10.9.0.1/24')
        self.b.address('a0', '10.9.0.2/24')
        self.a.address('people0', '10.9.1.1/24')
        self.b.address('people0', '10.9.2.1/24')
        self.people.address('a0', '10.9.1.9/24')
        self.people.address('b0', '10.9.2.9/24')
        config = lab.write('unbound.conf', UNBOUND % (lab.folder, '\n'.join('  local-data: "%s"' % row for row in NAMES)))
        self.a.start([tool('unbound'), '-d', '-c', config])
        self.stores = {
            'a.test': Dovecot(lab, 'store-a', {'alice@a.test': PASSWORD}, '10.9.0.1,10.9.1.1', self.a.prefix()),
            'b.test': Dovecot(lab, 'store-b', {'bob@b.test': PASSWORD, 'carol@b.test': PASSWORD, 'full@b.test': (PASSWORD, 1)}, '10.9.0.2,10.9.2.1',
                              self.b.prefix())}
        wait_until(lambda: self.a.can_connect('10.9.0.1', 53), 'unbound answers')
        self.relays = {'a.test': self.relay('a.test', '10.9.0.1', 'hosts: [{host: 10.9.0.1}]', self.a),
                       'b.test': self.relay('b.test', '10.9.0.2', 'socket: "%s"' % self.stores['b.test'].lmtp_socket, self.b)}

    def relay(self, domain, address, store, namespace):
        text = CONFIG % {'domain': domain, 'address': address, 'store': store, 'auth': self.stores[domain].auth_socket}
        return lab.relay(text + 'delivery: auto\n', domain, prefix=namespace.prefix(), reach=namespace.can_connect)

    def curl(self, *arguments, user=None, code=0):
        more = ['--user', '%s:%s' % (user, PASSWORD)] if user else []
        done = subprocess.run(self.people.prefix() + [tool('curl'), '-sSk', '--ssl-reqd', '--max-time', '60'] + more + list(arguments),
                              capture_output=True, check=False, encoding='utf-8', timeout=60)
        assert done.returncode == code, '%s: %d %s' % (' '.join(arguments), done.returncode, done.stderr)
        return done.stdout

    def submit(self, url, user, recipients, subject):
        text = 'From: <%s>\r\nTo: %s\r\nSubject: %s\r\n\r\n.dot\r\ntext of %s\r\n' % (user, ', '.join('<%s>' % r for r in recipients), subject, subject)
        to = [word for recipient in recipients for word in ('--mail-rcpt', recipient)]
        self.curl('--url', url + '/client.test', '--mail-from', user, *to, '-T', lab.write('message', text), user=user)

    def fetch(self, host, user, subject):
        """The mail with this subject, by IMAP."""
        def found():
            numbers = self.curl('imap://%s/INBOX?SUBJECT%%20%s' % (host, subject), user=user).split()[2:]
            return [self.curl('imap://%s/INBOX;MAILINDEX=%s' % (host, number), user=user) for number in numbers]
        return wait_until(found, 'mail for ' + user)


world = None


def the_world():
    global world
    if world is None:
        world = World()
    return world


def deliveries(domain, recipient):
    return [row for row in the_world().relays[domain].records('delivery') if row['recipient'] == recipient]


@lab.check('alice submits at 587 with STARTTLS; by MX and LMTP over a socket it is in the mailbox of bob, who fetches it by IMAP and POP3')
def there():
    the_world().submit('smtp://10.9.1.1:587', 'alice@a.test', ['bob@b.test'], 'letter')
    mail = world.fetch('10.9.2.1', 'bob@b.test', 'letter')[0]
    assert '\n.dot\ntext of letter\n' in mail, mail
    assert re.search(r'^Return-Path: <alice@a.test>$', mail, re.M) and re.search(r'^Delivered-To: bob@b.test$', mail, re.M), mail
    assert re.search(r'^Date: .* \+0000$', mail, re.M) and re.search(r'^Message-ID: <.*@mx.a.test>$', mail, re.M), mail
    assert re.search(r'by mx\.b\.test with ESMTPS', mail) and re.search(r'by mx\.a\.test with ESMTPSA', mail), mail
    assert 'text of letter' in world.curl('pop3://10.9.2.1/1', user='bob@b.test')
    row = wait_until(lambda: deliveries('b.test', 'bob@b.test'), 'a record')[0]
    assert row['host'] == world.stores['b.test'].lmtp_socket and row['way'] == 'cut-through', row
    assert wait_until(lambda: deliveries('a.test', 'bob@b.test'), 'a record')[0]['user'] == 'alice@a.test'


@lab.check('bob answers at 465; it is handed to the other Dovecot over TCP')
def back():
    the_world().submit('smtps://10.9.2.1:465', 'bob@b.test', ['alice@a.test'], 'answer')
    mail = world.fetch('10.9.1.1', 'alice@a.test', 'answer')[0]
    assert re.search(r'^Return-Path: <bob@b.test>$', mail, re.M) and 'text of answer' in mail, mail
    assert 'text of answer' in world.curl('pop3://10.9.1.1/1', user='alice@a.test')
    assert wait_until(lambda: deliveries('a.test', 'alice@a.test'), 'a record')[0]['host'] == '10.9.0.1'


@lab.check('one message, one mailbox with room, one that is full, one that nobody has: each has its own fate, and alice is told')
def each():
    the_world().submit('smtp://10.9.1.1:587', 'alice@a.test', ['bob@b.test', 'full@b.test', 'carol@b.test', 'nobody@b.test'], 'several')
    assert 'text of several' in world.fetch('10.9.2.1', 'bob@b.test', 'several')[0]
    assert 'text of several' in world.fetch('10.9.2.1', 'carol@b.test', 'several')[0]
    bounces = wait_until(lambda: len(rows := world.relays['b.test'].records('bounce')) == 2 and rows, 'two bounces')
    assert sorted((row['recipient'], row['code']) for row in bounces) == [('full@b.test', 552), ('nobody@b.test', 550)], bounces
    notice = world.fetch('10.9.1.1', 'alice@a.test', 'Undelivered')[0]
    assert 'full@b.test' in notice and 'nobody@b.test' in notice, notice


@lab.check('a stranger whose mail is for nobody hears it at once, and nothing is returned')
def stranger():
    before = the_world().relays['b.test'].status()['queue']['dsns']
    with world.a.entered(), smtplib.SMTP('10.9.0.2', 25, 'mx.elsewhere.test', timeout=60) as client:
        try:
            client.sendmail('x@elsewhere.test', ['nobody@b.test'], 'From: <x@elsewhere.test>\r\nSubject: spam\r\n\r\ntext\r\n')
            raise AssertionError('it was taken')
        except smtplib.SMTPDataError as refusal:
            assert refusal.smtp_code == 550 and b'nobody@b.test' in refusal.smtp_error, refusal
        assert client.docmd('MAIL FROM:<x@elsewhere.test>')[0] == 250 and client.docmd('RCPT TO:<alice@a.test>')[0] == 550
    assert world.relays['b.test'].status()['queue']['dsns'] == before


@lab.check('while the store is away mail waits; when it is back, it goes')
def away():
    store = the_world().stores['b.test']
    store.stop()
    world.submit('smtp://10.9.1.1:587', 'alice@a.test', ['bob@b.test'], 'later')
    relay = world.relays['b.test']
    wait_until(lambda: [row for row in relay.records('deferral') if row['recipient'] == 'bob@b.test'], 'a deferral')
    relay.stop() # whose sites pause after a failure
    store.start()
    relay.start()
    wait_until(relay.is_recovered, 'mail of the earlier run')
    relay.cli('retry', 'all')
    assert 'text of later' in world.fetch('10.9.2.1', 'bob@b.test', 'later')[0]
    assert 'lmtp' in relay.cli('route', 'bob@b.test') and store.lmtp_socket in relay.cli('route', 'bob@b.test')


lab.run()
