// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

const sampleDir = "testdata/samples"

// saveSamples reads the ring of a capture up to the end of a failed load and hands the raw samples
// out, one of each type: the seeds of FuzzDecoder.
func saveSamples(t *testing.T, c *Capture, program string) {
	t.Helper()
	var records seen
	for len(records.loads(program)) == 0 {
		qt.Assert(t, qt.IsNil(c.reader.ReadInto(&c.sample)))
		sample := c.sample.RawSample
		if head, ok := view[coreHead](sample); ok && len(sample) < 8<<10 {
			name := filepath.Join(wire.OutDir, sampleDir, fmt.Sprintf("type-%d", head.Type))
			qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(name), 0o755)))
			qt.Assert(t, qt.IsNil(os.WriteFile(name, sample, 0o644)))
		}
		var list []trace.Record
		qt.Assert(t, qt.IsNil(c.decoder.add(sample, &list)))
		records = append(records, list...)
	}
	qt.Check(t, qt.Equals(records.one(t, program).Ret, -int64(unix.EACCES)))
}

// updateSamples puts what a guest handed out into the repository when BPFWHY_UPDATE=1.
func updateSamples(t *testing.T, kernel string, r *vm.Result) {
	if os.Getenv("BPFWHY_UPDATE") != "1" || kernel != "6.12" {
		return
	}
	qt.Assert(t, qt.IsNil(os.MkdirAll(sampleDir, 0o755)))
	for name, b := range r.Files {
		if filepath.Dir(name) == sampleDir {
			qt.Assert(t, qt.IsNil(os.WriteFile(name, b, 0o644)))
		}
	}
}

// FuzzDecoder: any bytes give records or an error, and what they give is bounded by them.
func FuzzDecoder(f *testing.F) {
	samples, err := filepath.Glob(sampleDir + "/*")
	if err != nil || len(samples) == 0 {
		f.Fatalf("no samples: %v", err)
	}
	for _, name := range samples {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte{})
		f.Add(b[:len(b)/2], b)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		for _, d := range []decoder{{}, {keep: true}, {keep: true, all: true}} {
			var records []trace.Record
			for _, sample := range [][]byte{one, two, one} {
				_ = d.add(aligned(sample), &records)
			}
			for _, r := range records {
				set := 0
				for _, ok := range []bool{r.Call != nil, r.Chunk != nil, r.Message != nil, r.Begin != nil} {
					if ok {
						set++
					}
				}
				if set != 1 {
					t.Fatalf("%d fields set: %+v", set, r)
				}
				if r.Chunk != nil && len(r.Chunk.Data) > 2*(len(one)+len(two))+maxBTFBytes {
					t.Fatalf("%d bytes from %d", len(r.Chunk.Data), len(one)+len(two))
				}
				if r.Call != nil && (len(r.Call.Attr) > attrMax || len(r.Call.Maps) > 64 || len(r.Call.Failed) > 16) {
					t.Fatalf("%+v", r.Call)
				}
			}
		}
	})
}

// aligned copies a sample as the ring's reader does: to the start of an allocation.
func aligned(b []byte) []byte {
	words := make([]uint64, len(b)/8+1)
	out := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	return out[:copy(out, b)]
}

func TestDecodeRejects(t *testing.T) {
	var d decoder
	var records []trace.Record
	qt.Check(t, qt.ErrorMatches(d.add(nil, &records), "decode sample: 0 bytes are too few"))
	head := coreHead{Type: 99}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&head)), unsafe.Sizeof(head))
	qt.Check(t, qt.ErrorMatches(d.add(b, &records), "decode sample: unknown type 99"))
	for _, kind := range []coreRecordType{coreRecordTypeR_CALL, coreRecordTypeR_SMALL, coreRecordTypeR_MESSAGE, coreRecordTypeR_MAPS, coreRecordTypeR_BEGIN} {
		head.Type = uint32(kind)
		qt.Check(t, qt.ErrorMatches(d.add(b, &records), `decode \w+: 16 bytes are too few`))
	}
	qt.Check(t, qt.HasLen(records, 0))
}

// Calls whose end is lost must not pile up: the oldest go, and are counted.
func TestDecoderForgets(t *testing.T) {
	d := decoder{keep: true}
	type full struct {
		coreChunk
		data [1 << 17]byte
	}
	const calls = 3000
	for i := range calls {
		c := full{}
		c.Head.Type, c.Head.Tid, c.What, c.Len = uint32(coreRecordTypeR_BIG), uint32(i), uint32(coreWhatW_INSNS), 1<<17
		var records []trace.Record
		qt.Assert(t, qt.IsNil(d.add(unsafe.Slice((*byte)(unsafe.Pointer(&c)), unsafe.Sizeof(c)), &records)))
		total := 0
		for _, p := range d.pieces {
			total += p.size()
		}
		qt.Assert(t, qt.Equals(total, d.size))
		qt.Assert(t, qt.IsTrue(total <= maxPieceBytes+2<<17)) // one more call
	}
	qt.Check(t, qt.Equals(len(d.pieces)+int(d.dropped), calls))
	for i := range maxPieceBytes / (1<<17 + 2*pieceBytes) { // the newest are still there
		qt.Check(t, qt.IsNotNil(d.pieces[trace.CallID{TID: uint32(calls - 1 - i)}]), qt.Commentf("%d", i))
	}
}

// Calls that end leave nothing behind.
func TestDecoderOrder(t *testing.T) {
	d := decoder{keep: true}
	for i := range 100_000 {
		id := trace.CallID{TID: uint32(i)}
		d.piecesOf(id)
		if i >= 10 {
			delete(d.pieces, id) // as add does at its end
		}
	}
	qt.Check(t, qt.HasLen(d.pieces, 10))
	qt.Check(t, qt.Equals(d.dropped, 0))
	qt.Check(t, qt.IsTrue(len(d.order) <= 2*maxPieces))
}

func cstr[T interface{ ~[40]int8 | ~[128]int8 }](s string) (out T) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&out)), unsafe.Sizeof(out))
	copy(b[:len(b)-1], s)
	return out
}

func TestExe(t *testing.T) {
	for want, parts := range map[string][]string{
		"":                  nil,
		"/bin/true":         {"true", "bin", "/"},
		"/":                 {"/"}, // no name of an executable, but no reason to fall
		"/a\x1bb":           {"a\x1bb", "/"},
		"…/7/6/5/4/3/2/1/0": {"0", "1", "2", "3", "4", "5", "6", "7"},
	} {
		var in [8][40]int8
		for i, p := range parts {
			in[i] = cstr[[40]int8](p)
		}
		if want == "/" {
			want = ""
		}
		qt.Check(t, qt.Equals(exe(in[:]), want))
	}
}

func TestCgroup(t *testing.T) {
	qt.Check(t, qt.IsNil(groupOf(&coreCgroupName{})))
	c := coreCgroupName{Id: 7, Name: cstr[[128]int8]("cri-containerd-1.scope"), Parent: cstr[[128]int8]("kubepods.slice")}
	qt.Check(t, qt.DeepEquals(groupOf(&c), &trace.Cgroup{ID: 7, Name: "kubepods.slice/cri-containerd-1.scope"}))
	c.Parent = cstr[[128]int8]("/")
	qt.Check(t, qt.DeepEquals(groupOf(&c), &trace.Cgroup{ID: 7, Name: "cri-containerd-1.scope"}))
}

// What compiled programs hold is read again where it may be the reason: not for every load that
// fails.
func TestRefresh(t *testing.T) {
	if _, ok := node.JITMemory(); !ok {
		t.Skip("needs root")
	}
	for name, test := range map[string]struct {
		call trace.Call
		want bool
	}{
		"JIT failed":  {trace.Call{Ret: -524}, true},
		"not jited":   {trace.Call{Ret: 3, Prog: &trace.Prog{}}, true},
		"refused":     {trace.Call{Ret: -int64(unix.EACCES)}, false},
		"jited":       {trace.Call{Ret: 3, Prog: &trace.Prog{JITed: true}}, false},
		"not a fault": {trace.Call{Ret: 3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := Capture{pending: []trace.Record{{Call: &test.call}}}
			c.refresh(0, false)
			got := slices.ContainsFunc(c.pending, func(r trace.Record) bool {
				return r.Sysctl != nil && r.Sysctl.Name == load.JITUsed && r.Sysctl.Value != "" && r.Sysctl.Value != "0"
			})
			qt.Check(t, qt.Equals(got, test.want))
		})
	}
}

// The argument of a check is recorded where its row names a number. Elsewhere it is what the first
// argument holds: an address of the kernel.
func TestSpansTellNoAddress(t *testing.T) {
	number := map[load.Function]uint32{}
	for _, h := range hook.All() {
		number[h.Function] = h.Number
	}
	for function, want := range map[load.Function]int64{
		load.FnAttach: 0, load.FnLSMLoad: 0, load.FnLoad: 0,
		load.FnCapable: 39, load.FnModmem: 39, load.FnPatch: 39,
	} {
		var r coreCallRecord
		r.Call.Nfailed = 1
		r.Call.Failed[0].Hook = uint8(number[function])
		r.Call.Failed[0].Arg = -0x7fff_ffd9_0000_0000 | 39
		r.Call.Failed[0].Ret = -22
		got := spans(&r)
		qt.Assert(t, qt.HasLen(got, 1))
		qt.Check(t, qt.Equals(got[0].Function, function))
		qt.Check(t, qt.Equals(got[0].Arg, want), qt.Commentf("%s", function))
	}
}
