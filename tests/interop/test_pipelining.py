#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Over kernel sockets: replies to commands that came together leave together (RFC 2920 section 3.2)."""
import socket

from lab import Lab, segments_of_replies

lab = Lab('pipelining')
relay = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8]
dns: {resolvers: ["127.0.0.1"]}
routes: [{match: "*", via: discard}]
''')


@lab.check('a transaction in one flight, and the next behind it')
def batched():
    with socket.create_connection(('127.0.0.1', relay.port), 60) as sock:
        assert segments_of_replies(sock, b'', 1)[1].startswith(b'220')
        assert segments_of_replies(sock, b'EHLO client.test\r\n', 1)[0] == 1
        assert [segments_of_replies(sock, b'NOOP\r\n', 1)[0] for _ in range(3)] == [1, 1, 1], 'the count counts'
        commands = b'MAIL FROM:<a@client.test>\r\n' + b''.join(b'RCPT TO:<u%d@far.test>\r\n' % i for i in range(40)) + b'DATA\r\n'
        segments, replies = segments_of_replies(sock, commands, 42)
        assert segments == 1 and replies.count(b'250 ') == 41 and b'\r\n354 ' in replies, (segments, replies)
        segments, replies = segments_of_replies(sock, b'x\r\n.\r\n' + commands, 43)
        assert segments <= 2 and replies.count(b'250 ') == 42, (segments, replies) # the first when the message is on disk


if __name__ == '__main__':
    lab.run()
