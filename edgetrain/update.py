"""What a device sends of what it learnt, tensor by tensor of its state (see edgetrain.schema).

The task names one codec; it carries the latents. The rest travels in one way always:

    .latent                     the task's codec
    .scale                      raw8
    .shift .mean .deviation     as they are, F32
    .signs                      never: a frozen layer sends nothing but its statistics

On the wire, for a state tensor NAME of `count` elements:

    luq4   NAME.codes    U8  (ceil(count / 2),)   two codes a byte, the first in the low nibble
           NAME.maximum  U32 (1,)                 M, the largest |after - before|, 0 to 254
           A code is sign << 3 | k and stands for the change, in steps of the latent,
               0 if k = 0, else (-1)^sign * 2^(k - 1) * M / 64
           so that change * 64 is the exact integer 2^(k - 1) * M. Rounding is random and
           unbiased: the expected change is after - before.
    raw8   NAME          the dtype and shape of the state: the new values themselves

Draws are keyed by (seed, model version, device, tensor name): an update is a function of what was
learnt and of who learnt it, whichever machine computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgetrain.errors import PayloadError
from edgetrain.keys import derive_key
from edgetrain.model import Model
from edgetrain.schema import Schema, check_tensors, trained_schema
from edgetrain.tensorfile import State, Tensor

__all__ = [
    "CODECS",
    "LUQ4_UNIT",
    "MAXIMUM_CHANGE",
    "Codec",
    "check_update",
    "codec_of",
    "encode_update",
    "trained_part",
    "update_bytes",
    "update_key",
    "update_schema",
]

LUQ4_UNIT = 64
"""Changes under luq4 are multiples of 1/64 of a latent's step."""
MAXIMUM_CHANGE = 254
"""The most steps a latent can move: from -127 to 127."""


@dataclass(frozen=True)
class Codec:
    """One way to put a state tensor on the wire.

    Attributes:
        name: what a task calls it.
        bits: bits an element, without what a tensor costs once.
        unbiased: whether the expected value that is read back is the value that was put in.
        worst_case_bytes: element count -> the most bytes of tensor data on the wire.
        schema: (name, dtype, shape) of a state tensor -> the tensors that carry it.
        encode: (name, before, after, key) -> those tensors.
    """

    name: str
    bits: float
    unbiased: bool
    worst_case_bytes: Callable[[int], int]
    schema: Callable[[str, str, tuple[int, ...]], Schema]
    encode: Callable[[str, Tensor, Tensor, int], State]


def luq4_bytes(count: int) -> int:
    """Return the bytes of `count` codes and one maximum."""
    return -(-count // 2) + 4


def luq4_schema(name: str, dtype: str, shape: tuple[int, ...]) -> Schema:
    """Return the tensors that carry a latent's change in 4 bits an element."""
    if dtype != "I8":
        raise PayloadError(f"luq4 carries I8 tensors, and {name!r} is {dtype}")
    codes = -(-math.prod(shape) // 2)
    return {f"{name}.codes": ("U8", (codes,)), f"{name}.maximum": ("U32", (1,))}


def luq4_encode(name: str, before: Tensor, after: Tensor, key: int) -> State:
    """Return the codes of after - before and their scale."""
    # The coordinator reads schemas without ever loading the engine.
    from edgetrain import _native  # noqa: PLC0415

    codes, maximum = _native.luq4_encode(before.data, after.data, key)
    return {
        f"{name}.codes": Tensor("U8", (len(codes),), codes),
        f"{name}.maximum": Tensor("U32", (1,), maximum.to_bytes(4, "little")),
    }


def raw_schema(name: str, dtype: str, shape: tuple[int, ...]) -> Schema:
    """Return the state tensor's own description: it travels as it is."""
    return {name: (dtype, shape)}


def raw_encode(name: str, before: Tensor, after: Tensor, key: int) -> State:  # noqa: ARG001
    """Return the new values."""
    return {name: after}


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec("luq4", 4, True, luq4_bytes, luq4_schema, luq4_encode),
        Codec("raw8", 8, True, lambda count: count, raw_schema, raw_encode),
    )
}
"""The codecs that a task may name, which carry one-byte state."""

RAW32 = Codec("raw32", 32, True, lambda count: 4 * count, raw_schema, raw_encode)
"""How float32 statistics travel, whatever the task says."""


def codec_of(name: str, codec: str) -> Codec:
    """Return the codec that carries one state tensor when the task names `codec`."""
    kind = name.rpartition(".")[2]
    if kind == "latent":
        return CODECS[codec]
    return CODECS["raw8"] if kind == "scale" else RAW32


def update_schema(model: Model, mode: str, codec: str) -> Schema:
    """Return the name, dtype and shape of every tensor of an update."""
    schema: Schema = {}
    for name, (dtype, shape) in trained_schema(model, mode).items():
        schema |= codec_of(name, codec).schema(name, dtype, shape)
    return schema


def update_bytes(model: Model, mode: str, codec: str) -> int:
    """Return the most bytes of tensor data that an update can have."""
    return sum(
        codec_of(name, codec).worst_case_bytes(math.prod(shape))
        for name, (_, shape) in trained_schema(model, mode).items()
    )


def update_key(seed: int, version: int, device: str) -> int:
    """Return the key of one device's draws for one version of the model."""
    return derive_key("update", seed, version, device)


def trained_part(state: Mapping[str, Tensor], model: Model, mode: str) -> State:
    """Return the tensors of a state that training can change: those that an update carries."""
    return {name: state[name] for name in trained_schema(model, mode)}


def encode_update(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], codec: str, key: int
) -> State:
    """Return the tensors that carry the state from `before` to `after`.

    Both are what trained_part returns of states of one model in one mode; `key` comes from
    update_key. Raises PayloadError when they do not match.
    """
    check_tensors(
        after, {name: (old.dtype, old.shape) for name, old in before.items()}, "the state"
    )
    update: State = {}
    for name, old in before.items():
        update |= codec_of(name, codec).encode(name, old, after[name], derive_key(key, name))
    return update


def check_update(update: Mapping[str, Tensor], model: Model, mode: str, codec: str) -> None:
    """Raise PayloadError unless this is an update for the model in this mode and codec.

    Beyond what check_tensors asks: no latent has moved further than its range is wide, so that no
    device alone can push the fleet's sums out of their bounds.
    """
    check_tensors(update, update_schema(model, mode, codec), "the update")
    for name, tensor in update.items():
        if name.endswith(".maximum") and tensor.view()[0] > MAXIMUM_CHANGE:
            raise PayloadError(f"the update: {name!r} is {tensor.view()[0]}, over {MAXIMUM_CHANGE}")
