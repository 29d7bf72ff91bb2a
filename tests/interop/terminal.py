# SPDX-License-Identifier: Apache-2.0
"""`angarium top` on a terminal in memory (pyte: a package of Debian, so that its python3 runs who uses this), and a picture of what it shows."""
import fcntl
import html
import os
import pty
import select
import signal
import struct
import termios

from lab import BUILD, Skip, wait_until

try:
    import pyte
except ImportError:
    pyte = None


class Terminal:
    """angarium top in a terminal of its own."""

    def __init__(self, control, columns=80, lines=24, term='xterm'):
        if pyte is None:
            raise Skip('no python3-pyte')
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ['TERM'] = term
            os.execv(os.path.join(BUILD, 'control/angarium'), ['angarium', '-s', control, 'top'])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))

    def read(self, seconds=0.05):
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                octets = os.read(self.fd, 65536)
            except OSError:
                octets = b''
            self.stream.feed(octets)

    def shows(self, *texts):
        def look():
            self.read()
            return all(any(text in line for line in self.screen.display) for text in texts)
        wait_until(look, repr(texts) + ' on\n' + '\n'.join(self.screen.display))

    def lists(self, *names):
        """The first rows of the table have these names."""
        def look():
            self.read()
            return [(line.split() or [''])[0] for line in self.screen.display[8:8 + len(names)]] == list(names)
        wait_until(look, repr(names) + ' in this order')

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def end(self, wanted):
        """It ends by itself, with this exit status."""
        for _ in range(3000):
            self.read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        assert os.waitstatus_to_exitcode(status) == wanted, (status, self.screen.display)

    def picture(self):
        """The screen as SVG: a rectangle behind what is not in the usual colours, and text cell by cell in runs of one look."""
        rows = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">' %
                (CELL[0] * self.screen.columns + 2 * MARGIN, CELL[1] * self.screen.lines + 2 * MARGIN),
                '<rect width="100%%" height="100%%" rx="6" fill="%s"/>' % COLOURS['background']]
        for line in range(self.screen.lines):
            for first, text, look in self.runs(line):
                rows += run_picture(first, line, text, look)
        return '\n'.join(rows) + '\n</svg>\n'

    def runs(self, line):
        """(column, text, look) of each run of cells that look alike."""
        cells = [self.screen.buffer[line][column] for column in range(self.screen.columns)]
        first = 0
        for column in range(1, len(cells) + 1):
            if column == len(cells) or look_of(cells[column]) != look_of(cells[first]):
                yield first, ''.join(cell.data for cell in cells[first:column]), look_of(cells[first])
                first = column


CELL, MARGIN = (8.4, 18), 10
COLOURS = {'background': '#10151b', 'default': '#d5dbe2', 'black': '#10151b', 'red': '#ff6b68', 'green': '#5fb865', 'brown': '#e0b040', 'blue': '#62a0ea',
           'magenta': '#c678dd', 'cyan': '#56b6c2', 'white': '#f2f5f8'}


def look_of(cell):
    """(colour, colour behind it or None, bold)"""
    text, behind = COLOURS.get(cell.fg, COLOURS['default']), None if cell.bg == 'default' else COLOURS.get(cell.bg)
    if cell.reverse:
        text, behind = behind or COLOURS['background'], text
    return text, behind, cell.bold


def run_picture(column, line, text, look):
    colour, behind, is_bold = look
    x, y, width = MARGIN + CELL[0] * column, MARGIN + CELL[1] * line, CELL[0] * len(text)
    if behind is not None:
        yield '<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>' % (x, y, width, CELL[1], behind)
    if text.strip():
        yield '<text x="%.1f" y="%.1f" textLength="%.1f" xml:space="preserve" fill="%s"%s>%s</text>' % (
            x, y + 13.5, width, colour, ' font-weight="bold"' if is_bold else '', html.escape(text))
