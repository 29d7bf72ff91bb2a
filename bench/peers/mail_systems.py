# SPDX-License-Identifier: Apache-2.0
"""Those that mail is sent through: each is started on core 0 with a configuration tuned as its own documentation says, takes mail on a free port
of 127.0.0.1 and passes all of it on to one sink there.

Angarium    as shipped, but for 100 connections to the sink; once by cut-through, once with everything stored first
HAProxy     TCP mode, one thread: passes octets, knows nothing of mail
Postfix     TUNING_README: many processes, no pause in flow, connections kept, no chroot, no limits for clients
Exim        specification, chapters 14, 48 and 55: no limit of connections, or of messages for each before it only queues; spool split, no message
            logs, delivery as its own user without another exec. Once as it is, once with control = cutthrough_delivery in its RCPT ACL (chapter 44)
OpenSMTPD   smtpd.conf(5): no bound of messages in a session. What the manual does not know and the program's grammar does: as many connections
            to the sink as the others have, and none of the pauses between them

Postfix, Exim and OpenSMTPD exclude each other as packages: the first is installed, the others are unpacked into build-peers (script/bootstrap
bench). OpenSMTPD has its paths built in, so it gets a root of its own in a mount namespace, where /usr is the machine's.
"""
import os
import subprocess

from ground import ROOT, on_core, pin
from lab import Skip, can_connect, free_port, tool, wait_until

CONNECTIONS = 100


def remove(folder):
    """What ends meanwhile may take its files away itself, or leave one more."""
    wait_until(lambda: subprocess.run(['rm', '-rf', '--one-file-system', folder], check=False, stderr=subprocess.DEVNULL).returncode == 0, 'it is gone: ' + folder,
               20)


class Running:
    def __init__(self, port, stop):
        self.port, self.stop = port, stop


# ---- Angarium ----

def angarium(delivery):
    def start(lab, sink):
        relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:53"]}
destinations: {allow: [127.0.0.0/8]}
delivery: %s
client: {connections_per_site: %d}
routes: [{match: "*", hosts: [{host: 127.0.0.1, port: %d}]}]
''' % (delivery, CONNECTIONS, sink))
        pin(relay.child.pid)

        def stop():
            relay.stop()
            remove(relay.spool)
            os.unlink(relay.records_file)
        return Running(relay.port, stop)
    return start


# ---- HAProxy ----

def haproxy(lab, sink):
    port = free_port()
    config = lab.write('haproxy.cfg', '''
global
    nbthread 1
    maxconn 5000
defaults
    mode tcp
    timeout connect 10s
    timeout client 300s
    timeout server 300s
listen smtp
    bind 127.0.0.1:%d
    server sink 127.0.0.1:%d
''' % (port, sink))
    child = lab.start(on_core(0, [tool('haproxy'), '-db', '-f', config]), 'haproxy.log')
    wait_until(lambda: can_connect('127.0.0.1', port), 'HAProxy listens', 10)
    return Running(port, lambda: lab.stop(child))


# ---- Postfix ----

POSTFIX_MAIN = [
    'myhostname = postfix.test', 'smtp_dns_support_level = disabled', 'default_process_limit = 200',
    'default_destination_concurrency_limit = %d' % CONNECTIONS, 'initial_destination_concurrency = 50', 'smtp_connection_cache_on_demand = yes',
    'smtp_connection_cache_destinations = 127.0.0.1', 'smtp_connection_reuse_count_limit = 0', 'smtpd_client_connection_count_limit = 0',
    'smtpd_client_connection_rate_limit = 0', 'smtpd_recipient_restrictions = permit_mynetworks,reject', 'qmgr_message_active_limit = 40000',
    'in_flow_delay = 0', 'smtpd_tls_security_level = none', 'smtp_tls_security_level = none']


def postfix(lab, sink):
    port = free_port()
    server = lab.postfix('127.0.0.1', port, ['relayhost = [127.0.0.1]:%d' % sink] + POSTFIX_MAIN, prefix=['taskset', '-c', '0'])

    def stop():
        server.stop()
        remove(server.folder)
    return Running(port, stop)


# ---- Exim ----

EXIM = '''
exim_path = %(exim)s
exim_user = mail
exim_group = mail
spool_directory = %(folder)s/spool
log_file_path = %(folder)s/spool/%%slog
pid_file_path = %(folder)s/exim.pid
primary_hostname = exim.test
keep_environment =
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
pipelining_advertise_hosts = *
split_spool_directory
no_message_logs
deliver_drop_privilege
check_spool_space = 0
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 1024
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept
%(control)s
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = %(sink)d
  hosts_avoid_tls = *
  hosts_verify_avoid_tls = *
  allow_localhost
'''


def exim(control):
    def start(lab, sink):
        if os.geteuid() != 0:
            raise Skip('needs root')
        program, folder, port = lab.path('exim4'), lab.path('exim'), free_port()
        if not os.path.exists(program): # a delivery of the last one may not be over, and hold it
            program = lab.exim()
        os.makedirs(os.path.join(folder, 'spool'))
        os.chmod(os.path.join(folder, 'spool'), 0o777)
        config = lab.write('exim.conf', EXIM % {'exim': program, 'folder': folder, 'sink': sink, 'control': control})
        os.chmod(config, 0o644)
        child = lab.start(on_core(0, [program, '-C', config, '-bdf', '-oX', '<; [127.0.0.1]:%d' % port]), 'exim.log')
        wait_until(lambda: can_connect('127.0.0.1', port), 'Exim listens: ' + lab.log('exim.log'), 20)

        def stop():
            lab.stop(child)
            remove(folder)
        return Running(port, stop)
    return start


# ---- OpenSMTPD ----

OPENSMTPD = '''
smtp limit max-mails 1000000
mta limit inet4 max-conn-per-host %(connections)d max-conn-per-route %(connections)d max-conn-per-source 1000 max-conn-per-connector %(connections)d \\
    max-conn-per-relay %(connections)d max-conn-per-domain %(connections)d conn-delay-route 0 conn-delay-relay 0 reconn-delay-route 0 session-mail-max 1000000 \\
    task-hiwat 1000 task-lowat 600
listen on 127.0.0.1 port %(port)d
action "out" relay host smtp+notls://127.0.0.1:%(sink)d
match from any for any action "out"
'''
OPENSMTPD_FILES = {
    'etc/passwd': 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nopensmtpd:x:901:901::/var/lib/opensmtpd/empty:/bin/false\n'
                  'opensmtpq:x:902:902::/var/lib/opensmtpd/empty:/bin/false\n',
    'etc/group': 'root:x:0:\nnogroup:x:65534:\nopensmtpd:x:901:\nopensmtpq:x:902:\n',
    'etc/hosts': '127.0.0.1 localhost\n',
    'etc/resolv.conf': 'lookup file\n',
    'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\n',
    'etc/mailname': 'opensmtpd.test\n',
}
OPENSMTPD_FOLDERS = ('usr', 'dev', 'opt', 'run', 'tmp', 'root', 'var/lib/opensmtpd/empty', 'var/spool/smtpd')
OPENSMTPD_ENTER = '''
mount --bind /usr "$1/usr" && mount --bind /dev "$1/dev" && mount --bind "$2" "$1/opt" && exec chroot "$1" /opt/usr/sbin/smtpd -d -f /etc/smtpd.conf
'''


def opensmtpd_root(lab, config):
    root = lab.path('opensmtpd')
    for name in OPENSMTPD_FOLDERS:
        os.makedirs(os.path.join(root, name))
    os.chmod(os.path.join(root, 'var/spool/smtpd'), 0o711)
    for name in ('bin', 'sbin', 'lib', 'lib64'):
        os.symlink('usr/' + name, os.path.join(root, name))
    os.symlink('../run', os.path.join(root, 'var/run'))
    for name, text in {**OPENSMTPD_FILES, 'etc/smtpd.conf': config}.items():
        lab.write(os.path.join('opensmtpd', name), text)
    os.chmod(os.path.join(root, 'etc/smtpd.conf'), 0o600)
    return root


def opensmtpd(lab, sink):
    unpacked = os.path.join(ROOT, 'build-peers/opensmtpd')
    if os.geteuid() != 0:
        raise Skip('needs root')
    if not os.access(os.path.join(unpacked, 'usr/sbin/smtpd'), os.X_OK):
        raise Skip('no OpenSMTPD: script/bootstrap bench')
    port = free_port()
    root = opensmtpd_root(lab, OPENSMTPD % {'connections': CONNECTIONS, 'port': port, 'sink': sink})
    child = lab.start(on_core(0, [tool('unshare'), '--mount', 'sh', '-c', OPENSMTPD_ENTER, 'sh', root, unpacked]), 'opensmtpd.log')
    wait_until(lambda: can_connect('127.0.0.1', port) or child.poll() is not None, 'OpenSMTPD listens: ' + lab.log('opensmtpd.log'), 20)
    assert child.poll() is None, lab.log('opensmtpd.log')

    def stop():
        lab.stop(child)
        remove(root)
    return Running(port, stop)


# name, Debian's package (None: ours), what 250 means, how it is started
SYSTEMS = (
    ('HAProxy, TCP mode', 'haproxy', 'what the next hop means by it: octets pass', haproxy),
    ('Angarium, cut-through', None, 'the next hop has it', angarium('auto')),
    ('Angarium, spool', None, 'on disk (fdatasync, many messages at once)', angarium('spool')),
    ('Exim, cut-through', 'exim4-daemon-light', 'the next hop has it (and a copy is on disk, fsync)', exim('    control = cutthrough_delivery')),
    ('Postfix', 'postfix', 'on disk (fsync)', postfix),
    ('Exim', 'exim4-daemon-light', 'on disk (fsync of both files)', exim('')),
    ('OpenSMTPD', 'opensmtpd', 'in files (not synced)', opensmtpd),
)
