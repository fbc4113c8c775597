// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/go-quicktest/qt"
)

const source = `
#define verbose(env, fmt, args...) bpf_verifier_log_write(env, fmt, \
	##args)
/* verbose(env, "in a comment\n") */
static const char *name(int n) { return "no sentence"; }

static int check(struct bpf_verifier_env *env, // verbose(env, "nor this")
		 int regno)
{
	if (regno > 3) {
		verbose(env, "R%d is \"odd\" "
			"and %s\n", regno, name(regno));
		verbose(env, "R%d is \"odd\" and %s\n", regno, name(regno));
	}
	verbose(env, regno ? "one\n" : "other\n");
	bpf_log(&env->log, "%s goes to %s\n", reg_arg_name(env, argno), name(1));
	verifier_bug_if(f("x", 1), env, "lost %d", regno);
	btf_verifier_log_member(env, t, member, "Invalid offset");
	return check_resource_leak(env, true, !env->lock, "tail_call");
}
`

func TestExtract(t *testing.T) {
	want := []string{
		`R%d is \"odd\" and %s\n`,
		`one\n`, `other\n`,
		`R%d goes to %s\n`,
		`verifier bug: lost %d`,
		`\t%s type_id=%u bits_offset=%u Invalid offset`,
		`tail_call`,
	}
	var got []string
	for _, s := range extract("kernel/bpf/verifier.c", source) {
		qt.Check(t, qt.Equals(s.function, "check"))
		got = append(got, s.format)
	}
	qt.Check(t, qt.DeepEquals(got, want))
}

func TestFiles(t *testing.T) {
	for name, want := range map[string]bool{
		"kernel/bpf/btf.c":              true,
		"include/linux/bpf_verifier.h":  true,
		"net/ipv4/bpf_tcp_ca.c":         true,
		"tools/lib/bpf/libbpf.c":        false,
		"kernel/bpf/Makefile":           false,
		"drivers/gpu/drm/drm_verbose.c": false,
	} {
		qt.Check(t, qt.Equals(mayPrint(name), want), qt.Commentf("%s", name))
	}
}
