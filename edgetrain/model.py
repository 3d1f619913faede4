"""Model: a frozen chain of layer specifications, without arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgetrain.errors import ModelError
from edgetrain.ops import OPS, BatchNorm, Linear, Op, Sign, Signal, SoftmaxCrossEntropy

__all__ = ["Block", "Model"]

FORMAT = "edgetrain-model"
VERSION = 1
MAXIMUM_LAYERS = 256


@dataclass(frozen=True)
class Block:
    """One weight layer and what follows it, up to the next weight layer."""

    index: int
    source: Signal
    ops: tuple[Op, ...]

    @property
    def linear(self) -> Linear:
        """The weight layer that opens the block."""
        opening = self.ops[0]
        assert isinstance(opening, Linear)
        return opening


@dataclass(frozen=True)
class Model:
    """Layers over a flat input of int8 features.

    The layers are (Linear, BatchNorm, Sign) repeated, then Linear, BatchNorm and the loss.
    Raises ModelError when they do not fit one another.
    """

    input_features: int
    layers: tuple[Op, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.layers) <= MAXIMUM_LAYERS:
            raise ModelError(
                f"a model has 1 to {MAXIMUM_LAYERS} layers, this one {len(self.layers)}"
            )
        for block in self.blocks():
            kinds = tuple(type(op) for op in block.ops)
            if kinds not in ((Linear, BatchNorm, Sign), (Linear, BatchNorm, SoftmaxCrossEntropy)):
                names = ", ".join(op.name for op in block.ops)
                raise ModelError(
                    f"layer {block.index} reads {names}: write linear, batch_norm, then sign or, "
                    f"at the end, softmax_cross_entropy"
                )
        if not isinstance(self.layers[-1], SoftmaxCrossEntropy):
            raise ModelError("the last layer must be softmax_cross_entropy")
        if self.classes < 2 or self.classes > 256:
            raise ModelError(f"a model has 2 to 256 classes, this one {self.classes}")

    @property
    def classes(self) -> int:
        """The outputs of the last weight layer."""
        return list(self.blocks())[-1].linear.outputs

    def blocks(self) -> Iterator[Block]:
        """Yield the weight layers in order, each with what follows it."""
        signal = Signal(self.input_features, "int8")
        index, source, ops = 0, signal, list[Op]()
        for op in self.layers:
            if isinstance(op, Linear) and ops:
                yield Block(index, source, tuple(ops))
                index, source, ops = index + 1, signal, []
            elif not ops and not isinstance(op, Linear):
                raise ModelError(f"a model starts with linear, not {op.name}")
            ops.append(op)
            signal = op.flow(signal)
        yield Block(index, source, tuple(ops))

    def to_json(self) -> str:
        """Return the model as JSON text."""
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "input_features": self.input_features,
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
        features, layers = fields.get("input_features"), fields.get("layers")
        if type(features) is not int or not isinstance(layers, list):
            raise ModelError("the model lacks an integer input_features or a list of layers")
        return cls(features, tuple(_layer(layer) for layer in layers[: MAXIMUM_LAYERS + 1]))


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
