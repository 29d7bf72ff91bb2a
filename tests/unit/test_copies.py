#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What is copied of a message that goes straight through on the engine, from DATA to DATA: what docs/cut-through.md names, and nothing else; and
what two shards say to each other for it: nothing. By angarium-line, whose shards, source and sink share a thread and virtual time."""
import json
import os
import subprocess
import sys

LINE = sys.argv[1]
SIZE = 10240
BUFFER = 2048
# Octets for a message. `small`: its last segment, where it fills less than half of a buffer. `own`: the Received field. `summed`: the world's ports
# leave checksums to us, so that what does not leave as it came is copied beside its header while it is summed: fields, commands, replies, the end.
ALLOWED = {'small': BUFFER / 2, 'own': 512, 'summed': SIZE / 5}


def run(shards):
    # What is left at its end is not what this is about. The first tenth is not counted: long enough for two shards to lease what connections they want.
    environment = dict(os.environ, ASAN_OPTIONS='detect_leaks=0')
    done = subprocess.run([LINE, str(shards), str(1000 * shards), str(SIZE), str(20 * shards)], stdout=subprocess.PIPE, check=True, timeout=100, env=environment)
    return json.loads(done.stdout)


def tell(number, text, problems):
    print('%s %d - %s' % ('not ok' if problems else 'ok', number, text))
    for problem in problems:
        print('# ' + problem)
    return bool(problems)


def main():
    print('1..3')
    one, two = run(1), run(2)
    copied = {name: octets for name, octets in one['copied'].items() if name != 'messages'}
    failed = tell(1, 'octets of a message are copied for no other reason than those that are documented',
                  ['%s: %.1f octets for a message' % (name, octets) for name, octets in copied.items() if octets > ALLOWED.get(name, 0)])
    # A counter that counts nothing would allow everything.
    failed |= tell(2, 'what is copied is counted', [name + ': nothing' for name in ('own', 'summed') if copied[name] <= 0])
    failed |= tell(3, 'two shards deliver what they took without a word to each other',
                   ['%s: %s for a message' % (name, two[name]) for name in ('handovers', 'ring_messages') if two[name] > 0] +
                   (['handed_over: %s' % two['copied']['handed_over']] if two['copied']['handed_over'] > 0 else []))
    sys.exit(failed)


main()
