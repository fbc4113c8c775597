// SPDX-License-Identifier: Apache-2.0

// Package exchangejson is the form in which exchanges are written for machines:
// docs/schema/exchange-v1.schema.json.
package exchangejson

import (
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
)

// Schema is the version of the form.
const Schema = "bpfwhy.exchange/v1"

// Exchange is one line.
type Exchange struct {
	Schema        string    `json:"schema"`
	Time          time.Time `json:"time"`
	Source        string    `json:"source"`
	Role          string    `json:"role"`
	Method        string    `json:"method"`
	Path          string    `json:"path"`
	Route         string    `json:"route,omitempty"`
	Status        int       `json:"status"`
	Protocol      string    `json:"protocol"`
	GRPCStatus    string    `json:"grpc_status,omitempty"`
	DurationNS    uint64    `json:"duration_ns"`
	FirstByteNS   uint64    `json:"first_byte_ns"`
	RequestBytes  uint64    `json:"request_bytes"`
	ResponseBytes uint64    `json:"response_bytes"`
	Truncated     bool      `json:"truncated,omitempty"`
	PID           uint32    `json:"pid,omitempty"`
	Comm          string    `json:"comm,omitempty"`
	CgroupID      uint64    `json:"cgroup_id,omitempty"`
	Container     string    `json:"container,omitempty"`
	ServerPort    uint16    `json:"server_port,omitempty"`
	ClientPort    uint16    `json:"client_port,omitempty"`
}

// Of makes the document of an exchange. boot is the wall clock's time at which the events' clock
// was zero.
func Of(e *connection.Exchange, boot time.Time, route, container string) Exchange {
	d := Exchange{
		Schema: Schema, Time: boot.Add(time.Duration(e.Start)).UTC(), Source: metrics.SourceName(e.Source), Role: e.Role.String(),
		Method: e.Method, Path: e.Path, Route: route, Status: e.Status, Protocol: e.Protocol, GRPCStatus: e.GRPCStatus,
		DurationNS: e.End - e.Start, FirstByteNS: e.FirstByte - e.Start, RequestBytes: e.RequestBytes, ResponseBytes: e.ResponseBytes,
		Truncated: e.Truncated, PID: e.TGID, Comm: e.Comm, CgroupID: e.CgroupID, Container: container,
		ServerPort: e.ServerPort(), ClientPort: e.ClientPort(),
	}
	return d
}
