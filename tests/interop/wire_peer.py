#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The kernel's end of the conversations of wire_talk.h, which has the protocol.

    wire_peer.py serve IP PORT                             until it is ended; IP may be :: for both families
    wire_peer.py ask IP PORT COUNT AT_A_TIME REQUEST...    "good N bad N options N": the options that all connections had, as TCP_INFO says them
"""
import concurrent.futures
import socket
import socketserver
import struct
import sys
import time

CHUNK = 65536
TCP_INFO_OPTIONS = 5  # octet of struct tcp_info
options = 255


def pattern(start, size):
    return bytes(((p * 7 + (p >> 8) * 13 + (p >> 16) * 31) & 255) for p in range(start, start + size))


# one period: what follows repeats with the low 24 bits
PERIOD = None


def octets(start, size):
    """The pattern, cut from a table: computing it octet by octet is too slow."""
    global PERIOD  # pylint: disable=global-statement
    if PERIOD is None:
        PERIOD = pattern(0, 1 << 16)
    out = bytearray()
    while size > 0:
        block, offset = start >> 16, start & 0xffff
        take = min(size, (1 << 16) - offset)
        # within a block of 64 K only the block's number changes what the table has, by an addition
        shift = (block * (31 + (1 << 16) * 7 + (1 << 8) * 13)) & 255
        part = PERIOD[offset:offset + take]
        out += part if shift == 0 else part.translate(SHIFTS[shift])
        start += take
        size -= take
    return bytes(out)


SHIFTS = [bytes((value + shift) & 255 for value in range(256)) for shift in range(256)]


def receive_pattern(connection, size):
    got = 0
    while got < size:
        part = connection.recv(min(CHUNK, size - got))
        assert part, 'closed after %d of %d' % (got, size)
        assert part == octets(got, len(part)), 'a wrong octet behind %d' % got
        got += len(part)


def send_pattern(connection, size):
    sent = 0
    while sent < size:
        part = octets(sent, min(CHUNK, size - sent))
        connection.sendall(part)
        sent += len(part)


def receive_all(connection):
    parts = []
    while True:
        part = connection.recv(CHUNK)
        if not part:
            return b''.join(parts)
        parts.append(part)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()


class Handler(socketserver.BaseRequestHandler):
    def line(self):
        text = b''
        while not text.endswith(b'\n'):
            octet = self.request.recv(1)
            if not octet:
                return None  # only looked whether somebody listens
            text += octet
        return text.decode().split()

    def handle(self):
        words = self.line()
        if words is None:
            return
        verb, *numbers = words
        if verb == 'RESET':
            reset(self.request)
            return
        size = int(numbers[-1])
        if verb == 'SOURCE':
            send_pattern(self.request, size)
        elif verb == 'ECHO':
            data = receive_all(self.request)
            assert data == octets(0, size), 'echo: %d octets' % len(data)
            self.request.sendall(data)
        else:
            if verb == 'STALL':
                time.sleep(int(numbers[0]) / 1000)
            receive_pattern(self.request, size)
            self.request.sendall(b'OK %d\n' % size)
        self.request.shutdown(socket.SHUT_WR)
        assert receive_all(self.request) == b''


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


def serve(address, port):
    Server.address_family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with Server((address, port), Handler) as server:
        print('ready', flush=True)
        server.serve_forever()


def ask(address, port, request):
    verb, *numbers = request.split()
    size = int(numbers[-1]) if numbers else 0
    global options  # pylint: disable=global-statement
    with socket.create_connection((address, port), timeout=60) as connection:
        options &= connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[TCP_INFO_OPTIONS]
        connection.sendall(request.encode() + b'\n')
        if verb == 'RESET':
            try:
                data = receive_all(connection)
            except ConnectionResetError:
                return
            raise AssertionError('no reset but %d octets' % len(data))
        if verb == 'SOURCE':
            receive_pattern(connection, size)
            assert connection.recv(1) == b'', 'too much'
        elif verb == 'ECHO':
            with concurrent.futures.ThreadPoolExecutor(1) as sender:
                def send():
                    send_pattern(connection, size)
                    connection.shutdown(socket.SHUT_WR)
                sent = sender.submit(send)
                receive_pattern(connection, size)
                assert connection.recv(1) == b'', 'too much'
                sent.result()
        else:
            send_pattern(connection, size)
            assert receive_all(connection) == b'OK %d\n' % size


def ask_many(address, port, count, at_a_time, requests):
    octets(0, 1)
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        asked = [pool.submit(ask, address, port, requests[i % len(requests)]) for i in range(count)]
        for number, future in enumerate(asked):
            try:
                future.result()
            except (AssertionError, OSError) as error:
                bad += 1
                print('%s: %r' % (requests[number % len(requests)], error), file=sys.stderr)
    print('good %d bad %d options %d' % (count - bad, bad, options))
    return 1 if bad else 0


def main():
    if sys.argv[1] == 'serve':
        serve(sys.argv[2], int(sys.argv[3]))
    sys.exit(ask_many(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:]))


if __name__ == '__main__':
    main()
