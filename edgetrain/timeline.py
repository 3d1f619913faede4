"""A plan over time: how many bytes are alive at each step of its program, and what they are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from edgetrain.ops.op import Phase
from edgetrain.planner import Plan

__all__ = ["PURPOSES", "Moment", "Owner", "Purpose", "owners", "peak", "timeline"]

Purpose = Literal["state", "data", "activations", "gradients", "scratch"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
"""state is weights, their optimiser's moments and statistics: all that outlives a step."""
PURPOSE_OF: dict[Phase, Purpose] = {
    "persistent": "state",
    "loaded": "data",
    "retained": "activations",
    "pooled": "activations",
    "passed": "activations",
    "gradient": "gradients",
    "codes": "gradients",
    "early_codes": "gradients",
    "sent": "gradients",
    "forward": "scratch",
    "norm": "scratch",
    "remade": "scratch",
    "products": "scratch",
}


@dataclass(frozen=True)
class Owner:
    """Whose bytes they are: the number of a layer, None for the data, and what they are for."""

    layer: int | None
    purpose: Purpose


@dataclass(frozen=True)
class Moment:
    """One step of a plan's program: its number, what it does, and whose bytes are alive."""

    step: int
    name: str
    alive: Mapping[Owner, int]

    @property
    def bytes(self) -> int:
        """All bytes that are alive."""
        return sum(self.alive.values())

    def used(self, purpose: Purpose) -> int:
        """Return the bytes that are alive for a purpose."""
        return sum(size for owner, size in self.alive.items() if owner.purpose == purpose)

    def held(self, layer: int | None) -> int:
        """Return the bytes of a layer that are alive, or those of the data."""
        return sum(size for owner, size in self.alive.items() if owner.layer == layer)


def owners(plan: Plan) -> dict[str, Owner]:
    """Return the name of every tensor of the plan with whose it is."""
    found = {"input": Owner(None, "data")}
    for block, op, context in plan.walk():
        for rule in op.tensors(context):
            name = f"layer{block.index}.{rule.name}"
            found[name] = Owner(block.index, PURPOSE_OF[rule.phase])
    return found


def timeline(plan: Plan) -> tuple[Moment, ...]:
    """Return the steps of the plan's program in their order."""
    steps, owner = plan.steps, owners(plan)
    alive: list[Counter[Owner]] = [Counter() for _ in steps.busy]
    for placement in plan.placements:
        tensor = placement.tensor
        for counter in alive[tensor.first : tensor.last + 1]:
            counter[owner[tensor.name]] += tensor.room
    return tuple(
        Moment(step, steps.describe(step), counter)
        for step, counter in zip(steps.busy, alive, strict=True)
    )


def peak(moments: Sequence[Moment]) -> Moment:
    """Return the first of the steps at which most is alive."""
    return max(moments, key=lambda moment: (moment.bytes, -moment.step))
