#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""wire: the engine alone, two processes over net_memif, one core each, beside what dpdk-testpmd moves over the same memif in the same run,
and beside kernel sockets over loopback doing the same work.

Rows (medians of several rounds, everybody takes turns inside a round):
  wire.bulk.1500, wire.bulk.9000   TCP payload, Gbit/s, one stream; .100 with a hundred
  wire.connect                     connect, 64-octet request and reply, close; per second; the server closes first
  wire.request                     64 octets there and back on each of 10,000 connections; per second
  wire.idle.memory                 engine's octets per idle connection, at a million
  wire.flood.KIND                  what honest requests keep of their rate under a flood (only with --floods: it takes a quarter of an hour)
  wire.smtp.10k                    the whole relay, durable, 10 KB, source and sink in one process on the other core; peer: the relay on kernel sockets
Checksums are computed and verified in software, but for wire.bulk.N.unchecked. Huge pages are set up for the run when root may, and given back.

Rows of good cores are kept apart from others (bench/peers/apart.py).
"""
import json
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
from apart import Results  # pylint: disable=wrong-import-position
from ground import ROUNDS, SECONDS, on_core, row  # pylint: disable=wrong-import-position
from lab import BUILD, Lab, tool, wait_until  # pylint: disable=wrong-import-position

CLIENT_ADDRESSES = 16
HUGE_PAGES = '/proc/sys/vm/nr_hugepages'
HUGE_PAGES_WANTED = 4096  # of 2 MB
PORT = 5001

lab = Lab('bench-wire')
program = os.path.join(BUILD, 'bench/wire/angarium-wire-bench')


def memif(role, mtu):
    # rings small enough that the buffers under way stay in the caches
    return 'net_memif0,role=%s,socket=%s,socket-abstract=no,bsize=%d,rsize=9' % (role, lab.path('memif.sock'), 2048 if mtu <= 1500 else 9088)


def wire_arguments(role, mtu, addresses):
    arguments = ['--device', memif('server' if role == 'server' else 'client', mtu), '--mtu', mtu]
    for address in addresses:
        arguments += ['--address', address]
    return arguments


def pair(mode, plane, mtu=1500, streams=1, window=512 << 10, extra=(), seconds=SECONDS):
    """Run server and client; returns both results."""
    options = ['--streams', streams, '--window', window, '--json'] + list(extra)
    if plane == 'wire':
        target = '10.9.0.1:%d' % PORT
        server_options = options + wire_arguments('server', mtu, ['10.9.0.1/16'])
        client_options = options + wire_arguments('client', mtu, ['10.9.1.%d/16' % (i + 1) for i in range(CLIENT_ADDRESSES)])
    else:
        target = '127.0.0.1:%d' % PORT
        server_options, client_options = options, options
    server = subprocess.Popen(on_core(0, [program, 'server', mode] + server_options + ['--seconds', seconds, target]), stdout=subprocess.PIPE,
                              stderr=open(lab.path('server.log'), 'ab'), encoding='utf-8')
    lab.children.append(server)
    time.sleep(1.0 if plane == 'wire' else 0.3)
    client = subprocess.run(on_core(1, [program, 'client', mode] + client_options + ['--seconds', seconds, target]), stdout=subprocess.PIPE,
                            stderr=open(lab.path('client.log'), 'ab'), encoding='utf-8', timeout=seconds + 240, check=False)
    server.terminate()
    output = server.communicate(timeout=30)[0]
    lab.children.remove(server)
    if client.returncode != 0 or not client.stdout or not output:
        for name in ('server.log', 'client.log'):
            with open(lab.path(name), encoding='utf-8', errors='replace') as file:
                sys.stderr.write(file.read()[-2000:])
        raise AssertionError('%s over %s failed' % (mode, plane))
    return json.loads(output.splitlines()[-1]), json.loads(client.stdout.splitlines()[-1])


def testpmd_once(mtu):
    """Frames per second of each second that testpmd moved some, one way; fewer than SECONDS when it died: its memif does now and then."""
    size = mtu + 14
    processes = []
    for core, role, mode in ((0, 'server', 'rxonly'), (1, 'client', 'txonly')):
        command = [tool('dpdk-testpmd'), '--lcores', '0@%d,1@%d' % (core, core), '--in-memory', '--single-file-segments', '--no-pci', '--no-telemetry',
                   '--file-prefix=bench-%d-%d' % (os.getpid(), core), '--vdev', memif(role, mtu), '--', '--no-mlockall', '--total-num-mbufs=16384',
                   '--mbuf-size=%d' % ((2048 if mtu <= 1500 else 9088) + 256), '--forward-mode=' + mode, '--txpkts=%d' % size, '--stats-period', '1']
        processes.append(subprocess.Popen(on_core(core, command), stdin=subprocess.PIPE, stdout=open(lab.path('testpmd-%s.log' % role), 'wb'),
                                          stderr=subprocess.STDOUT))
        lab.children.append(processes[-1])
        time.sleep(1)

    def rates():
        with open(lab.path('testpmd-server.log'), encoding='utf-8', errors='replace') as file:
            return [int(line.split()[1]) for line in file if 'Rx-pps:' in line and not line.split()[1] == '0']
    try:
        wait_until(lambda: len(rates()) > SECONDS or any(p.poll() is not None for p in processes), 'testpmd reports', 20)
    except AssertionError:
        pass
    for process in reversed(processes):
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=20)
        lab.children.remove(process)
    return rates()[1:]


def testpmd(mtu):
    """Frames per second that testpmd moves one way over the same memif."""
    for _ in range(4):
        rates = testpmd_once(mtu)
        if len(rates) >= SECONDS:
            return statistics.median(rates)
    raise AssertionError('testpmd moves nothing over memif')


class HugePages:
    """As many as wanted while the benchmark runs; memif and the engine work without, slower."""

    def __enter__(self):
        self.before = None
        try:
            with open(HUGE_PAGES, encoding='ascii') as file:
                before = int(file.read())
            if before < HUGE_PAGES_WANTED:
                with open(HUGE_PAGES, 'w', encoding='ascii') as file:
                    file.write(str(HUGE_PAGES_WANTED))
                self.before = before
        except OSError:
            pass
        return self

    def __exit__(self, *_):
        if self.before is not None:
            with open(HUGE_PAGES, 'w', encoding='ascii') as file:
                file.write(str(self.before))


# ---- rows ----

BULK = (('wire.bulk.1500', 1500, 1, 512), ('wire.bulk.1500.100', 1500, 100, 64), ('wire.bulk.9000', 9000, 1, 512), ('wire.bulk.9000.100', 9000, 100, 64))
IDLE_STREAMS = 1000000


def bulk_round(results):
    for mtu in (1500, 9000):
        # what testpmd's frames would carry as TCP payload with timestamps
        results.measure(('testpmd', mtu), lambda mtu=mtu: testpmd(mtu) * (mtu - 52) * 8 / 1e9)
    for name, mtu, streams, window in BULK:
        def bulk(plane, extra=(), mtu=mtu, streams=streams, window=window):
            return pair('bulk', plane, mtu, streams, window << 10, extra)[0]['gbit_per_second']
        results.measure((name, 'wire'), lambda bulk=bulk: bulk('wire'))
        results.measure((name, 'host'), lambda bulk=bulk: bulk('host'))
        if streams == 1:
            results.measure((name, 'unchecked'), lambda bulk=bulk: bulk('wire', ['--no-checksums']))


RATES = (('wire.connect', 'connect', 2000), ('wire.request', 'request', 10000))


def rate_round(results):
    for name, mode, streams in RATES:
        for plane in ('wire', 'host'):
            def rate(mode=mode, streams=streams, plane=plane, name=name):
                _, client = pair(mode, plane, streams=streams, window=16384, extra=['--flows', 200000])
                failures[(name, plane)] = failures.get((name, plane), 0) + client['failures']
                return client['operations_per_second']
            results.measure((name, plane), rate)


failures = {}


def idle_figures():
    few = pair('idle', 'wire', streams=1000, window=16384, extra=['--flows', 4000])[1]
    extra = ['--flows', IDLE_STREAMS + 1000, '--warm-up', '2']
    server, client = pair('idle', 'wire', streams=IDLE_STREAMS, window=16384, extra=extra)
    return {'opened': client['opened'], 'server': server['resident_growth'] / IDLE_STREAMS, 'client': client['resident_growth'] / IDLE_STREAMS,
            'latency_few': few['latency_us'], 'latency_many': client['latency_us'], 'failures': client['failures']}


# ---- floods ----

FLOODS = ('syn', 'syn-closed', 'ack', 'rst', 'fin', 'data', 'xmas', 'fragment', 'icmp', 'udp', 'sockstress', 'segments', 'tiny-mss')
FLOOD_RATE = int(os.environ.get('ANGARIUM_BENCH_FLOOD', '1050000'))
FLOOD_HONEST = 200000  # requests per second: a load that the server has room for


def flood(kind, rate):
    """Honest requests on 1,000 connections while the same port brings hostile frames; the server goes on for a minute afterwards."""
    target = '10.9.0.1:%d' % PORT
    server = subprocess.Popen(on_core(0, [program, 'server', 'request', '--streams', 1000, '--json', '--idle', 10, '--settle', 65] +
                                      wire_arguments('server', 1500, ['10.9.0.1/16']) + ['--gateway', '10.9.1.1', target]),
                              stdout=subprocess.PIPE, stderr=open(lab.path('server.log'), 'ab'), encoding='utf-8')
    lab.children.append(server)
    time.sleep(1)
    client = subprocess.run(on_core(1, [os.path.join(BUILD, 'bench/wire/angarium-flood'), kind, 'request', memif('client', 1500), '10.9.1.1/16', target,
                                        rate, SECONDS, FLOOD_HONEST]), stdout=subprocess.PIPE, stderr=open(lab.path('client.log'), 'ab'), encoding='utf-8', timeout=120,
                            check=True)
    server.terminate()
    output = server.communicate(timeout=120)[0].splitlines()
    lab.children.remove(server)
    return json.loads(client.stdout.splitlines()[-1]), json.loads(output[-2]), json.loads(output[-1])


def flood_rows():
    for kind in FLOODS:
        client, usage, server = flood(kind, FLOOD_RATE)
        left = {name[4:]: value for name, value in usage.items() if value and name[4:] in
                ('connections', 'half_open', 'time_wait', 'orphans', 'out_of_order_buffers', 'sent_segments', 'frames_waiting')}
        yield row('wire.flood.' + kind, client['kept'], 'of honest requests', '%.0f hostile frames/s beside %.0f requests/s on 1,000 connections, one core each over '
                  'net_memif; most memory %d MB; in use a minute after: %s' % (client['frames_per_second'], client['before'], server['resident_max_kb'] // 1024,
                                                                              left or 'nothing'))


# ---- the relay ----

SMTP_COUNT = 40000
RELAY = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}%s]
relay_from: [127.0.0.0/8, 10.9.0.0/16]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
client: {connections_per_site: 100}
routes: [{match: "*", hosts: [{host: %s, port: 2525}]}]
%s
'''
WIRE_PORT = 'dataplane: {driver: dpdk, poll: busy, ports: [{device: "%s", addresses: [10.9.0.1/16]}]}'


def smtp(plane):
    """Messages per second through the relay on core 0, from and to a load on core 1."""
    if plane == 'wire':
        relay = lab.relay(RELAY % (', {address: "10.9.0.1:2526"}', '10.9.1.1', WIRE_PORT % memif('server', 1500)), 'relay-wire')
        place, sink, extra = '10.9.0.1:2526', '10.9.1.1:2525', ['-D', memif('client', 1500), '-A', '10.9.1.1/16']
    else:
        relay = lab.relay(RELAY % ('', '127.0.0.1', ''), 'relay-host')
        place, sink, extra = '127.0.0.1:%d' % relay.port, '127.0.0.1:2525', []
    subprocess.run(['taskset', '-a', '-p', '-c', '0', str(relay.child.pid)], check=True, stdout=subprocess.DEVNULL)
    try:
        load = subprocess.run(on_core(1, [os.path.join(BUILD, 'bench/load/angarium-load'), 'both', '-j', '-q', '-s', 100, '-m', SMTP_COUNT, '-l', 10240,
                                          '-d', 'sink.test'] + extra + [place, sink]), stdout=subprocess.PIPE, check=True, timeout=300, encoding='utf-8')
    finally:
        relay.stop()
    total = [json.loads(line) for line in load.stdout.splitlines() if '"sink-total"' in line][-1]
    return total['messages_per_second']


def smtp_round(results):
    for plane in ('wire', 'host'):
        results.measure(('wire.smtp.10k', plane), lambda plane=plane: smtp(plane))


def rows():
    if '--floods' in sys.argv:
        yield from flood_rows()
        return
    results = Results()
    for _ in range(ROUNDS):
        bulk_round(results)
        rate_round(results)
        smtp_round(results)
    common = 'two processes over net_memif, one core each, '
    checked = 'checksums computed and verified in software, '
    for name, mtu, streams, window in BULK:
        where = 'MTU %d, %d stream%s of %d KB' % (mtu, streams, '' if streams == 1 else 's', window)
        yield from results.rows(name, (name, 'wire'), 'Gbit/s', common + checked + where, 'testpmd', ('testpmd', mtu))
        yield from results.rows(name, (name, 'wire'), 'Gbit/s', common + checked + where + '; peer over loopback', 'kernel', (name, 'host'))
        yield from results.rows(name + '.unchecked', (name, 'unchecked'), 'Gbit/s', common + 'no checksums, ' + where, 'testpmd', ('testpmd', mtu))
    for name, what in (('wire.connect', '2,000 at a time, 16 client addresses, timestamps, the server closes first'),
                       ('wire.request', '64 octets each way, 10,000 connections, one request at a time on each')):
        yield from results.rows(name, (name, 'wire'), '/s', '%s%s%s; failures %d' % (common, checked, what, failures[(name, 'wire')]), 'kernel', (name, 'host'))
    yield from results.rows('wire.smtp.10k', ('wire.smtp.10k', 'wire'), 'msg/s', '10 KB, 100 sessions, plain, durable spool, 1 relay core (poll: busy), source '
                            'and sink in one process on the other, net_memif', 'kernel', ('wire.smtp.10k', 'host'))
    idle = idle_figures()
    for role in ('server', 'client'):
        yield row('wire.idle.memory.' + role, idle[role], 'octets', '%d connections of 16 client addresses, %s process, growth of resident memory per connection'
                  % (IDLE_STREAMS, role))
    yield row('wire.idle.request', idle['latency_many'], 'us', 'request and reply among %d idle connections; among 1,000: %.1f us'
              % (IDLE_STREAMS, idle['latency_few']))


def main():
    as_json = '--json' in sys.argv
    with HugePages():
        for each in rows():
            if as_json:
                print(json.dumps(each), flush=True)
            else:
                peer = '%-8s %12.3f   ratio %s' % (each['peer'], each['peer_value'], each['ratio']) if 'peer' in each else ''
                print('%-26s %14.3f %-8s %s\n    %s' % (each['bench'], each['value'], each['unit'], peer, each['conditions']), flush=True)


if __name__ == '__main__':
    main()
