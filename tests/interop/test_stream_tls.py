#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mail that goes straight through under TLS, on either side and on both: as a stream, as a whole, and before its turn. The ledger compares every octet."""
import json
import os
import subprocess

from lab import BUILD, Lab, can_connect, free_port, tool, wait_until

lab = Lab('stream-tls')
LARGE, SMALL, COUNT = '300k', '2k', 30


def certificate():
    paths = [lab.path('mx.crt'), lab.path('mx.key')]
    subprocess.run([tool('openssl'), 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=mx.load.test', '-days', '2', '-out', paths[0],
                    '-keyout', paths[1]], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.chmod(paths[1], 0o600)
    return paths


def audit(*ledgers):
    return json.loads(subprocess.run([os.path.join(BUILD, 'bench/load/angarium-load'), 'audit', '-j'] + list(ledgers), stdout=subprocess.PIPE,
                                     check=False, encoding='utf-8').stdout)


def play(name, chunking):
    """Clear and STARTTLS from the source, to a clear sink and one with STARTTLS; what became of it."""
    pem, key = certificate()
    ports, sinks, gots = [free_port(), free_port()], [], [lab.path(name + '-clear'), lab.path(name + '-tls')]
    for port, got, tls in zip(ports, gots, ([], ['--starttls', '--certificate', pem, '--key', key])):
        sinks.append(lab.load('sink', '-q', '-L', got, *chunking, *tls, '127.0.0.1:%d' % port, log='sink.log'))
        wait_until(lambda port=port: can_connect('127.0.0.1', port), 'the sink listens')
    relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@", tls: {certificate: "%s", key: "%s"}}]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
routes:
  - {match: clear.test, connections: 2, hosts: [{host: 127.0.0.1, port: %d}]}
  - {match: tls.test, connections: 2, tls: {level: encrypt}, hosts: [{host: 127.0.0.1, port: %d}]}
client: {bdat_ahead: always}
cut_through: {stream_above: 32KiB}
delivery: cut-through
''' % (pem, key, *ports), name=name)
    sent = lab.path(name + '-sent')
    for tls in ([], ['--starttls']):
        for size in (LARGE, SMALL):
            lab.load('source', '-q', '-s', 6, '-m', COUNT, '-l', size, '-d', 'clear.test,tls.test', '-L', sent, *tls, *chunking,
                     '127.0.0.1:%d' % relay.port, log='source.log').wait(60)
    wait_until(lambda: relay.status()['queue']['messages'] == 0, 'the queue empties')
    status = relay.status()
    assert relay.stop() == 0
    for sink in sinks:
        lab.stop(sink)
    result = audit(sent, *gots)
    wanted = {'sent': 4 * COUNT, 'acknowledged': 4 * COUNT, 'delivered': 4 * COUNT, 'lost': 0, 'duplicated': 0, 'damaged': 0, 'ghosts': 0}
    assert {each: result[each] for each in wanted} == wanted, result
    assert status['client']['tls_handshakes'] > 0 and status['ways']['stream'] > COUNT, status['ways']
    deliveries = relay.records('delivery')
    assert status['client']['followed'] > 0 and status['client']['shied'] == 0, status['client']
    assert bool(chunking) == any(each.get('bdat_ahead') and each.get('tls') for each in deliveries)
    return '%d streamed, %d followed, %d ahead of replies, %d of %d deliveries under TLS' % (
        status['ways']['stream'], status['client']['followed'], status['client']['bdat_ahead'], sum('tls' in each for each in deliveries), len(deliveries))


@lab.check('by lines: clear and TLS on either side, streams and held mail, whole and once')
def lines():
    return play('lines', [])


@lab.check('the same in chunks, with bodies ahead of replies')
def chunks():
    return play('chunks', ['--chunking'])


if __name__ == '__main__':
    lab.run()
