"""The runs of layers of which the convolutional models are made."""

from __future__ import annotations

from edgetrain.ops import (
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    MaxPool,
    Op,
    Sign,
    SoftmaxCrossEntropy,
)
from edgetrain.ops.conv import Padding
from edgetrain.ops.weights import Training, WeightOp

__all__ = ["classifier", "pairs", "stage"]


def stage(weights: WeightOp, *, pool: bool = False) -> list[Op]:
    """Return one block of binary activations, with or without pooling."""
    return [weights, *([MaxPool()] if pool else []), BatchNorm(), Sign()]


def pairs(
    widths: tuple[int, ...], first: Training, *, padding: Padding = "same", pools: int
) -> list[Op]:
    """Return two 3 x 3 convolutions of each width; the first `pools` pairs end with a pool."""
    layers: list[Op] = []
    for number, width in enumerate(widths):
        opening = first if number == 0 else "auto"
        layers += stage(Conv2d(width, padding=padding, training=opening))
        layers += stage(Conv2d(width, padding=padding), pool=number < pools)
    return layers


def classifier(widths: tuple[int, ...], classes: int, last: Training) -> list[Op]:
    """Return dense layers over a flattened image, and the loss."""
    layers: list[Op] = [Flatten()]
    for width in widths:
        layers += stage(Linear(width))
    return [*layers, Linear(classes, last), BatchNorm(), SoftmaxCrossEntropy()]
