#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""idle: mail flows while a great many connections that said EHLO are only there. Over net_memif, the relay on core 0 with `poll: busy`, source and
sink on core 1; 10 KB, SESSIONS connections in a closed loop, plain, PIPELINING, cut-through.

  idle.rate     messages a second with IDLE idle connections, from 16 addresses, held from before the first message until after the last;
                peer "none": the same without them (to reach: 0.9). A round has one run of each, one after the other; medians of ROUNDS, and the
                ratio is the median of the rounds' ratios: what runs minutes apart reach differs by a quarter on a virtual machine
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
from apart import cores, good_wait
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


def one_round(number):
    """A run of each kind, the one that comes first changing from round to round; and what the cores were good for before, between and after."""
    order, seen, runs = (0, IDLE) if number % 2 == 0 else (IDLE, 0), [good_wait()], {}
    for idle in order:
        runs[idle] = one_run(idle)
        seen.append(cores())
    return runs, seen


def measure():
    """Rounds of cores that were good all the while, or if there were none, all; and where."""
    made = [one_round(number) for number in range(ROUNDS)]
    good = [each for each in made if all(state.are_good() for state in each[1])]
    used = good or made
    far = max(state.distance for _, seen in used for state in seen)
    return [runs for runs, _ in used], 'cores %s, within %.0f ns of each other, %d rounds of %d' % (
        'at their full pace' if good else 'shared with others', far, len(used), len(made))


def rows(rounds, where):
    rate = {idle: statistics.median(runs[idle]['rate'] for runs in rounds) for idle in (0, IDLE)}
    held = min(runs[IDLE]['held'] for runs in rounds)
    sums = {key: sum(runs[IDLE][key] for runs in rounds) for key in ('lost', 'refused')}
    what = '%s; net_memif, 10 KB, %d connections that send, %d idle ones held in every round (of %d asked for, %d lost, %d refused)' % (
        where, SESSIONS, held, IDLE, sums['lost'], sums['refused'])
    made = row('idle.rate', rate[IDLE], 'msg/s', what, 'none', rate[0])
    made['ratio'] = round(statistics.median(runs[IDLE]['rate'] / runs[0]['rate'] for runs in rounds), 4)
    yield made
    grown = statistics.median(runs[IDLE]['memory'] - runs[0]['memory'] for runs in rounds)
    yield row('idle.memory', grown / max(held, 1), 'octets', what + '; resident memory of the relay, for each of them')


def text(rounds, made, where):
    rate, memory = made
    held = min(runs[IDLE]['held'] for runs in rounds)
    return '\n'.join((
        where + '.', '',
        '| idle connections held | lost | messages of 10 KB a second | without them | ratio, the middle one of the rounds (to reach: 0.9) | resident memory of the relay for each |',
        '|---|---|---|---|---|---|',
        '| {:,} | {:,} | {:,.0f} | {:,.0f} | {:.2f} | {:,.0f} octets |'.format(held, sum(runs[IDLE]['lost'] for runs in rounds), rate['value'],
                                                                          rate['peer_value'], rate['ratio'], memory['value'])))


def main():
    where = circumstances(ROUNDS)
    with wire.HugePages():
        rounds, cores = measure()
    where += '; ' + cores
    made = list(rows(rounds, where))
    rows_print(made)
    if '--docs' in sys.argv:
        page_write('idle', text(rounds, made, where))


if __name__ == '__main__':
    main()
