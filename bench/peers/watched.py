#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""watched: what it costs when somebody looks on. In the simulated world (bench/line) mail goes through the shards at a fixed rate, mail waits for
some hundred sites, and `angarium top`, a page of the dashboard with a site opened, and a scrape of /metrics every 15 s ask at their own pace, or
nobody does.

Rows, instructions by callgrind, user space alone:
  watched.shards.second   what a second of it costs the shard, which carries the mail; from how many messages a second on that is under 2 %
  watched.shards          the same for each of WITH messages a second; peer: nobody asks
  watched.all.second, watched.all   with what control and the threads of HTTP do: writing and reading JSON, making metrics
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import BUILD, Lab, tool  # pylint: disable=wrong-import-position

lab = Lab('watched')
SITES = int(os.environ.get('ANGARIUM_BENCH_SITES', '100'))
WITH, FEW = 1000, 20  # messages a second: of whom a message's cost is known, and while questions are counted, so that it does not take hours
SIZE, PERIOD, SHORT = 1024, 30, 2  # seconds: in PERIOD every question comes a whole number of times
# The others: control takes questions, and answers of the shards; threads of HTTP ask, and pass answers on (watch.c).
SHARDS, OTHERS = 'shard_turn', ('watch_control', 'watch_on_message', 'watch_ask', 'watch_http')
CONDITIONS = ('messages of %d octets that go straight through one shard, engine included, mail for %d sites waits; top and the dashboard once a second, '
              '/metrics every 15 s' % (SIZE, SITES))


def collected(functions, seconds, rate, watched):
    """Instructions inside these functions, none of which calls another."""
    output = lab.path('callgrind')
    toggles = ['--toggle-collect=' + name + '*' for name in functions]
    subprocess.run([tool('valgrind'), '--tool=callgrind', *toggles, '--callgrind-out-file=' + output, os.path.join(BUILD, 'bench/line/angarium-line'),
                    '-R', str(rate), '-q', str(SITES)] + ['-w'] * watched + ['1', str(rate * seconds), str(SIZE), '20'],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=3600)
    with open(output, encoding='utf-8', errors='replace') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(('summary:', 'totals:')))


def counted(seconds, rate, watched):
    """Of the shards and of the others, from the start on."""
    return collected((SHARDS,), seconds, rate, watched), collected(OTHERS, seconds, rate, watched)


def in_a_second(seconds, rate, watched):
    """From the difference of two runs: nothing of the start is in it."""
    short, long = counted(SHORT, rate, watched), counted(SHORT + seconds, rate, watched)
    return [(b - a) / seconds for a, b in zip(short, long)]


def rows():
    alone = in_a_second(SHORT, WITH, False)[0] / WITH
    watched, unwatched = in_a_second(PERIOD, FEW, True), in_a_second(PERIOD, FEW, False)
    for name, second in (('shards', watched[0] - unwatched[0]), ('all', sum(watched) - sum(unwatched))):
        yield {'bench': 'watched.%s.second' % name, 'value': round(second), 'unit': 'instructions',
               'conditions': 'a second of being watched; 2 %% from %d messages a second on; %s' % (second / alone / 0.02, CONDITIONS)}
        yield {'bench': 'watched.%s' % name, 'value': round(alone + second / WITH, 1), 'unit': 'instructions', 'peer': 'alone', 'peer_value': round(alone, 1),
               'ratio': round(1 + second / WITH / alone, 4), 'conditions': 'for a message, of %d a second; peer: nobody asks; %s' % (WITH, CONDITIONS)}


def main():
    for each in rows():
        if '--json' in sys.argv:
            print(json.dumps(each), flush=True)
        else:
            peer = '%s %.1f   ratio %s' % (each['peer'], each['peer_value'], each['ratio']) if 'peer' in each else ''
            print('%-22s %12.1f %s   %s\n    %s' % (each['bench'], each['value'], each['unit'], peer, each['conditions']), flush=True)


if __name__ == '__main__':
    main()
