#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A flame graph of what perf saw, as one SVG that needs nothing else.

    perf record -e cpu-clock -F 1999 --call-graph dwarf,16384 build/bench/line/angarium-line 1 60000 10240
    perf script --no-inline | bench/line/flame.py shard_turn "10 KB, straight through" > flame.svg

The first argument is the function to begin at; samples without it are left out. Width is the share of samples, depth the stack; functions below MIN
of the whole are not drawn. The title of a box tells its share.
"""
import re
import sys
from xml.sax.saxutils import escape

WIDTH, ROW, MARGIN, MIN, CHARACTER = 1200, 17, 10, 0.002, 6.6
DEPTH_MAX = 40


def stacks(lines, root):
    """Each sample's stack from `root` inwards."""
    frames = []
    for line in lines:
        frame = re.match(r'\s+[0-9a-f]+ (.+?)(?:\+0x[0-9a-f]+)? \((.*)\)$', line.rstrip())
        if frame:
            name, where = frame.groups()
            frames.append(name if name != '[unknown]' else where.rsplit('/', 1)[-1])
        elif not line.strip() and frames:
            frames.reverse()
            if root in frames:
                yield frames[frames.index(root):][:DEPTH_MAX]
            frames = []


def tree(samples):
    """{'name', 'count', 'children'}, and how many samples there were."""
    top = {'count': 0, 'children': {}}
    for stack in samples:
        node = top
        node['count'] += 1
        for name in stack:
            node = node['children'].setdefault(name, {'count': 0, 'children': {}})
            node['count'] += 1
    return top


def depth_of(node, total):
    kept = [child for child in node['children'].values() if child['count'] >= MIN * total]
    return 1 + max((depth_of(child, total) for child in kept), default=0)


def colour(name):
    """Warm, by the part of the program."""
    parts = (('tcp_', 35), ('wire_', 35), ('stack_', 35), ('ip_', 35), ('net_', 35), ('flow_', 48), ('buf_', 48), ('smtp', 12), ('server_', 12), ('client_', 5),
             ('transfer_', 345), ('qmgr_', 330), ('site_', 330), ('spool_', 330), ('envelope_', 330))
    hue = next((hue for prefix, hue in parts if name.startswith(prefix)), 210)
    return 'hsl(%d,%d%%,%d%%)' % (hue, 70 if hue != 210 else 20, 68 + sum(name.encode()) % 9)


def boxes(node, x, level, scale, total, height):
    for name, child in sorted(node['children'].items()):
        if child['count'] >= MIN * total:
            width = child['count'] * scale
            y = height - (level + 1) * ROW - MARGIN
            share = '%.1f %%' % (100 * child['count'] / total)
            text = name if len(name) * CHARACTER < width - 4 else name[:max(0, int((width - 4) / CHARACTER) - 1)]
            yield '<g><title>%s, %s</title><rect x="%.1f" y="%d" width="%.1f" height="%d" rx="1" fill="%s"/>%s</g>' % (
                escape(name), share, x, y, max(width - 0.5, 0.5), ROW - 1, colour(name),
                '<text x="%.1f" y="%d">%s</text>' % (x + 2, y + 12, escape(text)) if len(text) > 2 else '')
            yield from boxes(child, x, level + 1, scale, total, height)
        x += child['count'] * scale


def main():
    root, title = sys.argv[1], sys.argv[2]
    top = tree(stacks(sys.stdin, root))
    total = top['count']
    if total == 0:
        sys.exit('no sample has %s in its stack: is this a build with frame pointers?' % root)
    height = depth_of(top, total) * ROW + 3 * MARGIN + ROW
    print('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="monospace" font-size="11">' % (WIDTH, height))
    print('<rect width="100%" height="100%" fill="#fff"/>')
    print('<text x="%d" y="%d" font-size="13">%s: %d samples</text>' % (MARGIN, MARGIN + 10, escape(title), total))
    print('\n'.join(boxes(top, MARGIN, 0, (WIDTH - 2 * MARGIN) / total, total, height)))
    print('</svg>')


if __name__ == '__main__':
    main()
