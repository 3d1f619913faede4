"""Telling systemd how a service is, by datagrams to the socket that it names (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["notify", "watchdog_seconds"]


def notify(*assignments: str) -> None:
    """Send assignments like "READY=1"; without a systemd that listens, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # An abstract socket's name begins with a zero byte, which no environment can hold.
    name = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.connect(name)
        sender.send("\n".join(assignments).encode())


def watchdog_seconds() -> float | None:
    """Return after how many seconds without WATCHDOG=1 systemd ends us, or None if never."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(text) / 1e6
