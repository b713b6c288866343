#!/bin/bash
# The Vagrant box "balancer". Makes the key that both boxes share.
set -euo pipefail

key=/vagrant/.vagrant/l3dsr.key
if [[ ! -f $key ]]; then
    balancer keygen "$key"
fi
install -m 600 "$key" /etc/l3dsr/key

/vagrant/provisioning/config.sh balancer 192.168.33.10 /etc/l3dsr/key \
    backend=192.168.33.20 >/etc/l3dsr/balancer.toml

install -m 644 /vagrant/provisioning/sysctl/balancer.conf /etc/sysctl.d/60-l3dsr.conf
sysctl -q -p /etc/sysctl.d/60-l3dsr.conf

install -m 644 /vagrant/provisioning/systemd/balancer.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable balancer
systemctl restart balancer
