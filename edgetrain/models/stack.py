"""The runs of layers of which the convolutional models are made."""

from __future__ import annotations

from edgetrain.ops import BatchNorm, Flatten, Linear, MaxPool, Op, Sign, SoftmaxCrossEntropy
from edgetrain.ops.weights import Training, WeightOp

__all__ = ["classifier", "stage"]


def stage(weights: WeightOp, *, pool: bool = False) -> list[Op]:
    """Return one block of binary activations, with or without pooling."""
    return [weights, *([MaxPool()] if pool else []), BatchNorm(), Sign()]


def classifier(widths: tuple[int, ...], classes: int, last: Training) -> list[Op]:
    """Return dense layers over a flattened image, and the loss."""
    layers: list[Op] = [Flatten()]
    for width in widths:
        layers += stage(Linear(width))
    return [*layers, Linear(classes, last), BatchNorm(), SoftmaxCrossEntropy()]
