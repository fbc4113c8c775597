// SPDX-License-Identifier: Apache-2.0

package verifierlog

// ofType makes the pattern of a complaint about one type of the BTF, which follows the type's
// description on its line.
func ofType(pattern string) string {
	return `^\s*(?:\[\d+\](?: (?:UNKN|INT|PTR|ARRAY|STRUCT|UNION|ENUM|ENUM64|FWD|TYPEDEF|VOLATILE|CONST|RESTRICT|FUNC|FUNC_PROTO|VAR|DATASEC|FLOAT|DECL_TAG|TYPE_TAG)\b.*)?|\S* ?type_id=\d+ .*) (?:` + pattern + `)$`
}

// btfWordings are what BTF_LOAD says of the BTF, and MAP_CREATE since 7.0 of a map's definition.
var btfWordings = []Info{
	wording(BTFData, ofType(`Invalid (?:btf_info(?::[0-9a-f]+| kind_flag)|kind:(?P<kind>\d+))`), "[4] Invalid kind:19").
		note("The BTF has a kind of type, or a flag on one, that this kernel does not know: the compiler is newer than the kernel.", "Update the loader's library, which rewrites what the kernel lacks, or build with an older compiler or pahole.").
		costs("A rebuild of the loader."),
	wording(BTFData, ofType(`Invalid (?:name|(?:member )?name_offset:\d+|type_id|type|return type|arg#\d+|elem|index|array of int|value|component_idx|func linkage)|Linkage not supported|Unsupported (?:encoding|resolve|check_\w+)|Unexpected size|Not a VAR kind member`), "[2] PTR (anon) type_id=99 Invalid type_id").
		note("A type of the BTF has a name, a member or a reference that is not valid, or not in this kernel.", "Rebuild the object. If a tool wrote or merged the BTF, it made a mistake in the type on this line."),
	wording(BTFData, `^\s*Invalid name_offset:\d+$`, "Invalid name_offset:99").
		note("The name of a value of an enumeration lies outside of the BTF's strings.", "Rebuild the object. If a tool wrote or merged the BTF, it made a mistake."),
	wording(BTFData, ofType(`vlen [!=]= 0|(?:size|type) [!=]= 0|Invalid (?:int_data:[0-9a-f]+|type_size|size|offset|offset\+size|btf_info size)|nr_bits exceeds \w+|Array size overflows U32_MAX|meta_left:\d+ meta_needed:\d+`), "[3] INT int size=0 bits_offset=0 nr_bits=32 encoding=(none) nr_bits exceeds type_size").
		note("A type of the BTF has a size or an offset that is not possible.", "Rebuild the object. For a data section whose size is 0 the loader must fill it in, as libbpf does."),
	wording(BTFData, ofType(`Invalid [Mm]ember(?: base type| offset| bits_offset| bitfield_size)?|Member (?:exceeds struct_size|bits_offset exceeds its struct size|is not (?:byte|properly) aligned)|bits_offset exceeds U32_MAX|nr_copy_bits exceeds 128`), "x type_id=2 bits_offset=64 Member exceeds struct_size").
		note("A member of a struct does not fit into it.", "Rebuild the object; look for a tool that changed the BTF or packs structs in a way of its own."),
	wording(BTFData, ofType(`Loop detected|Exceeded max (?:num of types|resolving depth:\d+)|Invalid resolve state`), "[5] STRUCT foo size=4 vlen=1 Loop detected").
		note("Types of the BTF refer to each other in a circle or in a chain that is too long, or there are too many.", "Rebuild the object; strip types that the program does not use (bpftool gen object does)."),
	wording(BTFData, whole(`hdr_len not found|btf_header not found|Unsupported btf_header|Unaligned type_off|No type found|String section is not at the end|Invalid string section|Invalid section offset|Unsupported section found|Section overlap found|Total section length too long|Max chain length or cycle detected|Type tags don't precede modifiers`), "Unsupported section found").
		note("The header of the BTF, the order of its sections, or a chain of types is not one that this kernel accepts.", "Rebuild the object with a library that is not older than the tool that wrote its BTF.").
		costs("A rebuild of the loader."),
	wording(BTFData, `^(?:Invalid magic|Unsupported version|Unsupported flags|No data|Exceeded max num of types)$|Unaligned layout_off|Layout section is too (?:small|big)|layout_len is not multiple of \d+`, "Invalid magic").
		note("What was loaded is no BTF, has the other byte order, or has parts that this kernel does not know.", "Load the .BTF section of an object that was built for this machine (bpfel on x86-64)."),
	wording(BTFData, `function signature member has multiple type tags`, "function signature member has multiple type tags"),

	wording(MapAttribute, `^Invalid (?P<field>attr|map_type|map_name|map_extra|map_token_fd|numa_node|btf_fd|btf_value_type_id|excl_prog_hash_size)\.$`, "Invalid map_extra.").
		note("The kernel does not accept the field {field} of the map's definition.", "Set it to what the map type takes; 0 where it takes none.").
		costs("A change of the map's definition."),
	wording(MapAttribute, `btf_vmlinux_value_type_id (?:can only be used with struct_ops maps|is mutually exclusive with btf_key_type_id and btf_value_type_id)`, "btf_vmlinux_value_type_id can only be used with struct_ops maps."),
}
