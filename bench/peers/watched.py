#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""watched: what it costs when somebody looks on. In the simulated world (bench/line) mail goes through the shards at a fixed rate, mail waits for
some hundred sites, and `angarium top`, a page of the dashboard with a site opened, and a scrape of /metrics every 15 s ask at their own pace, or
nobody does.

Rows, instructions for a message of 1 KB (callgrind); peer: the same without anybody who asks:
  watched.shards.RATE   of the shards, which carry the mail
  watched.all.RATE      with what control and the threads of HTTP do about it: reading questions, writing and reading JSON, making metrics
Where a figure goes beyond 1.02 of its peer, the row says so.
"""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import BUILD, Lab, tool  # pylint: disable=wrong-import-position

lab = Lab('watched')
RATES = [int(word) for word in os.environ.get('ANGARIUM_BENCH_RATES', '1000').split()]
SITES = int(os.environ.get('ANGARIUM_BENCH_SITES', '200'))
SIZE, PERIOD = 1024, 30  # seconds, in which every question comes a whole number of times
SHARDS, OTHERS = 'shard_turn', ('watch_control', 'watch_on_message', 'watch_http')
BOUND = 1.02


def counted(seconds, rate, watched):
    """Instructions of the shards and of the others, from the start on."""
    output = lab.path('callgrind')
    toggles = ['--toggle-collect=' + name + '*' for name in (SHARDS,) + OTHERS]
    subprocess.run([tool('valgrind'), '--tool=callgrind', *toggles, '--callgrind-out-file=' + output, os.path.join(BUILD, 'bench/line/angarium-line'),
                    '-R', str(rate), '-q', str(SITES)] + ['-w'] * watched + ['1', str(rate * seconds), str(SIZE), '20'],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=3600)
    text = subprocess.run([tool('callgrind_annotate'), '--inclusive=yes', '--threshold=100', output], capture_output=True, check=True,
                          encoding='utf-8').stdout
    found = {match[2]: int(match[1].replace(',', '')) for match in re.finditer(r'^ *([\d,]+) \([^)]*\) .*?:(\w+)(?:\'\d+)? ', text, re.M)}
    return found[SHARDS], sum(found.get(name, 0) for name in OTHERS)


def for_a_message(rate, watched):
    """From the difference of two runs: nothing of the start is in it."""
    short, long = counted(PERIOD // 6, rate, watched), counted(PERIOD // 6 + PERIOD, rate, watched)
    return [(b - a) / (rate * PERIOD) for a, b in zip(short, long)]


def rows():
    for rate in RATES:
        conditions = ('for a message of %d octets that goes straight through, %d a second on one shard, mail for %d sites waits, engine included; top and the '
                      'dashboard every second, /metrics every 15 s; peer: nobody asks' % (SIZE, rate, SITES))
        (shards, others), (shards_alone, others_alone) = for_a_message(rate, True), for_a_message(rate, False)
        for name, value, alone in (('shards', shards, shards_alone), ('all', shards + others, shards_alone + others_alone)):
            yield {'bench': 'watched.%s.%d' % (name, rate), 'value': round(value, 1), 'unit': 'instructions', 'peer': 'alone', 'peer_value': round(alone, 1),
                   'ratio': round(value / alone, 4), 'conditions': conditions + ('' if value <= BOUND * alone else '; BEYOND %s' % BOUND)}


def main():
    for each in rows():
        if '--json' in sys.argv:
            print(json.dumps(each), flush=True)
        else:
            print('%-22s %12.1f %s   %s %.1f   ratio %s\n    %s' % (each['bench'], each['value'], each['unit'], each['peer'], each['peer_value'],
                                                                each['ratio'], each['conditions']), flush=True)


if __name__ == '__main__':
    main()
