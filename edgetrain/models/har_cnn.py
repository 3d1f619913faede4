"""A convolutional network over windows of motion sensors."""

from __future__ import annotations

from edgetrain.model import Model
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import Conv1d
from edgetrain.ops.weights import Training

__all__ = ["har_cnn"]

KERNEL = 7


def har_cnn(
    channels: int = 6,
    window: int = 128,
    classes: int = 7,
    *,
    first: Training = "int8",
    last: Training = "int8",
) -> Model:
    """Return three convolutions in time and a dense layer.

    An example is window moments of channels readings each, moment after moment.
    """
    layers = [
        *stage(Conv1d(64, KERNEL, stride=2, training=first)),
        *stage(Conv1d(64, KERNEL), pool=True),
        *stage(Conv1d(128, KERNEL), pool=True),
        *classifier((), classes, last),
    ]
    return Model((window, channels), tuple(layers))
