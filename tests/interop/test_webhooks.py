#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Webhooks against real HTTP servers (Python's), as the daemon ships: every record of the kinds that are asked for is taken at least once, in
the order of the file, doubles have the same name; receivers that are down, slow, refuse, or cut off in the middle; TLS; signatures."""
import hashlib
import hmac
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import Lab, free_port, tool, wait_until

lab = Lab('webhooks')
SECRET = 'correct-horse-battery'
CONFIG = '''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:9"]}
webhooks:
'''


class Receiver:
    """An HTTP server whose answers are given by `answer(batch number)`: a status, 'cut', 'slow' (beyond the webhook's time) or 'long' (200, and
    3 MB of text); what was taken is in `taken`."""

    def __init__(self, port=0, context=None):
        self.taken, self.seen, self.fields, self.answer = [], 0, [], lambda number: 200
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_POST(self):
                body = self.rfile.read(int(self.headers['Content-Length']))
                number, receiver.seen = receiver.seen, receiver.seen + 1
                receiver.fields.append((dict(self.headers), body))
                status = receiver.answer(number)
                if status == 'slow':
                    time.sleep(8)
                    status = 500
                if status == 'cut':
                    self.connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                if status == 'long':
                    receiver.taken.append(json.loads(body))
                    self.connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n')
                    self.connection.sendall(b'x' * 3000000)
                    return
                if status == 200:
                    receiver.taken.append(json.loads(body))
                self.send_response(status)
                if status == 429:
                    self.send_header('Retry-After', '1')
                self.send_header('Content-Length', '0')
                self.end_headers()

            def log_message(self, *_):
                pass

        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None # a client that was killed
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def records(self):
        return [row for batch in self.taken for row in batch]


def secret_file():
    path = lab.write('secret', SECRET + '\n')
    os.chmod(path, 0o600)
    return path


def hooks(rows):
    return CONFIG + ''.join('  - {%s}\n' % row for row in rows)


def refuse(port, count):
    """So many records: recipients that are refused."""
    with socket.create_connection(('127.0.0.1', port), 60) as client:
        lines = client.makefile('rwb')
        lines.readline()
        for command in [b'EHLO client.test', b'MAIL FROM:<a@client.test>'] + [b'RCPT TO:<%d@[192.0.2.1]>' % number for number in range(count)]:
            lines.write(command + b'\r\n')
            lines.flush()
            while (line := lines.readline())[3:4] == b'-':
                pass
            assert line[:1] == (b'5' if command.startswith(b'RCPT') else b'2'), (command, line)


def write_records(path, first, count, kind='delivery'):
    """Records as the relay writes them, into its own file."""
    with open(path, 'a', encoding='utf-8') as file:
        for number in range(first, first + count):
            file.write(json.dumps({'type': kind, 'event': 'x-%d' % number, 'n': number}, separators=(',', ':')) + '\n')


def numbers(receiver):
    return [row['n'] for row in receiver.records() if 'n' in row]


def is_all(receiver, count):
    return len(set(numbers(receiver))) == count


def check_order(receiver, count):
    """Each at least once, in order within a batch, and first seen in order."""
    for batch in receiver.taken:
        seen = [row['n'] for row in batch if 'n' in row]
        assert seen == sorted(seen), 'a batch is out of order'
    first = list(dict.fromkeys(numbers(receiver)))
    assert first == list(range(count)), 'records are missing or out of order: %d of %d' % (len(first), count)


@lab.check('10,000 records through a receiver that fails, is slow, cuts off and asks for time: each is taken, in order')
def hard_way():
    receiver = Receiver()
    receiver.answer = lambda number: {1: 500, 3: 'cut', 5: 'slow', 7: 429, 9: 404, 11: 302, 12: 413, 14: 413, 16: 'long'}.get(number, 200)
    relay = lab.relay(hooks(['name: hard, url: "http://127.0.0.1:%d/x", batch: 500, batch_time: 100ms, timeout: 5s, retry_min: 100ms, '
                             'retry_max: 1s, secret_file: "%s", events: [delivery]' % (receiver.port, secret_file())]), name='hard')
    write_records(relay.records_file, 0, 5000)
    write_records(relay.records_file, 0, 100, 'deferral')
    write_records(relay.records_file, 5000, 5000)
    wait_until(lambda: is_all(receiver, 10000), 'all are taken')
    check_order(receiver, 10000)
    assert {row['type'] for row in receiver.records()} == {'delivery'}
    for fields, body in receiver.fields:
        parts = dict(part.split('=') for part in fields['X-Angarium-Signature'].split(','))
        want = hmac.new(SECRET.encode(), parts['t'].encode() + b'.' + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(parts['v1'], want) and fields['X-Angarium-Webhook'] == 'hard'
        assert int(fields['X-Angarium-Records']) == len(json.loads(body))
    status = relay.status()['webhooks']
    assert status['events'] == len(receiver.records()) and status['failures'] == 8 and receiver.seen > 17 and status['failing'] == 0, status
    relay.stop()
    receiver.close()
    return '%d posts for %d batches' % (receiver.seen, len(receiver.taken))


@lab.check('down for long, over a restart and through files that are turned over: nothing is lost, and the place is kept')
def down():
    port = free_port()
    row = 'name: down, url: "http://localhost:%d/", batch: 100, batch_time: 50ms, retry_min: 100ms, retry_max: 200ms' % port
    relay = lab.relay(hooks([row]), name='down')
    write_records(relay.records_file, 0, 250)
    wait_until(lambda: relay.status()['webhooks']['failures'] > 1, 'posts fail')
    wait_until(lambda: relay.status()['webhooks']['waiting'] > 5000, 'what waits is measured')
    assert 'webhook down: its receiver takes nothing' in relay.cli('status')
    relay.stop()
    os.rename(relay.records_file, relay.records_file + '.1')
    write_records(relay.records_file, 250, 250)
    os.rename(relay.records_file + '.1', relay.records_file + '.2')
    os.rename(relay.records_file, relay.records_file + '.1')
    write_records(relay.records_file, 500, 250)
    relay.start()
    receiver = Receiver(port)
    wait_until(lambda: is_all(receiver, 750), 'all are taken')
    check_order(receiver, 750)
    relay.kill()
    write_records(relay.records_file, 750, 10)
    relay.start()
    wait_until(lambda: is_all(receiver, 760), 'those of the time between are taken')
    check_order(receiver, 760)
    doubles = len(numbers(receiver)) - 760
    assert doubles <= 100, doubles
    relay.stop()
    receiver.close()
    return '%d doubles' % doubles


@lab.check('what the relay itself writes arrives; TLS is verified; 410 ends it')
def real():
    openssl = tool('openssl')
    key, certificate = lab.path('key.pem'), lab.path('cert.pem')
    subprocess.run([openssl, 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, '-days', '2', '-subj',
                    '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    good, strange, gone = Receiver(context=context), Receiver(context=context), Receiver()
    gone.answer = lambda number: 410
    more = 'batch_time: 50ms, retry_min: 100ms, retry_max: 200ms'
    relay = lab.relay(hooks(['name: good, url: "https://localhost:%d/", ca: "%s", auth: bearer, secret_file: "%s", %s' %
                             (good.port, certificate, secret_file(), more),
                             'name: strange, url: "https://localhost:%d/", %s' % (strange.port, more),
                             'name: gone, url: "http://127.0.0.1:%d/", %s' % (gone.port, more)]), name='real')
    refuse(relay.port, 15)
    wait_until(lambda: len(good.records()) == 15, 'all are taken')
    assert good.records() == relay.records() and {row['code'] for row in good.records()} == {553}, good.records()
    assert len({row['event'] for row in good.records()}) == 15
    assert all(fields['Authorization'] == 'Bearer ' + SECRET for fields, _ in good.fields)
    wait_until(lambda: relay.status()['webhooks']['gone'] == 1, 'the one that is gone is known')
    wait_until(lambda: relay.status()['webhooks']['failing'] == 2, 'the strange one fails')
    rows = {row['name']: row for row in relay.status()['webhook']}
    assert rows['strange']['state'] == 'failing' and rows['gone']['state'] == 'gone' and rows['good']['state'] == 'ok', rows
    assert strange.seen == 0, 'records went to one whose certificate nobody vouches for'
    seen = gone.seen
    refuse(relay.port, 1)
    wait_until(lambda: len(good.records()) == 16, 'another is taken')
    assert gone.seen == seen == 1
    assert 'said 410' in relay.cli('status')
    started = time.monotonic()
    relay.stop()
    assert time.monotonic() - started < 25, 'a webhook kept the relay from ending' # its timeout is 30 s
    for receiver in (good, strange, gone):
        receiver.close()


if __name__ == '__main__':
    lab.run()
