#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""queue: the whole table of the queue in one run, some twelve minutes with ten million messages on an idle machine.

Messages enter through the queue's API on one shard, without sockets (bench/queue), beside fio on the same disk in the same run:

accept   durable messages per second of a closed loop. fio writes what one of our batches was in this very round (octets written per flush), one
         write and fdatasync after the other, over a file written before: a disk that does nothing else. Rounds alternate; the ratio is the
         median of the rounds' ratios, so that a noisy second hits both.
memory   resident octets per queued message, each after one deferred attempt, when one, three and ten million are there, or all.
cpu      processor time per message entered and per retry, by tenths of the backlog: it must not rise.
summary  what `queue summary` costs the shard, with all of it.
start    a process that finds the backlog: until its first new message is durable, until all old ones are in the queue again; after a clean
         end and after SIGKILL. Two threads read; then one shard adopts, in slices, or two do (rows `.two`), each what one shard wrote.
         ANGARIUM_BENCH_COLD=1: with nothing of the spool in the page cache.

Then the same queue fed by SMTP, beside Postfix (living.py).

ANGARIUM_BENCH_BACKLOG sets the messages of the backlog (about 2.8 KB of disk each; ten million, or what the disk has room for),
ANGARIUM_BENCH_ROUNDS and ANGARIUM_BENCH_SECONDS the rounds of accept and their length, ANGARIUM_BENCH_STARTS how many starts of each kind,
ANGARIUM_BENCH_FOLDER where spools and fio's file lie.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import living  # pylint: disable=wrong-import-position
from lab import BUILD, tool  # pylint: disable=wrong-import-position

MILLION = 1000000
DISK_EACH = 3200 # octets, with some to spare
ROUNDS = int(os.environ.get('ANGARIUM_BENCH_ROUNDS', '5'))
SECONDS = int(os.environ.get('ANGARIUM_BENCH_SECONDS', '2'))
PROGRAM = os.path.join(BUILD, 'bench/queue/bench_queue')
BODY = 2048
STARTS = int(os.environ.get('ANGARIUM_BENCH_STARTS', '3'))
WINDOWS = {1024: 2000, 10240: 400, 102400: 60}
BLOCK = 4096

REACH = {'queue.accept.10k': ('ratio', '>=', 0.8), 'queue.memory': ('value', '<=', 300), 'queue.summary': ('value', '<=', 100),
         'queue.start.serving': ('value', '<=', 1), 'queue.start.index': ('value', '<=', 10), 'queue.living': ('value', '>=', 0.95)}

folder = tempfile.mkdtemp(prefix='angarium-bench-queue-', dir=os.environ.get('ANGARIUM_BENCH_FOLDER', '/var/tmp'))


def measure(*arguments, killed=False):
    done = subprocess.run([PROGRAM] + [str(a) for a in arguments], stdout=subprocess.PIPE, check=not killed, timeout=3600, encoding='utf-8')
    return json.loads(done.stdout.splitlines()[-1])


class Spool:
    """A fresh spool directory that goes away."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(dir=folder)
        return self.path

    def __exit__(self, *ignored):
        shutil.rmtree(self.path)


def fio(octets):
    """Flushes per second of write + fdatasync of this many octets, over a file written before."""
    size = octets * max(1, (256 << 20) // octets)
    path = os.path.join(folder, 'fio.dat')
    if not os.path.exists(path) or os.path.getsize(path) < size:
        subprocess.run(['dd', 'if=/dev/zero', 'of=' + path, 'bs=1M', 'count=%d' % (size // (1 << 20) + 1), 'conv=fsync', 'status=none'], check=True)
    done = subprocess.run([tool('fio'), '--name=flush', '--filename=' + path, '--rw=write', '--overwrite=1', '--bs=%d' % octets, '--size=%d' % size,
                           '--ioengine=sync', '--fdatasync=1', '--runtime=%d' % SECONDS, '--time_based', '--fallocate=none', '--output-format=json'],
                          stdout=subprocess.PIPE, check=True, timeout=120, encoding='utf-8')
    return json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]['write']['iops']


def accept(size):
    rounds = []
    for _ in range(ROUNDS):
        with Spool() as path:
            mine = measure('accept', path, size, SECONDS, WINDOWS[size])
        octets = max(BLOCK, round(mine['octets_per_batch'] / BLOCK) * BLOCK)
        flushes = fio(octets)
        rounds.append({'mine': mine, 'octets': octets, 'flushes': flushes, 'peer': flushes * mine['messages_per_batch'],
                       'ratio': mine['messages_per_second'] / (flushes * mine['messages_per_batch'])})
    median = sorted(rounds, key=lambda r: r['ratio'])[len(rounds) // 2]
    mine = median['mine']
    return {'bench': 'queue.accept.%dk' % (size // 1024), 'value': mine['messages_per_second'], 'unit': 'msg/s', 'peer': 'disk',
            'peer_value': round(median['peer'], 1), 'ratio': round(median['ratio'], 4),
            'conditions': '%d KB, durable, %d on their way, %.1f messages and %d octets a batch; fio write %d + fdatasync on a pre-written file %.0f/s; '
                          '%.2f us of the shard and %.2f us of all threads a message; median of %d alternating rounds of %d s, ratios %s' % (
                              size // 1024, mine['window'], mine['messages_per_batch'], median['octets'], median['octets'], median['flushes'], mine['cpu_us'],
                              mine['cpu_all_us'], ROUNDS, SECONDS, ' '.join('%.2f' % r['ratio'] for r in rounds))}


def backlog_size():
    wanted = os.environ.get('ANGARIUM_BENCH_BACKLOG')
    if wanted:
        return int(wanted)
    room = shutil.disk_usage(folder).free
    return next((count for count in (10 * MILLION, 3 * MILLION, MILLION) if count * DISK_EACH < room), 100000)


BACKLOG = backlog_size() // 20 * 20 # tenths of either half
WHAT = '%d messages of 2 KB, one recipient, each after a deferred attempt' % BACKLOG


def start(path, shards, is_killed):
    """What a process finds; `is_killed`: it is killed at work afterwards."""
    if os.environ.get('ANGARIUM_BENCH_COLD') == '1':
        subprocess.run(['sync'], check=True)
        for name in os.listdir(path):
            with open(os.path.join(path, name), 'rb') as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return measure('start', path, BODY, shards, *(['kill'] if is_killed else []), killed=is_killed)


def median_of(runs, key):
    return statistics.median(run[key] for run in runs)


def start_row(runs, key, bench, shards, how):
    text = ('%s, written by %d shard(s); after %s; median of %d: %s; two threads scan and merge until %.2f s, then %d shard(s) take over; longest '
            'slice of a shard %.2f ms, CPU %.2f s of the threads and %.2f s of the shards; octets resident per message %.0f afterwards, %.0f at the most')
    return {'bench': bench, 'value': round(median_of(runs, key), 4), 'unit': 's',
            'conditions': text % (WHAT, shards, how, len(runs), ' '.join('%.2f' % run[key] for run in runs), median_of(runs, 'scan_s'), shards,
                                  max(run['slice_max_s'] for run in runs) * 1000, median_of(runs, 'cpu_scan_s'), median_of(runs, 'cpu_adopt_s'),
                                  median_of(runs, 'octets'), median_of(runs, 'octets_peak'))}


def starts(path, shards):
    """Each start is measured and ends in the way that the next one is to find."""
    clean = [start(path, shards, i == STARTS - 1) for i in range(STARTS)]
    killed = [start(path, shards, i < STARTS - 1) for i in range(STARTS)]
    counts = [run['messages'] for run in clean + killed]
    assert counts[0] == BACKLOG and counts == sorted(set(counts)), counts
    assert all(run['least'] * shards > BACKLOG * 9 // 10 for run in clean), 'each shard has its part'
    for runs, how, suffix in ((clean, 'a clean end', ''), (killed, 'SIGKILL', '.killed')):
        for key, name in (('serving_s', 'serving'), ('index_s', 'index')):
            yield start_row(runs, key, 'queue.start.%s%s%s' % (name, '' if shards == 1 else '.two', suffix), shards, how)


def memory_row(stage, used, bench):
    return {'bench': bench, 'value': stage['octets'], 'unit': 'octets resident per message',
            'conditions': '%d messages of 2 KB, one recipient, each after a deferred attempt; %.0f octets of disk each' % (stage['messages'], used)}


def filled_rows(path, whole):
    filled = whole['stages']
    used = sum(os.stat(os.path.join(path, name)).st_size for name in os.listdir(path)) / BACKLOG
    marks = [stage for stage in filled if stage['messages'] in (MILLION, 3 * MILLION, 10 * MILLION)]
    for stage in marks:
        yield memory_row(stage, used, 'queue.memory.%dm' % (stage['messages'] // MILLION))
    if not marks:
        yield memory_row(filled[-1], used, 'queue.memory')
    half = len(filled) // 2
    for key, bench in (('enqueue_us', 'queue.cpu.enqueue'), ('retry_us', 'queue.cpu.retry')):
        yield {'bench': bench, 'value': round(statistics.median(stage[key] for stage in filled[half:]), 3), 'unit': 'us of the shard',
               'conditions': WHAT + '; median of the second half; by tenths of the backlog ' + ' '.join('%.2f' % stage[key] for stage in filled)}
    yield {'bench': 'queue.summary', 'value': whole['summary_ms'], 'unit': 'ms of the shard',
           'conditions': WHAT + '; all groups, the slowest of the ways to group'}


def backlog():
    with Spool() as path:
        yield from filled_rows(path, measure('fill', path, BODY, BACKLOG))
        yield from starts(path, 1)
    with Spool() as path:
        parts = [subprocess.Popen([PROGRAM, 'fill', path, str(BODY), str(BACKLOG // 2), str(shard)], stdout=subprocess.DEVNULL) for shard in range(2)]
        assert all([part.wait() == 0 for part in parts])
        yield from starts(path, 2)


def rows():
    for size in WINDOWS:
        yield accept(size)
    yield from backlog()
    yield from living.rows()


def verdict(row):
    """What was to be reached, for rows that have a bound."""
    for name, (key, relation, bound) in REACH.items():
        if row['bench'] == name or row['bench'].startswith(name + '.'):
            is_reached = row[key] >= bound if relation == '>=' else row[key] <= bound
            return '   %s %s %g: %s' % (key, relation, bound, 'yes' if is_reached else 'NO')
    return ''


def main():
    try:
        for row in rows():
            if '--json' in sys.argv:
                print(json.dumps(row), flush=True)
            else:
                peer = '%-7s %12.1f   ratio %.3f' % (row['peer'], row['peer_value'], row['ratio']) if 'peer' in row else ''
                print('%-28s %12.3f %-28s %s%s\n    %s' % (row['bench'], row['value'], row['unit'], peer, verdict(row), row['conditions']), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == '__main__':
    main()
