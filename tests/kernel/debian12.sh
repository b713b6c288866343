#!/bin/bash
# Runs a command in this checkout on Debian 12's own kernel, in an emulator: by default the kernel's
# programs beside Python's functions, and the demonstration of the lab on the kernel's path. (The
# end-to-end tests' patience is not made for a machine as slow as this one.)
#   tests/kernel/debian12.sh [COMMAND...]
# The machine's own file system is the emulated one's too, but what is written there is gone
# afterwards. State (the kernel's package, unpacked) lies in .kernel. x86 and Debian only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

((EUID == 0)) || { echo "debian12.sh: must run as root" >&2; exit 1; }
seconds=${KERNEL_CHECK_SECONDS:-3000} # for all of it
state=$PWD/.kernel
mkdir -p "$state"

provisioning/packages.sh qemu-system-x86 busybox-static cpio kmod

kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null |
        awk '$1 == "Depends:" && /linux-image-6\.1/ { print $2 }' || true
}
package=$(kernel_package)
if [[ ! $package ]]; then # no lists, as all other packages came with the machine
    apt-get update -q
    package=$(kernel_package)
fi
[[ $package ]] || { echo "debian12.sh: no linux-image-6.1 among the packages" >&2; exit 1; }
version=${package#linux-image-}
if [[ ! -e $state/$version/boot/vmlinuz-$version ]]; then
    rm -rf "${state:?}"/*
    (cd "$state" && apt-get download -q "$package" && dpkg-deb -x ./*.deb "$version" && rm ./*.deb)
    depmod -b "$state/$version" "$version"
fi

# What mounts the machine's file system, and leaves the rest to the script below.
root=$state/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,lower,upper,root,modules}
cp /bin/busybox "$root/bin/"
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "$state/$version" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    cp "$file" "$root/modules/"
    echo "/modules/${file##*/}" >>"$root/order"
done
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
bb=/bin/busybox
for kind in proc:proc sysfs:sys devtmpfs:dev; do $bb mount -t ${kind%:*} ${kind%:*} /${kind#*:}; done
while read -r file; do $bb insmod $file; done </order
$bb mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /lower
$bb mount -t tmpfs -o size=75% tmpfs /upper
$bb mkdir /upper/changed /upper/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/changed,workdir=/upper/work overlay /root
for directory in proc sys dev; do $bb mount -o move /$directory /root/$directory; done
read -r script </script
exec $bb switch_root /root /bin/bash "$script"
INIT
chmod 755 "$root/init"
echo "$state/inside.sh" >"$root/script"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip) >"$state/initramfs"

((${#})) || set -- bash -e -c '
    .venv/bin/pytest -q --timeout 900 -p no:cacheprovider tests/kernel
    provisioning/demo.sh
    grep -h datapath .lab/log/*.log'
cat >"$state/inside.sh" <<INSIDE
export HOME=/root TERM=dumb LAB_READY_TIMEOUT=90 LAB_DATAPATH=${LAB_DATAPATH:-ebpf} LAB_NAME=kernel
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /dev/shm /dev/pts /lib/modules
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount --bind '$state/$version/lib/modules' /lib/modules
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
ip link set lo up
cd '$PWD'
echo "Linux \$(uname -r)"
$(printf '%q ' "$@") </dev/null
echo "exit status \$?"
echo o >/proc/sysrq-trigger
sleep 60
INSIDE

# Emulated throughout: where virtual machines run inside others, the processor's own help is unsound.
timeout "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 6144 -smp 2 \
    -nographic -no-reboot \
    -kernel "$state/$version/boot/vmlinuz-$version" -initrd "$state/initramfs" \
    -append "console=ttyS0 quiet panic=-1" \
    -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=host,mount_tag=host </dev/null | tee "$state/log"
grep -aEq $'^exit status 0\r?$' "$state/log"
