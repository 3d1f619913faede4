"""Freezes the lower layers of a model, at random signs or at those that another run has learnt."""

from __future__ import annotations

from collections.abc import Mapping

from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops import Op, WeightOp
from edgetrain.ops.op import LANES
from edgetrain.ops.weights import Training
from edgetrain.schema import state_schema
from edgetrain.tensorfile import State, Tensor

__all__ = ["freeze", "frozen_state"]

POSITIVE = bytes(b"0"[0] + (value < 128) for value in range(256))
"""Maps the byte of a latent to the digit of its sign."""


def freeze(model: Model, layers: int) -> Model:
    """Return the model with its lowest weight layers frozen, so many of them.

    Raises ModelError unless at least one is left to train.
    """
    count = sum(1 for _ in model.blocks())
    if not 0 <= layers < count:
        raise ModelError(f"{layers} layers to freeze: choose 0 to {count - 1} of {count}")
    frozen, ops = 0, list(model.layers)
    for place, op in enumerate(ops):
        if isinstance(op, WeightOp) and frozen < layers:
            ops[place], frozen = trained_as(op, "frozen"), frozen + 1
    return Model(model.input_shape, tuple(ops))


def frozen_state(state: Mapping[str, Tensor], source: Model, mode: str, model: Model) -> State:
    """Return a state of `source` as one of `model`, which differs in the layers it freezes alone.

    A layer that only `model` freezes keeps the signs of its latents. Raises ModelError for another
    model, and for a layer whose weights were more than signs.
    """
    if shape_of(model) != shape_of(source):
        raise ModelError("the state is of a model with other layers: start from one of this model")
    taken = dict(state)
    for block, trained in zip(model.blocks(), source.blocks(), strict=True):
        now, before = block.weights.weight_mode(mode), trained.weights.weight_mode(mode)
        if (now, before) == ("frozen", "bnn"):
            name = f"layer{block.index}.signs"
            if name in taken:
                continue
            if f"layer{block.index}.latent" not in taken:
                raise ModelError(
                    f"layer {block.index} has latents that cannot be frozen: only int8 and bop can"
                )
            dtype, shape = state_schema(model, mode)[name]
            latents = bytes(taken.pop(f"layer{block.index}.latent").data)
            signs = packed_signs(latents, *block.weights.rows(block.source))
            taken[name] = Tensor(dtype, shape, signs)
        elif now != before:
            raise ModelError(
                f"layer {block.index} was trained as {before} and cannot go on as {now}: only "
                f"layers trained as bnn can be frozen"
            )
    return taken


def shape_of(model: Model) -> tuple[tuple[int, ...], list[Op]]:
    """Return what a model computes, however its layers are trained."""
    layers = [trained_as(op, "auto") if isinstance(op, WeightOp) else op for op in model.layers]
    return model.input_shape, layers


def trained_as(op: WeightOp, training: Training) -> WeightOp:
    """Return a weight layer that is trained in another way."""
    return type(op)(**{**vars(op), "training": training})


def packed_signs(latents: bytes, rows: int, columns: int) -> bytes:
    """Return the signs of int8 latents, row after row, each in whole little-endian words of 32."""
    size = -(-columns // LANES) * LANES // 8
    # The first column is the lowest bit, and a number's last digit.
    digits = latents.translate(POSITIVE)
    return b"".join(
        int(digits[row * columns : (row + 1) * columns][::-1], 2).to_bytes(size, "little")
        for row in range(rows)
    )
