#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reload under load: while angarium-load sends through the relay with a ledger on both sides, plain and by STARTTLS, the configuration changes again
and again: limits, routes, rules for sites, patterns, sources, certificates, DKIM keys, users, and a listener that comes and goes. Not a transaction
fails, nothing is lost, what was taken comes back, and a file with a mistake changes nothing on any core. With --long a thousand times."""
import json
import os
import socket
import subprocess
import time

from lab import BUILD, LONG, Lab, audit, can_connect, free_port, tool, wait_until

lab = Lab('reload')
TIMES = 1000 if LONG else 50
REFUSED_EACH = 25 if LONG else 5  # of so many reloads one is refused
CLIENTS = 6                       # connections that look at what is in force: all cores have some
SNAPSHOTS = 32                    # relay/settings.h
SIZE = 1000000
IS_SANITIZED = 'asan' in os.path.basename(os.path.realpath(BUILD))
sink_port, secure_port, more_port, taken_port = free_port(), free_port(), free_port(), free_port()
relay = sink = None

CONFIG = '''
hostname: relay.test
listen:
  - {address: "127.0.0.1:@PORT@", limits: {message_size: %(size)d, recipients: %(recipients)d}}
  - {address: "127.0.0.1:%(secure)d", tls: {certificate: "%(folder)s/tls%(certificate)d.pem", key: "%(folder)s/tls%(certificate)d.key"}}
%(more)s
dns: {resolvers: ["127.0.0.1:9"]}
cores: 2
%(routes)s
sites: [{match: one.test, rate: "%(rate)d/1s", connections: %(connections)d}, {match: "*", connections: %(connections)d}]
patterns: [{name: busy%(number)d, reply: "busy %(number)d", action: slow, connections: 1}]
patterns_file: "%(folder)s/patterns%(pattern)d.yaml"
%(sources)s
dkim: %(dkim)s
auth: {users_file: "%(folder)s/users%(certificate)d"}
'''


def make_files():
    for number in (0, 1):
        subprocess.run([tool('openssl'), 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj',
                        '/CN=relay%d.test' % number, '-keyout', lab.path('tls%d.key' % number), '-out', lab.path('tls%d.pem' % number)],
                       check=True, stderr=subprocess.DEVNULL)
        lab.write('patterns%d.yaml' % number, 'patterns: [{name: file%d, reply: "x{%d}", action: back_off}]\n' % (number, number + 1))
        os.chmod(lab.write('users%d' % number, 'alice%d@sender.test:!\n' % number), 0o600)
    subprocess.run([tool('openssl'), 'genpkey', '-algorithm', 'ed25519', '-out', lab.path('dkim0.key')], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([tool('openssl'), 'genrsa', '-out', lab.path('dkim1.key'), '2048'], check=True, stderr=subprocess.DEVNULL)


def config(number):
    """What changes is a different part each time; the SIZE in EHLO tells which one is in force."""
    hosts = 'hosts: [{host: 127.0.0.1, port: %d}]' % sink_port
    routes = ['{match: one.test, %s}' % hosts, '{match: "*.two.test", %s}' % hosts, '{match: "*", %s}' % hosts]
    routes += ['{match: "r%d.test", via: refuse, text: "not here"}' % i for i in range(number % 4)]
    dkim = [[], ['{domain: load.example, selector: s%d, key: "%s"}' % (number, lab.path('dkim%d.key' % (number // 3 % 2)))]][number % 3 > 0]
    return CONFIG % {
        'size': SIZE + number, 'recipients': 100 + number % 5, 'secure': secure_port, 'folder': lab.folder, 'certificate': number % 2, 'number': number,
        'more': '  - {address: "127.0.0.1:%d"}' % more_port if number % 2 else '', 'rate': 100000 + number, 'connections': 20 + number % 3,
        'routes': 'routes: [%s]' % ', '.join(routes[number % 2:2] + routes[:number % 2] + routes[2:]), 'pattern': number % 2,
        'sources': 'sources: [{name: first, addresses: [127.0.0.1]}, {name: second, addresses: [127.0.0.2], hello: second.test}]' if number % 4 == 3 else '',
        'dkim': '[%s]' % ', '.join(dkim)}


def mistakes(number):
    """(what the relay says of it, the file)"""
    good = config(number)
    rows = (('hostnames', good.replace('hostname:', 'hostnames:')),
            ('recipients', good.replace('recipients: ', 'recipients: 9999')),
            ('gone.pem', good.replace('tls%d.pem' % (number % 2), 'gone.pem')),
            ('key values mismatch', good.replace('tls%d.pem' % (number % 2), 'tls%d.pem' % (1 - number % 2))),
            ('patterns9', good.replace('patterns%d.yaml' % (number % 2), 'patterns9.yaml')),
            ('%d' % taken_port, good.replace(':%d"' % secure_port, ':%d"' % taken_port)),
            ('', 'hostname: [\n'),
            ('users9', good.replace('users%d' % (number % 2), 'users9')),
            ('rate', good.replace('/1s"', '/1y"')))
    return rows[number // REFUSED_EACH % len(rows)]


# ---- the relay ----

def write(text):
    path = relay.config
    with open(path, encoding='utf-8') as file:
        last = file.read().rsplit('\nspool:', 1)[1]
    with open(path + '.new', 'w', encoding='utf-8') as file:
        file.write(text.replace('@PORT@', str(relay.port)) + '\ndelivery: auto\nspool:' + last)
    os.replace(path + '.new', path)


def reload():
    """As `angarium reload`, without a process."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(relay.socket)
        client.sendall(b'{"verb":"reload"}\n')
        answer = b''.join(iter(lambda: client.recv(65536), b''))
    return json.loads(answer)


def size_of(port):
    with socket.create_connection(('127.0.0.1', port), 60) as client:
        lines = client.makefile('rwb')
        lines.readline()
        lines.write(b'EHLO probe.test\r\n')
        lines.flush()
        found = 0
        while (line := lines.readline())[3:4] == b'-' or line[:1] == b'2':
            found = int(line[9:]) if line[4:9] == b'SIZE ' else found
            if line[3:4] == b' ':
                break
        lines.write(b'QUIT\r\n')
        lines.flush()
        return found


def is_in_force(number):
    """On every core, and the listener that comes and goes is there or not."""
    return all(size_of(relay.port) == SIZE + number for _ in range(CLIENTS)) and can_connect('127.0.0.1', more_port) == (number % 2 == 1)


def reload_to(number):
    write(config(number))
    answer = reload()
    assert answer['ok'] is True, answer
    assert is_in_force(number), 'number %d was to be in force when the relay said so' % number


def stays(number, said, text):
    write(text)
    answer = reload()
    assert answer['ok'] is False and said in answer['error'], (said, answer)
    assert is_in_force(number), (said, 'number %d is no longer in force everywhere' % number)
    write(config(number))


def descriptors():
    """All but those of the spool's files, which are kept open or not as mail goes."""
    folder, count = '/proc/%d/fd' % relay.child.pid, 0
    for name in os.listdir(folder):
        try:
            count += not os.readlink(os.path.join(folder, name)).endswith('.spool')
        except OSError:
            pass
    return count


def resident_kb():
    with open('/proc/%d/status' % relay.child.pid, encoding='ascii') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('VmRSS'))


def at_rest():
    """Descriptors when nobody is connected: a reload lets go of idle connections to next hops."""
    wait_until(lambda: relay.status()['server']['open'] == 0, 'no session is open')
    wait_until(lambda: reload()['ok'], 'a reload')
    wait_until(lambda: relay.status()['client']['open'] == 0, 'no connection is open')
    return descriptors()


def start():
    global relay, sink
    make_files()
    sink = lab.load('sink', '-q', '-L', lab.path('got'), '127.0.0.1:%d' % sink_port, log='sink.log')
    wait_until(lambda: can_connect('127.0.0.1', sink_port), 'the sink')
    relay = lab.relay(config(0) + 'delivery: auto\n')


def source(name, *arguments):
    return lab.load('source', '-q', '-t', 36000, '-c', 7, '-d', 'one.test,a.two.test,three.test', '-L', lab.path(name), *arguments)


@lab.check('%d reloads under load: no transaction fails, nothing is lost, and a file with a mistake changes nothing' % TIMES)
def many():
    start()
    lab.load('source', '-q', '-m', 20, '-d', 'one.test', '-L', lab.path('sent-first'), '127.0.0.1:%d' % relay.port).wait(60)
    before = at_rest()
    taken_socket = socket.create_server(('127.0.0.1', taken_port))
    sources = [source('sent', '-s', 4, '-R', 150, '127.0.0.1:%d' % relay.port),
               source('sent-secure', '-s', 2, '-R', 50, '--starttls', '127.0.0.1:%d' % secure_port)]
    refused, resident = 0, 0
    for number in range(1, TIMES + 1):
        reload_to(number)
        if number % REFUSED_EACH == 0:
            stays(number, *mistakes(number))
            refused += 1
        if number == TIMES // 5:
            resident = resident_kb()
        time.sleep(0.02)
    grown = resident_kb() - resident
    for child in sources:
        assert lab.stop(child) == 0, lab.log('load.log')[-2000:]
    taken_socket.close()
    wait_until(lambda: relay.status()['queue']['messages'] == 0, 'the queue is empty')
    said = audit(lab.path('sent-first'), lab.path('sent'), lab.path('sent-secure'), lab.path('got'))
    counts = dict((word.split(' ')[0], int(word.split(' ')[1])) for word in said.replace('(', '').replace(')', '').replace(',', '\n').split('\n')
                  for word in [word.strip()] if word)
    wrong = {name: counts[name] for name in ('lost', 'duplicated', 'damaged', 'ghosts') if counts[name]}
    assert not wrong and counts['acknowledged'] == counts['sent'] == counts['delivered'] > TIMES, said
    assert at_rest() <= before, (at_rest(), before)
    if not IS_SANITIZED:
        # What mail has not touched before grows by 1.8 kB a message, until 9,000 or so have passed; what one reload makes is some 150 kB.
        assert grown < 3000 + min(2 * counts['sent'], 20000), 'resident memory grew by %d kB in %d reloads' % (grown, TIMES - TIMES // 5)
    return '%d messages, %d refused files, %d kB more' % (counts['sent'], refused, grown)


@lab.check('a session keeps one snapshot, not those that came after it; too many of them are refused, and nothing changes')
def kept():
    """This is the control of the check before, too: clients that stay are a leak of descriptors, and are seen."""
    before, clients = at_rest(), []
    for number in range(TIMES + 1, TIMES + SNAPSHOTS):
        reload_to(number)
        clients.append(socket.create_connection(('127.0.0.1', relay.port), 60))
        assert clients[-1].recv(100).startswith(b'220')
    number = TIMES + SNAPSHOTS - 1
    assert descriptors() >= before + len(clients), 'a leak is not seen'
    stays(number, 'earlier configurations', config(number + 1))
    clients.pop(3).close()
    wait_until(lambda: reload()['ok'], 'one is let go of, and another fits')
    for client in clients[:-1]:
        client.close()
    oldest = clients[-1]
    for again in range(number, number + 2 * SNAPSHOTS):
        wait_until(lambda again=again: (write(config(again)), reload()['ok'])[1], 'reload %d beside an old session' % again)
    oldest.sendall(b'NOOP\r\n')
    assert oldest.recv(100).startswith(b'250')
    oldest.close()
    assert at_rest() <= before, (at_rest(), before)


@lab.check('a file that is empty for a moment is not taken for the defaults')
def empty():
    with open(relay.config, encoding='utf-8') as file:
        text = file.read()
    for what, is_ok in (('', False), ('# nothing\n' + text, True)):
        with open(relay.config, 'w', encoding='utf-8') as file:
            file.write(what)
        answer = reload()
        assert answer['ok'] is is_ok and (is_ok or 'is empty' in answer['error']), answer


@lab.check('a pipe where a file is named is refused, and keeps nobody waiting')
def pipes():
    os.mkdir(lab.path('conf.d'))
    with open(relay.config, 'a', encoding='utf-8') as file:
        file.write('\ninclude: [conf.d/*.yaml]\n')
    assert reload()['ok'], 'a folder without files'
    with open(relay.config, encoding='utf-8') as file:
        text = file.read()
    named = [name for name in sorted(os.listdir(lab.folder)) if '"%s"' % lab.path(name) in text and name.startswith(('tls', 'users', 'patterns', 'dkim'))]
    assert len(named) >= 4, named
    for name in ['conf.d/new.yaml'] + named:
        path = lab.path(name)
        if os.path.exists(path):
            os.rename(path, path + '.kept')
        os.mkfifo(path, 0o600)
        begun = time.monotonic()
        answer = reload()
        assert not answer['ok'] and os.path.basename(name) in answer['error'], (name, answer)
        assert time.monotonic() - begun < 5, name
        os.unlink(path)
        if os.path.exists(path + '.kept'):
            os.rename(path + '.kept', path)
        assert reload()['ok'], name


@lab.check('it ends well, and no memory is left')
def end():
    lab.stop(sink)
    assert relay.stop() == 0, relay.child.returncode
    log = lab.log('relay.log')
    assert 'Sanitizer' not in log and 'runtime error' not in log, log[-3000:]


lab.run()
