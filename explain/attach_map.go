// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// Elements of maps, and pins.

func pinRules() []Rule {
	return []Rule{att601(), att602(), att603(), att604()}
}

var mapUpdate = []load.Kind{load.MapUpdate}

var mapReasons = []reason{
	{
		rule: "MAP004", at: atMap | atSockmap, call: mapUpdate, errno: []int{abi.E2BIG, abi.ENOSPC},
		text:  "The map is full (max_entries), or it is an array and the index is out of bounds.",
		tell:  "'bpftool map show' says how many entries it takes.",
		words: lazyregexp.New(`key too big for map`),
		look:  lookFull,
	},
	{
		rule: "MAP006", at: atMap | atSockmap, call: mapUpdate, errno: []int{abi.EPERM},
		text: "The map may not be written by this descriptor: it is frozen, was created with BPF_F_RDONLY, or was opened only for reading.",
		tell: "'bpftool map show' says whether it is frozen.",
		look: func(f *Facts, m *Match) Strength {
			if mp := f.Attempt.Map; mp != nil && mp.Flags&abi.MapFlagRdOnly != 0 {
				m.Evidence = append(m.Evidence, "the map was created with BPF_F_RDONLY")
				return Strong
			}
			return m.Strength
		},
	},
	{
		rule: "MAP006", at: atMap | atSockmap, call: mapUpdate, errno: []int{abi.EEXIST},
		text: "The key exists already, and the flag BPF_NOEXIST allows only new keys. In an array all keys exist. Programs use this as an answer.",
	},
	{
		rule: "MAP006", at: atMap | atSockmap, call: mapUpdate, errno: []int{abi.ENOENT},
		text: "The key does not exist, and the flag BPF_EXIST allows only keys that do. Programs use this as an answer.",
		look: func(f *Facts, m *Match) Strength {
			if slices.Contains(ofDescriptors, f.mapType()) {
				return Possible // the value may name what is gone
			}
			return m.Strength
		},
	},
	{
		rule: "MAP006", at: atMap | atSockmap, call: mapUpdate, errno: []int{abi.EINVAL}, rare: true,
		text: "This type of map does not take the flags: BPF_F_LOCK without a spin lock in the value, anything but BPF_ANY for a map of programs, maps or events, BPF_ANY or BPF_EXIST alone for a queue.",
	},
	{
		rule: "MAP007", at: atMap, call: mapUpdate, errno: []int{abi.EINVAL}, rare: true,
		text: "The map does not take this value: a program of another kind than those in a prog array, a map that differs from the inner map in type or size, or a device that does not exist.",
		tell: "The map's type tells what its values are.",
		look: lookValue,
	},
	{
		rule: "MAP007", at: atMap, call: mapUpdate, errno: []int{abi.EBADF, abi.ENODEV}, rare: true,
		text: "The value is a file descriptor that is not open, or a device that does not exist.",
		look: func(f *Facts, m *Match) Strength {
			switch t := f.mapType(); {
			case t == "":
				return m.Strength
			case !slices.Contains(ofDescriptors, t):
				return 0
			}
			m.Evidence = append(m.Evidence, "the map is of the type "+printable(f.mapType(), 40)+", whose values name objects")
			return Likely
		},
	},
	{at: atMap, call: mapUpdate, errno: []int{abi.EBUSY}, text: "The bucket is locked by an update that this one interrupted on the same CPU, or the map's memory is being freed: try again."},
	{at: atMap, call: mapUpdate, errno: []int{abi.EOPNOTSUPP, abi.ENOTSUPP}, text: "The elements of this type of map cannot be written in this way."},

	{
		rule: "ATT601", at: atPin, errno: []int{abi.EPERM},
		text:  "The path is not on a BPF file system, or its last part has a dot.",
		tell:  "'stat -f -c %T FOLDER' prints bpf_fs for a usable folder.",
		words: lazyregexp.New(`(?i)not on a bpf ?(?:fs|filesystem)|specified path[^\n]{0,160}not on BPF FS`),
		look:  lookPin,
	},
	{
		rule: "ATT601", at: atPin, errno: []int{abi.EINVAL}, rare: true,
		text: "The path is not on a BPF file system, or the object cannot be pinned: a perf event, a link of a kind that has no pins, or something that is not an object of BPF.",
		tell: "'stat -f -c %T FOLDER' prints bpf_fs for a usable folder.",
		look: lookPin,
	},
	{
		rule: "ATT602", at: atPin, errno: []int{abi.EACCES, abi.EROFS},
		text: "The path is closed to the loader: the folder or the pin belongs to somebody else, is mounted read-only, a policy forbids it (AppArmor's docker-default denies all of /sys/fs), or what is opened there is not a pin but a file.",
		tell: "The kernel's log has a line of AppArmor or SELinux if it is a policy.",
		look: lookPinFolder,
	},
	{
		rule: "ATT602", at: atPin, errno: []int{abi.ENOENT, abi.ENOTDIR},
		text: "The folder of the pin is not there, in the loader's mount namespace.",
		look: lookPinMissing,
	},
	{
		rule: "ATT602", at: atPin, rare: true, errno: []int{abi.EPERM},
		text:  "A folder could not be made below /sys/fs/bpf: no BPF file system is mounted there, and sysfs takes no folders.",
		words: lazyregexp.New(`(?i)mkdir /sys/fs/bpf\S*: (?:permission denied|operation not permitted|read-only file system|no such file)|failed to (?:create|mkdir)[^\n]{0,60}/sys/fs/bpf`),
		look:  onlyWords,
	},
	{
		rule: "ATT603", at: atPin, errno: []int{abi.EEXIST},
		text: "Something is pinned at this path already.",
		tell: "'bpftool map show pinned PATH' and its like say what.",
	},
	{
		rule: "ATT604", at: atPin, rare: true, errno: []int{abi.EINVAL},
		text: "The map that is pinned at the path differs in type, size or flags from the map that the program wants.",
		tell: "'bpftool map show pinned PATH' shows type, sizes and flags.",
		words: lazyregexp.New(`(?i)parameter mismatch|map spec is incompatible|incompatible with (?:the )?(?:existing|pinned)|pinned map[^\n]{0,120}(?:mismatch|incompatible|differs)|` +
			`couldn't reuse pinned map|error reusing pinned map`),
		look: onlyWords,
	},
}

// ofDescriptors are types of maps whose values name something that must be there.
var ofDescriptors = []string{"prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "hash_of_maps", "devmap", "devmap_hash", "cpumap", "xskmap", "reuseport_sockarray", "sockmap", "sockhash"}

// withIndex are types of maps whose key is an index.
var withIndex = []string{"array", "percpu_array", "prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "devmap", "cpumap", "xskmap", "sockmap", "reuseport_sockarray"}

func map004() Rule {
	return Rule{
		ID:    "MAP004",
		Title: "The map is full, or the index is out of bounds",
		Class: "R10",
		Stage: load.Resources,
		Text: `A hash map takes max_entries elements. Then it answers E2BIG, "Argument
list too long", to each new key. An array answers E2BIG to an index that is out of bounds. An LPM
trie answers ENOSPC. An LRU map drops an old element instead. Libraries print "key too big for
map", which means the index.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "larger-map",
				Title:   "Make max_entries larger",
				Price:   "Memory. Preallocated maps take it at once. Pinned maps of the old size must be removed.",
				Command: "bpftool map show",
			},
			{
				ID:    "lru",
				Title: "Use an LRU hash, which drops the element that was not used for the longest time",
				Price: "Elements disappear when the map is full.",
			},
			{
				ID:    "delete",
				Title: "Delete elements that are no longer needed",
				Price: "A change of the program that fills it.",
			},
		},
		Match: byReason("MAP004"),
	}
}

func lookFull(f *Facts, m *Match) Strength {
	mp := f.Attempt.Map
	if mp == nil || mp.Type == "" {
		return m.Strength
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("the map is of the type %s and takes %d entries", printable(mp.Type, 40), mp.MaxEntries))
	m.Cause = fmt.Sprintf("The map is full: it takes %d entries.", mp.MaxEntries)
	if slices.Contains(withIndex, mp.Type) {
		m.Cause = fmt.Sprintf("The index lies beyond the end of the map, whose last one is %d.", int64(mp.MaxEntries)-1)
		m.Without = append(m.Without, "lru", "delete")
	}
	return Strong
}

func map006() Rule {
	return Rule{
		ID:    "MAP006",
		Title: "The element cannot be written: the map is frozen or read-only, or the flag is wrong",
		Class: "R10",
		Stage: load.Request,
		Text: `The flag BPF_NOEXIST asks for a new element. If it exists already, the answer is EEXIST. The flag
BPF_EXIST asks for an element that exists. If it does not, the answer is ENOENT. Usually the program
only wants to know this, and it is not a failure.

EPERM means that this descriptor may not write to the map. The map was frozen (BPF_MAP_FREEZE,
which libraries use for .rodata), or created with BPF_F_RDONLY, or opened read-only. EINVAL means
that the map type does not take these flags.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "flags",
				Title: "Write with BPF_ANY, if it does not matter whether the element exists",
				Price: "The old value is overwritten.",
			},
			{
				ID:    "before-freeze",
				Title: "Write before the map is frozen: set variables in .rodata before you load the object",
				Price: "A change of the loader.",
			},
		},
		Match: byReason("MAP006"),
	}
}

func map007() Rule {
	return Rule{
		ID:    "MAP007",
		Title: "The value does not fit the map: wrong program, inner map, device or descriptor",
		Class: "R10",
		Stage: load.Request,
		Text: `The values of some maps are objects, and each map takes only certain
objects:

A prog array takes programs of one kind. The first program decides its type, whether it is JITed,
and what it may do. A map of maps takes inner maps of one type and size. A devmap takes devices that
exist, and programs that were loaded for devmaps. A cpumap takes CPUs, and programs that were
loaded for cpumaps. An xskmap takes AF_XDP sockets. A perf event array takes perf events.

For other objects the kernel answers EINVAL. If the descriptor is not open, it answers EBADF.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "same-kind",
				Title:   "Compare the object with those in the map, or with the map's inner map",
				Price:   "A change of the loader or its objects.",
				Command: "bpftool map show; bpftool prog show",
			},
		},
		Match: byReason("MAP007"),
	}
}

func lookValue(f *Facts, m *Match) Strength {
	t := f.mapType()
	switch {
	case t == "":
		return m.Strength
	case !slices.Contains(ofDescriptors, t):
		return 0
	}
	m.Evidence = append(m.Evidence, "the map is of the type "+printable(t, 40))
	m.Cause = "The object that was put into the map is none that it takes: " + map[string]string{
		"prog_array":    "its programs are of another kind, or compiled differently (JIT, blinding).",
		"array_of_maps": "its inner maps have another type or size.", "hash_of_maps": "its inner maps have another type or size.",
		"devmap": "there is no such device, or the program was not loaded for a devmap.", "devmap_hash": "there is no such device, or the program was not loaded for a devmap.",
		"cpumap": "there is no such CPU, or the program was not loaded for a cpumap.",
	}[t]
	m.Cause = strings.TrimSuffix(m.Cause, ": ")
	if !strings.HasSuffix(m.Cause, ".") {
		m.Cause += "."
	}
	return Likely
}

func att601() Rule {
	return Rule{
		ID:    "ATT601",
		Title: "The pin path is not on a BPF file system (bpffs), or its name has a dot",
		Class: "R5",
		Stage: load.Request,
		Text: `Objects are pinned on a mounted BPF file system, usually at /sys/fs/bpf.
In a container, or early at boot, nothing may be mounted there. The path is then on sysfs or on a
disk, and the kernel answers EPERM, whatever the capabilities. It also answers EPERM if the name
has a dot, which is reserved. EINVAL means that this kind of object cannot be pinned.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "mount-bpffs",
				Title:   "Mount a BPF file system there, and into the container with propagation",
				Price:   "Anyone who can read it can use the maps that are pinned there.",
				Command: "mount -t bpf bpf /sys/fs/bpf",
			},
			{
				ID:    "no-dot",
				Title: "Leave dots out of the name",
				Price: "Nothing.",
			},
		},
		Match: byReason("ATT601"),
	}
}

func lookPin(f *Facts, m *Match) Strength {
	p := f.target().Path
	if p == "" {
		return m.Strength
	}
	m.Evidence = append(m.Evidence, "the path was "+printable(p, 200))
	if f.errno() == abi.EPERM && strings.Contains(path.Base(p), ".") {
		m.Cause = fmt.Sprintf("The name %s has a dot, which a BPF file system reserves; or the path is not on one.", printable(path.Base(p), 80))
	}
	return m.Strength
}

func att602() Rule {
	return Rule{
		ID:    "ATT602",
		Title: "Permission denied or no such folder for the pin",
		Class: "R1",
		Stage: load.Permission,
		Text: `Loaders make a folder for their pins with mkdir(2) and pin in it, or open
what is there (BPF_OBJ_GET). This is a matter of files, not of bpf(2). Check the owner and mode of
the folder and of the pin: a new BPF file system belongs to root only. Check whether the mount is
read-only, whether /sys/fs/bpf exists in this mount namespace, and whether the path is an ordinary
file. A policy can be the reason too: the AppArmor profile docker-default denies writing below
/sys/fs.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "mount-into-container",
				Title:   "Mount the host's /sys/fs/bpf into the container, writable",
				Price:   "The container can read and change what others pinned there, as far as modes allow.",
				Command: "docker run -v /sys/fs/bpf:/sys/fs/bpf IMAGE",
			},
			{
				ID:    "apparmor-profile",
				Title: "Use an AppArmor profile that is the runtime's default plus write access to /sys/fs/bpf",
				Price: "A profile to distribute and to keep up to date.",
			},
			{
				ID:      "folder-owner",
				Title:   "Make the folder beforehand, owned by the loader's user",
				Price:   "One more step of the installation, at each boot.",
				Command: "install -d -o USER -m 0700 /sys/fs/bpf/NAME",
			},
		},
		Match: byReason("ATT602"),
	}
}

// opensPin are the words of those that open a pin, and make none.
var opensPin = lazyregexp.New(`(?i)BPF_OBJ_GET\b|\bbpf_obj_get\b|\bbpf obj get\b|bpf-foreign: |\bload(?:ing)? pinned\b|\bopen(?:ing)? pinned\b`)

// lookPinMissing tells a pin that is not there from a folder that is not.
func lookPinMissing(f *Facts, m *Match) Strength {
	if f.text == nil || !opensPin.MatchString(f.attach().Message) {
		return lookPinFolder(f, m)
	}
	m.Cause = "The loader opens a pin, and nothing is at that path in its mount namespace: the object was not pinned yet, the pin was removed (as at every boot), or the path is mistyped."
	m.Without = append(m.Without, "mount-into-container", "apparmor-profile", "folder-owner")
	m.First = append(m.First, load.Remedy{
		ID: "pin-first", Title: "Pin the program or map at this path before it is opened, or correct the path. In a container, the host's /sys/fs/bpf has to be passed in",
		Price: "An order between two programs.", Command: "bpftool prog load FILE /sys/fs/bpf/NAME; ls -l /sys/fs/bpf",
	})
	return lookPinFolder(f, m)
}

func lookPinFolder(f *Facts, m *Match) Strength {
	if p := f.target().Path; p != "" {
		m.Evidence = append(m.Evidence, "the path was "+printable(p, 200))
	}
	return m.Strength
}

func att603() Rule {
	return Rule{
		ID:    "ATT603",
		Title: "File exists: something is already pinned at this path",
		Class: "R5",
		Stage: load.Install,
		Text: `A pin stays until it is removed, even if the process that made it has
ended. A second pin at the same path gets EEXIST. Loaders are expected to open what is there
(BPF_OBJ_GET), or to remove it.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "reuse",
				Title: "Open the pinned object, if it is the loader's own and has the right type and sizes",
				Price: "A change of the loader, or an option of its library.",
			},
			{
				ID:      "remove-pin",
				Title:   "Remove the pin",
				Price:   "If nobody else uses the object, it is freed: the content of a map is lost, and a link is detached.",
				Command: "rm PATH",
			},
		},
		Match: byReason("ATT603"),
	}
}

func att604() Rule {
	return Rule{
		ID:    "ATT604",
		Title: "The pinned map is incompatible: type, size or flags differ",
		Class: "R10",
		Stage: load.Request,
		Text: `If a library finds a map at the path, it compares type, key, value, size
and flags with what the object asks for. If they differ, it gives up. This is an error of the
library. The kernel was not asked.

There are three usual reasons. The pin is from an earlier version of the program. The library
rounds the size of a ring buffer or perf buffer up to pages or CPUs. The kernel or the library
added flags (BPF_F_RDONLY_PROG, BPF_F_MMAPABLE).`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "remove-pin",
				Title:   "Remove the stale pin",
				Price:   "The content of the map is lost when no program uses it any more.",
				Command: "bpftool map show pinned PATH && rm PATH",
			},
			{
				ID:    "versioned-name",
				Title: "Put a version into the path of the pin",
				Price: "The new version starts with an empty map. Somebody must remove the old one.",
			},
			{
				ID:    "same-definition",
				Title: "Give the map the size that the kernel gives it: a multiple of the page, a power of two for ring buffers",
				Price: "A change of the program.",
			},
		},
		Match: byReason("ATT604"),
	}
}
