"""Waking devices: the door is told which nodes have been sent a message, and ends their waiting.

A datagram on a unix socket holds numbers of nodes, eight bytes each. It may be lost: a device asks
again by itself when its time is over, so that a datagram saves time and nothing hangs on it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

__all__ = ["listen", "received", "wake"]

MOST_NODES = 1024
"""Numbers in one datagram."""
SEND_SECONDS = 1.0
"""How long a sender waits for a listener that is busy."""


def wake(path: Path, nodes: Sequence[int]) -> None:
    """Tell whoever listens at `path` that these nodes have been sent something; raises nothing."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        sender.settimeout(SEND_SECONDS)
        sender.connect(str(path))
        for start in range(0, len(nodes), MOST_NODES):
            some = nodes[start : start + MOST_NODES]
            sender.send(struct.pack(f"!{len(some)}Q", *some))


def listen(path: Path) -> socket.socket:
    """Return a socket at `path` that does not block, for this user alone. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.setblocking(False)
    return listener


def received(listener: socket.socket) -> list[int]:
    """Return the nodes of a datagram; none where there is no datagram, or another's."""
    try:
        datagram = listener.recv(8 * MOST_NODES)
    except BlockingIOError:
        return []
    return list(struct.unpack(f"!{len(datagram) // 8}Q", datagram[: len(datagram) // 8 * 8]))
