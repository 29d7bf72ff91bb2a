#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""host: the relay on kernel sockets with a durable spool, beside Postfix and HAProxy (TCP mode), same disk, same load, same run.

One core (0) for whatever is measured, the other (1) for source and sink. 10 KB messages, N sessions, plain SMTP, PIPELINING, each message
acknowledged only when durable (relay, Postfix); HAProxy forwards octets and promises nothing: it is the bound of a proxy on kernel sockets.
A run ends when the sink has every message, so "delivered" is what counts; "accepted" is the source's own rate.

CPU is what core 0 spent (user, system, interrupts; not idle, not waiting for the disk), so kernel work is counted for everybody alike.
Medians of several runs; peers take turns inside a round, so that a noisy minute hits all.
"""
import json
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
import mail_systems  # pylint: disable=wrong-import-position
from ground import LOAD, ROUNDS, SESSIONS, core_busy_seconds, on_core, pin  # pylint: disable=wrong-import-position
from lab import Lab, can_connect, free_port, tool, wait_until  # pylint: disable=wrong-import-position

SIZE = 10240
COUNTS = {'direct': 100000, 'haproxy': 60000, 'angarium': 40000, 'postfix': 3000}
SINK_PORT = 2599

lab = Lab('bench')


def memory_peak_mb(pids):
    total = 0
    for pid in pids:
        try:
            with open('/proc/%d/status' % pid, encoding='ascii', errors='replace') as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith('VmHWM:'))
        except OSError:
            pass
    return total / 1024


def children_of(pid):
    found = [pid]
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                with open('/proc/%s/stat' % entry, encoding='ascii', errors='replace') as file:
                    if int(file.read().rsplit(')', 1)[1].split()[1]) == pid:
                        found += children_of(int(entry))
            except (OSError, ValueError):
                pass
    return found


def load_command(core, *arguments):
    return on_core(core, [LOAD] + list(arguments))


def one_run(count, port, pids):
    """Send `count` messages to `port`; returns accepted/s, delivered/s, CPU seconds per 1,000 messages, memory peak."""
    sink = subprocess.Popen(load_command(1, 'sink', '-j', '-q', '-s', 1000, '-m', count, '127.0.0.1:%d' % SINK_PORT), stdout=subprocess.PIPE,
                            encoding='utf-8')
    lab.children.append(sink)
    wait_until(lambda: can_connect('127.0.0.1', SINK_PORT), 'the sink listens', 5)
    busy = core_busy_seconds(0)
    source = subprocess.run(load_command(1, 'source', '-j', '-q', '-s', SESSIONS, '-m', count, '-l', SIZE, '-d', 'sink.test', '127.0.0.1:%d' % port),
                            stdout=subprocess.PIPE, check=True, timeout=600, encoding='utf-8')
    accepted_seconds = json.loads(source.stdout.splitlines()[-1])['seconds']
    delivered_seconds = json.loads(sink.communicate(timeout=600)[0].splitlines()[-1])['seconds']
    cpu = core_busy_seconds(0) - busy
    lab.children.remove(sink)
    memory = memory_peak_mb(p for pid in pids for p in children_of(pid))
    return {'accepted': count / accepted_seconds, 'delivered': count / delivered_seconds, 'cpu': cpu / count * 1000, 'memory': memory}


# ---- who is measured ----

def start_angarium():
    relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
client: {connections_per_site: 100}
routes: [{match: "*", hosts: [{host: 127.0.0.1, port: %d}]}]
''' % SINK_PORT)
    pin(relay.child.pid)
    return relay.port, [relay.child.pid], relay.stop


def start_haproxy():
    proxy = mail_systems.haproxy(lab, SINK_PORT)
    return proxy.port, [lab.children[-1].pid], proxy.stop


def start_postfix():
    port = free_port()
    postfix = lab.postfix('127.0.0.1', port, ['relayhost = [127.0.0.1]:%d' % SINK_PORT] + mail_systems.POSTFIX_MAIN, prefix=['taskset', '-c', '0'])
    return port, [postfix.master_pid()], postfix.stop


def disk_syncs_per_second():
    """fio: one 10 KB write and fdatasync after the other, on the disk of the spools."""
    done = subprocess.run([tool('fio'), '--name=sync', '--directory=' + lab.folder, '--rw=write', '--bs=10k', '--size=64m', '--fdatasync=1',
                           '--runtime=4', '--time_based', '--output-format=json'], stdout=subprocess.PIPE, check=True, timeout=60, encoding='utf-8')
    return json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]['write']['iops']


def rounds():
    results = {name: [] for name in COUNTS}
    for _ in range(ROUNDS):
        for name in ('direct', 'haproxy', 'angarium', 'postfix'):
            port, pids, stop = (SINK_PORT, [], lambda: None) if name == 'direct' else {
                'haproxy': start_haproxy, 'angarium': start_angarium, 'postfix': start_postfix}[name]()
            try:
                results[name].append(one_run(COUNTS[name], port, pids))
            finally:
                stop()
    return {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()}


def main():
    as_json = '--json' in sys.argv
    syncs = disk_syncs_per_second()
    median = rounds()
    mine = median['angarium']
    conditions = ('10 KB, %d sessions in, up to 100 connections out (relay and Postfix alike), plain, PIPELINING, durable spool (group commit), 1 relay core, load and sink on the other, JSON records, '
                  'median of %d; load direct to sink on one core %.0f msg/s; fio 10k write+fdatasync %.0f/s' % (SESSIONS, ROUNDS, median['direct']['delivered'], syncs))
    rows = []
    for key, bench, unit, peers in (('delivered', 'host.deliver.10k', 'msg/s', ('postfix', 'haproxy')), ('accepted', 'host.accept.10k', 'msg/s', ('postfix',)),
                                    ('cpu', 'host.cpu.10k', 'CPU s per 1000 messages', ('postfix', 'haproxy')),
                                    ('memory', 'host.memory.10k', 'MB peak resident', ('postfix',))):
        for peer in peers:
            rows.append({'bench': bench, 'value': round(mine[key], 4), 'unit': unit, 'peer': peer, 'peer_value': round(median[peer][key], 4),
                         'ratio': round(mine[key] / median[peer][key], 4), 'conditions': conditions})
    bounded = median['direct']['delivered'] < 1.3 * median['haproxy']['delivered']
    for row in rows:
        if bounded and row['bench'] == 'host.deliver.10k' and row['peer'] == 'haproxy':
            row['conditions'] += '; bounded by load'
        if as_json:
            print(json.dumps(row), flush=True)
        else:
            print('%-18s %12.3f %-24s %-8s %12.3f   ratio %.3f' % (row['bench'], row['value'], row['unit'], row['peer'], row['peer_value'], row['ratio']))
    if not as_json:
        print(conditions)


if __name__ == '__main__':
    main()
