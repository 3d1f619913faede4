"""Who is asked in a round: a draw that the seed and the round decide, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from edgetrain.keys import derive_key

__all__ = ["select"]


def select(devices: Iterable[str], count: int, seed: int, round: int) -> tuple[str, ...]:
    """Return the names of the `count` devices to ask, sorted; of all where there are fewer.

    Every device has a ticket drawn from (seed, round, its name); the lowest win. So the choice
    depends neither on the order in which devices are listed nor on what they are called by a
    network.
    """
    names = sorted(set(devices))
    tickets = sorted(names, key=lambda name: (derive_key("select", seed, round, name), name))
    return tuple(sorted(tickets[:count]))
