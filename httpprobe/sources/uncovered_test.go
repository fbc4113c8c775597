// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestCensus(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	var own []Reason
	for _, b := range new(Census).Take() {
		if b.PID == os.Getpid() {
			own = append(own, b.Reason)
			qt.Check(t, qt.Not(qt.Equals(b.Comm, "")))
		}
	}
	qt.Check(t, qt.DeepEquals(own, []Reason{Go}))
}

func TestFacts(t *testing.T) {
	qt.Check(t, qt.Equals(factsOf(bytes.NewReader(tinyELF())), exeFacts{static: true, openssl: true}))
	compat := tinyELF()
	compat[4] = 1
	qt.Check(t, qt.Equals(factsOf(bytes.NewReader(compat)), exeFacts{compat: true}))
	qt.Check(t, qt.Equals(factsOf(bytes.NewReader(nil)), exeFacts{}))
}

func TestKernelTLS(t *testing.T) {
	idle := "TlsCurrTxSw                     \t0\nTlsCurrRxSw                     \t0\nTlsTxSw                         \t7\n"
	qt.Check(t, qt.IsFalse(kernelTLS([]byte(idle))))
	qt.Check(t, qt.IsTrue(kernelTLS([]byte(idle+"TlsCurrTxDevice                 \t1\n"))))
	qt.Check(t, qt.IsFalse(kernelTLS(nil)))
}

func TestReasons(t *testing.T) {
	qt.Check(t, qt.IsTrue(Go.TLS()))
	qt.Check(t, qt.IsFalse(IOUring.TLS()))
	qt.Check(t, qt.Equals(len(slices.Compact(slices.Sorted(slices.Values(Reasons)))), len(Reasons)))
}
