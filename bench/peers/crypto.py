#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""crypto: what TLS and DKIM cost the relay, beside what `openssl speed` makes of the same operations on the same core in the same run.

Kernel sockets over loopback, relay on core 0, source and sink on core 1, STARTTLS on both sides of the relay, TLS 1.3, cut-through, SESSIONS
connections. All figures are per second of processor time that the relay had, with the kernel's part of TCP and with SMTP itself, since the load is
the slower end of most of them (a client verifies where a server signs). Peers: "openssl" is a core that does the library's primitives and
nothing else, as many as the work needs:

  tls.handshake.full.ecdsa, .rsa   connections a second, each with one message of 1 KB; a server's handshake is a key pair and an agreement (X25519)
                                   and a signature (P-256; RSA of 2,048 bits)
  tls.handshake.both               the same with a connection of its own out, too: a client's handshake is a key pair, an agreement and a verification (P-256)
  tls.handshake.resumed            the first by ticket: a key pair and an agreement. Peer "none": the same load in the clear
  tls.bodies                       Gbit/s of bodies of 100 KB that came in and went out; AES-128-GCM once for each way
  dkim.rsa, dkim.ed25519           signed messages of 10 KB a second; one signature. Peer "none": the same load unsigned

With --docs the table in docs/benchmarks.md is made anew.
"""
import os
import re
import statistics
import subprocess
import sys

from ground import ROUNDS, SECONDS, SESSIONS, circumstances, load_both, on_core, page_write, pin, process_seconds, row, rows_print, total_of
from lab import Lab, free_port, tool

lab = Lab('bench-crypto')
RELAY = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"%s}]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
delivery: auto
client: {connections_per_site: 100, messages_per_connection: %d}
routes: [{match: "*", hosts: [{host: 127.0.0.1, port: %d}], tls: {level: %s}}]
%s
'''
KEYS = {'ecdsa': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'], 'rsa': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
        'ed25519': ['-algorithm', 'ED25519']}
SPEEDS = {'rsa': r'rsa 2048 bits\s+\S+\s+\S+\s+([\d.]+)', 'ecdsa': r'ecdsa \(nistp256\)\s+\S+\s+\S+\s+([\d.]+)',
          'verify': r'ecdsa \(nistp256\)\s+\S+\s+\S+\s+\S+\s+([\d.]+)', 'x25519': r'ecdh \(X25519\)\s+\S+\s+([\d.]+)',
          'ed25519': r'EdDSA \(Ed25519\)\s+\S+\s+\S+\s+([\d.]+)'}


def openssl(*arguments):
    return subprocess.run(on_core(0, [tool('openssl')] + list(arguments)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120,
                          encoding='utf-8').stdout


def speeds():
    """Operations a second of one core: signatures by kind, agreements on a key, octets of AES-128-GCM."""
    text = openssl('speed', '-seconds', '1', 'rsa2048', 'ecdsap256', 'ecdhx25519', 'ed25519')
    found = {name: float(re.search(pattern, text).group(1)) for name, pattern in SPEEDS.items()}
    text = openssl('speed', '-seconds', '1', '-bytes', '16384', '-evp', 'aes-128-gcm')
    found['aes'] = float(re.search(r'AES-128-GCM\s+([\d.]+)k', text, re.IGNORECASE).group(1)) * 1000
    return found


def make_key(kind):
    key = lab.path(kind + '.key')
    if not os.path.exists(key):
        openssl('genpkey', *KEYS[kind], '-out', key)
        os.chmod(key, 0o600)
    return key


def make_certificate(kind):
    key, certificate = make_key(kind), lab.path(kind + '.pem')
    if not os.path.exists(certificate):
        openssl('req', '-x509', '-new', '-key', key, '-subj', '/CN=relay.test', '-days', '2', '-out', certificate)
    return certificate, key


def through(arguments, certificate=None, more='', messages=100):
    """One load through a relay of its own: figures of the source and of the sink, per second that the relay had of its core."""
    sink = free_port()
    tls = ', tls: {certificate: "%s", key: "%s"}' % make_certificate(certificate) if certificate else ''
    relay = lab.relay(RELAY % (tls, messages, sink, 'encrypt' if certificate else 'none', more), 'relay')
    pin(relay.child.pid)
    try:
        busy = process_seconds(relay.child.pid)
        words = list(arguments) + (['--starttls'] if certificate else [])
        lines = load_both(lab, '127.0.0.1:%d' % relay.port, '127.0.0.1:%d' % sink, words)
        busy = process_seconds(relay.child.pid) - busy
        status = relay.status()
    finally:
        relay.stop()
        os.truncate(relay.records_file, 0)
    source, arrived = total_of(lines, 'source'), total_of(lines, 'sink')
    handshakes = source['latency_us'].get('tls', {'count': 0})['count']
    assert arrived['recipients'] >= source['recipients'] > 0, (source, arrived)
    return {'messages': arrived['messages'] / busy, 'octets': arrived['octets'] / busy, 'wall': arrived['messages'] / source['seconds'],
            'out': status['client']['tls_handshakes'] / arrived['messages'], 'share': busy / source['seconds'], 'resumed': source['resumed'], 'full': handshakes - source['resumed'], 'signed': status['server']['dkim.messages'] / arrived['messages']}


DKIM = 'dkim: [{domain: load.example, selector: s, key: "%s"}]'
SHORT = ['-l', 1024, '-c', 1]


def works():
    """Name, and what makes its figures."""
    return {
        'full.ecdsa': lambda: through(SHORT, 'ecdsa'),
        'full.rsa': lambda: through(SHORT, 'rsa'),
        'both': lambda: through(SHORT, 'ecdsa', messages=1),
        'resumed': lambda: through(SHORT + ['--resume'], 'ecdsa'),
        'clear': lambda: through(SHORT),
        'bodies': lambda: through(['-l', 102400], 'ecdsa'),
        'rsa': lambda: through(['-l', 10240], None, DKIM % make_key('rsa')),
        'ed25519': lambda: through(['-l', 10240], None, DKIM % make_key('ed25519')),
        'unsigned': lambda: through(['-l', 10240]),
    }


def measure():
    """Medians by work and figure, and of the speeds, each round with its own."""
    figures, speed = {}, []
    for _ in range(ROUNDS):
        speed.append(speeds())
        for name, work in works().items():
            figures.setdefault(name, []).append(work())
    check(figures)
    return ({name: {key: statistics.median(each[key] for each in runs) for key in runs[0]} for name, runs in figures.items()},
            {key: statistics.median(each[key] for each in speed) for key in speed[0]})


def check(figures):
    """A row says what was really done: all handshakes were resumed but those of the connections that began before there was a ticket, or none was;
    all messages were signed, or none."""
    for name, runs in figures.items():
        for each in runs:
            assert each['full'] <= 2 * SESSIONS if name == 'resumed' else each['resumed'] == 0, (name, each)
            assert each['signed'] > 0.999 if name in ('rsa', 'ed25519') else each['signed'] == 0, (name, each)


def rows(median, speed, where):
    agreement = 2 / speed['x25519'] # a key pair costs about as much as the agreement
    parts = 'openssl speed: X25519 %.0f, P-256 %.0f (verified %.0f), RSA-2048 %.0f, Ed25519 %.0f signatures a second, AES-128-GCM %.1f Gbit/s' % (
        speed['x25519'], speed['ecdsa'], speed['verify'], speed['rsa'], speed['ed25519'], speed['aes'] * 8 / 1e9)
    ideal = {'full.ecdsa': 1 / (agreement + 1 / speed['ecdsa']), 'both': 1 / (2 * agreement + 1 / speed['ecdsa'] + 1 / speed['verify']), 'full.rsa': 1 / (agreement + 1 / speed['rsa']), 'resumed': 1 / agreement,
             'rsa': speed['rsa'], 'ed25519': speed['ed25519']}

    def each(bench, name, unit, what, peer, value):
        figure = median[name]
        amount = figure['octets'] * 8 / 1e9 if unit == 'Gbit/s' else figure['messages']
        return row(bench, amount, unit, '%s; %s; %s, %d connections, %.3f handshakes out for each message; per second of processor time of the relay, which had '
                   '%.2f a second at %.0f msg/s' % (where, parts, what, SESSIONS, figure['out'], min(figure['share'], 1), figure['wall']), peer, value)
    for name in ('full.ecdsa', 'full.rsa', 'both', 'resumed'):
        yield each('tls.handshake.' + name, name, 'connections/s', 'STARTTLS, one message of 1 KB for each connection in', 'openssl', ideal[name])
        yield each('tls.handshake.' + name, name, 'connections/s', 'STARTTLS, one message of 1 KB for each connection in', 'none', median['clear']['messages'])
    yield each('tls.bodies', 'bodies', 'Gbit/s', 'STARTTLS on both sides, messages of 100 KB, each way', 'openssl', speed['aes'] / 2 * 8 / 1e9)
    for name in ('rsa', 'ed25519'):
        yield each('dkim.' + name, name, 'msg/s', 'messages of 10 KB, each signed once', 'openssl', ideal[name])
        yield each('dkim.' + name, name, 'msg/s', 'messages of 10 KB, each signed once', 'none', median['unsigned']['messages'])


TITLES = {'tls.handshake.full.ecdsa': 'full handshakes, certificate of P-256', 'tls.handshake.full.rsa': 'full handshakes, certificate of RSA-2048',
          'tls.handshake.both': 'full handshakes of P-256 in and out, a pair for each message', 'tls.handshake.resumed': 'resumed handshakes', 'tls.bodies': 'bodies of 100 KB, TLS in and out, Gbit/s each way',
          'dkim.rsa': 'messages of 10 KB signed by RSA-2048', 'dkim.ed25519': 'messages of 10 KB signed by Ed25519'}


def number(value):
    return '{:,.0f}'.format(value) if value >= 100 else '%.1f' % value


def table(made, where):
    by_peer = {(each['bench'], each['peer']): each for each in made}
    lines = [where + '.', '', '| per second of processor time | Angarium | `openssl speed`, the primitives alone | the same load without |', '|---|---|---|---|']
    for bench, title in TITLES.items():
        mine, without = by_peer[(bench, 'openssl')], by_peer.get((bench, 'none'))
        lines.append('| %s, `%s` | %s | %s (%.2f) | %s |' % (title, bench, number(mine['value']), number(mine['peer_value']), mine['ratio'],
                                                        number(without['peer_value']) if without else ''))
    return '\n'.join(lines)


def main():
    where = circumstances(ROUNDS)
    made = list(rows(*measure(), where))
    rows_print(made)
    if '--docs' in sys.argv:
        page_write('crypto', table(made, where))


if __name__ == '__main__':
    main()
