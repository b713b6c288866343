#!/bin/bash
# vagrant-service.sh PROGRAM: with SERVICES=1 the program runs as a service from now on and from each
# boot on. Else it is left to be started by hand ("sudo balancer"), of which a running service would
# be in the way: there can be one in a host; a service that does run gets what is newly installed.
set -euo pipefail

if [[ ${SERVICES:-0} == 1 ]]; then
    systemctl enable "$1"
    systemctl restart "$1"
else
    systemctl try-restart "$1"
fi
