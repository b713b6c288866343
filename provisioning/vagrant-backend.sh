#!/bin/bash
# vagrant-backend.sh NAME BRIDGE SERVER: a Vagrant box with a packetbridge and nginx, each with an
# address of its own. The key is there already (vagrant_key.rb). SERVICES=1: see vagrant-service.sh.
set -euo pipefail

name=$1 bridge=$2 server=$3

/vagrant/provisioning/packages.sh --programs nginx

/vagrant/provisioning/config.sh packetbridge 192.168.33.10 /etc/l3dsr/key "$bridge" "$server:80" \
    >/etc/l3dsr/packetbridge.toml

cat /vagrant/provisioning/sysctl/{bridge,backend-box}.conf >/etc/sysctl.d/60-l3dsr.conf
sysctl -q -p /etc/sysctl.d/60-l3dsr.conf

# shellcheck source=lab/www.sh
source /vagrant/provisioning/lab/www.sh
www_up /srv/www
/vagrant/provisioning/nginx.sh "$name" "$server" www-data \
    /srv/www /var/log/nginx /run/nginx.pid >/etc/nginx/nginx.conf
chown -R www-data: /srv/www /srv/www.temp

# nginx may start before its address is there.
install -D -m 644 /vagrant/provisioning/systemd/nginx-retry.conf \
    /etc/systemd/system/nginx.service.d/retry.conf
systemctl daemon-reload
systemctl enable nginx
systemctl restart nginx

/vagrant/provisioning/vagrant-service.sh packetbridge
