// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
)

// OpenSSL watches the plain text that 64-bit processes exchange with OpenSSL, LibreSSL or
// BoringSSL: in every library, and in every executable, that has SSL_write among its symbols. Files
// are found by the processes that map them, in all containers, now and later; and what is probed in
// a file is seen in every process that maps it. Needs CAP_BPF and CAP_PERFMON, with CAP_SYS_PTRACE
// to find the libraries of others; before 6.6, where ba677dbe77af is, CAP_SYS_ADMIN too, see
// [Main]. And CONFIG_UPROBE_EVENTS. lockdown=confidentiality allows it.
//
// A probe stops processes at an instruction of a file, and reads. A process that has made its own
// file with a symbol that points into the middle of an instruction can break itself so, and nobody
// else.
func OpenSSL(opts Options) (*Source, error) {
	s, err := openOpenSSL(opts)
	if err != nil {
		return nil, fmt.Errorf("watch TLS libraries: %w", err)
	}
	return s, nil
}

// sslProbe is a program on a function.
type sslProbe struct {
	function, program string
	ret               bool
}

// sslProbes, the returns first: a call that is seen from the middle on is none.
var sslProbes = []sslProbe{
	{"SSL_read", "ssl_return", true}, {"SSL_write", "ssl_return", true},
	{"SSL_read_ex", "ssl_return", true}, {"SSL_write_ex", "ssl_return", true},
	{"SSL_write_ex2", "ssl_return", true}, // OpenSSL 3.3
	{"SSL_read_early_data", "ssl_return", true}, {"SSL_write_early_data", "ssl_return", true},
	{"SSL_new", "ssl_new", true}, {"SSL_free", "ssl_free", false},
	{"SSL_read", "ssl_read", false}, {"SSL_write", "ssl_write", false},
	{"SSL_read_ex", "ssl_read_ex", false}, {"SSL_write_ex", "ssl_write_ex", false},
	{"SSL_write_ex2", "ssl_write_ex2", false},
	{"SSL_read_early_data", "ssl_read_ex", false}, {"SSL_write_early_data", "ssl_write_ex", false}, // the arguments and the 1 are the same
}

type sslStream struct {
	*ring
	find     *finder
	arrivals *arrivals // nil where there can be none
	keeper   *keeper   // nil where none is needed
	done     chan struct{}
}

func openOpenSSL(opts Options) (*Source, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	spec, err := loadOpenssl()
	if err != nil {
		return nil, err
	}
	if err := opts.configure(spec); err != nil {
		return nil, err
	}
	byLinks := haveMulti()
	if byLinks {
		for _, name := range programNames() {
			spec.Programs[name].AttachType = ebpf.AttachTraceUprobeMulti
		}
	}
	coll, programs, err := opts.load(spec, nil)
	if err != nil {
		return nil, err
	}
	if err := opts.fillCgroups(coll); err != nil {
		coll.Close()
		return nil, err
	}
	fds := map[string]int{}
	for _, name := range programNames() {
		fds[name] = coll.Programs[name].FD()
	}
	s := &sslStream{done: make(chan struct{})}
	var a attacher = multi{fds}
	if !byLinks {
		if a, s.keeper, err = events(fds); err != nil {
			coll.Close()
			return nil, err
		}
	}
	if s.ring, err = newRing(event.OpenSSL, coll); err != nil {
		s.keeper.close()
		coll.Close()
		return nil, err
	}
	s.find = newFinder(a.attach)
	s.arrivals, s.find.unaware = watchArrivals(s.find.mapped) // before the first look: what comes in between is found
	s.find.scan()
	go func() {
		defer close(s.done)
		s.find.run()
	}()
	return &Source{name: "openssl", programs: programs, stream: s}, nil
}

// events attaches by perf events: through a keeper where they want CAP_SYS_ADMIN and the caller
// will give that up.
func events(programs map[string]int) (attacher, *keeper, error) {
	p, err := findPMU(programs)
	if err != nil {
		return nil, nil, err
	}
	if !p.needsSysAdmin() {
		return p, nil, nil
	}
	if have, err := privilege.Effective(); err == nil && !abi.HasCap(have, abi.CapSysAdmin) {
		return nil, nil, fmt.Errorf("open uprobes: %w: this kernel has no uprobe_multi (6.6), and lets only CAP_SYS_ADMIN have uprobes by "+
			"perf_event_open (since ba677dbe77af)", unix.EACCES)
	}
	if !mainCalled.Load() {
		return p, nil, nil
	}
	k, err := startKeeper(programs)
	if err != nil {
		return nil, nil, fmt.Errorf("leave CAP_SYS_ADMIN to a process of its own: %w", err)
	}
	return k, k, nil
}

func (s *sslStream) files() *Files { return s.find.accounts() }

func (s *sslStream) mute(c event.Conn) error {
	if c.Source != event.OpenSSL {
		return nil
	}
	if err := s.coll.Maps["mutes"].Put(c.ID, c.Born); err != nil {
		return fmt.Errorf("mute connection: %w", err)
	}
	return nil
}

func (s *sslStream) close() error {
	s.arrivals.close()
	err := s.find.close()
	<-s.done
	s.keeper.close()
	return errors.Join(err, s.ring.close())
}
