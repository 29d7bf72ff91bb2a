# SPDX-License-Identifier: Apache-2.0
"""The demo behind script/demo: shows, second by second, what goes in, waits and goes out; then proves that nothing was lost."""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../tests/interop'))
from lab import BUILD, Lab, can_connect, free_port, wait_until  # pylint: disable=wrong-import-position

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
lab = Lab('demo')
MX_PORT = free_port()

CONFIG = '''
hostname: relay.demo.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8]}
retry: {min: 1s, max: 3s}
'''
ZONES = {'test': ['quick MX 10 mx.quick', 'mx.quick A 127.0.0.1', 'moody MX 10 mx.moody', 'mx.moody A 127.0.0.2']}


def last_line(name):
    lines = [line for line in lab.log(name).splitlines() if line.startswith('{')]
    return json.loads(lines[-1]) if lines else {'messages': 0}


def show(second, before, status):
    queue, server = status['queue'], status['server']
    sys.stdout.write('%3d s   in %6d/s   queued %6d (waiting %6d, under way %4d)   out: quick %6d/s   moody %5d/s   deferred so far %6d\n' % (
        second, server['messages_accepted'] - before, queue['messages'], queue['deliveries_waiting'], queue['deliveries_active'],
        last_line('quick.log')['messages'], last_line('moody.log')['messages'], queue['deferrals']))
    sys.stdout.flush()
    return server['messages_accepted']


def main():
    sent, quick, moody = lab.path('sent'), lab.path('quick'), lab.path('moody')
    relay = lab.relay(CONFIG % (lab.nsd(ZONES), MX_PORT))
    sinks = [lab.load('sink', '-j', '-s', 200, '-L', quick, '127.0.0.1:%d' % MX_PORT, log='quick.log'),
             lab.load('sink', '-j', '-s', 200, '-w', 50, '-4', 20, '-L', moody, '127.0.0.2:%d' % MX_PORT, log='moody.log')]
    wait_until(lambda: can_connect('127.0.0.1', MX_PORT) and can_connect('127.0.0.2', MX_PORT), 'the sinks listen', 5)
    print('relay on 127.0.0.1:%d; quick.test takes mail at once; moody.test takes 50 ms and says "come back later" to one in five' % relay.port)
    source = lab.load('source', '-q', '-t', SECONDS, '-s', 10, '-R', 200, '-d', 'quick.test,quick.test,quick.test,moody.test', '-L', sent,
                      '127.0.0.1:%d' % relay.port)
    accepted = 0
    for second in range(1, SECONDS + 1):
        time.sleep(1)
        accepted = show(second, accepted, relay.status())
    source.wait(30)
    print('the source is done; the queue empties ...')
    wait_until(lambda: relay.status()['queue']['messages'] == 0, 'the queue empties', 120)
    relay.stop()
    for sink in sinks:
        lab.stop(sink)
    audit = subprocess.run([os.path.join(BUILD, 'bench/load/angarium-load'), 'audit', '-j', sent, quick, moody], stdout=subprocess.PIPE, check=False, encoding='utf-8')
    result = json.loads(audit.stdout)
    print('ledger: sent %d, delivered %d, lost %d, duplicated %d' % (result['sent'], result['delivered'], result['lost'], result['duplicated']))
    return 0 if result['lost'] + result['duplicated'] + result['damaged'] + result['ghosts'] == 0 and result['sent'] == result['delivered'] else 1


sys.exit(main())
