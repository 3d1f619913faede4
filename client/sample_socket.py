"""Where applications on the device hand their samples to the daemon: a local socket.

A client writes samples as text, a JSON object a line, and reads a line of JSON for each:
{"recorded": 17}, or {"error": "..."} with nothing recorded. A sample is on the disk when its answer
is written. Who may connect is for the socket file's permissions to say.
"""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

from edgetrain.client.sample_ring import SampleRing
from edgetrain.client.sample_text import longest_line, parse_sample
from edgetrain.errors import EdgetrainError, StorageError

__all__ = ["IDLE_SECONDS", "MOST_CLIENTS", "sample_socket"]

MOST_CLIENTS = 8
"""Connections served at a time; each holds a thread."""
IDLE_SECONDS = 60.0
"""A client that is silent for so long is hung up on."""
MODE = 0o660


class Conversation(socketserver.StreamRequestHandler):
    """One client's lines, and their answers."""

    server: SampleServer
    timeout = IDLE_SECONDS

    def handle(self) -> None:
        """Answer lines until the client, its silence or a line without an end stops it."""
        with contextlib.suppress(OSError):
            if not self.server.places.acquire(blocking=False):
                self._answer({"error": f"{MOST_CLIENTS} others are connected: try again later"})
                return
            try:
                while self._answer_line():
                    pass
            finally:
                self.server.places.release()

    def _answer_line(self) -> bool:
        ring = self.server.ring
        limit = longest_line(ring.form)
        line = self.rfile.readline(limit + 1)
        if len(line) > limit:
            self._answer({"error": f"a line is longer than the {limit} bytes of a sample"})
            return False
        if line.strip():
            try:
                self._answer({"recorded": ring.append([parse_sample(line, ring.form)])})
            except EdgetrainError as error:
                self._answer({"error": str(error)})
        return bool(line)

    def _answer(self, fields: dict[str, object]) -> None:
        self.wfile.write(json.dumps(fields).encode() + b"\n")


class SampleServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A server of one ring."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * MOST_CLIENTS

    def __init__(self, path: Path, ring: SampleRing) -> None:
        self.ring = ring
        self.places = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__(str(path), Conversation)


@contextlib.contextmanager
def sample_socket(path: Path, ring: SampleRing) -> Iterator[None]:
    """Serve a ring at a socket file while the context is held.

    A socket that a daemon which died has left is taken over. Raises StorageError where the socket
    cannot be made.
    """
    try:
        # Nobody may connect before the file has its permissions.
        mask = os.umask(0o777 & ~MODE)
        try:
            path.unlink(missing_ok=True)
            server = SampleServer(path, ring)
        finally:
            os.umask(mask)
    except OSError as error:
        raise StorageError(f"cannot listen at {path}: {error.strerror}") from error
    with server:
        thread = threading.Thread(target=server.serve_forever, name="samples", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)
