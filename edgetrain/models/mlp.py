"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops import BatchNorm, Linear, Op, Sign, SoftmaxCrossEntropy
from edgetrain.ops.linear import Training

__all__ = ["mlp"]


def mlp(
    inputs: int = 784,
    classes: int = 10,
    hidden: Sequence[int] = (256, 256, 256, 256),
    *,
    first: Training = "auto",
    last: Training = "int8",
    group: int = 4,
) -> Model:
    """Return inputs - hidden... - classes with binary activations.

    first and last say how the outer layers are trained; "auto" follows the plan's mode. group is
    the number of inputs that share a scale in fsb mode.
    """
    if not hidden:
        raise ModelError("mlp needs at least one hidden layer")
    layers: list[Op] = []
    for number, width in enumerate(hidden):
        layers += [Linear(width, first if number == 0 else "auto", group), BatchNorm(), Sign()]
    layers += [Linear(classes, last, group), BatchNorm(), SoftmaxCrossEntropy()]
    return Model(inputs, tuple(layers))
