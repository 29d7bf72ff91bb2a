#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Management over HTTP against a running relay, with Python's client: roles, verbs, streams, metrics, and what hostile clients send."""
import base64
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import BUILD, Lab, can_connect, free_port, send_letters, tool, wait_until  # pylint: disable=wrong-import-position

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
http: {listen: "127.0.0.1:%d", socket: "%s", admin_token_file: "%s", viewer_token_file: "%s"}
''' % (smtp, lab.path('spool'), lab.path('control'), free_port(), port, lab.path('http.sock'), lab.path('admin'), lab.path('viewer')))
    lab.start([os.path.join(BUILD, 'control/angariumd'), '-c', config], 'relay.log')
    wait_until(lambda: can_connect('127.0.0.1', smtp), 20, 'the relay')
    wait_until(lambda: can_connect('127.0.0.1', port), 20, 'http')


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


@lab.check('what writes files is not for HTTP')
def capture():
    path = lab.path('captured')
    status, text = ask('/api/v1/capture', 'POST', ADMIN, {'file': path})
    assert status == 403 and not os.path.exists(path), text


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
        with socket.create_connection(('127.0.0.1', port), 5) as client:
            try:
                client.sendall(octets)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(5)
                said = client.recv(200)
            except OSError:
                said = b''
            assert not said or b' 4' in said[:12] or b' 5' in said[:12], (octets[:60], said)
    status, text = ask('/api/v1/hold', 'POST', ADMIN, '{"filter":"' + 'x' * 3990 + '"}')
    assert status == 413, (status, text)
    assert ask('/api/v1/status', token=VIEWER)[0] == 200


def raw(octets, seconds=5, half_close=True):
    """Everything that is said to these octets."""
    with socket.create_connection(('127.0.0.1', port), seconds) as client:
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


NOT_BY_HTTP = {
    'top': 'a screen', 'metrics': '/metrics', 'capture': 'files', 'capture stop': 'files', 'check': 'files', 'config show': 'files', 'import postfix': 'files',
    'records find': 'files', 'records print': 'files', 'spool check': 'files', 'spool stats': 'files', 'spool dump': 'files', 'spool adopt': 'files', 'user hash': 'passwords',
    'upgrade': 'programs', 'version': '/api/v1/status',
    'help': 'docs/http.md'}


@lab.check('every verb of the command line is there, but for those that work on files and screens of their own')
def every_verb():
    verbs = [line.split('\t')[0] for line in angarium('help', '--reference').stdout.splitlines()]
    assert len(verbs) > 30 and set(NOT_BY_HTTP) <= set(verbs), verbs
    for verb in verbs:
        if verb in NOT_BY_HTTP or verb in ('drain', 'trace'):
            continue
        status, text = ask('/api/v1/' + verb.replace(' ', '/'), 'POST', ADMIN, {})
        error = json.loads(text.splitlines()[-1]).get('error', '')
        assert status in (200, 400) and error != 'unknown verb', (verb, status, text)
    assert ask('/api/v1/trace', 'POST', ADMIN, {'id': '127.0.0.1', 'seconds': 1})[0] == 200
    for verb, status in (('drain', 200), ('drain/end', 200)):
        assert ask('/api/v1/' + verb, 'POST', ADMIN, {'seconds': 1})[0] == status, verb
    assert 'unknown verb' in ask('/api/v1/check', 'POST', ADMIN, {})[1]
    assert json.loads(ask('/api/v1/status', token=VIEWER)[1])['version'] in angarium('version').stdout


@lab.check('who shows no token keeps no place that others want, and many askers leave the command line its own')
def crowd():
    idle = [socket.create_connection(('127.0.0.1', port), 5) for _ in range(70)]
    for client in idle[:30]:
        client.sendall(b'GET /api/v1/status HTTP/1.1\r\nHost: ')
    wait_until(is_served, 5, 'a place among 70 who say nothing')
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
    wait_until(is_served, 10, 'a place over TCP')


def slow_reader(token, path, body=None):
    """Asks, and takes nothing of the answer but its first octets. By the Unix socket, which keeps less of what nobody reads than TCP over loopback; as
    the Host is another machine's, the token counts."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(lab.path('http.sock'))
    head = '%s %s HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer %s\r\n' % ('GET' if body is None else 'POST', path, token)
    if body is not None:
        head += 'Content-Type: application/json\r\nContent-Length: %d\r\n' % len(body)
    client.sendall((head + '\r\n' + (body or '')).encode())
    return client, client.recv(500)


@lab.check('viewers who do not read what they asked for keep out neither the command line nor the admin nor each other')
def slow():
    with socket.create_connection(('127.0.0.1', smtp), 10) as client:
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
    wait_until(lambda: ask('/api/v1/queue/list?stream=true', token=VIEWER)[0] == 200, 10, 'a place for a stream')


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
    wait_until(lambda: can_connect('127.0.0.1', secure), 20, 'https')
    connection = http.client.HTTPSConnection('127.0.0.1', secure, timeout=20, context=ssl._create_unverified_context())  # pylint: disable=protected-access
    assert ask('/metrics', token=VIEWER, connection=connection)[0] == 200
    try:
        status = ask('/metrics', token=VIEWER, connection=http.client.HTTPConnection('127.0.0.1', secure, timeout=10))[0]
    except (OSError, http.client.HTTPException):
        status = 0
    assert status != 200
    assert lab.stop(child) == 0


start()
send_letters(smtp, MESSAGES * ['b@far.test'])
sys.exit(lab.run())
