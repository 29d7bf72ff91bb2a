#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The engine against lwIP, a TCP without SACK and timestamps and with small windows, over a switch that may lose frames."""
import os
import time

from engine import ENGINE4, ENGINE6, PORT, Engine
from lab import BUILD, LONG, Lab, Skip, wait_until
from netns import Net

lab = Lab('lwip')
net = Net(lab)

PROGRAM = os.path.join(BUILD, 'tests/interop/lwip_peer')
LWIP4, LWIP6, LWIP_PORT = '10.9.0.9', 'fd09::9', 2527
SIZE = 20_000_000 if LONG else 1_000_000
LOSSY = 3_000_000 if LONG else 300_000

home = switch = engine = None
port_next = 50000


def set_up():
    """engine - veth - switch - TAP - lwIP"""
    global home, switch, engine
    if engine is not None:
        return
    if not os.access(PROGRAM, os.X_OK):
        raise Skip('built without lwIP (liblwip-dev)')
    home, switch = net.namespace('engine'), net.namespace('switch')
    net.veth(home, 'wire0', switch, 'port0')
    home.silence('wire0')
    switch.ip('link', 'add', 'switch0', 'type', 'bridge', 'mcast_snooping', 0)
    switch.ip('tuntap', 'add', 'dev', 'lwip0', 'mode', 'tap')
    for interface in ('switch0', 'port0', 'lwip0'):
        switch.silence(interface)
        switch.ip('link', 'set', interface, *([] if interface == 'switch0' else ['master', 'switch0']), 'up')
    engine = Engine(lab, home.prefix(), ['-D', 'net_af_packet0,iface=wire0', '-A', ENGINE4 + '/24', '-A', ENGINE6 + '/64'])
    engine.expect('ready', 20)
    engine.serve('0.0.0.0')
    engine.serve('::')
    time.sleep(1.2)  # until the engine is sure of its IPv6 address


def lwip_serve():
    child = switch.start([PROGRAM, 'lwip0', LWIP4, LWIP6, 'serve', str(LWIP_PORT)], 'lwip.log')
    seen = lab.log('lwip.log').count('ready')
    wait_until(lambda: lab.log('lwip.log').count('ready') > seen or child.poll() is not None, 'lwIP is on the wire')
    return child


def lwip_ask(address, *requests):
    global port_next
    answer = switch.run(PROGRAM, 'lwip0', LWIP4, LWIP6, 'ask', address, PORT, port_next, *requests, check=False)
    port_next += len(requests)
    assert 'good %d bad 0' % len(requests) in answer, answer


def both_ask(size):
    child = lwip_serve()
    began = time.monotonic()
    for address in (LWIP4, LWIP6):
        engine.ask(address, LWIP_PORT, 3, 3, 'SINK %d' % size, 'SOURCE %d' % size, 'ECHO %d' % size)
    asked = time.monotonic() - began
    lab.stop(child)
    began = time.monotonic()
    for address in (ENGINE4, ENGINE6):
        lwip_ask(address, 'SINK %d' % size, 'SOURCE %d' % size, 'ECHO %d' % size)
    complaints = [line for line in lab.log('lwip.log').splitlines() if 'lwip_peer' in line]
    assert not complaints, complaints
    return 'engine asks %.1f s, lwIP asks %.1f s' % (asked, time.monotonic() - began)


@lab.check('bulk both ways and half-close, every octet checked')
def bulk():
    set_up()
    return both_ask(SIZE)


@lab.check('short connections, RST, a closed window')
def short():
    set_up()
    child = lwip_serve()
    for address in (LWIP4, LWIP6):
        engine.ask(address, LWIP_PORT, 100, 4, 'SOURCE 100', 'SINK 100', 'ECHO 100', 'ECHO 0')
        engine.ask(address, LWIP_PORT, 20, 2, 'RESET')
        engine.ask(address, LWIP_PORT, 2, 2, 'STALL 700 200000')
    lab.stop(child)
    for address in (ENGINE4, ENGINE6):
        lwip_ask(address, *['SOURCE 100', 'SINK 100', 'ECHO 100', 'RESET'] * 10, 'STALL 700 2000000')


@lab.check('3 % of frames to lwIP lost: fast retransmit and partial acknowledgements without SACK (RFC 6582)')
def lossy():
    set_up()
    before = engine.counters()
    # lwIP itself takes seconds to send again, so that only a few of its frames are lost
    switch.nft('bridge', forward=['iifname "port0" numgen random mod 100 < 3 drop', 'iifname "lwip0" numgen random mod 1000 < 1 drop'])
    try:
        note = both_ask(LOSSY)
    finally:
        switch.nft('bridge')
    after = engine.counters()
    grown = {name: after.get(name, 0) - before.get(name, 0) for name in ('tcp_retransmitted', 'tcp_timeouts')}
    assert grown['tcp_retransmitted'] > 0, grown
    return '%s; %s' % (note, grown)


@lab.check('a clean end')
def end():
    set_up()
    engine.stop()


if __name__ == '__main__':
    lab.run()
