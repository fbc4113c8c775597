// SPDX-License-Identifier: Apache-2.0

// Package event is what the sources of the HTTP probe say of the bytes that they saw: one form for
// system calls, packets and TLS libraries. It is a leaf: sources make events, connection reads
// them.
package event

// Source says where an event was taken.
type Source uint8

const (
	Syscalls Source = iota + 1 // read, write and their kin on sockets
	Packets                    // an AF_PACKET socket
	OpenSSL                    // SSL_read, SSL_write: the plain text inside TLS

	end // one more than the last
)

// Sources is how many there are: their numbers are 1 to Sources. What has a place for each of them
// counts with it, so that a new source has one everywhere.
const Sources = int(end) - 1

// Kind says what happened.
type Kind uint8

const (
	Data  Kind = iota + 1 // bytes went one way
	Open                  // the connection was made; optional, before its first Data
	Close                 // the connection has ended both ways; nothing follows
	Shut                  // one way has ended: an end of file was read, or a FIN was seen
)

// Direction is that of the bytes, seen from the process that holds this end.
type Direction uint8

const (
	In  Direction = iota // received
	Out                  // sent
)

// Conn names one connection of one source, or rather the end of it that was watched.
type Conn struct {
	Source Source
	// ID is the kernel's address of the socket, the address of an SSL object mixed with its
	// process, or a hash of addresses and ports. It means nothing else and is used again.
	ID uint64
	// Born tells connections with one ID apart: the time in ns at which the source first saw it.
	Born uint64
}

// Event is one thing that happened to a connection. Events of one connection and direction come in
// the order of Pos, up to what a source cannot order (packets that come late): see Pos.
type Event struct {
	Kind Kind
	Conn Conn
	Dir  Direction
	// Fresh says that the source has seen this connection from its first byte. Without it the first
	// bytes seen may be in the midst of a message.
	Fresh bool

	Time uint64 // ns of CLOCK_MONOTONIC (bpf_ktime_get_ns), when the call returned or the packet came

	TGID, TID uint32 // of the process in the first pid namespace; 0 where unknown (packets)
	Comm      string // as the kernel has it, up to 15 bytes of anything; "" where unknown
	CgroupID  uint64 // of the second version of control groups; 0 where unknown

	LocalPort, RemotePort uint16 // 0 where unknown (OpenSSL over memory buffers, Unix sockets)

	// Pos is the number of bytes that went this way on the connection before these, as far as the
	// source has seen it. It counts what was not copied and what was lost too: a jump forward is a
	// gap, a step back is a repetition.
	Pos uint64
	// Len is the number of bytes of this event. Data holds the first of them: all, or as many as
	// the source copies.
	Len  uint64
	Data []byte
}

// Loss counts what a source knows it did not deliver, by reason.
type Loss struct {
	RingFull   uint64 // no room in the ring buffer
	MapFull    uint64 // no room in a map: calls or connections that were not followed
	ReadFault  uint64 // memory of a process that could not be read
	Recursion  uint64 // the kernel left programs out
	PacketDrop uint64 // the packet socket's queue was full
}
