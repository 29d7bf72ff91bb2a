#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The relay is killed (SIGKILL) at random moments under load, again and again; a ledger on both sides says what became of every message.

Every start has another number of cores, and passes mail on as a whole, while it comes, or ahead of its replies, or (one in six) stores it first; many
are killed while they still look for the mail of the one before. Proven: nothing acknowledged is lost or damaged, bodies being compared octet for octet,
and nothing refused is delivered. Duplicates are allowed after a kill and are counted; that none falls outside the documented window is the simulator's to
prove, which knows when a reply was read. The seed of the moments is printed; ANGARIUM_KILLS and ANGARIUM_SEED override count and seed.
"""
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop"))
from lab import BUILD, LONG, Lab, can_connect, free_port, wait_until

lab = Lab('kill')
MX_PORT = free_port()
KILLS = int(os.environ.get('ANGARIUM_KILLS', '600' if LONG else '60'))
WAYS = [
    'delivery: auto\n',
    'delivery: cut-through\n',
    'delivery: auto\ncut_through: {stream_above: 4KiB, keep: 64KiB}\n',
    'delivery: cut-through\ncut_through: {stream_above: 4KiB, keep: 64KiB}\n',
    'delivery: cut-through\nclient: {bdat_ahead: always, connections_per_site: 3}\n',
    'delivery: spool\n',
]
SEED = int(os.environ.get('ANGARIUM_SEED', str(int(time.time()))))

ZONES = {'test': ['one MX 10 mx.one', 'mx.one A 127.0.0.1', 'two MX 10 mx.two', 'mx.two A 127.0.0.2']}
CONFIG = '''
hostname: relay.test
cores: 2
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8]}
retry: {min: 1s, max: 3s}
'''


def audit(*paths):
    return subprocess.run([os.path.join(BUILD, 'bench/load/angarium-load'), 'audit'] + list(paths), stdout=subprocess.PIPE, check=False,
                          encoding='utf-8')


@lab.check('%d SIGKILLs under load (seed %d): nothing acknowledged is lost, nothing refused is delivered' % (KILLS, SEED))
def kills():
    chance = random.Random(SEED)
    relay = lab.relay(CONFIG % (lab.nsd(ZONES), MX_PORT) + WAYS[0], spool='size: 512MiB, segment: 2MiB, reserve: 8MiB')
    sent, first, second = lab.path('sent'), lab.path('first'), lab.path('second')
    sinks = [lab.load('sink', '-q', '-s', '400', '--chunking', '-L', first, '127.0.0.1:%d' % MX_PORT, log='first.log'),
             lab.load('sink', '-q', '-s', '400', '-w', '20', '-4', '5', '-5', '0', '-L', second, '127.0.0.2:%d' % MX_PORT, log='second.log')]
    wait_until(lambda: can_connect('127.0.0.1', MX_PORT) and can_connect('127.0.0.2', MX_PORT), 'the sinks listen')
    with open(relay.config, encoding='utf-8') as file:
        relay_config = file.read()
    source = lab.load('source', '-q', '-p', '-t', '100000', '-s', '20', '-R', '1500', '-l', '6000', '-d', 'one.test,two.test', '-L', sent,
                      '127.0.0.1:%d' % relay.port, log='source.log')
    for number in range(KILLS):
        time.sleep(chance.uniform(0.02, 0.25))
        relay.kill()
        text = re.sub('cores: [0-9]+', 'cores: %d' % chance.randint(1, 3), relay_config)
        lab.write('relay.yaml', text.replace(WAYS[0], WAYS[(number + 1) % len(WAYS)]))
        relay.start()
    time.sleep(1)
    lab.stop(source)
    wait_until(relay.is_recovered, 'the last start has found its mail')
    wait_until(lambda: relay.status()['queue']['messages'] == 0, 'the queue empties', 120)
    assert relay.status()['shards']['invariant_violations'] == 0
    relay.stop()
    for sink in sinks:
        lab.stop(sink)
    result = audit(sent, first, second)
    assert result.returncode == 0, result.stdout
    deliveries = relay.records('delivery')
    seen = [sum(row.get('way') == 'stream' for row in deliveries)] + [sum(row.get(how, False) for row in deliveries) for how in ('next_ahead', 'bdat_ahead')]
    assert KILLS < 4 * len(WAYS) or min(seen) > 0, seen
    return '%s; %d while they came, %d behind another, %d ahead of their replies' % (result.stdout.strip(), *seen)


@lab.check('the ledger can see loss: an acknowledged message that never arrived is reported')
def negative_control():
    lab.write('control-sent', 'S 1-1\nA 1-1 250\nS 1-2\nA 1-2 250\nS 1-3\nA 1-3 550\nS 1-4\nA 1-4 250\n')
    lab.write('control-got', 'R 1-1 u ok\nR 1-3 u ok\nR 1-4 u bad\n')
    result = audit(lab.path('control-sent'), lab.path('control-got'))
    assert result.returncode == 1 and 'lost 1,' in result.stdout and 'ghosts 1 ' in result.stdout and 'damaged 1,' in result.stdout, result.stdout


if __name__ == '__main__':
    lab.run()
