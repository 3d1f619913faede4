"""BinaryNet: the network of binary weights and activations for CIFAR-10 (Courbariaux 2016)."""

from __future__ import annotations

from edgetrain.model import Model
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import Conv2d, Op
from edgetrain.ops.weights import Training

__all__ = ["binarynet"]

WIDTHS = (128, 256, 512)
DENSE = (1024,)


def binarynet(classes: int = 10, *, first: Training = "bnn", last: Training = "int8") -> Model:
    """Return three pooled pairs of 3 x 3 convolutions over 32 x 32 x 3, and two dense layers."""
    layers: list[Op] = []
    for number, width in enumerate(WIDTHS):
        layers += stage(Conv2d(width, training=first if number == 0 else "auto"))
        layers += stage(Conv2d(width), pool=True)
    return Model((32, 32, 3), (*layers, *classifier(DENSE, classes, last)))
