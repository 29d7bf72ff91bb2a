#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""angarium-load against mail systems that are not ours: its source sends through a whole Postfix and a whole Exim to its sink, with ledgers on both
sides; its sink is fed by swaks and smtp-source."""
import json
import os
import subprocess

from lab import BUILD, LONG, ROOT, Lab, Skip, can_connect, free_port, tool, wait_until

lab = Lab('load')
COUNT = 60


def run_load(*arguments):
    done = subprocess.run([os.path.join(BUILD, 'bench/load/angarium-load')] + [str(a) for a in arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, encoding='utf-8', timeout=90)
    assert done.returncode == 0, done.stdout
    return done.stdout


def certificate():
    paths = lab.path('tls.pem'), lab.path('tls.key')
    if not os.path.exists(paths[0]):
        subprocess.run([tool('openssl'), 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=mx.load.test', '-days', '2', '-out', paths[0],
                        '-keyout', paths[1]], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.chmod(paths[1], 0o644)
    return paths


def start_sink(ledger, *arguments):
    port = free_port()
    sink = lab.load('sink', '-j', '-q', '-L', ledger, *arguments, '127.0.0.1:%d' % port, log='sink.log')
    wait_until(lambda: can_connect('127.0.0.1', port), 'the sink listens: ' + lab.log('sink.log'))
    return sink, port


def through(name, relay_port, sink, got, modes):
    """Send in every mode through the relay; every message must be at the sink, whole, once for each recipient."""
    sent = lab.path(name + '-sent')
    for arguments in modes:
        run_load('source', '-q', '-s', 5, '-m', COUNT, '-d', 'one.test:60,two.test:40', '-L', sent, *arguments, '127.0.0.1:%d' % relay_port)
    total = COUNT * len(modes)

    def account():
        return json.loads(subprocess.run([os.path.join(BUILD, 'bench/load/angarium-load'), 'audit', '-j', sent, got], stdout=subprocess.PIPE, check=False,
                                         encoding='utf-8').stdout)
    wait_until(lambda: account()['delivered'] == total, '%d delivered: %s' % (total, account()))
    result = account()
    wanted = {'sent': total, 'acknowledged': total, 'delivered': total, 'lost': 0, 'duplicated': 0, 'damaged': 0, 'ghosts': 0, 'unknown': 0}
    assert {key: result[key] for key in wanted} == wanted, result
    lab.stop(sink)
    return '%d messages, none lost, doubled or altered' % total


@lab.check('source, a whole Postfix, sink: PIPELINING, BDAT, STARTTLS, several recipients; the ledger is clean')
def postfix():
    pem, key = certificate()
    got = lab.path('postfix-got')
    sink, sink_port = start_sink(got, '--starttls', '--certificate', pem, '--key', key)
    port = free_port()
    server = lab.postfix('127.0.0.1', port, [
        'myhostname = postfix.test', 'relayhost = [127.0.0.1]:%d' % sink_port, 'smtp_dns_support_level = disabled',
        'smtpd_recipient_restrictions = permit_mynetworks,reject', 'smtpd_client_connection_rate_limit = 0', 'in_flow_delay = 0',
        'default_destination_concurrency_limit = 20', 'initial_destination_concurrency = 20', 'smtpd_tls_security_level = may',
        'smtpd_tls_cert_file = ' + pem, 'smtpd_tls_key_file = ' + key, 'smtp_tls_security_level = encrypt'])
    try:
        return through('postfix', port, sink, got, [
            (), ('--no-pipelining', '-l', '3000'), ('--chunking', '-l', '50k'), ('--starttls', '-c', '30', '-r', '5', '-l', '300'),
            ('--starttls', '--chunking', '-R', '300', '-f', '')])
    finally:
        server.stop()


@lab.check('source, a whole Exim, sink by BDAT: the ledger is clean')
def exim():
    if os.geteuid() != 0:
        raise Skip('needs root')
    program, folder, got = lab.exim(), lab.path('exim'), lab.path('exim-got')
    sink, sink_port = start_sink(got, '--chunking')
    os.makedirs(os.path.join(folder, 'spool'))
    os.chmod(os.path.join(folder, 'spool'), 0o777)
    port = free_port()
    config = lab.write('exim.conf', '''
exim_path = %(exim)s
exim_user = mail
exim_group = mail
spool_directory = %(folder)s/spool
log_file_path = %(folder)s/spool/%%slog
pid_file_path = %(folder)s/exim.pid
primary_hostname = exim.test
keep_environment =
tls_advertise_hosts =
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
smtp_accept_queue_per_connection = 0
remote_max_parallel = 4
acl_smtp_rcpt = accept
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = %(port)d
  hosts_avoid_tls = *
  allow_localhost
''' % {'folder': folder, 'exim': program, 'port': sink_port})
    os.chmod(config, 0o644)
    child = lab.start([program, '-C', config, '-bdf', '-oX', '<; [127.0.0.1]:%d' % port], 'exim.log')
    wait_until(lambda: can_connect('127.0.0.1', port), 'Exim listens: ' + lab.log('exim.log'))
    try:
        return through('exim', port, sink, got, [('-r', '3'), ('--chunking', '-l', '20k')])
    finally:
        lab.stop(child)


@lab.check('swaks feeds the sink: in the clear, under STARTTLS, under TLS from the first octet, and is refused as told')
def swaks():
    for options, words in (((), ('250 2.0.0 taken',)), (('--starttls',), ('TLS started', '250 2.0.0 taken')), (('--tls',), ('TLS started', '250 2.0.0 taken'))):
        got = lab.path('swaks%d' % len(os.listdir(lab.folder)))
        sink, port = start_sink(got, *options)
        extra = {(): [], ('--starttls',): ['--tls'], ('--tls',): ['--tls-on-connect']}[options]
        done = subprocess.run([tool('swaks'), '--server', '127.0.0.1:%d' % port, '--from', 'a@b.test', '--to', 'c@d.test'] + extra, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False, encoding='utf-8', timeout=60)
        assert done.returncode == 0 and all(word in done.stdout for word in words), done.stdout
        lab.stop(sink)
        with open(got, encoding='utf-8') as file:
            assert file.read() == 'R - c@d.test ok\n', 'a message of nobody we know'
    sink, port = start_sink(lab.path('refusing'), '--reject', 'end:554:100', '--replies', os.path.join(ROOT, 'bench/load/replies/large-provider'))
    done = subprocess.run([tool('swaks'), '--server', '127.0.0.1:%d' % port, '--from', 'a@b.test', '--to', 'c@d.test'], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, encoding='utf-8', timeout=60)
    assert done.returncode != 0 and '554 5.7.1' in done.stdout, done.stdout
    lab.stop(sink)


@lab.check('smtp-source feeds the sink')
def smtp_source():
    sink, port = start_sink(lab.path('smtp-source-got'), '-k', lab.folder)
    subprocess.run([tool('smtp-source'), '-s', '10', '-m', '300', '-l', '5000', '-f', 'a@b.test', '-t', 'c@d.test', '127.0.0.1:%d' % port], check=True,
                   timeout=60)
    lab.stop(sink)
    total = json.loads(lab.log('sink.log').splitlines()[-1])
    assert total['messages'] == 300 and total['lost_connections'] == 0 and os.path.exists(lab.path('00000299')), total


@lab.check("angarium-load's source feeds smtp-sink, one command at a time and by PIPELINING")
def smtp_sink():
    for options in ((), ('--no-pipelining',), ('-c', '5')):
        port = free_port()
        sink = lab.start([tool('smtp-sink'), '-u', 'nobody', '127.0.0.1:%d' % port, '100'], 'smtp-sink.log')
        wait_until(lambda port=port: can_connect('127.0.0.1', port), 'smtp-sink listens')
        total = json.loads(run_load('source', '-j', '-q', '-s', 10, '-m', 300, *options, '127.0.0.1:%d' % port).splitlines()[-1])
        assert total['messages'] == 300 and total['lost_connections'] == 0, total
        lab.stop(sink)


@lab.check('source and sink on engines of their own, over DPDK memif: the ledger is clean')
def memif():
    if not LONG:
        raise Skip('with --long only: DPDK takes seconds to begin and to end')

    def port(role, *addresses):
        device = 'net_memif0,role=%s,socket=%s,socket-abstract=no,rsize=10' % (role, lab.path('memif.sock'))
        return ['-D', device, '--mtu', '9000'] + [word for address in addresses for word in ('-A', address)]
    sent, got = lab.path('memif-sent'), lab.path('memif-got')
    sink = lab.load('sink', '-j', '-q', '--chunking', '-L', got, *port('server', '10.9.0.1/16'), '10.9.0.1:2525', log='memif-sink.log')
    wait_until(lambda: os.path.exists(lab.path('memif.sock')), 'the port is there: ' + lab.log('memif-sink.log'))
    run_load('source', '-q', '-s', 10, '-m', 1000, '--idle', 100, '-L', sent, '-p', *port('client', '10.9.1.1/16', '10.9.1.2/16'), '10.9.0.1:2525')
    run_load('source', '-q', '-s', 2, '-m', 20, '-l', '2M', '--chunking', '-L', sent, '-p', *port('client', '10.9.1.1/16'), '10.9.0.1:2525')
    lab.stop(sink)
    audit = json.loads(run_load('audit', '-j', sent, got))
    assert audit['delivered'] == 1020 and audit['duplicated'] == 0, audit


if __name__ == '__main__':
    lab.run()
