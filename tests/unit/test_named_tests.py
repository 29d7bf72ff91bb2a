#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What docs/durability.md and docs/testing.md name as proof is there: tests, their functions and checks, scenarios. Arguments: folder of the
sources, folder of the build. Prints TAP.

In the last cell of each row, by its backquotes: `a/b` is a scenario, and so is `c` behind it in that area; a name of a test is one that meson
knows; anything else is a function or a check in the source of the test before it, or a planted bug of it.
"""
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

SOURCE, BUILD = sys.argv[1:3]
TABLES = {"docs/durability.md": ("proven by", "caught by"), "docs/testing.md": ("scenarios",)}
GENERATED = {"cut_through": "cut_through.py", "lmtp": "lmtp.py"}  # scenarios that are written by a program


def names_of_tests():
    with open(os.path.join(BUILD, "meson-info/intro-tests.json"), encoding="utf-8") as file:
        return {test["name"] for test in json.load(file)}


def source_of(test):
    for path in glob.glob(os.path.join(SOURCE, "tests/*/test_%s.*" % test)):
        with open(path, encoding="utf-8") as file:
            yield file.read()


class Audit:
    def __init__(self, generated):
        self.tests, self.generated = names_of_tests(), generated

    def has_scenario(self, area, name):
        places = (os.path.join(SOURCE, "tests/scenario"), self.generated)
        return any(glob.glob(os.path.join(place, area, name + suffix)) for place in places for suffix in (".scn", "_*.scn"))

    def is_there(self, name, test, area):
        if name in self.tests or (area and self.has_scenario(area, name)):
            return True
        if test in self.tests and test + "_" + name in self.tests:
            return True
        return len(name) > 5 and any(name in text for text in source_of(test))

    def missing(self, cell):
        test, area, missing = "", "", []
        for name in re.findall(r"`([^`]+)`", cell):
            if "/" in name:
                area, name = name.split("/")
            elif name in GENERATED:
                area = name
                continue
            elif name in self.tests:
                test, area = name, ""
            if not self.is_there(name, test, area):
                missing.append(name)
        return missing


def rows(page, headers):
    """Last cell of each row of the tables that have this header."""
    is_in = False
    with open(os.path.join(SOURCE, page), encoding="utf-8") as file:
        for line in file:
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []
            if not cells:
                is_in = False
            elif cells[-1] in headers:
                is_in = True
            elif is_in and not cells[-1].startswith("---"):
                yield cells[0], cells[-1]


def main():
    with tempfile.TemporaryDirectory() as folder:
        for area, program in GENERATED.items():
            os.mkdir(os.path.join(folder, area))
            subprocess.run([sys.executable, os.path.join(SOURCE, "tests/scenario", program), "--write", os.path.join(folder, area)], check=True,
                           stdout=subprocess.DEVNULL)
        audit = Audit(folder)
        failed = 0
        print("1..%d" % (len(TABLES) + 1))
        for number, (page, headers) in enumerate(TABLES.items(), 1):
            count, missing = 0, []
            for what, cell in rows(page, headers):
                count += 1
                missing += ["%s: %s" % (what, name) for name in audit.missing(cell) or ([] if "`" in cell else ["nothing is named"])]
            is_good = count > 10 and not missing
            failed += not is_good
            for line in missing:
                print("#", line)
            print("%s %d - what %s names is there (%d rows)" % ("ok" if is_good else "not ok", number, page, count))
        absent = "unit `spool` `test_that_is_absent`; scenario `queue/absent`; sim `absent`"
        is_good = audit.missing(absent) == ["test_that_is_absent", "absent", "absent"]
        print("%s %d - a name that is not there is found" % ("ok" if is_good else "not ok", len(TABLES) + 1))
    return failed > 0 or not is_good


sys.exit(main())
