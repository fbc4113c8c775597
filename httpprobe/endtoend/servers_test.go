// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// server is one that runs, in a folder of its own, on one port.
type server struct {
	name string
	url  string
	port int
	log  string // each line a request that the server says it answered: "METHOD STATUS"
	dir  string
}

// folder makes one that servers may read which drop their privileges, with files to serve. One is
// made of what looks like heads.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "endtoend")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	qt.Assert(t, qt.IsNil(os.Chmod(dir, 0o755)))
	qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(dir, "www"), 0o755)))
	lure := "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\nGET /lure HTTP/1.1\r\nHost: h\r\n\r\n"
	write(t, filepath.Join(dir, "www", "small"), "hello, world")
	write(t, filepath.Join(dir, "www", "big"), strings.Repeat(lure, 300_000/len(lure)))
	write(t, filepath.Join(dir, "www", "upload"), strings.Repeat("all that glisters is not gold\n", 10_000))
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(text), 0o644)))
}

// find finds a program, the system's own first: elsewhere there may be scripts in its place. sbin
// is not in everyone's path.
func find(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range append([]string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	t.Fatalf("no %s on this machine; scripts/install-deps.sh installs it", name)
	return ""
}

// freePort is one that nobody listens at, a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs a server until the test ends, and waits until it listens.
func start(t testing.TB, s server, program string, args ...string) server {
	t.Helper()
	var said bytes.Buffer
	c := exec.Command(program, args...)
	c.Dir = s.dir
	c.Stdout, c.Stderr = &said, &said
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.name == "haproxy" {
		f, err := os.Create(s.log)
		qt.Assert(t, qt.IsNil(err))
		defer f.Close()
		c.Stdout = f
	}
	qt.Assert(t, qt.IsNil(c.Start()))
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	t.Cleanup(func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			conn.Close()
			return s
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended: %v\n%s", s.name, c.ProcessState, said.String())
		default:
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%s does not listen after a minute", s.name)
		}
	}
}

// nginx starts one.
func nginx(t testing.TB, sendfile, tls bool) server {
	dir, port := folder(t), freePort(t)
	s := server{name: "nginx", port: port, dir: dir, log: filepath.Join(dir, "access.log"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	listen := strconv.Itoa(port)
	if tls {
		certificate(t, dir)
		listen += " ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem"
		s.url = "https" + strings.TrimPrefix(s.url, "http")
	}
	on := map[bool]string{true: "on", false: "off"}
	write(t, filepath.Join(dir, "nginx.conf"), `
user root root;
worker_processes 2;
daemon off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
	log_format truth '$request_method $status';
	access_log `+s.log+` truth;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	sendfile `+on[sendfile]+`;
	tcp_nopush `+on[sendfile]+`;
	gzip on; gzip_types *; gzip_min_length 100;
	server {
		listen 127.0.0.1:`+listen+`;
		root www;
		location = /moved { return 302 /small; }
		location = /empty { return 204; }
		location = /error { return 500; }
		location = /form { client_max_body_size 2m; return 201 made; }
	}
}
`)
	return start(t, s, find(t, "nginx"), "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
}

func apache(t testing.TB) server {
	dir, port := folder(t), freePort(t)
	s := server{name: "apache2", port: port, dir: dir, log: filepath.Join(dir, "access.log"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	write(t, filepath.Join(dir, "apache.conf"), `
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
ServerRoot `+dir+`
ServerName localhost
PidFile apache.pid
Mutex file:`+dir+`
ScoreBoardFile scoreboard
ErrorLog error.log
LogFormat "%m %>s" truth
CustomLog access.log truth
Listen 127.0.0.1:`+strconv.Itoa(port)+`
User daemon
Group daemon
StartServers 2
DocumentRoot www
Redirect 302 /moved /small
Redirect 410 /empty
Redirect 500 /error
`)
	return start(t, s, find(t, "apache2"), "-DFOREGROUND", "-d", dir, "-f", filepath.Join(dir, "apache.conf"))
}

// haproxy starts one that passes most of its requests on.
func haproxy(t testing.TB, behind server) server {
	dir, port := folder(t), freePort(t)
	s := server{name: "haproxy", port: port, dir: dir, log: filepath.Join(dir, "access.log"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	write(t, filepath.Join(dir, "haproxy.cfg"), `
global
	log stdout format raw local0
	nbthread 1 # two at once, and HAProxy leaves out lines of its log
defaults
	mode http
	log global
	log-format "%HM %ST"
	option dontlognull
	timeout connect 5s
	timeout client 1m
	timeout server 1m
frontend f
	bind 127.0.0.1:`+strconv.Itoa(port)+`
	http-request return status 200 content-type text/plain string own if { path /own }
	http-request deny deny_status 403 if { path /denied }
	http-request redirect location /small if { path /redirect }
	default_backend b
backend b
	server behind 127.0.0.1:`+strconv.Itoa(behind.port)+`
`)
	return start(t, s, find(t, "haproxy"), "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
}

func python(t testing.TB) server {
	dir, port := folder(t), freePort(t)
	s := server{name: "python3", port: port, dir: dir, log: filepath.Join(dir, "access.log"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	write(t, filepath.Join(dir, "server.py"), pythonServer)
	write(t, s.log, "")
	return start(t, s, find(t, "python3"), "-I", "-S", "server.py", strconv.Itoa(port))
}

// Python's own server of files, with its log in our form and a few answers more.
const pythonServer = `
import http.server, os, sys
log = os.open("access.log", os.O_WRONLY | os.O_APPEND)
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 100
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def __init__(self, *args): super().__init__(*args, directory="www")
    def log_request(self, code="-", size="-"): os.write(log, b"%s %d\n" % (self.command.encode(), int(code)))
    def log_message(self, *args): pass
    def answer(self, code, body=b"", headers=()):
        self.send_response(code)
        for name, value in headers: self.send_header(name, value)
        if code != 204: self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/moved": return self.answer(302, headers=[("Location", "/small")])
        if self.path == "/empty": return self.answer(204)
        if self.path == "/error": return self.answer(500, b"oh")
        super().do_GET()
    def do_POST(self):
        n = int(self.headers.get("Content-Length", "-1"))
        if n >= 0: self.rfile.read(n)
        else:
            while n := int(self.rfile.readline(), 16): self.rfile.read(n + 2)
            self.rfile.readline()
        self.answer(201, b"made")
    do_PUT = do_POST
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
`

func node(t testing.TB) server {
	dir, port := folder(t), freePort(t)
	s := server{name: "node", port: port, dir: dir, log: filepath.Join(dir, "access.log"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	write(t, filepath.Join(dir, "server.js"), nodeServer)
	write(t, s.log, "")
	return start(t, s, find(t, "node"), "server.js", strconv.Itoa(port))
}

const nodeServer = `
const fs = require('fs'), http = require('http');
const log = fs.openSync('access.log', 'a'), big = fs.readFileSync('www/big');
const answers = {'/small': [200, 'hello, world'], '/big': [200, big], '/moved': [302, ''], '/empty': [204, ''], '/error': [500, 'oh'], '/form': [201, 'made']};
http.createServer((req, res) => {
	res.on('close', () => fs.writeSync(log, req.method + ' ' + res.statusCode + '\n'));
	req.resume().on('end', () => {
		const [status, body] = answers[req.url.split('?')[0]] || [404, 'not here'];
		res.writeHead(status, {'X-Test': 'yes'});
		for (let i = 0; i < body.length; i += 70000) res.write(body.slice(i, i + 70000));
		res.end();
	});
}).on('clientError', (e, socket) => { // Node's parser knows its methods
	if (!e.rawPacket) return socket.destroy(); // the connection was reset
	fs.writeSync(log, (e.rawPacket + '').split(' ')[0] + ' 400\n');
	socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
}).listen(+process.argv[2], '127.0.0.1');
`

// certificate makes one of its own.
func certificate(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	qt.Assert(t, qt.IsNil(err))
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	qt.Assert(t, qt.IsNil(err))
	private, err := x509.MarshalPKCS8PrivateKey(key)
	qt.Assert(t, qt.IsNil(err))
	write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}
