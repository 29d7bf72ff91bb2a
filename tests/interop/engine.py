# SPDX-License-Identifier: Apache-2.0
"""The engine (wire_peer) and the kernel (wire_peer.py) as two hosts that talk to each other.

A Link has both, joined by one of DPDK's virtual devices:
    tap          a TAP interface of the namespace that the engine's process is in; its other side is the kernel there
    af_packet    one end of a veth pair; the kernel is in another namespace, at the other end
    af_xdp       the same
and, if asked for, a router between them (not with tap).
"""
import os
import re
import select
import subprocess
import sys
import time

from lab import BUILD, Skip, wait_until

PROGRAM = os.path.join(BUILD, 'tests/interop/wire_peer')
KERNEL_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'wire_peer.py')
VLAN_PROGRAM = os.path.join(os.path.dirname(KERNEL_PROGRAM), 'vlan_port.py')
PORT, KERNEL_PORT = 2525, 2526
ENGINE4, ENGINE6, NEAR4, NEAR6 = '10.9.0.2', 'fd09::2', '10.9.0.1', 'fd09::1'
FAR4, FAR6, FAR_ROUTER4, FAR_ROUTER6 = '10.9.1.1', 'fd09:1::1', '10.9.1.2', 'fd09:1::2'
INTERFACE = 'wire0'
DEVICES = {'tap': 'net_tap0,iface=' + INTERFACE, 'af_packet': 'net_af_packet0,iface=' + INTERFACE, 'af_xdp': 'net_af_xdp0,iface=' + INTERFACE}


def endpoint(address, port, spread=1):
    return '%s:%d%s' % ('[%s]' % address if ':' in address else address, port, '' if spread == 1 else '+%d' % spread)


class Engine:
    """A wire_peer process. Its answers are read line by line; what it complains of goes to the log."""

    def __init__(self, lab, prefix, arguments, log='engine.log'):
        self.lab, self.log, self.text, self.is_asking = lab, log, b'', False
        self.child = lab.start(prefix + [PROGRAM] + [str(a) for a in arguments], log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def line(self, seconds):
        end = time.monotonic() + seconds
        while b'\n' not in self.text:
            ready = select.select([self.child.stdout], [], [], max(0, end - time.monotonic()))[0]
            part = os.read(self.child.stdout.fileno(), 65536) if ready else b''
            if not part:
                raise AssertionError('the engine %s:\n%s' % ('ended' if ready else 'did not answer in %d s' % seconds, self.lab.log(self.log)[-2000:]))
            self.text += part
        line, self.text = self.text.split(b'\n', 1)
        return line.decode()

    def expect(self, wanted, seconds=60):
        """The next line that is wanted: drivers print to stdout, too."""
        end = time.monotonic() + seconds
        while True:
            line = self.line(max(0.1, end - time.monotonic()))
            if re.match(wanted, line):
                return line

    def say(self, text):
        self.child.stdin.write(text.encode() + b'\n')
        self.child.stdin.flush()

    def serve(self, address, port=PORT):
        self.say('serve ' + endpoint(address, port))
        self.expect('serving')

    def ask_begin(self, address, port, count, at_a_time, *requests, spread=1):
        self.is_asking = True
        self.say('ask %s %d %d %s' % (endpoint(address, port, spread), count, at_a_time, ';'.join(requests)))

    def ask_end(self, count, seconds=60, bad=0):
        answer = self.expect('good', seconds)
        self.is_asking = False
        assert answer == 'good %d bad %d' % (count - bad, bad), 'the engine asked: %s\n%s' % (answer, self.lab.log(self.log)[-1000:])

    def ask(self, address, port, count, at_a_time, *requests, spread=1, seconds=60):
        """Returns how long it took."""
        began = time.monotonic()
        self.ask_begin(address, port, count, at_a_time, *requests, spread=spread)
        self.ask_end(count, seconds)
        return time.monotonic() - began

    def rows(self, command):
        self.say(command)
        rows = []
        while True:
            line = self.expect('counter |flow |end')
            if line == 'end':
                return rows
            rows.append(line.split(' '))

    def counters(self):
        """Name to value of what is not 0, summed over ports."""
        total = {}
        for _, value, _, *name in self.rows('counters'):
            total[' '.join(name)] = total.get(' '.join(name), 0) + int(value)
        return total

    def stop(self):
        self.child.stdin.close()
        self.child.stdout.close()
        code = self.lab.stop(self.child)
        assert code == 0, 'the engine ended with %s:\n%s' % (code, self.lab.log(self.log)[-3000:])


class Kernel:
    """The other host."""

    def __init__(self, lab, namespace, log='kernel.log'):
        self.lab, self.namespace, self.log, self.server = lab, namespace, log, None

    def serve(self, port=KERNEL_PORT):
        self.server = self.namespace.start([sys.executable, KERNEL_PROGRAM, 'serve', '::', str(port)], self.log)
        wait_until(lambda: self.namespace.can_connect('::1', port), 'the kernel listens')

    def ask(self, address, port, count, at_a_time, *requests, options=None, seconds=60):
        """Returns how long it took. options: mask and value that TCP_INFO must have."""
        began = time.monotonic()
        answer = self.namespace.run(sys.executable, KERNEL_PROGRAM, 'ask', address, port, count, at_a_time, *requests, timeout=seconds, check=False)
        match = re.search(r'good (\d+) bad (\d+) options (\d+)', answer)
        assert match and int(match[1]) == count, 'the kernel asked: ' + answer[-2000:]
        if options is not None:
            assert int(match[3]) & options[0] == options[1], 'TCP_INFO says options %s, wanted %d of %d' % (match[3], options[1], options[0])
        return time.monotonic() - began

    def stop(self):
        if self.server is not None:
            self.lab.stop(self.server)


class Link:
    def __init__(self, lab, net, driver, is_routed=False, mtu=1500, vlan=None, arguments=(), driver_arguments=''):
        self.lab, self.net, self.driver, self.vlan = lab, net, driver, vlan
        self.switch = None
        if driver == 'tap' and not os.path.exists('/dev/net/tun'):
            raise Skip('no /dev/net/tun')
        self.home = net.namespace(driver + '-engine')
        self.router = self.far = None
        self.namespaces = [self.home]
        self.peer4, self.peer6 = (FAR4, FAR6) if is_routed else (NEAR4, NEAR6)
        more = (['-G', NEAR4, '-G', NEAR6] if is_routed else []) + (['-V', vlan] if vlan else []) + list(arguments)
        if driver != 'tap':
            self.wire(is_routed, mtu)
        self.engine = Engine(lab, self.home.prefix(), ['-D', DEVICES[driver] + driver_arguments, '-A', ENGINE4 + '/24', '-A', ENGINE6 + '/64', '-m', mtu] +
                             more, '%s-engine.log' % driver)
        try:
            self.engine.expect('ready')
        except AssertionError as error:
            self.close(False)
            raise Skip('%s does not start here: %s' % (driver, ' '.join(str(error).split()[-12:]))) if driver == 'af_xdp' else error
        if driver == 'tap':
            self.far = self.home
            self.home.address(INTERFACE, NEAR4 + '/24', NEAR6 + '/64')
        self.kernel = Kernel(lab, self.far, driver + '-kernel.log')
        self.kernel.serve()
        self.engine.serve('0.0.0.0')
        self.engine.serve('::')
        wait_until(lambda: self.far.can_connect(ENGINE6, PORT), 'nobody else has the IPv6 address (a second)')

    def wire(self, is_routed, mtu):
        near = self.net.namespace(self.driver + ('-router' if is_routed else '-kernel'))
        self.namespaces.append(near)
        self.net.veth(self.home, INTERFACE, near, 'near0', mtu)
        self.home.silence(INTERFACE)
        if self.vlan:
            near.silence('near0')
            self.switch = near.start([sys.executable, VLAN_PROGRAM, 'near0', 'untagged0', str(self.vlan)], 'vlan.log')
            wait_until(lambda: 'ready' in self.lab.log('vlan.log'), 'the switch is up')
        near.address('untagged0' if self.vlan else 'near0', NEAR4 + '/24', NEAR6 + '/64')
        self.far = near
        if is_routed:
            self.router = near
            self.far = self.net.namespace(self.driver + '-kernel')
            self.namespaces.append(self.far)
            self.net.veth(near, 'far0', self.far, 'far1')
            near.address('far0', FAR_ROUTER4 + '/24', FAR_ROUTER6 + '/64')
            near.forward()
            self.far.address('far1', FAR4 + '/24', FAR6 + '/64')
            self.far.route('default', FAR_ROUTER4)
            self.far.route('default', FAR_ROUTER6)

    def families(self):
        """(name, engine's address, kernel's address)"""
        return (('IPv4', ENGINE4, self.peer4), ('IPv6', ENGINE6, self.peer6))

    def close(self, is_sound=True):
        if is_sound:
            self.kernel.stop()
            self.engine.stop()
        elif self.engine.child.poll() is None:
            self.lab.stop(self.engine.child)
        if self.switch is not None:
            self.lab.stop(self.switch)
        self.net.remove(*self.namespaces)
