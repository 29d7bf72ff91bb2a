#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A running relay stops taking mail and takes it again, when an operator says so: what is under way ends, what waits is delivered on, and the
same order can end the relay."""
import json
import smtplib
import socket
import time

from lab import Lab, can_connect, wait_until

lab = Lab('drain')
relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
dns: {resolvers: ["127.0.0.1"]}
routes: [{match: "*", via: discard}]
''')


class Talk:
    """A session with a transaction that waits for its recipient's letter, or (has_mail false) without one."""

    def __init__(self, has_mail=True):
        self.sock = socket.create_connection(('127.0.0.1', relay.port), 60)
        self.lines = self.sock.makefile('rb')
        assert self.line().startswith('220')
        for command in ('HELO client.test', 'MAIL FROM:<a@client.test>', 'RCPT TO:<b@far.test>')[:3 if has_mail else 1]:
            assert self.say(command).startswith('250'), command

    def line(self):
        return self.lines.readline().decode()

    def say(self, command):
        self.sock.sendall(command.encode() + b'\r\n')
        return self.line()


def is_closed():
    return relay.status()['intake']['is_closed']


@lab.check('who drains the relay closes its doors, lets transactions end, and has what waits delivered')
def drains():
    relay.cli('hold', 'domain=held.test', '--duration', '1m')
    with smtplib.SMTP('127.0.0.1', relay.port) as client:
        client.sendmail('a@client.test', ['b@held.test'], 'x')
    idle, busy = Talk(has_mail=False), Talk()
    answer = json.loads(relay.cli('drain', '--reason', 'new disk', '--json'))
    assert answer['ok'] and 1 <= answer['sessions'] <= 2 and '60 s' in answer['text'], answer
    assert idle.line().startswith('421') and idle.line() == ''
    assert not can_connect('127.0.0.1', relay.port)
    status = relay.status()
    assert status['intake']['is_closed'] and status['intake']['reason'] == 'new disk' and status['server']['closed'] == 1, status['intake']
    assert 'no mail is taken: angarium drain. new disk' in relay.cli('status')
    relay.cli('reload')
    assert not can_connect('127.0.0.1', relay.port), 'a reload opened what was closed'
    assert busy.say('DATA').startswith('354') and busy.say('Subject: x\r\n\r\nx\r\n.').startswith('250')
    assert busy.line().startswith('421')
    wait_until(lambda: relay.status()['server']['open'] == 0, 'no session is left')
    relay.cli('release', 'all')
    wait_until(lambda: [row for row in relay.records('delivery') if row['recipient'] == 'b@held.test'], 'what waited was delivered')
    assert 'mail is taken again' in relay.cli('drain', 'end')
    assert not is_closed() and relay.status()['server']['closed'] == 0
    with smtplib.SMTP('127.0.0.1', relay.port) as client:
        client.sendmail('a@client.test', ['b@far.test'], 'x')


@lab.check('a transaction that does not end in its time is dismissed, and nothing of it is taken')
def bound():
    slow = Talk()
    assert slow.say('DATA').startswith('354')
    before = relay.status()['server']['messages_accepted']
    relay.cli('drain', '--seconds', '1')
    assert slow.line().startswith('421') and slow.line() == ''
    wait_until(lambda: relay.status()['server']['open'] == 0, 'no session is left')
    assert relay.status()['server']['messages_accepted'] == before
    relay.cli('drain', 'end')


@lab.check('one that ends meanwhile is not cut off, and an end before the time is over is an end')
def ended():
    slow = Talk()
    relay.cli('drain', '--seconds', '5')
    relay.cli('drain', 'end')
    wait_until(lambda: can_connect('127.0.0.1', relay.port), 'the doors are open')
    wait_until(lambda: relay.status()['server']['open'] == 1, 'one session')
    time.sleep(6) # beyond its time
    assert slow.say('NOOP').startswith('250') and slow.say('DATA').startswith('354') and slow.say('x\r\n.').startswith('250')


@lab.check('drained and then stopped, or stopped by the same verb, it ends as by SIGTERM')
def stops():
    relay.cli('drain')
    assert relay.stop() == 0
    relay.start()
    assert not is_closed(), 'a restart takes mail'
    busy = Talk()
    assert 'the relay stops' in relay.cli('drain', '--stop')
    wait_until(lambda: not can_connect('127.0.0.1', relay.port), 'the doors are closed')
    assert busy.say('DATA').startswith('354') and busy.say('x\r\n.').startswith('250')
    assert relay.child.wait(60) == 0


lab.run()
