// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Summary counts what was seen.
type Summary struct {
	For          time.Duration  `json:"-"` // 0: of a recording
	Attempts     int            `json:"attempts"`
	Loaded       int            `json:"loaded"`
	NotJITed     int            `json:"loaded_not_jited"`
	Failed       int            `json:"failed"`
	Rules        map[string]int `json:"rules"` // findings by rule
	FeatureProbe int            `json:"feature_probes"`
	LeftOut      int            `json:"left_out"` // healthy calls that are not loads
	Repeats      int            `json:"repeats"`  // of Attempts, those that were counted and not told
	trace.Losses
	Incomplete int `json:"incomplete"` // attempts that a hole touched
	Hanging    int `json:"hanging"`    // loads that had not come back when it was last looked
}

// Add counts one attempt; shown says whether it was one to show.
func (s *Summary) Add(a *load.Attempt, shown bool) {
	if a.FeatureProbe != "" {
		s.FeatureProbe++
	} else if !shown {
		s.LeftOut++
	}
	if a.Incomplete {
		s.Incomplete++
	}
	if !shown {
		return
	}
	s.Attempts++
	switch a.Outcome {
	case load.Loaded:
		s.Loaded++
	case load.LoadedNotJITed:
		s.NotJITed++
	default:
		s.Failed++
	}
	if a.Diagnosis != nil && a.Finding() {
		if s.Rules == nil {
			s.Rules = map[string]int{}
		}
		s.Rules[a.Diagnosis.Rule]++
	}
}

// AddRepeat counts an attempt like one that was told.
func (s *Summary) AddRepeat(a *load.Attempt) {
	s.Add(a, true)
	s.Repeats++
}

// Summary writes the counts.
func (t *Text) Summary(s *Summary) error {
	p := page{t: t}
	head := plural(s.Attempts, "load")
	if s.For > 0 {
		head += " in " + s.For.Round(100*time.Millisecond).String()
	}
	head += fmt.Sprintf(": %d ok, %d failed, %d loaded but NOT jited", s.Loaded, s.Failed, s.NotJITed)
	p.b.WriteString(t.bold(head) + "\n")
	if len(s.Rules) > 0 {
		p.print("by rule", counts(s.Rules))
	}
	if s.FeatureProbe+s.LeftOut > 0 {
		p.print("left out", fmt.Sprintf("%s by loaders, %s for maps, BTF, links and the like",
			plural(s.FeatureProbe, "feature probe"), plural(s.LeftOut, "healthy call")))
	}
	if s.Hanging > 0 {
		p.print("hanging", plural(s.Hanging, "load")+" had not returned at the last look")
	}
	if s.Repeats > 0 {
		p.print("again", fmt.Sprintf("%s of failures that were explained already", plural(s.Repeats, "repeat")))
	}
	if s.LostLoads > 0 {
		least := ""
		if slices.Contains(s.Unknown, trace.LostLoads) { // ends of calls were missed
			least = "at least "
		}
		p.print("lost", least+plural(int(s.LostLoads), "failing load")+", about which nothing else is known")
	}
	if len(s.Lost) > 0 {
		p.print("lost", "events: "+counts(s.Lost))
	}
	if len(s.Unknown) > 0 {
		p.print("lost", "counted only in part: "+strings.Join(s.Unknown, ", "))
	}
	if s.Incomplete > 0 {
		p.print("lost", "parts of "+plural(s.Incomplete, "load")+", marked as incomplete")
	}
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// counts lists the most frequent first.
func counts[N cmp.Ordered](m map[string]N) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %v", k, m[k])
	}
	return strings.Join(keys, ", ")
}
