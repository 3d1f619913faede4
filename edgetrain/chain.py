"""Makes a model of somebody else's layers, read one after the other: what front ends share.

What trains here has blocks of weights, a pool or none, a normalisation and a sign. So every
activation that rises becomes a sign; a normalisation that is missing is put in, because a sign
needs one; a bias goes, because the normalisation cancels it; a pool of maxima comes before both,
which leave the largest number the largest. What has no such form is refused, the first of them by
its name. Shapes are taken over, and nothing that was learnt: a model has no arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from edgetrain.errors import ModelError
from edgetrain.freeze import trained_as
from edgetrain.model import Model, image_shape
from edgetrain.ops import (
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
    Sign,
    Signal,
    SoftmaxCrossEntropy,
    WeightOp,
)
from edgetrain.ops.geometry import Padding, Reach
from edgetrain.ops.weights import Training

__all__ = ["Chain", "Kernel", "fitting"]


@contextmanager
def fitting(name: str) -> Iterator[None]:
    """Name the layer in a ModelError that is raised in here."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{name} does not fit: {error}") from None


@dataclass(frozen=True)
class Kernel:
    """How a kernel or a window goes over an image or a sequence: sizes by axis, height first.

    missing has the zeros put in along each axis, both ends together, None for as many as keep the
    size over the stride.
    """

    sizes: Sequence[int]
    strides: Sequence[int]
    missing: Sequence[int] | None
    dilations: Sequence[int] = (1,)

    def check_square(self) -> None:
        """Raise ModelError for a kernel that is not square, has holes, or is none."""
        axes, missing = len(self.sizes), self.missing
        whole = axes == len(self.strides) and (missing is None or len(missing) == axes)
        square = len({*self.sizes}) == len({*self.strides}) == 1 and {*self.dilations} == {1}
        if not whole or not square or min(self.strides) < 1 or min(missing or (0,)) < 0:
            raise ModelError(
                f"a kernel of {self.sizes} in steps of {self.strides}, dilated by "
                f"{self.dilations}: choose one size, one step and no dilation"
            )

    def padding(self, source: Signal) -> Padding:
        """Return the padding of ours that leaves an image of the same size.

        Which end has more zeros is not asked: no weights are taken over.
        """
        if self.missing is None:
            return "same"
        if not any(self.missing):
            return "valid"
        sides = (source.height, source.width)[-len(self.sizes) :]
        for side, zeros, size, stride in zip(
            sides, self.missing, self.sizes, self.strides, strict=True
        ):
            wanted = Reach(side, size, stride, "same").outputs
            if Reach(side + zeros, size, stride, "valid").outputs != wanted:
                raise ModelError(
                    f"{side} and {zeros} zeros beside them are not {wanted} places: choose no "
                    f"padding, or as much as keeps the size over the stride"
                )
        return "same"


@dataclass(frozen=True)
class _Block:
    """Weights, the sums that leave them, and what has been read since."""

    weights: WeightOp
    sums: Signal
    pool: MaxPool | AvgPool | None = None
    normalised: bool = False
    activated: bool = False
    joined: Flatten | GlobalAveragePool | None = None

    @property
    def out(self) -> Signal:
        """What leaves the block as a hidden one."""
        pooled = self.sums if self.pool is None else self.pool.flow(self.sums)
        bits = replace(pooled, kind="bits")
        return bits if self.joined is None else self.joined.flow(bits)

    @property
    def ops(self) -> list[Op]:
        """The block's layers as a hidden one."""
        pool = [] if self.pool is None else [self.pool]
        joined = [] if self.joined is None else [self.joined]
        return [self.weights, *pool, BatchNorm(), Sign(), *joined]


class Chain:
    """The layers read so far. Methods raise ModelError where a layer cannot follow them.

    input_shape is (features,), (length, channels) or (height, width, channels). Raises ModelError
    for another one.
    """

    def __init__(self, input_shape: Sequence[int]) -> None:
        self._input_shape = tuple(input_shape)
        self._source = Signal(*image_shape(input_shape), "int8")
        self._flattened: list[Op] = []
        self._blocks: list[_Block] = []
        self._ended = False

    @property
    def signal(self) -> Signal:
        """What the next weights would read."""
        return self._blocks[-1].out if self._blocks else self._source

    def linear(self, inputs: int, outputs: int) -> None:
        """Read a dense layer."""
        self._weigh(lambda: Linear(outputs), inputs, self.signal.features)

    def convolution(self, channels: int, outputs: int, kernel: Kernel, groups: int = 1) -> None:
        """Read a convolution of sequences or images, by the axes of its kernel."""
        kernel.check_square()
        make = Conv1d if len(kernel.sizes) == 1 else Conv2d
        size, stride, padding = kernel.sizes[0], kernel.strides[0], kernel.padding(self.signal)
        self._weigh(
            lambda: make(outputs, size, stride, padding, groups=groups),
            channels,
            self.signal.channels,
        )

    def _weigh(self, make: Callable[[], WeightOp], reads: int, given: int) -> None:
        if self._ended:
            raise ModelError("it follows the last layer's probabilities")
        if self._blocks and not self._blocks[-1].activated:
            raise ModelError("there is no activation between it and the weights before")
        if reads != given:
            raise ModelError(
                f"it reads {reads} features or channels, but {given} come: a shape has them last"
            )
        weights = make()
        self._blocks.append(_Block(weights, weights.flow(self.signal)))

    def pool_maxima(self, kernel: Kernel) -> None:
        """Read a pool of maxima, before or after the activation."""
        self._pool(MaxPool(_window(kernel)))

    def pool_averages(self, kernel: Kernel) -> None:
        """Read a pool of averages, which must come before the activation."""
        if self._open.activated or self._open.normalised:
            raise ModelError(
                "an average of signs is no sign: average before the normalisation, or all pixels"
            )
        self._pool(AvgPool(_window(kernel)))

    def _pool(self, pool: MaxPool | AvgPool) -> None:
        if self._open.pool is not None or self._open.joined is not None:
            raise ModelError("there is one pool a layer of weights, before it is flattened")
        pool.flow(self._open.sums)
        self._change(replace(self._open, pool=pool))

    def normalise(self) -> None:
        """Read a normalisation of batches, which must come before the activation."""
        if self._open.activated or self._open.normalised:
            raise ModelError("there is one normalisation a layer of weights, before its activation")
        self._change(replace(self._open, normalised=True))

    def bias(self) -> None:
        """Read a bias, which the normalisation to come cancels."""
        if self._open.normalised or self._open.activated:
            raise ModelError("a bias stands right behind weights")

    def activate(self) -> None:
        """Read an activation that rises."""
        if self._open.activated:
            raise ModelError("there is one activation a layer of weights")
        self._change(replace(self._open, activated=True))

    def flatten(self) -> None:
        """Read the joining of all pixels to one row."""
        if not self._blocks and self._source.pixels > 1:
            self._source = Flatten().flow(self._source)
            self._flattened = [Flatten()]
        elif self._blocks and self.signal.pixels > 1:
            self._join(Flatten())

    def average(self) -> None:
        """Read the average over all pixels."""
        self._join(GlobalAveragePool())

    def _join(self, joined: Flatten | GlobalAveragePool) -> None:
        if not self._open.activated or self._open.joined is not None:
            raise ModelError("pixels are joined once, after the activation")
        changed = replace(self._open, joined=joined)
        _ = changed.out
        self._change(changed)

    def end(self) -> None:
        """Read the probabilities of classes."""
        if self._open.activated or not isinstance(self._open.weights, Linear):
            raise ModelError("probabilities follow a dense layer without an activation")
        self._ended = True

    def model(self, first: Training, last: Training) -> Model:
        """Return the model, its outer layers trained in ways of their own."""
        if not self._blocks or self._open.activated or not isinstance(self._open.weights, Linear):
            raise ModelError("a model ends with a dense layer that nothing follows")
        ops = [*self._flattened, *(op for block in self._blocks[:-1] for op in block.ops)]
        places = [place for place, op in enumerate(ops) if isinstance(op, WeightOp)]
        if places:
            ops[places[0]] = trained_as(self._blocks[0].weights, first)
        closing = trained_as(self._open.weights, last)
        ops += [closing, BatchNorm(), SoftmaxCrossEntropy()]
        return Model(self._input_shape, tuple(ops))

    @property
    def _open(self) -> _Block:
        if not self._blocks:
            raise ModelError("it comes before any weights: start with linear or a convolution")
        return self._blocks[-1]

    def _change(self, block: _Block) -> None:
        self._blocks[-1] = block


def _window(kernel: Kernel) -> int:
    kernel.check_square()
    if tuple(kernel.sizes) != tuple(kernel.strides) or any(kernel.missing or ()):
        raise ModelError("windows stand side by side, without padding")
    return kernel.sizes[0]
