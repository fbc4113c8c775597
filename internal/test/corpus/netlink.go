// SPDX-License-Identifier: Apache-2.0

package corpus

import "github.com/bpfwhy/bpfwhy/internal/test/rtnetlink"

// What the plays need of rtnetlink: each returns 0 or a negative errno.

func (s *stage) netlinkXDP(index uint32, program int, flags uint32) int {
	return s.answer(rtnetlink.SetXDP(index, program, flags))
}

func (s *stage) clsact(index uint32) int { return s.answer(rtnetlink.AddClsact(index)) }

func (s *stage) filter(index uint32, program int) int {
	return s.answer(rtnetlink.AddFilter(index, program))
}

func (s *stage) veth(index, mtu uint32) {
	s.need("make a veth", s.answer(rtnetlink.AddVeth(index, mtu)))
}

func (s *stage) answer(errno int, err error) int {
	s.must("ask netlink", err)
	return errno
}
