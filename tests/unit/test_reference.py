#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pages that the program writes are committed as it prints them, and configurations in pages of migration are accepted. Arguments: program,
folder of the pages."""
import difflib
import os
import re
import subprocess
import sys
import tempfile

MIGRATIONS = ("migrate-postfix.md", "migrate-powermta.md")
PAGES = (("check", "configuration.md"), ("counters", "counters.md"), ("metrics", "metrics.md"))


def is_up_to_date(program, verb, page):
    printed = subprocess.run([program, verb, "--reference"], check=True, capture_output=True, text=True).stdout.splitlines()
    with open(page, encoding="utf-8") as file:
        committed = file.read().splitlines()
    for line in difflib.unified_diff(committed, printed, page, "printed", n=0, lineterm=""):
        print("#", line)
    return printed == committed


def is_accepted(program, page):
    """Each configuration in the page."""
    with open(page, encoding="utf-8") as file:
        blocks = re.findall(r"^```yaml\n(.*?)^```", file.read(), re.M | re.S)
    is_ok = len(blocks) > 0
    for block in blocks:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            file.write(block)
            file.flush()
            done = subprocess.run([program, "check", file.name], check=False, capture_output=True, text=True)
        for line in done.stderr.splitlines():
            print("#", line)
        is_ok = is_ok and done.returncode == 0
    return is_ok


def main():
    program, folder = sys.argv[1:3]
    failed = 0
    print("1..%d" % (len(PAGES) + len(MIGRATIONS)))
    for number, (verb, page) in enumerate(PAGES, 1):
        is_same = is_up_to_date(program, verb, os.path.join(folder, page))
        failed += not is_same
        print("ok %d - docs/%s is up to date" % (number, page) if is_same else
              "not ok %d - run: angarium %s --reference > docs/%s" % (number, verb, page))
    for number, page in enumerate(MIGRATIONS, len(PAGES) + 1):
        is_ok = is_accepted(program, os.path.join(folder, page))
        failed += not is_ok
        print("%s %d - the configuration in docs/%s is accepted" % ("ok" if is_ok else "not ok", number, page))
    return failed > 0


sys.exit(main())
