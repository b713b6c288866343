#!/bin/bash
# nginx.sh NAME ADDRESS USER WWW LOG PID_FILE [CERTIFICATES]: writes the backend's nginx configuration
# to stdout and makes the directories it names. With a directory for certificates it makes those, too,
# and there is TLS on port 443.
set -euo pipefail

name=$1 address=$2 user=$3 www=$4 log=$5 pid_file=$6 certificates=${7:-}
temp=$www.temp/$name
templates=$(dirname "${BASH_SOURCE[0]}")/nginx

certificate() { # SERVER_NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -batch \
        -subj "/CN=$1" -addext "subjectAltName=DNS:$1" \
        -keyout "$certificates/$1.key" -out "$certificates/$1.crt" 2>"$certificates/$1.log" ||
        { cat "$certificates/$1.log" >&2 && exit 1; }
}

tls_server() { # SERVER_NAME
    local server
    server=$(<"$templates/tls.conf.template")
    printf '%s\n' "${server//@SERVER_NAME@/"$1"}"
}

mkdir -p "$www/upload" "$log" "$temp"
servers=
if [[ $certificates ]]; then
    mkdir -p "$certificates"
    for server_name in a.example b.example; do
        certificate "$server_name"
        servers+=$(tls_server "$server_name")
    done
fi
config=$(<"$templates/backend.conf.template")
config=${config//@TLS@/"$servers"}
config=${config//@CERTIFICATES@/"$certificates"}
config=${config//@NAME@/"$name"}
config=${config//@ADDRESS@/"$address"}
config=${config//@USER@/"$user"}
config=${config//@WWW@/"$www"}
config=${config//@LOG@/"$log"}
config=${config//@PID_FILE@/"$pid_file"}
config=${config//@TEMP@/"$temp"}
printf '%s\n' "$config"
