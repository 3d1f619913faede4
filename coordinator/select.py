"""Who is asked in a round: a draw that the seed and the round decide, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from edgetrain.keys import derive_key

__all__ = ["select"]


def select(devices: Iterable[str], fraction: float, seed: int, round: int) -> tuple[str, ...]:
    """Return the names of the devices to ask, sorted.

    At least one, and round(fraction * devices) of them. Every device has a ticket drawn from
    (seed, round, its name); the lowest win. So the choice depends neither on the order in which
    devices are listed nor on what they are called by a network.
    """
    names = sorted(set(devices))
    count = max(1, round_half_up(fraction * len(names)))
    tickets = sorted(names, key=lambda name: (derive_key("select", seed, round, name), name))
    return tuple(sorted(tickets[:count]))


def round_half_up(value: float) -> int:
    """Return the nearest whole number, halves upwards."""
    return int(value + 0.5)
