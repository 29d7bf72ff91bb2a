#!/bin/sh
# {{ ansible_managed }}
# Networks to try a relay in: "start" makes them, "stop" takes them away.
{% for network in trial_networks %}

# {{ network.name }}, at {{ network.interface }} here
ip netns delete {{ network.name }} 2>/dev/null
if [ "$1" = start ]; then
    ip netns add {{ network.name }} &&
        ip link add {{ network.interface }} type veth peer name wire0 netns {{ network.name }} &&
{% for address in network.addresses %}
        ip -n {{ network.name }} address add {{ address }} dev wire0 &&
{% endfor %}
        ip -n {{ network.name }} link set lo up &&
        ip -n {{ network.name }} link set wire0 up &&
        ip -n {{ network.name }} route add default via {{ network.gateway }} &&
        ip netns exec {{ network.name }} ethtool -K wire0 tx off rx off tso off gso off gro off >/dev/null || exit 1
fi
{% endfor %}
exit 0
