// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/objects/check"
)

// Checkout is where a SARIF log is made: code scanning shows results at paths relative to the
// repository.
type Checkout struct {
	Top     string // of the repository; absolute
	Dir     string // where bpfwhy was run; absolute
	Files   fs.FS  // those below Top
	Version string // of this tool
}

// The part of SARIF 2.1.0 that is written. Names and meanings are those of the standard (OASIS, 27
// March 2020).
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Bases       map[string]any    `json:"originalUriBaseIds"`
		Results     []sarifResult     `json:"results"`
		ColumnKind  string            `json:"columnKind"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID         string         `json:"id"`
		Name       string         `json:"name"`
		Short      sarifText      `json:"shortDescription"`
		Full       sarifText      `json:"fullDescription"`
		Help       sarifMarkdown  `json:"help"`
		HelpURI    string         `json:"helpUri"`
		Default    sarifLevel     `json:"defaultConfiguration"`
		Properties map[string]any `json:"properties"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifMarkdown struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown"`
	}
	sarifLevel struct {
		Level string `json:"level"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Related      []sarifLocation   `json:"relatedLocations,omitempty"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   map[string]any    `json:"properties"`
	}
	sarifLocation struct {
		ID       int             `json:"id,omitempty"`
		Physical sarifPhysical   `json:"physicalLocation"`
		Message  *sarifText      `json:"message,omitempty"`
		Logical  []sarifFunction `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI  string `json:"uri"`
		Base string `json:"uriBaseId,omitempty"`
	}
	sarifRegion struct {
		Start   int        `json:"startLine"`
		Snippet *sarifText `json:"snippet,omitempty"`
	}
	sarifFunction struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
)

const (
	sarifSchema = "https://json.schemastore.org/sarif-2.1.0.json"
	project     = "https://github.com/bpfwhy/bpfwhy"
	sourceRoot  = "%SRCROOT%"
)

// SARIF writes the programs that do not load as a SARIF 2.1.0 log that code-scanning pages take:
// paths relative to the checkout, the texts of the rules, and fingerprints that stay when lines
// move. A result is shown at the line of the jump, or at the object where its lines are not known
// or the checkout has no such file.
func SARIF(w io.Writer, r *check.Report, at Checkout) error {
	run := sarifRun{
		Tool:        sarifTool{sarifDriver{Name: "bpfwhy", Version: at.Version, InformationURI: project, Rules: []sarifRule{}}},
		Invocations: []sarifInvocation{{Successful: r.Summary.Bad == 0}},
		Bases:       map[string]any{sourceRoot: map[string]any{"description": sarifText{"The top of the checkout."}}},
		Results:     []sarifResult{}, ColumnKind: "utf16CodeUnits",
	}
	for _, o := range r.Objects {
		if o.Error != "" {
			n := &run.Invocations[0]
			n.Notifications = append(n.Notifications, sarifNotification{"error", sarifText{o.Path + ": " + o.Error}})
		}
		for i := range o.Programs {
			if p := &o.Programs[i]; p.Verdict != check.Loads || p.Tight {
				run.Results = append(run.Results, at.result(o.File(), p, r.MinMargin, &run.Tool.Driver))
			}
		}
	}
	return JSON(w, sarifLog{sarifSchema, "2.1.0", []sarifRun{run}})
}

// rule returns the index of a rule, which it adds when it is new.
func (d *sarifDriver) rule(id string) int {
	if i := slices.IndexFunc(d.Rules, func(r sarifRule) bool { return r.ID == id }); i >= 0 {
		return i
	}
	known, _ := explain.ByID(id)
	text := cmp.Or(known.Text, id)
	remedies := ""
	for _, r := range known.Remedies {
		remedies += "\n- " + r.Title + ". " + r.Price
		if r.Command != "" {
			remedies += " `" + strings.ReplaceAll(r.Command, "\n", "` `") + "`"
		}
	}
	first, _, _ := strings.Cut(text, "\n\n")
	d.Rules = append(d.Rules, sarifRule{
		ID: id, Name: sarifName(known.Title), Short: sarifText{cmp.Or(known.Title, id)}, Full: sarifText{first},
		Help:    sarifMarkdown{text + "\n" + strings.ReplaceAll(remedies, "`", ""), text + "\n\n**What helps**\n" + remedies},
		HelpURI: project + "/blob/main/docs/rules.md#" + strings.ToLower(id),
		Default: sarifLevel{"error"},
		Properties: map[string]any{
			"tags": []string{"bpf", "hardening", "reliability"}, "precision": "high", "problem.severity": "error",
		},
	})
	return len(d.Rules) - 1
}

// sarifName is a title as an identifier.
func sarifName(title string) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(title, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') }) {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return cmp.Or(b.String(), "Rule")
}

func (c Checkout) result(path string, p *check.Program, minMargin int, d *sarifDriver) sarifResult {
	level := "warning"
	if p.Rejected {
		level = "error"
	}
	id := p.Failure()
	r := sarifResult{
		RuleID: id, RuleIndex: d.rule(id), Level: level, Message: sarifText{sarifMessage(path, p, minMargin)}, Locations: []sarifLocation{c.object(path)},
		Properties: map[string]any{
			"object": path, "program": p.Name, "section": p.Section, "verdict": p.Verdict, "confidence": p.Confidence, "margin": p.Margin,
			"insns": p.Insns, "blinded_insns": p.Blinded,
		},
	}
	from, to := "", ""
	if j := p.Jump; j != nil {
		if l, ok := c.line(j.Source); ok {
			l.Logical = []sarifFunction{{j.Function, "function"}}
			r.Locations = []sarifLocation{l}
		}
		if l, ok := c.line(j.Target); ok {
			l.ID, l.Message = 1, &sarifText{"The jump goes here."}
			r.Related = append(r.Related, l)
		}
		if j.Source != nil {
			from = j.Source.File + "\x00" + j.Source.Text
		}
		if j.Target != nil {
			to = j.Target.File + "\x00" + j.Target.Text
		}
	}
	// Neither lines nor distances: they move with every change of the source.
	sum := sha256.Sum256([]byte(strings.Join([]string{id, filepath.Base(path), p.Name, from, to}, "\x00")))
	r.Fingerprints = map[string]string{"bpfwhyJump/v1": hex.EncodeToString(sum[:16])}
	return r
}

func sarifMessage(path string, p *check.Program, minMargin int) string {
	will, need := "will", "makes"
	if p.MayOnly() {
		will, need = "may", "may make"
	}
	fate := will + " not load where net.core.bpf_jit_harden is 2"
	switch p.Verdict {
	case check.Loads:
		fate = fmt.Sprintf("will load where net.core.bpf_jit_harden is 2, with only %s to spare (at least %d were asked for)", plural(p.Margin, "slot"), minMargin)
	case check.Wraps:
		fate = will + " be compiled wrong where net.core.bpf_jit_harden is 2 (kernels before 7.3 and 7.2.10)"
	}
	s := fmt.Sprintf("Program %s of %s %s", p.Name, filepath.Base(path), fate)
	if j := p.Jump; j != nil {
		s += fmt.Sprintf(": blinding %s a jump in %s need the offset %d, and 16 bits reach %d", need, j.Function, j.Need, j.Limit)
	}
	return s + "." + alsoPossible(p) + " 'bpfwhy fix' repairs the object."
}

// object is the location of a whole object. Pages refuse a log with a result that has no location
// at all: an object that lies outside of the checkout is shown by its name.
func (c Checkout) object(path string) sarifLocation {
	uri, ok := c.file(path, c.Dir)
	if !ok {
		uri = escapePath(filepath.Base(path))
	}
	return sarifLocation{Physical: sarifPhysical{Artifact: sarifArtifact{uri, sourceRoot}, Region: &sarifRegion{Start: 1}}}
}

// line is the location of a line of source, if its file is there. An object names its sources as
// its compiler saw them: from the folder in which that ran, which need not be this one.
func (c Checkout) line(s *check.Source) (sarifLocation, bool) {
	if s == nil || s.Line < 1 {
		return sarifLocation{}, false
	}
	uri, ok := c.file(s.File, c.Dir, c.Top)
	if !ok {
		return sarifLocation{}, false
	}
	region := &sarifRegion{Start: s.Line}
	if s.Text != "" {
		region.Snippet = &sarifText{s.Text}
	}
	return sarifLocation{Physical: sarifPhysical{Artifact: sarifArtifact{uri, sourceRoot}, Region: region}}, true
}

// file gives a file of the checkout as a reference relative to its top. A relative path is looked
// for from each of the folders.
func (c Checkout) file(path string, from ...string) (uri string, ok bool) {
	for _, dir := range from {
		full := path
		if !filepath.IsAbs(path) {
			full = filepath.Join(dir, path)
		}
		rel, err := filepath.Rel(c.Top, full)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		if info, err := fs.Stat(c.Files, filepath.ToSlash(rel)); err == nil && info.Mode().IsRegular() {
			return escapePath(rel), true
		}
	}
	return "", false
}

// escapePath: a colon in the first segment would begin a scheme, hence String and not EscapedPath.
func escapePath(path string) string { return (&url.URL{Path: filepath.ToSlash(path)}).String() }
