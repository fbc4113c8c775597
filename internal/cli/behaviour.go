// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/node"
	"golang.org/x/sys/unix"
)

// prove tries what this kernel does, for doctor --prove, and writes the record that was asked for.
func (r *report) prove(ctx context.Context, o doctorOptions) error {
	have, _ := rights.Have()
	switch {
	case len(rights.Behaviour.Missing(have)) > 0:
		return fmt.Errorf("doctor: %w", rights.Behaviour.Explain(unix.EPERM))
	case r.Hanging != nil:
		return errors.New("doctor: loads hang on this machine, so nothing is tried")
	}
	if err := raised(ctx, &r.Node, o.allow, func() { r.Rows = probe.Prove(ctx, &r.Node) }); err != nil {
		return err
	}
	if o.record == "" {
		return nil
	}
	host, _ := os.Hostname()
	b, err := probe.Proof{Schema: probe.ProofSchema, Bpfwhy: r.Build.Version,
		Node: node.Document{Schema: node.Schema, Profile: r.Node}, Hooks: r.Hooks, Rows: r.Rows}.Encode(host)
	if err == nil {
		err = os.WriteFile(o.record, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("doctor: write the record: %w", err)
	}
	return nil
}

// raised calls f with net.core.bpf_jit_harden at 2, where that is allowed, and puts it back.
func raised(ctx context.Context, n *node.Profile, allowed bool, f func()) error {
	if h, ok := n.Sysctl(hardenSetting); !allowed || ok && h >= 2 {
		f()
		return nil
	}
	g, err := guardian.RaiseHarden(ctx, 2)
	if err != nil {
		return fmt.Errorf("doctor: raise net.core.bpf_jit_harden: %w", rights.Restore.Explain(err)) // writing it takes the same
	}
	was := n.Sysctls[hardenSetting]
	n.Sysctls[hardenSetting] = "2"
	f()
	n.Sysctls[hardenSetting] = was
	if _, err := g.Restore(); err != nil {
		return fmt.Errorf("doctor: put net.core.bpf_jit_harden back: %w", err)
	}
	return nil
}

// rowLines are the rows of what the kernel does, first those that were seen.
func rowLines(rows []probe.Row) []string {
	var seen, untried []string
	for _, r := range rows {
		switch {
		case r.Seen == "unknown":
			untried = append(untried, fmt.Sprintf("%s: %s by its release; %s", r.Name, r.Table, r.How))
		case r.Seen == r.Table:
			seen = append(seen, fmt.Sprintf("%s: %s, as its release says (%s)", r.Name, r.Seen, r.How))
		default:
			seen = append(seen, fmt.Sprintf("%s: %s, but %s by its release (%s)", r.Name, r.Seen, r.Table, r.How))
		}
	}
	return append(seen, untried...)
}
