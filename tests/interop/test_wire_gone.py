#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The interface below a port of the engine is deleted while the relay runs: it says so once, counts it, stays up, and ends in good order."""
import json
import os

from lab import Lab, Skip, wait_until
from netns import Net

lab = Lab('wire-gone')
net = Net(lab)

CONFIG = '''
hostname: relay.test
cores: 2
listen: [{address: "0.0.0.0:25"}, {address: "127.0.0.1:@PORT@"}]
relay_from: [127.0.0.0/8, 10.9.0.0/24]
dns: {resolvers: ["127.0.0.1:53"]}
dataplane:
  driver: dpdk
  memory: 64MiB
  ports: [{device: "%s", addresses: [10.9.0.2/24]}]
'''


def log(relay):
    return lab.log(relay.name + '.log')


def port_gone(relay):
    rows = json.loads(relay.cli('counters', '--json', '--limit', '10000'))['rows']
    found = [row['value'] for row in rows if row['name'] == 'port_gone']
    assert len(found) <= 1, found
    return found == [1]


def gone(driver):
    here = net.namespace(driver)
    peer = here if driver == 'tap' else net.namespace(driver + '-peer')
    if driver != 'tap':
        net.veth(here, 'wire0', peer, 'peer0')
        here.silence('wire0')
        peer.address('peer0', '10.9.0.1/24')
    relay = lab.relay(CONFIG % ('net_%s0,iface=wire0' % driver), driver, here.prefix(), here.can_connect)
    if driver == 'tap':
        here.address('wire0', '10.9.0.1/24')
    wait_until(lambda: peer.can_connect('10.9.0.2', 25), 'the relay is reached by its port')
    assert not port_gone(relay) and 'port_gone' not in log(relay)

    here.ip('link', 'del', 'wire0')
    wait_until(lambda: 'event=port_gone device="net_%s0,iface=wire0"' % driver in log(relay), 'the log names the port')
    wait_until(lambda: port_gone(relay), 'it is counted')
    assert here.can_connect('127.0.0.1', relay.port), 'what the kernel serves goes on'
    assert relay.stop() == 0 and log(relay).count('port_gone') == 1, log(relay)


@lab.check('a TAP interface is deleted')
def tap():
    if not os.path.exists('/dev/net/tun'):
        raise Skip('no /dev/net/tun')
    gone('tap')


@lab.check('a veth is deleted')
def veth():
    gone('af_packet')


if __name__ == '__main__':
    lab.run()
