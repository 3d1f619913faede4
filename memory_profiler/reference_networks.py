"""Two published networks as walks over the shapes of their products, to hold ACE against.

Neither can be built here. Their ACE is known to the unit from their authors' code, so that they
check how products are counted, and say how large a model of ours is beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgetrain.ops.products import Products

__all__ = ["ReferenceNetwork", "pokebnn", "resnet50"]

IMAGE = 224
CLASSES = 1000
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and first stride of every stage of both (He et al. 2016)."""
EXPANSION = 4
"""How much wider the last convolution of a block is than the others."""
BFLOAT16 = 16

Shape = tuple[int, int, int, int]
"""Pixels, taps, channels and outputs of a convolution."""


@dataclass(frozen=True)
class ReferenceNetwork:
    """A network's name and its products: convolutions in order, the dense layer last."""

    name: str
    layers: tuple[Products, ...]

    @property
    def multiply_accumulates(self) -> int:
        """The multiply-accumulates of an inference."""
        return sum(layer.count for layer in self.layers)

    @property
    def ace(self) -> int:
        """The ACE of an inference."""
        return sum(layer.ace for layer in self.layers)


def resnet50(weight_bits: int = BFLOAT16, activation_bits: int = BFLOAT16) -> ReferenceNetwork:
    """Return ResNet-50 (He et al. 2016), the stride of a block in its 3 x 3 convolution."""
    layers = (Products(*shape, 1, weight_bits, activation_bits) for shape in _resnet50_shapes())
    return ReferenceNetwork(f"ResNet-50 w{weight_bits}a{activation_bits}", tuple(layers))


def pokebnn() -> ReferenceNetwork:
    """Return PokeBNN-1.0x (Zhang et al. 2022): binary, but for its ends and its weighing."""
    return ReferenceNetwork("PokeBNN-1.0x", tuple(_pokebnn_layers()))


def _resnet50_shapes() -> Iterator[Shape]:
    yield (IMAGE // 2) ** 2, 49, 3, STAGES[0][0]
    seen = STAGES[0][0]
    for block in _bottlenecks():
        yield from block
        pixels, _, _, outputs = block[-1]
        if outputs != seen:
            yield pixels, 1, seen, outputs
        seen = outputs
    yield 1, 1, seen, CLASSES


def _pokebnn_layers() -> Iterator[Products]:
    side, width = IMAGE // 4, STAGES[0][0]
    yield Products(side**2, 16, 3, 32, 1, 8, 8)
    yield Products(side**2, 9, 32, width, 32, 8, 8)
    for block in _bottlenecks():
        for pixels, taps, seen, outputs in block:
            yield Products(pixels, taps, seen, outputs, 1, 1, 1)
            # Squeeze and excitation weighs the channels that leave by those that came.
            yield Products(1, 1, seen, seen // 8, 1, 4, 4)
            yield Products(1, 1, seen // 8, outputs, 1, 4, 4)
    yield Products(1, 1, EXPANSION * STAGES[-1][0], CLASSES, 1, 8, 8)


def _bottlenecks() -> Iterator[tuple[Shape, ...]]:
    """Yield the three convolutions of every block: narrower, 3 x 3 with the stride, wider."""
    side, seen = IMAGE // 4, STAGES[0][0]
    for width, blocks, first_stride in STAGES:
        for number in range(blocks):
            before, side = side, side // (first_stride if number == 0 else 1)
            outputs = EXPANSION * width
            yield (
                (before**2, 1, seen, width),
                (side**2, 9, width, width),
                (side**2, 1, width, outputs),
            )
            seen = outputs
