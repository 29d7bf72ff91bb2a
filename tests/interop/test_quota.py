#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a user may send, with a real relay on two cores and connections that the kernel spreads over them: exactly so much, also through a
reload, a stop and a kill, and with another number of cores."""
import base64
import json
import os
import re
import smtplib
import subprocess
import time

from lab import BUILD, Lab, wait_until

lab = Lab('quota')
CONFIG = '''
hostname: relay.test
cores: %d
listen: [{address: "127.0.0.1:@PORT@", auth: required}]
auth: {users_file: "@FOLDER@/users", plaintext: loopback, messages: "%s"}
relay_from: []
routes: [{match: "*", via: discard}]
dns: {resolvers: ["127.0.0.1"]}
'''
LOGIN = 'AUTH PLAIN ' + base64.b64encode(b'\0alice@sender.test\0secret').decode()
relay = None


def write_config(cores, messages):
    """For the relay that is there already."""
    with open(relay.config, encoding='utf-8') as file:
        rest = file.read().split('dns: {resolvers: ["127.0.0.1"]}\n')[1]
    text = (CONFIG % (cores, messages)).replace('@PORT@', str(relay.port)).replace('@FOLDER@', lab.folder)
    lab.write('relay.yaml', text + rest)


class Sessions:
    """Many connections of one user."""

    def __init__(self, count=12):
        self.clients = [smtplib.SMTP('127.0.0.1', relay.port, timeout=60) for _ in range(count)]
        for client in self.clients:
            client.ehlo()
            code, text = client.docmd(LOGIN)
            assert code == 235, text

    def send(self, count=48):
        """So many messages, each over the next connection; how many were taken."""
        codes = []
        for number in range(count):
            client = self.clients[number % len(self.clients)]
            codes.append(client.docmd('MAIL FROM:<alice@sender.test>')[0])
            client.docmd('RSET')
        assert set(codes) <= {250, 452}, codes
        return codes.count(250)


def sends(sessions, expected):
    count = sessions.send()
    assert count == expected, (count, expected)


@lab.check('a user has one quota on both cores; a reload changes it at once, in sessions that began before')
def cores_share():
    global relay
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), 'user', 'hash'], input='secret\n', capture_output=True, check=True,
                          encoding='utf-8')
    os.chmod(lab.write('users', 'alice@sender.test:%s\n' % done.stdout.strip()), 0o600)
    relay = lab.relay(CONFIG % (2, '31/1h'))
    sessions = Sessions()
    sends(sessions, 31)
    status = relay.status()['server']
    assert status['quota.asks'] > 0, status # both cores have some
    assert status['quota.places'] == 1 and status['auth.messages_refused'] == 17, status
    assert len(relay.records('rejection')) == 1, relay.records('rejection')
    write_config(2, '33/1h')
    relay.cli('reload')
    sends(sessions, 2)


def written():
    return os.stat(os.path.join(relay.spool, 'quotas')).st_mtime_ns


@lab.check('what was counted outlives a stop, a kill and another number of cores')
def outlives():
    relay.stop()
    write_config(1, '35/1h, 50/10m')
    relay.start()
    sends(Sessions(), 2)
    before = written()
    wait_until(lambda: written() > before, 'the file is written')
    last = 0
    while last != written(): # a round that began before the last message may have written it; then another comes in two seconds
        last = written()
        time.sleep(5)
    relay.kill()
    write_config(2, '36/1h')
    relay.start()
    sends(Sessions(), 1)
    relay.stop()


@lab.check('a damaged file is said so, and counts begin anew')
def damaged():
    with open(os.path.join(relay.spool, 'quotas'), 'r+b') as file:
        file.seek(40)
        file.write(b'x')
    relay.start()
    wait_until(lambda: re.search(r'quotas=\S+: is damaged', lab.log('relay.log')[relay.log_start:]), 'the log says so')
    sends(Sessions(), 36)
    relay.stop()


@lab.check('who asks why a message is held hears which quota binds, how much of it is used and until when')
def explained():
    write_config(2, '2/1h", beyond: hold, recipients: "9/1d')
    os.unlink(os.path.join(relay.spool, 'quotas'))
    relay.start()
    sessions = Sessions(2)
    for number in range(3):
        sessions.clients[number % 2].sendmail('alice@sender.test', ['b@else.test'], 'Subject: x\r\n\r\nx\r\n')
    row = wait_until(lambda: json.loads(relay.cli('queue', 'list', 'user=alice@sender.test', '--json'))['rows'], 'it is held')[0]
    text = relay.cli('explain', row['id'])
    assert 'held by order 4194302 (quota: the user alice@sender.test had sent enough)' in text, text
    assert re.search(r'^quota      messages 2/1h: 2 of 2, the next in (59m|1h).*: binds$', text, re.M), text
    wait_until(lambda: '\nquota      recipients 9/1d: 2 of 9\n' in relay.cli('explain', row['id']), 'a right that a core had at hand has come back')
    status = relay.status()['queue']
    assert status['quota_held'] == 1 and status['quota_messages'] == 1, status
    try:
        relay.cli('queue', 'cancel', '4194302')
        assert False, 'the hold of all users was cancelled'
    except AssertionError as error:
        assert "the relay's own" in str(error), error
    write_config(2, '9/1h')
    relay.cli('reload')
    sessions.clients[0].docmd('MAIL FROM:<alice@sender.test>')
    sessions.clients[0].docmd('RSET') # a transaction that is open would hold the stop up
    text = relay.cli('explain', row['id'])
    assert 'the user may send again: what comes now is not held' in text, text
    relay.cli('release', 'user=alice@sender.test', 'order=4194302')
    wait_until(lambda: relay.status()['queue']['quota_held'] == 0, 'it is released')
    relay.stop()


lab.run()
