#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""queue: messages entering through the queue's API on one shard, without sockets (bench/queue), beside fio on the same disk in the same run.

accept   durable messages per second of a closed loop. fio writes what one of our batches was in this very round (octets written per flush), one
         write and fdatasync after the other, over a file written before: a disk that does nothing else. Rounds alternate; the ratio is the
         median of the rounds' ratios, so that a noisy second hits both.
memory   resident octets per queued message, each after one deferred attempt, at the end of the filling.
cpu      processor time per message entered and per retry, in the first and in the last tenth of the filling: it must not rise.
start    a process that finds the backlog: until its first new message is durable, until all old ones are in the queue again; after a clean
         end and after SIGKILL. Two threads read, one shard adopts, in slices. ANGARIUM_BENCH_COLD=1: with nothing of the spool in the
         page cache.
summary  what `queue summary` costs the shard, at the end of the filling.

ANGARIUM_BENCH_BACKLOG sets the messages of the backlog (100000; about 3 KB of disk each), ANGARIUM_BENCH_ROUNDS and
ANGARIUM_BENCH_SECONDS the rounds of accept and their length, ANGARIUM_BENCH_FOLDER where spools and fio's file lie.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
from lab import BUILD, tool  # pylint: disable=wrong-import-position

BACKLOG = int(os.environ.get('ANGARIUM_BENCH_BACKLOG', '100000'))
ROUNDS = int(os.environ.get('ANGARIUM_BENCH_ROUNDS', '5'))
SECONDS = int(os.environ.get('ANGARIUM_BENCH_SECONDS', '2'))
PROGRAM = os.path.join(BUILD, 'bench/queue/bench_queue')
BODY = 2048
WINDOWS = {1024: 2000, 10240: 400, 102400: 60}
BLOCK = 4096

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


def start(path, *more):
    if os.environ.get('ANGARIUM_BENCH_COLD') == '1':
        subprocess.run(['sync'], check=True)
        for name in os.listdir(path):
            with open(os.path.join(path, name), 'rb') as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return measure('start', path, BODY, *more, killed=bool(more))


def backlog():
    with Spool() as path:
        whole = measure('fill', path, BODY, BACKLOG)
        filled = whole['stages']
        used = sum(os.stat(os.path.join(path, name)).st_size for name in os.listdir(path))
        clean = start(path, 'kill')  # killed later, at work
        killed = start(path)
    assert clean['messages'] == BACKLOG and killed['messages'] > BACKLOG, (clean, killed)
    what = '%d messages of 2 KB, one recipient, each after a deferred attempt' % BACKLOG
    curve = {key: ' '.join('%.2f' % stage[key] for stage in filled) for key in ('enqueue_us', 'retry_us')}
    yield {'bench': 'queue.memory', 'value': filled[-1]['octets'], 'unit': 'octets resident per message',
           'conditions': what + '; %.0f octets of disk each; by tenths %s' % (used / BACKLOG, ' '.join('%.0f' % stage['octets'] for stage in filled))}
    for key, bench in (('enqueue_us', 'queue.cpu.enqueue'), ('retry_us', 'queue.cpu.retry')):
        half = len(filled) // 2
        yield {'bench': bench, 'value': round(statistics.median(stage[key] for stage in filled[half:]), 3), 'unit': 'us of the shard',
               'conditions': what + '; by tenths of the backlog ' + curve[key]}
    yield {'bench': 'queue.summary', 'value': whole['summary_ms'], 'unit': 'ms of the shard',
           'conditions': what + '; all groups, the slowest of the ways to group'}
    for began, how in ((clean, 'a clean end'), (killed, 'SIGKILL')):
        for key, bench in (('serving_s', 'serving'), ('index_s', 'index')):
            yield {'bench': 'queue.start.%s%s' % (bench, '.killed' if began is killed else ''), 'value': began[key], 'unit': 's',
                   'conditions': what + '; after %s; scanned and merged by 2 threads after %.2f s, longest slice of the shard %.2f ms, CPU %.2f s of the threads and %.2f s of the shard, %.0f octets '
                                        'resident per message afterwards' % (how, began['scan_s'], began['slice_max_s'] * 1000, began['cpu_scan_s'],
                                                                              began['cpu_adopt_s'], began['octets'])}


def rows():
    for size in WINDOWS:
        yield accept(size)
    yield from backlog()


def main():
    try:
        for row in rows():
            if '--json' in sys.argv:
                print(json.dumps(row), flush=True)
            else:
                peer = '%-5s %12.1f   ratio %.3f' % (row['peer'], row['peer_value'], row['ratio']) if 'peer' in row else ''
                print('%-28s %12.3f %-28s %s\n    %s' % (row['bench'], row['value'], row['unit'], peer, row['conditions']), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == '__main__':
    main()
