"""The filter of system calls that leaves a process, and all that it starts, without a network.

A process needs no privilege to give itself one (seccomp(2)), cannot take it off again, and hands
it down to its children. What has a filter makes no socket of any family, not even a local one, nor
a ring of io_uring, whose requests no filter sees; and it cannot take a socket out of a process of
the same user. What calls the kernel as another architecture would is killed, since the numbers of
calls differ there.
"""

from __future__ import annotations

import errno
import os
import struct

from edgetrain.errors import EnforceError

__all__ = ["REFUSED", "socket_filter"]

REFUSED = {
    "x86_64": {
        "socket": 41,
        "socketpair": 53,
        "io_uring_setup": 425,
        "ptrace": 101,
        "process_vm_writev": 311,
        "pidfd_getfd": 438,
    },
    "aarch64": {
        "socket": 198,
        "socketpair": 199,
        "io_uring_setup": 425,
        "ptrace": 117,
        "process_vm_writev": 271,
        "pidfd_getfd": 438,
    },
}
"""Names and numbers of the calls that fail with EPERM, by machine (asm/unistd.h)."""
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How the kernel calls a machine's own way into it (linux/audit.h)."""
FOREIGN = 0x40000000
"""From here on numbers are x32's on x86-64, and nobody's elsewhere."""

# struct seccomp_data: the call's number, and the architecture that it is made as.
NUMBER, MADE_AS = 0, 4
# linux/bpf_common.h and linux/seccomp.h.
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


def socket_filter(machine: str | None = None) -> bytes:
    """Return the filter for a machine, this one unless given, as the kernel takes it (sock_filter).

    Raises EnforceError for a machine whose calls are not known here.
    """
    machine = machine or os.uname().machine
    if machine not in REFUSED:
        raise EnforceError(f"no filter of system calls is known for {machine}")
    numbers = list(REFUSED[machine].values())
    program = [
        (LOAD, 0, 0, MADE_AS),
        (JUMP_EQUAL, 1, 0, ARCHITECTURE[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (JUMP_AT_LEAST, len(numbers) + 1, 0, FOREIGN),
        # Jumps count the instructions that they leave out: the rest of these, and ALLOW.
        *((JUMP_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
