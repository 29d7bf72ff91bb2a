#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Can a stranger guess? Initial sequence numbers, source ports and timestamps of some thousand connections, as the other host sees them.

The same statistics are first given to generators that are known to be bad (counters, clocks, a congruence, ranges too small): all must be caught.
"""
import collections
import contextlib
import math
import random
import socket
import struct
import time

from engine import ENGINE4, ENGINE6, KERNEL_PORT, NEAR4, NEAR6, PORT, Link
from lab import LONG, Lab
from netns import Net

lab = Lab('guess')
net = Net(lab)

COUNT = 20_000 if LONG else 2_000
# many hosts that are all one kernel
MANY = (('10.77.0.1', '10.77.0.0/16', '-4'), ('fd77::1', 'fd77::/112', '-6'))  # first address, network, word for ip
PORT_FIRST, PORT_COUNT = 1024, 65536 - 1024
PORT_BINS = 63
FAR = 6.0  # standard deviations: by chance once in some hundred million
ETH_P_ALL, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 3, 33, 35

link = None


# ---- statistics ----

def oddity(bins, count):
    """How many standard deviations the chi-square of these frequencies is off; too even is as odd as too uneven."""
    total = sum(bins.values())
    expected = total / count
    square = sum((bins.get(i, 0) - expected) ** 2 for i in range(count)) / expected
    return (square - (count - 1)) / math.sqrt(2 * (count - 1))


def judge(values, modulus, bins):
    """What is odd about a sequence that should be random: {} for a good one. bins: name and function, value to number, and how many there are."""
    odd = {}
    series = {'values': values}
    for lag in (1, 2, 3, 5, 8):
        series['differences at %d' % lag] = [(b - a) % modulus for a, b in zip(values, values[lag:])]
    first = series['differences at 1']
    series['second differences'] = [(b - a) % modulus for a, b in zip(first, first[1:])]
    series['exclusive or'] = [a ^ b for a, b in zip(values, values[1:])] if modulus == 1 << 32 else []
    for name, row in series.items():
        for part, (function, count) in bins.items():
            z = oddity(collections.Counter(function(value) for value in row), count) if row else 0
            if abs(z) > FAR:
                odd['%s, %s' % (name, part)] = round(z, 1)
        repeats = len(row) - len(set(row))
        chance = len(row) ** 2 / 2 / modulus
        if repeats > chance + 6 * math.sqrt(chance) + 2:
            odd[name + ' that come again'] = repeats
    return odd


def judge_words(values):
    return judge(values, 1 << 32, {'octet %d' % i: (lambda value, i=i: value >> (8 * i) & 255, 256) for i in range(4)})


def judge_ports(ports):
    odd = judge([port - PORT_FIRST for port in ports], PORT_COUNT, {'part': (lambda value: value * PORT_BINS // PORT_COUNT, PORT_BINS)})
    if min(ports) < PORT_FIRST:
        odd['privileged'] = min(ports)
    return odd


@lab.check('negative controls: bad generators are caught, a good one is not')
def controls():
    chance = random.Random(4711)
    start = chance.getrandbits(32)
    times = [start]
    for _ in range(COUNT):
        times.append(times[-1] + chance.randrange(100, 2000))  # microseconds between connections
    congruence = [start]
    for _ in range(COUNT):
        congruence.append((congruence[-1] * 1664525 + 1013904223) & 0xffffffff)
    counter = [(start + 64000 * i) & 0xffffffff for i in range(COUNT)]
    jumps = [start]
    for _ in range(COUNT):
        jumps.append((jumps[-1] + chance.randrange(1 << 24)) & 0xffffffff)
    words = {'counter': counter, 'clock': [t // 4 & 0xffffffff for t in times], 'congruence': congruence, 'random steps': jumps,
             '24 bits': [chance.getrandbits(24) for _ in range(COUNT)], 'no odd ones': [chance.getrandbits(31) << 1 for _ in range(COUNT)],
             'same for two': [value for value in [chance.getrandbits(32) for _ in range(COUNT // 2)] for _ in (0, 1)]}
    ports = {'counter': [PORT_FIRST + (start + i) % PORT_COUNT for i in range(COUNT)],
             'small steps': [PORT_FIRST + (start + 7 * i + chance.randrange(7)) % PORT_COUNT for i in range(COUNT)],
             'few': [32768 + chance.randrange(28232) for _ in range(COUNT)],
             'stride': [PORT_FIRST + (start + 25717 * i) % PORT_COUNT for i in range(COUNT)]}
    missed = [name for name, row in words.items() if not judge_words(row)] + [name for name, row in ports.items() if not judge_ports(row)]
    assert not missed, missed
    for _ in range(3):
        good = judge_words([chance.getrandbits(32) for _ in range(COUNT)]), judge_ports([PORT_FIRST + chance.randrange(PORT_COUNT) for _ in range(COUNT)])
        assert good == ({}, {}), good


# ---- seeing ----

Syn = collections.namedtuple('Syn', 'when is_answer remote remote_port port sequence timestamp')


def syn_of(when, frame):
    """A SYN or SYN-ACK from the engine."""
    kind, = struct.unpack('!H', frame[12:14])
    if kind == 0x0800 and frame[23] == 6:
        at, source, remote = 14 + (frame[14] & 15) * 4, frame[26:30], frame[30:34]
    elif kind == 0x86dd and frame[20] == 6:
        at, source, remote = 54, frame[22:38], frame[38:54]
    else:
        return None
    if not frame[at + 13] & 2 or source not in (socket.inet_aton(ENGINE4), socket.inet_pton(socket.AF_INET6, ENGINE6)):
        return None
    mine, theirs, sequence = struct.unpack('!HHI', frame[at:at + 8])
    options, timestamp = frame[at + 20:at + (frame[at + 12] >> 4) * 4], None
    while options and options[0] != 0:
        if options[0] == 8:
            timestamp, = struct.unpack('!I', options[2:6])
        options = options[1:] if options[0] == 1 else options[options[1]:]
    return Syn(when, bool(frame[at + 13] & 16), remote, theirs, mine, sequence, timestamp)


@contextlib.contextmanager
def capture(interface):
    """Collects what arrives while the block runs; the list is filled at its end."""
    with link.far.entered():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
    raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    raw.bind((interface, 0))
    syns = []
    with raw:
        yield syns
        raw.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, ancillary, _, _ = raw.recvmsg(200, 64)
                seconds, nanoseconds = struct.unpack('=qq', ancillary[0][2][:16])
                syn = syn_of(seconds * 1000 + nanoseconds / 1e6, frame)
                if syn is not None:
                    syns.append(syn)


def first_of_each(syns):
    """Without those that were sent again."""
    seen = {}
    for syn in syns:
        seen.setdefault((syn.remote, syn.port, syn.sequence), syn)
    return list(seen.values())


def the_link():
    global link
    if link is None:
        link = Link(lab, net, 'af_packet', arguments=['-G', NEAR4, '-G', NEAR6])
        for _, network, family in MANY:
            link.far.ip(family, 'route', 'add', 'local', network, 'dev', 'lo')
    return link


def verdict(**series):
    odd = {name: found for name, found in series.items() if found}
    assert not odd, odd


def offsets(syns):
    """What is left of timestamps when the milliseconds of the capture's clock are taken away."""
    assert all(syn.timestamp is not None for syn in syns), 'a SYN without timestamp'
    return [int(syn.timestamp - syn.when) & 0xffffffff for syn in syns]


@lab.check('as a client of many hosts: sequence numbers, ports and timestamps have nothing to do with each other')
def many_hosts():
    the_link()
    for address, _, _ in MANY:
        with capture('near0') as syns:
            link.engine.ask(address, KERNEL_PORT, COUNT, 16, 'SOURCE 1', spread=COUNT)
        syns = first_of_each(syns)
        assert len(syns) == COUNT and not any(syn.is_answer for syn in syns), len(syns)
        verdict(sequence=judge_words([syn.sequence for syn in syns]), ports=judge_ports([syn.port for syn in syns]),
                timestamps=judge_words(offsets(syns)))
    return '%d SYNs of each family' % COUNT


@lab.check('as a client of one host: sequence numbers and timestamps likewise; every port once, its step tells nothing of another host\'s')
def one_host():
    the_link()
    steps = []
    for address, _, _ in MANY:
        with capture('near0') as syns:
            link.engine.ask(address, KERNEL_PORT, COUNT, 16, 'SOURCE 1')
        syns = first_of_each(syns)
        assert len({syn.port for syn in syns}) == COUNT, 'a port came twice'
        verdict(sequence=judge_words([syn.sequence for syn in syns]), timestamps=judge_words(offsets(syns)))
        with capture('near0') as syns:
            link.engine.ask(address, KERNEL_PORT, COUNT, 16, 'SOURCE 1', spread=COUNT // 2)
        last = {}
        for syn in first_of_each(syns):
            if syn.remote in last:
                steps.append((syn.port - last[syn.remote]) % PORT_COUNT + PORT_FIRST)
            last[syn.remote] = syn.port
    z = oddity(collections.Counter((step - PORT_FIRST) * PORT_BINS // PORT_COUNT for step in steps), PORT_BINS)
    assert abs(z) < FAR, 'steps: %.1f' % z


@lab.check('as a server: sequence numbers and timestamps of SYN-ACKs')
def server():
    the_link()
    for _, engine, _ in link.families():
        with capture('near0') as syns:
            link.kernel.ask(engine, PORT, COUNT, 16, 'SOURCE 1')
        syns = first_of_each(syns)
        assert len(syns) == COUNT and all(syn.is_answer for syn in syns), len(syns)
        # the kernel may take a port again whose connection we closed first: the clocks of a tuple go on, as the next test wants
        syns = list({(syn.remote, syn.remote_port): syn for syn in reversed(syns)}.values())
        assert len(syns) > COUNT * 0.9, len(syns)
        verdict(sequence=judge_words([syn.sequence for syn in syns]), timestamps=judge_words(offsets(syns)))


@lab.check('the same tuple again: its clocks went on (RFC 6528: 4 microseconds, RFC 7323: a millisecond)')
def same_tuple():
    the_link()
    for _, engine, _ in link.families():
        with capture('near0') as syns:
            for _ in range(12):
                with link.far.entered(), socket.socket(socket.AF_INET6 if ':' in engine else socket.AF_INET) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                    client.bind(('', 40000))
                    client.connect((engine, PORT))
                time.sleep(0.02)
        syns = first_of_each(syns)
        assert len(syns) == 12
        errors = [] # of most, since a core that is taken for a moment sends later than it has read the clock
        for before, after in zip(syns, syns[1:]):
            passed = after.when - before.when
            sequence, timestamp = (after.sequence - before.sequence) & 0xffffffff, (after.timestamp - before.timestamp) & 0xffffffff
            errors.append((max(abs(sequence / 250 - passed), abs(timestamp - passed)), '%.1f ms: %d, %d' % (passed, sequence, timestamp)))
        errors.sort()
        assert errors[len(errors) // 2][0] < 5, errors


@lab.check('a clean end')
def end():
    the_link().close()


if __name__ == '__main__':
    lab.run()
