# SPDX-License-Identifier: Apache-2.0
"""Network namespaces of a lab: hosts, routers and the wires between them, in the kernel, away from the machine's own network.

    net = Net(lab)
    here, there = net.namespace('here'), net.namespace('there')
    net.veth(here, 'a0', there, 'b0')
    there.address('b0', '10.9.0.1/24', 'fd09::1/64')

Names are angarium-PID-NUMBER-NAME. They go away at the end, also after failures; what a killed run left behind goes when the next one begins.
"""
import atexit
import contextlib
import ctypes
import errno
import os
import re
import subprocess

from lab import Skip, can_connect, tool

FOLDER = '/var/run/netns'
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def command(arguments, check=True, timeout=60, **more):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=timeout, check=False,
                          encoding='utf-8', errors='replace', **more)
    assert not check or done.returncode == 0, '%s gave %d:\n%s' % (' '.join(arguments), done.returncode, done.stdout)
    return done


class Namespace:
    def __init__(self, lab, ip, name):
        self.lab, self.ip_tool, self.name = lab, ip, name
        made = command([ip, 'netns', 'add', self.name], check=False)
        if 'not permitted' in made.stdout:
            raise Skip('no network namespaces: ' + made.stdout.strip())
        assert made.returncode == 0, made.stdout
        # the kernel is to say nothing of its own accord on interfaces that are the engine's
        self.sysctl(**{'ipv6/conf/all/accept_dad': 0, 'ipv6/conf/default/accept_dad': 0, 'ipv6/conf/default/router_solicitations': 0})
        self.ip('link', 'set', 'lo', 'up')

    # ---- programs inside ----

    def prefix(self):
        return [self.ip_tool, 'netns', 'exec', self.name]

    def run(self, *arguments, **more):
        """Run a program to its end; returns what it printed."""
        return command(self.prefix() + [str(a) for a in arguments], **more).stdout

    def start(self, arguments, log=None, **more):
        return self.lab.start(self.prefix() + [str(a) for a in arguments], log or os.path.basename(arguments[0]) + '.log', **more)

    @contextlib.contextmanager
    def entered(self):
        """This thread's sockets and /proc/sys/net are the namespace's for a while."""
        with open('/proc/thread-self/ns/net', 'rb') as home, open(os.path.join(FOLDER, self.name), 'rb') as there:
            assert libc.setns(there.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(home.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    def can_connect(self, address, port):
        with self.entered():
            return can_connect(address, port)

    # ---- its network ----

    def ip(self, *arguments, check=True):
        return command([self.ip_tool, '-n', self.name] + [str(a) for a in arguments], check=check).stdout

    def sysctl(self, **values):
        with self.entered():
            for name, value in values.items():
                try:
                    with open('/proc/sys/net/' + name, 'w', encoding='ascii') as file:
                        file.write(str(value))
                except OSError as error:
                    if error.errno == errno.EROFS:
                        raise Skip('/proc/sys is read-only') from error
                    raise

    def has_interface(self, name):
        return command([self.ip_tool, '-n', self.name, 'link', 'show', name], check=False).returncode == 0

    def silence(self, interface):
        """The kernel neither has nor invents an address there: the interface is the engine's."""
        self.sysctl(**{'ipv6/conf/%s/disable_ipv6' % interface: 1})

    def address(self, interface, *addresses):
        for address in addresses:
            self.ip('address', 'add', address, 'dev', interface, *(['nodad'] if ':' in address else []))
        self.ip('link', 'set', interface, 'up')

    def route(self, destination, via, **metrics):
        """A route, or another one in its place; metrics as ip names them (mtu, advmss)."""
        words = [word for name, value in metrics.items() for word in (name, value)]
        self.ip('-6' if ':' in via else '-4', 'route', 'replace', destination, 'via', via, *words)

    def statistics(self):
        """The kernel's counters, as nstat names them."""
        with self.entered():
            found = {}
            for file in ('snmp', 'netstat'):
                with open('/proc/thread-self/net/' + file, encoding='ascii') as table:
                    rows = [line.split() for line in table]
                for names, values in zip(rows[::2], rows[1::2]):
                    found.update({names[0][:-1] + name: int(value) for name, value in zip(names[1:], values[1:])})
            with open('/proc/thread-self/net/snmp6', encoding='ascii') as table:
                found.update({name: int(value) for name, value in (line.split() for line in table)})
            return found

    def forward(self):
        self.sysctl(**{'ipv4/ip_forward': 1, 'ipv6/conf/all/forwarding': 1})

    def plain(self, interface):
        """No offloads: frames are on the wire as they are in memory, no longer than the MTU and with whole checksums."""
        self.run(tool('ethtool'), '-K', interface, *'tx off rx off tso off gso off gro off sg off'.split(), check=False)

    def nft(self, family='inet', **hooks):
        """Replace all filters: nft(forward=['tcp dport 25 drop'], output=[...])."""
        lines = ['flush ruleset', 'table %s lab {' % family]
        for hook, rules in hooks.items():
            lines += ['chain %s {' % hook, 'type filter hook %s priority 0; policy accept;' % hook] + rules + ['}']
        done = command(self.prefix() + [tool('nft'), '-f', self.lab.write(self.name + '.nft', '\n'.join(lines + ['}', '']))], check=False)
        if 'not supported' in done.stdout or 'No such file' in done.stdout:
            raise Skip('nft: ' + done.stdout.strip().splitlines()[0])
        assert done.returncode == 0, done.stdout


class Net:
    def __init__(self, lab):
        self.lab, self.namespaces, self.count = lab, [], 0
        atexit.register(self.close)

    def namespace(self, name):
        if os.geteuid() != 0:
            raise Skip('needs root')
        ip = tool('ip')
        if not self.namespaces:
            self.clean(ip)
        self.count += 1
        namespace = Namespace(self.lab, ip, 'angarium-%d-%d-%s' % (os.getpid(), self.count, name))
        self.namespaces.append(namespace)
        return namespace

    def veth(self, one, one_name, other, other_name, mtu=1500):
        """A wire between two namespaces."""
        made = one.ip('link', 'add', one_name, 'mtu', mtu, 'type', 'veth', 'peer', 'name', other_name, 'mtu', mtu, 'netns', other.name, check=False)
        if 'Unknown device type' in made:
            raise Skip('the kernel has no veth')
        for namespace, name in ((one, one_name), (other, other_name)):
            namespace.plain(name)
            namespace.ip('link', 'set', name, 'up')

    def remove(self, *namespaces):
        """Their processes must have been ended."""
        for namespace in namespaces:
            command([namespace.ip_tool, 'netns', 'delete', namespace.name], check=False)
            self.namespaces.remove(namespace)

    def close(self):
        self.remove(*self.namespaces)

    @staticmethod
    def clean(ip):
        for name in os.listdir(FOLDER) if os.path.isdir(FOLDER) else []:
            match = re.fullmatch(r'angarium-(\d+)-.*', name)
            if match and not os.path.exists('/proc/' + match[1]):
                command([ip, 'netns', 'delete', name], check=False)
