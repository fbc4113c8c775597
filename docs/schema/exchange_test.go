// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/exchangejson"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func TestExchanges(t *testing.T) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile("exchange-v1.schema.json")
	qt.Assert(t, qt.IsNil(err))
	everyField(t, "exchange-v1", exchangejson.Exchange{}, nil)

	boot := time.Date(2026, 11, 22, 13, 0, 0, 0, time.FixedZone("CET", 3600))
	seen := connection.Exchange{
		Exchange: http1.Exchange{Role: http1.Client, Method: "BREW", Path: "/a\x1b[2J", Protocol: "HTTP/1.1", Status: 418,
			Start: 1_500_000_000, FirstByte: 1_500_000_007, End: 1_500_000_009, RequestBytes: 3, ResponseBytes: 4, Truncated: true},
		Source: event.OpenSSL, TGID: 5, Comm: "a\x1b", CgroupID: 6, LocalPort: 40000, RemotePort: 443,
	}
	full := exchangejson.Of(&seen, boot, "/{}", "docker://1")
	qt.Check(t, qt.Equals(cmp.Diff(exchangejson.Exchange{Schema: "bpfwhy.exchange/v1", Time: time.Date(2026, 11, 22, 12, 0, 1, 500_000_000, time.UTC),
		Source: "openssl", Role: "client", Method: "BREW", Path: "/a\x1b[2J", Route: "/{}", Status: 418, Protocol: "HTTP/1.1", DurationNS: 9, FirstByteNS: 7,
		RequestBytes: 3, ResponseBytes: 4, Truncated: true, PID: 5, Comm: "a\x1b", CgroupID: 6, Container: "docker://1", ServerPort: 443, ClientPort: 40000}, full), ""))
	seen = connection.Exchange{Exchange: http1.Exchange{Role: http1.Server, Method: "GET", Path: "*", Protocol: "HTTP/1.0", Status: 999}, Source: event.Packets}
	for _, d := range []exchangejson.Exchange{full, exchangejson.Of(&seen, boot, "", "")} {
		var b bytes.Buffer
		qt.Assert(t, qt.IsNil(render.JSON(&b, d)))
		qt.Check(t, qt.IsFalse(bytes.ContainsRune(b.Bytes(), 0x1b)))
		parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(b.Bytes()))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(s.Validate(parsed)), qt.Commentf("%s", b.Bytes()))
		for _, spoil := range spoilt(parsed.(map[string]any), s.Required) {
			qt.Check(t, qt.IsNotNil(s.Validate(spoil)))
		}
	}
}
