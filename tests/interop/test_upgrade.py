#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A running relay is upgraded: a new process takes its place under load, with other cores, while transactions are open, and with either of both
killed; no transaction fails and no mail is lost. What a plain restart does is the control: that is seen."""
import base64
import contextlib
import fcntl
import http.server
import json
import os
import re
import signal
import socket
import socketserver
import struct
import subprocess
import threading
import time
import urllib.request

from lab import BUILD, LONG, Lab, Skip, audit, can_connect, free_port, send_letters, wait_until

lab = Lab('upgrade')
MX = free_port()
HTTP = free_port()
TEXT = '''
hostname: relay.test
cores: %d
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
destinations: {allow: [127.0.0.0/8]}
dns: {resolvers: ["127.0.0.1"]}
routes: [{match: "*", via: hosts, hosts: [{host: 127.0.0.1, port: %d}]}]
sites: [{match: "slow.test", rate: "4/1h"}]
http: {listen: "127.0.0.1:%d", open_metrics: true}
upgrade_timeout: 20s
'''
SMALL = 'size: 256MB, segment: 4MiB, reserve: 8MiB'
relay = lab.relay(TEXT % (2, MX, HTTP), spool=SMALL)
sink_ledger = lab.path('sink.ledger')
lab.load('sink', '-q', '-L', sink_ledger, '127.0.0.1:%d' % MX, log='sink.log')
wait_until(lambda: can_connect('127.0.0.1', MX), 'the sink listens')


ledgers = []  # of all that was sent


class Talk:
    """A session with a transaction that waits for its letter."""

    def __init__(self, recipient, port=None):
        self.sock = socket.create_connection(('127.0.0.1', port or relay.port), 60)
        self.lines = self.sock.makefile('rb')
        assert self.line().startswith('220')
        for command in ('HELO client.test', 'MAIL FROM:<a@client.test>', 'RCPT TO:<%s>' % recipient):
            assert self.say(command).startswith('250'), command

    def line(self):
        return self.lines.readline().decode()

    def say(self, command):
        self.sock.sendall(command.encode() + b'\r\n')
        return self.line()

    def end(self):
        return self.say('DATA') + self.say('Subject: x\r\n\r\nx\r\n.')


def is_ready(name='relay'):
    """The last upgrade is over, and the mail that it found is in the queue."""
    log = lab.log(name + '.log')
    begun, over = log.rfind('event=upgrade enter'), log.rfind('event=recovered:')
    return over > begun


def started_for(config):
    """Processes of ours that were to take the place of the relay with this configuration."""
    found = []
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/cmdline' % name, encoding='utf-8', errors='replace') as file:
                words = file.read().split('\0')
        except OSError:
            continue
        if config in words and '-u' in words:
            found.append(int(name))
    return found


def upgrade(cores=2):
    lab.write('relay.yaml', re.sub(r'cores: \d', 'cores: %d' % cores, lab.log('relay.yaml')))
    before = relay.upgrade()
    return before


def cores():
    return relay.status()['cores']


def source(seconds, name, *more):
    ledger = lab.path(name + '.ledger')
    ledgers.append(ledger)
    return lab.load('source', '-q', '-t', seconds, '-R', 150, '-s', 8, '-l', '4k', '-d', name + '.test', '-L', ledger, *more,
                            '127.0.0.1:%d' % relay.port, log=name + '.log')


def figure(name, pattern):
    return int(re.search(pattern, lab.log(name + '.log'))[1])


def drain_queue():
    wait_until(lambda: is_ready() and relay.status()['queue']['messages'] == 0, 'all is delivered')


hung, stopped = [], []  # (relay, its old process), looked at by the last check


@lab.check('two relays whose old processes will not end by themselves are upgraded')
def begin_hung():
    fifo = lab.path('hung-records.json')
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    for place, name, timeout in ((hung, 'hung', '100ms'), (stopped, 'stopped', '3s')):
        one = lab.relay(TEXT.replace('http:', '#').replace('timeout: 20s', 'timeout: ' + timeout) % (1, MX, 0), name=name, spool=SMALL)
        wait_until(lambda: one.is_recovered(), 'it has looked for mail') # pylint: disable=cell-var-from-loop
        if name == 'hung':
            send_letters(one.port, ['u%d@hung.test' % number for number in range(20)]) # more records than the pipe takes
            wait_until(lambda: one.status()['client']['accepted'] == 20, 'all are delivered') # pylint: disable=cell-var-from-loop
            place += [one, one.upgrade()]
        else:
            busy = Talk('b@open.test', one.port)
            place += [one, one.upgrade()]
            place[1].send_signal(signal.SIGSTOP)
            busy.sock.close()


@lab.check('upgraded four times under load, with other cores each time: no transaction fails, nothing is lost or delivered twice')
def under_load():
    child = source(5, 'load')
    for number in (1, 3, 2, 2):
        time.sleep(0.4)
        before = upgrade(number)
        assert before.wait(60) == 0
        wait_until(is_ready, 'the upgrade is over')
        assert cores() == number
    assert child.wait(60) == 0, lab.log('load.log')
    assert figure('load', r'refused: (\d+) 4xx') == 0 and figure('load', r'4xx, (\d+) 5xx') == 0, lab.log('load.log')
    assert figure('load', r'connections lost: \d+, refused: (\d+)') == 0, lab.log('load.log')
    drain_queue()
    result = audit(*ledgers, sink_ledger)
    assert re.search(r'lost 0, duplicated 0, damaged 0, ghosts 0 .*unknown 0', result), result
    return result


@lab.check('control: a relay that closes its sockets and opens them anew is seen to refuse connections')
def restart_is_seen():
    child = source(600, 'restart', '-c', 1)
    wait_until(lambda: lab.log('restart.ledger'), 'mail flows')
    relay.stop()
    time.sleep(0.2)
    relay.start()
    lab.stop(child)
    assert figure('restart', r'connections lost: \d+, refused: (\d+)') > 0, lab.log('restart.log')
    wait_until(relay.is_recovered, 'it has found its mail')
    drain_queue()
    result = audit(*ledgers, sink_ledger)
    assert 'lost 0, duplicated 0' in result, result


@lab.check('upgraded while files of records are turned over all the time: webhooks get every record')
def records():
    taken = set()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            taken.update(row['event'] for row in json.loads(self.rfile.read(int(self.headers['Content-Length']))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Receiver)
    threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True).start()
    text = TEXT.replace('http:', '#') % (1, MX, 0)
    one = lab.relay(text + 'webhooks: [{name: all, url: "http://127.0.0.1:%d/", batch_time: 50ms}]' % receiver.server_address[1], name='turned',
                    spool=SMALL, records='rotate_size: 8KiB, keep: 2000')
    wait_until(one.is_recovered, 'it has looked for mail')
    ledgers.append(lab.path('turned.ledger'))
    child = lab.load('source', '-q', '-m', 400, '-R', 100, '-s', 4, '-l', '4k', '-d', 'turned.test', '-L', ledgers[-1], '127.0.0.1:%d' % one.port, log='turned.load')
    for _ in range(2):
        time.sleep(0.5)
        busy = Talk('b@turned.test', one.port)
        before = one.upgrade()
        time.sleep(0.7) # both write
        busy.end()
        before.wait(60)
        wait_until(lambda: is_ready('turned'), 'the upgrade is over, and mail of the old process is found')
    assert child.wait(60) == 0
    wait_until(lambda: one.status()['queue']['messages'] == 0, 'all is delivered')
    one.stop()
    files = [name for name in os.listdir(lab.folder) if name.startswith('turned-records.json')]
    written = {json.loads(line)['event'] for name in files for line in lab.log(name).splitlines()}
    assert len(files) > 20 and len(written) > 400, (len(files), len(written))
    one.start()
    wait_until(lambda: one.status()['webhooks']['waiting'] == 0 and written <= taken, '%d of %d are taken' % (len(written & taken), len(written)))
    one.stop()
    receiver.shutdown()
    return '%d records in %d files' % (len(written), len(files))


@lab.check('an open transaction ends in the old process; meanwhile the new one takes mail and delivers none; then it delivers both')
def transaction():
    busy = Talk('b@open.test')
    before = upgrade()
    late = Talk('c@late.test')
    assert '250' in late.end()
    assert urllib.request.urlopen('http://127.0.0.1:%d/metrics' % HTTP, timeout=60).status == 200
    again = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, 'upgrade', relay.config], stderr=subprocess.PIPE,
                           encoding='utf-8', timeout=60, check=False)
    assert again.returncode == 1 and 'the upgrade before is not over' in again.stderr, again
    time.sleep(0.7)
    assert not [row for row in relay.records('delivery') if row['recipient'] == 'c@late.test'], 'delivered while the old process was there'
    assert before.poll() is None and relay.status()['queue']['messages'] == 1
    assert '250' in busy.end() and busy.line().startswith('421') and busy.line() == ''
    assert before.wait(60) == 0
    wait_until(lambda: [row for row in relay.records('delivery') if row['recipient'] in ('b@open.test', 'c@late.test')][1:], 'both are delivered')
    assert 'upgrade_timeout is over' not in lab.log('relay.log'), 'it waited for more than the transaction'


@lab.check('a transaction that does not end is dismissed with 421 when upgrade_timeout is over')
def bound():
    lab.write('relay.yaml', lab.log('relay.yaml').replace('upgrade_timeout: 20s', 'upgrade_timeout: 1s'))
    relay.cli('reload')
    busy = Talk('b@open.test')
    before = upgrade()
    assert busy.line().startswith('421') and busy.line() == ''
    assert before.wait(60) == 0
    lab.write('relay.yaml', lab.log('relay.yaml').replace('upgrade_timeout: 1s', 'upgrade_timeout: 20s'))
    relay.cli('reload')
    wait_until(is_ready, 'the upgrade is over')


@lab.check('a new process that cannot start changes nothing, and says why')
def mistakes():
    pid = relay.status()['pid']

    def fails(word, *arguments):
        done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, 'upgrade', *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding='utf-8', timeout=60, check=False)
        assert done.returncode == 1 and word in done.stdout, done
        assert relay.status()['pid'] == pid

    good = lab.log('relay.yaml')
    fails('unknown key "coers"', lab.write('bad.yaml', good + 'coers: 1\n'))
    fails('cannot listen on 127.0.0.1:%d' % MX, lab.write('bad.yaml', good.replace('listen: [', 'listen: [{address: "127.0.0.1:%d"}, ' % MX)))
    fails('spool: {directory} is another', lab.write('bad.yaml', good.replace('relay-spool', 'other-spool')))
    os.mkdir(lab.path('other-spool'))
    fails('spool: {directory} is another', lab.path('bad.yaml'))
    assert '/other-spool' in lab.log('bad.yaml') and not os.listdir(lab.path('other-spool'))
    fails('', relay.config, '--program', '/bin/false')
    fails('cannot run', relay.config, '--program', lab.path('none'))
    relay.cli('drain')
    fails('end that first', relay.config)
    relay.cli('drain', 'end')
    assert 'this process goes on' in lab.log('relay.log')
    talk = Talk('b@open.test')
    assert '250' in talk.end()


class Link:
    """A process that says it wants to take the place, and has the link."""

    MAGIC, OFFERED, READY, GO = b'angarium upgrade 1\n', 2, 3, 4

    def __init__(self):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(relay.socket)
            control.sendall(b'{"verb":"upgrade"}\n')
            _, fds, _, _ = socket.recv_fds(control, 1, 1)
        self.sock = socket.socket(fileno=fds[0])
        self.sock.settimeout(60)
        while self.hear() not in (self.OFFERED, None):
            pass

    def hear(self):
        """Kind of the next message; None: the link is at its end."""
        octets, fds, _, _ = socket.recv_fds(self.sock, 4096, 64)
        for one in fds:
            os.close(one)
        return struct.unpack_from('<I', octets, 24)[0] if octets else None

    def say(self, kind):
        self.sock.send(self.MAGIC.ljust(24, b'\0') + struct.pack('<IIQ', kind, 0, 1) + bytes(128 + 256))


def refused(*arguments):
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding='utf-8', timeout=60, check=False)
    assert done.returncode == 1, done
    return done.stdout


def can_reload():
    """Not while the relay has yet to see that who wanted the place has gone."""
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, 'reload'], stdout=subprocess.PIPE, timeout=60, check=False,
                          encoding='utf-8')
    return 'reloaded' in done.stdout


@lab.check('what only the old process would hear of is refused while a new one starts: a reload; and an upgrade when no mail is taken')
def window():
    pid = relay.status()['pid']
    link = Link()
    assert 'an upgrade is under way' in refused('reload')
    relay.cli('drain')
    link.say(Link.READY)
    assert link.hear() is None and 'given up: no mail is taken' in lab.log('relay.log')
    relay.cli('drain', 'end')
    assert 'reloaded' in relay.cli('reload')

    link = Link()
    link.say(Link.READY)
    assert link.hear() == Link.GO
    assert 'ask again when it is over' in refused('drain') # the new process would take mail, and know of nothing
    link.sock.close()
    wait_until(can_reload, 'it goes on')
    assert relay.status()['pid'] == pid
    assert 'no new mail is taken' in relay.cli('drain') and 'taken again' in relay.cli('drain', 'end')


@lab.check('a new process that does not get on keeps the place from nobody for long')
def patience():
    if not LONG:
        raise Skip('takes three minutes')
    wait_until(is_ready, 'it has looked for mail')
    link = Link()
    assert 'another upgrade is under way' in refused('upgrade', relay.config)
    link.sock.settimeout(200)
    assert link.hear() is None and 'given up: the new process does not get on' in lab.log('relay.log')
    upgrade()
    wait_until(is_ready, 'an upgrade is possible again')


@lab.check('orders and limits hold across it: a site that had its share gets no more')
def limits():
    relay.cli('hold', 'domain=held.test', '--duration', '1h')
    send_letters(relay.port, ['u%d@slow.test' % i for i in range(10)])
    wait_until(lambda: json.loads(relay.cli('site', 'show', '--json'))['rows'], 'a site is known')
    wait_until(lambda: relay.status()['client']['accepted'] >= 4, 'four are delivered')
    before = upgrade()
    assert before.wait(60) == 0
    wait_until(is_ready, 'the upgrade is over')
    relay.cli('retry', 'all')
    time.sleep(0.7)
    assert relay.status()['queue']['messages'] == 6, 'the rate was forgotten'
    assert 'held.test' in relay.cli('queue', 'orders')
    relay.cli('delete', 'domain=slow.test', '--reason', 'the test is over')


class Mute(socketserver.StreamRequestHandler):
    """A next hop that never answers a letter."""

    letters = 0

    def handle(self):
        with contextlib.suppress(OSError):
            self.wfile.write(b'220 mute.test\r\n')
            for line in self.rfile:
                is_data = line.upper().startswith(b'DATA')
                self.wfile.write(b'354 go\r\n' if is_data else b'250 well\r\n')
                if is_data:
                    break
            for line in self.rfile:
                Mute.letters += line == b'.\r\n'


@lab.check('limits hold also when a delivery is under way that does not end, in an upgrade and in a stop')
def hanging():
    mute = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Mute)
    mute.daemon_threads = True
    threading.Thread(target=mute.serve_forever, args=(0.05,), daemon=True).start()
    text = TEXT.replace('routes: [', 'routes: [{match: mute.test, via: hosts, hosts: [{host: 127.0.0.1, port: %d}]}, ' % mute.server_address[1])
    text = text.replace('4/1h', '2/5m').replace('http:', '#').replace('upgrade_timeout: 20s', 'upgrade_timeout: 100ms\nshutdown_timeout: 100ms')
    one = lab.relay(text % (1, MX, 0), name='mute', spool=SMALL)
    wait_until(one.is_recovered, 'it has looked for mail')
    send_letters(one.port, ['u%d@slow.test' % i for i in range(3)] + ['u@mute.test'])
    wait_until(lambda: Mute.letters == 1 and one.status()['client']['accepted'] == 2, 'two are delivered, one is under way')
    assert one.upgrade().wait(60) == 0
    wait_until(lambda: 'event=upgrade over' in lab.log('mute.log'), 'the upgrade is over')
    assert 'upgrade_timeout is over' in lab.log('mute.log')
    wait_until(lambda: one.status()['queue']['messages'] == 2, 'the rest is found')
    one.cli('retry', 'domain=slow.test')
    time.sleep(0.5)
    assert one.status()['client']['accepted'] == 0, 'the rate was forgotten'
    wait_until(lambda: Mute.letters == 2, 'it is tried again')
    one.stop()
    assert 'shutdown_timeout is over' in lab.log('mute.log')
    one.start()
    wait_until(lambda: one.status()['queue']['messages'] == 2, 'all is found')
    one.cli('retry', 'domain=slow.test')
    time.sleep(0.5)
    assert one.status()['client']['accepted'] == 0, 'the rate was forgotten'
    one.stop()
    mute.shutdown()


class Refuser(socketserver.StreamRequestHandler):
    """A next hop that says 421 to every letter."""

    def handle(self):
        with contextlib.suppress(OSError): # the relay may be gone
            self.wfile.write(b'220 full.test\r\n')
            for line in self.rfile:
                self.wfile.write(b'421 4.3.2 not now\r\n' if line.upper().startswith(b'MAIL') else b'250 well\r\n')


KEPT = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@", auth: optional, brakes: {errors_per_minute: 4}}]
auth: {users_file: "@FOLDER@/users", plaintext: loopback, user_failures: "2/1h"}
relay_from: [127.0.0.1/32]
destinations: {allow: [127.0.0.0/8]}
dns: {resolvers: ["127.0.0.1"]}
routes:
  - {match: full.test, via: hosts, hosts: [{host: 127.0.0.1, port: %d}]}
  - {match: "*", via: hosts, hosts: [{host: 127.0.0.1, port: %d}]}
retry: {min: 1h}
upgrade_timeout: 20s
'''


def answers(port, address, *commands):
    """What a client at this address hears, from the greeting on; less where it is dismissed."""
    with socket.create_connection(('127.0.0.1', port), 60, (address, 0)) as client:
        lines = client.makefile('rwb')
        heard = []
        for command in ('',) + commands:
            lines.write(command.encode() + b'\r\n' if command else b'')
            lines.flush()
            while (line := lines.readline())[3:4] == b'-':
                pass
            heard.append(line[:3].decode())
            if heard[-1] in ('', '421'):
                break
        return heard


def braked(port):
    """Is the network that made errors turned away, and the one that guessed not asked any more? Others are let in."""
    guess = 'AUTH PLAIN ' + base64.b64encode(b'\0alice@sender.test\0wrong').decode()
    heard = [answers(port, '127.0.0.4', 'HELO x'), answers(port, '127.0.0.2'), answers(port, '127.0.0.3', 'EHLO x', guess)]
    assert heard == [['220', '250'], ['421'], ['220', '250', '454']], heard
    return True


@lab.check('under load: a client network that is braked, and one that guessed passwords, still are, in the new process and behind two restarts; '
           'of a site the relay knows what it knew')
def kept():
    refuser = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Refuser)
    threading.Thread(target=refuser.serve_forever, args=(0.05,), daemon=True).start()
    hashed = subprocess.run([os.path.join(BUILD, 'control/angarium'), 'user', 'hash'], input='right\n', capture_output=True, check=True,
                            encoding='utf-8').stdout.strip()
    lab.secret('users', 'alice@sender.test:%s\n' % hashed)
    one = lab.relay(KEPT % (refuser.server_address[1], MX), name='kept', spool=SMALL)
    wait_until(one.is_recovered, 'it has looked for mail')

    def learned():
        rows = [row for row in json.loads(one.cli('site', 'show', '--json'))['rows'] if row['home']]
        return sorted((row['site'], row['key'], row['connections_allowed'], row['allowed_reason']) for row in rows
                      if row['allowed_reason'].startswith('halved'))

    ledgers.append(lab.path('kept.ledger'))
    child = lab.load('source', '-q', '-t', 2, '-R', 100, '-s', 4, '-l', '4k', '-d', 'kept.test', '-L', ledgers[-1], '127.0.0.1:%d' % one.port,
                     log='kept.load')
    send_letters(one.port, ['u@full.test'])
    before = wait_until(learned, 'it has learned that one takes less')
    guess = 'AUTH PLAIN ' + base64.b64encode(b'\0alice@sender.test\0wrong').decode()
    heard = [answers(one.port, '127.0.0.3', 'EHLO x', guess, guess), answers(one.port, '127.0.0.2', *(6 * ['NOSUCH']))]
    assert heard == [['220', '250', '535', '535'], ['220'] + 5 * ['500'] + ['421']], heard
    assert braked(one.port)
    busy = Talk('b@kept.test', one.port)
    old = one.upgrade()
    assert braked(one.port), 'forgotten while both are there'
    assert '250' in busy.end()
    assert old.wait(60) == 0 and child.wait(60) == 0
    wait_until(lambda: 'event=upgrade over' in lab.log('kept.log'), 'the upgrade is over')
    assert braked(one.port) and learned() == before, (before, one.cli('site', 'show'))
    one.kill()
    one.start()
    guess = answers(one.port, '127.0.0.3', 'EHLO x', guess)
    assert guess[2] == '454', guess
    assert learned() == before, 'forgotten by who was killed'
    assert answers(one.port, '127.0.0.2', *(6 * ['NOSUCH']))[-1] == '421'
    one.stop()
    one.start()
    assert braked(one.port) and learned() == before, 'forgotten in a restart'
    wait_until(lambda: one.status()['queue']['messages'] == 1, 'all but one is delivered')
    one.stop()
    refuser.shutdown()
    return 'allowed %d' % before[0][2]


def cpu_time(pid):
    with open('/proc/%d/stat' % pid, encoding='ascii') as file:
        return sum(map(int, file.read().rsplit(')', 1)[1].split()[11:13])) / os.sysconf('SC_CLK_TCK')


@lab.check('killed: the old process while it ends what it has begun; the new one before and after it took over')
def killed():
    child = source(4, 'killed')
    busy = Talk('b@open.test')
    before = upgrade()
    before.send_signal(signal.SIGKILL) # its open transaction is lost, and was not acknowledged
    wait_until(is_ready, 'the new process has the old one\'s mail')
    assert busy.line() == ''

    pid = relay.status()['pid'] # a new process that dies at a random moment of its start: the old one goes on
    for moment in (0.001, 0.003, 0.006, 0.01):
        starter = subprocess.Popen([os.path.join(BUILD, 'control/angariumd'), '-c', relay.config, '-u'], stderr=subprocess.DEVNULL)
        time.sleep(moment)
        for process in started_for(relay.config):
            if process not in (starter.pid, pid):
                os.kill(process, signal.SIGKILL)
        starter.wait(60)
        if starter.returncode == 0: # it was quicker than we
            break
    relay.follow()
    if relay.child.pid == pid:
        busy = Talk('b@open.test') # so that the old one stays
        before = upgrade()
        relay.child.send_signal(signal.SIGKILL)
        relay.child.wait(60)
        used = cpu_time(before.pid)
        time.sleep(0.5)
        assert cpu_time(before.pid) - used < 0.25, 'the old process spins'
        before.send_signal(signal.SIGKILL)
        before.wait(60)
    relay.kill()
    relay.start()
    wait_until(relay.is_recovered, 'it has found its mail')
    child.wait(60)
    wait_until(lambda: relay.status()['queue']['messages'] == 0, 'all is delivered')
    result = audit(*ledgers, sink_ledger)
    assert 'lost 0,' in result and 'damaged 0, ghosts 0' in result, result
    return result


def order(*arguments):
    done = subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', relay.socket, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding='utf-8', timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout


@lab.check('a service manager hears which process is the relay now, and is told by that one from then on')
def managed():
    relay.stop()
    said = []  # (process, field)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(lab.path('notify'))
    manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def hear():
        while True:
            text, ancillary, _, _ = manager.recvmsg(4096, 1024)
            said.extend((int.from_bytes(ancillary[0][2][:4], 'little'), field) for field in text.decode().splitlines())

    threading.Thread(target=hear, daemon=True).start()
    os.environ.update(NOTIFY_SOCKET=lab.path('notify'), WATCHDOG_USEC='400000')
    relay.start()
    del os.environ['NOTIFY_SOCKET'], os.environ['WATCHDOG_USEC']
    old = relay.child.pid
    wait_until(relay.is_recovered, 'it has looked for mail')
    assert 'reloaded' in order('reload', '--or-upgrade', relay.config) and relay.status()['pid'] == old
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(relay.socket)
        control.sendall(b'{"verb":"upgrade","want":true}\n')
        assert b'"ok":true' in control.recv(1000)
    assert 'takes mail' in order('reload', '--or-upgrade', relay.config)
    new = relay.status()['pid']
    relay.child.wait(60)
    relay.follow()
    assert new != old
    wait_until(lambda: (old, 'MAINPID=%d' % new) in said and said.count((new, 'WATCHDOG=1')) > 1, 'the new process feeds: %s' % said)
    assert not [field for pid, field in said[said.index((old, 'MAINPID=%d' % new)) + 1:] if pid == old], said
    assert (old, 'STOPPING=1') not in said, said
    assert not [field for pid, field in said[:said.index((old, 'MAINPID=%d' % new))] if pid == new], 'told before its time: %s' % said
    relay.stop()
    wait_until(lambda: (new, 'STOPPING=1') in said, 'the manager hears of the stop: %s' % said)


@lab.check('an old process that hangs is ended by its alarm; of one that is stopped the log says so; then mail goes out')
def end_hung():
    assert hung[1].wait(60) in (0, -signal.SIGALRM)
    wait_until(lambda: 'event=upgrade over' in lab.log('hung.log'), 'the new process delivers')
    hung[0].kill()
    wait_until(lambda: 'event=upgrade late: the process before, %d,' % stopped[1].pid in lab.log('stopped.log'), 'the log tells')
    assert 'event=upgrade over' not in lab.log('stopped.log')
    stopped[1].send_signal(signal.SIGKILL)
    wait_until(lambda: 'event=upgrade over' in lab.log('stopped.log'), 'the new process delivers')


lab.run()
