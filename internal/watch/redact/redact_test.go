// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestAddress(t *testing.T) {
	for v, want := range map[uint64]struct{ four, five bool }{
		0xffffffff81000000: {true, true},  // code
		0xffffffffc0a51234: {true, true},  // a module
		0xffff888012345678: {true, true},  // the direct map
		0xffffc90000025000: {true, true},  // vmalloc
		0xfffffe0000001000: {true, true},  // a processor's entry area
		0xff11000012345678: {false, true}, // the direct map with five levels
		0xffd4000000000000: {false, true}, // page structures with five levels
		// What programs compute with.
		0: {}, 42: {}, 1<<47 - 1: {}, 0x7f0012345678: {}, 1<<64 - 22: {}, 1<<64 - 524: {},
		0xffffffffffffffff: {}, 0xfffffffffffffff0: {}, 0xffffffff00000000: {}, 0xffffffff80000000: {}, 0xffffc00000000000: {},
		0xffff800000000000: {}, 0xffff000000000000: {}, 0xff00000000000000: {}, 0xfffffffffffff000: {}, 0xffffffffffe00000: {},
		0xcbf29ce484222325: {},            // FNV
		0xff51afd7ed558ccd: {false, true}, // of MurmurHash: with five levels it cannot be told
	} {
		qt.Check(t, qt.Equals(Four.address(v), want.four), qt.Commentf("%#x, four levels", v))
		qt.Check(t, qt.Equals(Five.address(v), want.five), qt.Commentf("%#x, five levels", v))
	}
}

// The lines are of kernels: 5.10, 6.1, 6.12, 7.2.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"3: (18) r1 = 0xffff888103c5ec00\n":    "3: (18) r1 = 0x****************\n",
		"3: (18) r1 = 0xffffc900004c5000 ; \n": "3: (18) r1 = 0x**************** ; \n",
		// Code: known by the instruction that loads it, and then wherever it stands.
		"0: (18) r1 = 0xffffffff812b4c40\n2: R1_w=inv-2127868864 R10=fp0\n":              "0: (18) r1 = 0x****************\n2: R1_w=inv-********** R10=fp0\n",
		"0: (18) r1 = 0xffffffff812b4c40\n2: (07) r1 += 8\n3: R1_w=0xffffffff812b4c48\n": "0: (18) r1 = 0x****************\n2: (07) r1 += 8\n3: R1_w=0x****************\n",
		"0: (18) r1 = 0xffff88800b4c4000\n2: R1_w=scalar(umin=18446612682259578880)\n":   "0: (18) r1 = 0x****************\n2: R1_w=scalar(umin=********************)\n",
		"R1_w=inv-131391453184000":      "R1_w=inv-***************",
		"at ffff888103c5ec00, they say": "at ****************, they say",
		"at 18446612682259578880":       "at ********************",
		// None of these tells where the kernel is.
		"0: (18) r1 = 0xffffffff00000000\n2: R1_w=-4294967296\n":                                                                               "",
		"0: (18) r1 = 0x0\n2: R1_w=map_ptr(map=values,ks=4,vs=8)\n":                                                                            "",
		"0: (b7) r1 = -559038737\n1: R1_w=0xffffffffdeadbeef\n":                                                                                "",
		"0: (b7) r1 = -2127868864\n1: R1_w=inv-2127868864\n":                                                                                   "",
		"R0=scalar(smin=-2147483648,smax=2147483647,umin=0xffffffff80000000,umax=0xffffffffffffffff,var_off=(0xffffffff80000000; 0x7fffffff))": "",
		"R0=inv(id=0,umin_value=18446744071562067968,var_off=(0xffffffff80000000; 0xffffffff))":                                                "",
		"R0=inv(id=0,umax_value=18446612682259578880,var_off=(0x0; 0xffff88800b4c4000))":                                                       "", // worked out, from no address
		"processed 123456789 insns (limit 1000000) max_states_per_insn 0":                                                                      "",
		"R1=facade00deadbeef decade":                                                                                                           "",
	} {
		if want == "" {
			want = in
		}
		b := []byte(in)
		New(Four).Text(b)
		qt.Check(t, qt.Equals(string(b), want))
	}
	b := []byte("R1_w=inv-65971697666560512")
	New(Five).Text(b) // 0xff159f...
	qt.Check(t, qt.Equals(string(b), "R1_w=inv-*****************"))
}

// A log that was cut, by whoever.
func TestLog(t *testing.T) {
	for _, test := range []struct {
		in, want string
		cut      bool
	}{
		{"3: (18) r1 = 0xffff8881", "3: (18) r1 = 0xf*******", false},
		{"03c5ec00\n4: (95) exit\n", "********\n4: (95) exit\n", false},
		{"03c5ec00       ; R1_w=map_ptr(off=0)\n", "********       ; R1_w=map_ptr(off=0)\n", false},
		{"3: R1=scalar(umax=0xffffffffffffffff", "3: R1=scalar(umax=0xf***************", false},
		// What logs begin with.
		{"0: R1=ctx R10=fp0\n", "", false}, {"func#0 @0\n", "", false}, {"fd 3 is not pointing to valid bpf_map\n", "", false}, {"1234567: (bf) r1 = r2\n", "", false},
		{"btf_vmlinux is malformed\n", "", false}, {"back-edge from insn 5 to 2\n", "", false}, {"arg#0 type is not a struct\n", "", false},
		// In the middle of one.
		{"ec00 ; R1_w=0\n", "**** ; R1_w=0\n", true}, {"xffffffff812b4c40 ;\n", "x**************** ;\n", true},
		{"= 0xffffffff812b4c40\n5: (b7) r1 = -2127868864\n", "= 0x****************\n5: (b7) r1 = -2127868864\n", true},
	} {
		if test.want == "" {
			test.want = test.in
		}
		b := []byte(test.in)
		New(Four).Log(b, test.cut)
		qt.Check(t, qt.Equals(string(b), test.want))
	}
}

// TestCutLog: wherever a log is cut, no digit of an address is left on either side that tells more
// than that it is one.
func TestCutLog(t *testing.T) {
	cuts := 0
	for _, test := range []struct{ before, address, after string }{
		{"3: (18) r1 = 0x", "ffff888103c5ec00", "\n4: (95) exit\n"},
		{"3: (18) r1 = 0x", "ffff888103c5ec00", "       ; R1_w=map_ptr(map=values,ks=4,vs=8)\n"},
		{"3: (18) r1 = 0x", "ffffc900004c5000", " ; \n"},
		{"0: (18) r1 = 0x", "ffffffff812b4c40", "        ; R1_w=0x0\n"},
		{"0: (18) r1 = 0x", "ff1100000b4c4000", "        ; R1_w=0x0\n"},
		{"0: (bf) r2 = r1\n2: R1_w=inv-", "131391453184000", " R10=fp0\n"},
		{"at ", "ffff888103c5ec00", ", they say"},
	} {
		text := test.before + test.address + test.after
		for at := range len(test.address) + 1 {
			at += len(test.before)
			for _, cut := range []bool{true, false} {
				first, second := []byte(text[:at]), []byte(text[at:])
				if cut {
					second = append(second, strings.Repeat("5: (95) exit\n", 3)...)
				}
				l := New(Five)
				l.Log(first, false)
				l.Log(second, cut)
				cuts++
				if rest := string(first[min(len(first), len(test.before)):]); strings.Trim(rest, "f*") != "" || len(strings.Trim(rest, "*")) > 2 {
					t.Errorf("%q, cut at %d: %q", text, at, first)
				}
				rest, _, _ := strings.Cut(string(second), test.after)
				if left := strings.Trim(rest, "*"); left != "" && (cut || len(left) > 4 || strings.ContainsAny(left, "0123456789")) {
					t.Errorf("%q, cut at %d: %q", text, at, second)
				}
			}
		}
	}
	t.Logf("%d cuts", cuts)
}

func TestInstructions(t *testing.T) {
	const (
		address = "1801000000ecc503" + "00000000" + "8188ffff" // r1 = 0xffff888103c5ec00
		text    = "18010000404c2b81" + "00000000" + "ffffffff"
		hash    = "b7010000efbeadde"                           // r1 = -559038737
		wide    = "1801000000000000" + "00000000" + "ffffffff" // r1 = 0xffffffff00000000
		exit    = "9500000000000000"
		cpu     = "b4000000404c2b81" + "bf00ffff00000000" // w0 = the address of a per-CPU variable; r0 = that of this CPU's
	)
	const none = "18010000d7adad0b" + "00000000" + "d7adad0b"
	check := func(in, want string, cut bool) {
		b, err := hex.DecodeString(in)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(New(Four).Hold(b, cut), want != ""))
		qt.Check(t, qt.Equals(hex.EncodeToString(b), in))
		New(Four).Instructions(b, cut)
		if want == "" {
			want = in
		}
		qt.Check(t, qt.Equals(hex.EncodeToString(b), want))
	}
	// A stretch that begins in the middle of one.
	check(address[16:]+exit, "00000000"+"00000000"+exit, true)
	check(text[16:]+exit, "00000000"+"00000000"+exit, true)
	check("00000000"+"78563412"+exit, "", true)
	check(address[16:]+exit, "", false) // no address: nothing comes before
	check(exit+address[16:], "", true)
	for in, want := range map[string]string{
		address + exit:        none + exit,
		text + hash:           none + hash,
		cpu + exit:            "b4000000d7adad0b" + "bf00ffff00000000" + exit,
		hash + wide + exit:    "",
		exit + address[:16]:   exit + "1801000000000000", // cut in its middle
		address + address[:8]: none + address[:8],
	} {
		check(in, want, false)
	}
}

func TestMessage(t *testing.T) {
	args := [4]uint64{0xffff888012345678, 0xffff888100000007, 1<<64 - 1<<31, 0xffffc90000025000}
	texts := [4]string{"R1", "secret", "secret", "secret"}
	New(Four).Message("%s off=%d value %lld 100%%\n", &args, &texts)
	qt.Check(t, qt.Equals(args, [4]uint64{Placeholder, 7, 1<<64 - 1<<31, 0}))
	qt.Check(t, qt.Equals(texts, [4]string{"R1"}))

	args, texts = [4]uint64{0, 3, 0xffff888012345678, 0xffffffff812b4c40}, [4]string{"", "", "x", "x"}
	New(Four).Message("%s %*llx %llx", &args, &texts)
	qt.Check(t, qt.Equals(args, [4]uint64{0, 3, Placeholder, Placeholder}))
	qt.Check(t, qt.Equals(texts, [4]string{}))
}

// FuzzText: whatever the text, it keeps its length and its lines, and a second time finds nothing
// more.
func FuzzText(f *testing.F) {
	f.Add([]byte("3: (18) r1 = 0xffff888103c5ec00\n4: R1_w=inv-131391453184000 ffff888103c5ec00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		l := New(Levels(4 + rand.IntN(2)))
		out := bytes.Clone(in)
		l.Log(out, rand.IntN(2) == 0)
		qt.Assert(t, qt.Equals(len(out), len(in)))
		qt.Assert(t, qt.Equals(bytes.Count(out, []byte("\n")), bytes.Count(in, []byte("\n"))))
		again := bytes.Clone(out)
		l.Text(again)
		qt.Assert(t, qt.Equals(string(again), string(out)))
	})
}

func BenchmarkLog(b *testing.B) {
	line := []byte("12345: (bf) r1 = r10                      ; R1_w=fp0 R2=scalar(umin=18446744071562067968,var_off=(0x0; 0xffffffff)) R10=fp0\n")
	log := bytes.Repeat(line, 4000)
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		New(Four).Log(log, false)
	}
}
