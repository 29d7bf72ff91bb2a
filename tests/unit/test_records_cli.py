#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
`angarium records find` of files that somebody else may have written: nothing in them commands the terminal. Argument: angarium. Prints TAP.
"""
import os
import re
import subprocess
import sys
import tempfile

CLI = sys.argv[1]
ID = "aadgckcewtj4v57ch2f23dzjeq"
# Everything a terminal may obey: controls, DEL, those of eight bits, alone and in UTF-8, and what turns text round.
HOSTILE = bytes(range(1, 10)) + bytes(range(11, 32)) + b"\x7f\x9b2J\xc2\x9b2J\xe2\x80\xae\x1b]0;x\x07\x1b[2J"
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def find(line, *options, locale="C.UTF-8"):
    with tempfile.NamedTemporaryFile() as file:
        file.write(line + b"\n")
        file.flush()
        return subprocess.run([CLI, "records", "find", ID, file.name, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=60, env=dict(os.environ, LC_ALL=locale))


def expect_tame(line, *wanted):
    for locale in ("C.UTF-8", "C"):
        done = find(line, locale=locale)
        shown = done.stdout.decode("utf-8" if locale == "C.UTF-8" else "ascii")
        assert done.returncode == 0 and not UNSEEN.search(shown), (locale, done)
        assert all(word in shown for word in wanted), (wanted, shown)


def accounting_is_tame():
    line = b'b,2026-11-27 08:00:00+0000,"smtp;550 ""no"" %s",x,%s,%s-1' % (HOSTILE, ID.encode(), ID.encode())
    expect_tame(line, 'b,2026-11-27 08:00:00+0000,"smtp;550 ""no"" ', "\\x1b[2J", "\\x7f", "\\x9b2J", "," + ID + "," + ID + "-1\n")


def what_is_no_json_is_tame():
    expect_tame(b'{"id":"%s","text":"%s"' % (ID.encode(), HOSTILE), '{"id":"%s"' % ID, "\\x1b[2J")


def json_is_tame():
    escaped = b"".join(b"\\u%04x" % ord(sign) for sign in HOSTILE.decode("latin-1"))
    expect_tame(b'{"id":"%s","type":"rejection","recipient":"\\u001b[2J","text":"%s"}' % (ID.encode(), escaped), "rejection", "\\x1b[2J")


def letters_stay():
    line = "d,x,b\u00fc@far.test,%s,%s-1" % (ID, ID)
    assert find(line.encode()).stdout.decode() == line + "\n"
    assert find(line.encode(), locale="C").stdout.decode("ascii") == line.replace("\u00fc", "\\xc3\\xbc") + "\n"


TESTS = (accounting_is_tame, what_is_no_json_is_tame, json_is_tame, letters_stay)
print("1..%d" % len(TESTS))
FAILED = False
for number, test in enumerate(TESTS, 1):
    try:
        test()
        print("ok %d - %s" % (number, test.__name__))
    except (AssertionError, UnicodeDecodeError) as error:
        FAILED = True
        print("not ok %d - %s\n# %s" % (number, test.__name__, error))
sys.exit(FAILED)
