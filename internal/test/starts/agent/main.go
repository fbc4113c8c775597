// SPDX-License-Identifier: Apache-2.0

// Command agent loads programs and attaches them in as many ways as cilium/ebpf knows, as an agent
// does that watches a node. It stops at the first that fails, and says so. Otherwise it says
// "ready", and ends with its standard input.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func run(object string) error {
	coll, err := ebpf.LoadCollection(object)
	if err != nil {
		return fmt.Errorf("load %s: %w", object, err)
	}
	defer coll.Close()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	for _, step := range steps(coll.Programs, lo.Index) {
		closer, err := step.attach()
		if err != nil {
			return fmt.Errorf("attach %s: %w", step.program, err)
		}
		defer closer.Close()
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

type step struct {
	program string
	attach  func() (io.Closer, error)
}

// steps are the attachments, in their order.
func steps(p map[string]*ebpf.Program, device int) []step {
	linked := func(program string, attach func(*ebpf.Program) (link.Link, error)) step {
		return step{program, func() (io.Closer, error) { return attach(p[program]) }}
	}
	return []step{
		linked("unlink_enter", func(p *ebpf.Program) (link.Link, error) { return link.Kprobe("do_unlinkat", p, nil) }),
		linked("unlink_exit", func(p *ebpf.Program) (link.Link, error) { return link.Kretprobe("do_unlinkat", p, nil) }),
		linked("handle_request", uprobe),
		linked("on_exec", func(p *ebpf.Program) (link.Link, error) {
			return link.Tracepoint("sched", "sched_process_exec", p, nil)
		}),
		linked("on_exit", func(p *ebpf.Program) (link.Link, error) {
			return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exit", Program: p})
		}),
		linked("on_connect", func(p *ebpf.Program) (link.Link, error) {
			return link.AttachTracing(link.TracingOptions{Program: p})
		}),
		linked("on_open", func(p *ebpf.Program) (link.Link, error) { return link.AttachLSM(link.LSMOptions{Program: p}) }),
		linked("cgroup_egress", func(p *ebpf.Program) (link.Link, error) {
			return link.AttachCgroup(link.CgroupOptions{Path: "/sys/fs/cgroup", Attach: ebpf.AttachCGroupInetEgress, Program: p})
		}),
		linked("pick_socket", netns),
		linked("count_tcx", func(p *ebpf.Program) (link.Link, error) {
			return link.AttachTCX(link.TCXOptions{Interface: device, Program: p, Attach: ebpf.AttachTCXIngress})
		}),
		linked("count_xdp", func(p *ebpf.Program) (link.Link, error) {
			return link.AttachXDP(link.XDPOptions{Program: p, Interface: device})
		}),
		linked("dump_tasks", func(p *ebpf.Program) (link.Link, error) { return link.AttachIter(link.IterOptions{Program: p}) }),
		{"count_socket", func() (io.Closer, error) { return socket(p["count_socket"]) }},
	}
}

// uprobe attaches to a function of this executable, as to that of a server.
func uprobe(p *ebpf.Program) (link.Link, error) {
	exe, err := link.OpenExecutable("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	return exe.Uprobe("main.run", p, nil)
}

func netns(p *ebpf.Program) (link.Link, error) {
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return link.AttachNetNs(int(ns.Fd()), p)
}

// socket attaches to a socket of its own.
func socket(p *ebpf.Program) (io.Closer, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := link.AttachSocketFilter(conn.(syscall.Conn), p); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
