// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"

	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/cilium/ebpf"
)

// Guard must be the first call of main in programs that set
// [Loader.HardenWindow]. It returns at once, except in the small process that
// the program starts of its own executable when a window opens: that one waits,
// puts the sysctl back should the program die meanwhile, and ends.
func Guard() { guardian.Main() }

// around makes a load with net.core.bpf_jit_harden at 1 instead of 2.
func around(load func() (map[string]*ebpf.Program, error)) (*Window, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hardenwindow.Turns)
	defer cancel()
	r, err := hardenwindow.Around(ctx, hardenwindow.Options{}, func() (own []uint32, err error) {
		programs, err := load()
		for _, p := range programs {
			if info, err := p.Info(); err == nil {
				if id, ok := info.ID(); ok {
					own = append(own, uint32(id))
				}
			}
		}
		return own, err
	})
	if errors.Is(err, guardian.ErrNoMain) {
		err = errors.New("the program does not call loader.Guard at the start of main")
	}
	return &Window{Open: r.Open, Others: r.Others}, err
}
