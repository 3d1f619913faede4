"""Conv2d and Conv1d: y = the sum over a kernel's taps of W x, in exact integers.

Weights are trained as those of Linear are, with one difference: in fsb the scale belongs to a
kernel, one output and one channel, and its taps share it. A tap beyond the image adds nothing.

A convolution of int8 data reads patches: the data that one output pixel sees, gathered in a row
when a micro-batch is loaded, so that the engine sees a kernel of one tap.

Groups are taken in bundles that fill whole words: a bundle is a convolution without groups whose
weights from group to group are absent. Where one group fills its words, none is absent.

With as many groups as channels of bits and outputs the convolution is depthwise: every output sees
one channel, its own. Its kernel takes 32 channels side by side, so its latents lie as they are
read, (rows, columns, channels), and a tap's channels are a row of counters for the random draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from edgetrain.errors import ModelError
from edgetrain.gradient import LARGEST_CODE, Gradient
from edgetrain.ops import depthwise, lookup
from edgetrain.ops.geometry import LINE, ROW, Geometry, Padding, Reach, bundled
from edgetrain.ops.graph import CHANNELS_FIRST, Graph
from edgetrain.ops.op import LANES, Context, Signal, TensorRule, padded
from edgetrain.ops.products import Products
from edgetrain.ops.weights import LARGEST_SUM, MOST_TERMS, Training, WeightOp

__all__ = ["Conv", "Conv2d", "Padding"]

LARGEST_KERNEL = 15
STRIDES = (1, 2)
MOST_PIXELS = 1 << 20
LARGEST_DATUM = 128
CHUNK_PIXELS = 256
"""Pixels of gradient that are multiplied at a time, unless one example has more."""
RUN_PIXELS = 256
"""Pixels whose sums exist at a time where a plan streams them, unless one example has more: 128 KiB
of a tile, which a core's second cache holds."""


@dataclass(frozen=True)
class Conv(WeightOp):
    """What Conv2d and Conv1d share: all but the height of the kernel.

    groups is the parts into which channels and outputs are divided, and which do not meet.
    """

    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "same"
    training: Training = "auto"
    groups: int = 1

    opcode: ClassVar[int] = 5
    reference: ClassVar[str] = "edgetrain.reference.convolution"

    def __post_init__(self) -> None:
        self.check_outputs()
        if not 1 <= self.kernel <= LARGEST_KERNEL:
            raise ModelError(f"{self.name} has a kernel of {self.kernel}: choose 1 to 15")
        if self.stride not in STRIDES:
            raise ModelError(f"{self.name} has a stride of {self.stride}: choose 1 or 2")
        if self.padding not in get_args(Padding):
            raise ModelError(f"{self.name} has padding {self.padding!r}: choose same or valid")
        if self.groups < 1 or self.outputs % self.groups:
            raise ModelError(
                f"{self.name} cannot divide {self.outputs} outputs into {self.groups} groups"
            )

    @property
    def kernel_height(self) -> int:
        """Rows of the kernel."""
        return self.kernel

    def is_depthwise(self, source: Signal) -> bool:
        """Return whether every output sees one channel, its own."""
        alone = 1 < self.groups == source.channels == self.outputs
        return alone and source.kind == "bits"

    def bundled(self, source: Signal) -> int:
        """Return how many groups the kernels take at a time: all, where they are of data."""
        if source.kind == "int8":
            return self.groups
        return bundled(source.channels, self.outputs, self.groups)

    def reaches(self, source: Signal) -> tuple[Reach, Reach]:
        """Return how the kernel goes over rows and over columns."""
        way = (self.stride, self.padding)
        return Reach(source.height, self.kernel_height, *way), Reach(
            source.width, self.kernel, *way
        )

    def pads(self, source: Signal) -> tuple[int, int]:
        """Return the missing rows above the image and the missing columns left of it."""
        rows, columns = self.reaches(source)
        return rows.before, columns.before

    def flow(self, source: Signal) -> Signal:
        self.require(source, "int8", "bits")
        if source.kind == "bits" and source.channels % LANES:
            raise ModelError(
                f"{self.name} cannot read {source.channels} channels of bits: choose widths in "
                f"multiples of {LANES}"
            )
        kernel = (self.kernel_height, self.kernel)
        height, width = (reach.outputs for reach in self.reaches(source))
        if height < 1 or width < 1:
            raise ModelError(
                f"{self.name} has a kernel of {kernel[0]} x {kernel[1]} but a source of "
                f"{source.height} x {source.width}: choose a smaller kernel or padding='same'"
            )
        self._check_size(source)
        return Signal(height, width, self.outputs, "integers")

    def _check_size(self, source: Signal) -> None:
        if source.channels % self.groups:
            raise ModelError(
                f"{self.name} cannot divide {source.channels} channels into {self.groups} groups"
            )
        taps = self.kernel_height * self.kernel
        seen, outputs = source.channels // self.groups, self.outputs // self.groups
        width = padded(taps * seen) if source.kind == "int8" else taps * padded(seen)
        if max(width, taps * padded(outputs)) > MOST_TERMS or source.pixels > MOST_PIXELS:
            raise ModelError(
                f"{self.name} is too large, with {taps} taps, {source.channels} channels in and "
                f"{self.outputs} out: a sum has at most {MOST_TERMS} terms"
            )

    def check_mode(self, source: Signal, mode: str) -> None:
        """Raise ModelError where fsb would scale patches, whose taps are not apart, or nothing."""
        if source.kind == "int8" and self.weight_mode(mode) == "fsb":
            raise ModelError(
                f"a {self.name} of int8 data cannot be trained as fsb: choose training='bnn' or "
                f"'int8' for it"
            )
        if 1 < self.groups == source.channels and self.weight_mode(mode) == "fsb":
            raise ModelError(
                f"one scale an output trains nothing, because batch norm cancels it: a depthwise "
                f"{self.name} has one channel an output; choose training='bnn' or 'int8' for it"
            )

    def state_shape(self, source: Signal, mode: str) -> tuple[int, ...]:
        seen = source.channels // self.groups
        if self.weight_mode(mode) == "fsb":
            return (self.outputs, seen)
        if self.is_depthwise(source):
            return (self.kernel_height, self.kernel, source.channels)
        return (self.outputs, self.kernel_height, self.kernel, seen)

    def rows(self, source: Signal) -> tuple[int, int]:
        shape = self.geometry(source)
        if self.is_depthwise(source):
            return shape.taps, shape.channels
        return self.outputs * shape.taps, shape.channels // self.groups

    def input_bytes(self, source: Signal) -> int:
        shape = self.geometry(source)
        return shape.pixels * padded(shape.channels)

    def most_examples(self, source: Signal, draws: int = 1) -> int:
        largest = draws * LARGEST_CODE * (LARGEST_DATUM if source.kind == "int8" else 1)
        return LARGEST_SUM // largest // self.flow(source).pixels

    def gradient_terms(self, source: Signal) -> int:
        return self.geometry(source).taps * self.outputs // self.groups

    def gradient_span(self, source: Signal, mode: str, gradient: Gradient) -> int:
        # Its kernel does not multiply weights by powers of two.
        return 0 if self.is_depthwise(source) else super().gradient_span(source, mode, gradient)

    def geometry(self, source: Signal) -> Geometry:
        """Return the shapes as the kernels see them: of patches where the source is data."""
        out, rows = self.flow(source), self.kernel_height
        if source.kind == "int8":
            width = rows * self.kernel * source.channels
            return Geometry(out.height, out.width, width, out.height, out.width, 1, 1, 1)
        sizes = (source.height, source.width, source.channels, out.height, out.width)
        return Geometry(*sizes, rows, self.kernel, self.stride)

    def part(self, source: Signal) -> tuple[Geometry, int]:
        """Return the geometry and the outputs of one bundle of groups."""
        shape, parts = self.geometry(source), self.groups // self.bundled(source)
        return shape._replace(channels=shape.channels // parts), self.outputs // parts

    def tensors(self, context: Context) -> tuple[TensorRule, ...]:
        threads, rows = context.threads, context.examples * context.block_pixels
        rules = [
            *self.weight_rules(context),
            TensorRule("forward_tile", threads * self._forward_tile(context), "forward"),
        ]
        if context.learns:
            tile = threads * self._backward_tile(context)
            codes = context.gradient.code_bytes(rows * padded(self.outputs))
            rules.append(TensorRule("codes", codes, context.codes_phase))
            rules.append(TensorRule("backward_tile", tile, "products"))
        return (*rules, *self._sign_index(context), *self._example_gradient(context))

    def products(self, context: Context) -> Products:
        shape, bits = self.geometry(context.source), self.precisions(context)
        outputs, groups = self.outputs, self.groups
        return Products(shape.pixels, shape.taps, shape.channels, outputs, groups, *bits)

    def record(self, context: Context, offsets: dict[str, int]) -> tuple[int, ...]:
        source, out = context.source, self.flow(context.source)
        return (
            context.index,
            *self.weight_record(context, offsets),
            int(source.kind == "bits"),
            source.height,
            source.width,
            source.channels,
            out.height,
            out.width,
            self.outputs,
            self.kernel_height,
            self.kernel,
            self.stride,
            self.groups,
            *self.pads(source),
            offsets["input"],
            offsets["input_gradient"],
            offsets.get("codes", -1),
            offsets["forward_tile"],
            self._forward_tile(context),
            self._run_examples(context),
            offsets.get("backward_tile", -1),
            self._backward_tile(context) if context.learns else 0,
            offsets.get("sign_index", -1),
            self.gradient_span(context.source, context.mode, context.gradient),
            int(context.twice),
        )

    def to_onnx(self, graph: Graph, value: str, context: Context) -> str:
        source, kernel = context.source, (self.kernel_height, self.kernel)
        if self.is_depthwise(source):
            weights = self.onnx_weights(graph, context, (*kernel, self.outputs, 1), (2, 3, 0, 1))
        else:
            shape = (self.outputs, *kernel, source.channels // self.groups)
            weights = self.onnx_weights(graph, context, shape, CHANNELS_FIRST)
        before, after = zip(*((r.before, r.after) for r in self.reaches(source)), strict=True)
        return graph.on_images(
            "Conv",
            value,
            weights,
            group=self.groups,
            kernel_shape=kernel,
            pads=(*before, *after),
            strides=(self.stride, self.stride),
        )

    def onnx_scale(self, graph: Graph, context: Context) -> str:
        shape = (*self.state_shape(context.source, context.mode), 1, 1)
        return graph.floats(graph.tensor(f"layer{context.index}.scale", *shape))

    def _forward_tile(self, context: Context) -> int:
        """Panel, sums of its taps, two rows of sums, image, sums before pooling, and the tile."""
        shape, signs = self.geometry(context.source), context.source.kind == "bits"
        pooled = context.block_pixels != shape.pixels
        rows = self._run_examples(context) * context.block_pixels
        if self.is_depthwise(context.source):
            return depthwise.forward_tile(shape, rows, pooled=pooled)
        width = padded(self.part(context.source)[0].channels)
        # A sign cannot stand for a weight that is absent.
        binary = signs and self.has_signs(context.mode) and self.bundled(context.source) == 1
        panel = shape.taps * width * (LANES // 8 if binary else LANES) * self.planes(context)
        copied = signs or context.gathered
        image = shape.reached * width // (8 if binary else 1) if copied else 0
        unpooled = shape.pixels * ROW if pooled else 0
        sums = (shape.taps + 2 + rows) * ROW
        return padded(panel, LINE) + padded(image, LINE) + unpooled + sums

    def _run_examples(self, context: Context) -> int:
        """Return the examples whose sums exist at a time."""
        if not context.streamed:
            return context.examples
        return min(context.examples, max(1, RUN_PIXELS // context.block_pixels))

    def _backward_tile(self, context: Context) -> int:
        """Return the largest of the layouts that use it in turn."""
        shape, outputs = self.part(context.source)
        if self.is_depthwise(context.source):
            return depthwise.backward_tile(shape)
        layouts = [self._product_parts(context)]
        if self._can_look_up_weights(context):
            layouts.append(lookup.weight_parts(shape, context.examples))
        if self._can_look_up_input(context):
            layouts.append(lookup.input_parts(shape, outputs))
        return max(sum(padded(part, LINE) for part in parts) for parts in layouts)

    def _product_parts(self, context: Context) -> tuple[int, ...]:
        """Columns of codes, panel of x, gradient, two rows, codes, and what some need beside.

        The first three train the weights; the image of the codes and the panel of weights give the
        gradient of the input; where patches are gathered, those of one example have a place.
        """
        shape, outputs = self.part(context.source)
        depth = padded(outputs)
        chunk = max(1, min(context.examples, CHUNK_PIXELS // shape.pixels))
        columns = chunk * padded(shape.pixels, 4)
        training = (columns * depth, columns * LANES, shape.taps * depth * ROW)
        parts = (*(training if self.trains(context) else ()), 2 * ROW, shape.pixels * depth)
        if context.gathered:
            return (*parts, shape.pixels * padded(shape.channels))
        if context.first:
            return parts
        height = shape.height + shape.kernel_height - 1
        image = height * (shape.width + shape.kernel_width - 1) * depth
        return (*parts, image, self.gradient_planes(context) * shape.taps * depth * LANES)

    def _can_look_up_weights(self, context: Context) -> bool:
        if not self.trains(context) or context.gradient.draws > 1:
            return False
        return context.source.kind == "bits" and lookup.fits_weights(context.examples)

    def _can_look_up_input(self, context: Context) -> bool:
        if self.gradient_span(context.source, context.mode, context.gradient) > 0:
            return False
        if context.source.kind != "bits" or self.bundled(context.source) > 1:
            return False
        signs = self.has_signs(context.mode)
        return signs and not context.first and self.stride == 1 and self.kernel > 1

    def _sign_index(self, context: Context) -> tuple[TensorRule, ...]:
        """The signs of the weights as indices, regrouped once a step."""
        if not self._can_look_up_input(context):
            return ()
        size = self.groups * lookup.sign_index(*self.part(context.source))
        return (TensorRule("sign_index", size, "products"),)

    def _example_gradient(self, context: Context) -> tuple[TensorRule, ...]:
        """The gradient of one example's input for each thread, where it is made twice."""
        if not context.twice:
            return ()
        size = 4 * context.source.pixels * padded(context.source.channels)
        return (TensorRule("example_gradient", context.threads * size, "products"),)


@dataclass(frozen=True)
class Conv2d(Conv):
    """A convolution of images, with square kernels."""

    name: ClassVar[str] = "conv2d"
