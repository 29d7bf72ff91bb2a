#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the relay signs, others verify: mail goes through it to a real Postfix, straight and from the spool, by BDAT and by DATA, and what lies in the
mailbox is judged by dkimpy (both algorithms) and by Perl's Mail::DKIM (RSA, with the keys from a name server)."""
import base64
import itertools
import json
import os
import smtplib
import socket
import subprocess

from lab import ROOT, Lab, Skip, free_port, tool, wait_until

lab = Lab('dkim')
MX_PORT = free_port()
POSTFIX = '127.0.0.2'
CANONS = {'ss': 'simple/simple', 'sr': 'simple/relaxed', 'rs': 'relaxed/simple', 'rr': 'relaxed/relaxed'}
MAIN = ['myhostname = mx.postfix.test', 'virtual_mailbox_domains = postfix.test', 'virtual_mailbox_maps = static:box/',
        'virtual_mailbox_base = %s/mail' % lab.path('postfix'), 'virtual_uid_maps = static:5000', 'virtual_gid_maps = static:5000']
HEADER = ('From: "Author, A" <a@sub.@DOMAIN@>\r\nTo: u@postfix.test,\r\n\tother@postfix.test \r\nTo: again@postfix.test\r\n'
          'Subject:  white   space \r\n and  folds\t\r\nX-Id: @ID@\r\nMessage-ID: <@ID@@x.test>\r\nDate: Thu, 26 Nov 2026 01:00:00 +0000\r\n'
          'X-Raw: caf\u00e9\r\n')
BODIES = {
    'plain': 'text\r\n',
    'dots': '.\r\n..\r\n.dot\r\nx\r\n.\r\n',
    'blank-lines': '\r\n\r\ntext\r\n\r\n\r\n\r\n',
    'white-space': ' a \t b  \r\n\t\r\n  c\r\n \r\n',
    'eight-bit': 'caf\u00e9 \u20ac\r\n',
    'empty': '',
    'long-lines': 'x' * 990 + '\r\n' + 'y z' * 300 + '\r\n',
}
relay = None
keys, name_server = {}, 0


def openssl(*arguments):
    return subprocess.run([tool('openssl')] + list(arguments), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def make_key(name, *arguments):
    """A private key's file, and the base64 that its DNS record has."""
    path = lab.path(name + '.pem')
    openssl('genpkey', *arguments, '-out', path)
    os.chmod(path, 0o600)
    public = openssl('pkey', '-in', path, '-pubout', '-outform', 'DER')
    return base64.b64encode(public[-32:] if name.startswith('ed') else public).decode()


def the_relay():
    global relay, name_server
    if relay is not None:
        return relay
    records = {'rsa': 'v=DKIM1; k=rsa; p=' + make_key('rsa', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'),
               'ed': 'v=DKIM1; k=ed25519; p=' + make_key('ed', '-algorithm', 'ED25519')}
    rows, rules = ['postfix MX 5 mx.postfix', 'mx.postfix A ' + POSTFIX], []
    for domain, canon in CANONS.items():
        for selector, text in records.items():
            name = '%s._domainkey.%s' % (selector, domain)
            keys[name + '.test'] = text
            rows.append('%s TXT %s' % (name, ' '.join('"%s"' % text[i:i + 200] for i in range(0, len(text), 200))))
            rules.append('{domain: %s.test, selector: %s, key: @FOLDER@/%s.pem, canonicalization: %s, expire: 7d, identity: "@sub.%s.test"}'
                         % (domain, selector, selector, canon, domain))
    name_server = lab.nsd({'test': rows})
    relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8]}
sources: [{name: default, addresses: [127.0.0.1]}]
client: {idle_timeout: 1s}
retry: {min: 1s, max: 4s}
delivery: cut-through
delivery_rules: [{senders: [stored.test], delivery: spool}]
dkim: [%s]
''' % (name_server, MX_PORT, ', '.join(rules)))
    wait_until(relay.is_recovered, 'the relay has looked for mail of earlier runs')
    return relay


def message(name, domain, body):
    return (HEADER.replace('@DOMAIN@', domain + '.test').replace('@ID@', name) + '\r\n' + body).encode()


def send_by_data(text, sender='stored'):
    with smtplib.SMTP('127.0.0.1', the_relay().port, timeout=60) as client:
        client.sendmail('s@%s.test' % sender, ['u@postfix.test'], text, ['BODY=8BITMIME'])


def send_by_bdat(text, cut, sender):
    with socket.create_connection(('127.0.0.1', the_relay().port), 30) as stream, stream.makefile('rb') as lines:
        def said(count, code):
            for _ in range(count):
                while (line := lines.readline())[3:4] == b'-':
                    pass
                assert line.startswith(code), line
        said(1, b'220')
        stream.sendall(b'EHLO client.test\r\n')
        said(1, b'250')
        stream.sendall(b'MAIL FROM:<s@%s.test> BODY=8BITMIME\r\nRCPT TO:<u@postfix.test>\r\nBDAT %d\r\n' % (sender.encode(), cut) + text[:cut] +
                       b'BDAT %d LAST\r\n' % (len(text) - cut) + text[cut:] + b'QUIT\r\n')
        said(4, b'250')


def mailbox():
    """Messages in the mailbox by their X-Id, with CRLF; what the delivery put in front stays."""
    folder, found = lab.path('postfix', 'mail/box/new'), {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name), 'rb') as file:
            text = file.read().replace(b'\n', b'\r\n')
        found[text.split(b'X-Id: ')[1].split(b'\r\n')[0].decode()] = text
    return found


def by_dkimpy(messages):
    tool('dkimverify')
    request = {'keys': keys, 'messages': [base64.b64encode(text).decode() for text in messages]}
    done = subprocess.run(['/usr/bin/python3', os.path.join(ROOT, 'tests/interop/dkim_check.py')], input=json.dumps(request), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False, encoding='utf-8', timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_mail_dkim(messages):
    if subprocess.run(['/usr/bin/perl', '-MMail::DKIM', '-e', '1'], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        raise Skip('no Mail::DKIM')
    files = []
    for number, text in enumerate(messages):
        files.append(lab.path('message-%d' % number))
        with open(files[-1], 'wb') as file:
            file.write(text)
    done = subprocess.run(['/usr/bin/perl', os.path.join(ROOT, 'tests/interop/dkim_check.pl'), str(name_server)] + files, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, encoding='utf-8', timeout=100)
    assert done.returncode == 0, done.stdout
    return [line.split(' ', 2)[1:] for line in done.stdout.splitlines()]


def deliver(postfix_extra, prefix, domains):
    """Every form, body and way of sending through the relay into the mailbox; returns the messages by name."""
    before = the_relay().status()['ways']
    postfix = lab.postfix(POSTFIX, MX_PORT, MAIN + postfix_extra, ['virtual unix - n n - - virtual'])
    names = []
    try:
        # What is stored and due would be waited for by what could go straight: that is last.
        for sender, domain, body, way in itertools.product(('straight', 'stored'), domains, BODIES, ('data', 'bdat')):
            names.append('-'.join((prefix, sender, domain, body, way)))
            if way == 'data':
                send_by_data(message(names[-1], domain, BODIES[body]), sender)
            else: # the last line has no end
                send_by_bdat(message(names[-1], domain, BODIES[body] + 'end'), 40, sender)
        ways = relay.status()['ways']
        assert [ways[way] - before[way] for way in ('ready', 'sender')] == [len(names) / 2] * 2, ways
        return wait_until(lambda: (box := mailbox()) and all(name in box for name in names) and {name: box[name] for name in names},
                          '%d messages in the mailbox' % len(names))
    finally:
        postfix.stop()


def judge(found):
    messages = list(found.values())
    for name, signatures in zip(found, by_dkimpy(messages)):
        assert signatures == [['rsa', True], ['ed', True]], (name, signatures, found[name].decode(errors='replace')[:3000])
    return messages


@lab.check('what goes to a Postfix in chunks is verified by dkimpy and by Mail::DKIM')
def by_chunks():
    messages = judge(deliver([], 'chunks', CANONS))
    results = [result for selector, result in by_mail_dkim(messages) if selector == 'rsa']
    assert results == ['pass'] * len(messages), results
    changed = messages[0].replace(b'text', b'Text').replace(b'From: "Author', b'From: "author')
    assert [good for _, good in by_dkimpy([changed])[0]] == [False, False]
    return '%d messages' % len(messages)


@lab.check('what goes to a Postfix by DATA is verified, too')
def by_data():
    messages = judge(deliver(['smtpd_discard_ehlo_keywords = chunking'], 'data', ['ss', 'rr']))
    status = the_relay().status()
    assert status['server']['dkim.messages'] >= len(messages), status['server']
    assert status['server']['dkim.signatures'] == 2 * status['server']['dkim.messages'], status['server']
    return '%d messages' % len(messages)


@lab.check('a reload takes new keys; a key that others may read is refused with its place, and nothing changes')
def keys_are_reloaded():
    the_relay()
    keys['new._domainkey.rr.test'] = 'v=DKIM1; k=ed25519; p=' + make_key('ed-new', '-algorithm', 'ED25519')
    with open(relay.config, encoding='utf-8') as file:
        text = file.read()
    rule = '{domain: rr.test, selector: new, key: %s/ed-new.pem}' % lab.folder
    os.chmod(lab.path('ed-new.pem'), 0o604)
    lab.write('relay.yaml', text.replace('dkim: [', 'dkim: [%s, ' % rule))
    try:
        relay.cli('reload')
        raise RuntimeError('the reload was not refused')
    except AssertionError as refusal:
        assert 'dkim[].key' in str(refusal) and 'has mode 0604: expected no right for others' in str(refusal) and 'relay.yaml:' in str(refusal)
    os.chmod(lab.path('ed-new.pem'), 0o640)
    relay.cli('reload')
    postfix = lab.postfix(POSTFIX, MX_PORT, MAIN, ['virtual unix - n n - - virtual'])
    try:
        send_by_data(message('reloaded', 'rr', 'text\r\n'))
        text = wait_until(lambda: mailbox().get('reloaded'), 'a message in the mailbox')
        assert by_dkimpy([text])[0] == [['new', True], ['rsa', True], ['ed', True]]
    finally:
        postfix.stop()


lab.run()
