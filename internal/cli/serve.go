// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/serve/auditor"
	"github.com/bpfwhy/bpfwhy/internal/serve/config"
	"github.com/bpfwhy/bpfwhy/internal/serve/reader"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/internal/sys/resident"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
)

type serveOptions struct {
	std
	file  string
	check bool
	log   bool
	flags config.Config
}

func newServe(io std) *cobra.Command {
	o := serveOptions{std: io}
	c := &cobra.Command{
		Use:   "serve",
		Short: "Watch this node all the time, for logs, metrics and fleets",
		Long: `Watch every BPF load of this node until interrupted, and tell of failures where
they are looked for: in a log, in metrics, in a folder that 'bpfwhy fleet'
reads. It runs as a service, and needs no terminal.

Two processes share the work. One has the rights that watching needs, and hands
on what it sees. The other finds out why loads failed, tells it, and has no
rights.

A configuration file is YAML. It has the same names as the flags:

  state: /var/lib/bpfwhy
  listen: localhost:9465

A flag beats the file.`,
		Example: `  bpfwhy serve --state /var/lib/bpfwhy --listen 9465
  bpfwhy serve --config /etc/bpfwhy.yaml --check`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.config(c)
			if err != nil {
				return fmt.Errorf("serve: %w", err)
			}
			if o.check {
				return o.explain(cfg)
			}
			return o.serve(c.Context(), cfg)
		},
	}
	f := c.Flags()
	f.StringVar(&o.file, "config", "", "read this YAML file")
	f.BoolVar(&o.check, "check", false, "say what would be done, and do nothing")
	f.BoolVar(&o.log, "log", false, "a line of JSON on standard output for each failure (the default where nothing else is asked for)")
	f.StringVar(&o.flags.State, "state", "", "keep node.json and recordings of failures in this folder")
	f.StringVar(&o.flags.Listen, "listen", "", "serve /metrics, /healthz and /readyz at this address; a port alone means localhost")
	f.StringVar(&o.flags.Textfile, "textfile", "", "write metrics to this file, for node_exporter")
	f.StringVar(&o.flags.OTLP.Endpoint, "otlp", "", "send logs and metrics to this OpenTelemetry collector, such as http://127.0.0.1:4318")
	f.StringVar(&o.flags.Node, "node", "", "name of this node (default: its host name)")
	f.StringVar(&o.flags.Backend, "backend", "", "watch by fentry, kprobe, tracepoint or tp_btf alone")
	complete(c, "backend", config.Backends...)
	f.StringVar(&o.flags.Kubernetes, "kubernetes", "", "write Events and a NodeReport: auto (in a pod with a service account), on or off")
	complete(c, "kubernetes", "auto", "on", "off")
	f.StringSliceVar(&o.flags.KubernetesUse, "kubernetes-use", nil, "of events, reports, pods, condition: what the API server is used for (default: all but condition)")
	complete(c, "kubernetes-use", config.Uses...)
	return c
}

// config is what the file and the flags say.
func (o *serveOptions) config(c *cobra.Command) (cfg config.Config, err error) {
	if o.file != "" {
		if cfg, err = config.Read(o.file); err != nil {
			return cfg, err
		}
	}
	for _, s := range []struct {
		from string
		to   *string
	}{
		{o.flags.State, &cfg.State}, {o.flags.Listen, &cfg.Listen}, {o.flags.Textfile, &cfg.Textfile},
		{o.flags.Node, &cfg.Node}, {o.flags.Backend, &cfg.Backend}, {o.flags.Kubernetes, &cfg.Kubernetes},
		{o.flags.OTLP.Endpoint, &cfg.OTLP.Endpoint},
	} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	if c.Flags().Changed("kubernetes-use") {
		cfg.KubernetesUse = o.flags.KubernetesUse
	}
	if c.Flags().Changed("log") {
		cfg.Log = &o.log
	}
	return cfg, cfg.Check()
}

// explain says what would be done, and by which rights less.
func (o *serveOptions) explain(cfg config.Config) error {
	lines := []string{"node " + cfg.Node}
	if *cfg.Log {
		lines = append(lines, "each failure is a line of JSON on standard output")
	}
	for _, s := range []struct{ what, where string }{
		{"node.json and recordings of failures (64 MiB) are kept in ", cfg.State},
		{"/metrics, /healthz and /readyz are served at ", cfg.Listen},
		{"metrics are written every 15 seconds to ", cfg.Textfile},
		{"logs and metrics are sent by OTLP to ", cfg.OTLP.Endpoint},
		{"loads are watched only by ", cfg.Backend},
	} {
		if s.where != "" {
			lines = append(lines, s.what+s.where)
		}
	}
	if cfg.InCluster() {
		lines = append(lines, "the API server of Kubernetes is used for "+strings.Join(cfg.KubernetesUse, ", ")+" of node "+cfg.Node)
	}
	if have, err := rights.Have(); err == nil {
		if m := rights.Serve.Missing(have); m != nil {
			lines = append(lines, "it would not start here: "+(&rights.MissingError{Command: rights.Serve, Missing: m}).Error())
		}
		lines = append(lines, rights.Serve.Less(have)...)
	}
	_, err := fmt.Fprintln(o.out, strings.Join(lines, "\n"))
	return err
}

// serve watches until it is interrupted.
func (o *serveOptions) serve(ctx context.Context, cfg config.Config) error {
	defer threads.LimitProcessors()()
	if cfg.State != "" {
		if err := os.MkdirAll(cfg.State, 0o700); err != nil {
			return fmt.Errorf("serve: make state folder: %w", err)
		}
	}
	page, err := stream.CreatePage(cfg.Accounts())
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	defer page.Close()
	ctx = interruptible(ctx)
	have, _ := rights.Have()
	c, err := openCapture(ctx, capture.Options{Backend: cfg.Backend, Calm: true})
	if err != nil && ctx.Err() != nil {
		return nil // a service that is stopped early has not failed
	}
	if err != nil {
		return err
	}
	defer c.Close()
	since := time.Now()
	if err := keepForReading(have); err != nil {
		o.say("serve: could not give up capabilities: %v", err)
	}
	by, missing := coverage(c.Header())
	less := rights.Serve.Less(have)
	if len(missing) > 0 {
		less = append(less, "not observed, only concluded: "+strings.Join(missing, ", "))
	}
	o.say("serve: watching every load on this machine by %s", by)
	for _, line := range less {
		o.say("serve: %s", line)
	}
	debug.SetMemoryLimit(readerMemory)
	debug.SetGCPercent(gcPercent)
	if err := resident.Release(); err != nil { // attaching took much more than what follows
		o.say("serve: %v", err)
	}
	return reader.Run(ctx, c, reader.Options{
		Config: cfg, Page: page, Header: c.Header(), Since: since, Less: less, Audit: auditor.Run, Clock: monotonic, Say: o.say,
	})
}

// readerMemory is what the heap of the process that reads may grow to before it is collected
// without waiting.
const readerMemory = 24 << 20

// keepForReading gives up what only attaching needs.
func keepForReading(have uint64) error {
	keep := []int{unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}
	if !abi.HasCap(have, abi.CapSysAdmin) {
		keep = append(keep, unix.CAP_BPF)
	}
	return privilege.Drop(keep...)
}
