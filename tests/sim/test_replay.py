#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A seed is a run: the same trace, octet for octet, every time; of a good run and of one that fails. Argument: sim_relay."""
import subprocess
import sys

SIM = sys.argv[1]


def run(seed, *options):
    done = subprocess.run([SIM, "--seed", str(seed), "--trace", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.returncode, done.stdout


def difference(first, second):
    for number, (one, other) in enumerate(zip(first.splitlines(), second.splitlines()), 1):
        if one != other:
            return "line %d: %r, then %r" % (number, one, other)
    return "one trace ends before the other"


def failing_seed():
    for seed in range(1, 101):
        if run(seed, "--false-sync")[0] != 0:
            return seed
    return None


def main():
    rows = [("%d shards" % shards, 7, ["--shards", str(shards)], True) for shards in (1, 2, 4)]
    rows.append(("a seed that fails, fails again alike", failing_seed(), ["--false-sync"], False))
    print("1..%d" % (len(rows) + 1))
    failed = 0
    for number, (name, seed, options, is_good) in enumerate(rows, 1):
        first, second = run(seed, *options), run(seed, *options)
        is_ok = first == second and (first[0] == 0) == is_good and len(first[1]) > 1000
        print("%sok %d - %s, seed %s" % ("" if is_ok else "not ", number, name, seed))
        if not is_ok:
            print("# status %d and %d; %s" % (first[0], second[0], difference(first[1], second[1])))
            failed += 1
    is_ok = run(7, "--shards", "1")[1] != run(8, "--shards", "1")[1]
    print("%sok %d - another seed is another run" % ("" if is_ok else "not ", len(rows) + 1))
    return 1 if failed or not is_ok else 0


if __name__ == "__main__":
    sys.exit(main())
