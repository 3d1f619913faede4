#!/usr/bin/env bash
# Builds what `make vm-test` boots: Debian's kernel, and a system with systemd and Python as an initrd.
# usage: build_image.sh FOLDER    about a minute; FOLDER then holds `vmlinuz` and `base.cpio.zst`
set -euo pipefail

SUITE=bookworm
PACKAGES=systemd,libnss-systemd,dbus,python3,kmod,iproute2
KERNEL=linux-image-cloud-amd64
# A network card, a bad link, and file systems in files; all else that the tests need is built in.
MODULES="virtio_pci virtio_net sch_netem loop"

# An error on one line; exit code 2 where something is missing on this computer.
fail() { echo "$1" >&2; exit "${2:-1}"; }

[ $# = 1 ] || fail "give the folder to build in"
PATH=$PATH:/usr/sbin:/sbin
for tool in debootstrap cpio zstd; do
    command -v $tool > /dev/null || fail "$tool is missing: install Debian's package $tool" 2
done
[ "$(id -u)" = 0 ] || fail "debootstrap needs root: run \`sudo $0 $1\` once" 2

mkdir -p "$1"
work=$(mktemp -d "$1/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include=$PACKAGES $SUITE "$root" > "$1/build.log" 2>&1 ||
    fail "debootstrap failed: see $1/build.log"

chroot "$root" sh -ec "cd /tmp && apt-get --quiet download \
    \$(apt-cache depends --important $KERNEL | sed -n 's/.*Depends: //p')" >> "$1/build.log" 2>&1 ||
    fail "the kernel could not be downloaded: see $1/build.log"
chroot "$root" sh -c 'dpkg-deb --extract /tmp/linux-image-*.deb /tmp/kernel'
cp "$root"/tmp/kernel/boot/vmlinuz-* "$work/vmlinuz"
# The modules named and those that they need, out of several hundred.
version=$(ls "$root/tmp/kernel/lib/modules")
depmod="depmod --basedir /tmp/kernel $version"
needed="modprobe --dirname /tmp/kernel --set-version $version --show-depends --all $MODULES"
chroot "$root" sh -ec "$depmod; $needed" | sed -n 's,^insmod /tmp/kernel/,,p' | sort -u |
    (cd "$root/tmp/kernel" && xargs cp --parents --target-directory="$root")
cp "$root/tmp/kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} \
    "$root/lib/modules/$version"
chroot "$root" depmod "$version"

ln -s /lib/systemd/systemd "$root/init"
# An empty file tells systemd to make an identity at boot.
: > "$root/etc/machine-id"
# All of the image lies in the machine's memory: what no test reads is left out.
rm -rf "$root"/{boot,tmp,var/cache,var/log,var/lib/apt}/* \
    "$root"/usr/share/{doc,i18n,info,locale,man,zoneinfo} "$root"/usr/lib/x86_64-linux-gnu/gconv
(cd "$root" && find . -print0 | cpio --null --create --format=newc --quiet) |
    zstd -1 --quiet -o "$work/base.cpio.zst"
mv "$work/vmlinuz" "$work/base.cpio.zst" "$1"
