# SPDX-License-Identifier: Apache-2.0
"""A laboratory on loopback: the relay, name servers, sinks and real mail systems as child processes, in one folder that goes away.

Every test file makes one Lab, registers checks with @lab.check("name"), and ends with lab.run(), which prints TAP. A check that needs something
that is not installed raises Skip. Processes are ended by pid, in reverse order; ports are chosen free at start.
"""
import atexit
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..'))
BUILD = os.environ.get('ANGARIUM_BUILD', 'build')
LONG = os.environ.get('ANGARIUM_TEST_LONG') == '1'


class Skip(Exception):
    """The check cannot run here; the text says what is missing."""


def tool(*names):
    """Path of the first of these programs that is installed, or Skip."""
    for name in names:
        for folder in os.environ['PATH'].split(':') + ['/usr/sbin', '/usr/local/sbin', '/sbin']:
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK):
                return path
    raise Skip('no ' + ' or '.join(names))


def free_port(address='127.0.0.1'):
    """A port that is free for TCP and UDP, and stays so: none that the kernel gives to whoever connects, as others do meanwhile."""
    while True:
        port = random.randrange(10000, 32000)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((address, port))
            return port
        except OSError:
            pass


def wait_until(condition, what, seconds=60):
    """Returns at once when it is true, so a long time costs nothing. It cannot ask how quick something is: others may have the processors for
    seconds, and both the relay and this test wait for them."""
    end = time.monotonic() + seconds
    while True:
        is_last = time.monotonic() >= end # a look at what is true is never missed, however long the one before took
        value = condition()
        if value:
            return value
        if is_last:
            raise AssertionError('waited %s s in vain: %s' % (seconds, what))
        time.sleep(0.05)


def can_connect(address, port):
    try:
        socket.create_connection((address, port), 1).close()
        return True
    except OSError:
        return False


def send_letters(port, recipients):
    """One session that leaves a letter for each of them; whatever is not accepted is an error."""
    script = ['EHLO client.test']
    for recipient in recipients:
        script += ['MAIL FROM:<a@client.test>', 'RCPT TO:<%s>' % recipient, 'DATA', 'Subject: kept\r\n\r\ntext\r\n.']
    with socket.create_connection(('127.0.0.1', port), 60) as client:
        lines = client.makefile('rwb')
        lines.readline()
        for command in script + ['QUIT']:
            lines.write(command.encode() + b'\r\n')
            lines.flush()
            while (line := lines.readline())[3:4] == b'-':
                pass
            assert line and line[:1] in b'23', (command, line)


def audit(*ledgers):
    """What angarium-load says of sources' and sinks' ledgers together."""
    done = subprocess.run([os.path.join(BUILD, 'bench/load/angarium-load'), 'audit'] + list(ledgers), stdout=subprocess.PIPE, check=False,
                          encoding='utf-8')
    return done.stdout.strip()


def source_message():
    """A message of 10 KB with what tends to get broken: dots at line starts, long lines, 8-bit, trailing blanks."""
    lines = ['From: source@load.example', 'To: sink@sink.test', 'Subject: body to be kept octet for octet', 'Date: Mon, 23 Nov 2026 12:00:00 +0000',
             'Message-ID: <kept@load.example>', '', '.', '..', '.dot',
             'blanks at the end   ', '\t', 'x' * 990, '', 'caf\u00e9 8-bit', 'From the beginning']
    while sum(len(line) + 2 for line in lines) < 10000:
        lines.append('The quick brown fox jumps over the lazy dog. ' + str(len(lines)))
    return '\r\n'.join(lines) + '\r\n'


def without_received(text):
    match = re.match(rb'Received:[^\n]*\n([ \t][^\n]*\n)*', text)
    return text[match.end():] if match else text


class Lab:
    def __init__(self, name):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix='angarium-' + name + '-')
        os.chmod(self.folder, 0o755)
        self.children = []
        self.checks = []
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(1))

    # ---- processes ----

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def secret(self, name, text):
        """A file that nobody else may read."""
        path = self.write(name, text)
        os.chmod(path, 0o600)
        return path

    def start(self, arguments, log=None, **more):
        with open(self.path(log or os.path.basename(arguments[0]) + '.log'), 'ab') as output:
            child = subprocess.Popen(arguments, **{'stdout': output, 'stderr': output, 'stdin': subprocess.DEVNULL, **more})
        self.children.append(child)
        return child

    def stop(self, child, number=signal.SIGTERM, seconds=60):
        if child.poll() is None:
            child.send_signal(number)
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child in self.children:
            self.children.remove(child)
        return child.returncode

    def exim(self):
        """Debian's Exim and Postfix cannot be installed together: script/bootstrap unpacks Exim beside the build. It runs as a user who may not be
        able to go there, so a copy of it does."""
        unpacked = os.path.join(ROOT, 'build-peers/exim/usr/sbin/exim4')
        if not os.access(unpacked, os.X_OK):
            return tool('exim4')
        return shutil.copy(unpacked, self.path('exim4'))

    def log(self, name):
        try:
            with open(self.path(name), encoding='utf-8', errors='replace') as file:
                return file.read()
        except OSError:
            return ''

    def close(self):
        for child in reversed(list(self.children)):
            self.stop(child)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- names ----

    def nsd(self, zones, address='127.0.0.1', port=None, prefix=(), reach=can_connect):
        """An authoritative server with these zones ({'example': ['@ MX 10 mx', ...]}); returns its port. prefix: words before the command."""
        port = port or free_port()
        lines = ['server:', '  ip-address: %s@%d' % (address, port), '  username: ""', '  database: ""',
                 '  zonesdir: "%s"' % self.folder, '  pidfile: ""', '  xfrdfile: "%s"' % self.path('xfrd.state'),
                 '  zonelistfile: "%s"' % self.path('zone.list'), '  server-count: 1', '  hide-version: yes', '  rrl-ratelimit: 0',
                 'remote-control:', '  control-enable: no']
        for zone, rows in zones.items():
            self.write(zone + '.zone', '$ORIGIN %s.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n%s\n'
                       % (zone, '\n'.join(rows)))
            lines += ['zone:', '  name: "%s"' % zone, '  zonefile: "%s.zone"' % zone]
        config = self.write('nsd.conf', '\n'.join(lines) + '\n')
        self.start(list(prefix) + [tool('nsd'), '-d', '-c', config], 'nsd.log')
        wait_until(lambda: reach(address, port), 'nsd answers:\n' + self.log('nsd.log'))
        return port

    # ---- a whole Postfix ----

    def postfix(self, address, port, main, services=(), prefix=(), reach=can_connect):
        """Start a Postfix of our own, listening on address:port, with these main.cf lines; returns its Postfix object."""
        return Postfix(self, address, port, main, services, list(prefix), reach)

    # ---- the relay ----

    def relay(self, text, name='relay', prefix=(), reach=can_connect, spool='', records='', kind='file'):
        """Start angariumd with this configuration (spool and sockets are added); returns an object with its ports and files. `spool`: more
        options of it. `kind` of its records: file, accounting, raw."""
        return Relay(self, text, name, prefix, reach, spool, records, kind)

    def load(self, *arguments, log='load.log', prefix=()):
        return self.start(list(prefix) + [os.path.join(BUILD, 'bench/load/angarium-load')] + [str(a) for a in arguments], log)

    # ---- checks ----

    def check(self, title):
        def register(function):
            self.checks.append((title, function))
            return function
        return register

    def run(self):
        failed = 0
        print('1..%d' % len(self.checks), flush=True)
        for number, (title, function) in enumerate(self.checks, 1):
            started = time.monotonic()
            try:
                note = function()
                print('ok %d - %s%s (%.1f s)' % (number, title, ': ' + note if note else '', time.monotonic() - started), flush=True)
            except Skip as reason:
                print('ok %d - %s # SKIP %s' % (number, title, reason), flush=True)
            except Exception as error:  # pylint: disable=broad-except
                failed += 1
                print('not ok %d - %s' % (number, title))
                for line in (type(error).__name__ + ': ' + str(error)).splitlines()[:40]:
                    print('# ' + line)
                for name in sorted(os.listdir(self.folder)):
                    if name.endswith('.log'):
                        for line in self.log(name).splitlines()[-6:]:
                            print('# %s: %s' % (name, line))
                sys.stdout.flush()
        self.close()
        sys.exit(1 if failed else 0)


def segments_of_replies(sock, text, count):
    """Send this at once; in how many segments so many replies came, by Linux's own count (tcpi_data_segs_in), and what they say."""
    def seen():
        return struct.unpack_from('I', sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 156), 152)[0]
    before, got = seen(), b''
    sock.sendall(text)
    while len(re.findall(rb'(?m)^\d{3} .*\r\n', got)) < count:
        more = sock.recv(65536)
        assert more, 'closed after %r' % got
        got += more
    return seen() - before, got


def shards_of(pid):
    """Threads of a relay: those of its shards, as soon as it has some, and all others. One may end meanwhile."""
    names = {}
    for task in os.listdir('/proc/%d/task' % pid):
        try:
            with open('/proc/%d/task/%s/comm' % (pid, task), encoding='ascii') as file:
                names[int(task)] = file.read().strip()
        except OSError:
            pass
    shards = [task for task, name in names.items() if name.startswith('shard ')]
    return shards, [task for task in names if task not in shards]


class Postfix:
    """A Postfix with queue, data and configuration in the lab's folder. Needs root. No chroot, and no log: there is no syslog socket."""

    SERVICES = ('pickup unix n - n 60 1 pickup', 'cleanup unix n - n - 0 cleanup', 'qmgr unix n - n 300 1 qmgr',
                'rewrite unix - - n - - trivial-rewrite', 'bounce unix - - n - 0 bounce', 'defer unix - - n - 0 bounce',
                'trace unix - - n - 0 bounce', 'flush unix n - n 1000? 0 flush', 'proxymap unix - - n - - proxymap',
                'smtp unix - - n - 200 smtp', 'error unix - - n - - error', 'retry unix - - n - - error',
                'anvil unix - - n - 1 anvil', 'scache unix - - n - 1 scache', 'tlsmgr unix - - n 1000? 1 tlsmgr')

    def __init__(self, lab, address, port, main, services, prefix, reach):
        if os.geteuid() != 0:
            raise Skip('needs root')
        self.program, self.folder = tool('postfix'), lab.path('postfix')
        self.etc = os.path.join(self.folder, 'etc')
        for name in ('etc', 'queue', 'data', 'mail'):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        lab.write('postfix/etc/main.cf', '\n'.join([
            'compatibility_level = 3.6', 'queue_directory = %s/queue' % self.folder, 'data_directory = %s/data' % self.folder,
            'command_directory = /usr/sbin', 'daemon_directory = /usr/lib/postfix/sbin', 'meta_directory = /etc/postfix',
            'mail_owner = postfix', 'setgid_group = postdrop', 'inet_interfaces = 127.0.0.1', 'inet_protocols = ipv4',
            'mydestination =', 'mynetworks = 127.0.0.0/8', 'alias_maps ='] + list(main)) + '\n')
        lab.write('postfix/etc/master.cf', '\n'.join(['%s:%d inet n - n - 200 smtpd' % (address, port)] + list(self.SERVICES) +
                                                     list(services)) + '\n')
        subprocess.run(['chown', '-R', 'postfix', os.path.join(self.folder, 'data')], check=True)
        subprocess.run(['chown', '-R', '5000:5000', os.path.join(self.folder, 'mail')], check=True)
        done = subprocess.run(prefix + [self.program, '-c', self.etc, 'start'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              encoding='utf-8')
        assert done.returncode == 0, 'postfix start: ' + done.stdout
        atexit.register(self.stop)
        wait_until(lambda: reach(address, port), 'Postfix listens')

    def master_pid(self):
        with open(os.path.join(self.folder, 'queue/pid/master.pid'), encoding='ascii') as file:
            return int(file.read().strip())

    def stop(self):
        atexit.unregister(self.stop)
        subprocess.run([self.program, '-c', self.etc, 'stop'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


class Process:
    """A process that is no child of ours, with what is used of subprocess.Popen. How it ended is not known: 0."""

    def __init__(self, pid):
        self.pid, self.handle, self.returncode = pid, os.pidfd_open(pid), None

    def poll(self):
        if self.returncode is None and select.select([self.handle], [], [], 0)[0]:
            self.returncode = 0
        return self.returncode

    def wait(self, seconds=None):
        if self.returncode is None and not select.select([self.handle], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired('process %d' % self.pid, seconds)
        self.returncode = 0
        return 0

    def send_signal(self, number):
        if self.poll() is None:
            signal.pidfd_send_signal(self.handle, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Relay:
    def __init__(self, lab, text, name, prefix, reach, spool='', records='', kind='file'):
        self.lab, self.name, self.prefix, self.reach = lab, name, list(prefix), reach
        self.port = free_port()
        self.spool = lab.path(name + '-spool')
        self.records_file = lab.path(name + '-records.json')
        self.socket = lab.path(name + '.sock')
        os.makedirs(self.spool, exist_ok=True)
        if 'delivery:' not in text: # what most tests look at is on its way from the spool
            text += '\ndelivery: spool\n'
        self.config = lab.write(name + '.yaml', text.replace('@PORT@', str(self.port)).replace('@FOLDER@', lab.folder) + '''
spool: {directory: "%s"%s}
records: {%s: "%s"%s}
control: {socket: "%s"}
''' % (self.spool, ', ' + spool if spool else '', kind, self.records_file, ', ' + records if records else '', self.socket))
        self.child = None
        self.log_start = 0
        self.start()

    def start(self):
        self.log_start = len(self.lab.log(self.name + '.log'))
        self.child = self.lab.start(self.prefix + [os.path.join(BUILD, 'control/angariumd'), '-c', self.config], self.name + '.log')
        wait_until(lambda: self.child.poll() is not None or self.reach('127.0.0.1', self.port), 'the relay listens')
        if self.child.poll() is not None:
            raise AssertionError('the relay ended with %s:\n%s' % (self.child.returncode, self.lab.log(self.name + '.log')))

    def is_recovered(self):
        """Is the mail that this start found in the queue?"""
        return 'event=recovered:' in self.lab.log(self.name + '.log')[self.log_start:]

    def kill(self):
        return self.lab.stop(self.child, signal.SIGKILL)

    def stop(self, seconds=60):
        return self.lab.stop(self.child, signal.SIGTERM, seconds)

    def upgrade(self, *arguments):
        """A new process takes over; the old one is returned, and may still have something to end."""
        before = self.child
        self.cli('upgrade', self.config, *arguments)
        self.follow()
        return before

    def follow(self):
        """Whatever process is the relay now is meant from here on."""
        pid = self.status()['pid']
        if self.child.pid != pid:
            self.child = Process(pid)
            self.lab.children.append(self.child)

    def cli(self, *arguments):
        done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', self.socket] + list(arguments), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False, encoding='utf-8')
        if done.returncode != 0:
            raise AssertionError('angarium %s: %s' % (' '.join(arguments), done.stdout))
        return done.stdout

    def status(self):
        return json.loads(self.cli('status', '--json'))

    def records(self, kind=None):
        try:
            with open(self.records_file, encoding='utf-8') as file:
                rows = [json.loads(line) for line in file if line.endswith('\n')]
        except OSError:
            return []
        return [row for row in rows if kind is None or row['type'] == kind]
