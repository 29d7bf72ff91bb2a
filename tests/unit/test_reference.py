#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pages that the program writes are committed as it prints them. Arguments: program, folder of the pages."""
import difflib
import os
import subprocess
import sys

PAGES = (("check", "configuration.md"), ("counters", "counters.md"), ("metrics", "metrics.md"))


def is_up_to_date(program, verb, page):
    printed = subprocess.run([program, verb, "--reference"], check=True, capture_output=True, text=True).stdout.splitlines()
    with open(page, encoding="utf-8") as file:
        committed = file.read().splitlines()
    for line in difflib.unified_diff(committed, printed, page, "printed", n=0, lineterm=""):
        print("#", line)
    return printed == committed


def main():
    program, folder = sys.argv[1:3]
    failed = 0
    print("1..%d" % len(PAGES))
    for number, (verb, page) in enumerate(PAGES, 1):
        is_same = is_up_to_date(program, verb, os.path.join(folder, page))
        failed += not is_same
        print("ok %d - docs/%s is up to date" % (number, page) if is_same else
              "not ok %d - run: angarium %s --reference > docs/%s" % (number, verb, page))
    return failed > 0


sys.exit(main())
