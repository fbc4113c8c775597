// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Cluster is an API server with its etcd. It has no controllers: nothing creates pods or service
// accounts but the test.
type Cluster struct {
	Bin
	URL        string
	Kubeconfig string // of an administrator

	dir   string
	procs []*process // in the order of their start
}

// admin is the token of the administrator: it is worth something on this machine, to this test.
const admin = "admin-of-the-test"

// Start starts etcd and the API server in a folder, and waits until they answer.
func Start(ctx context.Context, bin Bin, dir string) (c *Cluster, err error) {
	c = &Cluster{Bin: bin, dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig")}
	defer func() {
		if err != nil {
			c.Stop()
			c = nil
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return c, err
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	c.URL = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	if err := c.files(); err != nil {
		return c, err
	}
	err = c.start("etcd", "--name=test", "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=test="+peer)
	if err != nil {
		return c, err
	}
	key := filepath.Join(dir, "sa.key")
	err = c.start(bin.Of(APIServer), "--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", ports[2]), "--cert-dir="+filepath.Join(dir, "pki"), "--service-cluster-ip-range=10.96.0.0/24",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--token-auth-file="+filepath.Join(dir, "tokens.csv"), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--endpoint-reconciler-type=none")
	if err != nil {
		return c, err
	}
	return c, c.ready(ctx)
}

// files writes what the API server reads, and the administrator's kubeconfig.
func (c *Cluster) files() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return errors.Join(
		os.WriteFile(filepath.Join(c.dir, "sa.key"), block, 0o600),
		os.WriteFile(filepath.Join(c.dir, "tokens.csv"), []byte(admin+",admin,admin,system:masters\n"), 0o600),
		c.WriteKubeconfig(c.Kubeconfig, admin))
}

// WriteKubeconfig writes a kubeconfig for a token.
func (c *Cluster) WriteKubeconfig(file, token string) error {
	return os.WriteFile(file, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "%s", insecure-skip-tls-verify: true}}]
users: [{name: test, user: {token: "%s"}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
`, c.URL, token), 0o600)
}

// ready waits for the API server. Each request has a time of its own: one to a server that is just
// starting may hang.
func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	var last error
	for {
		for _, p := range c.procs {
			if p.ended() {
				return fmt.Errorf("start cluster: %s ended:\n%s", p.name, p.tail())
			}
		}
		if last = c.ask(client); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start cluster: not ready in time: %w\n%s", last, c.procs[len(c.procs)-1].tail())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *Cluster) ask(client http.Client) error {
	request, err := http.NewRequest(http.MethodGet, c.URL+"/readyz", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+admin)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, body)
	}
	return nil
}

// Stop ends the processes, the last first, and waits for them.
func (c *Cluster) Stop() {
	for i := len(c.procs) - 1; i >= 0; i-- {
		c.procs[i].stop()
	}
}

// Command is a command of a tool as the administrator. A tool without a package is Debian's.
func (c *Cluster) Command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	if strings.Contains(tool, "/") {
		tool = c.Of(tool)
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	home := "HOME=" + c.dir // no cache or configuration of whoever runs the test
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, home, "XDG_CACHE_HOME=", "XDG_CONFIG_HOME=", "XDG_DATA_HOME=")
	return cmd
}

// Run runs a command of a tool, and returns what it printed.
func (c *Cluster) Run(ctx context.Context, input, tool string, args ...string) (string, error) {
	cmd := c.Command(ctx, tool, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", filepath.Base(tool), strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// freePorts are ports that nobody listens on now.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at once, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
