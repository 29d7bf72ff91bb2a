# SPDX-License-Identifier: Apache-2.0
"""A chart of bars, SVG that needs nothing else: panels side by side, in each a bar for every name on one logarithmic scale, its figure beside it. It
follows the reader's light or dark theme."""
import math
from xml.sax.saxutils import escape

BAR, GAP, LEFT, PANEL, TOP, FOOT = 20, 8, 170, 200, 62, 34
STYLE = ('text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-size:16px;font-weight:600}.h{font-weight:600}.s{fill:#59636e}.g{stroke:#d1d9e0}.a{fill:#0969da}'
         '.b{fill:#8c959f}svg{background:#fff}@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.s{fill:#9198a1}.g{stroke:#3d444d}.a{fill:#4493f8}.b{fill:#656c76}'
         'svg{background:#0d1117}}')


def figure_text(value):
    return '{:,.0f}'.format(value) if value >= 10 else '%.1f' % value


def chart_write(path, title, unit, panels, names, figures, is_ours):
    """figures[(name, panel)] is a number, or missing; is_ours(name) is drawn in the other colour."""
    values = [value for value in figures.values() if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    width, height = LEFT + PANEL * len(panels) + 16, TOP + (BAR + GAP) * len(names) + FOOT
    bottom, room = TOP + (BAR + GAP) * len(names), PANEL - 66
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">' % (width, height, width, height),
           '<title>%s</title><style>%s</style>' % (escape(title), STYLE), '<text class="t" x="12" y="24">%s</text>' % escape(title)]
    for index, name in enumerate(names):
        out.append('<text x="%d" y="%d" text-anchor="end">%s</text>' % (LEFT - 10, TOP + index * (BAR + GAP) + 15, escape(name)))
    for column, panel in enumerate(panels):
        x = LEFT + column * PANEL
        out.append('<text class="h" x="%d" y="%d">%s</text>' % (x, TOP - 12, escape(panel)))
        for power in range(low, high + 1):
            at = x + room * (power - low) / (high - low)
            out.append('<line class="g" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>' % (at, at, TOP - 4, bottom))
            if column == 0 or power in (low, high):
                out.append('<text class="s" x="%.1f" y="%d" text-anchor="middle">%s</text>' % (at, bottom + 18, figure_text(10 ** power)))
        for index, name in enumerate(names):
            value = figures.get((name, panel), 0)
            if value <= 0:
                continue
            length, y = max(room * (math.log10(value) - low) / (high - low), 1), TOP + index * (BAR + GAP)
            out.append('<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>' % ('a' if is_ours(name) else 'b', x, y, length, BAR))
            out.append('<text x="%.1f" y="%d">%s</text>' % (x + length + 5, y + 15, figure_text(value)))
    out.append('<text class="s" x="%d" y="%d" text-anchor="end">%s, logarithmic</text></svg>' % (width - 16, 24, escape(unit)))
    with open(path, 'w', encoding='utf-8') as file:
        file.write('\n'.join(out) + '\n')
