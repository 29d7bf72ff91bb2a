#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The relay's resolver against nsd and unbound on loopback, and against a resolver that only watches how it is asked."""
import os
import socket
import subprocess
import threading

from lab import BUILD, Lab, can_connect, free_port, tool, wait_until

lab = Lab('dns')

def long_name(number):
    """Names that compression cannot shorten: sixteen of them do not fit 1,232 octets."""
    return '.'.join([chr(97 + number) * 60] * 2)


ZONES = {'test': [
    'two MX 20 mx2', 'two MX 10 mx1', 'mx1 A 192.0.2.1', 'mx1 AAAA 2001:db8::1', 'mx2 A 192.0.2.2',
    'implicit A 192.0.2.3', 'null MX 0 .', 'empty TXT "x"', 'alias CNAME two', 'target MX 5 talias', 'talias CNAME mx2',
    'nohost MX 5 missing', 'loop MX 5 loop', 'loop A 127.0.0.1', 'xn--bcher-kva MX 5 mx1', '*.wild MX 5 mx2',
    'c0 CNAME c1', 'c1 CNAME c2', 'c2 CNAME c3', 'c3 CNAME two', 'cl1 CNAME cl2', 'cl2 CNAME cl1',
] + ['big MX %d %s' % (i + 1, long_name(i)) for i in range(16)] + ['%s A 192.0.2.%d' % (long_name(i), 10 + i) for i in range(16)]}
TWO = '10:mx1.test=2001:db8::1,192.0.2.1 20:mx2.test=192.0.2.2'
EXPECTED = {
    'two.test': 'ok ' + TWO,
    'implicit.test': 'ok 0:implicit.test=192.0.2.3',
    'null.test': 'null',
    'empty.test': 'not_found',
    'missing.test': 'not_found',
    'alias.test': 'ok ' + TWO,
    'target.test': 'ok 5:talias.test=192.0.2.2',
    'nohost.test': 'temporary',
    'loop.test': 'all_denied',
    'b\u00fccher.test': 'ok 5:mx1.test=2001:db8::1,192.0.2.1',
    'any.wild.test': 'ok 5:mx2.test=192.0.2.2',
    'c0.test': 'ok ' + TWO,
    'cl1.test': 'temporary',
    'big.test': 'ok ' + ' '.join('%d:%s.test=192.0.2.%d' % (i + 1, long_name(i), 10 + i) for i in range(16)),
}

nsd_port = unbound_port = None
unbound = None


def ask(ports, names, *more):
    """(lines by name, counters) of one run."""
    command = [os.path.join(BUILD, 'tests/interop/dns_lookup')]
    for port in ports:
        command += ['-r', '127.0.0.1:%d' % port]
    done = subprocess.run(command + list(more) + list(names), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False,
                          encoding='utf-8')
    assert done.returncode == 0, 'status %d: %s' % (done.returncode, done.stderr)
    *lines, counters = done.stdout.splitlines()
    return lines, dict((k, int(v)) for k, v in (word.split('=') for word in counters[2:].split()))


def compare(ports):
    lines, counters = ask(ports, EXPECTED)
    for (name, expected), line in zip(EXPECTED.items(), lines):
        got = line.split(' ', 1)[1]
        assert got == expected, '%s: %s instead of %s' % (name, got, expected)
    return counters


def start_unbound():
    global unbound, unbound_port
    unbound_port = free_port()
    config = lab.write('unbound.conf', '''
server:
  interface: 127.0.0.1@%d
  username: ""
  chroot: ""
  directory: "%s"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "test." nodefault
  max-udp-size: 1232
  edns-buffer-size: 1232
remote-control:
  control-enable: no
stub-zone:
  name: "test"
  stub-addr: 127.0.0.1@%d
''' % (unbound_port, lab.folder, nsd_port))
    unbound = lab.start([tool('unbound'), '-d', '-c', config])
    wait_until(lambda: can_connect('127.0.0.1', unbound_port), 'unbound answers:\n' + lab.log('unbound.log'))


@lab.check('every verdict from nsd itself; answers over 1,232 octets come over TCP')
def by_nsd():
    global nsd_port
    tool('nsd')
    nsd_port = lab.nsd(ZONES)
    counters = compare([nsd_port])
    assert counters['tcp'] == 1 and counters['truncated'] == 1 and counters['wrong'] == 0, counters
    return str(counters)


@lab.check('every verdict through unbound')
def by_unbound():
    tool('nsd')
    start_unbound()
    counters = compare([unbound_port])
    assert counters['tcp'] == 1 and counters['wrong'] == 0, counters
    return str(counters)


@lab.check('a resolver whose port is closed, and one that is silent: the next one answers')
def failover():
    tool('unbound')
    closed = free_port()
    lines, counters = ask([closed, unbound_port], ['two.test'])
    assert lines == ['two.test ok ' + TWO], lines
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(('127.0.0.1', 0))
        lines, counters = ask([silent.getsockname()[1], unbound_port], ['two.test'], '-t', '300')
    assert lines == ['two.test ok ' + TWO], lines
    assert counters['timeouts'] > 0, counters


@lab.check('a zone that unbound cannot reach is temporary, never missing')
def servfail():
    tool('unbound')
    lines, counters = ask([unbound_port], ['nowhere.example'], '-t', '300')
    assert lines == ['nowhere.example temporary'], lines
    return str(counters)


@lab.check('1,000 names at once through unbound')
def many():
    tool('unbound')
    lines, counters = ask([unbound_port], ['wild.test'], '-c', '1000')
    assert len(lines) == 1001 and all(line.endswith('ok 5:mx2.test=192.0.2.2') for line in lines[1:]), lines[:3]
    # One MX question for each name, two address questions in all.
    assert counters['udp'] - counters['timeouts'] <= 1001 + 4, counters
    return str(counters)


class Watcher(threading.Thread):
    """Answers NXDOMAIN to everything and keeps source port, ID and letter case."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        self.seen = []

    def run(self):
        while True:
            packet, peer = self.socket.recvfrom(4096)
            self.seen.append((peer[1], packet[0] << 8 | packet[1], packet[12:-15]))
            self.socket.sendto(packet[:2] + b'\x81\x83\0\1\0\0\0\0\0\0' + packet[12:-11], peer)


def chi_square(values, cells, limit):
    counts = [0] * cells
    for value in values:
        counts[value * cells // limit] += 1
    expected = len(values) / cells
    return sum((count - expected) ** 2 / expected for count in counts)


@lab.check('source ports, IDs and letter case over 5,000 questions are spread evenly')
def entropy():
    watcher = Watcher()
    watcher.start()
    lines, counters = ask([watcher.port], ['entropy.example'], '-c', '5000')
    assert all(line.endswith('not_found') for line in lines), lines[:3]
    ports = [port for port, _, _ in watcher.seen]
    assert len(ports) >= 5000 and max(ports) - min(ports) >= 32768, (min(ports), max(ports))
    # 63 degrees of freedom: beyond 130 has a chance of 1e-6. Ports: within the range that occurs.
    low, high = min(ports), max(ports) + 1
    by_port = chi_square([port - low for port in ports], 64, high - low)
    by_id = chi_square([number for _, number, _ in watcher.seen], 64, 65536)
    assert by_port < 130 and by_id < 130, (by_port, by_id)
    letters = b''.join(name for _, _, name in watcher.seen)
    upper, lower = sum(65 <= c <= 90 for c in letters), sum(97 <= c <= 122 for c in letters)
    assert 0.49 < upper / (upper + lower) < 0.51, (upper, lower)
    return 'ports %d to %d, %d different' % (low, high - 1, len(set(ports)))


if __name__ == '__main__':
    lab.run()
