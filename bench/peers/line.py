#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""line-rate: mail that goes straight through, one relay core, source and sink in one process on the other core.

Rows (medians of several rounds, everybody takes turns inside a round), over net_memif; as `.9000` over one with an MTU of 9,000 (ANGARIUM_BENCH_PLANES,
`wire host` unless it says `jumbo` too), 10 and 100 KB only; and, as `.host`, over kernel sockets on loopback:
  line-rate.cut-through.1k, .10k, .100k   messages per second at the sink; 100 sessions in, up to 100 connections out, plain, PIPELINING
  line-rate.session.10k                   the same with one message for each connection in
  line-rate.shards-2.host                 loopback with two shards and the load on whatever core is free; peer: the same with one shard
  line-rate.cycles.*                      the shard's cycles for a message: its busy time, by its own account
  line-rate.distance.*                    one connection to a sink 100 ms away, there and back, in a simulated world
  line-rate.instructions.*                instructions for a message, by the number of shards, in a simulated world (with valgrind installed)
  line-rate.latency.*                     how long a message is held up, by stamps inside the relay (bench/peers/stamps.py)
  line-rate.stage.NAME                    cycles for a 10 KB message by stage of the turn: with --stages, for a build with -Dstages=true; no other row then
Peers: `splice`, a program on the same engine that passes the same octets on between connections and looks at nothing (bench/wire/splice.c);
on loopback HAProxy in TCP mode as well, where it is installed. What the load itself can do is beside each row: source straight to sink, a core
each. Here they share one, so they can do half of that at least; where that is less than 1.3 times the row, the row is "bounded by load". A rate
is the median of whole seconds, without the first and the last. Rows of good cores, near each other and with nobody on their siblings, are kept apart from
others (bench/peers/apart.py). With --docs the tables of docs/benchmarks.md are made anew, of the planes that were measured.
"""
import json
import os
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
import mail_systems  # pylint: disable=wrong-import-position
import wire  # pylint: disable=wrong-import-position
from apart import Results, good_wait  # pylint: disable=wrong-import-position
from ground import LOAD, ROUNDS, SECONDS, SESSIONS, circumstances, on_core, page_write, pin, process_seconds, row  # pylint: disable=wrong-import-position
from lab import BUILD, ROOT, Skip, free_port, tool  # pylint: disable=wrong-import-position

lab = wire.lab
WORK = {'cut-through.1k': (1024, []), 'cut-through.10k': (10240, []), 'cut-through.100k': (102400, []), 'session.10k': (10240, ['-c', '1'])}
WORK_OF = {'jumbo': ('cut-through.10k', 'cut-through.100k')}
PLANES = os.environ.get('ANGARIUM_BENCH_PLANES', 'wire host').split()
MTU = {'wire': 1500, 'jumbo': 9000} # of the planes that are net_memif
SUFFIX = {'wire': '', 'jumbo': '.9000', 'host': '.host'}
RECORDS = os.environ.get('ANGARIUM_BENCH_RECORDS', 'raw') # or file: JSON
RECORDS_SAID = {'file': 'JSON', 'raw': 'raw', 'accounting': 'CSV'}[RECORDS]
HERE, THERE = '10.9.0.1:2526', '10.9.1.1:2525'
RELAY = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}%s]
relay_from: [127.0.0.0/8, 10.9.0.0/16]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8, 10.9.0.0/16]}
delivery: auto
client: {connections_per_site: 100}
routes: [{match: "*", hosts: [{host: %s, port: %s}]}]
%s
'''


def megahertz():
    with open('/proc/cpuinfo', encoding='ascii', errors='replace') as file:
        return float(re.search(r'cpu MHz\s*: ([0-9.]+)', file.read()).group(1))


def device(role, plane):
    return wire.memif(role, MTU[plane])


def port_arguments(role, plane, address):
    """angarium-load's words for its end of a memif; none with kernel sockets."""
    return ['-D', device(role, plane), '--mtu', MTU[plane], '-A', address + '/16'] if plane in MTU else []


def load_arguments(size, more):
    return ['-j', '-s', SESSIONS, '-t', SECONDS + 2, '-l', size, '-d', 'sink.test'] + more


def rate_of(output):
    """Messages per second at the sink: the median of the whole seconds between the first and the last."""
    seconds = [row for row in map(json.loads, output.splitlines()) if row['what'] == 'sink']
    return statistics.median(sample['messages'] / sample['seconds'] for sample in seconds[1:-1])


def both(plane, size, more, to, listen):
    """Source and sink in one process on core 1; messages per second."""
    where = port_arguments('client', plane, '10.9.1.1')
    done = subprocess.run(on_core(1, [LOAD, 'both'] + load_arguments(size, more) + where + [to, listen]), stdout=subprocess.PIPE, check=True,
                          stderr=open(lab.path('load.log'), 'ab'), timeout=SECONDS + 120, encoding='utf-8')
    return rate_of(done.stdout)


# ---- who is measured ----

def direct(plane, size, more):
    """Source on core 1 straight to a sink on core 0: what the load can do."""
    place = HERE if plane in MTU else '127.0.0.1:%d' % free_port()
    sink_where, where = port_arguments('server', plane, '10.9.0.1'), port_arguments('client', plane, '10.9.1.1')
    with open(lab.path('load.log'), 'ab') as log:
        sink = subprocess.Popen(on_core(0, [LOAD, 'sink', '-j', '-s', 2000] + sink_where + [place]), stdout=subprocess.PIPE, stderr=log, encoding='utf-8')
        lab.children.append(sink)
        time.sleep(2)
        subprocess.run(on_core(1, [LOAD, 'source'] + load_arguments(size, more) + where + [place]), stdout=subprocess.DEVNULL, stderr=log, check=True,
                       timeout=SECONDS + 120)
    sink.terminate()
    output = sink.communicate(timeout=30)[0]
    lab.children.remove(sink)
    lines = output.splitlines()
    busy = [line for line in lines if '"what":"sink"' in line and json.loads(line)['messages'] > 0]
    return {'rate': rate_of('\n'.join(busy))}


def splice(plane, size, more):
    if plane in MTU:
        to, listen, where = HERE, THERE, [device('server', plane), '10.9.0.1/16', MTU[plane]]
    else:
        to, listen, where = '127.0.0.1:%d' % free_port(), '127.0.0.1:%d' % free_port(), []
    child = subprocess.Popen(on_core(0, [os.path.join(BUILD, 'bench/wire/angarium-splice'), to, listen] + where), stdout=subprocess.PIPE,
                             stderr=open(lab.path('splice.log'), 'ab'), encoding='utf-8')
    lab.children.append(child)
    try:
        assert child.stdout.readline() == 'ready\n', lab.log('splice.log')
        return {'rate': both(plane, size, more, to, listen)}
    finally:
        lab.stop(child)


def haproxy(plane, size, more):
    sink = free_port()
    proxy = mail_systems.haproxy(lab, sink)
    try:
        return {'rate': both(plane, size, more, '127.0.0.1:%d' % proxy.port, '127.0.0.1:%d' % sink)}
    finally:
        proxy.stop()


def stage_names():
    """What each stage is, and its name, by dataplane/wire/net/stage.h."""
    with open(os.path.join(ROOT, 'dataplane/wire/net/stage.h'), encoding='utf-8') as file:
        return {text: name.lower() for name, text in re.findall(r'X\((\w+), "([^"]+)"\)', file.read())}


def stages_of(relay, messages):
    """Cycles for a message of each stage; empty when the build has no stamps."""
    names = stage_names()
    rows = (re.fullmatch(r'core 0 +(\d+)  (.*)', line) for line in relay.cli('counters').splitlines())
    return {names[each.group(2)]: int(each.group(1)) / messages for each in rows if each and each.group(2) in names}


def relay(plane, size, more):
    if plane in MTU:
        port = 'dataplane: {driver: dpdk, poll: busy, ports: [{device: "%s", addresses: [10.9.0.1/16], mtu: %d}]}' % (device('server', plane), MTU[plane])
        child = lab.relay(RELAY % (', {address: "%s"}' % HERE, *THERE.split(':'), port), 'relay-wire', kind=RECORDS)
        to, listen = HERE, THERE
    else:
        sink = free_port()
        child = lab.relay(RELAY % ('', '127.0.0.1', sink, ''), 'relay-host', kind=RECORDS)
        to, listen = '127.0.0.1:%d' % child.port, '127.0.0.1:%d' % sink
    pin(child.child.pid)
    try:
        rate = both(plane, size, more, to, listen)
        status = child.status()
        ways, messages = status['ways'], status['server']['messages_accepted']
        return {'rate': rate, 'cycles': status['shards']['busy_us'] * megahertz() / messages, 'straight': ways['ready'] / messages,
                'dropped': status['records']['dropped'], 'stages': stages_of(child, messages)}
    finally:
        child.stop()
        if os.path.exists(child.records_file):
            os.truncate(child.records_file, 0)


def shards(count, size, more):
    """The relay on loopback with so many shards. They keep to their cores; the load has what they leave."""
    sink = free_port()
    child = lab.relay(RELAY % ('', '127.0.0.1', sink, 'cores: %d' % count), 'relay-shards', kind=RECORDS)
    try:
        before = process_seconds(child.child.pid)
        done = subprocess.run([LOAD, 'both'] + [str(each) for each in load_arguments(size, more)] + ['127.0.0.1:%d' % child.port, '127.0.0.1:%d' % sink],
                              stdout=subprocess.PIPE, check=True, stderr=open(lab.path('load.log'), 'ab'), timeout=SECONDS + 120, encoding='utf-8')
        messages = child.status()['server']['messages_accepted']
        return {'rate': rate_of(done.stdout), 'cpu_us': (process_seconds(child.child.pid) - before) * 1e6 / messages}
    finally:
        child.stop()


def one_shard(_plane, size, more):
    return shards(1, size, more)


def two_shards(_plane, size, more):
    return shards(2, size, more)


# ---- instructions ----

LINE = os.path.join(BUILD, 'bench/line/angarium-line')


def instructions(shards, size):
    """The shards' instructions for a message in the simulated world (bench/line), from the difference of two runs: nothing of the start is in it."""
    totals = []
    for messages in (1000, 2000):
        output = lab.path('callgrind.%d' % messages)
        subprocess.run([tool('valgrind'), '--tool=callgrind', '--toggle-collect=shard_turn', '--callgrind-out-file=' + output, LINE, str(shards),
                        str(messages * shards), str(size), str(20 * shards)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=600)
        with open(output, encoding='utf-8', errors='replace') as file:
            totals.append(next(int(line.split()[1]) for line in file if line.startswith(('summary:', 'totals:'))))
    return (totals[1] - totals[0]) / 1000 / shards


def instruction_rows():
    for name, size in (('1k', 1024), ('10k', 10240)):
        alone = instructions(1, size)
        for shards in (1, 2, 4):
            value = alone if shards == 1 else instructions(shards, size)
            yield row('line-rate.instructions.%s.shards-%d' % (name, shards), value, 'instructions', 'of the shards for a message that goes straight through, '
                      '20 sessions for each shard, engine included, no driver, no idle polls (callgrind); peer: one shard', 'one', alone)


# ---- far away ----

def distance_rows():
    """One connection to a sink that is 100 ms away, there and back, in the simulated world: messages a second."""
    for name, more, how in (('', [], 'by RFC 2920: the next message with the end of the one before'),
                            ('.bdat-ahead', ['-b'], 'client.bdat_ahead: up to eight messages before the first reply')):
        done = subprocess.run([LINE, '-D', '100'] + more + ['1', '300', '1024', '20'], stdout=subprocess.PIPE, check=True, timeout=300, encoding='utf-8')
        yield row('line-rate.distance.100ms' + name, json.loads(done.stdout)['rate'], 'msg/s',
                  'one connection, round trip 100 ms, 1 KB, straight through, in virtual time: always the same; ' + how)


# ---- rows ----

def everybody():
    """(plane, work, who is measured) of a round, in turn."""
    for plane in PLANES:
        for work in WORK_OF.get(plane, WORK):
            for who in (direct, splice, relay) + ((haproxy,) if plane == 'host' else ()):
                yield plane, work, who
    if 'host' in PLANES:
        yield 'host', 'cut-through.10k', one_shard
        yield 'host', 'cut-through.10k', two_shards


def measure(results, plane, work, who):
    size, more = WORK[work]
    how = results.measure if plane in MTU else results.measure_anywhere # kernel sockets: less depends on it
    try:
        how((plane, work, who.__name__), lambda: who(plane, size, more))
    except Skip:
        pass


def rounds(results):
    """Figures by (plane, work, who was measured). Then as many rounds more of what has fewer figures of good cores."""
    for number in range(2 * ROUNDS):
        for plane, work, who in everybody():
            good = results.values[True].get((plane, work, who.__name__), [])
            if number < ROUNDS or plane in MTU and len(good) < ROUNDS:
                measure(results, plane, work, who)


def median_of(figures, key):
    return statistics.median(each[key] for each in figures) if figures else 0


def cycle_rows(mine, work, suffix, where):
    yield row('line-rate.cycles.' + work + suffix, median_of(mine, 'cycles'), 'cycles',
              'busy time of the shard for a message, at %.0f MHz; %s' % (megahertz(), where))


def bounded(rate, ceiling):
    """Says so where half of what the load can do with a core each for its ends is less than 1.3 times the rate."""
    return ' (bounded by load)' if 0 < ceiling / 2 < 1.3 * rate else ''


def work_rows(figures, where, plane, work, place):
    mine = figures.get((plane, work, 'relay'))
    if not mine:
        return
    rate, ceiling = median_of(mine, 'rate'), median_of(figures.get((plane, work, 'direct')), 'rate')
    conditions = ('%d sessions in, up to 100 connections out, plain, PIPELINING, one relay core with all its threads, source and sink on the other, %s, '
                  '%s records (%d dropped), straight through: %.4f; load: source to sink, a core each, %.0f msg/s%s; %s, median of %d' %
                  (SESSIONS, place, RECORDS_SAID, sum(each['dropped'] for each in mine), median_of(mine, 'straight'), ceiling,
                   bounded(rate, ceiling), where, len(mine)))
    for peer in ('splice', 'haproxy') if plane == 'host' else ('splice',):
        theirs = figures.get((plane, work, peer))
        yield row('line-rate.' + work + SUFFIX[plane], rate, 'msg/s', conditions, peer, median_of(theirs, 'rate'))
    yield from cycle_rows(mine, work, SUFFIX[plane], where)


def shard_rows(figures):
    one, two = (figures.get(('host', 'cut-through.10k', who)) for who in ('one_shard', 'two_shards'))
    yield row('line-rate.shards-2.host', median_of(two, 'rate'), 'msg/s', '10 KB over loopback, plain, PIPELINING; two cores for shards and load together; %.0f us of '
              'processors for a message in the relay, with one shard %.0f; median of %d' % (median_of(two, 'cpu_us'), median_of(one, 'cpu_us'), len(two)),
              'one', median_of(one, 'rate'))


def rows(results, frames):
    """Rows of what passes; what testpmd moves over each memif into `frames`."""
    for plane in PLANES:
        if plane in MTU:
            good_wait()
            frames[plane] = wire.testpmd(MTU[plane])
    rounds(results)
    for plane in PLANES:
        place = 'net_memif (testpmd: %.0f frames of %d octets/s)' % (frames[plane], MTU[plane]) if plane in MTU else 'loopback'
        for work in WORK_OF.get(plane, WORK):
            for is_good in (True, False) if plane in MTU else (None,):
                yield from work_rows(results.values[is_good], results.where(is_good), plane, work, place)
    if 'host' in PLANES:
        yield from shard_rows(results.values[None])


def all_rows(results, frames, latencies):
    yield from rows(results, frames)
    if 'wire' not in PLANES:
        return
    import stamps  # pylint: disable=import-outside-toplevel
    yield from stamps.rows(latencies)
    yield from distance_rows()
    try:
        yield from instruction_rows()
    except Skip as reason:
        print('line-rate.instructions: %s' % reason, file=sys.stderr)


# ---- by stage ----

STAGED = ('wire', 'cut-through.10k', 'relay')


def stage_figures(results):
    """Figures of good cores if there are any, and whether they are."""
    is_good = STAGED in results.values[True]
    return results.values[is_good][STAGED], is_good


def stage_rows(results):
    for _ in range(2 * ROUNDS):
        if len(results.values[True].get(STAGED, [])) < ROUNDS:
            measure(results, *STAGED[:2], relay)
    mine, is_good = stage_figures(results)
    for name in mine[0]['stages']:
        yield row('line-rate.stage.' + name, statistics.median(each['stages'][name] for each in mine), 'cycles',
                  'for a message of 10 KB, of %.0f; %s, median of %d' % (median_of(mine, 'cycles'), results.where(is_good), len(mine)))


# ---- the page ----

GOALS = {'cut-through.1k': '150,000; 0.35 of splice', 'cut-through.10k': '100,000; 0.6 of splice', 'cut-through.100k': '20 Gbit/s', 'session.10k': '60,000'}


def cells_of(figures, plane, work):
    """Rate, Gbit/s each way, the splice, their ratio, and the load alone, as text."""
    rate, splices, load = (median_of(figures.get((plane, work, who)), 'rate') for who in ('relay', 'splice', 'direct'))
    gigabits = rate * WORK[work][0] * 8 / 1e9
    return ['{:,.0f}'.format(rate), '{:.1f}'.format(gigabits), '{:,.0f}'.format(splices), '{:.2f}'.format(rate / splices) if splices else '',
            '{:,.0f}'.format(load) + bounded(rate, load) if load else '']


def wire_table(results, plane):
    lines = ['| row, net_memif, MTU {:,} | cores | rounds | msg/s | Gbit/s each way | splice | ratio | load: source to sink, a core each | cycles a message | to reach |'.format(MTU[plane]),
             '|---|---|---|---|---|---|---|---|---|---|']
    for work in WORK_OF.get(plane, WORK):
        for is_good, text in ((True, 'good'), (False, 'other')):
            figures = results.values[is_good]
            mine = figures.get((plane, work, 'relay'))
            if mine:
                cells = ['`line-rate.%s%s`' % (work, SUFFIX[plane]), text, str(len(mine))] + cells_of(figures, plane, work)
                lines.append('| %s |' % ' | '.join(cells + ['{:,.0f}'.format(median_of(mine, 'cycles')), GOALS[work] if plane == 'wire' else '']))
    return lines


def host_table(results):
    figures = results.values[None]
    lines = ['| row, kernel sockets over loopback | msg/s | splice | HAProxy, TCP mode | load: source to sink, a core each |', '|---|---|---|---|---|']
    for work in WORK:
        rate, splices, proxied, load = (median_of(figures.get(('host', work, who)), 'rate') for who in ('relay', 'splice', 'haproxy', 'direct'))
        lines.append('| `line-rate.%s.host` | %s%s |' % (work, ' | '.join('{:,.0f}'.format(each) for each in (rate, splices, proxied, load)), bounded(rate, load)))
    one, two = (figures[('host', 'cut-through.10k', who)] for who in ('one_shard', 'two_shards'))
    return lines + ['', 'With shards on both cores, where the load is, too, `line-rate.shards-2.host`: {:,.0f} messages of 10 KB a second, with one shard and the load beside it {:,.0f} '
                    '({:.2f}); {:.0f} and {:.0f} us of processors for each in the relay; {} records.'.format(
                        median_of(two, 'rate'), median_of(one, 'rate'), median_of(two, 'rate') / median_of(one, 'rate'), median_of(two, 'cpu_us'), median_of(one, 'cpu_us'),
                        RECORDS_SAID)]


def stage_table(results):
    mine, is_good = stage_figures(results)
    stages = sorted(((statistics.median(each['stages'][name] for each in mine), '`%s`: %s' % (name, text)) for text, name in stage_names().items()), reverse=True)
    total = sum(cycles for cycles, _ in stages)
    return ['%s; %s.' % (circumstances(len(mine)), results.where(is_good)), '', '| stage of the turn | cycles for a message of 10 KB | share |', '|---|---|---|'] + [
        '| %s | %s | %.0f %% |' % (what, '{:,.0f}'.format(cycles), 100 * cycles / total) for cycles, what in stages]


def pages_write(results, frames, where):
    for plane, mark in (('wire', 'line-rate'), ('jumbo', 'jumbo')):
        if plane in PLANES:
            states = '; '.join('%s: %s' % (text, results.where(is_good)) for is_good, text in ((True, 'good'), (False, 'other')) if results.cores[is_good])
            states += '; dpdk-testpmd over the same memif {:,.0f} frames of {:,} octets a second; {} records'.format(frames[plane], MTU[plane], RECORDS_SAID)
            page_write(mark, '\n'.join(['%s; %s.' % (where, states), ''] + wire_table(results, plane)))
    if 'host' in PLANES:
        page_write('line-rate-host', '\n'.join([where + '.', ''] + host_table(results)))


def main():
    as_json, with_docs, with_stages = ('--' + name in sys.argv for name in ('json', 'docs', 'stages'))
    where, results, frames, latencies = circumstances(ROUNDS), Results(), {}, []
    with wire.HugePages():
        for each in stage_rows(results) if with_stages else all_rows(results, frames, latencies):
            if as_json:
                print(json.dumps(each), flush=True)
            else:
                peer = '%-8s %12.3f   ratio %s' % (each['peer'], each['peer_value'], each['ratio']) if 'peer' in each else ''
                print('%-30s %14.3f %-8s %s\n    %s' % (each['bench'], each['value'], each['unit'], peer, each['conditions']), flush=True)
    if with_docs and with_stages:
        page_write('stages', '\n'.join(stage_table(results)))
    elif with_docs:
        pages_write(results, frames, where)
        if latencies:
            import stamps  # pylint: disable=import-outside-toplevel
            page_write('latency', stamps.page(latencies, where))


if __name__ == '__main__':
    main()
