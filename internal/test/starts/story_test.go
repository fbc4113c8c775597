// SPDX-License-Identifier: Apache-2.0

package starts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

const (
	document = "../../../docs/stories.md"
	// maxFixture is the size of a recording, in bytes.
	maxFixture = 16 << 10
)

// stories are what is told of a recording.
func stories(t *testing.T, name string) []load.Story {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".trace"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(len(data) <= maxFixture), qt.Commentf("%s: %d bytes", name, len(data)))
	return storiesOf(t, data)
}

func storiesOf(t *testing.T, recording []byte) (list []load.Story) {
	t.Helper()
	r, err := trace.NewReader(bytes.NewReader(recording))
	qt.Assert(t, qt.IsNil(err))
	for e, err := range diagnose.Run(r.Header(), diagnose.File(r), diagnose.Options{Count: true}) {
		qt.Assert(t, qt.IsNil(err))
		if e.Story != nil {
			list = append(list, *e.Story)
		}
	}
	return list
}

// TestStories: each start is one story, with the numbers that its author knows.
func TestStories(t *testing.T) {
	for _, s := range starts {
		t.Run(s.name, func(t *testing.T) { s.check(t, stories(t, s.name)) })
	}
}

// check compares what is told with what the author knows. A loader in Go loads in any order.
func (s *start) check(t *testing.T, list []load.Story) {
	t.Helper()
	qt.Assert(t, qt.HasLen(list, 1))
	got, want := list[0], s.want
	for i := range got.Failures {
		qt.Check(t, qt.Not(qt.Equals(got.Failures[i].Title, "")))
		got.Failures[i].Title = "" // explain's
	}
	slices.Sort(got.Unattached)
	want.Unattached = slices.Sorted(slices.Values(want.Unattached))
	want.Schema, want.Kind, want.Process = load.Schema, load.KindStory, got.Process
	want.Time, want.First, want.Last = got.Time, got.First, got.Last
	qt.Check(t, qt.DeepEquals(got, want))
}

// TestDocument: docs/stories.md shows the stories as they are told today.
func TestDocument(t *testing.T) {
	want := page(t)
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(document, []byte(want), 0o644)))
	}
	have, err := os.ReadFile(document)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(have), want), qt.Commentf("go test -run TestDocument ./internal/test/starts -update writes it"))
}

func page(t *testing.T) string {
	var b strings.Builder
	b.WriteString(`# Stories

<!-- Written by ` + "`go test -run TestDocument ./internal/test/starts -update`" + `. Do not edit. -->

` + "`bpfwhy run` and `bpfwhy watch`" + ` tell the start of each loader as one story. They do so when the
loader has made no call for three seconds, or has ended. A story says how many maps, programs and
attachments worked, what failed, and which programs were loaded and never attached. With
` + "`--json`" + ` a story is a line of kind ` + "`story`" + `
([the schema](schema/load-v2.schema.json)).

These are real starts, recorded in the lab on Linux ` + release(t) + `.
` + "`bpfwhy explain FILE`" + ` tells them again from the recordings (internal/test/starts/testdata). The
machine was emulated, so the times mean nothing.
`)
	for _, s := range starts {
		command := strings.Join(s.command, " ")
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```\n$ %s\n%s```\n", s.title, strings.TrimSpace(s.about), by(s)+strings.ReplaceAll(command, inGuest+"/", "./"), text(t, s.name))
	}
	return b.String()
}

func by(s start) string {
	if s.watch {
		return "bpfwhy watch &\n$ "
	}
	return "bpfwhy run -- "
}

// text is a story on a terminal.
func text(t *testing.T, name string) string {
	var b bytes.Buffer
	for _, s := range stories(t, name) {
		qt.Assert(t, qt.IsNil(render.NewText(&b, 80, false).Story(&s)))
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), inGuest+"/", "./")
}

func release(t *testing.T) string {
	data, err := os.ReadFile(filepath.Join("testdata", agent.name+".trace"))
	qt.Assert(t, qt.IsNil(err))
	r, err := trace.NewReader(bytes.NewReader(data))
	qt.Assert(t, qt.IsNil(err))
	return r.Header().Node.Release
}
