// SPDX-License-Identifier: Apache-2.0

package abi

// Commands of bpf(2): enum bpf_cmd.
const (
	CmdMapCreate = iota
	CmdMapLookupElem
	CmdMapUpdateElem
	CmdMapDeleteElem
	CmdMapGetNextKey
	CmdProgLoad
	CmdObjPin
	CmdObjGet
	CmdProgAttach
	CmdProgDetach
	CmdProgTestRun
	CmdProgGetNextID
	CmdMapGetNextID
	CmdProgGetFDByID
	CmdMapGetFDByID
	CmdObjGetInfoByFD
	CmdProgQuery
	CmdRawTracepointOpen
	CmdBTFLoad
	CmdBTFGetFDByID
	CmdTaskFDQuery
	CmdMapLookupAndDeleteElem
	CmdMapFreeze
	CmdBTFGetNextID
	CmdMapLookupBatch
	CmdMapLookupAndDeleteBatch
	CmdMapUpdateBatch
	CmdMapDeleteBatch
	CmdLinkCreate
	CmdLinkUpdate
	CmdLinkGetFDByID
	CmdLinkGetNextID
	CmdEnableStats
	CmdIterCreate
	CmdLinkDetach
	CmdProgBindMap
	CmdTokenCreate
	CmdProgStreamReadByFD
	CmdProgAssocStructOps
)

var commands = [...]string{
	CmdMapCreate:               "BPF_MAP_CREATE",
	CmdMapLookupElem:           "BPF_MAP_LOOKUP_ELEM",
	CmdMapUpdateElem:           "BPF_MAP_UPDATE_ELEM",
	CmdMapDeleteElem:           "BPF_MAP_DELETE_ELEM",
	CmdMapGetNextKey:           "BPF_MAP_GET_NEXT_KEY",
	CmdProgLoad:                "BPF_PROG_LOAD",
	CmdObjPin:                  "BPF_OBJ_PIN",
	CmdObjGet:                  "BPF_OBJ_GET",
	CmdProgAttach:              "BPF_PROG_ATTACH",
	CmdProgDetach:              "BPF_PROG_DETACH",
	CmdProgTestRun:             "BPF_PROG_TEST_RUN",
	CmdProgGetNextID:           "BPF_PROG_GET_NEXT_ID",
	CmdMapGetNextID:            "BPF_MAP_GET_NEXT_ID",
	CmdProgGetFDByID:           "BPF_PROG_GET_FD_BY_ID",
	CmdMapGetFDByID:            "BPF_MAP_GET_FD_BY_ID",
	CmdObjGetInfoByFD:          "BPF_OBJ_GET_INFO_BY_FD",
	CmdProgQuery:               "BPF_PROG_QUERY",
	CmdRawTracepointOpen:       "BPF_RAW_TRACEPOINT_OPEN",
	CmdBTFLoad:                 "BPF_BTF_LOAD",
	CmdBTFGetFDByID:            "BPF_BTF_GET_FD_BY_ID",
	CmdTaskFDQuery:             "BPF_TASK_FD_QUERY",
	CmdMapLookupAndDeleteElem:  "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
	CmdMapFreeze:               "BPF_MAP_FREEZE",
	CmdBTFGetNextID:            "BPF_BTF_GET_NEXT_ID",
	CmdMapLookupBatch:          "BPF_MAP_LOOKUP_BATCH",
	CmdMapLookupAndDeleteBatch: "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
	CmdMapUpdateBatch:          "BPF_MAP_UPDATE_BATCH",
	CmdMapDeleteBatch:          "BPF_MAP_DELETE_BATCH",
	CmdLinkCreate:              "BPF_LINK_CREATE",
	CmdLinkUpdate:              "BPF_LINK_UPDATE",
	CmdLinkGetFDByID:           "BPF_LINK_GET_FD_BY_ID",
	CmdLinkGetNextID:           "BPF_LINK_GET_NEXT_ID",
	CmdEnableStats:             "BPF_ENABLE_STATS",
	CmdIterCreate:              "BPF_ITER_CREATE",
	CmdLinkDetach:              "BPF_LINK_DETACH",
	CmdProgBindMap:             "BPF_PROG_BIND_MAP",
	CmdTokenCreate:             "BPF_TOKEN_CREATE",
	CmdProgStreamReadByFD:      "BPF_PROG_STREAM_READ_BY_FD",
	CmdProgAssocStructOps:      "BPF_PROG_ASSOC_STRUCT_OPS",
}

// CommandName names a command of bpf(2) as the kernel does, "" for one that is not known:
// "BPF_PROG_LOAD".
func CommandName(n uint32) string {
	if n < uint32(len(commands)) {
		return commands[n]
	}
	return ""
}
