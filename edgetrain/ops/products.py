"""What a layer with weights multiplies: how many products, of operands of how many bits.

ACE, the arithmetic computation effort of an inference, is the sum over all multiply-accumulates of
the bits of the weight times those of the activation (Zhang et al. 2022, "PokeBNN"). Work on single
elements, such as normalisation and pooling, is not in it, nor is the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Products"]


@dataclass(frozen=True)
class Products:
    """The products of a convolution for one example; a dense layer has one pixel and one tap.

    pixels are those that come out, taps the places of a kernel, groups the parts into which
    channels and outputs are divided. A tap beyond the image counts as any other.
    """

    pixels: int
    taps: int
    channels: int
    outputs: int
    groups: int = 1
    weight_bits: int = 1
    activation_bits: int = 1

    @property
    def count(self) -> int:
        """The multiply-accumulates."""
        return self.pixels * self.taps * (self.channels // self.groups) * self.outputs

    @property
    def ace(self) -> int:
        """The multiply-accumulates, each weighed by the bits of its operands."""
        return self.count * self.weight_bits * self.activation_bits
