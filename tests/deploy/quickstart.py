# SPDX-License-Identifier: Apache-2.0
"""
docs/quickstart.md, done: each of its commands in turn, in one shell, on a bare Debian 12; what the page shows of what they print must have
been printed. All that was printed is in build-package/quickstart.txt, to renew the page by.

In a block ```console a line that begins with "$ " is a command, the others are output of it. "..." stands for what is left out, alone on a
line for lines, at the end of one for its rest. Numbers, and what else differs from run to run, are not compared.
"""
import os
import re
import subprocess

from machine import TOP, Machine, must

PAGE = TOP + "/docs/quickstart.md"
TRANSCRIPT = TOP + "/build-package/quickstart.txt"
SOURCES = "/root/angarium"
SHORTEST_REST = 4  # of a line that is cut short


def console_blocks(page):
    return re.findall(r"^```console\n(.*?)^```$", page, re.M | re.S)


def commands(page):
    """(command, [lines shown]) of all blocks."""
    found = []
    for block in console_blocks(page):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def plain(line):
    """Without what differs from run to run: numbers are all alike, but nothing is nothing."""
    line = re.sub(r"\b(?:[0-9a-f]{8,}|[a-z2-7]{26})\b", "9", re.sub(r"<[^<>@\s]+@", "<9@", line))
    line = re.sub(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), |\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b", "", line)
    return re.sub(r"\s+", " ", re.sub(r"0*[1-9][0-9]*|00+", "9", line)).strip().rstrip("*").strip()


def shown_but_not_printed(shown, printed):
    """The first line that is shown and was not printed behind the lines before it; None: there is none."""
    lines = iter([plain(line) for line in printed.splitlines()])
    for line in shown:
        if line.strip() in ("", "..."):
            continue
        wanted, is_cut = plain(line.removesuffix("...")), line.endswith("...")
        if not any(line_is(wanted, is_cut, one) for one in lines):
            return line
    return None


def line_is(wanted, is_cut, printed):
    return printed.startswith(wanted) and len(wanted) >= SHORTEST_REST if is_cut else printed == wanted


class Newcomer:
    """A machine with the sources in /root, and one shell there."""

    def __init__(self):
        self.machine = Machine(self.wanted())
        try:
            self.sources_copy(self.machine.path(SOURCES))
            self.machine.boot()
            self.machine.show_modules()
        except BaseException:
            self.machine.remove()
            raise
        self.shell = subprocess.Popen(self.machine.enter("HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8", "bash"), stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")

    @staticmethod
    def wanted():
        """All that the page installs, or has installed, from Debian."""
        with open(TOP + "/script/bootstrap", encoding="utf-8") as file:
            build = re.search(r"^build_packages=\((.*?)^\)", file.read(), re.M | re.S)[1].split()
        return build + ["git", "ansible", "dpkg-dev", "debhelper", "lintian", "ethtool", "iproute2", "unbound", "dns-root-data", "librte-meta-net",
                        "librte-mempool-ring23", "librte-mempool-stack23", "adduser"]

    @staticmethod
    def sources_copy(folder):
        """As cloned, with what is not committed yet."""
        must("git", "clone", "--quiet", TOP, folder)
        must("bash", "-c", 'cd "$1" && git ls-files -co --exclude-standard -z | tar -c --null --ignore-failed-read --files-from - | tar -x -C "$2"', "-", TOP, folder)

    def run(self, command):
        """What the command printed; its status."""
        mark = "done-" + os.urandom(8).hex()
        self.shell.stdin.write(f"{{ {command}\n}} </dev/null 2>&1; status=$?; echo; echo {mark} $status\n")
        self.shell.stdin.flush()
        lines = []
        for line in self.shell.stdout:
            if line.startswith(mark):
                return "".join(lines).rstrip("\n"), int(line.split()[1])
            lines.append(line)
        raise AssertionError("the shell has ended:\n" + "".join(lines)[-3000:])

    def remove(self):
        self.shell.stdin.close()
        self.shell.wait()
        self.machine.remove()


def page_read():
    with open(PAGE, encoding="utf-8") as file:
        return file.read()


def all_that_the_page_does(newcomer):
    steps = commands(page_read())
    if len(steps) < 8:
        raise AssertionError(f"{len(steps)} commands")
    for command, shown in steps:
        printed, status = newcomer.run(command)
        with open(TRANSCRIPT, "w" if command == steps[0][0] else "a", encoding="utf-8") as file:
            file.write(f"$ {command}\n{printed}\n")
        missing = shown_but_not_printed(shown, printed)
        if status != 0 or missing is not None:
            raise AssertionError(f"{command}: {status}; not printed: {missing}\n{printed[-3000:]}")


TESTS = [all_that_the_page_does]
