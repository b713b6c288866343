#!/bin/bash
# Both Vagrant boxes: Debian packages, and the two programs in /opt/l3dsr.
set -euo pipefail

/vagrant/provisioning/packages.sh

# Built from a copy, so that the build leaves nothing in the checkout.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
cp -r /vagrant/{balancer,packetbridge,common,pyproject.toml,README.md,LICENSE} "$source/"

[[ -x /opt/l3dsr/bin/python ]] || python3 -m venv /opt/l3dsr
/opt/l3dsr/bin/python -m pip install --quiet "$source"
# A second time and by itself, since pip leaves a version in place that it already has.
/opt/l3dsr/bin/python -m pip install --quiet --no-deps --force-reinstall "$source"
ln -sf /opt/l3dsr/bin/{balancer,packetbridge} /usr/local/sbin/
install -d /etc/l3dsr
