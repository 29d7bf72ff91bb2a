#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`angarium route` and `angarium dns lookup` against a running relay and a real name server (nsd)."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import BUILD, Lab, can_connect, free_port, wait_until  # pylint: disable=wrong-import-position

lab = Lab('route')


def angarium(*arguments, wanted=0):
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', lab.path('control'), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding='utf-8', timeout=60, check=False)
    assert done.returncode == wanted, (arguments, done.stdout)
    return done.stdout


def asked(*arguments):
    return json.loads(angarium(*arguments, '--json'))


def start():
    resolver = lab.nsd({'far.test': ['@ MX 10 mx1', '@ MX 20 mx2', '@ MX 30 gone', 'mx1 A 192.0.2.1', 'mx2 A 192.0.2.2', 'mx2 AAAA 2001:db8::2'],
                        'none.test': ['@ MX 0 .'], 'here.test': ['@ MX 10 mx', 'mx A 127.0.0.1'], 'hub.test': ['smart A 192.0.2.9']})
    smtp = free_port()
    config = lab.write('relay.yaml', '''
hostname: relay.test
cores: 2
listen: [{address: "127.0.0.1:%d"}]
spool: {directory: "%s", size: 2GiB}
control: {socket: "%s"}
dns: {resolvers: ["127.0.0.1:%d"]}
sites: [{match: far.test, connections: 3}]
routes:
  - {match: "*.smart.test", via: hosts, hosts: [{host: smart.hub.test, port: 587}], tls: {level: encrypt}}
  - {match: waste.test, via: discard}
  - {match: no.test, via: refuse, text: not from here}
''' % (smtp, lab.path('spool'), lab.path('control'), resolver))
    lab.start([os.path.join(BUILD, 'control/angariumd'), '-c', config], 'relay.log')
    wait_until(lambda: can_connect('127.0.0.1', smtp), 'the relay')


@lab.check('a domain by its mail exchangers: asked once, then from the cache')
def by_mx():
    first, again = asked('route', 'someone@Far.Test'), asked('route', 'far.test')
    assert first['domain'] == 'far.test' and first['address'] == 'someone@Far.Test' and first['route']['match'] == '*', first
    assert not first['from_cache'] and again['from_cache'], (first, again)
    hosts = [(host['name'], host['preference'], sorted(host['addresses'])) for host in first['hosts']]
    assert hosts == [('mx1.far.test', 10, ['192.0.2.1']), ('mx2.far.test', 20, ['192.0.2.2', '2001:db8::2'])], hosts
    assert first['without_address'] == ['gone.far.test'] and first['connections'] == 3, first
    assert 0 < again['valid_s'] <= 60, again
    text = angarium('route', 'someone@far.test')
    assert 'mx1.far.test: 192.0.2.1 port 25' in text and 'from the cache' in text and 'gone.far.test: it has no address now' in text, text


@lab.check('a route of our own wins over DNS, also one that takes no mail')
def by_route():
    answer = asked('route', 'a@b.smart.test')
    assert answer['route'] == {'match': '*.smart.test', 'via': 'hosts', 'tls': 'encrypt', 'auth': False, 'served': False}, answer
    assert [(host['name'], host['port'], host['addresses']) for host in answer['hosts']] == [('smart.hub.test', 587, ['192.0.2.9'])], answer
    assert asked('route', 'waste.test')['route']['via'] == 'discard'
    text = angarium('route', 'x@no.test')
    assert 'via refuse' in text and 'not from here' in text and 'host' not in text, text


@lab.check('domains that take no mail say so, and why')
def no_mail():
    assert asked('route', 'a@none.test')['verdict'] == 'takes no mail'
    assert asked('route', 'a@here.test')['verdict'] == 'forbidden'
    assert asked('route', 'a@nothing.far.test')['verdict'] == 'does not exist'
    assert 'not now' in angarium('route', 'a@elsewhere.example')


@lab.check('names as the relay resolves them, whatever the routes say')
def dns_lookup():
    assert asked('dns', 'lookup', 'waste.test')['verdict'] != 'ok'
    assert [host['name'] for host in asked('dns', 'lookup', 'FAR.test')['hosts']] == ['mx1.far.test', 'mx2.far.test']
    host = asked('dns', 'lookup', 'mx2.far.test', '--host')['hosts']
    assert len(host) == 1 and sorted(host[0]['addresses']) == ['192.0.2.2', '2001:db8::2'], host
    assert 'route' not in asked('dns', 'lookup', 'far.test')


@lab.check('what is no address and no name is refused with a reason')
def refused():
    for word in ('a@', '@', 'a@b@', 'a b@far.test', 'a@[192.0.2.1]', 'x' * 64 + '.test', 'a@' + 'x.' * 130, '..'):
        assert 'neither an address nor a domain' in angarium('route', word, wanted=1), word
    assert 'not a domain name' in angarium('dns', 'lookup', 'a@far.test', wanted=1)
    angarium('route', wanted=2)
    angarium('dns', 'lookup', wanted=2)


start()
sys.exit(lab.run())
