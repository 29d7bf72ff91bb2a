# SPDX-License-Identifier: Apache-2.0
"""What the benches over kernel sockets have in common: cores, processor time, the load, what is known of machine and programs, and the parts of
docs/benchmarks.md that a bench writes itself."""
import datetime
import glob
import json
import os
import platform
import re
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tests/interop'))
from lab import BUILD, ROOT, wait_until  # pylint: disable=wrong-import-position

ROUNDS = int(os.environ.get('ANGARIUM_BENCH_ROUNDS', '5'))
SECONDS = int(os.environ.get('ANGARIUM_BENCH_SECONDS', '4'))
SESSIONS = int(os.environ.get('ANGARIUM_BENCH_SESSIONS', '100'))
LOAD = os.path.join(BUILD, 'bench/load/angarium-load')
TICKS = os.sysconf('SC_CLK_TCK')
PAGE = os.path.join(ROOT, 'docs/benchmarks.md')


def on_core(core, arguments):
    return ['taskset', '-c', str(core)] + [str(a) for a in arguments]


def pin(pid):
    """All threads of a process to core 0, also those that pinned themselves. One may end while it is told so: then again."""
    wait_until(lambda: subprocess.run(['taskset', '-a', '-p', '-c', '0', str(pid)], check=False, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL).returncode == 0, 'the process is on its core', 10)


def core_busy_seconds(core):
    """What a core spent on anything but waiting, kernel and interrupts included."""
    with open('/proc/stat', encoding='ascii') as file:
        for line in file:
            fields = line.split()
            if fields[0] == 'cpu%d' % core:
                user, nice, system, _, _, irq, softirq = (int(x) for x in fields[1:8])
                return (user + nice + system + irq + softirq) / TICKS
    raise AssertionError('no such core')


def process_seconds(pid):
    """What a process has had of processors, in all its threads, in user space and in the kernel."""
    with open('/proc/%d/stat' % pid, encoding='ascii', errors='replace') as file:
        return sum(int(x) for x in file.read().rsplit(')', 1)[1].split()[11:13]) / TICKS


# ---- the load ----

def load_both(lab, to, listen, arguments, seconds=SECONDS, drain=60):
    """Source and sink in one process on core 1, for so many seconds and until everything acknowledged has arrived. Its lines, as objects."""
    command = [LOAD, 'both', '-j', '-s', SESSIONS, '-t', seconds, '-d', 'sink.test', '--drain', drain] + list(arguments) + [to, listen]
    with open(lab.path('load.log'), 'ab') as log:
        done = subprocess.run(on_core(1, command), stdout=subprocess.PIPE, stderr=log, timeout=seconds + drain + 120, check=False, encoding='utf-8')
    assert done.returncode == 0, lab.log('load.log')[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def total_of(lines, what):
    return next(line for line in reversed(lines) if line['what'] == what + '-total')


def middle_rate(lines, what='sink', key='messages'):
    """A second's figure: the median of the whole seconds between the first and the last."""
    seconds = [line for line in lines if line['what'] == what and line[key] > 0]
    return statistics.median(line[key] / line['seconds'] for line in (seconds[1:-1] or seconds))


# ---- what is known ----

def version_of(package):
    """Of an installed Debian package, or of one that was only unpacked; None: it is not there."""
    done = subprocess.run(['dpkg-query', '-W', '-f', '${db:Status-Status} ${Version}', package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=False, encoding='utf-8')
    if done.stdout.startswith('installed '):
        return done.stdout.split()[1]
    for path in glob.glob(os.path.join(ROOT, 'build-peers/deb', package + '_*.deb')):
        return subprocess.run(['dpkg-deb', '-f', path, 'Version'], stdout=subprocess.PIPE, check=True, encoding='utf-8').stdout.strip()
    return None


def own_version():
    done = subprocess.run(['git', '-C', ROOT, 'describe', '--always', '--tags'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
                          encoding='utf-8')
    return done.stdout.strip() or 'unknown'


def machine():
    with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
        model = re.search(r'model name\s*: (.*)', file.read())
    with open('/proc/meminfo', encoding='ascii') as file:
        memory = int(file.readline().split()[1]) / 1048576
    with open('/etc/os-release', encoding='utf-8') as file:
        system = re.search(r'PRETTY_NAME="([^"]*)"', file.read())
    return '%d cores of %s, %.0f GiB, %s, kernel %s' % (os.cpu_count(), model.group(1) if model else platform.machine(), memory,
                                                        system.group(1) if system else platform.system(), platform.release())


def circumstances(rounds):
    """Read before a bench begins: when, where, and whether somebody else was at work."""
    load = os.getloadavg()[0]
    return '%s, %s; Angarium %s; %s, load of the machine before %.1f' % (
        datetime.date.today().strftime('%-d %B %Y'), machine(), own_version(), 'medians of %d rounds in turn' % rounds if rounds > 1 else 'one round', load)


# ---- the page ----

def page_write(name, text):
    """Replace what stands between the marks of this name in docs/benchmarks.md."""
    begin, end = '<!-- %s: begin -->\n' % name, '<!-- %s: end -->' % name
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    first, last = page.index(begin) + len(begin), page.index(end)
    with open(PAGE, 'w', encoding='utf-8') as file:
        file.write(page[:first] + text.rstrip('\n') + '\n' + page[last:])


def row(bench, value, unit, conditions, peer=None, peer_value=None):
    result = {'bench': bench, 'value': round(value, 3), 'unit': unit, 'conditions': conditions}
    if peer is not None:
        result.update(peer=peer, peer_value=round(peer_value, 3), ratio=round(value / peer_value, 4) if peer_value else None)
    return result


def rows_print(rows):
    for each in rows:
        if '--json' in sys.argv:
            print(json.dumps(each), flush=True)
        else:
            peer = '%-14s %12.3f   ratio %s' % (each['peer'], each['peer_value'], each['ratio']) if 'peer' in each else ''
            print('%-30s %14.3f %-10s %s\n    %s' % (each['bench'], each['value'], each['unit'], peer, each['conditions']), flush=True)
