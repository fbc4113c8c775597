# SPDX-License-Identifier: Apache-2.0

GO ?= go
# Static, so that a test binary runs in the lab's guests, which hold nothing else.
export CGO_ENABLED = 0

.PHONY: build demo check test test-long bench generate generated deps fuzz

build:
	$(GO) build -o bin/ ./cmd/...

# The main job on real loads: needs Go and root.
demo:
	$(GO) run ./cmd/bpfwhy demo --allow-sysctl

# Quick: no kernel, no root. Under two minutes.
check:
	@test -z "$$(gofmt -l .)" || { echo "gofmt: these files are not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) test ./...
	GOOS=darwin $(GO) build ./insn ./load ./verifierlog ./blinding ./rewrite ./node ./explain ./internal/assemble ./internal/repeat ./internal/render ./internal/trace ./httpprobe/event ./httpprobe/http1 ./httpprobe/streams
	GOOS=js GOARCH=wasm $(GO) build ./insn ./load ./verifierlog ./blinding ./rewrite ./node ./explain ./internal/assemble ./internal/repeat ./internal/render ./internal/trace ./httpprobe/event ./httpprobe/http1 ./httpprobe/streams

# Everything: installs what it needs on Debian or Ubuntu, then unit, host and kernel-matrix tests. Needs root.
test: deps generated
	@test -z "$$(gofmt -l .)" || { echo "gofmt: these files are not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	@# Emulated kernels are slow and share two cores. What fails is run once more, loudly, and only that: go keeps the results of
	@# what passed, under the same flags. Twice is a failure.
	BPFWHY_LAB=1 BPFWHY_HOST_SYSCTL=1 $(GO) test -p 2 -timeout 25m ./... || { \
		echo "make test: SOME TESTS FAILED; the failed packages are run once more" >&2; \
		BPFWHY_LAB=1 BPFWHY_HOST_SYSCTL=1 $(GO) test -p 2 -timeout 25m ./...; }

deps:
	./scripts/install-deps.sh

generate:
	$(GO) generate ./...

# The committed BPF objects are what the sources give.
generated:
	./scripts/check-generated.sh

# Longer corpora; their results are committed.
test-long: deps
	BPFWHY_LAB=1 BPFWHY_HOST_SYSCTL=1 BPFWHY_LONG=1 $(GO) test -timeout 6h ./...

# The figures of docs/benchmarks*.md, beside what they are compared to. For a quiet machine.
bench: deps
	dir=$$(mktemp -d) && trap 'rm -rf '$$dir EXIT && \
	BPFWHY_OBJECTS=$$dir $(GO) test -timeout 1h -run TestSelftestObjects -count=1 ./internal/object && \
	BPFWHY_LAB=1 BPFWHY_BENCH=1 BPFWHY_HOST_SYSCTL=1 BPFWHY_OBJECTS=$$dir $(GO) test -p 1 -timeout 2h -run TestBench -v -count=1 ./internal/bench ./httpprobe/truth

# Every fuzz target for FUZZTIME (60s). Fails when one finds something, or makes fewer than 10,000 executions.
fuzz:
	./scripts/fuzz.sh
