// SPDX-License-Identifier: Apache-2.0

// Package bench holds no code but its tests: `make bench` measures what watching costs, puts bpfwhy
// beside the bpftrace script that people wrote before it, and writes docs/benchmarks.md and
// docs/side-by-side.md.
package bench
