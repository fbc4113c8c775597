#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Generates the BPF objects again, in a copy of the tree, and compares them with
# the committed ones. Another clang than that of Debian bookworm (14) gives
# other bytes, so the check belongs to CI and to those who change the sources.
set -eu
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -a . "$copy/tree"
cd "$copy/tree"
find . -name '*_bpfel.o' -o -name '*_bpfel.go' | xargs rm -f
go generate ./internal/watch/capture ./httpprobe/sources
cd - >/dev/null
status=0
for f in $(find internal httpprobe -name '*_bpfel.o' -o -name '*_bpfel.go'); do
	if ! cmp -s "$f" "$copy/tree/$f"; then
		echo "check-generated: $f is not what its source gives with $(clang --version | head -1); run: make generate" >&2
		status=1
	fi
done
exit $status
