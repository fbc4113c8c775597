// SPDX-License-Identifier: Apache-2.0

package blinding

import "slices"

// Limits of the alignment: how many edits a gap between anchors may need, and
// how much work all gaps together may take.
const (
	maxEdits = 2048
	maxWork  = 6 << 20
)

// aligner matches the elements of b to those of a, in order.
type aligner struct {
	a, b  []uint64
	to    []int32 // for each element of b the index in a, or -1
	guess []bool  // which of them were matched without looking at alternatives
	work  int     // what is left of maxWork
}

// align returns for each element of b the index of the element of a that it
// corresponds to, or -1, and which of these are guesses. Where several
// alignments are as good it prefers the one that keeps to the beginning.
func align(a, b []uint64) (to []int32, guess []bool) {
	al := &aligner{a: a, b: b, to: slices.Repeat([]int32{-1}, len(b)), guess: make([]bool, len(b)), work: maxWork}
	al.gap(0, len(a), 0, len(b), 16)
	return al.to, al.guess
}

// gap aligns a[a0:a1] with b[b0:b1], first by runs of k elements that occur once
// on both sides, then by shorter ones, then one by one.
func (al *aligner) gap(a0, a1, b0, b1, k int) {
	for a0 < a1 && b0 < b1 && al.a[a0] == al.b[b0] {
		al.to[b0] = int32(a0)
		a0++
		b0++
	}
	if a0 == a1 || b0 == b1 {
		return
	}
	if k < 2 {
		if !al.edits(a0, a1, b0, b1) {
			al.ends(a0, a1, b0, b1)
		}
		return
	}
	anchors := al.anchors(a0, a1, b0, b1, k)
	for _, p := range anchors {
		if p.a < a0 || p.b < b0 {
			continue // the run before has grown over it
		}
		// Grow the anchor at its end; its beginning belongs to the gap.
		ea, eb := p.a, p.b
		for ea < a1 && eb < b1 && al.a[ea] == al.b[eb] {
			al.to[eb] = int32(ea)
			ea++
			eb++
		}
		al.gap(a0, p.a, b0, p.b, k/4)
		a0, b0 = ea, eb
	}
	al.gap(a0, a1, b0, b1, k/4)
}

type pair struct{ a, b int }

// anchors finds the runs of k elements that occur exactly once in both ranges,
// and of those the longest sequence that is in order in both.
func (al *aligner) anchors(a0, a1, b0, b1, k int) []pair {
	if a1-a0 < k || b1-b0 < k {
		return nil
	}
	type count struct{ a, b, at int32 }
	seen := make(map[uint64]count, a1-a0)
	runs(al.a[a0:a1], k, func(i int, h uint64) {
		c := seen[h]
		c.a++
		c.at = int32(a0 + i)
		seen[h] = c
	})
	runs(al.b[b0:b1], k, func(i int, h uint64) {
		if c, ok := seen[h]; ok {
			c.b++
			seen[h] = c
		}
	})
	var unique []pair // in the order of b
	runs(al.b[b0:b1], k, func(i int, h uint64) {
		c, ok := seen[h]
		if ok && c.a == 1 && c.b == 1 && slices.Equal(al.a[c.at:int(c.at)+k], al.b[b0+i:b0+i+k]) {
			unique = append(unique, pair{int(c.at), b0 + i})
		}
	})
	return increasing(unique)
}

// runs calls f for each run of k elements with its hash.
func runs(list []uint64, k int, f func(i int, hash uint64)) {
	const prime = 0x9e3779b97f4a7c15
	mix := func(x uint64) uint64 {
		x = (x ^ x>>31) * prime
		return x ^ x>>29
	}
	power := uint64(1)
	for range k {
		power *= prime
	}
	h := uint64(0)
	for i, x := range list {
		h = h*prime + mix(x)
		if i >= k {
			h -= mix(list[i-k]) * power
		}
		if i >= k-1 {
			f(i-k+1, h)
		}
	}
}

// increasing returns the longest subsequence whose a increases; b does already.
func increasing(list []pair) []pair {
	var tails []int // index of the smallest end of a subsequence of each length
	before := make([]int, len(list))
	for i, p := range list {
		n, _ := slices.BinarySearchFunc(tails, p.a, func(t, a int) int { return list[t].a - a })
		before[i] = -1
		if n > 0 {
			before[i] = tails[n-1]
		}
		if n == len(tails) {
			tails = append(tails, i)
		} else {
			tails[n] = i
		}
	}
	if len(tails) == 0 {
		return nil
	}
	chain := make([]pair, len(tails))
	for n, i := len(tails)-1, tails[len(tails)-1]; n >= 0; n-- {
		chain[n] = list[i]
		i = before[i]
	}
	return chain
}

// ends matches the equal ends of two ranges that are too different for more.
func (al *aligner) ends(a0, a1, b0, b1 int) {
	for a0 < a1 && b0 < b1 && al.a[a1-1] == al.b[b1-1] {
		a1--
		b1--
		al.to[b1] = int32(a1)
		al.guess[b1] = true
	}
}

// edits aligns two ranges with as few insertions and deletions as possible
// (Myers 1986). It returns false for ranges that need too many.
func (al *aligner) edits(a0, a1, b0, b1 int) bool {
	n, m := a1-a0, b1-b0
	limit := min(n+m, maxEdits)
	if n-m > limit || m-n > limit {
		return false
	}
	a, b := al.a[a0:a1], al.b[b0:b1]
	// v[k+limit+1] is how far along a diagonal k = x-y is reached with d edits;
	// trace keeps the relevant part of v before each d.
	v := make([]int32, 2*limit+3)
	mid := limit + 1
	var trace [][]int32
	for d := 0; d <= limit; d++ {
		al.work -= 2*d + 1
		if al.work < 0 {
			return false
		}
		trace = append(trace, slices.Clone(v[mid-d-1:mid+d+2]))
		for k := -d; k <= d; k += 2 {
			x := v[mid+k-1] + 1 // drop an element of a
			if k == -d || k != d && v[mid+k-1] < v[mid+k+1] {
				x = v[mid+k+1] // insert an element of b
			}
			y := x - int32(k)
			for int(x) < n && int(y) < m && a[x] == b[y] {
				x++
				y++
				al.work--
			}
			v[mid+k] = x
			if int(x) >= n && int(y) >= m {
				al.backtrack(a0, b0, n, m, d, trace)
				return true
			}
		}
	}
	return false
}

// backtrack walks the edits back from the end and notes what matched.
func (al *aligner) backtrack(a0, b0, x, y, d int, trace [][]int32) {
	for ; d >= 0; d-- {
		v := trace[d] // v[d+1+k] is diagonal k
		k := x - y
		at := func(k int) int { return int(v[d+1+k]) }
		from := k - 1
		if k == -d || k != d && at(k-1) < at(k+1) {
			from = k + 1
		}
		px := at(from)
		py := px - from
		if d == 0 {
			px, py = 0, 0
		}
		for x > px && y > py {
			x--
			y--
			al.to[b0+y] = int32(a0 + x)
		}
		x, y = px, py
	}
}
