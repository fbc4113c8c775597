#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the lab's hardened kernel: Debian's Linux 6.1, small, with
# CONFIG_BPF_JIT_ALWAYS_ON, as on Container-Optimized OS and the like. Takes
# about ten minutes on two processors; does nothing when the output is newer
# than its configuration.
#
#	build-hardened-kernel.sh OUTPUT [SOURCE.tar.xz]
#
# The source is that of Debian's linux-source-6.1, which is installed if it is
# not given. With BPFWHY_CONFIG_ONLY=1 this only writes the configuration, to
# OUTPUT.config.
set -eu

say() { echo "build-hardened-kernel: $*" >&2; }
die() {
	say "$@"
	exit 1
}

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
	say "usage: $0 OUTPUT [SOURCE.tar.xz]"
	exit 2
fi
scripts=$(cd "$(dirname "$0")" && pwd)
fragment=$scripts/hardened.config
mkdir -p "$(dirname "$1")"
output=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
source=${2:-/usr/src/linux-source-6.1.tar.xz}

if [ -e "$output" ] && [ "$output" -nt "$fragment" ]; then
	say "$output is up to date"
	exit 0
fi

packages=
need() { command -v "$1" >/dev/null || packages="$packages $2"; }
need gcc gcc
need make make
need flex flex
need bison bison
need bc bc
need xz xz-utils
need pahole dwarves
[ -e /usr/include/libelf.h ] || packages="$packages libelf-dev"
[ -e /usr/include/openssl/evp.h ] || packages="$packages libssl-dev"
[ -e "$source" ] || [ $# -eq 2 ] || packages="$packages linux-source-6.1"
if [ -n "$packages" ]; then
	command -v apt-get >/dev/null || die "this is neither Debian nor Ubuntu; please install what brings these packages' files:$packages"
	[ "$(id -u)" = 0 ] || die "not root; please run: apt-get install$packages"
	say "installing$packages"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of names
	apt-get install -qq --no-install-recommends $packages >/dev/null
fi
[ -e "$source" ] || die "no kernel source at $source"

work=$(mktemp -d "$output.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
say "unpacking $source"
tar -C "$work" --strip-components=1 -xf "$source"
cd "$work"
# What comes from the environment must not change the kernel.
unset MAKEFLAGS KCONFIG_CONFIG ARCH CROSS_COMPILE
configure() {
	# Chatty also when all is well.
	"$@" >configure.log 2>&1 || {
		cat configure.log >&2
		die "configuring fails: $*"
	}
}
configure make tinyconfig
configure scripts/kconfig/merge_config.sh -m .config "$fragment"
configure make olddefconfig
# Without its dependency an option vanishes silently.
lost=$(grep -E '^CONFIG_.*=' "$fragment" | grep -vxFf .config || true)
[ -z "$lost" ] || die "options that the configuration does not keep:" $lost
if [ -n "${BPFWHY_CONFIG_ONLY:-}" ]; then
	cp .config "$output.config"
	exit 0
fi
say "compiling"
nice -n 19 make -s -j"$(nproc)" bzImage
cp arch/x86/boot/bzImage "$output.new"
mv "$output.new" "$output"
say "built $output"
