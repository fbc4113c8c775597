// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// serveTLS is serve with a certificate that nobody knows. The tapes hold the plain text.
func serveTLS(t testing.TB, tapes *tapes) string { return listenTLS(t, tapes, answer) }

func listenTLS(t testing.TB, tapes *tapes, handler http.HandlerFunc) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	qt.Assert(t, qt.IsNil(err))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	qt.Assert(t, qt.IsNil(err))
	l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	qt.Assert(t, qt.IsNil(err))
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(tapedListener{l, tapes}) }()
	t.Cleanup(func() { server.Close() })
	return "https://" + l.Addr().String()
}

// serveProxy passes connections on (CONNECT), inside TLS.
func serveProxy(t testing.TB, tapes *tapes) string {
	return listenTLS(t, tapes, func(w http.ResponseWriter, r *http.Request) {
		there, err := net.Dial("tcp4", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		go func() {
			_, _ = io.Copy(there, here)
			there.Close()
		}()
		_, _ = io.Copy(here, there)
	})
}

// testProxy: TLS inside TLS. What goes to the proxy is seen, and what goes by it.
func testProxy(t *testing.T) {
	curl, err := exec.LookPath("curl")
	qt.Assert(t, qt.IsNil(err))
	tapes := &tapes{ends: map[end]*taped{}} // the server's end and the proxy's
	url, proxy := serveTLS(t, tapes), serveProxy(t, tapes)
	s, err := OpenSSL(Options{})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	c := collect(t, s)
	out, err := exec.Command(curl, "--http1.1", "-sSk", "--proxy-insecure", "-x", proxy, url+"/5", url+"/70000").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Assert(t, qt.HasLen(out, 70005))
	time.Sleep(2 * lookInterval)
	c.stop()
	got := flows(t, slices.DeleteFunc(c.events, func(e event.Event) bool { return e.Comm != "curl" }))
	qt.Assert(t, qt.Equals(len(got), 4))
	qt.Assert(t, qt.Equals(len(tapes.ends), 2))
	for k, f := range got {
		qt.Check(t, qt.Equals(f.gaps, 0))
		request := got[flowKey{k.conn, k.end, event.Out}].bytes
		for e, tape := range tapes.ends {
			switch isProxy := strings.HasSuffix(proxy, fmt.Sprintf(":%d", e.local)); {
			case isProxy != bytes.HasPrefix(request, []byte("CONNECT ")):
			case isProxy: // nobody may want the last of it, that TLS ends
				want := tape.sent[1-k.dir].Bytes()
				n := min(len(want), len(f.bytes))
				qt.Check(t, qt.IsTrue(len(want)-n < 100 && len(f.bytes)-n < 100))
				f.bytes, f.known = f.bytes[:n], f.known[:n]
				compareBytes(t, want[:n], f)
			default:
				compare(t, tape, 1-k.dir, f)
			}
		}
	}
	loss := s.Loss()
	qt.Check(t, qt.Equals(loss, event.Loss{}))
}

// testOpenSSL watches curl, which is told of by its own bytes: what it sends is what the server
// receives.
func testOpenSSL(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("no curl")
	}
	start := time.Now()
	s, err := OpenSSL(Options{})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	t.Logf("up in %v", time.Since(start))
	for _, p := range s.Programs() {
		qt.Check(t, qt.IsTrue(p.JITed), qt.Commentf(p.Name))
	}
	c := collect(t, s)
	tapes := &tapes{ends: map[end]*taped{}}
	url := serveTLS(t, tapes)
	out, err := exec.Command(curl, "--http1.1", "-sSk", "-d", strings.Repeat("y", 2000), url+"/5", url+"/700", url+"/100000").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Assert(t, qt.HasLen(out, 100705))
	time.Sleep(100 * time.Millisecond)
	c.stop()

	var own []event.Event
	closed := 0
	for _, e := range c.events {
		if e.Comm != "curl" {
			continue // on a host there may be others
		}
		own = append(own, e)
		qt.Check(t, qt.IsTrue(e.Fresh))
		if e.Kind == event.Close {
			closed++
		}
	}
	qt.Check(t, qt.Equals(closed, 1))
	got := flows(t, own)
	qt.Assert(t, qt.HasLen(got, 2))
	qt.Assert(t, qt.HasLen(tapes.ends, 1))
	for k, f := range got {
		for _, p := range tapes.ends {
			qt.Check(t, qt.Equals(f.gaps, 0))
			n := compare(t, p, 1-k.dir, f) // the other end's tape
			t.Logf("%d: %d bytes, %d captured", k.dir, len(f.bytes), n)
			qt.Check(t, qt.IsTrue(n >= 1024))
		}
	}
	loss := s.Loss()
	qt.Check(t, qt.Equals(loss, event.Loss{}))
}
