#!/bin/bash
# Makes the Debian package of a device out of a wheel: what a device needs, and nothing else.
#
#     deploy/debian/build.sh WHEEL FOLDER
#
# The package is for the wheel's architecture and the Python that it was built with; see `make deb`.
# The same wheel makes the same package. Needs Debian's dpkg-dev and binutils.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
wheel=$(realpath "$1")
out=$(realpath "$2")
name=edgetrain-client

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
root=$work/debian/$name
# Where Debian's Python looks: a worker is started as `python3 -m`.
packages=$root/usr/lib/python3/dist-packages
documents=$root/usr/share/doc/$name
mkdir -p "$packages" "$documents" "$root"/DEBIAN "$root"/usr/{bin,lib/systemd/system,lib/sysusers.d}

IFS=- read -r _ version python abi platform <<< "$(basename "$wheel" .whl)"
case $platform in
    *_x86_64) export DEB_HOST_ARCH=amd64 ;;
    *_aarch64) export DEB_HOST_ARCH=arm64 ;;
    *) echo "$platform: no device of ours; give a wheel for x86_64 or aarch64" >&2 && exit 1 ;;
esac
minor=${python#cp3}
versions="python3 (>= 3.$minor~)"
# The stable interface begins with 3.12; a module for 3.11 is of use to 3.11 alone.
[ "$abi" = abi3 ] || versions+=", python3 (<< 3.$((minor + 1)))"

python3 -m zipfile -e "$wheel" "$packages"
# The fleet's side, measurements, the oracle and a data set.
rm -r "$packages"/edgetrain/{coordinator,bench,reference,data/bundled} "$packages"/*.dist-info
install -m 0755 "$here/edgetrain-client" "$root/usr/bin"
sed "s,/opt/edgetrain/bin/,/usr/bin/," "$here/../systemd/$name.service" \
    > "$root/usr/lib/systemd/system/$name.service"
grep "^u $name " "$here/../systemd/sysusers.conf" > "$root/usr/lib/sysusers.d/$name.conf"
install -m 0755 "$here"/{postinst,prerm,postrm} "$root/DEBIAN"
install -m 0644 "$here/copyright" "$documents"
install -D -m 0644 "$here/lintian-overrides" "$root/usr/share/lintian/overrides/$name"

SOURCE_DATE_EPOCH=$(stat --format %Y "$wheel")
export SOURCE_DATE_EPOCH
cp "$here/control" "$work/debian"
maintainer=$(sed -n 's/^Maintainer: //p' "$here/control")
cat > "$work/debian/changelog" << END
edgetrain ($version) unstable; urgency=medium

  * What is new stands in the project's CHANGELOG.md.

 -- $maintainer  $(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
END
gzip -9 --no-name < "$work/debian/changelog" > "$documents/changelog.gz"

cd "$work"
dpkg-shlibdeps "$packages"/edgetrain/*.so
dpkg-gencontrol -p$name -P"$root" -Vpython3:Depends="$versions" 2> /dev/null
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
dpkg-deb --root-owner-group --build "$root" "$out"
