// SPDX-License-Identifier: Apache-2.0

// Package config is what 'bpfwhy serve' is told to do: by flags, and by one YAML file.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Config says where failures go. The zero value is written to the log alone.
type Config struct {
	// Node is the name of the node; empty: the host's.
	Node string `yaml:"node" json:"node,omitempty"`
	// Log: JSON lines on standard output. Nil: yes, unless there is another place.
	Log *bool `yaml:"log" json:"log,omitempty"`
	// State is a folder for node.json and recordings of failures.
	State string `yaml:"state" json:"state,omitempty"`
	// Listen is the address of /metrics, /healthz and /readyz.
	Listen string `yaml:"listen" json:"listen,omitempty"`
	// Textfile is a file for node_exporter's textfile collector.
	Textfile string `yaml:"textfile" json:"textfile,omitempty"`
	OTLP     OTLP   `yaml:"otlp" json:"otlp,omitzero"`
	// Backend forces one way of watching.
	Backend string `yaml:"backend" json:"backend,omitempty"`
	// Kubernetes is auto, on or off: auto is on where a service account is mounted.
	Kubernetes string `yaml:"kubernetes" json:"kubernetes,omitempty"`
	// KubernetesUse is what the API server is asked and told: see Uses. Nothing else is tried,
	// since the service account may have no right to it. Nil: what the chart allows by default.
	KubernetesUse []string `yaml:"kubernetesUse" json:"kubernetesUse,omitempty"`
}

// OTLP is a collector of OpenTelemetry.
type OTLP struct {
	// Endpoint is its URL, http://collector:4318; empty: none.
	Endpoint string            `yaml:"endpoint" json:"endpoint,omitempty"`
	Headers  map[string]string `yaml:"headers" json:"headers,omitempty"`
}

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Read takes a file. Words that it does not know are errors.
func Read(path string) (c Config, err error) {
	f, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	if err := c.parse(b); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// ours is what the library says of the Go types that it fills.
var ours = regexp.MustCompile(` (?:in type|into) \*?config\.\w+`)

func (c *Config) parse(b []byte) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && err != io.EOF { // an empty file is one without settings
		if t, ok := errors.AsType[*yaml.TypeError](err); ok {
			return errors.New(ours.ReplaceAllString(strings.Join(t.Errors, "; "), ""))
		}
		return err
	}
	if err := d.Decode(new(yaml.Node)); err != io.EOF {
		return errors.New("more than one document")
	}
	return nil
}

// Backends are the ways of watching that can be forced.
var Backends = []string{"fentry", "kprobe", "tracepoint", "tp_btf"}

// Check completes a configuration and says what is wrong with it.
func (c *Config) Check() (err error) {
	if c.Node == "" {
		if c.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("node: %w", err)
		}
	}
	if c.Log == nil {
		on := c.State == "" && c.Listen == "" && c.Textfile == "" && c.OTLP.Endpoint == ""
		c.Log = &on
	}
	if c.Listen, err = address(c.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if c.Kubernetes == "" {
		c.Kubernetes = kubernetes[0]
	}
	if c.KubernetesUse == nil {
		c.KubernetesUse = Uses[:3]
	}
	for _, check := range []func() error{c.checkNode, c.checkPaths, c.checkWords, c.OTLP.check} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkNode() error {
	if len(c.Node) > 253 || strings.ContainsFunc(c.Node, func(r rune) bool { return r <= ' ' || r == '/' || r >= 0x7f }) {
		return fmt.Errorf("node %q: not the name of a node", c.Node)
	}
	return nil
}

func (c *Config) checkPaths() error {
	for _, p := range []struct{ name, path string }{{"state", c.State}, {"textfile", c.Textfile}} {
		if p.path != "" && !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s %q: give an absolute path", p.name, p.path)
		}
	}
	if c.Textfile != "" && !strings.HasSuffix(c.Textfile, ".prom") {
		return fmt.Errorf("textfile %q: node_exporter reads files that end with .prom", c.Textfile)
	}
	return nil
}

// InCluster reports whether the API server of Kubernetes is told.
func (c *Config) InCluster() bool {
	if c.Kubernetes == "auto" {
		_, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token")
		return err == nil && os.Getenv("KUBERNETES_SERVICE_HOST") != ""
	}
	return c.Kubernetes == "on"
}

var kubernetes = []string{"auto", "on", "off"}

// Uses are what an API server can be used for. The condition of the node is not asked for by
// default: each change of a Node goes to all who watch nodes.
var Uses = []string{"events", "reports", "pods", "condition"}

// Use reports whether the API server is used for something.
func (c *Config) Use(what string) bool { return slices.Contains(c.KubernetesUse, what) }

func (c *Config) checkWords() error {
	if c.Backend != "" && !slices.Contains(Backends, c.Backend) {
		return fmt.Errorf("backend %q: choose one of %s", c.Backend, strings.Join(Backends, ", "))
	}
	if !slices.Contains(kubernetes, c.Kubernetes) {
		return fmt.Errorf("kubernetes %q: choose one of %s", c.Kubernetes, strings.Join(kubernetes, ", "))
	}
	for _, what := range c.KubernetesUse {
		if !slices.Contains(Uses, what) {
			return fmt.Errorf("kubernetesUse %q: choose of %s", what, strings.Join(Uses, ", "))
		}
	}
	return nil
}

func (o *OTLP) check() error {
	if o.Endpoint == "" {
		if len(o.Headers) > 0 {
			return errors.New("otlp: there are headers and no endpoint")
		}
		return nil
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("otlp endpoint %q: give a URL, such as http://collector:4318", o.Endpoint)
	}
	return nil
}

// address completes a port to one of this machine alone.
func address(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return net.JoinHostPort("localhost", s), nil
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is no address: give HOST:PORT or PORT", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q: the port is not a number up to 65535", s)
	}
	return s, nil
}

// Accounts is the file of the state folder that reader and exporter share.
func (c *Config) Accounts() string {
	if c.State == "" {
		return ""
	}
	return filepath.Join(c.State, ".accounts")
}
