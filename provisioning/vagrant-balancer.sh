#!/bin/bash
# vagrant-balancer.sh NAME=BRIDGE...: the Vagrant box "balancer". Makes the key that all boxes share.
# SERVICES=1: see vagrant-service.sh.
set -euo pipefail

[[ -f /etc/l3dsr/key ]] || balancer keygen /etc/l3dsr/key

/vagrant/provisioning/config.sh balancer 192.168.33.10 /etc/l3dsr/key "$@" \
    >/etc/l3dsr/balancer.toml

install -m 644 /vagrant/provisioning/sysctl/balancer.conf /etc/sysctl.d/60-l3dsr.conf
sysctl -q -p /etc/sysctl.d/60-l3dsr.conf

/vagrant/provisioning/vagrant-service.sh balancer
