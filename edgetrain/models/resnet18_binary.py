"""ResNet-18 (He et al. 2016) with binary weights, activations and shortcuts, for small images."""

from __future__ import annotations

import math
from typing import Literal, get_args

from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops import (
    Add,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    Op,
    Or,
    Sign,
    SoftmaxCrossEntropy,
    Xnor,
)
from edgetrain.ops.weights import Training

__all__ = ["ShortcutKind", "resnet18_binary"]

ShortcutKind = Literal["add", "add2", "xnor", "or", "boolnet", "none"]
WIDTHS = (64, 128, 256, 512)
BLOCKS = 2
KERNEL = 3


def resnet18_binary(
    classes: int = 10,
    *,
    shortcut: ShortcutKind = "add2",
    gain: float = 2.0,
    widths: tuple[int, ...] = WIDTHS,
    stem_stride: int = 1,
    first: Training = "bnn",
    last: Training = "int8",
) -> Model:
    """Return the network for 32 x 32 x 3 images: a stem, stages of two basic blocks, an average.

    Each stage after the first halves height and width. shortcut says what reads earlier bits:
    "add" every convolution adds its own input (as Bi-Real nets), "add2" the second of each basic
    block adds the block's input, "xnor" and "or" join every convolution's input to its signs,
    "boolnet" joins the block's input to the first by xnor and to the second by or. gain is what an
    added bit counts, in standard deviations of a sum of random signs. Shortcuts of bits are left
    out where shapes change. Raises ModelError for an unknown shortcut.
    """
    if shortcut not in get_args(ShortcutKind):
        raise ModelError(
            f"unknown shortcut {shortcut!r}: choose one of {', '.join(get_args(ShortcutKind))}"
        )
    layers: list[Op] = [Conv2d(widths[0], KERNEL, stem_stride, training=first), BatchNorm(), Sign()]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        for number in range(2 * BLOCKS):
            changes = number == 0 and stage > 0
            second = number % 2 == 1
            opened = changes or (second and number == 1 and stage > 0)
            layers.append(Conv2d(width, KERNEL, 2 if changes else 1))
            strength = max(1, round(gain * math.sqrt(KERNEL * KERNEL * inputs)))
            if shortcut == "add" or (shortcut == "add2" and second):
                layers.append(Add(1 if shortcut == "add" else 2, strength))
            layers += [BatchNorm(), Sign()]
            layers += _joined(shortcut, second=second, changes=changes, opened=opened)
            inputs = width
    head = (GlobalAveragePool(), Linear(classes, last), BatchNorm(), SoftmaxCrossEntropy())
    return Model((32, 32, 3), (*layers, *head))


def _joined(shortcut: str, *, second: bool, changes: bool, opened: bool) -> list[Op]:
    """Return the shortcut of bits behind a convolution's signs, where shapes allow one."""
    if shortcut in ("xnor", "or") and not changes:
        return [Xnor() if shortcut == "xnor" else Or()]
    if shortcut == "boolnet" and second:
        return [Or(1 if opened else 2)]
    if shortcut == "boolnet" and not changes:
        return [Xnor()]
    return []
