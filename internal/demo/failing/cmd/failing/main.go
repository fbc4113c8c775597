// SPDX-License-Identifier: Apache-2.0

// Command failing makes one load that ends in a known way and says what the kernel returned. It is
// a tool of the project's own tests, small enough for the initramfs of a lab kernel.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
)

func main() {
	failing.Main()
	list := flag.Bool("list", false, "list the loads")
	asJSON := flag.Bool("json", false, "print the result as JSON")
	verbose := flag.Bool("v", false, "print the verifier's log too")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: failing [-json] [-v] NAME… | -list")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *list {
		for _, p := range failing.All() {
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
		fmt.Fprintln(os.Stderr, "failing: one at a time: a load may cripple its process")
		os.Exit(2)
	}
	p, err := failing.Find(flag.Arg(0))
	if err != nil {
		fmt.Fprintf(os.Stderr, "failing: %v; see -list\n", err)
		os.Exit(2)
	}
	res, err := p.Run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "failing: %v\n", err)
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
