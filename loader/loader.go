// SPDX-License-Identifier: Apache-2.0

// Package loader loads BPF programs like github.com/cilium/ebpf, survives
// hardened kernels, and says why what fails does.
//
// Its functions stand in for those of cilium/ebpf: [NewCollection],
// [NewCollectionWithOptions], [NewProgram], [NewProgramWithOptions], and
// [LoadAndAssign] for the method of CollectionSpec. They load as cilium/ebpf
// does. Where constant blinding (net.core.bpf_jit_harden) makes a jump of a
// program too long, so that the kernel refuses the program with errno 524 or
// interprets it without a word, they rewrite the program, so that such a jump
// hops over an island or two (package rewrite), and load it again. A program
// that the kernel takes as it is, is left as it is.
//
// Under lockdown=confidentiality cilium/ebpf takes the missing
// bpf_probe_read_kernel for a kernel before 5.5, and makes bpf_probe_read of
// bpf_probe_read_user, which the kernel would take, but not this. Programs that
// read memory of processes, such as those on uprobes, are loaded as they are
// written there.
//
// What a program that fails costs is bounded: see [Loader.WholeLog]. A program that the kernel
// would interpret though it cannot, which may crash the machine, is not returned: see [ErrJITOnly].
//
// Errors wrap those of cilium/ebpf and carry a diagnosis: see [Error].
// [Explain] gives the same to those who keep their own loading.
//
// A program that was rewritten for blinding does not have the instructions of its
// spec any more: its tag is another, and ebpf.ProgramSpec.Compatible says so. Lines of
// source, functions and relocations are those of the spec.
//
// Nothing here needs more privileges than the load itself. Without CAP_BPF the
// kernel does not say whether a program is compiled: then errors alone lead to a
// repair.
package loader

import (
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/cilium/ebpf"
)

// Loader loads programs and remembers which of them blinding breaks on this node, and that it is
// locked down, so that it need not fail to load them again. The zero value is ready. It can be used
// by several goroutines and must not be copied.
type Loader struct {
	// Off never repairs a program. Errors are explained all the same, and a
	// program that a hardened kernel would compile wrongly is still refused:
	// see [ErrMiscompiled].
	Off bool
	// Limits are the largest distances that a rewritten jump may keep, in slots
	// after blinding, to be tried one after the other until the kernel takes
	// the program. nil is a list that begins with the widest of which it is
	// predicted that it will do. They must be in 16..32767.
	Limits []int
	// Gotol rewrites with gotol, one for any distance, where a probe shows that
	// the kernel takes it (6.6, or a backport).
	Gotol bool
	// RequireJIT makes a program that comes back un-jited, and cannot be
	// helped, an error, for whatever reason it is so: an interpreter is what
	// hardening is to keep out. By default such a program is returned, as
	// cilium/ebpf does.
	RequireJIT bool
	// AllowJITOnly returns programs that the kernel would interpret though they have what only
	// compiled code can run, instead of [ErrJITOnly]. To run one may crash the machine: it is for
	// those who load to look, and never attach.
	AllowJITOnly bool
	// WholeLog gets the log of a program that fails as cilium/ebpf does: by loading it again and
	// again with a buffer that doubles up to 1 GiB. By default a program that fails is loaded three
	// times at most as a rule: without a log, for the verifier's complaint and statistics, and for
	// the walk that led there if it is 32,768 instructions at most. The buffer for that has 8 MiB,
	// and grows only where lines are longer than usual. Options with a LogLevel are left to
	// cilium/ebpf.
	WholeLog bool
	// HardenWindow lets a program that blinding breaks and rewriting does not
	// help load while net.core.bpf_jit_harden is 1 instead of 2, and never 0:
	// at 1 the programs of loaders without CAP_BPF (5.10: CAP_SYS_ADMIN) are
	// blinded still. It is put back right after the load, whatever dies, by a
	// process of the same executable: see [Guard]. Until then the programs that
	// other privileged processes load are not blinded either: [Window] names
	// them. It is for programs that write the sysctl around their loads today;
	// nothing is written that is not 2. Needs CAP_SYS_ADMIN in the first
	// namespaces. Windows take turns on the whole machine.
	HardenWindow bool
	// NoWindow, unless nil, is told why a window could not be opened where
	// HardenWindow wanted one, such as with a /run that is read-only or full, or
	// where others have theirs for longer than a minute. The
	// program is then loaded as without HardenWindow.
	NoWindow func(error)
	// Report, unless nil, is told of each program that was repaired and then
	// loaded, before the call that loads it returns.
	Report func(Repair)

	memory memory
}

// Repair is what was done to a program: it was rewritten, or needed a window, or
// was kept as it is, of which more than one may be so.
type Repair struct {
	Program string // the name in its spec
	// Verbatim is a program that cilium/ebpf was kept from changing, on a node
	// that is locked down: its calls of bpf_probe_read_user are in it. Unless
	// Islands or Window says otherwise, nothing else was done to it.
	Verbatim bool
	// Early says that the kernel was not asked first: the program is known to
	// fail on this node otherwise, or would be compiled wrongly.
	Early bool
	Loads int // of this program or its collection that failed before
	Limit int // largest distance in slots after blinding
	Gotol bool
	// Islands and Added are as in rewrite.Result.
	Islands, Added int
	Before, After  blinding.Verdict
	// Window is nil for a program that was loaded with hardening on.
	Window *Window
}

// Window is the time in which net.core.bpf_jit_harden was 1 for a load.
type Window struct {
	Open time.Duration
	// Others are the programs that other processes loaded meanwhile, by id:
	// they may not be blinded.
	Others []uint32
}

// standard is behind the functions of the package. What it learns it keeps as
// long as the process lives.
var standard Loader

// NewCollection is ebpf.NewCollection for hardened nodes.
func NewCollection(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	return standard.NewCollectionWithOptions(spec, ebpf.CollectionOptions{})
}

// NewCollectionWithOptions is ebpf.NewCollectionWithOptions for hardened nodes.
func NewCollectionWithOptions(spec *ebpf.CollectionSpec, opts ebpf.CollectionOptions) (*ebpf.Collection, error) {
	return standard.NewCollectionWithOptions(spec, opts)
}

// NewProgram is ebpf.NewProgram for hardened nodes.
func NewProgram(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	return standard.NewProgramWithOptions(spec, ebpf.ProgramOptions{})
}

// NewProgramWithOptions is ebpf.NewProgramWithOptions for hardened nodes.
func NewProgramWithOptions(spec *ebpf.ProgramSpec, opts ebpf.ProgramOptions) (*ebpf.Program, error) {
	return standard.NewProgramWithOptions(spec, opts)
}

// LoadAndAssign is spec.LoadAndAssign for hardened nodes.
func LoadAndAssign(spec *ebpf.CollectionSpec, to any, opts *ebpf.CollectionOptions) error {
	return standard.LoadAndAssign(spec, to, opts)
}

// NewCollection is NewCollectionWithOptions without options.
func (l *Loader) NewCollection(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	return l.NewCollectionWithOptions(spec, ebpf.CollectionOptions{})
}

// NewCollectionWithOptions loads a collection. The caller closes it. The error
// is an [*Error] around that of cilium/ebpf. The spec is not changed. Where a
// program has to be repaired the collection is loaded once more from the
// start: maps that are pinned by name stay, others are made anew.
func (l *Loader) NewCollectionWithOptions(spec *ebpf.CollectionSpec, opts ebpf.CollectionOptions) (*ebpf.Collection, error) {
	var coll *ebpf.Collection
	if spec == nil {
		return ebpf.NewCollectionWithOptions(spec, opts) // its error, or its panic
	}
	err := l.load(spec.Programs, spec.Maps, func(changed rewritten, log bool) (found map[string]*ebpf.Program, drop func(), err error) {
		spec, quiet := changed.collection(spec), opts
		quiet.Programs = l.quiet(opts.Programs)
		if coll, err = ebpf.NewCollectionWithOptions(spec, quiet); err != nil {
			return nil, nil, l.collectionLog(err, log, spec, opts)
		}
		return coll.Programs, coll.Close, nil
	})
	if err != nil {
		return nil, err
	}
	return coll, nil
}

// NewProgram is NewProgramWithOptions without options.
func (l *Loader) NewProgram(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	return l.NewProgramWithOptions(spec, ebpf.ProgramOptions{})
}

// NewProgramWithOptions loads one program. The caller closes it. The error is an
// [*Error] around that of cilium/ebpf. The spec is not changed.
func (l *Loader) NewProgramWithOptions(spec *ebpf.ProgramSpec, opts ebpf.ProgramOptions) (*ebpf.Program, error) {
	if spec == nil {
		return ebpf.NewProgramWithOptions(spec, opts) // its error
	}
	var prog *ebpf.Program
	err := l.load(map[string]*ebpf.ProgramSpec{only: spec}, nil, func(changed rewritten, log bool) (found map[string]*ebpf.Program, drop func(), err error) {
		spec := changed.program(only, spec)
		if prog, err = ebpf.NewProgramWithOptions(spec, l.quiet(opts)); err != nil && log {
			err = l.log(err, opts, func(o ebpf.ProgramOptions) (err error) {
				prog, err = ebpf.NewProgramWithOptions(spec, o)
				return err
			})
		}
		if err != nil {
			return nil, nil, err
		}
		return map[string]*ebpf.Program{only: prog}, func() { prog.Close() }, nil
	})
	if err != nil {
		return nil, err
	}
	return prog, nil
}

// LoadAndAssign loads what the fields of a struct ask for and assigns it, as
// spec.LoadAndAssign of cilium/ebpf does. opts may be nil. The error is an
// [*Error] around that of cilium/ebpf, after which the fields are of no use. The
// spec is not changed.
func (l *Loader) LoadAndAssign(spec *ebpf.CollectionSpec, to any, opts *ebpf.CollectionOptions) error {
	return l.load(spec.Programs, spec.Maps, func(changed rewritten, log bool) (map[string]*ebpf.Program, func(), error) {
		spec, o := changed.collection(spec), ebpf.CollectionOptions{}
		if opts != nil {
			o = *opts
		}
		quiet := o
		quiet.Programs = l.quiet(o.Programs)
		if err := spec.LoadAndAssign(to, &quiet); err != nil {
			return nil, nil, l.collectionLog(err, log, spec, o)
		}
		found, drop := assigned(to)
		return found, drop, nil
	})
}
