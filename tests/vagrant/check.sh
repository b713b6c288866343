#!/bin/bash
# "make vagrant-check": the Vagrantfile and all provisioning, for real but without a hypervisor. Vagrant
# itself brings up boxes that are namespaces with a Debian 12 root each (provider.rb), as the README
# shows it, and the boxes serve. Ten minutes; ends with 0 only if all of it did.
# The root and downloaded packages stay in .vagrant-check; everything else is removed.
# shellcheck disable=SC1091,SC2154
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
source "$root/provisioning/lab/verdicts.sh"
source "$here/base.sh"
source "$here/host.sh"
source "$here/look.sh"
source "$here/stages.sh"
source "$here/operating.sh"

((EUID == 0)) || die "must run as root"
mkdir -p "$lab/log"
exec 9<"$here"
flock -n 9 || die "is running already"

"$root/provisioning/packages.sh" vagrant vagrant-libvirt ruby debootstrap systemd-container slirp4netns

trap everything_down EXIT
everything_down
rm -f "$lab/log/"*

title "The Vagrantfile"
files_are_valid

title "Up"
ssh-keygen -q -t ed25519 -N '' -f "$lab/ssh_key"
echo "require '$here/provider.rb'" >"$lab/vagrant/home/Vagrantfile"
base_up
host_with_uplink_up
come_up
serve_by_hand
are_the_same_again
serve_as_services
operate_as_the_pages_say
serve_after_reboot
serve_with_second_backend

echo
((failures == 0))
