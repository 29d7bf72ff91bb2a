#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A switch with one tagged and one untagged port, for kernels without 802.1Q: vlan_port.py INTERFACE TAP ID

Makes the TAP interface, through which the kernel takes part in VLAN number ID of INTERFACE. A frame on INTERFACE with another tag, or without one,
goes nowhere and is counted; SIGTERM ends it and prints the counts.
"""
import fcntl
import os
import select
import signal
import socket
import struct
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 2, 0x1000
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 263, 8, 4
TP_STATUS_VLAN_VALID = 0x10
ETH_P_ALL, ETH_P_8021Q = 3, 0x8100


def tag_of(ancillary):
    """The kernel takes the tag out of a frame and puts it beside; None: it had none."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, tci, tpid = struct.unpack('=I', data[:4])[0], *struct.unpack('=HH', data[16:20])
            if status & TP_STATUS_VLAN_VALID and tpid in (0, ETH_P_8021Q):
                return tci
    return None


def main():
    interface, tap_name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tap = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack('16sH', tap_name.encode(), IFF_TAP | IFF_NO_PI))
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    port.bind((interface, 0))
    port.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    counts = {'tagged': 0, 'other': 0}

    def finish(*_):
        print('tagged %(tagged)d other %(other)d' % counts, flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, finish)
    print('ready', flush=True)
    while True:
        ready = select.select([tap, port], [], [])[0]
        if port in ready:
            frame, ancillary, _, source = port.recvmsg(65536, 64)
            tag = tag_of(ancillary)
            if source[2] != PACKET_OUTGOING:
                counts['tagged' if tag is not None and tag & 0xfff == number else 'other'] += 1
                if tag is not None and tag & 0xfff == number:
                    os.write(tap, frame)
        if tap in ready:
            frame = os.read(tap, 65536)
            port.send(frame[:12] + struct.pack('!HH', ETH_P_8021Q, number) + frame[12:])


if __name__ == '__main__':
    main()
