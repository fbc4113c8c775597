# SPDX-License-Identifier: Apache-2.0

GO ?= go
# Static, so that a test binary runs in the lab's guests, which hold nothing else.
export CGO_ENABLED = 0

.PHONY: build demo check lint test test-long bench generate generated deps fuzz portable

# The OTLP exporters bring gRPC, and its trace pages bring templates, with which the linker keeps every method of
# every type. Nothing serves these pages. Without them bpfwhy is a sixth smaller.
build:
	$(GO) build -tags grpcnotrace -o bin/ ./cmd/...

# The main job on real loads: needs Go and root.
demo:
	$(GO) run ./cmd/bpfwhy demo --allow-sysctl

# Quick: no kernel, no root. Under two minutes.
check:
	@test -z "$$(gofmt -l .)" || { echo "gofmt: these files are not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(MAKE) lint
	$(GO) test ./...
	$(MAKE) portable

# What needs no kernel is built, and the commands vetted, for other machines and systems.
portable:
	GOOS=darwin $(GO) build ./insn ./load ./verifierlog ./blinding ./rewrite ./node ./explain ./internal/watch/assemble ./internal/watch/repeat ./internal/watch/story ./internal/watch/hook ./internal/watch/diagnose ./internal/output/render ./internal/repair/ladder ./internal/watch/trace ./httpprobe/event ./httpprobe/http1 ./httpprobe/http2 ./httpprobe/connection
	GOOS=js GOARCH=wasm $(GO) build ./insn ./load ./verifierlog ./blinding ./rewrite ./node ./explain ./internal/watch/assemble ./internal/watch/repeat ./internal/watch/story ./internal/watch/hook ./internal/watch/diagnose ./internal/output/render ./internal/repair/ladder ./internal/watch/trace ./httpprobe/event ./httpprobe/http1 ./httpprobe/http2 ./httpprobe/connection
	@# The commands that need no kernel, where there is no Linux that can be watched.
	GOOS=darwin GOARCH=amd64 $(GO) build -o /dev/null ./cmd/bpfwhy
	GOOS=darwin GOARCH=arm64 $(GO) vet ./cmd/bpfwhy ./internal/cli
	GOOS=linux GOARCH=arm64 $(GO) vet ./cmd/bpfwhy ./internal/cli

# The linters have a module of their own, so that who imports our packages does not get their dependencies.
lint:
	$(GO) tool -modfile=scripts/lint/go.mod staticcheck ./...
	$(GO) tool -modfile=scripts/lint/go.mod revive -config scripts/lint/revive.toml -set_exit_status ./...

# Everything: installs what it needs on Debian or Ubuntu, then unit, host and kernel-matrix tests. Needs root.
test: deps generated
	@test -z "$$(gofmt -l .)" || { echo "gofmt: these files are not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(MAKE) lint
	$(MAKE) portable
	@# Once for each version: ten minutes.
	$(GO) run ./internal/test/cluster/build
	@# Prints what each package took, and fails above internal/test/timed/budget.tsv. Without DWARF there is a quarter less to link and to
	@# copy into machines. Two machines run at a time: a third package is there to use what they leave.
	BPFWHY_LAB=1 BPFWHY_HOST_SYSCTL=1 $(GO) run ./internal/test/timed -p 3 -ldflags=-w -timeout 40m ./...

deps:
	./scripts/install-deps.sh

generate:
	$(GO) generate ./...

# The committed BPF objects are what the sources give.
generated:
	./scripts/check-generated.sh

# Longer corpora; their results are committed.
test-long: deps
	$(GO) run ./internal/test/cluster/build
	BPFWHY_LAB=1 BPFWHY_HOST_SYSCTL=1 BPFWHY_LONG=1 $(GO) test -timeout 6h ./...

# The figures of docs/benchmarks*.md, beside what they are compared to. For a quiet machine.
bench: deps
	dir=$$(mktemp -d) && trap 'rm -rf '$$dir EXIT && \
	BPFWHY_OBJECTS=$$dir $(GO) test -timeout 1h -run TestSelftestObjects -count=1 ./internal/objects/object && \
	BPFWHY_LAB=1 BPFWHY_BENCH=1 BPFWHY_HOST_SYSCTL=1 BPFWHY_OBJECTS=$$dir $(GO) test -p 1 -timeout 2h -run TestBench -v -count=1 ./internal/test/bench ./httpprobe/endtoend

# Every fuzz target for FUZZTIME (60s). Fails when one finds something, or makes fewer than 10,000 executions.
fuzz:
	./scripts/fuzz.sh
