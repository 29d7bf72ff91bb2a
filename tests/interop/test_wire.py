#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The engine against the kernel's TCP: over DPDK's virtual devices, over paths with a router, with peers that lack what is modern."""
import socket
import struct
import sys
import time

from engine import ENGINE4, ENGINE6, FAR_ROUTER4, FAR_ROUTER6, KERNEL_PORT, KERNEL_PROGRAM, NEAR4, NEAR6, PORT, Link
from lab import LONG, Lab, wait_until
from netns import Net

lab = Lab('wire')
net = Net(lab)

BULK = 200_000_000 if LONG else 8_000_000
SHORT = 20_000 if LONG else 1_000  # connections each way and family
LOSSY = 5_000_000 if LONG else 500_000

links = {}


def the_link(driver, is_routed=False):
    """One for all checks of its kind, unless one of them left it in the middle of something."""
    name = driver + '-routed' if is_routed else driver
    if name in links and links[name].engine.is_asking:
        links.pop(name).close(False)
    if name not in links:
        links[name] = Link(lab, net, driver, is_routed)
    return links[name]


def rate(octets, seconds):
    return '%.0f Mbit/s' % (octets * 8 / seconds / 1e6)


def transfers(link, size):
    for _, engine, kernel in link.families():
        link.engine.ask(kernel, KERNEL_PORT, 2, 2, 'SINK %d' % size, 'ECHO %d' % size)
        link.kernel.ask(engine, PORT, 2, 2, 'SOURCE %d' % size, 'ECHO %d' % size)


# ---- what every device must carry ----

def bulk(driver):
    link, notes = the_link(driver), []
    for family, engine, kernel in link.families():
        out = link.engine.ask(kernel, KERNEL_PORT, 1, 1, 'SINK %d' % BULK)
        into = link.engine.ask(kernel, KERNEL_PORT, 1, 1, 'SOURCE %d' % BULK)
        link.kernel.ask(engine, PORT, 2, 2, 'SINK %d' % (BULK // 4), 'SOURCE %d' % (BULK // 4))
        link.engine.ask(kernel, KERNEL_PORT, 4, 4, 'ECHO %d' % (BULK // 8), 'SINK %d' % (BULK // 8), 'SOURCE %d' % (BULK // 8))
        notes.append('%s out %s, in %s' % (family, rate(BULK, out), rate(BULK, into)))
    return '; '.join(notes)


def short_connections(driver):
    link, notes = the_link(driver), []
    for family, engine, kernel in link.families():
        served = link.kernel.ask(engine, PORT, SHORT, 16, 'SOURCE 100', 'SINK 100')
        asked = link.engine.ask(kernel, KERNEL_PORT, SHORT, 16, 'SOURCE 100', 'SINK 100')
        notes.append('%s served %.0f/s, asked %.0f/s' % (family, SHORT / served, SHORT / asked))
    return '; '.join(notes)


def endings(driver):
    """Half-close (an ECHO ends long before it is answered), RST, and a reader who sleeps."""
    link = the_link(driver)
    link.far.sysctl(**{'ipv4/tcp_rmem': '4096 16384 65536'})
    for _, engine, kernel in link.families():
        for count, request in ((40, 'ECHO 0'), (40, 'ECHO 70000'), (100, 'RESET')):
            link.kernel.ask(engine, PORT, count, 8, request)
            link.engine.ask(kernel, KERNEL_PORT, count, 8, request)
        for ask in (lambda: link.engine.ask(kernel, KERNEL_PORT, 4, 4, 'STALL 400 1000000'),  # pylint: disable=cell-var-from-loop
                    lambda: link.kernel.ask(engine, PORT, 4, 4, 'STALL 400 4000000')):  # pylint: disable=cell-var-from-loop
            took = ask()
            assert 0.4 <= took < 20, 'a window closed for 0.4 s took %.1f s' % took
    link.far.sysctl(**{'ipv4/tcp_rmem': '4096 131072 6291456'})


def refused(driver):
    """Who is not there is known at once: a closed port either way."""
    link = the_link(driver)
    for _, engine, kernel in link.families():
        began = time.monotonic()
        link.engine.ask_begin(kernel, 1, 1, 1, 'SOURCE 1')
        link.engine.ask_end(1, bad=1)
        with link.far.entered():
            try:
                socket.create_connection((engine, 1), 60).close()
                raise AssertionError('connected to a closed port')
            except ConnectionRefusedError:
                pass
        assert time.monotonic() - began < 8, 'known only after SYNs that were sent again'


def checksum(octets):
    total = sum(struct.unpack('!%dH' % (len(octets) // 2), octets))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff


def ping(namespace, address, size):
    """True when the echo comes back whole."""
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    is_six = ':' in address
    with namespace.entered(), socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, socket.SOCK_RAW,
                                            socket.IPPROTO_ICMPV6 if is_six else socket.IPPROTO_ICMP) as raw:
        raw.settimeout(20)
        head = struct.pack('!BBHHH', 128 if is_six else 8, 0, 0, 4711, 1)
        packet = head + payload + bytes(len(payload) % 2)
        raw.sendto(head[:2] + struct.pack('!H', 0 if is_six else checksum(packet)) + head[4:] + payload, (address, 0))
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                answer = raw.recv(65536)[0 if is_six else 20:]
            except TimeoutError:
                return False
            if answer[0] == (129 if is_six else 0) and answer[4:8] == head[4:8]:
                return answer[8:] == payload
    return False


def pings(driver):
    link = the_link(driver)
    for address in (ENGINE4, ENGINE6):
        for size in (0, 1, 56, 1400):
            assert ping(link.far, address, size), '%d octets to %s' % (size, address)
    assert link.engine.counters()['icmp_echo_answered'] == 8


def done(driver):
    """Ends as it should, and all that came was understood."""
    link = the_link(driver)
    counters = link.engine.counters()
    bad = {name: value for name, value in counters.items() if any(word in name for word in ('malformed', 'checksum', 'martian', 'spoofed', 'no_buffer'))}
    links.pop(driver).close()
    assert not bad, bad
    return '%d frames in, %d out' % (counters['frames_received'], counters['frames_sent'])


for name in ('tap', 'af_packet', 'af_xdp'):
    for title, function in (('bulk both ways, every octet checked', bulk), ('thousands of short connections, served and asked', short_connections),
                            ('half-close, RST, a closed window', endings), ('closed ports refuse at once', refused), ('answers pings', pings),
                            ('nothing malformed, a clean end', done)):
        lab.check('%s: %s' % (name, title))(lambda function=function, name=name: function(name))


# ---- peers of other ages, over a lossy path ----

PEERS = (
    ('all that is modern', {}),
    ('no SACK', {'tcp_sack': 0}),
    ('no timestamps', {'tcp_timestamps': 0}),
    ('no window scaling', {'tcp_window_scaling': 0}),
    ('no SACK, no timestamps, no scaling, no ECN', {'tcp_sack': 0, 'tcp_timestamps': 0, 'tcp_window_scaling': 0, 'tcp_ecn': 0}),
    ('ECN', {'tcp_ecn': 1}),
)
# sysctl: (bit of TCP_INFO's options, its value in `all that is modern`)
BITS = {'tcp_timestamps': (1, 1), 'tcp_sack': (2, 2), 'tcp_window_scaling': (4, 4), 'tcp_ecn': (8, 0)}

LOSE = 'numgen random mod 100 < 2 drop'
MARK4, MARK6 = ('%s ecn ect0 numgen random mod 100 < 5 %s ecn set ce' % (ip, ip) for ip in ('ip', 'ip6'))


def routed():
    return the_link('af_packet', True)


def options_expected(settings):
    mask = value = 0
    for name, (bit, usual) in BITS.items():
        mask |= bit
        value |= usual if name not in settings else bit if settings[name] else 0
    return mask, value


def old_peer(settings):
    link, notes = routed(), []
    usual = {'tcp_sack': 1, 'tcp_timestamps': 1, 'tcp_window_scaling': 1, 'tcp_ecn': 2}
    link.far.sysctl(**{'ipv4/' + name: value for name, value in {**usual, **settings}.items()})
    has_ecn = settings.get('tcp_ecn') == 1
    before = link.far.statistics()
    link.router.nft(forward=[MARK4, MARK6] if has_ecn else [LOSE])
    try:
        for family, engine, kernel in link.families():
            seconds = link.kernel.ask(engine, PORT, 2, 2, 'SINK %d' % LOSSY, 'SOURCE %d' % LOSSY, options=options_expected(settings))
            seconds += link.engine.ask(kernel, KERNEL_PORT, 3, 3, 'SINK %d' % LOSSY, 'SOURCE %d' % LOSSY, 'ECHO %d' % LOSSY)
            notes.append('%s %.1f s' % (family, seconds))
    finally:
        link.router.nft()
    if has_ecn:
        after = link.far.statistics()
        # the engine's segments could be marked, and it told the kernel of marks on the kernel's
        grown = {name: after[name] - before[name] for name in ('IpExtInCEPkts', 'Ip6InCEPkts', 'TcpExtTCPDeliveredCE')}
        assert all(grown.values()), grown
        notes.append(str(grown))
    return '; '.join(notes)


for title, settings in PEERS:
    what = '5 % of frames marked' if title == 'ECN' else '2 % of frames lost'
    lab.check('a kernel with %s; %s' % (title, what))(lambda settings=settings: old_peer(settings))


@lab.check('small MSS: no segment is larger than what the peer takes')
def small_mss():
    link = routed()
    for advmss in (536, 900):
        link.far.route('default', FAR_ROUTER4, advmss=advmss)
        link.far.route('default', FAR_ROUTER6, advmss=advmss)
        too_long = 'iifname "near0" meta l4proto tcp meta length > %d counter drop'
        link.router.nft(forward=['meta nfproto ipv4 ' + too_long % (advmss + 40), 'meta nfproto ipv6 ' + too_long % (advmss + 60)])
        try:
            transfers(link, 300_000)
        finally:
            link.router.nft()
    link.far.route('default', FAR_ROUTER4, advmss=88)  # absurd: smaller than what every host takes
    link.kernel.ask(ENGINE4, PORT, 1, 1, 'SOURCE 100000')
    links.pop('af_packet-routed').close()


# ---- MTU ----

def narrow(link, mtu):
    """What the router sends on to the far host must be no larger. The far host does not know, and offers the MSS of 1,500."""
    link.router.ip('route', 'replace', '10.9.1.0/24', 'dev', 'far0', 'mtu', mtu)
    link.router.ip('-6', 'route', 'replace', 'fd09:1::/64', 'dev', 'far0', 'metric', 256, 'mtu', mtu)


def told_too_big(link):
    """How often the router said so."""
    statistics = link.router.statistics()
    return statistics['IpFragFails'], statistics['Icmp6OutPktTooBigs']


@lab.check('path MTU: a router says what fits, while octets are on their way; once is enough')
def path_mtu():
    link = Link(lab, net, 'af_packet', is_routed=True)
    for mtu in (1400, 1280):
        before = told_too_big(link)
        for _, _, kernel in link.families():
            link.engine.ask_begin(kernel, KERNEL_PORT, 1, 1, 'SINK %d' % (4 * BULK))
            time.sleep(0.1)
            narrow(link, mtu)
            link.engine.ask_end(1)
        transfers(link, 300_000)
        told = told_too_big(link)
        transfers(link, 300_000)
        assert told[0] > before[0] and told[1] > before[1] and told == told_too_big(link), (before, told, told_too_big(link))
    link.close()


@lab.check('path MTU: a black hole, where the router may not speak')
def black_hole():
    link, notes = Link(lab, net, 'af_packet', is_routed=True), []
    narrow(link, 1300)
    link.router.nft(output=['icmp type destination-unreachable drop', 'icmpv6 type packet-too-big drop'])
    for family, _, kernel in link.families():
        first = link.engine.ask(kernel, KERNEL_PORT, 1, 1, 'SINK 300000')
        then = link.engine.ask(kernel, KERNEL_PORT, 1, 1, 'SINK 300000')
        assert first < 15 and then < 1, 'first %.1f s, then %.1f s' % (first, then)
        notes.append('%s %.1f s, then %.1f s' % (family, first, then))
    link.close()
    return '; '.join(notes)


@lab.check('frames of 9,000 octets')
def jumbo():
    link = Link(lab, net, 'af_packet', mtu=9000, driver_arguments=',framesz=9088,blocksz=290816,framecnt=512')
    before = link.engine.counters()
    for _, _, kernel in link.families():
        link.engine.ask(kernel, KERNEL_PORT, 1, 1, 'ECHO %d' % BULK)
    after = link.engine.counters()
    sizes = [2 * BULK // (after[name] - before.get(name, 0)) for name in ('frames_sent', 'frames_received')]
    link.close()
    assert sizes[0] > 4000, 'octets per frame: %s' % sizes
    return 'octets per frame: %d out, %d in' % tuple(sizes)


# ---- trouble on the link ----

@lab.check('the wire is pulled for a moment; then the peer has another link address, and says so: transfers go on')
def pulled():
    link, notes = Link(lab, net, 'af_packet'), []
    link.far.sysctl(**{'ipv4/conf/near0/arp_notify': 1, 'ipv6/conf/near0/ndisc_notify': 1})
    for number, (family, _, kernel) in enumerate(link.families()):
        link.engine.ask_begin(kernel, KERNEL_PORT, 2, 2, 'SINK %d' % (10 * BULK), 'SOURCE %d' % (10 * BULK))
        began = time.monotonic()
        time.sleep(0.1)
        link.far.ip('link', 'set', 'near0', 'down')
        time.sleep(0.3)
        link.far.ip('link', 'set', 'near0', 'address', '02:00:00:00:00:%02x' % (number + 1))
        link.far.address('near0', NEAR6 + '/64')  # that one is forgotten when a link goes down
        link.engine.ask_end(2)
        notes.append('%s %.1f s' % (family, time.monotonic() - began))
    link.close()
    return ', '.join(notes)


# ---- beside the engine ----

@lab.check('a VLAN: every frame has the tag, both ways')
def vlan():
    link = Link(lab, net, 'af_packet', vlan=5)
    transfers(link, 300_000)
    assert ping(link.far, ENGINE4, 1400) and ping(link.far, ENGINE6, 1400)
    link.close()
    counts = lab.log('vlan.log').split()
    assert int(counts[2]) > 100 and counts[4] == '0', counts


@lab.check('exception: what is not for the engine goes to the kernel on the same port, and back')
def exception():
    link = Link(lab, net, 'af_packet', arguments=['-E', 'except0'])
    wait_until(lambda: link.home.has_interface('except0'), 'the exception interface is there')
    link.home.address('except0', '10.9.0.3/24', 'fd09::3/64')
    server = link.home.start([sys.executable, KERNEL_PROGRAM, 'serve', '::', '2527'], 'exception-kernel.log')
    wait_until(lambda: link.home.can_connect('::1', 2527), 'the kernel behind the exception interface listens')
    for address, other in (('10.9.0.3', NEAR4), ('fd09::3', NEAR6)):
        link.kernel.ask(address, 2527, 20, 4, 'ECHO 50000', 'SINK 200000', 'SOURCE 200000')
        assert ping(link.far, address, 56)
        link.home.run(sys.executable, KERNEL_PROGRAM, 'ask', other, KERNEL_PORT, 20, 4, 'ECHO 50000', 'SINK 200000')
    transfers(link, 300_000)
    lab.stop(server)
    counters = link.engine.counters()
    link.close()
    return '%d frames to the kernel' % counters['frames_excepted']


if __name__ == '__main__':
    lab.run()
