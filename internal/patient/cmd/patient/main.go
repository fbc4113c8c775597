// SPDX-License-Identifier: Apache-2.0

// Command patient makes one load that ends in a known way and says what the kernel returned. It is a tool of the
// project's own tests, small enough for the initramfs of a lab kernel.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/internal/patient"
)

func main() {
	patient.Main()
	list := flag.Bool("list", false, "list the patients")
	asJSON := flag.Bool("json", false, "print the result as JSON")
	verbose := flag.Bool("v", false, "print the verifier's log too")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: patient [-json] [-v] NAME… | -list")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *list {
		for _, p := range patient.All() {
			need := ""
			switch {
			case p.Needs.VM:
				need = fmt.Sprint("lab ", p.Needs.Sysctls, p.Needs.KernelArgs)
			case p.Needs.Harden != 0:
				need = fmt.Sprint("harden ", p.Needs.Harden)
			}
			fmt.Printf("%-24s %s; %s\n", p.Name, p.About, need)
		}
		return
	}
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if flag.NArg() > 1 {
		fmt.Fprintln(os.Stderr, "patient: one at a time: a patient may cripple its process")
		os.Exit(2)
	}
	p, err := patient.Find(flag.Arg(0))
	if err != nil {
		fmt.Fprintf(os.Stderr, "patient: %v; see -list\n", err)
		os.Exit(2)
	}
	res, err := p.Run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "patient: %v\n", err)
		os.Exit(1)
	}
	if *asJSON {
		if !*verbose {
			res.Log = ""
		}
		json.NewEncoder(os.Stdout).Encode(res)
		return
	}
	fmt.Println(res)
	if *verbose && res.Log != "" {
		fmt.Print(res.Log)
	}
}
