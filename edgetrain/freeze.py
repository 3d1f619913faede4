"""Freezes the lower layers of a model, at random signs or at those that another run has learnt."""

from __future__ import annotations

from collections.abc import Mapping

from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops import Op, WeightOp
from edgetrain.ops.weights import Training
from edgetrain.signs import take_signs
from edgetrain.tensorfile import State, Tensor

__all__ = ["freeze", "frozen_state"]


def freeze(model: Model, layers: int) -> Model:
    """Return the model with its lowest weight layers frozen, so many of them.

    Raises ModelError unless at least one is left to train.
    """
    count = model.depth
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
            layer = f"layer{block.index}"
            taken[f"{layer}.signs"] = take_signs(taken, layer, *block.weights.rows(block.source))
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
