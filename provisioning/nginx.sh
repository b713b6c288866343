#!/bin/bash
# nginx.sh NAME ADDRESS USER WWW LOG PID_FILE: writes the backend's nginx configuration to stdout and
# makes the directories it names.
set -euo pipefail

name=$1 address=$2 user=$3 www=$4 log=$5 pid_file=$6
temp=$www.temp/$name

mkdir -p "$www/upload" "$log" "$temp"
config=$(<"$(dirname "${BASH_SOURCE[0]}")/nginx/backend.conf.template")
config=${config//@NAME@/"$name"}
config=${config//@ADDRESS@/"$address"}
config=${config//@USER@/"$user"}
config=${config//@WWW@/"$www"}
config=${config//@LOG@/"$log"}
config=${config//@PID_FILE@/"$pid_file"}
config=${config//@TEMP@/"$temp"}
printf '%s\n' "$config"
