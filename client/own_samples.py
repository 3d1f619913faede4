"""The samples that a device has recorded itself, as its daemon serves them and trains on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgetrain.client.state import StateFolder

__all__ = ["exported", "served"]

EXPORT = "samples.etd"


def exported(state: StateFolder) -> Path | None:
    """Return the `.etd` file of what the ring holds; None without a ring or without samples.

    It is the same file for all attempts at one instruction. Raises DataError for a damaged ring,
    StorageError where the disk is full.
    """
    path = state.work / EXPORT
    if path.exists():
        return path
    if not state.ring.exists():
        return None
    from edgetrain.client.sample_ring import SampleRing  # noqa: PLC0415

    with SampleRing.open(state.ring) as ring:
        if not ring.recorded():
            return None
        state.work.mkdir(exist_ok=True)
        ring.export(path)
    return path


@contextlib.contextmanager
def served(state: StateFolder) -> Iterator[None]:
    """Take samples from applications at the state's socket, where there is a ring.

    Raises DataError for a damaged ring, StorageError where the socket cannot be made.
    """
    if not state.ring.exists():
        yield
        return
    # A device that is given its data pays for neither.
    from edgetrain.client.sample_ring import SampleRing  # noqa: PLC0415
    from edgetrain.client.sample_socket import sample_socket  # noqa: PLC0415

    with SampleRing.open(state.ring) as ring, sample_socket(state.socket, ring):
        yield
