#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The next hop is killed (SIGKILL) in each phase of its dialogue while mail goes straight through, held and as a stream, by DATA and by BDAT.

Every phase has a sink of its own, which dies there with the first message it sees, and starts again well. Proven: what the client heard 250 for has
arrived, whole; nothing arrives twice but what died between the end of the data and the reply, once (docs/cut-through.md).
"""
import collections
import hashlib
import os
import signal
import smtplib
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop"))
from lab import Lab, free_port, wait_until, without_received

lab = Lab('sinks')
PHASES = ['banner', 'EHLO', 'MAIL', 'RCPT', 'DATA', 'body', 'dot', 'reply', 'next']
SIZES = {'held': 3000, 'stream': 60000, 'bdat': 3000, 'chunks': 60000} # held and as a stream, by DATA and by BDAT
MESSAGES = 3


def phases_of(mode):
    return [{'DATA': 'BDAT'}.get(phase, phase) if mode in ('bdat', 'chunks') else phase for phase in PHASES]


def serve(port, mode, phase, ledger):
    """A sink, in a process of its own. `body`: it has some of the message, as a stream or a chunk of it; `dot`: it has the message and has not said
    so; `reply`: it has just said so; `next`: the second message's commands are there, none of them answered."""
    listener = socket.create_server(('127.0.0.1', port), reuse_port=True)
    while True:
        client = listener.accept()[0]
        if os.fork() > 0:
            client.close()
            continue
        try:
            talk(client, mode, phase, ledger)
        finally:
            os._exit(0)


def die():
    """The whole sink."""
    os.killpg(0, signal.SIGKILL)


def talk(client, mode, phase, ledger):
    lines, taken, chunks = client.makefile('rb'), 0, b''
    chunking = '250-CHUNKING\r\n' if mode in ('bdat', 'chunks') else ''

    def say(text):
        client.sendall(text.encode() + b'\r\n')
    if phase == 'banner':
        die()
    say('220 sink.test')
    for line in lines:
        verb = line[:4].decode().upper().strip()
        if verb == phase or (verb == 'MAIL' and taken > 0 and phase == 'next'):
            die()
        if verb == 'EHLO':
            say('250-sink.test\r\n250-PIPELINING\r\n' + chunking + '250 8BITMIME')
        elif verb == 'DATA':
            say('354 go')
            take(data(lines, phase), phase, ledger, say)
            taken += 1
        elif verb == 'BDAT':
            chunks += lines.read(int(line.split()[1]))
            if phase == 'body':
                die()
            if line.split()[2:] != [b'LAST']:
                say('250 go on')
                continue
            take(chunks, phase, ledger, say)
            taken, chunks = taken + 1, b''
        else:
            say('221 bye' if verb == 'QUIT' else '250 ok')


def take(body, phase, ledger, say):
    with open(ledger, 'ab') as file:
        file.write(hashlib.sha256(without_received(body)).hexdigest().encode() + b'\n')
    if phase == 'dot':
        die()
    say('250 taken')
    if phase == 'reply':
        die()


def data(lines, phase):
    body = b''
    for line in lines:
        if phase == 'body':
            die()
        if line == b'.\r\n':
            return body
        body += line[1:] if line.startswith(b'.') else line
    os._exit(0)


class Sink:
    def __init__(self, name, phase):
        self.name, self.mode, self.phase, self.port, self.ledger = name, name.split('-')[0], phase, free_port(), lab.path(name + '.got')
        self.answers, self.sent = [], []
        self.pid = self.start(phase)

    def start(self, phase):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            try:
                serve(self.port, self.mode, phase, self.ledger)
            finally:
                os._exit(1)
        return pid

    def stop(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def live(self):
        """It dies when it has to, and comes back well."""
        os.waitpid(self.pid, 0)
        self.pid = self.start('')

    def arrived(self):
        try:
            with open(self.ledger, encoding='ascii') as file:
                return collections.Counter(file.read().split())
        except FileNotFoundError:
            return collections.Counter()


def letter(number, size):
    text = 'Subject: %d\r\n\r\n' % number
    while len(text) < size:
        text += '.%d the quick brown fox\r\n' % len(text)
    return text


def send(relay, sink, size):
    """Each on a session of its own, so that one can follow another."""
    def one(number):
        text = letter(number, size)
        with smtplib.SMTP('127.0.0.1', relay.port, timeout=60) as client:
            client.sendmail('a@client.test', ['b@%s.test' % sink.name], text)
            sink.answers.append(hashlib.sha256(text.encode()).hexdigest())
    threads = [threading.Thread(target=one, args=(number,)) for number in range(MESSAGES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def play():
    """All of it at once: the sinks, and what became of the relay."""
    sinks = [Sink('%s-%s' % (mode, phase.lower()), phase) for mode in SIZES for phase in phases_of(mode)]
    routes = ', '.join('{match: %s.test, connections: 1, hosts: [{host: 127.0.0.1, port: %d}]}' % (sink.name, sink.port) for sink in sinks)
    relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
routes: [%s]
retry: {min: 1s, max: 2s}
delivery: cut-through
cut_through: {stream_above: 16KiB}
''' % routes)
    try:
        works = [(sink.live, ()) for sink in sinks] + [(send, (relay, sink, SIZES[sink.mode])) for sink in sinks]
        threads = [threading.Thread(target=work, args=arguments) for work, arguments in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        wait_until(lambda: relay.status()['queue']['messages'] == 0, 'the queue empties')
        status = relay.status()
        assert relay.stop() == 0
        return sinks, status
    finally:
        relay.kill()
        for sink in sinks:
            sink.stop()


def check(sink):
    """How many arrived twice."""
    arrived = sink.arrived()
    assert len(sink.answers) == MESSAGES, '%s: %d of %d were taken' % (sink.name, len(sink.answers), MESSAGES)
    assert set(arrived) == set(sink.answers), '%s: lost, or damaged' % sink.name
    doubles = sum(arrived.values()) - MESSAGES
    assert doubles <= (1 if sink.phase == 'dot' else 0), '%s: %d arrived twice' % (sink.name, doubles)
    return doubles


@lab.check('sinks that die in each phase of held mail and of streams: nothing is lost, only what was taken and not answered comes twice')
def phases():
    sinks, status = play()
    doubles = sum(check(sink) for sink in sinks)
    assert status['client']['followed'] > 0, 'no message went with the end of another'
    assert status['ways']['stream'] > 0 and status['ways']['ready'] > 0, status['ways']
    return '%d came twice, %d went with the end of another, %d streamed' % (doubles, status['client']['followed'], status['ways']['stream'])


if __name__ == '__main__':
    lab.run()
