"""Becomes another program inside its limits: a script that a supervisor starts, not a module.

    python -I -S launcher.py STATUS PROCS FILTER DATA RESERVE OOM COMMAND...

It joins a control group by writing itself into the file PROCS, takes on a FILTER of system calls
(in hex), sets the limit of private memory to DATA bytes (which the command may raise by RESERVE),
makes itself the kernel's first choice by OOM, and executes the command. PROCS, FILTER or DATA may
be empty. To the descriptor STATUS it writes "filter: " and why where the kernel takes no filter,
with which it goes on, and "failed: " and why where it ends; STATUS closes as the command starts.

Code between fork and exec in a process that has threads may find a lock that nobody will ever
release; a program of its own cannot. It imports next to nothing, and what it has allocated is
gone, and its peak forgotten, as the command begins.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

__all__: list[str] = []

FAILED = 127
"""The exit code of shells for a command that cannot be started."""
# linux/prctl.h and linux/seccomp.h.
SET_NO_NEW_PRIVILEGES, SET_SECCOMP, MODE_FILTER = 38, 22, 2


def main(arguments: list[str]) -> int:
    """Execute the command; return an exit code only if that fails."""
    status, procs, program, data, reserve, adjustment, *command = arguments
    os.set_inheritable(int(status), False)
    try:
        if procs:
            # 0 stands for whoever writes it, whatever its number is in another name space.
            write(procs, "0")
        if program and (lacking := install(bytes.fromhex(program))):
            os.write(int(status), f"filter: {lacking}\n".encode())
        limit_data(data, reserve)
        offer_to_kernel(int(adjustment))
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            # Python ignores them, and what is ignored stays so in the program that follows.
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except (OSError, ValueError) as error:
        place = getattr(error, "filename", None) or command[0]
        reason = getattr(error, "strerror", None) or error
        os.write(int(status), f"failed: {place}: {reason}".encode(errors="replace"))
    return FAILED


def install(program: bytes) -> str:
    """Filter this process's system calls for good; return why not, or nothing."""
    # Half as dear as all the rest, and not for every command.
    import ctypes  # noqa: PLC0415
    import struct  # noqa: PLC0415

    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions of eight bytes, and where they are.
    filtering = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, *[ctypes.c_void_p] * 3)
    for arguments in ((SET_NO_NEW_PRIVILEGES, 1), (SET_SECCOMP, MODE_FILTER, filtering)):
        if prctl(*arguments, *[None] * (5 - len(arguments))):
            return os.strerror(ctypes.get_errno())
    return ""


def limit_data(data: str, reserve: str) -> None:
    """Limit private memory, but never raise a limit that is already there."""
    if not data:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(data) + int(reserve)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (min(int(data), most), most))


def offer_to_kernel(adjustment: int) -> None:
    """Make this process the kernel's choice at least so much; one that is more so may not go back.

    Containers are often started as the first choice of all.
    """
    path = "/proc/self/oom_score_adj"
    with open(path) as file:  # noqa: PTH123
        present = int(file.read())
    if present < adjustment:
        write(path, str(adjustment))


def write(path: str, text: str) -> None:
    """Write to a file of the kernel's."""
    with open(path, "w") as file:  # noqa: PTH123 - pathlib costs more than all the rest
        file.write(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
