#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`angarium top` on a terminal of 80 columns and 24 lines (pyte, a terminal in memory: a package of Debian, so its python3 runs this), against a running
relay with mail that waits."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import BUILD, Lab, can_connect, free_port, send_letters, wait_until  # pylint: disable=wrong-import-position
from terminal import Terminal  # pylint: disable=wrong-import-position

lab = Lab('top')
smtp = free_port()
DOMAINS = {'far.test': 3, 'near.test': 2, 'mid.test': 1}
UP, DOWN, ESCAPE = '\x1bOA', '\x1bOB', '\x1b'


def start_relay():
    config = lab.write('relay.yaml', '''
hostname: relay.test
listen: [{address: "127.0.0.1:%d"}]
spool: {directory: "%s", size: 1GiB}
control: {socket: "%s"}
dns: {resolvers: ["127.0.0.1:%d"]}
''' % (smtp, lab.path('spool'), lab.path('control'), free_port()))
    child = lab.start([os.path.join(BUILD, 'control/angariumd'), '-c', config], 'relay.log')
    wait_until(lambda: can_connect('127.0.0.1', smtp), 'the relay')
    return child


@lab.check('80 columns and 24 lines show traffic, queue, spool, times and who waits, the most first')
def first_screen():
    terminal = Terminal(lab.path('control'))
    terminal.shows('angarium', 'in  ', 'msg/s', 'out ', 'queue', '6 msgs', 'spool', 'BY site', 'far.test', '? help')
    terminal.lists('far.test', 'near.test', 'mid.test')
    assert terminal.screen.display[3].rstrip().endswith('held') and terminal.screen.display[7].rstrip().endswith('older')
    assert terminal.screen.display[1].rstrip().endswith('refuse/s') and terminal.screen.display[2].rstrip().endswith('expire/s')
    terminal.press('q')
    terminal.end(0)


@lab.check('groups and their order are changed by a key')
def groups():
    terminal = Terminal(lab.path('control'))
    terminal.shows('BY site, sorted by total')
    terminal.press('s')
    terminal.shows('sorted by age')
    terminal.press('s')
    terminal.shows('sorted by name')
    terminal.lists('far.test', 'mid.test', 'near.test')
    for by in ('domain', 'source', 'class', 'sender_domain', 'site'):
        terminal.press('b')
        terminal.shows('BY %s,' % by)
    terminal.press('q')
    terminal.end(0)


@lab.check('down to messages and to why they wait, and back')
def drill():
    terminal = Terminal(lab.path('control'))
    terminal.shows('BY site', 'near.test')
    terminal.press(DOWN + '\n')
    terminal.shows('site=near.test', 'RECIPIENT', 'b@near.test')
    assert not any('b@far.test' in line for line in terminal.screen.display)
    terminal.press('\n')
    terminal.shows('attempts', 'near.test')
    terminal.press(ESCAPE)
    terminal.shows('RECIPIENT')
    terminal.press(ESCAPE)
    terminal.shows('BY site')
    terminal.press('e')
    terminal.shows('near.test')
    terminal.press('q')
    terminal.end(0)


@lab.check('it is live: mail that comes is shown, and paused it is not')
def live():
    terminal = Terminal(lab.path('control'))
    terminal.shows('6 msgs')
    terminal.press('p')
    terminal.shows('PAUSED')
    send_letters(smtp, ['b@new.test'])
    time.sleep(1.2)
    terminal.read()
    assert any('6 msgs' in line for line in terminal.screen.display)
    terminal.press('p')
    terminal.shows('7 msgs', 'new.test')
    terminal.press('q')
    terminal.end(0)


@lab.check('help, unknown keys, a small and a plain terminal')
def small():
    terminal = Terminal(lab.path('control'), 40, 10, 'vt100')
    terminal.shows('angarium', 'queue')
    terminal.press('?')
    terminal.shows('Up Down PgUp')
    terminal.press('x')
    terminal.press('\x01\x02z' + UP * 50 + DOWN * 50)
    terminal.shows('BY site')
    terminal.press('q')
    terminal.end(0)


@lab.check('the relay goes and comes back while one looks')
def restart():
    global relay  # pylint: disable=global-statement
    terminal = Terminal(lab.path('control'))
    terminal.shows('7 msgs')
    lab.stop(relay)
    terminal.shows('no answer from')
    relay = start_relay()
    terminal.shows('7 msgs', 'far.test')
    wait_until(lambda: (terminal.read(), not any('no answer' in line for line in terminal.screen.display))[1], 'the complaint to go')
    terminal.press('q')
    terminal.end(0)


@lab.check('no relay, no terminal, an unknown terminal: told why')
def refused():
    import subprocess  # pylint: disable=import-outside-toplevel
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', lab.path('control'), 'top'], stdin=subprocess.DEVNULL, capture_output=True,
                          encoding='utf-8', timeout=60, check=False)
    assert done.returncode == 1 and 'needs a terminal' in done.stderr, done
    terminal = Terminal(lab.path('control'), term='never-heard-of')
    terminal.shows('this terminal is not known')
    terminal.end(1)


relay = start_relay()
send_letters(smtp, ['b@' + domain for domain, count in DOMAINS.items() for _ in range(count)])
sys.exit(lab.run())
