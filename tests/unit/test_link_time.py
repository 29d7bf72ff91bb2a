#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Programs that mail goes through are optimised across their files. A linker that is told so in words it does not heed says nothing, and the programs work, only
slower: what it would leave behind is looked for, functions that have become private to the program. And memory comes from the allocator that was chosen:
a library that only such code needs is easily left out. Prints TAP.
"""
import subprocess
import sys


def main():
    programs = sys.argv[1:]
    print('1..%d' % (2 * len(programs)))
    number = 0
    for program in programs:
        symbols = subprocess.run(['nm', program], check=True, capture_output=True, text=True).stdout
        needed = subprocess.run(['readelf', '--dynamic', program], check=True, capture_output=True, text=True).stdout
        for what, is_so in (('is optimised at link time', '.lto_priv.' in symbols), ('has its allocator', 'libjemalloc.so' in needed)):
            number += 1
            print('%s %d - %s %s' % ('ok' if is_so else 'not ok', number, program.rsplit('/', 1)[-1], what))


if __name__ == '__main__':
    main()
