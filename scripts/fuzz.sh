#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the fuzz targets of the module, one after the other, each for FUZZTIME, and prints what each of them did. Fails when one
# finds something, or makes fewer than FUZZMIN executions: a parser that is too slow to be fuzzed is too slow for hostile input.
#
#     scripts/fuzz.sh [PATTERN]      only the targets whose package and name match: 'internal/watch/trace', 'FuzzReader'
set -u -o pipefail
cd "$(dirname "$0")/.."
: "${GO:=go}" "${FUZZTIME:=60s}" "${FUZZMIN:=10000}"
log=$(mktemp) && trap 'rm -f "$log"' EXIT

# Every target in the test files that go builds here. go test -list would link them all first.
targets() {
	$GO list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}' ./... | while read -r package file; do
		[ -z "$package" ] || sed -n "s|^func \\(Fuzz[A-Za-z0-9_]*\\)(.*|$package \\1|p" "$file"
	done
}

list=$(targets | grep -e "${1:-}") || { echo "fuzz: no target matches ${1:-}" >&2; exit 2; }
module=$($GO list -m)
format='%-24s %-18s %10s %9s %8s  %s\n'
# shellcheck disable=SC2059
printf "$format" package target executions 'per s' corpus result
failed=0
while read -r package name; do
	# An interesting input is made smaller for as many executions only. Go's own limit is a minute for each, in which it tries every
	# part of the input: with inputs of some kilobytes nothing else would ever run.
	$GO test -run '^$' -fuzz "^$name\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 100x "$package" >"$log" 2>&1
	status=$?
	# fuzz: elapsed: 1m0s, execs: 52361 (872/sec), new interesting: 3 (total: 9)
	last=$(grep '^fuzz: elapsed:.* execs: ' "$log" | tail -1)
	executions=$(sed 's/.* execs: \([0-9]*\) .*/\1/' <<<"${last:- execs: 0 }")
	elapsed=$(($(sed 's/.*elapsed: \([0-9hms]*\),.*/\1/; s/h/*3600+/; s/m/*60+/; s/s//' <<<"${last:-elapsed: 1s,}")))
	corpus=$(sed 's/.*(total: \([0-9]*\)).*/\1/' <<<"${last:-(total: 0)}")
	result=ok
	if [ $status -ne 0 ]; then
		result=FAILED
	elif [ "$executions" -lt "$FUZZMIN" ]; then
		result="FEWER THAN $FUZZMIN"
	fi
	[ "$result" = ok ] || failed=1
	# shellcheck disable=SC2059
	printf "$format" "${package#"$module"/}" "$name" "$executions" $((executions / (elapsed > 0 ? elapsed : 1))) "$corpus" "$result"
	[ $status -eq 0 ] || cat "$log"
done <<<"$list"
exit $failed
