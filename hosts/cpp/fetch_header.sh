#!/usr/bin/env bash
# Fetch the header of ONNX Runtime's C API for systems whose packages lack it, such as Debian 12.
#
#   hosts/cpp/fetch_header.sh [FOLDER]
#
# FOLDER, by default third_party beside this script, where CMake looks, gets onnxruntime_c_api.h of Debian 13's
# libonnxruntime-dev. apt-get fetches it with a state of its own: nothing is installed, and the machine's sources stay
# as they are. Where it fails, FOLDER stays as it was.
set -euo pipefail

folder=$(realpath -m "${1:-$(dirname "$0")/third_party}")
header=onnxruntime_c_api.h
sha256=7783e9664bdb0b1b36145b5c8587dd1bc9a399aa000edf2e3dd03003cafc6882
check() { echo "$sha256  $1" | sha256sum --check --quiet --strict; }
[ ! -e "$folder/$header" ] || { check "$folder/$header"; exit 0; }

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
mkdir -p "$new"/{state/lists/partial,cache/archives/partial,sources}
touch "$new/status"
cat >"$new/sources/debian.sources" <<SOURCES
Types: deb
URIs: ${DEBIAN_MIRROR:-http://deb.debian.org/debian}
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
fetch() {
  apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$new/sources" \
    -o Dir::State="$new/state" -o Dir::State::status="$new/status" -o Dir::Cache="$new/cache" "$@"
}
fetch update
(cd "$new" && fetch download libonnxruntime-dev)
dpkg-deb --extract "$new"/libonnxruntime-dev_*.deb "$new/package"
check "$new/package/usr/include/onnxruntime/$header"
mkdir -p "$folder"
cp "$new/package/usr/include/onnxruntime/$header" "$folder/.$header.$$"
mv "$folder/.$header.$$" "$folder/$header"
