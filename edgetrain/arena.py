"""Places tensors in one arena by liveness, so that no two that live at once overlap."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ALIGNMENT", "Placement", "Tensor", "alive_bytes", "lower_bound", "place"]

ALIGNMENT = 64
"""Bytes: one cache line, one AVX-512 register."""


@dataclass(frozen=True)
class Tensor:
    """Bytes that are alive from step first to step last, both included."""

    name: str
    bytes: int
    first: int
    last: int

    def meets(self, other: Tensor) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last

    @property
    def room(self) -> int:
        """The bytes taken, rounded up to the alignment."""
        return -(-self.bytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Placement:
    """A tensor and the offset of its first byte."""

    tensor: Tensor
    offset: int

    @property
    def end(self) -> int:
        """The offset after its last byte, rounded up to the alignment."""
        return self.offset + self.tensor.room


def alive_bytes(tensors: Sequence[Tensor], step: int) -> int:
    """Return the bytes that are alive at a step."""
    return sum(tensor.room for tensor in tensors if tensor.first <= step <= tensor.last)


def lower_bound(tensors: Sequence[Tensor]) -> int:
    """Return the most bytes that are alive at one step: no arena can be smaller."""
    return max((alive_bytes(tensors, step) for step in {t.first for t in tensors}), default=0)


def place(tensors: Sequence[Tensor]) -> tuple[Placement, ...]:
    """Return the tensors with offsets, in the given order.

    The better of two greedy orders, largest first and longest-lived first: each tensor takes the
    lowest gap among those already placed that meet it.
    """
    orders = (
        sorted(tensors, key=lambda t: (-t.room, t.first, t.name)),
        sorted(tensors, key=lambda t: (t.first - t.last, -t.room, t.name)),
    )
    candidates = [_greedy(order) for order in orders]
    best = min(candidates, key=lambda placed: max((p.end for p in placed), default=0))
    by_name = {placement.tensor.name: placement for placement in best}
    return tuple(by_name[tensor.name] for tensor in tensors)


def _greedy(order: Sequence[Tensor]) -> list[Placement]:
    placed: list[Placement] = []
    # What is placed so far, by offset: plain tuples, because this loop is most of what planning is.
    taken: list[tuple[int, int, int, int]] = []
    for tensor in order:
        first, last, room, offset = tensor.first, tensor.last, tensor.room, 0
        for start, end, begun, done in taken:
            if begun <= last and first <= done:
                if start >= offset + room:
                    break
                offset = max(offset, end)
        insort(taken, (offset, offset + room, first, last))
        placed.append(Placement(tensor, offset))
    return placed
