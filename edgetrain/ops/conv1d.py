"""Conv1d: a convolution of sequences, which are images of height 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgetrain.errors import ModelError
from edgetrain.ops.conv import Conv
from edgetrain.ops.op import Signal

__all__ = ["Conv1d"]


@dataclass(frozen=True)
class Conv1d(Conv):
    """A convolution of sequences: signals of height 1."""

    name: ClassVar[str] = "conv1d"

    @property
    def kernel_height(self) -> int:
        return 1

    def flow(self, source: Signal) -> Signal:
        if source.height != 1:
            raise ModelError(f"conv1d cannot read an image {source.height} high: use conv2d")
        return super().flow(source)
