#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""idle: mail flows while a great many connections that said EHLO are only there. Over net_memif, the relay on core 0 with `poll: busy`, source and
sink on core 1; 10 KB, SESSIONS connections in a closed loop, plain, PIPELINING, cut-through.

  idle.rate     messages a second with IDLE idle connections, from 16 addresses, held from before the first message until after the last;
                peer "none": the same without them (to reach: 0.9). In turn, medians of ROUNDS
  idle.memory   by how much the relay's resident memory is larger, for each of them

ANGARIUM_BENCH_IDLE sets how many (100,000). With --docs the figures in docs/benchmarks.md are made anew.
"""
import json
import os
import statistics
import subprocess
import sys
import threading

import wire
from apart import Results
from ground import LOAD, ROUNDS, SECONDS, SESSIONS, circumstances, middle_rate, on_core, page_write, pin, row, rows_print, total_of

IDLE = int(os.environ.get('ANGARIUM_BENCH_IDLE', '100000'))
ADDRESSES = 16
OPENING = 60  # seconds they may take to come in
HERE, THERE = '10.9.0.1:2526', '10.9.1.1:2525'
lab = wire.lab
# Clients may have three quarters of the flows; what one address may have is not what is measured.
RELAY = '''
hostname: relay.test
flows: %d
listen: [{address: "127.0.0.1:@PORT@"}, {address: "%s", limits: {sessions: %d}}]
relay_from: [127.0.0.0/8, 10.9.0.0/16]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [10.9.0.0/16]}
delivery: auto
client: {connections_per_site: 100}
routes: [{match: "*", hosts: [{host: 10.9.1.1, port: 2525}]}]
dataplane: {driver: dpdk, poll: busy, connections_per_prefix: 0, ports: [{device: "%s", addresses: [10.9.0.1/16]}]}
'''


def resident(pid):
    with open('/proc/%d/status' % pid, encoding='ascii', errors='replace') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('VmRSS:')) * 1024


def load_run(idle, pid):
    """The load's lines as objects, and the relay's resident memory when the idle ones were there and the last message was not."""
    arguments = ['-j', '-s', SESSIONS, '-t', SECONDS + 2, '-l', 10240, '-d', 'sink.test', '--idle', idle, '--timeout', OPENING, '-D', wire.memif('client', 1500)]
    for number in range(ADDRESSES):
        arguments += ['-A', '10.9.1.%d/16' % (number + 1)]
    lines, memory = [], 0
    with open(lab.path('load.log'), 'ab') as log:
        load = subprocess.Popen(on_core(1, [LOAD, 'both'] + arguments + [HERE, THERE]), stdout=subprocess.PIPE, stderr=log, encoding='utf-8')
        lab.children.append(load)
        end = threading.Timer(SECONDS + 4 * OPENING, load.kill)
        end.start()
        for text in load.stdout:
            lines.append(json.loads(text))
            if lines[-1]['what'] == 'source' and lines[-1]['open'] >= idle and lines[-1]['messages'] > 0:
                memory = resident(pid)
        assert load.wait() == 0, lab.log('load.log')[-2000:]
        end.cancel()
        lab.children.remove(load)
    return lines, memory


def one_run(idle):
    relay = lab.relay(RELAY % ((IDLE + 10000) * 4 // 3, HERE, IDLE + 10000, wire.memif('server', 1500)), 'relay-idle')
    pin(relay.child.pid)
    try:
        lines, memory = load_run(idle, relay.child.pid)
    finally:
        relay.stop()
        os.truncate(relay.records_file, 0)
    source = total_of(lines, 'source')
    held = max(line['open'] for line in lines if line['what'] == 'source' and line['messages'] > 0) - SESSIONS
    return {'rate': middle_rate(lines), 'memory': memory, 'held': held, 'lost': source['idle_lost'], 'refused': source['refused_connections']}


def measure():
    """Runs by how many idle connections there were: those with the cores near each other, if that happened to both kinds, and where."""
    results = Results()
    for _ in range(ROUNDS):
        for idle in (0, IDLE):
            results.measure(idle, lambda idle=idle: one_run(idle))
    is_near = next((state for state in (True, False) if all(results.values[state].get(idle) for idle in (0, IDLE))), None)
    if is_near is None:
        raise SystemExit('idle: the cores moved in every round; again, or with more rounds (ANGARIUM_BENCH_ROUNDS)')
    figures = results.values[is_near]
    return figures, '%s, %s rounds' % (results.where(is_near), ' and '.join(str(len(figures[idle])) for idle in (0, IDLE)))


def rows(figures, where):
    rate = {idle: statistics.median(each['rate'] for each in runs) for idle, runs in figures.items()}
    held = min(each['held'] for each in figures[IDLE])
    sums = {key: sum(each[key] for each in figures[IDLE]) for key in ('lost', 'refused')}
    what = '%s; net_memif, 10 KB, %d connections that send, %d idle ones held in every round (of %d asked for, %d lost, %d refused)' % (
        where, SESSIONS, held, IDLE, sums['lost'], sums['refused'])
    yield row('idle.rate', rate[IDLE], 'msg/s', what, 'none', rate[0])
    grown = statistics.median(mine['memory'] - alone['memory'] for mine, alone in zip(figures[IDLE], figures[0]))
    yield row('idle.memory', grown / max(held, 1), 'octets', what + '; resident memory of the relay, for each of them')


def text(figures, made, where):
    rate, memory = made
    held = min(each['held'] for each in figures[IDLE])
    return '\n'.join((
        where + '.', '',
        '| idle connections held | lost | messages of 10 KB a second | without them | ratio (to reach: 0.9) | resident memory of the relay for each |',
        '|---|---|---|---|---|---|',
        '| {:,} | {:,} | {:,.0f} | {:,.0f} | {:.2f} | {:,.0f} octets |'.format(held, sum(each['lost'] for each in figures[IDLE]), rate['value'],
                                                                          rate['peer_value'], rate['ratio'], memory['value'])))


def main():
    where = circumstances(ROUNDS)
    with wire.HugePages():
        figures, cores = measure()
    where += '; ' + cores
    made = list(rows(figures, where))
    rows_print(made)
    if '--docs' in sys.argv:
        page_write('idle', text(figures, made, where))


if __name__ == '__main__':
    main()
