#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The relay is killed (SIGKILL) under load while the consumer of its records is slower than the mail.

With `records.on_slow: hold` every message that a client heard 250 for has a record of its reception, and every recipient one of its end,
whichever run wrote them; all records of one event bear the same name, and names of different events differ. Negative control: without
what was written again after the kills, records would be missing. ANGARIUM_KILLS and ANGARIUM_SEED override count and seed.
"""
import json
import os
import random
import re
import select
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop"))
from lab import LONG, Lab, can_connect, free_port, wait_until

lab = Lab('records')
MX_PORT = free_port()
KILLS = int(os.environ.get('ANGARIUM_KILLS', '60' if LONG else '6'))
SEED = int(os.environ.get('ANGARIUM_SEED', str(int(time.time()))))
ZONES = {'test': ['one MX 10 mx.one', 'mx.one A 127.0.0.1']}
CONFIG = '''
hostname: relay.test
cores: 2
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8]}
retry: {min: 1s, max: 2s}
'''
found = {}


class Consumer:
    """Reads records from a pipe, no faster than it is told to."""

    def __init__(self, path):
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR)
        self.octets = bytearray()
        self.pause = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            self.octets += os.read(self.fd, 4096)
            time.sleep(self.pause)

    def is_empty(self):
        return not select.select([self.fd], [], [], 0)[0] and bytes(self.octets).endswith(b'}\n')

    def records(self):
        """A line that a kill has cut is followed by the next one without a break."""
        rows = []
        for part in bytes(self.octets).split(b'{"type":')[1:]:
            if part.endswith(b'}\n'):
                rows.append(json.loads(b'{"type":' + part))
        return rows


class Client(threading.Thread):
    """Sends messages for two recipients, one after the other; what was accepted is in `ids`."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.ids, self.waited, self.is_ended = port, [], 0, False
        self.start()

    def say(self, lines, text):
        lines.write(text.encode() + b'\r\n')
        lines.flush()
        while (line := lines.readline())[3:4] == b'-':
            pass
        if not line:
            raise OSError('lost')
        return line.decode()

    def session(self):
        with socket.create_connection(('127.0.0.1', self.port), 60) as connection:
            lines = connection.makefile('rwb')
            lines.readline()
            self.say(lines, 'EHLO client.test')
            while not self.is_ended:
                reply = self.say(lines, 'MAIL FROM:<a@client.test>')
                if reply.startswith('451 4.3.2 records are behind'):
                    self.waited += 1
                    time.sleep(0.05)
                    continue
                for name in 'bc':
                    self.say(lines, 'RCPT TO:<%s@one.test>' % name)
                self.say(lines, 'DATA')
                match = re.match('250 2.0.0 ok ([a-z2-7]{26})', self.say(lines, 'Subject: x\r\n\r\ntext\r\n.'))
                if match:
                    self.ids.append(match.group(1))

    def run(self):
        while not self.is_ended:
            try:
                self.session()
            except OSError:
                time.sleep(0.02)


def missing(ids, records):
    """Events of accepted messages that no record tells of."""
    names = {row['event'] for row in records}
    ends = {row['event'].rsplit('-', 1)[0] + row['event'][-1] for row in records if row['type'] in ('delivery', 'bounce', 'expiry')}
    return [name for name in ids if name + '-r' not in names] + \
           [name for name in ids for recipient in '01' if name + recipient not in ends]


@lab.check('%d SIGKILLs under load (seed %d): every acknowledged message has its records, doubles have the same name' % (KILLS, SEED))
def kills():
    chance = random.Random(SEED)
    consumer = Consumer(lab.path('relay-records.json'))
    sink = lab.load('sink', '-q', '-s', '400', '-4', '5', '127.0.0.1:%d' % MX_PORT, log='sink.log')
    wait_until(lambda: can_connect('127.0.0.1', MX_PORT), 'the sink listens')
    relay = lab.relay(CONFIG % (lab.nsd(ZONES), MX_PORT), records='on_slow: hold, buffer: 64')
    clients = [Client(relay.port) for _ in range(6)]

    def waits():
        return sum(client.waited for client in clients)
    for number in range(KILLS):
        consumer.pause = 0.2 if number == 0 else chance.choice([0.002, 0.02, 0.2])
        before = waits()
        time.sleep(chance.uniform(0.2, 0.8))
        if consumer.pause == 0.2: # a kill while records wait in the relay: what this is about, however slow all of it is
            wait_until(lambda: waits() > before, 'MAIL waits for the consumer') # pylint: disable=cell-var-from-loop
        relay.kill()
        relay.start()
    consumer.pause = 0
    time.sleep(0.5)
    for client in clients:
        client.is_ended = True
        client.join(60)
    wait_until(relay.is_recovered, 'the last start has found its mail')
    wait_until(lambda: relay.status()['queue']['messages'] == 0, 'the queue empties')
    wait_until(lambda: relay.status()['spool']['messages_live'] == 0, 'what has ended is done')
    status = relay.status()
    assert status['shards']['invariant_violations'] == 0 and status['records']['dropped'] == 0, status['records']
    relay.stop()
    lab.stop(sink)
    wait_until(consumer.is_empty, 'all is read')
    ids = [name for client in clients for name in client.ids]
    records = consumer.records()
    found.update(ids=ids, records=records)
    waited = waits()
    assert len(ids) > 50 and waited > 0, (len(ids), waited)
    lost = missing(ids, records)
    assert not lost, '%d of %d are missing: %s' % (len(lost), len(ids), lost[:5])
    events = {}
    for row in records:
        what = (row['type'], row.get('id'), row.get('recipient') if row['type'] in ('delivery', 'bounce', 'expiry') else '', row['event'])
        if row['type'] in ('reception', 'delivery', 'bounce', 'expiry'):
            events.setdefault(what[:3], set()).add(row['event'])
    assert all(len(names) == 1 for names in events.values()), 'one event, two names'
    named = [names for names in events.values()]
    assert len({name for names in named for name in names}) == len(named), 'two events, one name'
    return '%d messages, %d records, %d of them again; MAIL waited %d times' % (
        len(ids), len(records), sum('replayed' in row for row in records), waited)


@lab.check('without what is written again, records would be missing')
def negative_control():
    lost = missing(found['ids'], [row for row in found['records'] if 'replayed' not in row])
    assert lost, 'the kills took no record: this proves nothing'
    return '%d events' % len(lost)


if __name__ == '__main__':
    lab.run()
