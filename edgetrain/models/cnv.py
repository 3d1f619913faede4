"""CNV: the small VGG of FINN (Umuroglu et al. 2017)."""

from __future__ import annotations

from edgetrain.model import Model
from edgetrain.models.stack import classifier, pairs
from edgetrain.ops.conv import Padding
from edgetrain.ops.weights import Training

__all__ = ["cnv"]

WIDTHS = (64, 128, 256)
DENSE = (512, 512)


def cnv(
    padding: Padding = "same",
    classes: int = 10,
    *,
    first: Training = "bnn",
    last: Training = "int8",
) -> Model:
    """Return three pairs of 3 x 3 convolutions over 32 x 32 x 3 images, and three dense layers.

    With "same" a pool follows every pair and the dense layers read 4 x 4 x 256 signs; with "valid",
    as published, the last pair leaves a single pixel and has no pool.
    """
    pools = len(WIDTHS) if padding == "same" else len(WIDTHS) - 1
    layers = pairs(WIDTHS, first, padding=padding, pools=pools)
    return Model((32, 32, 3), (*layers, *classifier(DENSE, classes, last)))
