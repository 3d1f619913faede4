"""What a model's state consists of: the one declaration that devices and coordinator share.

For every weight layer i of a model, in order:

    layer{i}.latent     I8  (outputs, inputs)         a layer trained as bnn or int8
    layer{i}.scale      U8  (outputs, inputs/group)   a layer trained as fsb, rounded up
    layer{i}.latent     I8  (outputs, kernel height, kernel width, channels)  a convolution
    layer{i}.latent     I8  (kernel height, kernel width, channels)  a depthwise convolution
    layer{i}.scale      U8  (outputs, channels)       a convolution trained as fsb
    layer{i}.signs      U32 (rows, words)             a frozen layer, or one that Bop trains
    layer{i}.latent4    U8  (rows, half the columns)  latents of 4 bits: see ops.weights
    layer{i}.latent16   F16 (rows, columns)           half floats, trained by Adam
    layer{i}.shift      F32 (outputs,)                the trained shift of its normalisation
    layer{i}.mean       F32 (outputs,)                running mean of its sums
    layer{i}.deviation  F32 (outputs,)                running mean absolute deviation of its sums
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from edgetrain.errors import PayloadError
from edgetrain.model import Model
from edgetrain.ops.batch_norm import MOMENTS
from edgetrain.tensorfile import Tensor

__all__ = [
    "STATISTICS",
    "Schema",
    "check_form",
    "check_state",
    "check_tensors",
    "check_values",
    "moment_schema",
    "state_schema",
    "trained_schema",
]

Schema = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> (dtype, shape)."""

STATISTICS = ("shift", "mean", "deviation")
"""float32 a channel: what a layer's normalisation has learnt."""


def state_schema(model: Model, mode: str, latent: str = "int8") -> Schema:
    """Return the name, dtype and shape of every tensor of a model's state in a mode."""
    schema: Schema = {}
    for block in model.blocks():
        weights, layer = block.weights, f"layer{block.index}"
        for name, entry in weights.state(block.source, mode, latent).items():
            schema[f"{layer}.{name}"] = entry
        for name in STATISTICS:
            schema[f"{layer}.{name}"] = ("F32", (weights.outputs,))
    return schema


def moment_schema(model: Model, mode: str, latent: str = "int8") -> Schema:
    """Return the tensors that optimisers keep beside the state, of weights and of shifts."""
    schema: Schema = {}
    for block in model.blocks():
        weights, layer = block.weights, f"layer{block.index}"
        for name, entry in weights.moments(block.source, mode, latent).items():
            schema[f"{layer}.{name}"] = entry
        if block.index >= model.lowest_trained:
            schema |= {f"{layer}.{name}": ("F32", (weights.outputs,)) for name in MOMENTS}
    return schema


def trained_schema(model: Model, mode: str) -> Schema:
    """Return the part of the state that training can change, and that a device sends.

    Signs are frozen, and so is a shift at which no gradient arrives; statistics follow the data.
    """
    fixed = {f"layer{index}.shift" for index in range(model.lowest_trained)}
    return {
        name: entry
        for name, entry in state_schema(model, mode).items()
        if name not in fixed and not name.endswith(".signs")
    }


def check_tensors(tensors: Mapping[str, Tensor], schema: Schema, what: str) -> None:
    """Raise PayloadError unless the tensors are those of the schema, with values that can be."""
    check_form(tensors, schema, what)
    check_values(tensors, what)


def check_form(tensors: Mapping[str, Tensor], schema: Schema, what: str) -> None:
    """Raise PayloadError unless the tensors have the names, dtypes and shapes of the schema."""
    if missing := sorted(schema.keys() - tensors.keys()):
        raise PayloadError(f"{what} lacks tensor {missing[0]!r}")
    if unknown := sorted(tensors.keys() - schema.keys()):
        raise PayloadError(f"{what} has a tensor {unknown[0]!r} that the model does not")
    for name, (dtype, shape) in schema.items():
        tensor = tensors[name]
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise PayloadError(
                f"{what}: tensor {name!r} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}"
            )


def check_values(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise PayloadError for a value that cannot be.

    Floats are finite, deviations not negative, and a latent is never -128, which has no opposite
    among int8.
    """
    for name, tensor in tensors.items():
        if tensor.dtype == "F32" and not all(map(math.isfinite, tensor.view())):
            raise PayloadError(f"{what}: tensor {name!r} holds a number that is not finite")
        if tensor.dtype == "F16" and any(bits & 0x7C00 == 0x7C00 for bits in tensor.view()):
            raise PayloadError(f"{what}: tensor {name!r} holds a number that is not finite")
        if name.endswith(".latent") and re.search(rb"\x80", tensor.data):
            raise PayloadError(f"{what}: tensor {name!r} holds -128; latents are -127 to 127")
        if name.endswith(".deviation") and min(tensor.view(), default=0.0) < 0:
            raise PayloadError(f"{what}: tensor {name!r} holds a negative deviation")


def check_state(state: Mapping[str, Tensor], model: Model, mode: str, latent: str = "int8") -> None:
    """Raise PayloadError unless this is a state of the model in this mode."""
    check_tensors(state, state_schema(model, mode, latent), "the state")
