// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// Worked are loads that worked and are not told: see Options.Calm.
type Worked struct {
	Total    uint64
	Types    []TypeCount
	Programs []ProgramCount // the first so many
}

// TypeCount counts loads of a type of programs.
type TypeCount struct {
	Type  uint32
	Count uint64
}

// ProgramCount counts loads of one program.
type ProgramCount struct {
	Name  string
	Type  uint32
	Insns uint32
	Count uint64
}

// Worked counts what worked since Open. It is safe beside Next.
func (c *Capture) Worked() (Worked, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.released {
		return c.worked, nil
	}
	w, err := readWorked(c.coll.maps["worked"], c.coll.maps["worked_programs"], c.worked)
	if err != nil {
		return c.worked, fmt.Errorf("read what worked: %w", err)
	}
	c.worked = w
	return w, nil
}

// readWorked reads the programs only where more has worked than before: their map cannot be read
// without calls to bpf(2).
func readWorked(types, programs *ebpf.Map, before Worked) (w Worked, err error) {
	memory, err := types.Memory()
	if err != nil {
		return w, err
	}
	b := make([]byte, 8*types.MaxEntries())
	if _, err := memory.ReadAt(b, 0); err != nil {
		return w, err
	}
	for t := range types.MaxEntries() {
		if n := binary.LittleEndian.Uint64(b[8*t:]); n > 0 {
			w.Total += n
			w.Types = append(w.Types, TypeCount{t, n})
		}
	}
	if w.Total == before.Total {
		return before, nil
	}
	var key struct {
		Name        abi.Name
		Type, Insns uint32
	}
	var n uint64
	all := map[ProgramCount]uint64{} // a map that changes meanwhile may show an entry twice
	each := programs.Iterate()
	for each.Next(&key, &n) {
		p := ProgramCount{Name: key.Name.String(), Type: key.Type, Insns: key.Insns}
		all[p] = max(all[p], n)
	}
	if err := each.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return w, err
	}
	for p, n := range all {
		p.Count = n
		w.Programs = append(w.Programs, p)
	}
	return w, nil
}
