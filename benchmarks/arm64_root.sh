#!/usr/bin/env bash
# Build a folder in which Python and edgeemo's models run on emulated ARM64 cores: for their results, not their speed.
#
#   benchmarks/arm64_root.sh ROOT
#   PYTHONPATH=. ROOT/cortex-a72/python script.py
#
# ROOT gets Debian's Python 3.11 for arm64, what edgeemo needs on a device in the versions of constraints.txt, and the
# libraries that arm64_host.py links the C++ host with. Its cortex-a53 and cortex-a72 have no dot product, cortex-a76
# has; several may run at once. Wants Debian 12 on x86 and its qemu-user, and installs nothing on the machine. Where it
# fails, ROOT stays as it was.
set -euo pipefail

[ $# = 1 ] || { echo "usage: $0 ROOT" >&2; exit 2; }
root=$(realpath -m "$1")
checkout=$(realpath "$(dirname "$0")/..")
python=${PYTHON:-$checkout/.venv/bin/python}
[ ! -e "$root" ] || [ -e "$root/cortex-a53/python" ] || { echo "$root is there, and not from this script" >&2; exit 1; }

mkdir -p "$(dirname "$root")"
new=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"

# apt-get with the machine's sources but a state of its own, in which nothing is installed, fetches for arm64 all that
# these packages need. They are unpacked without running their scripts; Python does not miss those.
mkdir -p "$new"/apt/{state/lists/partial,cache/archives/partial}
touch "$new/apt/status"
fetch() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
    -o Dir::State="$new/apt/state" -o Dir::State::status="$new/apt/status" -o Dir::Cache="$new/apt/cache" "$@"
}
fetch update
fetch install --download-only --no-install-recommends --yes python3.11 libstdc++6 libpng-dev libjpeg62-turbo-dev
for deb in "$new"/apt/cache/archives/*.deb; do dpkg-deb --extract "$deb" "$new/apt/root"; done
mv "$new/apt/root/usr" "$new/"
cp -a "$new/apt/root/lib/." "$new/usr/lib/"
rm -r "$new/apt"

# pip accepts wheels of exactly the platforms that are listed, older ones not included, so every one is listed.
"$python" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts \
  --constraint "$checkout/constraints.txt" \
  --target "$new/usr/lib/python3/dist-packages" --only-binary=:all: --implementation cp --python-version 3.11 \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
  numpy onnxruntime pillow click rich

# ONNX Runtime chooses kernels by the processor that /proc/cpuinfo names, and crashes on import where that is an x86.
# Under -L, qemu looks for an absolute path in that folder first, so each core has one, with a cpuinfo that fits its
# -cpu. /sys stays the machine's: threads are pinned to the processors listed there. -0 becomes sys.executable.
core() {  # name, part, variant, revision, features besides those that all have
  local processor
  mkdir -p "$new/$1/proc"
  ln -s ../usr/lib "$new/$1/lib"
  for processor in 0 1 2 3; do
    printf '%s\t: %s\n' processor "$processor" BogoMIPS 108.00 \
      Features "fp asimd evtstrm aes pmull sha1 sha2 crc32 $5" "CPU implementer" 0x41 "CPU architecture" 8 \
      "CPU variant" "$3" "CPU part" "$2" "CPU revision" "$4"
    echo
  done >"$new/$1/proc/cpuinfo"
  cat >"$new/$1/python" <<RUN
#!/bin/sh
here=\$(realpath "\$(dirname "\$0")")
exec qemu-aarch64 -cpu $1 -L "\$here" -0 "\$here/python" "\$here/../usr/bin/python3.11" "\$@"
RUN
  chmod +x "$new/$1/python"
  "$new/$1/python" -c 'import onnxruntime, PIL.Image, click, rich'
}
core cortex-a53 0xd03 0x0 4 "cpuid"
core cortex-a72 0xd08 0x0 3 "cpuid"
core cortex-a76 0xd0b 0x4 1 "atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"

rm -rf "$root"
mv "$new" "$root"
