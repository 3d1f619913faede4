"""BinaryNet: the network of binary weights and activations for CIFAR-10 (Courbariaux 2016)."""

from __future__ import annotations

from edgetrain.model import Model
from edgetrain.models.stack import classifier, pairs
from edgetrain.ops.weights import Training

__all__ = ["binarynet"]

WIDTHS = (128, 256, 512)
DENSE = (1024, 1024)


def binarynet(classes: int = 10, *, first: Training = "bnn", last: Training = "int8") -> Model:
    """Return three pooled pairs of 3 x 3 convolutions over 32 x 32 x 3, and three dense layers."""
    layers = pairs(WIDTHS, first, pools=len(WIDTHS))
    return Model((32, 32, 3), (*layers, *classifier(DENSE, classes, last)))
