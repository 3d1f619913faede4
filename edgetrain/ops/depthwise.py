"""Scratch of a convolution whose every output sees one channel, its own, for a tile of channels."""

from __future__ import annotations

from edgetrain.ops.geometry import LINE, ROW, Geometry
from edgetrain.ops.op import LANES, padded

__all__ = ["backward_tile", "forward_tile"]


def forward_tile(shape: Geometry, rows: int, *, pooled: bool) -> int:
    """Return the bytes of the weights, the image, the sums before pooling, and the tile's rows."""
    unpooled = shape.pixels if pooled else 0
    return _weights(shape) + padded(shape.reached * LANES, LINE) + (unpooled + rows) * ROW


def backward_tile(shape: Geometry) -> int:
    """Return the bytes of the weights, the image, that of the codes, and the weights' gradient."""
    height = shape.height + shape.kernel_height - 1
    codes = height * (shape.width + shape.kernel_width - 1) * LANES
    image = padded(shape.reached * LANES, LINE)
    return _weights(shape) + image + padded(codes, LINE) + shape.taps * ROW


def _weights(shape: Geometry) -> int:
    return padded(shape.taps * LANES, LINE)
