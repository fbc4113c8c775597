// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of httpprobe.
//
// Exit statuses: 0; 2 for bad input, and when nothing can be watched.
package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/output/flagerror"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/internal/sys/buildinfo"
	"github.com/bpfwhy/bpfwhy/internal/sys/cgroup"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
)

const bad = 2

// Main runs the command line and returns the exit status. The executable may be another one of its
// processes: see [sources.Main].
func Main(args []string, stdout, stderr *os.File) int {
	sources.Main()
	return run(args, stdout, stderr, openSource, privilege.Drop)
}

// run is the command. drop gives capabilities up when the sources are open.
func run(args []string, stdout, stderr *os.File, open opener, drop func(keep ...int) error) int {
	c := newCommand(stdout, stderr, open, drop)
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	if err := c.Execute(); err != nil {
		say(stderr, "%s", text.Join(err.Error()))
		return bad
	}
	return 0
}

// say writes one line for people.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, "httpprobe: "+text.Clean(fmt.Sprintf(format, args...)))
}

// flags are what the command line says, unchecked.
type flags struct {
	sources  []string
	json     bool
	listen   string
	interval time.Duration
	pids     []int
	ports    []uint
	cgroups  []string
	routes   []string
	series   int
	ring     int
}

func newCommand(stdout, stderr *os.File, open opener, drop func(keep ...int) error) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "httpprobe",
		Short: "Status codes and latency of HTTP on this machine, inside OpenSSL too",
		Long: `httpprobe watches HTTP/1.x requests on this machine, also inside OpenSSL. The
applications are not changed. It prints a table of services every few seconds
and at the end, or each exchange as JSON, and serves metrics for Prometheus.

It never keeps query strings, cookies or authorization headers. What it could
not see or parse is counted by reason and shown at the end.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(*cobra.Command, []string) error {
			o, err := f.check()
			if err != nil {
				return err
			}
			return watch(o, stdout, stderr, open, drop)
		},
	}
	c.Version = version()
	c.SetVersionTemplate("httpprobe {{.Version}}\n")
	c.SetFlagErrorFunc(flagerror.Plain)
	c.CompletionOptions.HiddenDefaultCmd = true
	fs := c.Flags()
	fs.StringSliceVar(&f.sources, "sources", []string{"auto"}, "where to look: "+strings.Join(sourceNames, ", ")+"; auto: syscalls and openssl, and packets where syscalls cannot be used")
	fs.BoolVar(&f.json, "json", false, "JSON Lines, one exchange per line (docs/schema/exchange-v1.schema.json); messages go to standard error")
	fs.StringVar(&f.listen, "listen", "", "serve metrics for Prometheus at this address, path /metrics; a port alone means localhost")
	fs.DurationVar(&f.interval, "interval", 5*time.Second, "time between tables; 0: only one at the end")
	fs.IntSliceVar(&f.pids, "pid", nil, "only these processes, without their children")
	fs.UintSliceVar(&f.ports, "port", nil, "only connections with these ports, at either end; the source openssl does not know ports, so auto leaves it out")
	fs.StringSliceVar(&f.cgroups, "cgroup", nil, "only processes in these control groups (version 2) and below: a path, or as /proc/PID/cgroup shows it")
	fs.StringSliceVar(&f.routes, "route", []string{"quantised"}, "routes of paths: off, quantised (identifiers become {}), or patterns such as /users/{id}")
	fs.IntVar(&f.series, "series", 2000, "largest number of histogram series; all others share overflow series")
	fs.IntVar(&f.ring, "ring", 8<<20, "size of the buffer between the kernel and each source, in bytes")
	return c
}

// version is where this executable comes from, in a line.
func version() string {
	b := buildinfo.Read()
	v := b.Version
	if b.Commit != "" {
		v += ", commit " + b.Commit
	}
	if b.Modified {
		v += ", modified"
	}
	return fmt.Sprintf("%s, %s %s", v, b.Go, b.Platform)
}

// options are flags that make sense.
type options struct {
	names    []string // of sources
	auto     bool
	json     bool
	listen   string
	interval time.Duration
	routes   metrics.Routes
	series   int
	source   sources.Options
}

//revive:disable-next-line:cyclomatic one check for each flag
func (f *flags) check() (o options, err error) {
	o = options{json: f.json, interval: f.interval, series: f.series, source: sources.Options{PIDs: f.pids, RingBytes: f.ring}}
	if o.auto = len(f.sources) == 1 && f.sources[0] == "auto"; !o.auto {
		for _, s := range f.sources {
			if !slices.Contains(sourceNames, s) {
				return o, fmt.Errorf("--sources %q: choose from %s, or auto", s, strings.Join(sourceNames, ", "))
			}
			if !slices.Contains(o.names, s) {
				o.names = append(o.names, s)
			}
		}
		if len(o.names) == 0 {
			return o, fmt.Errorf("--sources: choose from %s, or auto", strings.Join(sourceNames, ", "))
		}
	}
	if len(f.routes) == 0 {
		return o, errors.New("--route: off, quantised, or patterns such as /users/{id}")
	}
	if o.routes, err = metrics.ParseRoutes(f.routes); err != nil {
		return o, fmt.Errorf("--route: %w", err)
	}
	if f.series < metrics.MinSeries || f.series > 1_000_000 {
		return o, fmt.Errorf("--series %d: at least %d, at most a million", f.series, metrics.MinSeries)
	}
	if f.interval < 0 || f.interval > 0 && f.interval < 100*time.Millisecond {
		return o, fmt.Errorf("--interval %v: at least 100ms, or 0 for no table before the end", f.interval)
	}
	if f.ring < 4096 || f.ring > 1<<30 {
		return o, fmt.Errorf("--ring %d: from 4096 bytes to 1 GiB", f.ring)
	}
	if o.listen, err = address(f.listen); err != nil {
		return o, fmt.Errorf("--listen: %w", err)
	}
	for _, pid := range f.pids {
		if pid <= 0 || unix.Kill(pid, 0) == unix.ESRCH {
			return o, fmt.Errorf("--pid %d: no such process", pid)
		}
	}
	for _, port := range f.ports {
		if port == 0 || port > 65535 {
			return o, fmt.Errorf("--port %d: from 1 to 65535", port)
		}
		o.source.Ports = append(o.source.Ports, uint16(port))
	}
	if f.cgroups != nil && len(f.cgroups) == 0 { // --cgroup ""
		return o, errors.New("--cgroup: want a control group")
	}
	if o.source.Cgroups, err = groups(f.cgroups); err != nil {
		return o, fmt.Errorf("--cgroup: %w", err)
	}
	return o, nil
}

// address takes HOST:PORT, :PORT or PORT; without a host it is this machine alone.
func address(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if !strings.Contains(s, ":") {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q: from 1 to 65535", port)
	}
	if host == "" {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

// groups are the folders of control groups.
func groups(names []string) (paths []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	if slices.Contains(names, "") {
		return nil, errors.New("want a control group")
	}
	root, err := cgroup.Root()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		g, err := cgroup.ByPath(name, root)
		if err != nil {
			return nil, err
		}
		paths = append(paths, g.Path)
	}
	return paths, nil
}

var errNothing = errors.New("nothing can be watched")
