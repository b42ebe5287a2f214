#!/usr/bin/env bash
# Build a base for the images, for machines that reach no image registry: this machine's release of Debian, from its
# packages, with this machine's python3. So wheels from this machine fit, and steps give the same bytes as here. The same
# packages give the same digest.
# Usage: deploy/images/base.sh. Needs podman and mmdebstrap; prints the image's name.
set -euo pipefail

suite="$(. /etc/os-release && echo "$VERSION_CODENAME")"
prefix="$(python3 -c 'import sys; print(sys.base_prefix)')"
version="$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
export SOURCE_DATE_EPOCH=315532800
name="localhost/driftline-base:$suite-python$version-$(sha256sum "$0" | head -c 12)"
if podman image exists "$name"; then
    echo "$name"
    exit
fi

place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
packages=ca-certificates
hooks=()
path=()
if [ "$prefix" = /usr ]; then
    packages+=,python3,python3-venv
else
    # Not Debian's python3: the interpreter is copied, and Debian's packages supply the libraries it was linked with.
    lib="lib/python$version"
    mkdir "$place/python"
    tar -C "$prefix" --exclude=__pycache__ --exclude='*.a' --exclude="./$lib/site-packages" --exclude="./$lib/test" \
        --exclude='*tkinter*' --exclude="./$lib/idlelib" --exclude="./$lib/turtledemo" --exclude="./$lib/config-*" \
        -c ./bin ./lib | tar -C "$place/python" -x
    ! command -v strip >/dev/null || strip --strip-unneeded "$place"/python/lib/libpython*.so.*
    tar -C "$place/python" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --transform 's,^\.,./opt/python,' --owner=0 \
        --group=0 -cf "$place/python.tar" ./bin ./lib
    linked="$(ldd "$prefix/bin/python$version" "$prefix/$lib"/lib-dynload/*.so |
        sed -n 's|.* => \(/[^ ]*\) .*|\1|p' | sort -u | grep -v -e "^$prefix/" -e /libX -e '/lib\(tk\|tcl\)')"
    while read -r library; do
        packages+=",$(dpkg-query --search "*/${library##*/}" | head -n 1 | cut -d: -f1)"
    done <<<"$linked"
    hooks+=("--customize-hook=tar-in $place/python.tar /")
    hooks+=('--customize-hook=echo /opt/python/lib >"$1/etc/ld.so.conf.d/python.conf" && chroot "$1" ldconfig')
    path+=('ENV PATH=/opt/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin')
fi

mmdebstrap --quiet --variant=minbase --include="$packages" --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' "${hooks[@]}" \
    --customize-hook='rm -rf "$1"/var/cache/* "$1"/var/log/*' "$suite" "$place/root.tar"
printf '%s\n' 'FROM scratch' 'ADD root.tar /' "${path[@]}" 'CMD ["/bin/sh"]' >"$place/Dockerfile"
podman build --quiet --format=oci --timestamp="$SOURCE_DATE_EPOCH" --tag "$name" "$place" >/dev/null
echo "$name"
