#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One connection to a sink 100 ms away, there and back, in the world of bench/line: a message in each round trip, and with bodies ahead of replies
eight. Argument: angarium-line."""
import json
import subprocess
import sys

ROWS = (("a message in each round trip (RFC 2920)", ["-D", "100"], 9), ("bodies ahead of replies: eight", ["-D", "100", "-b"], 72))


def main():
    print("1..%d" % len(ROWS))
    failed = 0
    for number, (name, more, least) in enumerate(ROWS, 1):
        done = subprocess.run([sys.argv[1]] + more + ["1", "200", "1024", "20"], stdout=subprocess.PIPE, check=False, encoding="utf-8", timeout=60)
        rate = json.loads(done.stdout)["rate"] if done.returncode == 0 else 0
        failed += rate < least
        print("%s %d - %s: %.2f messages/s, at least %d" % ("ok" if rate >= least else "not ok", number, name, rate, least))
    return failed


if __name__ == "__main__":
    sys.exit(main())
