# SPDX-License-Identifier: Apache-2.0
"""
Sends a message through the relay on this host and is the server that it goes to: arrived is what was sent.
Arguments: address and port of the relay, port to listen on, domain, seconds.
"""
import secrets
import smtplib
import socket
import sys
import time


def session_serve(client, seconds):
    """One SMTP session, to the end of its message; the message."""
    client.settimeout(seconds)
    lines = client.makefile("rb")

    def say(text):
        client.sendall(text.encode() + b"\r\n")

    say("220 verify ESMTP")
    for line in lines:
        verb = line.split()[0].upper() if line.split() else b""
        if verb == b"DATA":
            say("354 go ahead")
            message = b""
            for part in lines:
                if part == b".\r\n":
                    say("250 ok")
                    return message
                message += part
            return b""
        say("221 bye" if verb == b"QUIT" else "250 verify")
    return b""


def main():
    address, port, sink_port, domain, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
    token = secrets.token_hex(16)
    end = time.monotonic() + seconds
    with socket.create_server(("127.0.0.1", sink_port)) as sink:
        with smtplib.SMTP(address, port, timeout=seconds) as relay:
            relay.sendmail(f"verify@{domain}", [f"probe@{domain}"], f"Subject: {token}\r\n\r\n{token}\r\n")
        while (left := end - time.monotonic()) > 0:
            sink.settimeout(left)
            try:
                client = sink.accept()[0]
                with client:
                    if token.encode() in session_serve(client, left):
                        print("arrived")
                        return 0
            except OSError:  # a session that broke, or the time is over
                pass
    print(f"the relay took the message but did not deliver it within {seconds} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
