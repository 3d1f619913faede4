"""launch: start a command inside its control group and its limits, before its first instruction."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from edgetrain.errors import WorkerError
from edgetrain.memory_profiler.enforce.cgroup import ChildGroup
from edgetrain.memory_profiler.enforce.limits import OOM_SCORE_ADJUSTMENT, Limits

__all__ = ["Launched", "Stream", "launch"]

LAUNCHER = Path(__file__).with_name("launcher.py")
MAX_MESSAGE = 4096
Stream = int | IO[bytes] | None


class Launched(NamedTuple):
    """A command that has begun, and why the kernel took no filter for it, or nothing."""

    process: subprocess.Popen[bytes]
    unfiltered: str = ""


def launch(
    command: Sequence[str],
    limits: Limits,
    group: ChildGroup | None,
    program: bytes,
    *,
    env: Mapping[str, str] | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Launched:
    """Return the process of a command, which has begun by now.

    `program` is its filter of system calls, or empty. A process group of its own keeps it from a
    terminal's Ctrl-C, which is this process's to handle. Raises WorkerError when it cannot be
    started.
    """
    result, status = os.pipe()
    data = str(limits.data) if limits.wants("data") else ""
    own = [str(status), str(group.procs) if group else "", program.hex()]
    own += [data, str(limits.data_reserve), str(OOM_SCORE_ADJUSTMENT)]
    try:
        process = subprocess.Popen(
            # Neither the environment nor anyone's packages can change what the launcher does.
            [sys.executable, "-I", "-S", LAUNCHER, *own, *command],
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            process_group=0,
            pass_fds=(status,),
        )
    except OSError as error:
        os.close(result)
        raise WorkerError(f"cannot start a process: {error.strerror}") from error
    finally:
        os.close(status)
    with os.fdopen(result, "rb") as file:
        told = file.read(MAX_MESSAGE).decode(errors="replace")
    reasons = dict(line.partition(": ")[::2] for line in told.splitlines())
    if "failed" in reasons:
        process.communicate()
        raise WorkerError(f"cannot start a process: {reasons['failed']}")
    return Launched(process, reasons.get("filter", ""))
