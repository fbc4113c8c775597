// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/nodediff"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

func newNodeDiff(io std) *cobra.Command {
	var traceFile string
	var asJSON bool
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two nodes: why a program loads on one and not on the other",
		Long: `Compare two profiles. A profile is a file written by 'bpfwhy node --json', or a
trace, which contains one. Differences that decide whether programs load come
first, with the reason.

With --trace, say which difference explains each failure in a recording of
'watch --record' or 'run --record'. The recording must come from one of the two
nodes. With one profile only, it is compared with the recording's own. The
status is 1 when --trace has failures and no difference explains any of them.`,
		Example: `  bpfwhy node diff good.json bad.json
  bpfwhy node diff good.json --trace failed-on-bad.bpfwhy`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 2, len(args) == 1 && traceFile != "":
				return nil
			case len(args) == 1:
				return errors.New("node diff: there is only one profile; give a second one, or --trace FILE")
			}
			return errors.New("node diff: give two profiles, or one profile and --trace FILE")
		},
		RunE: func(_ *cobra.Command, args []string) error { return diffNodes(io, args, traceFile, asJSON) },
	}
	c.Flags().StringVar(&traceFile, "trace", "", "a recording from one of the two: say which difference explains its failures")
	c.Flags().BoolVar(&asJSON, "json", false, "as one line of JSON")
	return c
}

//revive:disable-next-line:cyclomatic two files or one, with a trace or without
func diffNodes(io std, files []string, traceFile string, asJSON bool) error {
	var profiles []*node.Profile
	for _, f := range files {
		p, err := readProfile(f)
		if err != nil {
			return err
		}
		profiles = append(profiles, p)
	}
	var recording *trace.Reader
	if traceFile != "" {
		f, err := os.Open(traceFile)
		if err != nil {
			return fmt.Errorf("node diff: %w", err)
		}
		defer f.Close()
		if recording, err = trace.NewReader(f); err != nil {
			return fmt.Errorf("node diff: %s: %w", traceFile, err)
		}
		h := recording.Header()
		if len(profiles) == 1 {
			profiles, files = []*node.Profile{&h.Node, profiles[0]}, []string{traceFile, files[0]}
		} else if on, err := nodediff.RecordedOn(h, profiles); err != nil {
			return fmt.Errorf("node diff: %s %w", traceFile, err)
		} else if on == 1 { // what failed is A
			slices.Reverse(profiles)
			slices.Reverse(files)
		}
	}
	d := nodediff.New(profiles[0], profiles[1], [2]string(files))
	var cut error // a recording that ends early still says what is in it
	if recording != nil {
		s, err := newSession(recording.Header(), &selection{std: io, failed: true, all: true}, diffSink{d})
		if err != nil {
			return err
		}
		if err := s.replay(recording); err != nil {
			cut = fmt.Errorf("node diff: %s: %w", traceFile, err)
		}
	}
	var err error
	if asJSON {
		err = render.JSON(io.out, d)
	} else {
		err = io.text().NodeDiff(d, traceFile)
	}
	switch {
	case err != nil:
		return err
	case cut != nil:
		return cut
	case len(d.Failures) > 0 && !d.Explained():
		return &status{code: negative}
	}
	return nil
}

// readProfile reads a profile of its own, or that of a trace.
func readProfile(file string) (*node.Profile, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("node diff: %w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if trace.Recorded(in) {
		r, err := trace.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("node diff: %s: %w", file, err)
		}
		p := r.Header().Node
		return &p, nil
	}
	p, err := node.Decode(in)
	if err != nil {
		return nil, fmt.Errorf("node diff: %s: %w", file, err)
	}
	return p, nil
}

// diffSink gives the attempts of a trace to a report.
type diffSink struct{ *nodediff.Report }

func (s diffSink) attempt(a *load.Attempt) error {
	s.Add(a)
	return nil
}
