#!/bin/bash
# The Vagrant box "backend": a packetbridge on 192.168.33.20 and nginx on 192.168.33.30.
set -euo pipefail

key=/vagrant/.vagrant/l3dsr.key
if [[ ! -f $key ]]; then
    echo "no $key: provision the box \"balancer\" first, it makes the key" >&2
    exit 1
fi
install -m 600 "$key" /etc/l3dsr/key

/vagrant/provisioning/config.sh packetbridge 192.168.33.10 /etc/l3dsr/key \
    192.168.33.20 192.168.33.30:80 >/etc/l3dsr/packetbridge.toml

# nginx's address, on the interface that has the bridge's; at every boot, by ifupdown.
cat >/etc/network/if-up.d/l3dsr <<'END'
#!/bin/sh
if ip -4 address show dev "$IFACE" | grep -q 'inet 192\.168\.33\.20/'; then
    ip address replace 192.168.33.30/24 dev "$IFACE"
fi
END
chmod 755 /etc/network/if-up.d/l3dsr
interface=$(ip -4 -o address show to 192.168.33.20 | awk '{ print $2 }')
IFACE=$interface /etc/network/if-up.d/l3dsr

install -m 644 /vagrant/provisioning/sysctl/bridge.conf /etc/sysctl.d/60-l3dsr.conf
sysctl -q -p /etc/sysctl.d/60-l3dsr.conf

/vagrant/provisioning/nginx.sh backend1 192.168.33.30 www-data \
    /srv/www /var/log/nginx /run/nginx.pid >/etc/nginx/nginx.conf
chown -R www-data: /srv/www /srv/www.temp

install -m 644 /vagrant/provisioning/systemd/packetbridge.service /etc/systemd/system/
# nginx may start before its address is there.
install -D -m 644 /vagrant/provisioning/systemd/nginx-retry.conf \
    /etc/systemd/system/nginx.service.d/retry.conf
systemctl daemon-reload
systemctl enable nginx packetbridge
systemctl restart nginx packetbridge
