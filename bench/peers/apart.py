# SPDX-License-Identifier: Apache-2.0
"""Figures of two cores, kept apart by what these were good for.

A virtual machine's processors move about; how far apart they are (bench/wire/cores.c) decides what two cores can do with each other. And the
sibling of each core may work for somebody else, who takes up to half of what it can do. Both are measured before and after each figure: those taken with
the cores within NEAR ns of each other and both at their full pace, each time, are one row, the others, if there are any, a second row, and what
they are compared with was measured in the same state.
"""
import os
import statistics
import subprocess
import time
import typing

from ground import row
from lab import BUILD

NEAR = 150  # ns for a cache line to the other core and back
FULL = 1.06  # how much longer than the shortest a round of the loop may take
PATIENCE = int(os.environ.get('ANGARIUM_BENCH_PATIENCE', '10'))  # seconds to wait for good cores, before each figure

shortest = [float('inf')]  # round of the loop, of all that were measured


class Cores(typing.NamedTuple):
    """ns for a cache line from core 0 to core 1 and back, and how long the slower core takes for a round of the loop."""
    distance: float
    pace: float

    def are_good(self):
        return self.distance < NEAR and self.pace < FULL * shortest[0]


def cores():
    """What the cores are good for now."""
    done = subprocess.run([os.path.join(BUILD, 'bench/wire/angarium-cores'), '0', '1'], stdout=subprocess.PIPE, check=True)
    distance, *paces = (float(word) for word in done.stdout.split())
    shortest[0] = min([shortest[0]] + paces)
    return Cores(distance, max(paces))


def good_wait():
    """What the cores are good for now, or as soon as they are good."""
    end = time.monotonic() + PATIENCE
    while True:
        now = cores()
        if now.are_good() or time.monotonic() > end:
            return now
        time.sleep(0.2)


def said(seen):
    """What the cores were good for, in words."""
    return 'cores %.0f ns apart, the slower at %.2f of its pace' % (statistics.median(each.distance for each in seen),
                                                                   shortest[0] / statistics.median(each.pace for each in seen))


class Results:
    """Figures by key, those of good cores (True) apart from the others (False), and those for which it is not asked (None)."""

    def __init__(self):
        self.values = {True: {}, False: {}, None: {}}
        self.cores = {True: [], False: []}

    def measure(self, key, function):
        before = good_wait()
        value = function()
        after = cores()
        is_good = before.are_good() and after.are_good()
        self.cores[is_good] += [before, after]
        self.values[is_good].setdefault(key, []).append(value)

    def measure_anywhere(self, key, function):
        self.values[None].setdefault(key, []).append(function())

    def where(self, is_good):
        if is_good is None:
            return 'wherever the cores were'
        return said(self.cores[is_good]) if self.cores[is_good] else 'no cores'

    def rows(self, bench, key, unit, conditions, peer, peer_key):
        for is_good in (True, False):
            mine, theirs = self.values[is_good].get(key), self.values[is_good].get(peer_key)
            if mine:
                conditions_here = '%s; %s, median of %d' % (conditions, self.where(is_good), len(mine))
                yield row(bench, statistics.median(mine), unit, conditions_here, peer, statistics.median(theirs) if theirs else 0)
