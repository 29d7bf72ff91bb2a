# SPDX-License-Identifier: Apache-2.0
"""Figures of two cores, kept apart by how far these are from each other.

A virtual machine's processors move about; how far apart they are (bench/wire/distance.c) decides what two cores can do with each other. It is
measured before and after each figure: those taken with both within NEAR ns are one row, the others, if there are any, a second row, and what
they are compared with was measured in the same state.
"""
import os
import statistics
import subprocess
import time

from ground import row
from lab import BUILD

NEAR = 150  # ns for a cache line to the other core and back
PATIENCE = int(os.environ.get('ANGARIUM_BENCH_PATIENCE', '10'))  # seconds to wait for the cores to come near, before each figure


def distance():
    """ns for a cache line from core 0 to core 1 and back."""
    return float(subprocess.run([os.path.join(BUILD, 'bench/wire/angarium-core-distance'), '0', '1'], stdout=subprocess.PIPE, check=True).stdout)


def near_wait():
    """What the distance is now, or as soon as it is small."""
    end = time.monotonic() + PATIENCE
    while True:
        now = distance()
        if now < NEAR or time.monotonic() > end:
            return now
        time.sleep(0.2)


class Results:
    """Figures by key, those with the cores near each other (True) apart from the others (False), and those for which it is not asked (None)."""

    def __init__(self):
        self.values = {True: {}, False: {}, None: {}}
        self.distances = {True: [], False: []}

    def measure(self, key, function):
        before = near_wait()
        value = function()
        after = distance()
        is_near = max(before, after) < NEAR
        self.distances[is_near] += [before, after]
        self.values[is_near].setdefault(key, []).append(value)

    def measure_anywhere(self, key, function):
        self.values[None].setdefault(key, []).append(function())

    def where(self, is_near):
        if is_near is None:
            return 'wherever the cores were'
        return 'cores %.0f ns apart' % statistics.median(self.distances[is_near] or [0])

    def rows(self, bench, key, unit, conditions, peer, peer_key):
        for is_near in (True, False):
            mine, theirs = self.values[is_near].get(key), self.values[is_near].get(peer_key)
            if mine:
                conditions_here = '%s; %s, median of %d' % (conditions, self.where(is_near), len(mine))
                yield row(bench, statistics.median(mine), unit, conditions_here, peer, statistics.median(theirs) if theirs else 0)
