# SPDX-License-Identifier: Apache-2.0
"""
Sends a message through the relay on this host and is the server that it goes to: arrived is what was sent.
Sender and server may be in network namespaces of their own.
"""
import argparse
import ctypes
import os
import secrets
import smtplib
import socket
import sys
import threading
import time

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def namespace_enter(name):
    """Sockets made from now on are in that network."""
    with open("/run/netns/" + name, "rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"network namespace {name}: {os.strerror(ctypes.get_errno())}")


def place_enter(place):
    """(address, port) of ADDRESS PORT [NAMESPACE], once this thread is there."""
    if place[2:]:
        namespace_enter(place[2])
    return place[0], int(place[1])


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


def sink_wait(sink, token, end):
    """True: the message with the token has come."""
    while (left := end - time.monotonic()) > 0:
        sink.settimeout(left)
        try:
            client = sink.accept()[0]
            with client:
                if token.encode() in session_serve(client, left):
                    return True
        except OSError:  # a session that broke, or the time is over
            pass
    return False


def options_read():
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay", nargs="+", required=True, metavar=("ADDRESS", "PORT [NAMESPACE]"))
    parser.add_argument("--sink", nargs="+", required=True, metavar=("ADDRESS", "PORT [NAMESPACE]"))
    parser.add_argument("--domain", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    return parser.parse_args()


def main():
    options = options_read()
    token = secrets.token_hex(16)
    begun = time.monotonic()
    with socket.create_server(place_enter(options.sink)) as sink:
        arrived = threading.Event()
        # beside the sender: a relay that hands on at once answers it when the sink has answered
        threading.Thread(target=lambda: sink_wait(sink, token, begun + options.seconds) and arrived.set(), daemon=True).start()
        try:
            with smtplib.SMTP(*place_enter(options.relay), timeout=options.seconds) as relay:
                relay.sendmail(f"verify@{options.domain}", [f"probe@{options.domain}"], f"Subject: {token}\r\n\r\n{token}\r\n")
        except (OSError, smtplib.SMTPException) as error:
            print(f"the relay at {' port '.join(options.relay[:2])} did not take the message: {error}", file=sys.stderr)
            return 1
        if arrived.wait(begun + options.seconds - time.monotonic()):
            print(f"arrived after {1000 * (time.monotonic() - begun):.0f} ms")
            return 0
    print(f"the relay took the message but did not deliver it within {options.seconds:g} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
