// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
)

func TestResolve(t *testing.T) {
	f, err := os.Open("testdata/Packages")
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	index := parseIndex(f, "")
	qt.Check(t, qt.HasLen(index, 6)) // one of each linux-* name

	tests := []struct {
		name  string
		want  []string
		error string
	}{
		{name: "linux-image-cloud-amd64", want: []string{
			"linux-image-cloud-amd64 7.2.13-1",
			"linux-image-7.2.13+deb14-cloud-amd64 7.2.13-1",
			"linux-binary-7.2.13+deb14-cloud-amd64 7.2.13-1",
		}},
		{name: "linux-image-7.2.9+deb14-cloud-amd64", want: []string{"linux-image-7.2.9+deb14-cloud-amd64 7.2.9-1"}},
		{name: "linux-image-of-a-description", error: "no package linux-image-of-a-description"},
		{name: "zlib1g", error: "no package zlib1g"},
		{name: "linux-image-broken", error: "linux-image-broken depends on linux-image-gone, which the index does not have"},
		{name: "linux-image-rotated", error: `linux-image-rotated depends on linux-image-7.2.9\+deb14-cloud-amd64 \(= 7.2.10-1\), but the index has 7.2.9-1`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			packages, err := resolve(index, test.name)
			if test.error != "" {
				qt.Assert(t, qt.ErrorMatches(err, test.error))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			var got []string
			for _, p := range packages {
				got = append(got, p.name+" "+p.version)
			}
			qt.Check(t, qt.DeepEquals(got, test.want))
		})
	}
}

func TestIsKernelFile(t *testing.T) {
	for name, want := range map[string]bool{
		"boot/vmlinuz-6.1.0-56-cloud-amd64":                    true,
		"usr/lib/modules/7.2.13+deb14-cloud-amd64/vmlinuz":     true,
		"lib/modules/7.2.13+deb14-cloud-amd64/vmlinuz":         true,
		"boot/config-6.1.0-56-cloud-amd64":                     false,
		"usr/share/doc/linux-image-6.1.0-56-cloud-amd64/news":  false,
		"usr/lib/modules/7.2.13/kernel/arch/x86/kvm/kvm.ko.xz": false,
	} {
		qt.Check(t, qt.Equals(isKernelFile(name), want), qt.Commentf("%s", name))
	}
}

func TestCompareVersions(t *testing.T) {
	// Each list is in ascending order.
	for _, ascending := range [][]string{
		{"5.10.223-1", "5.10.262-1"},
		{"6.1.99-1", "6.1.176-1", "6.1.192-1", "6.1.192-2", "6.1.192-10"},
		{"6.12.117-1~deb12u1", "6.12.117-1", "6.12.117-1+b1"},
		{"7.2~rc1-1~exp1", "7.2-1", "7.2.13-1"},
		{"2.0", "1:1.0"},
		{"1.0a", "1.0+"},
		{"1.0", "1.0-1"},
	} {
		for i, a := range ascending {
			qt.Check(t, qt.Equals(compareVersions(a, a), 0))
			for _, b := range ascending[i+1:] {
				qt.Check(t, qt.IsTrue(compareVersions(a, b) < 0), qt.Commentf("%s < %s", a, b))
				qt.Check(t, qt.IsTrue(compareVersions(b, a) > 0), qt.Commentf("%s > %s", b, a))
			}
		}
	}
	qt.Check(t, qt.Equals(compareVersions("1.01-1", "1.1-1"), 0)) // numbers, not digits
	qt.Check(t, qt.Equals(compareVersions("0:1-1", "1-1"), 0))
}

func TestConfiguredSources(t *testing.T) {
	got, err := configuredSources("testdata/apt")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.CmpEquals(got, []source{
		{"http://mirror.example/debian", "bookworm", "/usr/share/keyrings/mine.gpg"},
		{"http://security.example/debian-security", "bookworm-security", ""},
		{"mirror+file:///etc/apt/mirrors/debian.list", "trixie", ""},
		{"mirror+file:///etc/apt/mirrors/debian.list", "trixie-updates", ""},
		{"http://second.example/debian", "trixie", ""},
		{"http://second.example/debian", "trixie-updates", ""},
	}, cmp.AllowUnexported(source{})))

	none, err := configuredSources(t.TempDir())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(none, 0))
}

func TestMirrorsOf(t *testing.T) {
	configured := []source{
		{"http://mirror.example/debian", "bookworm", "/k.gpg"},
		{"http://mirror.example/debian", "bookworm-updates", "/k.gpg"},
		{"http://security.example/debian-security", "bookworm-security", ""},
	}
	equals := func(got, want []source) qt.Checker { return qt.CmpEquals(got, want, cmp.AllowUnexported(source{})) }
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	qt.Check(t, equals(mirrorsOf("sid", configured), []source{
		{"http://mirror.example/debian", "sid", "/k.gpg"},
		{defaultMirror, "sid", keyring},
		{defaultArchive + "debian", "sid", keyring},
	}))
	qt.Check(t, equals(mirrorsOf("bullseye-security", configured), []source{
		{"http://security.example/debian-security", "bullseye-security", keyring},
		{defaultSecurityMirror, "bullseye-security", keyring},
		{defaultArchive + "debian-security", "bullseye-security", keyring},
	}))
	// Debian's own mirror, where it is the configured one, comes once.
	qt.Check(t, equals(mirrorsOf("sid", []source{{defaultMirror, "bookworm", keyring}}), []source{
		{defaultMirror, "sid", keyring},
		{defaultArchive + "debian", "sid", keyring},
	}))
}

func FuzzParseSources(f *testing.F) {
	for _, file := range []string{"testdata/apt/sources.list", "testdata/apt/sources.list.d/debian.sources", "testdata/Packages"} {
		seed, err := os.ReadFile(file)
		qt.Assert(f, qt.IsNil(err))
		f.Add(string(seed))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseOneLine(text), parseDeb822(text)...) {
			if strings.ContainsAny(s.uri+s.suite+s.signedBy, " \t\n") {
				t.Errorf("%+q has white space, which would become another field for apt", s)
			}
		}
		for name := range parseIndex(strings.NewReader(text), "") {
			resolve(parseIndex(strings.NewReader(text), ""), name)
		}
	})
}
