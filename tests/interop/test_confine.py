#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of every thread of a running relay: user, capabilities, filter of system calls; and that a relay so confined works."""
import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import BUILD, Lab, Skip, can_connect, free_port, send_letters, wait_until  # pylint: disable=wrong-import-position

lab = Lab('confine')
USER = 'nobody'
IS_SANITIZED = 'asan' in BUILD


def angarium(folder, *arguments):
    return subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', os.path.join(folder, 'control'), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding='utf-8', timeout=60, check=False)


def start(name, port, confine, user=USER):
    if os.geteuid() != 0:
        raise Skip('not root')
    folder = lab.path(name)
    os.mkdir(folder)
    shutil.chown(folder, user)
    config = lab.write(name + '.yaml', '''
hostname: relay.test
cores: 2
listen: [{address: "127.0.0.1:%d"}]
spool: {directory: "%s/spool", size: 2GiB}
control: {socket: "%s/control"}
records: {file: "%s/records", rotate_size: 1kB}
dns: {resolvers: ["127.0.0.1:%d"]}
http: {listen: "127.0.0.1:%d", open_metrics: true}
confine: {%s}
''' % (port, folder, folder, folder, free_port(), free_port(), confine))
    child = lab.start([os.path.join(BUILD, 'control/angariumd'), '-c', config], name + '.log')
    wait_until(lambda: can_connect('127.0.0.1', port), 'the relay')
    wait_until(lambda: angarium(folder, 'status').returncode == 0, 'its control socket')
    return child, folder, config


def threads(child):
    """The fields of /proc/PID/task/TID/status of each thread; those that look for mail of earlier runs may end meanwhile."""
    folder, found = '/proc/%d/task' % child.pid, []
    for thread in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(os.path.join(folder, thread, 'status'), encoding='utf-8') as file:
            found.append(dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line))
    return found


def check_threads(child, capabilities):
    user = pwd.getpwnam(USER)
    # The filter comes last, when the shards have begun to serve.
    wait_until(lambda: IS_SANITIZED or all(thread['Seccomp'] == '2' for thread in threads(child)), 'the filter is in force')
    found = threads(child)
    assert len(found) > 4, len(found)
    for thread in found:
        where = thread['Name']
        assert thread['Uid'].split() == 4 * [str(user.pw_uid)] and thread['Gid'].split() == 4 * [str(user.pw_gid)], (where, thread['Uid'], thread['Gid'])
        for field, wanted in (('CapEff', capabilities), ('CapPrm', capabilities), ('CapBnd', 0), ('CapInh', 0), ('CapAmb', 0)):
            assert int(thread[field], 16) == wanted, (where, field, thread[field])
        assert thread['NoNewPrivs'] == '1', where
        assert IS_SANITIZED or thread['Seccomp'] == '2', (where, thread['Seccomp'])


@lab.check('every thread is the user, without any capability, behind the filter; status says so')
def confined():
    port = free_port()
    child, folder, _ = start('plain', port, 'user: ' + USER)
    send_letters(port, ['b@far.test'])
    check_threads(child, 0)
    posture = json.loads(angarium(folder, 'status', '--json').stdout)['confinement']
    assert posture == {'user': USER, 'capabilities': [], 'no_new_privileges': True, 'system_calls_filtered': not IS_SANITIZED, 'dumpable': False}, posture
    assert os.stat(os.path.join(folder, 'records')).st_uid == pwd.getpwnam(USER).pw_uid


@lab.check('it works: mail, records that are turned over, a reload with a new listener, a drain')
def works():
    port, more = free_port(), free_port()
    child, folder, config = start('works', port, 'user: ' + USER)
    for _ in range(20):
        send_letters(port, ['b@far.test'])
    wait_until(lambda: os.path.exists(os.path.join(folder, 'records.3')), 'records to be turned over')
    with open(config, encoding='utf-8') as file:
        text = file.read()
    with open(config, 'w', encoding='utf-8') as file:
        file.write(text.replace('listen: [{', 'listen: [{address: "127.0.0.1:%d"}, {' % more))
    done = angarium(folder, 'reload')
    assert done.returncode == 0, done.stdout
    wait_until(lambda: can_connect('127.0.0.1', more), 'the new listener')
    send_letters(more, ['b@far.test'])
    assert json.loads(angarium(folder, 'status', '--json').stdout)['queue']['messages'] == 21
    assert lab.stop(child) == 0
    assert 'stop' in lab.log('works.log') and 'error' not in lab.log('works.log'), lab.log('works.log')


@lab.check('a port below 1024 keeps the one capability that opens it anew')
def low_port():
    port = next((p for p in range(700, 1000) if not can_connect('127.0.0.1', p)), None)
    child, _, _ = start('low', port, 'user: ' + USER)
    send_letters(port, ['b@far.test'])
    check_threads(child, 1 << 10)  # CAP_NET_BIND_SERVICE


@lab.check('without one it is given up: a reload that adds one is refused, says that it needs a restart, and changes nothing; a restart does it')
def low_port_later():
    with open('/proc/sys/net/ipv4/ip_unprivileged_port_start', encoding='ascii') as file:
        first = int(file.read())
    port, low = free_port(), next(p for p in range(700, 1000) if not can_connect('127.0.0.1', p))
    if low >= first:
        raise Skip('ports from %d on are open to everybody here' % first)
    child, folder, config = start('later', port, 'user: ' + USER)
    with open(config, encoding='utf-8') as file:
        text = file.read()
    with open(config, 'w', encoding='utf-8') as file:
        file.write(text.replace('listen: [{', 'listen: [{address: "127.0.0.1:%d"}, {' % low))
    done = angarium(folder, 'reload')
    assert done.returncode == 1 and 'cannot listen on 127.0.0.1:%d: Permission denied' % low in done.stdout, done.stdout
    assert 'this needs a restart' in done.stdout, done.stdout
    send_letters(port, ['b@far.test'])
    assert lab.stop(child) == 0
    child = lab.start([os.path.join(BUILD, 'control/angariumd'), '-c', config], 'later.log')
    wait_until(lambda: can_connect('127.0.0.1', low), 'the relay')
    send_letters(low, ['b@far.test'])
    check_threads(child, 1 << 10)


@lab.check('without the filter it says so; a user that is none is refused')
def off():
    child, folder, config = start('off', free_port(), 'user: %s, calls: false' % USER)
    assert {thread['Seccomp'] for thread in threads(child)} <= {'0', threads_of_ours()}
    assert json.loads(angarium(folder, 'status', '--json').stdout)['confinement']['system_calls_filtered'] == (threads_of_ours() == '2')
    with open(config, encoding='utf-8') as file:
        text = file.read()
    bad = lab.write('bad.yaml', text.replace('user: ' + USER, 'user: there-is-none'))
    done = subprocess.run([os.path.join(BUILD, 'control/angariumd'), '-c', bad], capture_output=True, encoding='utf-8', timeout=60, check=False)
    assert done.returncode == 1 and 'cannot become user there-is-none' in done.stderr, done.stderr


def threads_of_ours():
    """The Seccomp state that this test itself runs in: a container may have one."""
    with open('/proc/self/status', encoding='utf-8') as file:
        return next(line.split()[1] for line in file if line.startswith('Seccomp:'))


sys.exit(lab.run())
