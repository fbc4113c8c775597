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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/buildinfo"
	"github.com/bpfwhy/bpfwhy/internal/privilege"
	"github.com/bpfwhy/bpfwhy/internal/render"
)

const bad = 2

// Main runs the command line and returns the exit status. The executable may be another one of its processes: see [sources.Main].
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
		say(stderr, "%s", strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
		return bad
	}
	return 0
}

// say writes one line for people.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, "httpprobe: "+render.Clean(fmt.Sprintf(format, args...)))
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
		Long: `httpprobe watches HTTP/1.x go by, also inside OpenSSL, without touching the applications: a table of
services every few seconds and at the end, exchanges as JSON, figures for Prometheus.

It never keeps query strings, cookies or authorization headers. What it could not see or could not
make sense of is counted by reason and shown at the end.`,
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
	c.SetFlagErrorFunc(flagError)
	c.CompletionOptions.HiddenDefaultCmd = true
	fs := c.Flags()
	fs.StringSliceVar(&f.sources, "sources", []string{"auto"}, "where to look: "+strings.Join(sourceNames, ", ")+"; auto is syscalls and openssl, and packets where syscalls cannot be")
	fs.BoolVar(&f.json, "json", false, "JSON Lines, one exchange a line (docs/schema/exchange-v1.schema.json); words go to standard error")
	fs.StringVar(&f.listen, "listen", "", "serve figures for Prometheus at this address, /metrics, at most 32 KiB for each of --series; a port alone is one of localhost")
	fs.DurationVar(&f.interval, "interval", 5*time.Second, "time between tables; 0: only at the end")
	fs.IntSliceVar(&f.pids, "pid", nil, "only these processes, without their children")
	fs.UintSliceVar(&f.ports, "port", nil, "only connections with these ports, at either end; openssl does not know ports, and auto leaves it out then")
	fs.StringSliceVar(&f.cgroups, "cgroup", nil, "only processes in these control groups (version 2) and below: a path, or as /proc/PID/cgroup shows it")
	fs.StringSliceVar(&f.routes, "route", []string{"quantised"}, "routes of paths: off, quantised (identifiers become {}), or patterns such as /users/{id}")
	fs.IntVar(&f.series, "series", 2000, "most series of histograms; what is more shares overflow series")
	fs.IntVar(&f.ring, "ring", 8<<20, "bytes of the buffer between the kernel and each source")
	return c
}

// flagError says in our words what pflag says in Go's: invalid argument "x" for "--pid" flag: strconv.Atoi: parsing "x": invalid syntax.
func flagError(c *cobra.Command, err error) error {
	rest, ok := strings.CutPrefix(err.Error(), "invalid argument ")
	value, rest, found := strings.Cut(rest, ` for "--`) // value is quoted
	name, _, _ := strings.Cut(rest, `"`)
	f := c.Flags().Lookup(name)
	if !ok || !found || f == nil {
		return err
	}
	want := map[string]string{"int": "a number", "intSlice": "a number, or several with commas", "uintSlice": "a number, or several with commas",
		"duration": "a time such as 5s or 1m", "bool": "true or false"}[f.Value.Type()]
	if want == "" {
		return err
	}
	return fmt.Errorf("--%s %s: want %s", name, value, want)
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

const cgroupRoot = "/sys/fs/cgroup"

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
	for _, g := range f.cgroups {
		path, err := cgroup(g)
		if err != nil {
			return o, fmt.Errorf("--cgroup: %w", err)
		}
		o.source.Cgroups = append(o.source.Cgroups, path)
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

func cgroup(s string) (string, error) {
	if s == "" {
		return "", errors.New("want a control group")
	}
	for _, path := range []string{s, filepath.Join(cgroupRoot, s)} {
		abs, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		if rel, err := filepath.Rel(cgroupRoot, abs); err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		if info, err := os.Stat(abs); err == nil && info.IsDir() {
			return abs, nil
		}
	}
	return "", fmt.Errorf("%s is no control group below %s", s, cgroupRoot)
}

var errNothing = errors.New("nothing can be watched")
