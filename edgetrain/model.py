"""Model: a frozen chain of layer specifications, without arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgetrain.errors import ModelError
from edgetrain.gradient import Gradient
from edgetrain.ops import (
    OPS,
    Add,
    AvgPool,
    BatchNorm,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
    Or,
    Shortcut,
    Sign,
    Signal,
    SoftmaxCrossEntropy,
    WeightOp,
    Xnor,
)
from edgetrain.ops.weights import LIMIT

__all__ = ["Block", "Model", "image_shape"]

FORMAT = "edgetrain-model"
VERSION = 1
MAXIMUM_LAYERS = 256
MOST_COPIES = 7
"""Shortcuts that may read a bit, so that the sum of their gradients is sure to fit 32 bits."""


@dataclass(frozen=True)
class Block:
    """One weight layer and what follows it, up to the next weight layer."""

    index: int
    source: Signal
    ops: tuple[Op, ...]

    @property
    def weights(self) -> WeightOp:
        """The weight layer that opens the block."""
        opening = self.ops[0]
        assert isinstance(opening, WeightOp)
        return opening

    @property
    def pixels(self) -> int:
        """The pixels of an example that the block normalises: those that pooling leaves."""
        signal = self.source
        for op in self.ops:
            if isinstance(op, BatchNorm):
                break
            signal = op.flow(signal)
        return signal.pixels

    @property
    def bits(self) -> Signal:
        """The bits that leave the block, as images."""
        signal = self.source
        for op in self.ops:
            if isinstance(op, Flatten | GlobalAveragePool):
                break
            signal = op.flow(signal)
        return signal

    @property
    def shortcut(self) -> Shortcut | None:
        """The op that reads what left an earlier block."""
        return next((op for op in self.ops if isinstance(op, Shortcut)), None)

    def gradient(self, chosen: Gradient) -> Gradient:
        """Return how the block holds its gradient: of one scale where Add sends its codes on."""
        return chosen.of_one_scale() if isinstance(self.shortcut, Add) else chosen


@dataclass(frozen=True, init=False)
class Model:
    """Layers over an input of int8 features: a row, a sequence or an image of them.

    The layers are blocks: Linear, Conv2d or Conv1d, MaxPool or AvgPool after a convolution or
    neither, BatchNorm, Sign; then Linear, BatchNorm and the loss. A hidden block may have a
    shortcut from an earlier one: Add before BatchNorm, or Xnor or Or after Sign. Flatten or
    GlobalAveragePool leads from an image to Linear.
    """

    input_shape: tuple[int, int, int]
    layers: tuple[Op, ...]

    def __init__(self, input_shape: int | Sequence[int], layers: tuple[Op, ...]) -> None:
        """Build a model of n features, or (n,), (length, channels) or (height, width, channels).

        Raises ModelError when the layers do not fit one another.
        """
        object.__setattr__(self, "input_shape", image_shape(input_shape))
        object.__setattr__(self, "layers", layers)
        if not 0 < len(self.layers) <= MAXIMUM_LAYERS:
            raise ModelError(
                f"a model has 1 to {MAXIMUM_LAYERS} layers, this one {len(self.layers)}"
            )
        for block in self.blocks():
            _check_block(block)
        _check_shortcuts(list(self.blocks()))
        if all(block.weights.frozen for block in self.blocks()):
            raise ModelError("every layer is frozen, and none would train: leave one to train")
        if not isinstance(self.layers[-1], SoftmaxCrossEntropy):
            raise ModelError("the last layer must be softmax_cross_entropy")
        if self.classes < 2 or self.classes > 256:
            raise ModelError(f"a model has 2 to 256 classes, this one {self.classes}")

    @property
    def input_features(self) -> int:
        """The numbers of an example."""
        return math.prod(self.input_shape)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of an example as its owner has it: without sizes of 1 before the first other.

        (features,), (length, channels) or (height, width, channels).
        """
        height, width, channels = self.input_shape
        if height > 1:
            return height, width, channels
        return (width, channels) if width > 1 else (channels,)

    @property
    def lowest_trained(self) -> int:
        """The number of the lowest weight layer that trains: the backward pass ends there."""
        return next(block.index for block in self.blocks() if not block.weights.frozen)

    @property
    def depth(self) -> int:
        """The number of weight layers."""
        return sum(isinstance(op, WeightOp) for op in self.layers)

    @property
    def classes(self) -> int:
        """The outputs of the last weight layer."""
        return list(self.blocks())[-1].weights.outputs

    def blocks(self) -> Iterator[Block]:
        """Yield the weight layers in order, each with what follows it."""
        signal = Signal(*self.input_shape, "int8")
        index, source, ops = 0, signal, list[Op]()
        for op in self.layers:
            if isinstance(op, WeightOp):
                if ops:
                    yield Block(index, source, tuple(ops))
                    index, ops = index + 1, []
                source = signal
            elif not ops and not isinstance(op, Flatten):
                raise ModelError(f"a model starts with linear or a convolution, not {op.name}")
            if ops or isinstance(op, WeightOp):
                ops.append(op)
            signal = op.flow(signal)
        if not ops:
            raise ModelError("a model needs a layer with weights")
        yield Block(index, source, tuple(ops))

    def to_json(self) -> str:
        """Return the model as JSON text."""
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "input_shape": list(self.input_shape),
                "layers": [op.to_fields() for op in self.layers],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Model:
        """Return the model that JSON text describes. Raises ModelError naming what is wrong."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the model is not JSON: {error}") from None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ModelError(f"the model does not say format {FORMAT!r}")
        if fields.get("version") != VERSION:
            raise ModelError(f"model version {fields.get('version')!r}: this build reads {VERSION}")
        # Models once had a row of features and no other shape.
        shape = fields.get("input_shape", [fields.get("input_features")])
        layers = fields.get("layers")
        if not isinstance(shape, list) or not isinstance(layers, list):
            raise ModelError("the model lacks a list input_shape or a list of layers")
        return cls(shape, tuple(_layer(layer) for layer in layers[: MAXIMUM_LAYERS + 1]))


def image_shape(shape: int | Sequence[int]) -> tuple[int, int, int]:
    """Return height, width and channels. Raises ModelError for a shape that cannot be."""
    sizes = [shape] if isinstance(shape, int) else list(shape)
    if not 1 <= len(sizes) <= 3 or any(type(size) is not int for size in sizes):
        raise ModelError(f"the input has shape {shape!r}: write one to three integers")
    if any(size < 1 for size in sizes) or math.prod(sizes) > LIMIT:
        raise ModelError(f"the input has shape {shape!r}: choose 1 to {LIMIT} features")
    height, width, channels = [1] * (3 - len(sizes)) + sizes
    return height, width, channels


def _check_block(block: Block) -> None:
    """Raise ModelError unless the ops of a block follow one another as the engine runs them."""
    kinds = [type(op) for op in block.ops]
    tail = kinds[1:]
    if kinds[0] is not Linear and tail[:1] in ([MaxPool], [AvgPool]):
        tail = tail[1:]
    last = tail == [BatchNorm, SoftmaxCrossEntropy] and kinds[0] is Linear
    if tail[-1:] in ([Flatten], [GlobalAveragePool]):
        tail = tail[:-1]
    if tail[:1] == [Add]:
        tail = tail[1:]
    elif tail[-1:] in ([Xnor], [Or]):
        tail = tail[:-1]
    if not last and tail != [BatchNorm, Sign]:
        names = ", ".join(op.name for op in block.ops)
        raise ModelError(
            f"layer {block.index} reads {names}: write linear or a convolution, a pool after a "
            f"convolution or not, batch_norm, then sign or, at the end after linear, "
            f"softmax_cross_entropy; one shortcut may stand before batch_norm, add, or after sign, "
            f"xnor or or"
        )
    if block.index and block.source.kind == "int8" and kinds[0] is not Linear:
        raise ModelError(
            f"{block.weights.name} cannot follow global_average_pool, which leaves one pixel: "
            f"write linear"
        )


def _check_shortcuts(blocks: list[Block]) -> None:
    """Raise ModelError unless every shortcut finds bits that fit what it meets."""
    copies = [0] * len(blocks)
    for block in blocks:
        if block.shortcut is None:
            continue
        if block.shortcut.back > block.index:
            raise ModelError(
                f"layer {block.index} has a {block.shortcut.name} that goes back "
                f"{block.shortcut.back} blocks, but only {block.index} lie before it"
            )
        source = block.index - block.shortcut.back
        copies[source] += block.shortcut.copies(blocks[source].bits, block.bits)
        if copies[source] > MOST_COPIES:
            raise ModelError(
                f"a bit that leaves layer {source} is read by {copies[source]} shortcuts: choose "
                f"at most {MOST_COPIES}, where a doubling of channels counts twice"
            )


def _layer(fields: Any) -> Op:
    if not isinstance(fields, dict):
        raise ModelError("a layer is not a JSON object")
    name = fields.get("op")
    if not isinstance(name, str) or name not in OPS:
        raise ModelError(f"unknown op {name!r}: choose one of {', '.join(OPS)}")
    arguments = {key: value for key, value in fields.items() if key != "op"}
    for key, value in arguments.items():
        if type(value) not in (int, str):
            raise ModelError(f"{name}.{key} is {value!r}: write an integer or a word")
    try:
        return OPS[name](**arguments)
    except TypeError as error:
        raise ModelError(f"{name}: {error}") from None
