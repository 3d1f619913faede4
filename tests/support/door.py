"""The door for devices as a process of its own, before whatever stands for SuperLink."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.service import free_port

WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Door:
    """A door: its port, the socket that wakes who waits at it, and its process."""

    port: int
    waker: Path
    process: subprocess.Popen[bytes]


@contextmanager
def served(folder: Path, upstream: str, header_seconds: float = WAIT_SECONDS) -> Iterator[Door]:
    """Serve the proxy, with an authority in `folder`, before the URL `upstream`."""
    Authority(folder).prepare("127.0.0.1")
    waker = folder / "wake.sock"
    port = free_port()
    code = (
        "from pathlib import Path; from edgetrain.coordinator.service import proxy;"
        f"proxy.HEADER_SECONDS = {header_seconds};"
        f"proxy.serve(proxy.Authority(Path({str(folder)!r})), '127.0.0.1', {port}, {upstream!r},"
        f" Path({str(waker)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + WAIT_SECONDS
            while time.monotonic() < end:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(LOOK_SECONDS)
            yield Door(port, waker, process)
        finally:
            process.terminate()
