#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every example of the manual page angarium(1), in its order, against a running relay: it does what it says, exits with 0 and prints something."""
import json
import os
import pty
import re
import select
import shlex
import signal
import smtplib
import subprocess
import time

from lab import BUILD, ROOT, Lab, Skip, free_port, wait_until

lab = Lab('examples')
ANGARIUM = os.path.join(BUILD, 'control/angarium')
relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
destinations: {allow: [127.0.0.0/8]}
dns: {resolvers: ["127.0.0.1"]}
sources: [{name: out1, addresses: [127.0.0.1]}]
routes: [{match: "*", via: hosts, hosts: [{host: 127.0.0.1, port: %d}]}]
''' % free_port(), records='raw: "%s"' % lab.path('records.raw'))
known = {}  # what the examples name, and what it is here


def examples():
    with open(os.path.join(ROOT, 'packaging/examples.txt'), encoding='utf-8') as file:
        return [line.strip() for line in file if not line.startswith('#')]


def prepare():
    """Mail that waits, a site that is known, an order that stands, and the files that the examples name."""
    with smtplib.SMTP('127.0.0.1', relay.port) as client:
        for sender in ('a@client.test', 'b@spam.example'):
            client.sendmail(sender, ['postmaster@example.org'], 'Subject: x\r\n\r\ntext\r\n')
    rows = wait_until(lambda: json.loads(relay.cli('queue', 'list', 'sender=a@client.test', '--json'))['rows'], 'mail waits')
    wait_until(lambda: json.loads(relay.cli('site', 'show', '--json'))['rows'], 'a site is known')
    known.update({'aadgckcewtj4v57ch2f23dzjeq': rows[0]['id'], '/etc/angarium/angarium.yaml': relay.config, '/var/spool/angarium': relay.spool, '/var/log/angarium/records.json': relay.records_file,
                  '/var/log/angarium/records.raw': lab.path('records.raw'),
                  '/mnt/dead-host/spool': lab.path('dead'), '/tmp/mail.pcap': lab.path('mail.pcap'), '/etc/postfix': lab.path('postfix')})
    write_postfix()
    os.makedirs(lab.path('dead'))


def put_in(example):
    if example.startswith('queue cancel'):
        held = json.loads(relay.cli('queue', 'orders', '--json'))
        known['1234'] = re.search(r'"(?:order|id)": ?(\d+)', json.dumps(held))[1]
    if example == 'drain --stop':
        relay.follow()
    if example.startswith('spool ') and relay.child.poll() is None:
        assert relay.child.wait(60) == 0, 'the relay was to end'
    return [known.get(word, word) for word in shlex.split(example)]


def on_a_terminal(arguments):
    """`top` wants one; it is left by a key."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ['TERM'] = 'xterm'
        os.execv(arguments[0], arguments)
    text, end = b'', time.monotonic() + 60
    while time.monotonic() < end:
        if b'queue' in text:
            os.write(terminal, b'q')
        try:
            if select.select([terminal], [], [], 0.2)[0]:
                text += os.read(terminal, 65536)
        except OSError:
            break
    else:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text.decode(errors='replace')


def run(example):
    arguments = [ANGARIUM, '-s', relay.socket] + put_in(example)
    if example == 'top':
        return on_a_terminal(arguments)
    done = subprocess.run(arguments, input='a password\n', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', timeout=60, check=False)
    return done.returncode, done.stdout


@lab.check('every verb has an example')
def every_verb():
    verbs = [line.split('\t')[0] for line in relay.cli('help', '--reference').splitlines()]
    missing = [verb for verb in verbs if not any((line + ' ').startswith(verb + ' ') for line in examples())]
    assert len(verbs) > 40 and not missing, missing


@lab.check('every example exits with 0 and prints something')
def every_example():
    prepare()
    failed = []
    for example in examples():
        status, text = run(example)
        if status != 0 or text.strip() == '':
            failed.append((example, status, text))
    assert not failed, failed


def write_postfix():
    """A Postfix that relays, signs nobody in but by Dovecot, and has what there is no counterpart of."""
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=mail.example.net', '-days', '2', '-keyout',
                    lab.path('key.pem'), '-out', lab.path('cert.pem')], check=True, stderr=subprocess.DEVNULL)
    lab.write('postfix/main.cf', '''
# a relay
mydomain = example.net
myhostname = mail.$mydomain
mynetworks = 127.0.0.0/8 [::1]/128
    192.0.2.0/24, 2001:db8::/32
inet_interfaces = all
message_size_limit = 52428800
maximal_queue_lifetime = 3d
minimal_backoff_time = 300s
maximal_backoff_time = 4000s
default_destination_concurrency_limit = 50
smtpd_client_connection_count_limit = 40
smtpd_tls_cert_file = %s
smtpd_tls_key_file = %s
smtpd_tls_security_level = may
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtp_tls_security_level = dane
relayhost = [relay.example.org]:587
transport_maps = hash:$config_directory/transport
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination
virtual_alias_maps = hash:/etc/postfix/virtual
''' % (lab.path('cert.pem'), lab.path('key.pem')))
    lab.write('postfix/master.cf', '''
smtp       inet  n - y - - smtpd
submission inet  n - y - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
465        inet  n - y - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
qmgr       unix  n - n 300 1 qmgr
''')
    lab.write('postfix/transport', 'example.com smtp:[10.0.0.1]:2525\n.example.com discard:\n')


def accepted(folder):
    """What is imported from there, when `check` accepts it."""
    text = relay.cli('import', 'postfix', folder)
    assert 'ok' in relay.cli('check', lab.write('imported.yaml', text)), text
    return text


@lab.check('what is imported from a rich Postfix is accepted, and names what has no counterpart')
def postfix_rich():
    write_postfix()
    text = accepted(lab.path('postfix'))
    for part in ('hostname: "mail.example.net"', '"2001:db8::/32"', 'address: "0.0.0.0:25"', 'kind: submission', 'implicit: true',
                 'message_size: 52428800', 'min: 300s', 'connections_per_site: 50', '"example.com"', 'host: "relay.example.org", port: 587',
                 '#   smtp_tls_security_level: DANE', '#   virtual_alias_maps: main.cf line'):
        assert part in text, (part, text)


@lab.check('what is imported from Postfix as it is shipped is accepted')
def postfix_shipped():
    for name in ('main.cf.dist', 'main.cf.debian'):
        if not os.path.exists('/usr/share/postfix/' + name):
            raise Skip('no Postfix')
        with open('/usr/share/postfix/' + name, encoding='utf-8') as main, open('/usr/share/postfix/master.cf.dist', encoding='utf-8') as master:
            lab.write('shipped/main.cf', main.read())
            lab.write('shipped/master.cf', master.read())
        assert 'listen:' in accepted(lab.path('shipped'))


lab.run()
