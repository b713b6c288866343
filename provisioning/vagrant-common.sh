#!/bin/bash
# All Vagrant boxes: the two programs below /opt/l3dsr, on root's PATH, and as services that nobody has
# started yet.
set -euo pipefail

/vagrant/provisioning/packages.sh --programs tcpdump # to look around with
PREFIX=/opt/l3dsr /vagrant/provisioning/install.sh install

for program in balancer packetbridge; do
    ln -sf "/opt/l3dsr/sbin/$program" /usr/local/sbin/
    systemctl --quiet link "/opt/l3dsr/lib/systemd/system/$program.service"
done
install -d /etc/l3dsr
