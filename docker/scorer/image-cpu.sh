#!/usr/bin/env bash
# Builds the CPU variant of the Python scorer and prints its image id. Needs root (debootstrap), Docker
# and Debian's and PyPI's registries; MIRROR names another Debian mirror.
set -euo pipefail
cd "$(dirname "$0")"
suite=trixie
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mirror=${MIRROR:-$(awk '/^(URIs:|deb )/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)}
debootstrap --variant=minbase --include=python3-minimal,ca-certificates "$suite" "$work/root" ${mirror:+"$mirror"} >&2
base=$(tar -C "$work/root" -c . | docker import -)
mkdir "$work/context"
cp -r src cpu.requirements.txt cpu.Dockerfile "$work/context"
python3 -m pip download -q --require-hashes --no-deps --only-binary :all: --python-version 3.13 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any \
  -d "$work/context/wheels" -r cpu.requirements.txt >&2
# The build reaches Debian's mirror over the host's network; the container that scores has none.
docker build -q --network host --build-arg "BASE=$base" -f "$work/context/cpu.Dockerfile" "$work/context"
