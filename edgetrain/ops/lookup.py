"""Scratch of a convolution's gradients by table lookup, where an instruction set has them.

Five codes have 32 sums, whichever their signs: a table of them serves all products of the five.
"""

from __future__ import annotations

from edgetrain.ops.geometry import ROW, Geometry
from edgetrain.ops.op import LANES, padded

__all__ = ["fits_weights", "input_parts", "sign_index", "weight_parts"]

GROUP_CODES, GROUPS_OF_INDEX, MOST_LOOKUPS = 5, 3, 102
"""Codes that share a table of sums, tables that share an index, sums sure to fit 16 bits."""
TABLE = 2 * LANES
"""Bytes of a table, and of an index of 32 channels."""


def fits_weights(examples: int) -> bool:
    """Return whether the gradient of the weights can be looked up for a micro-batch."""
    return _groups(examples) <= MOST_LOOKUPS


def weight_parts(shape: Geometry, examples: int) -> tuple[int, ...]:
    """Columns of codes, tables of four outputs, indices of the rows of a kernel, gradient."""
    tiles = padded(shape.channels) // LANES
    columns = 2 * MOST_LOOKUPS * ROW
    index = shape.kernel_height * shape.width * tiles * _indices(examples) * TABLE
    return columns, 4 * MOST_LOOKUPS * TABLE, index, tiles * shape.taps * LANES * ROW


def input_parts(shape: Geometry, outputs: int) -> tuple[int, ...]:
    """Codes, zeros to the end of the last group among them, and the tables of a row."""
    groups = _groups(outputs)
    codes = shape.pixels * max(padded(outputs), GROUP_CODES * groups) + 1
    return codes, (shape.width + shape.kernel_width - 1) * groups * TABLE


def sign_index(shape: Geometry, outputs: int) -> int:
    """Bytes of the signs of the weights as indices."""
    return padded(shape.channels) // LANES * shape.taps * _indices(outputs) * TABLE


def _groups(codes: int) -> int:
    """Return how many tables of sums stand for a number of codes."""
    return -(-codes // GROUP_CODES)


def _indices(codes: int) -> int:
    """Return how many indices choose from their tables."""
    return -(-_groups(codes) // GROUPS_OF_INDEX)
