#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two cores pass mail on without a lock between them: strace sees no futex call by a thread of a shard while mail goes through, no delivery
goes over the other core's connections, and no message's octets are copied for it."""
import os
import re
import subprocess
import time

from lab import Lab, Skip, free_port, shards_of, tool, wait_until

lab = Lab('lock-free')
SECONDS = int(os.environ.get('ANGARIUM_TEST_LONG', '0')) * 8 + 2
CONFIG = '''
hostname: relay.test
cores: 2
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
dns: {resolvers: ["127.0.0.1:9"]}
destinations: {allow: [127.0.0.0/8]}
delivery: auto
client: {connections_per_site: 100, connections_at_first: 100}
routes: [{match: "*", hosts: [{host: 127.0.0.1, port: %d}]}]
'''


def watched(tasks, calls):
    """What strace tells of these calls of these threads, a line each."""
    output, log = lab.path('trace'), lab.path('strace.log')
    arguments = [tool('strace'), '-o', output, '-e', 'trace=' + calls]
    for task in tasks:
        arguments += ['-p', str(task)]
    with open(log, 'w', encoding='utf-8') as file:
        child = subprocess.Popen(arguments, stdout=file, stderr=file)
        try:
            wait_until(lambda: child.poll() is not None or lab.log('strace.log').count('attached') >= len(tasks), 'strace looks on')
            if child.poll() is not None:
                raise Skip('strace may not look on: ' + lab.log('strace.log').strip())
            time.sleep(SECONDS)
        finally:
            if child.poll() is None:
                child.terminate()
            child.wait(60)
    with open(output, encoding='utf-8', errors='replace') as file:
        return [line for line in file if re.match(r'(\d+ +)?(futex|epoll_wait|epoll_pwait2|epoll_pwait)\(', line)]


@lab.check('no thread of a shard asks for a lock while mail goes through, and each delivers what it took')
def lock_free():
    sink = free_port()
    relay = lab.relay(CONFIG % sink)
    wait_until(lambda: len(shards_of(relay.child.pid)[0]) == 2, 'both shards run')
    tasks = shards_of(relay.child.pid)[0]
    load = lab.load('both', '-j', '-s', 20, '-t', 600, '-l', 2048, '-d', 'sink.test', '127.0.0.1:%d' % relay.port, '127.0.0.1:%d' % sink)
    wait_until(lambda: all(core['messages'] > 100 for core in relay.status()['per_core']), 'both cores pass mail on')
    before = relay.status()
    lines = watched(tasks, 'futex,epoll_wait,epoll_pwait,epoll_pwait2')
    after = relay.status()
    load.terminate()
    load.wait(60)
    passed = [now['messages'] - then['messages'] for then, now in zip(before['per_core'], after['per_core'])]
    assert min(passed) > 50, passed
    # Whoever sees no epoll_wait() would see no futex() either.
    assert len([line for line in lines if 'epoll' in line]) > 100, lines[:10]
    locks = [line for line in lines if 'futex' in line]
    assert not locks, (len(locks), locks[:10])
    assert after['shards']['handovers'] == 0 and after['copied']['handed_over'] == 0, (after['shards'], after['copied'])
    # How long it held them up is known of nearly all, and of no more than there were.
    for kind in ('body_out', 'ready_out', 'reply_out'):
        timed, most = (sum(status['latency_ns'][kind]['counts']) for status in (after, relay.status()))
        messages = after['server']['messages_accepted']
        assert 0.9 * messages < timed and most <= relay.status()['server']['messages_accepted'] + 40, (kind, timed, most, messages)
    assert re.search(r'^body out +p50 [0-9.]+ us, p99 [0-9.]+ us', relay.cli('status'), re.M), relay.cli('status')
    relay.stop()
    return '%s messages in %d s, %d waits' % (' + '.join(map(str, passed)), SECONDS, len(lines))


lab.run()
