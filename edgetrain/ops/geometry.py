"""A convolution as its kernels see it, and the units of which their scratch is made."""

from __future__ import annotations

from typing import Literal, NamedTuple

from edgetrain.ops.op import LANES

__all__ = ["LINE", "ROW", "Geometry", "Padding", "Reach", "bundled"]

Padding = Literal["same", "valid"]

ROW = 4 * LANES
"""Bytes of the sums of a tile's channels."""
LINE = 64
"""Every part of a tile's scratch starts on a cache line."""


class Reach(NamedTuple):
    """How a kernel goes over one side of an image."""

    size: int
    kernel: int
    stride: int
    padding: Padding

    @property
    def outputs(self) -> int:
        """How many outputs fit; fewer than one where the kernel does not."""
        if self.padding == "same":
            return -(-self.size // self.stride)
        return (self.size - self.kernel) // self.stride + 1

    @property
    def before(self) -> int:
        """The missing inputs before the first: TensorFlow's SAME, or none."""
        return self._missing // 2

    @property
    def after(self) -> int:
        """The missing inputs after the last."""
        return self._missing - self.before

    @property
    def _missing(self) -> int:
        if self.padding == "valid":
            return 0
        return max((self.outputs - 1) * self.stride + self.kernel - self.size, 0)


class Geometry(NamedTuple):
    """A convolution as its kernels see it: no padding, a kernel and the steps that it takes."""

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride: int

    @property
    def taps(self) -> int:
        """The places of a kernel."""
        return self.kernel_height * self.kernel_width

    @property
    def pixels(self) -> int:
        """The pixels that come out."""
        return self.out_height * self.out_width

    @property
    def reached(self) -> int:
        """The pixels that some tap reaches, those beyond the image among them."""
        height = (self.out_height - 1) * self.stride + self.kernel_height
        return height * ((self.out_width - 1) * self.stride + self.kernel_width)


def bundled(channels: int, outputs: int, groups: int) -> int:
    """Return how many groups kernels take at a time, as one convolution without groups.

    As few as fill whole words with their channels and their outputs; all of them where none do.
    """
    for count in (1, 2, 4, 8, 16, LANES):
        parts = groups // count
        if groups % count == 0 and channels // parts % LANES == outputs // parts % LANES == 0:
            return count
    return groups
