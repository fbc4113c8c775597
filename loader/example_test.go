// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/bpfwhy/bpfwhy/loader"
	"github.com/cilium/ebpf"
)

// Change the package of one call, and programs load on hardened nodes.
func Example() {
	spec, err := ebpf.LoadCollectionSpec("testdata/sparse.o")
	if err != nil {
		log.Panic(err)
	}
	coll, err := loader.NewCollection(spec) // was ebpf.NewCollection
	if err != nil {
		log.Panicf("%+v", err) // with the verifier's log, the cause, and what can be done
	}
	defer coll.Close()
}

// With the code of bpf2go, load the spec and hand it to LoadAndAssign:
//
//	spec, err := loadSparse()
//	...
//	err = loader.LoadAndAssign(spec, &objs, nil) // was loadSparseObjects(&objs, nil)
func ExampleLoadAndAssign() {
	spec, err := ebpf.LoadCollectionSpec("testdata/sparse.o")
	if err != nil {
		log.Panic(err)
	}
	var objs struct {
		Far    *ebpf.Program `ebpf:"far"`
		Values *ebpf.Map     `ebpf:"values"`
	}
	if err := loader.LoadAndAssign(spec, &objs, nil); err != nil { // was spec.LoadAndAssign(&objs, nil)
		log.Panic(err)
	}
	defer objs.Far.Close()
	defer objs.Values.Close()
}

// An agent that says what it had to do, and would rather not run than be
// interpreted.
func ExampleLoader() {
	l := loader.Loader{
		RequireJIT: true,
		Report: func(r loader.Repair) {
			fmt.Fprintf(os.Stderr, "%s: %d jump islands, since constants are blinded here\n", r.Program, r.Islands)
		},
	}
	spec, err := ebpf.LoadCollectionSpec("testdata/sparse.o")
	if err != nil {
		log.Panic(err)
	}
	coll, err := l.NewCollection(spec)
	if err != nil {
		log.Panic(err)
	}
	defer coll.Close()
}

// The parts of an error.
func ExampleError() {
	_, err := loader.NewProgram(&ebpf.ProgramSpec{})
	var why *loader.Error
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		fmt.Println("the verifier has", len(verifier.Log), "lines to say")
	case errors.As(err, &why):
		fmt.Println(why.Err)
		fmt.Println(why.Diagnosis.Rule)
	}
	// Output:
	// instructions cannot be empty
	// UNKNOWN
}

// Those who load by themselves ask afterwards.
func ExampleExplain() {
	// What ebpf.NewProgram returned.
	err := errors.New("load program: permission denied: 0: (bf) r0 = r7: R7 !read_ok (2 line(s) omitted)")

	var why *loader.Error
	if errors.As(loader.Explain(err), &why) {
		fmt.Println(why.Diagnosis.Rule)
		fmt.Println(why.Diagnosis.Title)
	}
	// Output:
	// VER002
	// An uninitialised register is read
}
