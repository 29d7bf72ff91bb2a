#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""line-rate.latency: how long the relay itself holds a message up that goes straight through, by stamps inside it (relay/stamps.c).

Rows, over net_memif, 10 KB, plain, at 10, 50 and 80 % of what the relay passed on in a closed loop just before, in several rounds:
  line-rate.latency.body.at-N.p50, .p90, .p99, .p999    from the last octet received to the last octet handed to the port; the sink's 354 is in between
  line-rate.latency.ready.at-N.p50, ...           likewise, from that 354 where it came later: what the relay itself takes
  line-rate.latency.reply.at-N.p50, ...           from the next hop's final reply received to ours handed to the port
The load is open: so many messages are due a second, whatever becomes of those before. The shard has core 0 for itself; source, sink, the relay's
other threads and who asks it share core 1, and what these take from the sink is in the body's rows: p90 says what is usual, p99 how
long its core was another's. Windows of a fifth of a second in which the hypervisor took time from either core (steal in /proc/stat), or in which
the shard's core was not its own for 100 us or more while it had nothing to do (shards.stalled_us), are left out, and counted. What is taken while
there is something to do cannot be told from work, and stays in. Rounds of good cores (bench/peers/apart.py) are kept apart from others. A row is
the median of the windows' quantiles, so that a window of ten that was another's all the same does not decide it; its conditions have the quantile of
all messages of all windows. A quantile is the top of its bucket: at most an eighth above the true one.
"""
import collections
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import typing

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import apart  # pylint: disable=wrong-import-position
import line  # pylint: disable=wrong-import-position
from lab import shards_of, wait_until  # pylint: disable=wrong-import-position
from ground import LOAD, ROUNDS, SECONDS, SESSIONS, circumstances, on_core, page_write, row  # pylint: disable=wrong-import-position

lab, wire = line.lab, line.wire
SIZE = 10240
SHARES = tuple(int(share) for share in os.environ.get('ANGARIUM_BENCH_SHARES', '10 50 80').split())
WINDOWS = int(os.environ.get('ANGARIUM_BENCH_WINDOWS', '10')) # of each round
WINDOW = 0.2 # what asking for one takes, a third of a millisecond, the sink lacks
WARM_UP = 2
KINDS = (('body', 'body_out', "the message's last octet in to its last octet out, with the sink's 354 in between"),
         ('ready', 'ready_out', "the later of the message's last octet and the sink's 354 in to the last octet out"), ('reply', 'reply_out', 'the final reply in to the final reply out'))
QUANTILES = (('p50', 0.5), ('p90', 0.9), ('p99', 0.99), ('p999', 0.999))


def stolen(stat):
    """Ticks that the hypervisor took from the machine's processors so far, by /proc/stat, open."""
    return int(os.pread(stat, 200, 0).split(b'\n', 1)[0].split()[8])


def pin(pid):
    """The shard to core 0, all other threads to core 1, once there is a shard."""
    wait_until(lambda: shards_of(pid)[0], 'the shard runs', 10)
    for core, tasks in enumerate(shards_of(pid)):
        for task in tasks:
            with contextlib.suppress(ProcessLookupError): # one that has ended meanwhile
                os.sched_setaffinity(task, {core})


def start():
    port = 'dataplane: {driver: dpdk, poll: busy, ports: [{device: "%s", addresses: [10.9.0.1/16]}]}' % line.device('server', 'wire')
    relay = lab.relay(line.RELAY % (', {address: "%s"}' % line.HERE, *line.THERE.split(':'), port), 'relay-stamps', kind=line.RECORDS)
    pin(relay.child.pid)
    return relay


def end(relay):
    relay.stop()
    if os.path.exists(relay.records_file):
        os.truncate(relay.records_file, 0)


def load(more, seconds):
    arguments = ['both', '-j', '-s', SESSIONS, '-t', seconds, '-l', SIZE, '-d', 'sink.test'] + more
    return subprocess.Popen(on_core(1, [LOAD] + arguments + line.port_arguments('client', 'wire', '10.9.1.1') + [line.HERE, line.THERE]),
                            stdout=subprocess.PIPE, stderr=open(lab.path('load.log'), 'ab'), encoding='utf-8')


def maximum():
    relay = start()
    try:
        return line.rate_of(load([], SECONDS + 2).communicate(timeout=SECONDS + 120)[0])
    finally:
        end(relay)


def counts_of(before, after):
    """How many of each kind took how long, by the top of the bucket, between two looks."""
    return {kind: {top: count - dict(zip(before[field]['bounds_ns'], before[field]['counts'])).get(top, 0)
                   for top, count in zip(after[field]['bounds_ns'], after[field]['counts'])} for kind, field, _ in KINDS}


def ask(relay, answer):
    """The answer to `angarium status --json` as it comes, by way of a buffer that is there already: what this takes, the sink lacks."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(relay.socket)
        client.sendall(b'{"verb":"status"}\n')
        size = 0
        while more := client.recv_into(answer[size:]):
            size += more
        return bytes(answer[:size])


def looks(relay):
    """The beginnings and ends of the windows, from the load's core; they are read when all is over."""
    found, cores, answer = [], os.sched_getaffinity(0), memoryview(bytearray(1 << 20))
    os.sched_setaffinity(0, {1})
    with open('/proc/stat', 'rb') as stat:
        for _ in range(WINDOWS + 1):
            found.append((ask(relay, answer), stolen(stat.fileno())))
            time.sleep(WINDOW)
    os.sched_setaffinity(0, cores)
    return [(json.loads(text), ticks) for text, ticks in found]


def windows(found):
    """For each window: whether time was taken from us in it, and what was counted."""
    for (seen, ticks), (now, now_ticks) in zip(found, found[1:]):
        is_stolen = now_ticks > ticks or now['shards']['stalled_us'] > seen['shards']['stalled_us']
        yield is_stolen, counts_of(seen['latency_ns'], now['latency_ns'])


def at(rate):
    """Windows under this load, and how fast it really was."""
    relay = start()
    child = load(['-R', int(rate)], int(WARM_UP + 1.5 * WINDOWS * WINDOW) + 4)
    lab.children.append(child)
    try:
        time.sleep(WARM_UP)
        found = looks(relay)
        first, last = found[0][0], found[-1][0]
        passed = (last['ways']['ready'] - first['ways']['ready']) / (last['uptime_us'] - first['uptime_us']) * 1e6
        child.communicate(timeout=120)
        return list(windows(found)), passed
    finally:
        lab.children.remove(child)
        if child.poll() is None:
            child.kill()
        end(relay)


def together(windows_counts):
    """The counts of several windows as those of one."""
    counts = collections.Counter()
    for each in windows_counts:
        counts.update(each)
    return counts


def quantile(counts, share):
    total, seen = sum(counts.values()), 0
    for top in sorted(counts):
        seen += counts[top]
        if seen >= total * share:
            return top / 1000
    return 0


class Round(typing.NamedTuple):
    """One minute's: its windows, what was passed on and the most that can be, messages per second, and what the cores were good for meanwhile."""
    windows: list
    passed: float
    most: float
    cores: list

    def is_good(self):
        return all(each.are_good() for each in self.cores)


def rounds(share):
    """Rounds at this share, until there are enough of good cores or twice as many of any. The most is measured anew for each: it is half as much in
    minutes in which the cores are far from each other, and a share of another minute's says nothing."""
    found = []
    while len(found) < 2 * ROUNDS and sum(each.is_good() for each in found) < ROUNDS:
        cores = [apart.good_wait()]
        most = maximum()
        cores.append(apart.good_wait())
        seen, passed = at(most * share / 100)
        cores.append(apart.cores())
        found.append(Round(seen, passed, most, cores))
    return found


class Windows(typing.NamedTuple):
    """The windows of rounds that are alike."""
    share: int
    is_good: bool
    rounds: list
    number: int # of windows, with those left out
    used: list # what was counted in each

    def cores(self):
        return apart.said([cores for each in self.rounds for cores in each.cores])

    def of_rounds(self, field):
        return statistics.median(getattr(each, field) for each in self.rounds)

    def usual(self, kind, part):
        return statistics.median(quantile(window[kind], part) for window in self.used)

    def together(self, kind):
        return together(window[kind] for window in self.used)

    def note(self):
        left_out = self.number - len(self.used)
        if left_out == 0 and any(is_stolen for each in self.rounds for is_stolen, _ in each.windows):
            return 'all %d windows of a fifth of a second had stolen time, and count all the same' % self.number
        return '%d of %d windows of a fifth of a second had stolen time and are left out' % (left_out, self.number)


def windows_of(share, is_good, alike):
    found = [window for each in alike for window in each.windows]
    clean = [counts for is_stolen, counts in found if not is_stolen]
    return Windows(share, is_good, alike, len(found), clean if clean else [counts for _, counts in found])


def rows_of(seen):
    for kind, _, meaning in KINDS:
        counts = seen.together(kind)
        conditions = ('%s, 10 KB, plain, net_memif, %.0f msg/s of %.0f at most (open loop; medians of %d rounds; %s), %s records, %d messages; %s' %
                      (meaning, seen.of_rounds('passed'), seen.of_rounds('most'), len(seen.rounds), seen.cores(), line.RECORDS_SAID,
                       sum(counts.values()), seen.note()))
        for name, part in QUANTILES:
            yield row('line-rate.latency.%s.at-%d.%s' % (kind, seen.share, name), seen.usual(kind, part), 'us',
                      'median of the windows; of all their messages %.1f us; %s' % (quantile(counts, part), conditions))


def rows(made):
    """All rows; and what they were made of into `made`, for the page."""
    for share in SHARES:
        found = rounds(share)
        for is_good in (True, False):
            alike = [each for each in found if each.is_good() == is_good]
            if alike:
                made.append(windows_of(share, is_good, alike))
                yield from rows_of(made[-1])


def table(made):
    """Lines for docs/benchmarks.md."""
    lines = ['| net_memif, 10 KB | cores | rounds | p50 | p90 | p99 | p99.9 | p99, all windows as one | windows left out |', '|---|---|---|---|---|---|---|---|---|']
    for seen in made:
        for kind, _, meaning in KINDS:
            cells = ['at %d %%, %s of %s msg/s: %s' % (seen.share, '{:,.0f}'.format(seen.of_rounds('passed')), '{:,.0f}'.format(seen.of_rounds('most')), meaning),
                     'good' if seen.is_good else 'other', str(len(seen.rounds))]
            cells += ['%.0f us' % seen.usual(kind, part) for _, part in QUANTILES]
            cells += ['%.0f us' % quantile(seen.together(kind), 0.99), '%d of %d' % (seen.number - len(seen.used), seen.number)]
            lines.append('| %s |' % ' | '.join(cells))
    return lines


def page(made, where):
    return '\n'.join(['%s; %s.' % (where, '; '.join('%d %%, %s: %s' % (seen.share, 'good' if seen.is_good else 'other', seen.cores()) for seen in made)),
                      ''] + table(made))


def main():
    made, where = [], circumstances(ROUNDS)
    with wire.HugePages():
        for each in rows(made):
            print(json.dumps(each) if '--json' in sys.argv else '%-36s %10.1f us\n    %s' % (each['bench'], each['value'], each['conditions']), flush=True)
    if '--docs' in sys.argv:
        page_write('latency', page(made, where))


if __name__ == '__main__':
    main()
