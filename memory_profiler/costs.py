"""What a plan costs, a layer at a time: multiply-accumulates, operations, bytes moved and ACE.

Every figure is declared by the ops themselves (Op.arithmetic and Op.products); here they are only
added up. None is a measurement: bytes are those that must move between the arena and the processor
where nothing stays in cache from one op to the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add

from edgetrain.model import Block
from edgetrain.ops import Arithmetic, Context, Op
from edgetrain.planner import Plan

__all__ = ["Cost", "Costs", "LayerCost", "costs"]


@dataclass(frozen=True)
class Cost:
    """What one layer costs, or all of them.

    multiply_accumulates and ace are those of an inference on one example (Zhang et al. 2022: each
    multiply-accumulate counts the bits of its weight times those of its activation; work on single
    elements counts nothing). arithmetic is that of one training step on `examples` of them.
    """

    multiply_accumulates: int
    ace: int
    arithmetic: Arithmetic
    examples: int

    @property
    def bytes_per_example(self) -> float:
        """The bytes that a training step moves for one example, its share of the weights' too."""
        return self.arithmetic.bytes_moved / self.examples

    @property
    def intensity(self) -> float:
        """Operations of a training step for each byte that it moves (Williams et al. 2009)."""
        return self.arithmetic.operations / self.arithmetic.bytes_moved

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.multiply_accumulates + other.multiply_accumulates,
            self.ace + other.ace,
            self.arithmetic + other.arithmetic,
            self.examples,
        )


@dataclass(frozen=True)
class LayerCost:
    """What a layer with weights and the ops that follow it cost, such as its normalisation."""

    layer: int
    ops: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True)
class Costs:
    """The costs of a plan: its layers, and their sum."""

    layers: tuple[LayerCost, ...]

    @property
    def total(self) -> Cost:
        """The sum over all layers."""
        return reduce(add, (layer.cost for layer in self.layers))


def costs(plan: Plan) -> Costs:
    """Return what every layer of a plan costs."""
    walked: dict[int, list[tuple[Block, Op, Context]]] = {}
    for step in plan.walk():
        walked.setdefault(step[0].index, []).append(step)
    return Costs(tuple(_layer_cost(index, steps) for index, steps in walked.items()))


def _layer_cost(index: int, steps: Iterable[tuple[Block, Op, Context]]) -> LayerCost:
    found = [(op, _op_cost(op, context)) for _, op, context in steps]
    names = tuple(_name(op) for op, _ in found)
    return LayerCost(index, names, reduce(add, (cost for _, cost in found)))


def _op_cost(op: Op, context: Context) -> Cost:
    products = op.products(context)
    counts = (0, 0) if products is None else (products.count, products.ace)
    return Cost(*counts, op.arithmetic(context), context.examples)


def _name(op: Op) -> str:
    """Return an op's name, with the width where it has one."""
    outputs = getattr(op, "outputs", None)
    return op.name if outputs is None else f"{op.name} {outputs}"
