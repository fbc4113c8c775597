#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what `make test` needs and this machine lacks, on Debian and
# Ubuntu, as root. Prints nothing when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

# Each line: what has to be there (a command, or a file by its path) and the
# package that brings it.
needs() {
	cat <<'END'
qemu-system-x86_64 qemu-system-x86
qemu-aarch64-static qemu-user-static
clang clang
llvm-strip llvm
gcc gcc
make make
git git
python3 python3
bpftool bpftool
bpftrace bpftrace
/usr/sbin/tcpconnect libbpf-tools
curl curl
xz xz-utils
zstd zstd
setpriv util-linux
mount mount
runc runc
systemd-analyze systemd
openssl openssl
nginx nginx
apache2 apache2-bin
/usr/lib/apache2/modules/mod_mpm_event.so apache2-bin
haproxy haproxy
node nodejs
wrk wrk
etcd etcd-server
promtool prometheus
/usr/include/bpf/libbpf.h libbpf-dev
/usr/include/libelf.h libelf-dev
/usr/include/zlib.h zlib1g-dev
/usr/include/linux/bpf.h linux-libc-dev
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
END
}

missing() {
	needs | while read -r need package; do
		case $need in
		/*) [ -e "$need" ] || echo "$package" ;;
		*) command -v "$need" >/dev/null || echo "$package" ;;
		esac
	done
}

# Debian keeps bpftool and others out of a plain user's path.
PATH=$PATH:/usr/sbin:/sbin

say() { echo "install-deps: $*" >&2; }
die() {
	say "$@"
	exit 1
}

packages=$(missing | tr '\n' ' ')
if [ -n "$packages" ]; then
	command -v apt-get >/dev/null ||
		die "this is neither Debian nor Ubuntu; please install what brings these Debian packages' files: $packages"
	[ "$(id -u)" = 0 ] || die "not root; please run: apt-get install $packages"
	say "installing $packages"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# Ubuntu ships bpftool with the kernel's tools, under no package of its
	# name in some releases.
	case " $packages " in *" bpftool "*)
		apt-get install -qq --simulate bpftool >/dev/null 2>&1 ||
			packages=$(echo " $packages " | sed 's/ bpftool / linux-tools-generic /')
		;;
	esac
	# The web servers are started by tests, each with a configuration of its
	# own: as services they stay off, now and after the next boot.
	policy=/usr/sbin/policy-rc.d
	restore() {
		rm -f $policy
		[ ! -e $policy.bpfwhy ] || mv $policy.bpfwhy $policy
	}
	[ ! -e $policy ] || [ -e $policy.bpfwhy ] || mv $policy $policy.bpfwhy
	trap restore EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	# shellcheck disable=SC2086 # a list of names
	apt-get install -qq --no-install-recommends $packages >/dev/null
	restore
	trap - EXIT HUP INT TERM
	for service in nginx haproxy etcd prometheus; do
		case " $packages " in *" $service "*)
			update-rc.d "$service" disable >/dev/null
			;;
		esac
	done
	left=$(missing | tr '\n' ' ')
	[ -z "$left" ] || die "still missing after the installation, what these should bring: $left"
fi

# Go fetches the version that go.mod wants by itself, from 1.21 on, unless
# GOTOOLCHAIN forbids.
want=$(sed -n 's/^go //p' go.mod)
command -v go >/dev/null || die "no go in PATH; please install Go $want or newer from https://go.dev/dl"
# newer A B: version A is at least version B.
newer() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
version() { (cd / && env "$@" go env GOVERSION) | sed 's/^go//; s/[ -].*//'; }
have=$(version GOTOOLCHAIN=local)
if ! newer "$have" "$want"; then
	newer "$have" 1.21 || die "go is $have; please install Go $want or newer from https://go.dev/dl"
	GOTOOLCHAIN=auto go version >/dev/null 2>&1 || die "go is $have and cannot fetch $want; please install it from https://go.dev/dl"
	case $(go env GOTOOLCHAIN) in
	auto | *+auto) ;;
	*) die "go is $have and GOTOOLCHAIN=$(go env GOTOOLCHAIN) keeps it from fetching $want; please set GOTOOLCHAIN=auto" ;;
	esac
fi
