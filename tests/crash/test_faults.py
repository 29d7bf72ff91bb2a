#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The relay as shipped on a disk that fails under load: full, without inodes, read-only, dead, or with syncs that fail (HAZARDS M18, M19).

Proven each time: the sender hears 4xx, what was accepted before goes on being delivered as far as the disk lets itself be read, and after the
disk is well again nothing acknowledged is lost and nothing refused is delivered. Duplicates are allowed after a fault and are counted.

The disk is a small ext4 on a loop device, so this needs root. How it fails:
  straight    the same beside mail that goes straight through: full of mail for a host that is down
  full        it has less room than the spool may take; a sink that defers everything lets the spool grow
  owing       the same, of mail that is refused, whose senders' server is down: what it fills up with is notifications
  ballast     the same, filled up by somebody else; the relay is killed, starts there, and then the room comes back
  inodes      somebody else takes all of them: there are octets, and no file can be made. A quota is the same to the relay, another errno
              (tests/unit/test_spool_full.c); a kernel without quota formats, as the one of these tests, has none of its own
  read-only   the file system finds an error of its own (trigger_fs_error in sysfs) and makes itself read-only
  dead        EXT4_IOC_SHUTDOWN: every read, write and sync is EIO
  bad syncs   the loop device's file is sparse on a file system that is full: writes go well, and the sync after them is an error. It is
              filled to the last block while nothing is written: of a write that finds room for its first half only, the loop driver says
              that it went well (Linux 6.18), and no program can know better
"""
import errno
import fcntl
import os
import shutil
import signal
import smtplib
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../interop"))
from lab import BUILD, Lab, Skip, can_connect, free_port, wait_until

if os.geteuid() == 0 and 'ANGARIUM_OWN_MOUNTS' not in os.environ:
    # A mount namespace that another test begins meanwhile would keep mounted what is unmounted here, with the disk's old errors.
    os.environ['ANGARIUM_OWN_MOUNTS'] = 'yes'
    os.execvp('unshare', ['unshare', '--mount', '--propagation', 'private', sys.executable] + sys.argv)

lab = Lab('faults')
EXT4_IOC_SHUTDOWN = 0x8004587d
SPOOL = 'size: 512MiB, segment: 1MiB, reserve: 2MiB'
DOOMED = SPOOL + ', commit_deadline: 2s' # on a disk that takes nothing more that is how long clients wait for their 451
CONFIG = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
routes: [{match: "*", hosts: [{host: 127.0.0.1, port: %d}]}]
retry: {min: 1s, max: 2s}
'''


def shell(*arguments):
    subprocess.run([str(a) for a in arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def lines_of(path):
    """The words of each whole line of a ledger that may just be beginning."""
    try:
        with open(path, encoding='ascii') as file:
            return [line.split() for line in file if line.endswith('\n')]
    except FileNotFoundError:
        return []


def take_inodes(path):
    """All there are, by empty files; their number."""
    for number in range(100000):
        try:
            os.close(os.open(os.path.join(path, '%d' % number), os.O_CREAT | os.O_WRONLY))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            return number
    raise AssertionError('inodes without end')


def seconds_of(function):
    begun = time.monotonic()
    function()
    return time.monotonic() - begun


class Disk:
    """An ext4 of so many octets on a loop device, mounted on the spool directory of `name`."""

    def __init__(self, name, size, image=None, options=()):
        if os.geteuid() != 0 or not os.path.exists('/dev/loop-control'):
            raise Skip('needs root and loop devices')
        self.path, self.image = lab.path(name), image or lab.path(name + '.img')
        os.makedirs(self.path)
        shell('truncate', '-s', size, self.image)
        shell('mkfs.ext4', *options, '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard', self.image)
        self.mount()

    def mount(self):
        shell('mount', '-o', 'loop,errors=remount-ro', self.image, self.path)

    def device(self):
        return os.path.basename(subprocess.run(['findmnt', '-no', 'SOURCE', self.path], check=True, stdout=subprocess.PIPE,
                                               encoding='ascii').stdout.strip())

    def heal(self):
        shell('umount', self.path)
        subprocess.run(['e2fsck', '-fy', self.image], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.mount()

    def close(self):
        subprocess.run(['umount', self.path], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Trial:
    """A relay on a disk, a sink behind it that defers for a while, a source before it."""

    def __init__(self, name, disk, defer_seconds, spool=SPOOL):
        self.name, self.disk = name, disk
        sink_port = free_port()
        self.sent, self.got = lab.path(name + '.sent'), lab.path(name + '.got')
        self.sink = lab.load('sink', '-q', '-s', '400', '-M', defer_seconds, '-L', self.got, '127.0.0.1:%d' % sink_port,
                             log=name + '-sink.log')
        wait_until(lambda: can_connect('127.0.0.1', sink_port), 'the sink listens')
        self.relay = lab.relay(CONFIG % sink_port, name=name, spool=spool)
        self.source = lab.load('source', '-q', '-p', '-t', '100000', '-s', '20', '-R', '3000', '-l', '6000', '-d', 'one.test', '-L', self.sent,
                               '127.0.0.1:%d' % self.relay.port, log=name + '-source.log')

    def spool(self):
        return self.relay.status()['spool']

    def answers(self):
        """How often each code was heard so far, to an end of data."""
        counts = {'250': 0, '451': 0, '452': 0}
        for fields in lines_of(self.sent):
            if len(fields) >= 3 and fields[0] == 'A':
                counts[fields[2]] = counts.get(fields[2], 0) + 1
        return counts

    def code(self):
        """What a sender hears now: 250, or the 4xx to its connection, to MAIL or to the end of data."""
        try:
            with smtplib.SMTP('127.0.0.1', self.relay.port, timeout=60) as client:
                client.sendmail('', 'probe@probe.test', 'Subject: probe\r\n\r\nprobe\r\n')
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
        return 250

    def is_turned_away(self):
        """One failure after another: 421 at the door."""
        return self.code() == 421

    def arrived(self):
        return sum(1 for fields in lines_of(self.got) if fields[0] == 'R')

    def end(self):
        lab.stop(self.source)
        wait_until(lambda: self.relay.status()['queue']['messages'] == 0, 'the queue empties')
        self.relay.stop()
        lab.stop(self.sink)
        done = subprocess.run([os.path.join(BUILD, 'bench/load/angarium-load'), 'audit', self.sent, self.got], stdout=subprocess.PIPE, check=False,
                              encoding='utf-8')
        self.disk.close()
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()


def run_fault(trial, break_disk, mend_disk=lambda: None, can_read=True):
    """Break the disk under load; then start again on a healthy one."""
    try:
        wait_until(lambda: trial.answers()['250'] > 500, 'mail flows')
        break_disk()
        arrived = trial.arrived()
        if can_read: # fewer may have waited on a quick machine; then all of them
            wait_until(lambda: trial.arrived() > arrived + 50 or trial.arrived() >= trial.answers()['250'], 'what waits goes out')
        lab.stop(trial.source)
        assert trial.relay.status()['shards']['invariant_violations'] == 0
        arrived = trial.arrived()
        trial.relay.kill()
        mend_disk()
        trial.disk.heal()
        trial.relay.start()
        wait_until(trial.relay.is_recovered, 'the second start has found its mail')
        return '%d arrived before the start; ' % arrived + trial.end()
    finally:
        trial.relay.kill()
        trial.disk.close()


@lab.check('a full disk: 452, deliveries go on, mail is taken again, nothing is lost')
def full():
    disk = Disk('full-spool', '48M')
    trial = Trial('full', disk, 4)
    try:
        wait_until(lambda: trial.spool()['is_full'], 'the disk is full')
        wait_until(lambda: trial.code() == 452, 'senders hear 452')
        taken, arrived = trial.answers()['250'], trial.arrived()
        wait_until(lambda: trial.arrived() > arrived + 200, 'what waits goes out')
        wait_until(lambda: trial.answers()['250'] > taken + 200, 'mail is taken again')
        return trial.end()
    finally:
        trial.relay.kill()
        disk.close()


def say(port, recipients):
    """What a client hears: the reply that refuses it, or the last; and how long it waited."""
    begun, code = time.monotonic(), 250
    try:
        with smtplib.SMTP('127.0.0.1', port, timeout=60) as client:
            client.sendmail('a@probe.test', recipients, 'Subject: probe\r\n\r\n' + 'probe\r\n' * 400)
    except smtplib.SMTPRecipientsRefused as refused:
        code = min(each[0] for each in refused.recipients.values())
    except smtplib.SMTPResponseException as refused:
        code = refused.smtp_code
    return code, time.monotonic() - begun


@lab.check('a full disk of mail that comes back, which nobody takes: it waits, and all of it ends')
def owing():
    """Each notification is larger than its mail, and their server is down until the disk is full."""
    disk, port, refusing = Disk('owing-spool', '40M'), free_port(), free_port()
    sent, got = lab.path('owing.sent'), lab.path('owing.got')
    refuser = lab.load('sink', '-q', '-s', '400', '-5', '100', '127.0.0.1:%d' % refusing, log='owing-refuser.log')
    wait_until(lambda: can_connect('127.0.0.1', refusing), 'the sink listens')
    relay = lab.relay(CONFIG.replace('routes: [', 'routes: [{match: one.test, hosts: [{host: 127.0.0.1, port: %d}]}, ' % refusing) % port +
                      'delivery: spool\nbounce: {per_sender: 0}\n', name='owing', spool=SPOOL)
    source = lab.load('source', '-q', '-p', '-t', '1000', '-s', '20', '-l', '400', '-d', 'one.test', '-f', 'owed@back.test', '-L', sent,
                      '127.0.0.1:%d' % relay.port, log='owing-source.log')
    sink = None
    try:
        wait_until(lambda: relay.status()['spool']['is_full'], 'the disk is full')
        time.sleep(3) # notifications take what mail may not
        lab.stop(source)
        accepted = sum(1 for fields in lines_of(sent) if fields[0] == 'A' and fields[2] == '250')
        waiting = relay.status()['queue']['messages']
        assert waiting >= accepted, (waiting, accepted)
        sink = lab.load('sink', '-q', '-s', '400', '-L', got, '127.0.0.1:%d' % port, log='owing-sink.log')
        wait_until(lambda: relay.status()['queue']['messages'] == 0, 'all of it has ended')
        told = sum(1 for fields in lines_of(got) if fields[0] == 'R')
        assert told >= accepted > 500, (told, accepted)
        assert relay.stop() == 0
        return '%d came back' % told
    finally:
        relay.kill()
        lab.stop(source)
        lab.stop(refuser)
        if sink is not None:
            lab.stop(sink)
        disk.close()


@lab.check('a full disk: mail for one recipient goes straight through, for two 452; what is stuck stays')
def straight():
    disk, port = Disk('straight-spool', '40M'), free_port()
    sink = lab.load('sink', '-q', '-s', '40', '127.0.0.1:%d' % port, log='straight-sink.log')
    wait_until(lambda: can_connect('127.0.0.1', port), 'the sink listens')
    relay = lab.relay(CONFIG.replace('routes: [', 'routes: [{match: stuck.test, hosts: [{host: 127.0.0.1, port: %d}]}, ' % free_port()) % port +
                      'delivery: auto\n', name='straight', spool=SPOOL)
    try:
        sources = [lab.load('source', '-q', '-p', '-t', '1000', '-s', sessions, '-l', size, '-d', 'stuck.test', '127.0.0.1:%d' % relay.port,
                            log='straight-source.log') for sessions, size in (('20', '20000'), ('4', '1000'))]
        wait_until(lambda: relay.status()['spool']['is_full'], 'the disk is full')
        wait_until(lambda: say(relay.port, ['b@good.test', 'c@good.test'])[0] == 452, 'two recipients hear 452')
        answers = [say(relay.port, ['b@good.test']) for _ in range(20)]
        assert all(code == 250 for code, _ in answers), answers
        mixed = (['b@good.test', 'c@good.test'], ['b@stuck.test'])
        # A segment's last room may still take one small message: full is what stays full.
        wait_until(lambda: [say(relay.port, recipients)[0] for recipients in mixed] == [452, 452], 'mail that would be stored hears 452')
        for source in sources:
            lab.stop(source)
        waiting = relay.status()['queue']['messages']
        assert relay.status()['ways']['ready'] >= 20, relay.status()['ways']
        assert waiting > 0, relay.status()['queue']
        relay.cli('delete', 'domain=stuck.test', '--reason', 'to make room')
        wait_until(lambda: say(relay.port, ['b@good.test', 'c@good.test'])[0] == 250, 'mail for two is taken again')
        assert relay.stop() == 0
        return '%d wait, slowest %.2f s' % (waiting, max(seconds for _, seconds in answers))
    finally:
        relay.kill()
        lab.stop(sink)
        disk.close()


@lab.check('a full disk, then SIGKILL: the start delivers what waits, and takes mail soon after there is room')
def full_then_killed():
    disk = Disk('killed-spool', '64M')
    trial = Trial('killed', disk, 4)
    ballast = os.path.join(disk.path, 'ballast')
    try:
        wait_until(lambda: trial.answers()['250'] > 500, 'mail flows')
        subprocess.run(['dd', 'if=/dev/zero', 'of=' + ballast, 'bs=64k', 'conv=fsync'], check=False, stderr=subprocess.DEVNULL)
        wait_until(lambda: trial.code() == 452, 'senders hear 452')
        arrived = trial.arrived()
        trial.relay.kill()
        trial.relay.start()
        wait_until(trial.relay.is_recovered, 'the start has found its mail')
        wait_until(lambda: trial.arrived() > arrived + 50, 'what waits goes out')
        os.remove(ballast)
        wait_until(lambda: trial.code() == 250, 'mail is taken again', 30)
        return trial.end()
    finally:
        trial.relay.kill()
        disk.close()


@lab.check('no inodes, octets plenty: 452 at once, deliveries go on, mail is taken ten seconds after there are some')
def no_inodes():
    disk = Disk('inodes-spool', '160M', options=('-N', '64'))
    trial = Trial('inodes', disk, 4)
    ballast = os.path.join(disk.path, 'ballast')
    try:
        wait_until(lambda: trial.answers()['250'] > 500, 'mail flows')
        os.mkdir(ballast)
        taken = take_inodes(ballast)
        assert taken > 4 and os.statvfs(disk.path).f_bavail * 4096 > 64 << 20, 'there must be octets'
        wait_until(lambda: trial.spool()['is_full'], 'no segment can be made')
        wait_until(lambda: trial.code() == 452, 'senders hear 452')
        arrived = trial.arrived()
        wait_until(lambda: trial.arrived() > arrived + 200, 'what waits goes out')
        seconds = sorted(seconds_of(trial.code) for _ in range(11))
        assert seconds[5] < 1, 'answers took %s s' % seconds # of most: others may have the processors for a while
        assert trial.answers()['451'] == 0, 'a message was begun that there was no room for'
        shutil.rmtree(ballast)
        wait_until(lambda: trial.code() == 250, 'mail is taken again', 30)
        return '%d files of somebody else; ' % taken + trial.end()
    finally:
        trial.relay.kill()
        disk.close()


@lab.check('a file system that makes itself read-only under load: 421 in the end, deliveries go on')
def read_only():
    trial = Trial('readonly', Disk('readonly-spool', '160M'), 1, DOOMED)

    def break_disk():
        with open('/sys/fs/ext4/%s/trigger_fs_error' % trial.disk.device(), 'w', encoding='ascii') as file:
            file.write('x')
        wait_until(trial.is_turned_away, 'senders are turned away')
    return run_fault(trial, break_disk)


@lab.check('a disk that dies under load, every call is EIO: 421 in the end')
def dead():
    trial = Trial('dead', Disk('dead-spool', '160M'), 1, DOOMED)

    def break_disk():
        directory = os.open(trial.disk.path, os.O_RDONLY)
        fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack('I', 2))
        os.close(directory)
        wait_until(trial.is_turned_away, 'senders are turned away')
    return run_fault(trial, break_disk, can_read=False)


@lab.check('syncs that fail after writes that went well: nothing that was acknowledged is in them')
def bad_syncs():
    blocks = ('-b', '4096', '-m', '0')  # as the spool's own: a write finds room for all of it or for nothing
    outer = Disk('outer', '120M', options=blocks)
    ballast = os.path.join(outer.path, 'ballast')
    try:
        trial = Trial('badsync', Disk('badsync-spool', '400M', image=os.path.join(outer.path, 'inner.img'), options=blocks), 6, DOOMED)

        def break_disk():
            trial.relay.child.send_signal(signal.SIGSTOP)
            shell('sync', '-f', trial.disk.path)
            subprocess.run(['dd', 'if=/dev/zero', 'of=' + ballast, 'bs=4k', 'conv=fsync'], check=False, stderr=subprocess.DEVNULL)
            trial.relay.child.send_signal(signal.SIGCONT)
            wait_until(lambda: trial.spool()['sync_failures'] > 2, 'syncs fail')
        return run_fault(trial, break_disk, lambda: os.remove(ballast))
    finally:
        outer.close()


if __name__ == '__main__':
    lab.run()
