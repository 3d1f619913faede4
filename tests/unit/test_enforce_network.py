"""Commands without a network: real processes, and the filter's program in a machine of our own."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import EnforceError
from edgetrain.memory_profiler.enforce import supervise as supervising
from edgetrain.memory_profiler.enforce.enforced import Enforced
from edgetrain.memory_profiler.enforce.limits import Limits
from edgetrain.memory_profiler.enforce.socket_filter import ARCHITECTURE, REFUSED, socket_filter
from edgetrain.memory_profiler.enforce.supervise import Supervised, supervise

MACHINE = os.uname().machine
OFFLINE = Limits(network="none")
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/aarch64-linux-gnu/include/asm-generic/unistd.h"),
}
ALLOWED, FAILS, KILLED = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
MOST_CALLS = 1 << 16
# getpid by the numbers of i386, in the machine code that x86-64 has for it.
AS_ANOTHER_MACHINE = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""

known = pytest.mark.skipif(MACHINE not in REFUSED, reason=f"no filter is known for {MACHINE}")


def said(code: str, limits: Limits = OFFLINE) -> tuple[str, Enforced]:
    """Return what a command of Python printed, and how it ended."""
    with Supervised([sys.executable, "-c", code], limits, stdout=subprocess.PIPE) as running:
        assert running.process.stdout is not None
        return running.process.stdout.read().decode().strip(), running.end()


@known
def test_no_socket_of_any_family_can_be_made() -> None:
    families = [family.value for family in socket.AddressFamily]
    code = (
        "import socket\n"
        f"for family in {families!r}:\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):\n"
        "        try: print(socket.socket(family, kind))\n"
        "        except PermissionError: pass\n"
        "print('done')"
    )
    told, ended = said(code)
    assert told == "done"
    assert (ended.belts, ended.network, ended.no_filter) == (("network",), "none", "")


@known
@pytest.mark.parametrize("name", REFUSED.get(MACHINE, ()))
def test_a_call_is_refused_to_a_command_and_to_what_it_starts(name: str) -> None:
    # Without a filter none of them answers EPERM to arguments that make no sense.
    call = f"""
import ctypes
made = ctypes.CDLL(None, use_errno=True).syscall({REFUSED[MACHINE][name]}, -1, -1, -1, -1, -1, -1)
print(made, ctypes.get_errno())
"""
    refused = f"-1 {errno.EPERM}"
    assert said(call)[0] == refused
    assert said(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {call!r}])")[0] == (
        refused
    )
    assert said(call, Limits())[0] != refused


@pytest.mark.skipif(MACHINE != "x86_64", reason="machine code of x86-64")
def test_calls_as_another_machine_end_a_command() -> None:
    _, without = said(AS_ANOTHER_MACHINE, Limits())
    if without.code == -signal.SIGSEGV:
        pytest.skip("this kernel knows no calls of i386")
    _, ended = said(AS_ANOTHER_MACHINE)
    assert (without.code, ended.code) == (0, -signal.SIGSYS)


def test_a_command_has_the_network_unless_it_is_refused() -> None:
    told, ended = said(
        "import socket; socket.socket().bind(('127.0.0.1', 0)); print('bound')", Limits()
    )
    assert (told, ended.network) == ("bound", "open")
    assert (ended.belts, ended.no_filter) == ((), "")


def test_where_no_filter_is_known_a_command_runs_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EnforceError, match="for riscv64"):
        socket_filter("riscv64")

    def unknown() -> bytes:
        return socket_filter("riscv64")

    monkeypatch.setattr(supervising, "socket_filter", unknown)
    ended = supervise(["true"], OFFLINE)
    assert (ended.code, ended.network, ended.belts) == (0, "open", ())
    assert "riscv64" in ended.no_filter


def test_where_the_kernel_takes_no_filter_a_command_runs_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One that ends without an answer, which every kernel refuses as one without filters would.
    monkeypatch.setattr(supervising, "socket_filter", lambda: bytes(8))
    ended = supervise(["true"], OFFLINE)
    assert (ended.code, ended.network, ended.no_filter) == (0, "open", os.strerror(errno.EINVAL))


def test_a_command_that_cannot_start_is_named_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "socket_filter", lambda: bytes(8))
    with pytest.raises(Exception, match="cannot start a process: /nonexistent: No such file"):
        supervise(["/nonexistent"], OFFLINE)


# The program.


def answer(program: bytes, number: int, architecture: int) -> int:
    """Return what a filter says to a call: the few instructions of BPF that it is made of."""
    data = struct.pack("=II", number, architecture)
    instructions = list(struct.iter_unpack("=HBBI", program))
    place = value = 0
    while True:
        code, if_true, if_false, operand = instructions[place]
        place += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                place += if_true if value == operand else if_false
            case 0x35:
                place += if_true if value >= operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"an instruction that nobody meant: {code}")


@pytest.mark.parametrize("machine", REFUSED)
def test_a_filter_refuses_these_calls_and_no_others(machine: str) -> None:
    program = socket_filter(machine)
    refused = {
        number
        for number in range(MOST_CALLS)
        if answer(program, number, ARCHITECTURE[machine]) == FAILS
    }
    assert refused == set(REFUSED[machine].values())
    assert answer(program, 0, ARCHITECTURE[machine]) == ALLOWED


@pytest.mark.parametrize("machine", REFUSED)
@given(number=st.integers(0, 2**32 - 1), architecture=st.integers(0, 2**32 - 1))
def test_another_machines_calls_and_numbers_never_pass(
    machine: str, number: int, architecture: int
) -> None:
    program, own = socket_filter(machine), ARCHITECTURE[machine]
    if architecture != own:
        assert answer(program, number, architecture) == KILLED
    assert answer(program, number | 1 << 30, own) == FAILS


@pytest.mark.parametrize("machine", REFUSED)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no {HEADERS[machine]}: install linux-libc-dev or its cross package")
    found = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", HEADERS[machine].read_text()))
    assert {name: int(found[name]) for name in REFUSED[machine]} == REFUSED[machine]
