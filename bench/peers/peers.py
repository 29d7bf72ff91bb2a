#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""peers: other mail systems and a TCP proxy beside the relay, through the same loads, on the same machine, in the same run (mail_systems.py says who
and how tuned).

Kernel sockets over loopback. One core (0) for whatever is measured, with all its threads and processes; source and sink in one process on the
other. Loads: messages of 1, 10 and 100 KB over 100 connections, and 10 KB with one message for each connection; plain, PIPELINING. The source
sends for SECONDS in a closed loop; a rate is what arrived at the sink after the first second, in which processes are started and caches filled, divided
by the time until the last arrival: mail that was accepted and waits is waited for, DRAIN seconds at the most, and then told. "load" is the same
with nobody in between: source and sink alone on their core; less than 1.3 times of it, and a row is bounded by the load.

Everybody takes turns in each of ROUNDS, started anew for each load; medians. With --docs the table and the chart in docs/benchmarks.md are made anew.
"""
import statistics
import sys

from chart import chart_write
from ground import ROOT, ROUNDS, SECONDS, SESSIONS, circumstances, core_busy_seconds, load_both, page_write, row, rows_print, total_of, version_of
from lab import Lab, Skip, free_port
from mail_systems import SYSTEMS

LOADS = {'1 KB': ['-l', 1024], '10 KB': ['-l', 10240], '100 KB': ['-l', 102400], '10 KB, a connection each': ['-l', 10240, '-c', 1]}
KEYS = {'1 KB': '1k', '10 KB': '10k', '100 KB': '100k', '10 KB, a connection each': 'session.10k'}
DRAIN = 20
CHART = 'docs/images/peers.svg'

lab = Lab('bench-peers')


def one_load(port, sink, arguments):
    """Messages a second that arrived, processor seconds of core 0 for a thousand, and how many were late."""
    busy = core_busy_seconds(0)
    lines = load_both(lab, '127.0.0.1:%d' % port, '127.0.0.1:%d' % sink, arguments, SECONDS, DRAIN)
    busy = core_busy_seconds(0) - busy
    source, arrived = total_of(lines, 'source'), total_of(lines, 'sink')
    first = next(line for line in lines if line['what'] == 'sink')
    assert arrived['seconds'] > first['at'], arrived
    late = source['recipients'] - arrived['recipients']
    return {'rate': (arrived['messages'] - first['messages']) / (arrived['seconds'] - first['at']), 'cpu': busy / max(arrived['messages'], 1) * 1000, 'late': max(late, 0),
            'refused': source['tempfails'] + source['permfails'], 'lost': source['lost_connections']}


def one_system(name, start, figures):
    """All loads, each through a system that was started for it: connections that are kept to a sink which is gone count as errors with some."""
    for load, arguments in LOADS.items():
        sink = free_port()
        running = start(lab, sink)
        try:
            figures.setdefault((name, load), []).append(one_load(running.port, sink, arguments))
        finally:
            running.stop()


def load_alone(figures):
    for load, arguments in LOADS.items():
        place = free_port()
        figures.setdefault(('load', load), []).append(one_load(place, place, arguments))


def measure():
    figures, missing = {}, {}
    for _ in range(ROUNDS):
        load_alone(figures)
        for name, _, _, start in SYSTEMS:
            try:
                if name not in missing:
                    one_system(name, start, figures)
            except Skip as reason:
                missing[name] = str(reason)
                print('peers: %s is left out: %s' % (name, reason), file=sys.stderr)
    return figures


def median(figures, name, load, key):
    return statistics.median(each[key] for each in figures[(name, load)])


def notes_of(figures, name):
    """What a rate alone would hide."""
    sums = {key: sum(each[key] for load in LOADS for each in figures[(name, load)]) for key in ('late', 'refused', 'lost')}
    words = {'late': '%d messages were not there after ' + '%d s' % DRAIN, 'refused': '%d refused', 'lost': '%d connections lost'}
    return ', '.join(words[key] % count for key, count in sums.items() if count)


# ---- rows, table, chart ----

def measured(figures):
    return [system for system in SYSTEMS if (system[0], '1 KB') in figures]


def rows(figures, where):
    for name, package, _, _ in measured(figures):
        if package is None:
            for load in LOADS:
                mine, ceiling = median(figures, name, load, 'rate'), median(figures, 'load', load, 'rate')
                for peer, peer_package, meaning, _ in measured(figures):
                    if peer_package is not None:
                        yield row('peers.%s.%s' % ('spool' if 'spool' in name else 'cut-through', KEYS[load]), mine, 'msg/s', '%s; %d connections, plain, PIPELINING, '
                                  'kernel sockets; peer %s, 250 means: %s; load alone %.0f%s' % (where, SESSIONS, version_of(peer_package), meaning, ceiling,
                                                                                               ' (bounded by load)' if ceiling < 1.3 * mine else ''),
                                  peer, median(figures, peer, load, 'rate'))


def cell(figures, name, load):
    rate = median(figures, name, load, 'rate')
    is_bounded = median(figures, 'load', load, 'rate') < 1.3 * rate
    return '{:,.0f}{}'.format(rate, ' (1)' if is_bounded else '')


def table(figures, where):
    lines = [where + '; JSON records of Angarium.', '', '| messages per second that arrived | 250 means | ' + ' | '.join(LOADS) + ' | CPU s per 1,000 of 10 KB |', '|---' * (3 + len(LOADS)) + '|']
    systems = sorted(measured(figures), key=lambda system: -median(figures, system[0], '10 KB', 'rate'))
    for name, package, meaning, _ in systems:
        title = name if package is None else '%s (%s)' % (name, version_of(package))
        lines.append('| %s | %s | %s | %.3f |' % (title, meaning, ' | '.join(cell(figures, name, load) for load in LOADS), median(figures, name, '10 KB', 'cpu')))
    lines.append('| load alone | | ' + ' | '.join('{:,.0f}'.format(median(figures, 'load', load, 'rate')) for load in LOADS) + ' | |')
    if any('(1)' in line for line in lines):
        lines.append('\n(1) bounded by the load: source and sink alone, on their one core, make less than 1.3 times of it.')
    notes = ['%s: %s' % (name, notes_of(figures, name)) for name, _, _, _ in systems if notes_of(figures, name)]
    if notes:
        lines.append('\nOver all rounds: ' + '; '.join(notes) + '.')
    lines += ['', '![messages per second through each, by load](images/peers.svg)']
    return '\n'.join(lines)


def chart(figures):
    systems = sorted(measured(figures), key=lambda system: -median(figures, system[0], '10 KB', 'rate'))
    names = [system[0] for system in systems]
    rates = {(name, load): median(figures, name, load, 'rate') for name in names for load in LOADS}
    chart_write(ROOT + '/' + CHART, 'Mail through one core, kernel sockets over loopback', 'messages per second', list(LOADS), names, rates,
                lambda name: name.startswith('Angarium'))


def main():
    where = circumstances(ROUNDS)
    figures = measure()
    rows_print(rows(figures, where))
    if '--docs' in sys.argv:
        page_write('peers', table(figures, where))
        chart(figures)


if __name__ == '__main__':
    main()
