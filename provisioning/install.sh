#!/bin/bash
# install.sh install | uninstall: puts both programs below PREFIX (/usr/local), or takes away what it
# put there. `make install` and the Vagrant boxes use it. With DESTDIR the files go below that
# instead, for a package, and this host is not touched: no user is made, no service told.
#
# Nothing that is installed has an effect until it is asked for: units are not enabled, and
# configurations and kernel settings are examples.
set -euo pipefail
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
prefix=${PREFIX:-/usr/local} destdir=${DESTDIR:-}
python=${PYTHON:-/usr/bin/python3}
own=$prefix/lib/l3dsr # all of it is ours
manifest=$destdir$own/manifest
programs=(balancer packetbridge)
etc=/etc/l3dsr

die() {
    echo "install.sh: $*" >&2
    exit 1
}

[[ $prefix == /* && $prefix != *[[:space:]]* ]] || die "PREFIX must be a path from the root, without spaces"
[[ -z $destdir || $destdir == /* ]] || die "DESTDIR must be a path from the root"

on_this_host() { [[ -z $destdir ]] && ((EUID == 0)); }

with_systemd() { on_this_host && [[ -d /run/systemd/system ]]; }

# --- install ---

install_all() {
    local work
    work=$(mktemp -d)
    trap "rm -rf '$work'" EXIT
    "$root/provisioning/packages.sh" --programs
    build "$work"
    stage "$work"
    put "$work/stage"
    ! on_this_host || tell_host
}

# From a copy, so that building leaves nothing in the checkout.
build() { # WORK
    echo "building ..."
    mkdir "$1/source" "$1/wheels"
    cp -r "$root"/{balancer,packetbridge,common,provisioning,pyproject.toml,setup.py,README.md,LICENSE} \
        "$1/source/"
    "$python" -m venv "$1/venv"
    "$1/venv/bin/pip" wheel --quiet --disable-pip-version-check -w "$1/wheels" "$1/source[man]"
    "$1/venv/bin/pip" install --quiet --disable-pip-version-check --no-index -f "$1/wheels" \
        'l3dsr-hash-balancer[man]'
}

stage() { # WORK
    local stage=$1/stage
    local at=$stage$prefix program
    mkdir -p "$at"/{sbin,lib/l3dsr,lib/sysusers.d,lib/systemd/system,share/man}
    stage_venv "$1" "$at/lib/l3dsr/venv"
    install -m 755 "$root/provisioning/systemd/prepare" "$at/lib/l3dsr/"
    install -m 644 "$root/provisioning/systemd/l3dsr.sysusers" "$at/lib/sysusers.d/l3dsr.conf"
    for program in "${programs[@]}"; do
        ln -s "../lib/l3dsr/venv/bin/$program" "$at/sbin/"
        sed "s|/usr/local/|$prefix/|g" "$root/provisioning/systemd/$program.service" \
            >"$at/lib/systemd/system/$program.service"
        install -D -m 644 "$root/provisioning/$program.toml" -t "$at/share/doc/l3dsr/examples/"
        completion "$1" bash "$program" "$at/share/bash-completion/completions/$program"
        completion "$1" zsh "$program" "$at/share/zsh/site-functions/_$program"
    done
    "$1/venv/bin/python" "$root/provisioning/manpages.py" "$at/share/man/man8"
    install -m 644 "$root"/{README.md,LICENSE} -t "$at/share/doc/l3dsr/"
    install -D -m 644 "$root"/docs/* -t "$at/share/doc/l3dsr/docs/"
    install -m 644 "$root/provisioning/sysctl/balancer.conf" "$at/share/doc/l3dsr/examples/sysctl-balancer.conf"
    install -m 644 "$root/provisioning/sysctl/bridge.conf" "$at/share/doc/l3dsr/examples/sysctl-packetbridge.conf"
    install -m 644 "$root"/provisioning/{grafana/l3dsr.json,prometheus/{l3dsr.rules,prometheus}.yml} \
        -t "$at/share/doc/l3dsr/examples/"
    install -m 644 "$root/provisioning/logrotate/l3dsr" "$at/share/doc/l3dsr/examples/logrotate"
}

# A virtual environment names itself by its path: here it gets the one that it will have.
stage_venv() { # WORK VENV
    "$python" -m venv --without-pip "$2"
    "$1/venv/bin/pip" --python "$2/bin/python" install --quiet --disable-pip-version-check \
        --no-compile --no-index -f "$1/wheels" l3dsr-hash-balancer
    grep -rlI --null -F "$1/stage" "$2" | xargs -0r sed -i "s|$1/stage||g"
    "$python" -m compileall -q -s "$1/stage" "$2/lib"
}

# As click makes it. Its last lines choose between a file that is sourced and one that zsh loads by
# itself, and take that for the former from the second call on (click 8.5): here it is the latter.
completion() { # WORK SHELL PROGRAM FILE
    mkdir -p "${4%/*}"
    env "_${3^^}_COMPLETE=$2_source" "$1/venv/bin/$3" >"$4"
    if [[ $2 == zsh ]]; then
        sed -i '/zsh_eval_context/,$d' "$4"
        echo "_${3}_completion \"\$@\"" >>"$4"
    fi
}

# The programs may be running: their directory is changed for the new one in one moment. The manifest
# names all other files, and the directories that were not there before.
put() { # STAGE
    local path
    local -A made=()
    if [[ -e $manifest ]]; then
        while read -r path; do
            [[ $path != */ ]] || made[$path]=yes
        done <"$manifest"
    fi
    (cd "$1" && find . -path "./${own#/}" -prune -o ! -type d -print) | sed 's|^\.||' >"$1$own/manifest"
    while read -r path; do
        [[ -d $destdir$path ]] || made[$path/]=yes
    done < <(cd "$1" && find . -path "./${own#/}" -prune -o -type d -print | sed 's|^\.||' | grep .)
    printf '%s\n' "${!made[@]}" | sort -r >>"$1$own/manifest"

    mkdir -p "$destdir$prefix/lib"
    rm -rf "$destdir$own.new"
    cp -a --no-preserve=ownership "$1$own" "$destdir$own.new"
    if [[ -e $destdir$own ]]; then
        mv --no-target-directory "$destdir$own" "$destdir$own.old"
    fi
    mv --no-target-directory "$destdir$own.new" "$destdir$own"
    rm -rf "$destdir$own.old" "${1:?}$own"
    cp -a --no-preserve=ownership "$1/." "$destdir/"
    echo "installed below $destdir$prefix"
}

tell_host() {
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers "$prefix/lib/sysusers.d/l3dsr.conf"
    fi
    ! with_systemd || systemctl daemon-reload
}

# --- uninstall ---

uninstall_all() {
    local path
    [[ -e $manifest ]] || die "nothing is installed below $destdir$prefix"
    ! on_this_host || leave_host
    while read -r path; do
        [[ $path == */ ]] || rm -f "$destdir$path"
    done <"$manifest"
    mapfile -t made < <(grep '/$' "$manifest" || true)
    rm -rf "$destdir${own:?}"
    for path in "${made[@]}"; do
        rmdir --ignore-fail-on-non-empty "$destdir$path"
    done
    ! with_systemd || systemctl daemon-reload
    echo "uninstalled from $destdir$prefix"
}

# The services, and what they left in the kernel; their user, and what it had.
leave_host() {
    local program given
    for program in "${programs[@]}"; do
        if with_systemd; then
            systemctl disable --now --quiet "$program" || true
        fi
        "$prefix/sbin/$program" flush || die "$program is not flushed: nothing is removed"
    done
    if id -u l3dsr >/dev/null 2>&1; then
        if [[ -e $etc ]]; then
            chown -R root: "$etc"
            echo "$etc is left as it is, configurations and key"
        fi
        given=(/run/xtables.lock /sys/fs/bpf)
        rmdir /sys/fs/bpf/l3dsr /run/l3dsr 2>/dev/null || true
        find "${given[@]}" -maxdepth 0 -group l3dsr -exec chgrp root {} + 2>/dev/null || true
        userdel l3dsr
    fi
}

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*) die "install or uninstall?" ;;
esac
