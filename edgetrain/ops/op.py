"""What an op must declare, and the words it declares it in.

An op is one frozen dataclass: its fields are the layer's specification, its methods are the
rules. Planner, cost model, oracle tests, ONNX export and benchmarks read them from here, so that an
op cannot exist half-way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from edgetrain.errors import ModelError
from edgetrain.gradient import GRADIENT, Gradient
from edgetrain.ops.graph import Graph
from edgetrain.ops.products import Products

__all__ = [
    "LANES",
    "Arithmetic",
    "Branch",
    "Context",
    "Op",
    "Phase",
    "Signal",
    "TensorRule",
    "padded",
]

LANES = 32
"""Channels that a kernel takes at a time: one 32-bit word of packed signs."""

Mode = Literal["bnn", "fsb"]
Latent = Literal["int8", "int4", "bop", "adam16"]
"""How the latents of layers trained as bnn are held: see ops.weights."""
Holding = Latent | Literal["signs"]
"""The same, or signs alone: then nothing trains, and a plan is one that predicts."""
Phase = Literal[
    "persistent",
    "loaded",
    "retained",
    "pooled",
    "passed",
    "gradient",
    "forward",
    "norm",
    "remade",
    "codes",
    "early_codes",
    "products",
    "sent",
]
"""When a tensor is alive, seen from its block, whose backward pass has two steps: the norm's, which
turns the gradient of its output into codes, and the products', which multiply them.

persistent  always
loaded      from the loading of a micro-batch to the products
retained    from the forward step to the norm's
pooled      from the forward step to the products
passed      from the forward step to the last step of another block that reads it
gradient    from the products of the block above, which make it, to the norm's step
forward     during the forward step
norm        during the norm's step
remade      from the products of the block above, which make the gradient twice, to the norm's step
codes       from the norm's step to the products
early_codes from the products of the block above to this block's
products    during the products
sent        from the norm's step to the products, and to the norm's step of what the shortcut reads
"""


Kind = Literal["int8", "bits", "integers", "normalised"]
PRECISIONS: dict[Kind, int] = {"int8": 8, "bits": 1, "integers": 32, "normalised": 32}
"""Bits of a number of every kind of signal."""


def padded(count: int, multiple: int = LANES) -> int:
    """Return the count rounded up to a multiple."""
    return -(-count // multiple) * multiple


@dataclass(frozen=True)
class Signal:
    """What flows from one op to the next: an image of channels, and how they are held.

    A sequence has height 1, a row of features is one pixel. kind is "int8" (the data), "bits"
    (packed signs), "integers" (sums of a weight layer) or "normalised" (what the loss reads).
    """

    height: int
    width: int
    channels: int
    kind: Kind

    @property
    def pixels(self) -> int:
        """The places that have channels."""
        return self.height * self.width

    @property
    def features(self) -> int:
        """All numbers of an example."""
        return self.pixels * self.channels

    @property
    def precision(self) -> int:
        """Bits of a number."""
        return PRECISIONS[self.kind]

    @property
    def bytes(self) -> int:
        """Bytes of an example in the arena, where channels fill whole words of signs."""
        return self.pixels * padded(self.channels) * self.precision // 8


@dataclass(frozen=True)
class Branch:
    """What a shortcut reads: the number of an earlier block, and the bits that left it.

    adds says whether they are added to sums, and unit what a product of +1 or -1 counts in those.
    """

    index: int
    signal: Signal
    adds: bool
    unit: int


@dataclass(frozen=True)
class Context:
    """Where an op stands in a plan.

    index is the number of its block, block_pixels the pixels that flow out of the block, source
    what flows into the op, examples the micro-batch, branch what the block's shortcut reads, lowest
    the number of the lowest block that trains, where the backward pass ends, latent how the plan
    holds latents, gradient how it holds the gradient of the sums. twice says that the block makes
    the gradient of its input twice, an example at a time, so that it never exists whole; remade,
    that the block above does so. streamed says that the block makes its sums three times, some
    examples at a time, for the statistics that its norm takes of them: they never exist whole.
    gathered says that it reads the data where they lie, a patch at a time, and that the arena has
    no copy of them.
    """

    index: int
    source: Signal
    mode: Mode
    examples: int
    threads: int
    last: bool
    block_pixels: int = 1
    branch: Branch | None = None
    lowest: int = 0
    latent: Holding = "int8"
    gradient: Gradient = GRADIENT
    twice: bool = False
    remade: bool = False
    streamed: bool = False
    gathered: bool = False

    @property
    def first(self) -> bool:
        """Whether nothing below this block needs a gradient."""
        return self.index <= self.lowest

    @property
    def learns(self) -> bool:
        """Whether a gradient arrives at this block."""
        return self.index >= self.lowest

    @property
    def sums_made(self) -> int:
        """How often a training step makes the block's sums: for mean, deviation and signs apart."""
        return 3 if self.streamed else 1

    @property
    def elements(self) -> int:
        """The numbers that flow into the op, of the whole micro-batch."""
        return self.examples * self.source.features

    @property
    def source_bytes(self) -> int:
        """The bytes that flow into the op, of the whole micro-batch."""
        return self.examples * self.source.bytes

    @property
    def codes_phase(self) -> Phase:
        """When the codes of the gradient of the block's sums are alive."""
        if self.branch is not None and self.branch.adds:
            return "sent"
        return "early_codes" if self.remade else "codes"


@dataclass(frozen=True)
class TensorRule:
    """One tensor that an op needs: name within its block, bytes and life."""

    name: str
    bytes: int
    phase: Phase


@dataclass(frozen=True)
class Arithmetic:
    """What one step of one micro-batch costs.

    Operations are multiply-accumulates or their binary equals. Bytes are those read and written: a
    tensor counts once for each pass that an op makes over it. What a kernel repeats because its
    tiles are small, as it finds it in cache, is not counted.
    """

    forward: int = 0
    backward: int = 0
    forward_bytes: int = 0
    backward_bytes: int = 0

    @property
    def forward_pass(self) -> Arithmetic:
        """The forward pass alone, where no gradient arrives."""
        return replace(self, backward=0, backward_bytes=0)

    @property
    def operations(self) -> int:
        """The operations of both passes."""
        return self.forward + self.backward

    @property
    def bytes_moved(self) -> int:
        """The bytes of both passes."""
        return self.forward_bytes + self.backward_bytes

    def __add__(self, other: Arithmetic) -> Arithmetic:
        return Arithmetic(
            self.forward + other.forward,
            self.backward + other.backward,
            self.forward_bytes + other.forward_bytes,
            self.backward_bytes + other.backward_bytes,
        )


class Op(ABC):
    """One kind of layer."""

    name: ClassVar[str]
    opcode: ClassVar[int]
    """The number by which the native engine knows the op; 0 where it has no record."""
    reference: ClassVar[str]
    """The module of the numpy oracle."""

    @abstractmethod
    def flow(self, source: Signal) -> Signal:
        """Return what flows out. Raises ModelError when the source does not fit."""

    @abstractmethod
    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        """Return every tensor that the op needs in the arena."""

    @abstractmethod
    def arithmetic(self, context: Context) -> Arithmetic:
        """Return what one step of one micro-batch costs."""

    def products(self, context: Context) -> Products | None:
        """Return what the op multiplies by weights for one example: None where it has none."""
        del context
        return None

    @abstractmethod
    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        """Return the words that the native engine reads after the opcode.

        offsets maps the names of the block's tensors, and "input" and "input_gradient", to their
        places in the arena; a tensor that does not exist has offset -1.
        """

    @abstractmethod
    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        """Add the op to a graph that predicts, and return what flows out of a value flowing in."""

    def to_fields(self) -> dict[str, Any]:
        """Return the specification as JSON-ready fields."""
        return {"op": self.name, **vars(self)}

    def require(self, source: Signal, *kinds: str) -> None:
        """Raise ModelError unless the source is of one of the kinds."""
        if source.kind not in kinds:
            raise ModelError(
                f"{self.name} cannot follow {source.kind}: it needs {' or '.join(kinds)}"
            )
