#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md is what `angarium check --reference` prints. Arguments: program, page."""
import difflib
import subprocess
import sys

program, page = sys.argv[1:3]
printed = subprocess.run([program, "check", "--reference"], check=True, capture_output=True,
                         text=True).stdout.splitlines()
with open(page, encoding="utf-8") as file:
    committed = file.read().splitlines()
print("1..1")
for line in difflib.unified_diff(committed, printed, "docs/configuration.md", "printed", n=0,
                                 lineterm=""):
    print("#", line)
is_same = printed == committed
print("ok 1 - the reference page is up to date" if is_same else
      "not ok 1 - run: angarium check --reference > docs/configuration.md")
sys.exit(not is_same)
