#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real peers: Postfix's smtp-source and smtp-sink, nsd, swaks, a whole Postfix, a whole Exim, and a sink that is moody at first."""
import glob
import os
import re
import socket
import subprocess

from lab import Lab, Skip, audit, can_connect, free_port, source_message, tool, wait_until, without_received

lab = Lab('peers')
MX_PORT = free_port()
SINK, POSTFIX, EXIM, MOODY = '127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4'

ZONES = {'test': [
    'sink MX 10 mx.sink', 'mx.sink A ' + SINK,
    'other MX 10 mx.sink', 'other MX 20 dead.other', 'dead.other A 127.0.0.99',
    'postfix MX 5 mx.postfix', 'mx.postfix A ' + POSTFIX,
    'exim MX 5 mx.exim', 'mx.exim A ' + EXIM,
    'moody MX 5 mx.moody', 'mx.moody A ' + MOODY,
    'bare A ' + SINK, 'null MX 0 .', 'alias CNAME sink.test.', 'loop MX 10 mx.loop', 'mx.loop CNAME mx.loop.test.',
]}

CONFIG = '''
hostname: relay.test
listen:
  - address: 127.0.0.1:@PORT@
    tls: {self_signed: "@FOLDER@"}
relay_from: [127.0.0.0/8]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8]}
sources: [{name: out, addresses: [127.0.0.1]}]
client: {idle_timeout: 1s}
sites: # over one connection, a message with the end of the one before, and bodies ahead of replies
  - {match: postfix.test, connections: 1, bdat_ahead: learned}
  - {match: exim.test, connections: 1, bdat_ahead: always}
retry: {min: 1s, max: 4s}
'''

relay = None


def the_relay():
    global relay
    if relay is None:
        relay = lab.relay(CONFIG % (lab.nsd(ZONES), MX_PORT))
    return relay


@lab.check('10,000 messages from smtp-source to a sink that keeps them, octet for octet')
def smtp_source_to_keeping_sink():
    the_relay()
    count = 10000
    kept = lab.path('kept')
    os.makedirs(kept, exist_ok=True)
    body = source_message()
    path = lab.path('message.txt')
    with open(path, 'wb') as file:
        file.write(body.replace('\r\n', '\n').encode())
    sink = lab.load('sink', '-q', '-s', '400', '-k', kept, '%s:%d' % (SINK, MX_PORT), log='sink.log')
    wait_until(lambda: can_connect(SINK, MX_PORT), 'the sink listens')
    subprocess.run([tool('smtp-source'), '-d', '-s', '40', '-m', str(count), '-f', 'source@load.example', '-t', 'u@sink.test', '-F', path,
                    '127.0.0.1:%d' % relay.port], check=True, timeout=120)
    wait_until(lambda: len(os.listdir(kept)) >= count, 'all arrive')
    lab.stop(sink)
    files = os.listdir(kept)
    wrong = 0
    for name in files:
        with open(os.path.join(kept, name), 'rb') as file:
            wrong += without_received(file.read()) != (body + '\r\n').encode()  # smtp-source ends a file with an empty line
    assert len(files) == count and wrong == 0, '%d messages, %d with a changed octet' % (len(files), wrong)


def submit_raw(body, is_chunked):
    """One message as it is, without a library's idea of lines."""
    with socket.create_connection(('127.0.0.1', relay.port), timeout=60) as client:
        lines = client.makefile('rb')

        def expect(code):
            line = lines.readline()
            while line[3:4] == b'-':
                line = lines.readline()
            assert line.startswith(code), line

        expect(b'220')
        for command, code in ((b'EHLO load.example', b'250'), (b'MAIL FROM:<a@load.example>', b'250'), (b'RCPT TO:<u@sink.test>', b'250')):
            client.sendall(command + b'\r\n')
            expect(code)
        if is_chunked:
            client.sendall(b'BDAT %d LAST\r\n' % len(body) + body)
        else:
            client.sendall(b'DATA\r\n')
            expect(b'354')
            client.sendall(re.sub(rb'^\.', b'..', body, flags=re.MULTILINE) + b'.\r\n')
        expect(b'250')


def take_one(listener, has_chunking):
    """A next hop for one connection: the messages that came, as bodies without stuffed dots."""
    connection = listener.accept()[0]
    bodies = []
    with connection, connection.makefile('rb') as lines:
        connection.sendall(b'220 sink.test\r\n')
        for line in lines:
            verb = line[:4].upper()
            reply = b'250 ok\r\n'
            if verb == b'EHLO':
                reply = b'250-sink.test\r\n250 ' + (b'CHUNKING' if has_chunking else b'SIZE') + b'\r\n'
            elif verb == b'DATA':
                connection.sendall(b'354 go\r\n')
                body = b''.join(iter(lines.readline, b'.\r\n'))
                bodies.append(re.sub(rb'^\.', b'', body, flags=re.MULTILINE))
            elif verb == b'BDAT':
                bodies.append(lines.read(int(line.split()[1])))
            elif verb == b'QUIT':
                break
            connection.sendall(reply)
    return bodies


@lab.check('a line of a megabyte, from DATA and from BDAT, arrives whole by DATA and by BDAT')
def long_line():
    the_relay()
    body = b'Subject: long\r\n\r\n.' + b''.join(b'%07d ' % number for number in range(131072)) + b'\r\n.end\r\n'
    with socket.create_server((SINK, MX_PORT)) as listener:
        listener.settimeout(60)
        for has_chunking in (False, True):
            submit_raw(body, False)
            bodies = take_one(listener, has_chunking)
            submit_raw(body, True)
            bodies += take_one(listener, has_chunking)
            assert [without_received(kept) == body for kept in bodies] == [True, True], [len(kept) for kept in bodies]


@lab.check('10,000 messages from smtp-source to smtp-sink, octet for octet; of two MX hosts the dead one does not hurt')
def smtp_sink():
    the_relay()
    count, folder = 10000, lab.path('dumps')
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o777)
    path = lab.path('message.txt')
    with open(path, 'wb') as file:
        file.write(source_message().replace('\r\n', '\n').encode())
    sink = lab.start([tool('smtp-sink'), '-u', 'nobody', '-d', os.path.join(folder, 'm.'), '%s:%d' % (SINK, MX_PORT), '100'], 'smtp-sink.log')
    wait_until(lambda: can_connect(SINK, MX_PORT), 'smtp-sink listens')
    subprocess.run([tool('smtp-source'), '-d', '-s', '40', '-m', str(count), '-f', 'a@load.example', '-t', 'u@other.test', '-F', path,
                    '127.0.0.1:%d' % relay.port], check=True, timeout=120)
    wait_until(lambda: sum(r['recipient'] == 'u@other.test' for r in relay.records('delivery')) >= count, 'all delivered')
    lab.stop(sink)
    # smtp-source ends a file with an empty line, smtp-sink a dump with another, in Unix lines
    ending = (source_message() + '\r\n\r\n').replace('\r\n', '\n').encode()
    names = os.listdir(folder)
    wrong = 0
    for name in names:
        with open(os.path.join(folder, name), 'rb') as file:
            wrong += not file.read().endswith(ending)
    assert len(names) == count and wrong == 0, '%d messages, %d with a changed octet' % (len(names), wrong)


def swaks(*arguments, code=0):
    done = subprocess.run([tool('swaks'), '--server', '127.0.0.1:%d' % relay.port, '--from', 'a@load.example', '--timeout', '60'] +
                          list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False, encoding='utf-8',
                          errors='replace')
    assert done.returncode == code, 'swaks %s gave %d:\n%s' % (arguments, done.returncode, done.stdout)
    return done.stdout


@lab.check('swaks: plain, STARTTLS, PIPELINING, and a null MX that bounces for good')
def swaks_dialogues():
    the_relay()
    sink = lab.load('sink', '-q', '-s', '100', '%s:%d' % (SINK, MX_PORT), log='sink.log')
    wait_until(lambda: can_connect(SINK, MX_PORT), 'the sink listens')
    before = len(relay.records('delivery'))
    assert 'CHUNKING' in swaks('--to', 'u@sink.test')
    assert 'TLS started' in swaks('--to', 'u@sink.test', '--tls')
    swaks('--to', 'u@alias.test,v@bare.test', '--pipeline')
    wait_until(lambda: len(relay.records('delivery')) >= before + 4, 'all delivered')
    swaks('--to', 'u@null.test')
    bounce = wait_until(lambda: [r for r in relay.records('bounce') if r['recipient'] == 'u@null.test'], 'a bounce')[0]
    assert bounce['enhanced'] == '5.1.10', bounce
    lab.stop(sink)


@lab.check('SMTPUTF8: an address beyond ASCII goes out where it is offered')
def smtputf8():
    the_relay()
    sink = lab.load('sink', '-q', '-s', '100', '%s:%d' % (SINK, MX_PORT), log='sink.log')
    wait_until(lambda: can_connect(SINK, MX_PORT), 'the sink listens')
    import smtplib
    with smtplib.SMTP('127.0.0.1', relay.port, timeout=60) as client:
        client.ehlo('client.test')
        assert client.has_extn('smtputf8')
        client.sendmail('a@load.example', ['j\u00f6rg@sink.test'], 'Subject: gr\u00fc\u00dfe\r\n\r\nhi\r\n'.encode(), mail_options=['SMTPUTF8', 'BODY=8BITMIME'])
        code, _ = client.docmd('MAIL', 'FROM:<j\u00f6rg@load.example>'.encode().decode('latin-1'))
        assert code in (550, 553, 501), code
    wait_until(lambda: [r for r in relay.records('delivery') if r['recipient'] == 'j\u00f6rg@sink.test'], 'delivered')
    lab.stop(sink)


@lab.check('a client from outside the served networks is no use to spammers')
def open_relay():
    the_relay()
    outsider = lab.relay(CONFIG.replace('relay_from: [127.0.0.0/8]', 'relay_from: [192.0.2.0/24]') % (53, MX_PORT), 'outsider')
    done = subprocess.run([tool('swaks'), '--server', '127.0.0.1:%d' % outsider.port, '--from', 'a@load.example', '--to', 'u@sink.test'],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False, encoding='utf-8')
    assert done.returncode == 24 and '550 5.7.1' in done.stdout, done.stdout
    outsider.stop()


# ---- a whole Postfix ----

def first_difference(wanted, text):
    start = text.find(wanted[:20])
    for i, octet in enumerate(wanted):
        if start + i >= len(text) or text[start + i] != octet:
            return 'octet %d: wanted %r, got %r' % (i, wanted[max(0, i - 30):i + 30], text[max(0, start + i - 30):start + i + 30])
    return 'no difference'


def find_certificate():
    """The self-made pair that the relay's listener uses."""
    certificates = [p for p in glob.glob(lab.path('*')) if os.path.isfile(p) and 'BEGIN CERTIFICATE' in open(p, errors='replace').read(64)]
    keys = [p for p in glob.glob(lab.path('*')) if os.path.isfile(p) and 'PRIVATE KEY' in open(p, errors='replace').read(64)]
    return certificates[0], keys[0]


def deliveries(domain):
    return [r for r in relay.records('delivery') if r['site'] == domain]


def went_ahead(domain, learning):
    """All over one connection, or another one behind a second without mail, and from the message on with which that was learned, ahead of replies; the peer was not at a loss."""
    delivered = deliveries(domain)
    following, ahead = sum(r.get('next_ahead', False) for r in delivered), sum(r.get('bdat_ahead', False) for r in delivered)
    assert len({r['session'] for r in delivered}) < 5 and following > 0 and len(delivered) - ahead <= learning + 8, (following, ahead)
    status = relay.status()['client']
    assert status['shied'] == status['desynchronised'] == status['uncertain'] == 0, status
    return '%d went with the end of another, %d ahead of replies' % (following, ahead)


@lab.check('a real Postfix receives, under STARTTLS, and delivers to a mailbox')
def to_postfix():
    the_relay()
    certificate, key = find_certificate()
    postfix = lab.postfix(POSTFIX, MX_PORT, [
        'myhostname = mx.postfix.test', 'virtual_mailbox_domains = postfix.test', 'virtual_mailbox_maps = static:box/',
        'virtual_mailbox_base = %s/mail' % lab.path('postfix'), 'virtual_uid_maps = static:5000', 'virtual_gid_maps = static:5000',
        'message_size_limit = 0', 'virtual_mailbox_limit = 0', 'smtpd_tls_security_level = may', 'smtpd_tls_cert_file = ' + certificate,
        'smtpd_tls_key_file = ' + key], ['virtual unix - n n - - virtual'])
    try:
        path = lab.path('message.txt')
        with open(path, 'wb') as file:
            file.write(source_message().replace('\r\n', '\n').encode())
        subprocess.run([tool('smtp-source'), '-d', '-s', '5', '-m', '50', '-f', 'a@load.example', '-t', 'u@postfix.test', '-F', path,
                        '127.0.0.1:%d' % relay.port], check=True, timeout=60)
        box = lab.path('postfix', 'mail/box/new')
        wait_until(lambda: os.path.isdir(box) and len(os.listdir(box)) >= 50, '50 messages in the mailbox')
        with open(os.path.join(box, os.listdir(box)[0]), 'rb') as file:
            text = file.read()
        assert source_message().replace('\r\n', '\n').encode() in text, first_difference(source_message().replace('\r\n', '\n').encode(), text)
        wait_until(lambda: len(deliveries('postfix.test')) == 50, 'Postfix has said so of all')
        delivered = deliveries('postfix.test')
        assert all(r.get('tls', '').startswith('TLS') for r in delivered), delivered[:1]
        return went_ahead('postfix.test', 8)
    finally:
        postfix.stop()


# ---- a whole Exim ----

@lab.check('a real Exim receives and delivers to a mailbox')
def to_exim():
    if os.geteuid() != 0:
        raise Skip('needs root')
    exim = lab.exim()
    the_relay()
    folder = lab.path('exim')
    for name in ('spool', 'mail'):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        os.chmod(os.path.join(folder, name), 0o777)
    config = lab.write('exim.conf', '''
exim_path = %(exim)s
exim_user = mail
exim_group = mail
spool_directory = %(folder)s/spool
log_file_path = %(folder)s/spool/%%slog
pid_file_path = %(folder)s/exim.pid
primary_hostname = mx.exim.test
keep_environment =
tls_advertise_hosts =
chunking_advertise_hosts = *
acl_smtp_rcpt = accept
smtp_accept_queue_per_connection = 0
domainlist local_domains = exim.test
begin routers
box:
  driver = accept
  domains = +local_domains
  transport = box
begin transports
box:
  driver = appendfile
  maildir_format
  directory = %(folder)s/mail/box
  create_directory
  user = mail
  group = mail
''' % {'folder': folder, 'exim': exim})
    os.chmod(config, 0o644)
    child = lab.start([exim, '-C', config, '-bdf', '-oX', '<; [%s]:%d' % (EXIM, MX_PORT)], 'exim.log')
    wait_until(lambda: can_connect(EXIM, MX_PORT), 'Exim listens: ' + lab.log('exim.log'))
    path = lab.path('message.txt')
    with open(path, 'wb') as file:
        file.write(source_message().replace('\r\n', '\n').encode())
    subprocess.run([tool('smtp-source'), '-d', '-s', '3', '-m', '20', '-f', 'a@load.example', '-t', 'u@exim.test', '-F', path,
                    '127.0.0.1:%d' % relay.port], check=True, timeout=60)
    box = os.path.join(folder, 'mail/box/new')
    wait_until(lambda: os.path.isdir(box) and len(os.listdir(box)) >= 20, '20 messages in the mailbox')
    with open(os.path.join(box, os.listdir(box)[0]), 'rb') as file:
        text = file.read()
    assert source_message().replace('\r\n', '\n').encode() in text, 'the body changed on the way to Exim'
    wait_until(lambda: len(deliveries('exim.test')) == 20, 'Exim has said so of all')
    lab.stop(child)
    return went_ahead('exim.test', 0)


@lab.check('a sink that answers 4xx for a while, then takes everything: nothing lost, nothing doubled')
def moody():
    the_relay()
    sent, got = lab.path('moody-sent'), lab.path('moody-got')
    sink = lab.load('sink', '-q', '-s', '200', '-M', '6', '-4', '10', '-L', got, '%s:%d' % (MOODY, MX_PORT), log='moody.log')
    wait_until(lambda: can_connect(MOODY, MX_PORT), 'the sink listens')
    count = 2000
    source = lab.load('source', '-q', '-s', '10', '-m', count, '-d', 'moody.test', '-L', sent, '127.0.0.1:%d' % relay.port)
    assert source.wait(60) == 0
    wanted = 'acknowledged %d, delivered %d, lost 0, duplicated 0,' % (count, count)
    wait_until(lambda: wanted in audit(sent, got), 'all arrive: ' + audit(sent, got), 90)
    lab.stop(sink)
    assert relay.records('deferral'), 'nothing was deferred'
    return audit(sent, got)


if __name__ == '__main__':
    lab.run()
