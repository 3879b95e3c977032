#!/bin/sh
# Install from Debian what is missing to build and test, and what LINNET_MORE names. Needs root (or sudo) only when something is missing.
set -e
need="gcc clang libclang-rt-14-dev cmake ninja-build pkg-config protobuf-c-compiler libprotobuf-c-dev libopenblas-dev liblapacke-dev
libsleef-dev libpcre2-dev libjpeg62-turbo-dev libpng-dev libtiff-dev libwebp-dev libopenjp2-7-dev libjansson-dev zlib1g-dev libcmocka-dev
libc6-dev xz-utils tar python3 python3-venv ca-certificates git ${LINNET_MORE:-}"
missing=
for p in $need; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -q
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends $missing
