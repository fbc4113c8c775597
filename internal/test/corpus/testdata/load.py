# SPDX-License-Identifier: Apache-2.0
#
# A loader in Python, without a library: a program that returns without having set its return value.
import ctypes
import struct

SYS_BPF, PROG_LOAD, SOCKET_FILTER = 321, 5, 1

libc = ctypes.CDLL(None, use_errno=True)
insns = ctypes.create_string_buffer(struct.pack("<BBhi", 0x95, 0, 0, 0))
license = ctypes.create_string_buffer(b"GPL")
log = ctypes.create_string_buffer(65536)
attr = ctypes.create_string_buffer(
    struct.pack(
        "=IIQQIIQII16s",
        SOCKET_FILTER,
        1,
        ctypes.addressof(insns),
        ctypes.addressof(license),
        1,
        len(log),
        ctypes.addressof(log),
        0,
        0,
        b"from_python",
    ),
)
fd = libc.syscall(SYS_BPF, PROG_LOAD, attr, len(attr) - 1)
print("errno", ctypes.get_errno() if fd < 0 else 0)
