# SPDX-License-Identifier: Apache-2.0
#
# A loader in Python, without a library: the instructions come from a file and name their map as descriptor 100.
import ctypes
import os
import struct
import sys

SYS_BPF = 321
MAP_CREATE, LOOKUP, LOAD, TEST_RUN, INFO = 0, 1, 5, 10, 15

libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd, attr):
    fd = libc.syscall(SYS_BPF, cmd, attr, len(attr))
    return fd, ctypes.get_errno() if fd < 0 else 0


def buffer(data):
    return ctypes.create_string_buffer(data, len(data))


map_fd, _ = bpf(MAP_CREATE, buffer(struct.pack("=IIIII", 2, 4, 8, 1, 0)))
os.dup2(map_fd, 100)
with open(sys.argv[1], "rb") as f:
    insns = buffer(f.read())
gpl = buffer(b"GPL\0")
prog, errno = bpf(
    LOAD,
    buffer(struct.pack("=IIQQIIQII16s", 1, len(insns) // 8, ctypes.addressof(insns), ctypes.addressof(gpl), 0, 0, 0, 0, 0, b"from_python")),
)
if errno:
    print("errno", errno)
    sys.exit()
info = buffer(bytes(48))
bpf(INFO, buffer(struct.pack("=IIQ", prog, len(info), ctypes.addressof(info))))
jited = struct.unpack_from("=I", info, 16)[0] > 0
if not jited:  # the interpreter could crash the machine
    print("errno 0 jited 0")
    sys.exit()
ran = []
for size in (64, 100, 200):
    packet = buffer(bytes(14 + size))
    run = buffer(struct.pack("=IIIIQQIIIIQQ", prog, 0, len(packet), 0, ctypes.addressof(packet), 0, 0, 0, 0, 0, 0, 0))
    bpf(TEST_RUN, run)
    ran.append(struct.unpack_from("=I", run, 4)[0])
key, value = buffer(bytes(4)), buffer(bytes(8))
bpf(LOOKUP, buffer(struct.pack("=IIQQQ", map_fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)))
print("errno 0 jited", int(jited), "ran", *ran, "count", struct.unpack("=Q", value)[0])
