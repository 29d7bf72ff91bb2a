#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Programs that mail goes through are optimised across their files, and with --profile by a profile (script/optimised). A linker that is told so in words it
does not heed says nothing, nor does a compiler that finds no profile, and the programs work, only slower. So what they leave behind is looked for:
functions that have become private to the program; a busy one that has moved ahead of the program's first. And memory comes from the allocator that was
chosen: a library that only such code needs is easily left out. Prints TAP.
"""
import subprocess
import sys


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def signs(program, has_profile):
    """What is looked for, and whether it is there."""
    symbols = [line.split()[-1] for line in output_of('nm', '--numeric-sort', program).splitlines()]
    yield 'is optimised at link time', any('.lto_priv.' in symbol for symbol in symbols)
    yield 'has its allocator', 'libjemalloc.so' in output_of('readelf', '--dynamic', program)
    if has_profile:
        # The linker puts first what is hot; _start is the first of all that is not.
        yield 'is optimised by a profile', 'tcp_input' in symbols and symbols.index('tcp_input') < symbols.index('_start')


def main():
    has_profile = sys.argv[1] == '--profile'
    programs = sys.argv[2:] if has_profile else sys.argv[1:]
    found = [(program.rsplit('/', 1)[-1], what, is_so) for program in programs for what, is_so in signs(program, has_profile)]
    print('1..%d' % len(found))
    for number, (program, what, is_so) in enumerate(found, 1):
        print('%s %d - %s %s' % ('ok' if is_so else 'not ok', number, program, what))
    sys.exit(not all(is_so for _, _, is_so in found))


if __name__ == '__main__':
    main()
