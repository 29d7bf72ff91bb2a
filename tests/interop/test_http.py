#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Management over HTTP against a running relay, with Python's client: roles, verbs, streams, metrics, and what hostile clients send."""
import base64
import hashlib
import http.client
import json
import os
import re
import smtplib
import socket
import ssl
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import BUILD, ROOT, Lab, can_connect, free_port, send_letters, tool, wait_until  # pylint: disable=wrong-import-position

lab = Lab('http')
ADMIN, VIEWER = 'admin-token-of-24-signs-', 'viewer-token-of-24-signs'
smtp, port = free_port(), free_port()
MESSAGES = 3


def angarium(*arguments):
    return subprocess.run([os.path.join(BUILD, 'control/angarium'), '-s', lab.path('control'), *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding='utf-8', timeout=60, check=False)


class Local(http.client.HTTPConnection):
    """Over the Unix socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(lab.path('http.sock'))


def ask(path, method='GET', token=None, body=None, kind='application/json', connection=None):
    connection = connection or http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    fields = {'Authorization': 'Bearer ' + token} if token else {}
    if body is not None:
        fields['Content-Type'] = kind
    connection.request(method, path, body if body is None or isinstance(body, (bytes, str)) else json.dumps(body), fields)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def is_served():
    """False also while the server, whose connections are all taken, closes new ones at once."""
    try:
        return ask('/api/v1/status', token=VIEWER)[0] == 200
    except OSError:
        return False


def start():
    lab.secret('admin', ADMIN + '\n')
    lab.secret('viewer', VIEWER + '\n')
    config = lab.write('relay.yaml', '''
hostname: relay.test
listen: [{address: "127.0.0.1:%d"}]
spool: {directory: "%s", size: 1GiB}
control: {socket: "%s"}
dns: {resolvers: ["127.0.0.1:%d"]}
records: {file: "%s", raw: "%s"}
http: {listen: "127.0.0.1:%d", socket: "%s", admin_token_file: "%s", viewer_token_file: "%s"}
''' % (smtp, lab.path('spool'), lab.path('control'), free_port(), lab.path('records.json'), lab.path('records.raw'), port,
       lab.path('http.sock'), lab.path('admin'), lab.path('viewer')))
    lab.start([os.path.join(BUILD, 'control/angariumd'), '-c', config], 'relay.log')
    wait_until(lambda: can_connect('127.0.0.1', smtp), 'the relay')
    wait_until(lambda: can_connect('127.0.0.1', port), 'http')


@lab.check('nobody is told anything without a token')
def nobody():
    for path in ('/metrics', '/api/v1/status', '/api/v1/queue/list', '/x', '/api/v1/hold'):
        for token in (None, 'x', VIEWER[:-1], VIEWER + 'x'):
            status, text = ask(path, token=token)
            assert status == 401 and json.loads(text)['ok'] is False, (path, token, status, text)
    for token, role in ((None, 'none'), (VIEWER + 'x', 'none'), (VIEWER, 'viewer'), (ADMIN, 'admin')):
        status, text = ask('/api/v1/role', token=token)
        assert status == 200 and json.loads(text)['role'] == role, (token, text)


@lab.check('the page is there for everybody, holds no data, and may do nothing but ask this relay')
def dashboard():
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    connection.request('GET', '/')
    answer = connection.getresponse()
    text, policy = answer.read(), answer.getheader('Content-Security-Policy')
    script = re.search(rb'<script>(.*)</script>', text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert answer.status == 200 and answer.getheader('Content-Type') == 'text/html; charset=utf-8' and answer.getheader('Cache-Control') == 'no-store'
    assert "default-src 'none'; script-src 'sha256-%s'; " % digest in policy and 'unsafe' not in policy and 'http:' not in policy, policy
    assert not re.search(rb'(src|href)="?(https?:)?//', text), 'it asks others'
    assert ask('/', 'POST', ADMIN, {})[0] == 404


@lab.check('a viewer reads numbers and lists, and neither reads mail nor gives orders')
def viewer():
    status, text = ask('/api/v1/queue/list?filter=domain%3Dfar.test&limit=2', token=VIEWER)
    rows = json.loads(text)['rows']
    assert status == 200 and len(rows) == 2 and rows[0]['recipient'] == 'b@far.test', text
    assert ask('/api/v1/queue/show?id=' + rows[0]['id'], token=VIEWER)[0] == 200
    assert ask('/api/v1/queue/cat?id=' + rows[0]['id'], token=VIEWER)[0] == 403
    for verb in ('hold', 'reload', 'site/suspend', 'delete'):
        assert ask('/api/v1/' + verb, 'POST', VIEWER, {'all': True})[0] == 403, verb
    assert json.loads(ask('/api/v1/queue/list', token=VIEWER)[1])['rows'][0]['state'] != 'held'


@lab.check('the admin gives orders by POST with JSON, and only so')
def admin():
    held = {'filter': 'domain=far.test', 'reason': 'test'}
    assert ask('/api/v1/hold?filter=domain%3Dfar.test', token=ADMIN)[0] == 405
    assert ask('/api/v1/hold', 'POST', ADMIN, json.dumps(held), 'text/plain')[0] == 400
    assert ask('/api/v1/hold', 'POST', ADMIN, 'x=1')[0] == 400
    status, text = ask('/api/v1/hold', 'POST', ADMIN, held)
    assert status == 200 and json.loads(text)['matched'] == MESSAGES, text
    listed = json.loads(angarium('queue', 'list', 'state=held', '--json').stdout)
    assert len(listed['rows']) == MESSAGES, listed
    status, text = ask('/api/v1/release', 'POST', ADMIN, {'all': True})
    assert status == 200 and json.loads(text)['matched'] == MESSAGES, text
    status, text = ask('/api/v1/nonsense', 'POST', ADMIN, {})
    assert status == 400 and 'verb' in json.loads(text)['error'], text
    assert ask('/api/v1/reload', 'POST', ADMIN, {})[0] == 200


@lab.check('who looks on gets the answer of another, and nobody what was before an order')
def shared():
    def held(path):
        return json.loads(ask('/api/v1/' + path, token=VIEWER)[1])['queue']['deliveries_held']
    look, now = 'status?max_age_ms=1000', json.loads(ask('/api/v1/status', token=VIEWER)[1])
    uptimes = [json.loads(ask('/api/v1/' + path, token=VIEWER)[1])['uptime_us'] for path in (look, look, 'status', look)]
    assert now['uptime_us'] < uptimes[0] == uptimes[1] == uptimes[3] < uptimes[2], uptimes
    for verb, count in (('hold', MESSAGES), ('release', 0)) * 3:
        assert ask('/api/v1/' + verb, 'POST', ADMIN, {'filter': 'domain=far.test', 'reason': 'test'})[0] == 200
        assert held(look) == count, (verb, held(look))
    assert ask('/api/v1/status?max_age_ms=x', token=VIEWER)[0] == 400


@lab.check('mail and long lists come as a stream')
def stream():
    status, text = ask('/api/v1/queue/list?stream=true', token=VIEWER)
    lines = [json.loads(line) for line in text.splitlines()]
    assert status == 200 and sum('row' in line for line in lines) == MESSAGES and lines[-1]['ok'] is True, text
    wanted = lines[0]['row']['id']
    status, text = ask('/api/v1/queue/cat', 'POST', ADMIN, {'id': wanted})
    assert status == 200 and json.loads(text.splitlines()[-1])['ok'] is True, text


@lab.check('over the Unix socket root and the relay\'s user need no token')
def local():
    assert ask('/api/v1/status', connection=Local('local'))[0] == 200
    status, text = ask('/api/v1/hold', 'POST', body={'all': True, 'dry_run': True}, connection=Local('local'))
    assert status == 200 and json.loads(text)['matched'] == MESSAGES, text
    assert ask('/api/v1/status', connection=Local('127.0.0.1'))[0] == 200
    assert ask('/api/v1/status', connection=Local('evil.example'))[0] == 401, 'a page of another site, led here by its name'
    assert os.stat(lab.path('http.sock')).st_mode & 0o007 == 0


@lab.check('metrics are well formed, no series twice, and they count what happened')
def metrics():
    status, text = ask('/metrics', token=VIEWER)
    names = set()
    for line in text.splitlines():
        if line.startswith('#'):
            continue
        name, value = line.rsplit(' ', 1)
        assert name not in names, 'twice: ' + name
        names.add(name)
        float(value)
    assert status == 200 and len(names) > 100
    assert 'angarium_server_messages_accepted_total %d\n' % MESSAGES in text
    assert 'angarium_queue_messages %d\n' % MESSAGES in text
    heads = [line for line in text.splitlines() if line.startswith('#')]
    for status, page in (ask('/api/v1/metrics', token=VIEWER), ask('/api/v1/metrics', 'POST', ADMIN, {}), (200, angarium('metrics').stdout)):
        assert status == 200 and [line for line in page.splitlines() if line.startswith('#')] == heads, (status, page)
    assert angarium('metrics', '--json').returncode == 2


@lab.check('requests that are cut off, too large or nonsense harm nobody')
def hostile():
    head = b'POST /api/v1/hold HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ' + ADMIN.encode() + b'\r\nContent-Type: application/json\r\n'
    rows = (b'\0' * 4000, b'GET ' + b'/' * 100000 + b' HTTP/1.1\r\n\r\n', b'GET / HTTP/1.1\r\n' + b'X: y\r\n' * 10000 + b'\r\n',
            head + b'Content-Length: 5000\r\n\r\n' + b'x' * 5000, head + b'Content-Length: 99999999999999999999\r\n\r\n',
            head + b'Content-Length: 10\r\n\r\n{', head + b'Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n', b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
    for octets in rows:
        with socket.create_connection(('127.0.0.1', port), 60) as client:
            try:
                client.sendall(octets)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(60)
                said = client.recv(200)
            except OSError:
                said = b''
            assert not said or b' 4' in said[:12] or b' 5' in said[:12], (octets[:60], said)
    for target in ('status%00', 'status%00/../reload', 'queue/list?filter=domain%3Dfar.test%00x', 'queue/list?limit=1%00'):
        assert ask('/api/v1/' + target, token=VIEWER)[0] == 400, target
    status, text = ask('/api/v1/hold', 'POST', ADMIN, '{"filter":"' + 'x' * 3990 + '"}')
    assert status == 413, (status, text)
    assert ask('/api/v1/status', token=VIEWER)[0] == 200


def raw(octets, half_close=True):
    """Everything that is said to these octets."""
    with socket.create_connection(('127.0.0.1', port), 60) as client:
        client.sendall(octets)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return b''.join(iter(lambda: client.recv(65536), b''))


def request(line, *fields, body=b''):
    """With the admin's token, and the connection ends behind it."""
    return '\r\n'.join((line, 'Authorization: Bearer ' + ADMIN, 'Connection: close') + fields + ('', '')).encode() + body


@lab.check('methods, hosts, targets, bodies in chunks and requests in a row are taken as HTTP has them')
def protocol():
    for method in ('PUT', 'DELETE', 'OPTIONS', 'TRACE', 'PATCH', 'NONSENSE'):
        answer = raw(request(method + ' /api/v1/status HTTP/1.1', 'Host: x'))
        assert answer.startswith(b'HTTP/1.1 405 ') and b'\r\nAllow: GET, HEAD, POST\r\n' in answer, (method, answer)
    for line, allowed in (('POST /metrics', b'GET, HEAD'), ('PUT /metrics', b'GET, HEAD'), ('GET /api/v1/hold', b'POST')):
        answer = raw(request(line + ' HTTP/1.1', 'Host: x'))
        assert answer.startswith(b'HTTP/1.1 405 ') and b'\r\nAllow: ' + allowed + b'\r\n' in answer, (line, answer)
    for path in ('/', '/api/v1/status', '/metrics'):
        answer = raw(request('HEAD %s HTTP/1.1' % path, 'Host: x'))
        assert answer.startswith(b'HTTP/1.1 200 ') and answer.endswith(b'\r\n\r\n') and b'Content-Length: ' in answer, (path, answer)
    for line, fields, code in (('GET /api/v1/status HTTP/1.1', (), b'400'), ('GET /api/v1/status HTTP/1.1', ('Host: x', 'Host: y'), b'400'),
                               ('GET http://relay.test/api/v1/role HTTP/1.1', ('Host: x',), b'200'),
                               ('GET http://relay.test HTTP/1.1', ('Host: x',), b'400'), ('GET ftp://relay.test/ HTTP/1.1', ('Host: x',), b'400'),
                               ('GET /api/v1/../v1/status HTTP/1.1', ('Host: x',), b'400'), ('GET /api/v1/%73tatus HTTP/1.1', ('Host: x',), b'200'),
                               ('GET /api/v1/status HTTP/1.1', ('Host: x', 'Range: bytes=0-3'), b'200'),
                               ('GET /api/v1/role HTTP/1.0', (), b'200'), ('CONNECT relay.test:25 HTTP/1.1', ('Host: x',), b'405')):
        answer = raw(request(line, *fields))
        assert answer.split(b' ')[1:2] == [code], (line, fields, answer[:300])
    json_body = ('Host: x', 'Content-Type: application/json')
    answer = raw(request('POST /api/v1/hold HTTP/1.1', *json_body, 'Transfer-Encoding: chunked',
                         body=b'7\r\n{"all":\r\n17;x=y\r\n true, "dry_run": true}\r\n0\r\n\r\n'))
    assert b' 200 ' in answer[:20] and b'"matched":' in answer, answer
    order = b'{"all": true, "dry_run":true}'
    size, chunks = 'Content-Length: ', 'Transfer-Encoding: '
    for fields, code in (((size + '29',), b'200'), ((size + ' 29',), b'200'), ((size + '29',) * 2, b'400'), ((size + '29', size + '2'), b'400'),
                         ((size + '2', size + '29'), b'400'), ((size + '29', size + '0', size + '29'), b'400'), ((size + '29,29',), b'400'),
                         ((size + '29, 29',), b'400'), ((size + '+29',), b'400'), ((size + '-29',), b'400'), ((size + '29 ',), b'400'),
                         ((size + '2 9',), b'400'), ((size + '0x1d',), b'400'), ((size,), b'400'), (('Content-Length : 29',), b'400'),
                         ((size + '29\r\n 0',), b'400'), ((size + '\r\n 29',), b'400'), (('X: y\r' + size + '29',), b'400'),
                         ((chunks + '\r\n chunked',), b'400'), ((size + '29', chunks + 'chunked'), b'400'), ((chunks + 'chunked', size + '29'), b'400'),
                         ((chunks + 'gzip, chunked',), b'400'), ((chunks + 'identity',), b'400'), ((chunks + 'chunked, identity', size + '29'), b'400'),
                         (('Transfer-Encoding : chunked', size + '29'), b'400'), ((chunks + '\x0bchunked', size + '29'), b'400')):
        answer = raw(request('POST /api/v1/hold HTTP/1.1', *json_body, *fields, body=order).replace(
            b'Connection: close\r\n', b'') + request('GET /api/v1/role HTTP/1.1', 'Host: x'))
        # libmicrohttpd, where it refuses a size by itself, says the head of its answer twice.
        codes = [part.split(b' ')[0] for part in answer.split(b'HTTP/1.1 ')[1:]]
        assert codes == ([code, b'200'] if code == b'200' else [code] * len(codes)) and codes, (fields, answer)
    answer = raw(request('POST /api/v1/hold HTTP/1.0', *json_body, chunks + 'chunked', body=b'2\r\n{}\r\n0\r\n\r\n'))
    assert b' 400 ' in answer[:20], answer
    answer = raw(request('POST /api/v1/hold HTTP/1.1', *json_body, 'Transfer-Encoding: chunked', body=b'fff\r\n' + b' ' * 4095 + b'\r\n0\r\n\r\n'))
    assert b' 413 ' in answer[:20], answer
    one = b'GET /api/v1/role HTTP/1.1\r\nHost: x\r\n\r\n'
    assert raw(20 * one + one.replace(b'\r\n\r\n', b'\r\nConnection: close\r\n\r\n'), half_close=False).count(b'HTTP/1.1 200 ') == 21


@lab.check('another site\'s page gives no orders, also with a token, and a name that is led here is nobody')
def other_sites():
    order = ('Host: relay:8025', 'Content-Type: application/json')
    for origin, code in ((None, b'200'), ('http://relay:8025', b'200'), ('http://evil.example', b'403'), ('null', b'403')):
        fields = order + (() if origin is None else ('Origin: ' + origin,)) + ('Content-Length: 29',)
        answer = raw(request('POST /api/v1/hold HTTP/1.1', *fields, body=b'{"all": true, "dry_run":true}'))
        assert answer.split(b' ')[1:2] == [code], (origin, answer)
    local = Local('local')
    local.putrequest('POST', 'http://evil.example/api/v1/hold', skip_host=True)
    for name, value in (('Host', 'localhost'), ('Content-Type', 'application/json'), ('Content-Length', '2')):
        local.putheader(name, value)
    local.endheaders(b'{}')
    assert local.getresponse().status == 401, 'the target says whose it is, not the field'


def table_of(page):
    """Of docs/http.md: {verb: (role, method, members)}."""
    with open(os.path.join(ROOT, 'docs', page), encoding='utf-8') as file:
        rows = re.findall(r'^\| `([a-z ]+)` \| (viewer|admin) \| ([A-Z, ]+) \| ([^|]*)\|', file.read(), re.M)
    return {verb: (role, method, set(re.findall('`([a-z_]+)`', members))) for verb, role, method, members in rows}


@lab.check('every verb of the command line is there, and the page says who may what with which members')
def every_verb():
    verbs = [line.split('\t')[0] for line in angarium('help', '--reference').stdout.splitlines()]
    status, text = ask('/api/v1/help', token=VIEWER)
    rows = {row['verb']: row for row in json.loads(text)['rows']}
    assert status == 200 and len(verbs) > 40 and set(rows) == set(verbs) | {'user quota'}, set(rows) ^ set(verbs)
    told = {verb: (row['role'], 'POST' if row['role'] == 'admin' else 'GET, POST', set(row['members']) - {'max_age_ms'}) for verb, row in rows.items()}
    assert table_of('http.md') == told, [(verb, told.get(verb), table_of('http.md').get(verb)) for verb in told if told[verb] != table_of('http.md').get(verb)]
    for verb, row in rows.items():
        path = row['path']
        assert path == '/api/v1/' + verb.replace(' ', '/') and row['methods'] == (['POST'] if row['role'] == 'admin' else ['GET', 'HEAD', 'POST']), row
        assert ask(path)[0] == 401 and ask(path, 'POST', body={})[0] == 401, verb
        if row['role'] == 'admin':
            assert ask(path, 'POST', VIEWER, {})[0] == 403 and ask(path, token=VIEWER)[0] == 403 and ask(path, token=ADMIN)[0] == 405, verb
        if verb in ('drain', 'trace', 'upgrade', 'capture', 'top'):
            continue
        status, text = ask(path, 'POST', ADMIN, {})
        error = json.loads(text.splitlines()[-1]).get('error', '') if verb != 'metrics' else ''
        assert status in (200, 400, 409) and 'unknown verb' not in error, (verb, status, text)
    assert ask('/api/v1/trace', 'POST', ADMIN, {'id': '127.0.0.1', 'seconds': 1})[0] == 200
    for verb in ('drain', 'drain/end'):
        assert ask('/api/v1/' + verb, 'POST', ADMIN, {'seconds': 1})[0] == 200, verb
    for path in ('/api/v1/version', '/api/v1/status'):
        assert json.loads(ask(path, token=VIEWER)[1])['version'] in angarium('version').stdout


def post(verb, **members):
    status, text = ask('/api/v1/' + verb, 'POST', ADMIN, members)
    return status, json.loads(text)


@lab.check('a dry run of a reload and of a drain says what would be, and does nothing')
def dry_runs():
    with open(lab.path('relay.yaml'), encoding='utf-8') as file:
        text = file.read()
    for more, said in (('', 'no option has changed'), ('message_lifetime: 3d\ncores: 2\n', 'message_lifetime; only a restart changes: cores'),
                       ('cores: many\n', 'cores')):
        lab.write('relay.yaml', text + more)
        status, answer = post('reload', dry_run=True)
        assert status == (400 if 'many' in more else 200) and said in answer.get('text', answer.get('error')), answer
        done = angarium('reload', '--dry-run')
        assert done.returncode == ('many' in more) and said in done.stdout, done.stdout
    lab.write('relay.yaml', text.replace('listen: [{', 'listen: [{tls: {self_signed: "%s"}, ' % lab.path('pair'), 1))
    assert 'listen' in post('reload', dry_run=True)[1]['text']
    for verb in ('check', 'config/show'):
        status, answer = post(verb)
        assert status == 200 and answer['ok'], answer
    assert angarium('check', lab.path('relay.yaml')).returncode == 0 and angarium('config', 'show', lab.path('relay.yaml')).returncode == 0
    assert not os.path.exists(lab.path('pair')), 'who looked has made a key'
    lab.write('relay.yaml', text)
    assert 'no option has changed' in post('reload')[1]['text'], 'the dry run has done it'
    status, answer = post('drain', dry_run=True, stop=True)
    assert status == 200 and answer['dry_run'] is True and answer['messages'] == MESSAGES and answer['sessions'] == 0, answer
    assert 'nothing was done' in angarium('drain', '--dry-run').stdout
    status = json.loads(ask('/api/v1/status', token=VIEWER)[1])
    assert status['intake']['is_closed'] is False and can_connect('127.0.0.1', smtp)
    assert post('drain/end', dry_run=True)[0] == 400 and post('upgrade', dry_run=True)[0] == 400
    assert angarium('reload', '--dry-run', '--or-upgrade').returncode == 2


@lab.check('what there is not is refused alike, as an object or as a stream, and a limit of 0 is none')
def refusals():
    for path in ('queue/show', 'queue/cat', 'explain'):
        for wanted in ('aadgckcewtj4v57ch2f23dzjeq', 'x', ''):
            status, text = ask('/api/v1/' + path, 'POST', ADMIN, {'id': wanted})
            assert status == 400 and json.loads(text)['ok'] is False, (path, wanted, status, text)
    assert post('trace', id='')[0] == 400
    with smtplib.SMTP('127.0.0.1', smtp) as client:
        client.sendmail('a@client.test', ['u%d@d%d.test' % (i, i) for i in range(110)], 'Subject: x\r\n\r\nx\r\n')
    for path, rows in (('queue/summary?by=domain', 100), ('queue/summary?by=domain&limit=0', 111), ('queue/list?limit=0', MESSAGES + 110), ('queue/list', 100),
                       ('queue/summary?by=domain&limit=7', 7)):
        answer = json.loads(ask('/api/v1/' + path, token=VIEWER)[1])
        assert len(answer['rows']) == rows and answer['has_more'] == (rows < 111), (path, len(answer['rows']), answer['has_more'])
    assert post('delete', all=True, reason='test')[0] == 200
    send_letters(smtp, MESSAGES * ['b@far.test'])


@lab.check('a configuration is shown and checked, and nobody learns what is in a file that it names')
def configurations():
    status, shown = post('config/show')
    rows = {row['option']: row for row in shown['rows']}
    assert status == 200 and shown['file'] == lab.path('relay.yaml') and rows['hostname'] == {
        'option': 'hostname', 'value': 'relay.test', 'file': shown['file'], 'line': 2}, shown
    assert rows['http.admin_token_file']['value'] == lab.path('admin') and 'line' not in rows['retry.min'], rows
    assert ADMIN not in json.dumps(shown) and VIEWER not in json.dumps(shown)
    assert post('config/show', file='/etc/passwd')[0] == 400
    status, answer = post('check')
    assert status == 200 and answer['ok'] and answer['file'] == shown['file'] and answer['errors'] == [], answer
    status, answer = post('check', text='hostname: a.test\ndns: {timeout: soon}\n')
    assert status == 400 and [(e['line'], e['column'], e['option']) for e in answer['errors']] == [(2, 16, 'dns.timeout')], answer
    secret = lab.path('admin')
    for text in ('include: %s\n', 'include: ["%s"]\n', 'patterns_file: %s\n', 'auth: {users_file: %s}\n', '%s\n', 'http: {admin_token_file: %s}\n',
                 'dkim: [{domain: a.test, selector: s, key: %s}]\n', 'listen: [{address: "127.0.0.1:25", tls: {self_signed: %s.new}}]\n'):
        answers = [json.dumps(post('check', text='hostname: a.test\n' + text % path)) for path in (secret, secret + '.not')]
        assert answers[0].replace(secret, 'P') == answers[1].replace(secret + '.not', 'P') and ADMIN not in answers[0], answers
        assert ('include' in text) == ('include' in answers[0]), answers
    assert not os.path.exists(secret + '.new')
    assert post('check', text=5)[0] == 400 and post('check', text='', path=secret)[0] == 400
    large = 'hostname: a.test\n' + '# %s\n' % (62 * 'x') * 16000
    assert len(large) < 1 << 20 and post('check', text=large)[0] == 200
    assert post('check', text=large + '#' + 'x' * 10000)[0] == 400, 'a configuration of more than 1 MiB'
    for text in (200000 * '[', 100000 * '&a ', 100000 * '%x\n'):
        status, answer = post('check', text=text)
        assert status == 400 and 'too many' in answer['error'], 'it would take minutes'
    assert ask('/api/v1/check', 'POST', ADMIN, '{"text": "%s"}' % ('x' * (2 << 20)))[0] == 413
    assert ask('/api/v1/check', 'POST', VIEWER, '{"text": "%s"}' % ('x' * 5000))[0] == 413
    assert ask('/api/v1/hold', 'POST', ADMIN, '{"filter": "%s"}' % ('x' * 5000))[0] == 413


@lab.check('a configuration is made of Postfix\'s, and no file is opened for what it says')
def postfix():
    master = 'smtp inet n - y - - smtpd\n'
    status, answer = post('import/postfix', main_cf='myhostname = mail.example.net\nsmtpd_milters = x\ntransport_maps = hash:%s\n' % lab.path('admin'),
                          master_cf=master)
    assert status == 200 and 'hostname: "mail.example.net"\n' in answer['configuration'], answer
    assert any(note.startswith('smtpd_milters: ') for note in answer['notes']) and any('transport_maps' in note for note in answer['notes']), answer
    assert ADMIN not in json.dumps(answer) and post('check', text=answer['configuration'])[0] == 200
    for members in ({}, {'main_cf': ''}, {'main_cf': 'x', 'master_cf': ''}, {'main_cf': 'a = b\n', 'master_cf': 'x\n'}, {'dir': '/etc/postfix'}):
        status, answer = post('import/postfix', **members)
        assert status == 400 and answer['error'], (members, answer)
    for size, code in ((262144, 200), (262145, 413)):
        assert post('import/postfix', main_cf='#' + 'x' * (size - 2) + '\n', master_cf=master)[0] == code, size


def of_time(record, time):
    """The same in binary, of another time."""
    fields, crc = record[:4] + record[8:32] + time.to_bytes(8, 'little') + record[40:], 0xffffffff
    for octet in fields:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return fields[:4] + (crc ^ 0xffffffff).to_bytes(4, 'little') + fields[4:]


@lab.check('records of a message are found and printed from the relay\'s own files, whatever is asked')
def records():
    wanted = json.loads(ask('/api/v1/queue/list?limit=1', token=VIEWER)[1])['rows'][0]['id']
    wait_until(lambda: len(post('records/find', id=wanted)[1].get('rows', [])) > 1, 'records of a reception and an attempt')
    status, answer = post('records/find', id=wanted)
    assert status == 200 and {'reception', 'deferral'} <= {row['type'] for row in answer['rows']} and answer['has_more'] is False, answer
    assert answer['file'] == lab.path('records.json') and answer['rows'][0]['id'] == wanted
    assert post('records/find', id='aadgckcewtj4v57ch2f23dzjeq')[0] == 400 and post('records/find', id='../x')[0] == 400
    status, answer = post('records/find', id=wanted, file='/etc/passwd')
    assert status == 400 and 'file' in answer['error'], answer
    for limit, has_more in ((10000, False), (10001, False), (0, False), (1, True)):
        status, answer = post('records/find', id=wanted, limit=limit)
        assert status == 200 and answer['has_more'] is has_more and (limit != 1 or len(answer['rows']) == 1), (limit, answer)
    status, text = ask('/api/v1/records/print', 'POST', ADMIN, {})
    lines = [json.loads(line) for line in text.splitlines()]
    assert status == 200 and len(lines) > MESSAGES and lines[-1] == {'ok': True, 'count': len(lines) - 1, 'passed': 0}, lines[-1]
    assert any(line.get('id') == wanted for line in lines)
    status, text = ask('/api/v1/records/print', 'POST', ADMIN, {'limit': 2})
    assert status == 200 and json.loads(text.splitlines()[-1])['count'] == 2 and len(text.splitlines()) == 3, text
    status, text = ask('/api/v1/records/print', 'POST', ADMIN, {'csv': True})
    assert status == 200 and text.startswith('type,') and len(text.splitlines()) > MESSAGES, text[:300]
    with open(lab.path('records.raw'), 'rb') as file:
        kept = file.read()
    with open(lab.path('records.raw.1'), 'wb') as file:
        file.write(kept[:29] + of_time(kept[29:29 + int.from_bytes(kept[31:33], 'little')], 4102444800000000))
    status, text = ask('/api/v1/records/print', 'POST', ADMIN, {})
    assert json.loads(text.splitlines()[-1])['count'] > MESSAGES, 'a clock that was set back hid what came behind'
    os.unlink(lab.path('records.raw.1'))


@lab.check('the spool tells what is known of it while it is in use, and no more')
def spool():
    status, answer = ask('/api/v1/spool/check', token=VIEWER)
    assert status == 200 and json.loads(answer)['is_good'] is True and 'damaged_messages' in json.loads(answer), answer
    status, answer = ask('/api/v1/spool/stats', token=VIEWER)
    assert status == 200 and json.loads(answer)['messages_live'] >= MESSAGES, answer
    for verb in ('spool/dump', 'spool/adopt'):
        status, answer = post(verb)
        assert status == 409 and 'uses this spool' in answer['error'], answer
        assert post(verb, file=lab.path('spool'))[0] == 400


@lab.check('a password becomes a hash, and is in no log')
def password():
    secret = 'a password "with" \\ and \u00fc'
    status, answer = post('user/hash', password=secret)
    assert status == 200 and answer['hash'].startswith('$y$'), answer
    assert post('user/hash', password=secret)[1]['hash'] != answer['hash'], 'a salt of its own'
    status, answer = post('user/hash', password=secret, scram=True)
    assert status == 200 and answer['hash'].startswith('{SCRAM-SHA-256}'), answer
    assert ask('/api/v1/user/hash?password=x', token=ADMIN)[0] == 405 and ask('/api/v1/user/hash', 'POST', VIEWER, {'password': 'x'})[0] == 403
    for value, code in (('', 400), ('x', 200), ('x' * 511, 200), ('x' * 512, 400), ('a\nb', 400), (5, 400), (None, 400)):
        assert post('user/hash', password=value)[0] == code, value
    for size, code in ((1024, 200), (1025, 400)):
        assert post('user/hash', password='x' * size, scram=True)[0] == code, size
    assert ask('/api/v1/user/hash', 'POST', ADMIN, '{"password": ')[0] == 400
    with open(lab.path('relay.log'), encoding='utf-8') as file:
        assert 'password' not in file.read()


@lab.check('what the terminal\'s dashboard shows comes as samples')
def top():
    status, text = ask('/api/v1/top', token=VIEWER)
    sample = json.loads(text)
    assert status == 200 and sample['rates']['server']['messages_accepted'] == 0 and 500000 < sample['interval_us'] < 10000000, text[:300]
    assert sample['status']['queue']['messages'] == MESSAGES and sample['groups'][0]['total'] == MESSAGES, sample['groups']
    assert ask('/api/v1/top?by=nonsense', token=VIEWER)[0] == 400 and ask('/api/v1/top?by=nonsense&stream=true', token=VIEWER)[0] == 400
    assert ask('/api/v1/top?stream=maybe', token=VIEWER)[0] == 400
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    connection.request('GET', '/api/v1/top?stream=true&by=domain', headers={'Authorization': 'Bearer ' + VIEWER})
    answer = connection.getresponse()
    send_letters(smtp, 5 * ['b@far.test'])
    assert answer.status == 200
    wait_until(lambda: json.loads(answer.readline())['rates']['server']['messages_accepted'] > 0, 'a sample with what was taken')
    connection.close()
    assert post('delete', all=True, reason='test')[0] == 200
    send_letters(smtp, MESSAGES * ['b@far.test'])


@lab.check('a capture comes as a stream of pcap, and no file is written')
def capture():
    path = lab.path('captured')
    status, answer = post('capture', file=path)
    assert status == 400 and not os.path.exists(path), answer
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    fields = {'Authorization': 'Bearer ' + ADMIN, 'Content-Type': 'application/json'}
    connection.request('POST', '/api/v1/capture', json.dumps({'id': 'tcp port 25', 'seconds': 3}), fields)
    answer = connection.getresponse()
    head = answer.read(24)
    assert answer.status == 200 and answer.getheader('Content-Type') == 'application/vnd.tcpdump.pcap', answer.status
    assert head[:8] == b'\xd4\xc3\xb2\xa1\x02\x00\x04\x00', head
    assert post('capture', seconds=1)[0] == 400, 'one at a time'
    assert answer.read() == b'', 'on the kernel\'s sockets there are no frames'
    assert post('capture', id='nonsense and', seconds=1)[0] == 400
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    connection.request('POST', '/api/v1/capture', json.dumps({'seconds': 3600}), fields)
    assert connection.getresponse().read(24)
    connection.close()
    wait_until(lambda: post('capture/stop')[1].get('error') == 'no capture runs', 'the end of a capture whose client has left')
    assert ask('/api/v1/capture', 'POST', VIEWER, {})[0] == 403


@lab.check('who shows no token keeps no place that others want, and many askers leave the command line its own')
def crowd():
    idle = [socket.create_connection(('127.0.0.1', port), 60) for _ in range(70)]
    for client in idle[:30]:
        client.sendall(b'GET /api/v1/status HTTP/1.1\r\nHost: ')
    wait_until(is_served, 'a place among 70 who say nothing')
    results = []
    threads = [threading.Thread(target=lambda: results.append(ask('/api/v1/queue/summary?by=site', token=VIEWER, connection=Local('local'))[0]))
               for _ in range(40)]
    for thread in threads:
        thread.start()
    assert angarium('status').returncode == 0
    for thread in threads:
        thread.join(60)
    assert results and set(results) <= {200, 503}, results
    for client in idle:
        client.close()
    wait_until(is_served, 'a place over TCP')


def slow_reader(token, path, body=None):
    """Asks, and takes nothing of the answer but its first octets. By the Unix socket, which keeps less of what nobody reads than TCP over loopback; as
    the Host is another machine's, the token counts."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(lab.path('http.sock'))
    head = '%s %s HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer %s\r\n' % ('GET' if body is None else 'POST', path, token)
    if body is not None:
        head += 'Content-Type: application/json\r\nContent-Length: %d\r\n' % len(body)
    client.sendall((head + '\r\n' + (body or '')).encode())
    return client, client.recv(500)


@lab.check('viewers who do not read what they asked for keep out neither the command line nor the admin nor each other')
def slow():
    with socket.create_connection(('127.0.0.1', smtp), 60) as client:
        lines = client.makefile('rwb')
        lines.readline()
        commands = ['HELO client.test', 'MAIL FROM:<a@client.test>'] + ['RCPT TO:<u%d@far.test>' % i for i in range(900)] + ['DATA', 'Subject: x\r\n\r\nx\r\n.']
        for command in commands:
            lines.write(command.encode() + b'\r\n')
            lines.flush()
            line = lines.readline()
            assert line[:1] in b'23', (command, line)
    readers = [slow_reader(VIEWER, '/api/v1/queue/list?stream=true') for _ in range(6)]
    codes = [said.split(b' ')[1] for _, said in readers]
    assert codes.count(b'200') == 2 and codes.count(b'503') == 4, codes
    assert all(b'\r\nRetry-After: ' in said for _, said in readers if b' 503 ' in said[:20]), readers
    for arguments in (('status',), ('queue', 'summary'), ('queue', 'list', '--limit', '1000'), ('queue', 'list'), ('hold', 'all', '--dry-run'), ('site', 'show')):
        done = angarium(*arguments)
        assert done.returncode == 0, (arguments, done.stdout[-300:])
    whole = [slow_reader(VIEWER, '/api/v1/queue/list?limit=10000') for _ in range(6)]
    assert all(b' 200 ' in said[:20] for _, said in whole), [said[:100] for _, said in whole]
    assert ask('/api/v1/status', token=VIEWER)[0] == 200
    wanted = json.loads(ask('/api/v1/queue/list?limit=1', token=VIEWER)[1])['rows'][0]['id']
    traces = [slow_reader(ADMIN, '/api/v1/trace', '{"id": "127.0.0.1"}') for _ in range(1)]
    status, text = ask('/api/v1/queue/cat', 'POST', ADMIN, {'id': wanted})
    assert status == 200 and json.loads(text.splitlines()[-1])['ok'] is True, text
    assert angarium('queue', 'cat', wanted).returncode == 0
    for client, _ in readers + whole + traces:
        client.close()
    wait_until(lambda: ask('/api/v1/queue/list?stream=true', token=VIEWER)[0] == 200, 'a place for a stream')


@lab.check('HTTPS beyond loopback, and nothing in the clear there')
def tls():
    key, certificate, secure = lab.path('key.pem'), lab.path('cert.pem'), free_port()
    subprocess.run([tool('openssl'), 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', certificate,
                    '-days', '2', '-subj', '/CN=relay.test'], check=True, stderr=subprocess.DEVNULL)
    text = 'hostname: relay.test\nlisten: [{address: "127.0.0.1:%d"}]\nspool: {directory: "%s", size: 1GiB}\ncontrol: {socket: "%s"}\n' % (
        free_port(), lab.path('spool2'), lab.path('control2')) + 'http: {listen: "0.0.0.0:%d", viewer_token_file: "%s"%s}\n'
    refused = angarium('check', lab.write('bare.yaml', text % (secure, lab.path('viewer'), '')))
    assert refused.returncode == 1 and 'bare.yaml:5: http.listen' in refused.stdout and 'tls' in refused.stdout, refused.stdout
    config = lab.write('tls.yaml', text % (secure, lab.path('viewer'), ', tls: {certificate: "%s", key: "%s"}' % (certificate, key)))
    child = lab.start([os.path.join(BUILD, 'control/angariumd'), '-c', config], 'tls.log')
    wait_until(lambda: can_connect('127.0.0.1', secure), 'https')
    connection = http.client.HTTPSConnection('127.0.0.1', secure, timeout=60, context=ssl._create_unverified_context())  # pylint: disable=protected-access
    assert ask('/metrics', token=VIEWER, connection=connection)[0] == 200
    try:
        status = ask('/metrics', token=VIEWER, connection=http.client.HTTPConnection('127.0.0.1', secure, timeout=60))[0]
    except (OSError, http.client.HTTPException):
        status = 0
    assert status != 200
    assert lab.stop(child) == 0


@lab.check('an upgrade is begun, and who looks is told how it ended')
def upgrade():
    def look():
        return post('upgrade', look=True)[1]
    before = look()
    assert before['ok'] and before['state'] == 'idle', before
    assert ask('/api/v1/upgrade', token=ADMIN)[0] == 405 and ask('/api/v1/upgrade', 'POST', VIEWER, {})[0] == 403
    assert post('upgrade', program='/bin/sh')[0] == 400
    config = lab.path('relay.yaml')
    with open(config, encoding='utf-8') as file:
        text = file.read()
    lab.write('relay.yaml', text + 'cores: many\n')
    status, answer = post('upgrade')
    assert status == 202 and answer['pid'] == before['pid'], answer
    wait_until(lambda: look()['state'] == 'failed', 'the failure of an upgrade')
    assert 'cores' in look()['text'] and look()['pid'] == before['pid'], look()
    lab.write('relay.yaml', text)
    status, answer = post('upgrade')
    assert status == 202, answer

    def is_other():
        try:
            return look()['pid'] != before['pid']
        except (OSError, http.client.HTTPException, KeyError):
            return False
    wait_until(is_other, 'another process')
    after = look()
    assert after['state'] == 'idle', after
    wait_until(lambda: json.loads(ask('/api/v1/queue/list', token=VIEWER)[1])['rows'], 'the mail in the other process')
    assert 'the relay stops' in angarium('drain', '--stop').stdout
    wait_until(lambda: not os.path.exists('/proc/%d' % after['pid']), 'its end')


start()
send_letters(smtp, MESSAGES * ['b@far.test'])
sys.exit(lab.run())
