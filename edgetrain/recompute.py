"""What a plan may make more than once, so that it never exists whole, and what goes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from edgetrain.arena import Tensor, alive_bytes
from edgetrain.choices import Choices
from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops.conv import Conv

__all__ = [
    "Recompute",
    "check_recomputed",
    "gatherable",
    "recomputable",
    "remakable",
    "streamable",
    "without_the_largest",
]

Recompute = Literal["auto", "always", "never"]
"""Whether gradients are made twice, sums three times and patches of the data whenever they are
read, so that they never exist whole: where memory asks for it, until none of them decides the peak,
or never. What is learnt is the same, bit for bit."""


def remakable(model: Model) -> frozenset[int]:
    """Return the blocks below a convolution of bits whose gradient nothing else asks for."""
    blocks = list(model.blocks())
    joined = {block.index for block in blocks if block.shortcut is not None}
    joined |= {b.index - b.shortcut.back for b in blocks if b.shortcut is not None}
    return frozenset(
        block.index - 1
        for block in blocks[model.lowest_trained + 1 :]
        if isinstance(block.weights, Conv)
        and not block.weights.is_depthwise(block.source)
        and block.index - 1 not in joined
    )


def streamable(model: Model) -> frozenset[int]:
    """Return the blocks of a convolution whose sums no shortcut joins."""
    return frozenset(
        block.index
        for block in model.blocks()
        if isinstance(block.weights, Conv)
        and not block.weights.is_depthwise(block.source)
        and block.shortcut is None
    )


def gatherable(model: Model) -> bool:
    """Return whether the first layer reads patches of the data."""
    opening = next(model.blocks())
    return isinstance(opening.weights, Conv) and opening.weights.groups == 1


def recomputable(model: Model) -> bool:
    """Return whether there is anything that a plan may make more than once."""
    return bool(remakable(model) or streamable(model) or gatherable(model))


def check_recomputed(model: Model, choices: Choices) -> None:
    """Raise ModelError where the choices recompute what something else asks for."""
    cannot = (choices.remade - remakable(model)) | (choices.streamed - streamable(model))
    if cannot:
        raise ModelError(f"block {min(cannot)} cannot be recomputed: leave it out")
    if choices.gathered and not gatherable(model):
        raise ModelError("the first layer reads no patches of the data: gather none")


def without_the_largest(
    model: Model, choices: Choices, tensors: Sequence[Tensor]
) -> Choices | None:
    """Return the choices that recompute the largest tensor alive at the peak that can be.

    None where there is no such tensor.
    """
    ways = {
        f"layer{index}.output_gradient": replace(choices, remade=choices.remade | {index})
        for index in sorted(remakable(model) - choices.remade)
    } | {
        f"layer{index}.forward_tile": replace(choices, streamed=choices.streamed | {index})
        for index in sorted(streamable(model) - choices.streamed)
    }
    if gatherable(model):
        ways["input"] = replace(choices, gathered=True)
    peak = max({t.first for t in tensors}, key=lambda step: alive_bytes(tensors, step))
    found = [t for t in tensors if t.first <= peak <= t.last and t.name in ways]
    largest = max(found, key=lambda tensor: (tensor.room, tensor.name), default=None)
    return None if largest is None else ways[largest.name]
