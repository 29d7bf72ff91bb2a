#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""living: the queue fed by SMTP, beside Postfix, same disk, same run; and what dead sites cost the living ones.

smtp.accept, smtp.deliver   2 KB messages to living sites only: accepted by the relay, arrived at the sink, a second; and what of its core
                            the relay's threads took meanwhile: that of the shard binds when it is near 1, the source if all together are not
living                      the rate at the living sites while the queue holds as many messages for sites whose connections are never answered,
                            as a share of the rate without them. The dead mail goes in first, then the clock starts with the living mail.

The dead are DEAD domains, each with an address of its own in 127.1.0.0/24, where a full accept queue swallows every SYN. What both know of
timeouts is what they ship with. One core (0) for whatever is measured, the other for source and sink. Medians of rounds in turn.
ANGARIUM_BENCH_ROUNDS: their number (5).
"""
import json
import os
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import host  # pylint: disable=wrong-import-position
import mail_systems  # pylint: disable=wrong-import-position
from ground import ROUNDS, TICKS, pin  # pylint: disable=wrong-import-position
from host import lab, can_connect, free_port, wait_until  # pylint: disable=wrong-import-position

SIZE = 2048
COUNT = int(os.environ.get('ANGARIUM_BENCH_LIVING', '30000'))
COUNTS = {'angarium': COUNT, 'postfix': max(COUNT // 60, 100)} # with dead sites Postfix takes a minute for 500
LIVING, DEAD = 10, 100
DEAD_PORT = 2598


def living_domains():
    return ['alive%d.test' % i for i in range(LIVING)]


def dead_domains():
    return [('dead%d.test' % i, '127.1.0.%d' % (i + 1)) for i in range(DEAD)]


class BlackHoles:
    """Listeners that accept nobody: when their queue is full, SYNs are dropped and a client waits for its timeout."""

    def __init__(self):
        self.sockets = []
        for _, address in dead_domains():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, DEAD_PORT))
            listener.listen(0)
            self.sockets.append(listener)
            for _ in range(3):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex((address, DEAD_PORT))
                self.sockets.append(client)

    def close(self):
        for each in self.sockets:
            each.close()


def start_angarium():
    routes = ''.join('  - {match: "%s", hosts: [{host: %s, port: %d}]}\n' % (domain, address, DEAD_PORT) for domain, address in dead_domains())
    relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
client: {connections_per_site: 100}
routes:
%s  - {match: "*", hosts: [{host: 127.0.0.1, port: %d}]}
''' % (routes, host.SINK_PORT))
    pin(relay.child.pid)

    def stop():
        relay.kill()
        subprocess.run(['rm', '-rf', relay.spool], check=True)
    return relay.port, stop, relay.child.pid


def start_postfix():
    port = free_port()
    transport = lab.write('transport', ''.join('%s smtp:[%s]:%d\n' % (domain, address, DEAD_PORT) for domain, address in dead_domains()) +
                          ''.join('%s smtp:[127.0.0.1]:%d\n' % (domain, host.SINK_PORT) for domain in living_domains()))
    postfix = lab.postfix('127.0.0.1', port, ['transport_maps = texthash:' + transport] + mail_systems.POSTFIX_MAIN, prefix=['taskset', '-c', '0'])

    def stop():
        postfix.stop()
        subprocess.run(['rm', '-rf', postfix.folder], check=True)
    return port, stop, None


def threads_seconds(pid):
    """Processor seconds of each thread of a process, by name; threads of one name together."""
    seconds = {}
    for task in os.listdir('/proc/%d/task' % pid) if pid else ():
        with open('/proc/%d/task/%s/stat' % (pid, task), encoding='ascii') as file:
            name, fields = file.read().split('(', 1)[1].rsplit(')', 1)
        seconds[name] = seconds.get(name, 0) + sum(int(x) for x in fields.split()[11:13]) / TICKS
    return seconds


def shares(before, after, elapsed):
    """What each thread had of its core, the largest first."""
    part = {name: (after[name] - before.get(name, 0)) / elapsed for name in after}
    return ' '.join('%s %.2f' % (name, part[name]) for name in sorted(part, key=part.get, reverse=True) if part[name] >= 0.01)


def send(port, count, domains):
    done = subprocess.run(host.load_command(1, 'source', '-j', '-q', '-s', host.SESSIONS, '-m', count, '-l', SIZE, '-d', ','.join(domains),
                                            '127.0.0.1:%d' % port), stdout=subprocess.PIPE, check=True, timeout=900, encoding='utf-8')
    return json.loads(done.stdout.splitlines()[-1])['seconds']


def one_run(start, count, with_dead):
    """Accepted and delivered a second, of the living mail."""
    port, stop, pid = start()
    try:
        if with_dead:
            send(port, count, [domain for domain, _ in dead_domains()])
            time.sleep(1)
        sink = subprocess.Popen(host.load_command(1, 'sink', '-j', '-q', '-s', 1000, '-m', count, '127.0.0.1:%d' % host.SINK_PORT),
                                stdout=subprocess.PIPE, encoding='utf-8')
        lab.children.append(sink)
        wait_until(lambda: can_connect('127.0.0.1', host.SINK_PORT), 'the sink listens', 5)
        before, began = threads_seconds(pid), time.monotonic()
        accepted = send(port, count, living_domains())
        busy = shares(before, threads_seconds(pid), time.monotonic() - began)
        sink.communicate(timeout=900)
        delivered = time.monotonic() - began
        lab.children.remove(sink)
        return {'accept': count / accepted, 'deliver': count / delivered, 'busy': busy}
    finally:
        stop()


def rows():
    starts = {'angarium': start_angarium, 'postfix': start_postfix}
    alone, beside = {name: [] for name in starts}, {name: [] for name in starts}
    holes = BlackHoles()
    try:
        for _ in range(ROUNDS):
            for name, start in starts.items():
                alone[name].append(one_run(start, COUNTS[name], False))
                beside[name].append(one_run(start, COUNTS[name], True))
    finally:
        holes.close()
    median = {name: {key: statistics.median(run[key] for run in alone[name]) for key in ('accept', 'deliver')} for name in starts}
    share = {name: statistics.median(b['deliver'] / a['deliver'] for a, b in zip(alone[name], beside[name])) for name in starts}
    what = ('2 KB, %d sessions in, up to 100 connections to a site, durable, %d messages (Postfix %d), 1 relay core, load and sink on the other, '
            'median of %d' % (host.SESSIONS, COUNTS['angarium'], COUNTS['postfix'], ROUNDS))
    binds = '%s; processor seconds a second of the threads while the source sends: %s' % (what, ' / '.join(run['busy'] for run in alone['angarium']))
    for bench, key, text in (('queue.smtp.accept.2k', 'accept', binds), ('queue.smtp.deliver.2k', 'deliver', what)):
        yield {'bench': bench, 'value': round(median['angarium'][key], 1), 'unit': 'msg/s', 'peer': 'postfix',
               'peer_value': round(median['postfix'][key], 1), 'ratio': round(median['angarium'][key] / median['postfix'][key], 3),
               'conditions': text}
    yield {'bench': 'queue.living', 'value': round(share['angarium'], 4), 'unit': 'share of the rate without dead sites', 'peer': 'postfix',
           'peer_value': round(share['postfix'], 4), 'ratio': round(share['angarium'] / share['postfix'], 3),
           'conditions': what + '; as many messages again for %d domains whose hosts never answer a SYN; rounds %s, Postfix %s' % (
               DEAD, ' '.join('%.0f of %.0f' % (b['deliver'], a['deliver']) for a, b in zip(alone['angarium'], beside['angarium'])),
               ' '.join('%.0f of %.0f' % (b['deliver'], a['deliver']) for a, b in zip(alone['postfix'], beside['postfix'])))}


def main():
    for row in rows():
        if '--json' in sys.argv:
            print(json.dumps(row), flush=True)
        else:
            print('%-22s %12.3f %-36s %-8s %12.3f   ratio %.3f\n    %s' % (row['bench'], row['value'], row['unit'], row['peer'], row['peer_value'],
                                                                          row['ratio'], row['conditions']), flush=True)


if __name__ == '__main__':
    main()
