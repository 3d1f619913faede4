"""A whole model under the oracle: forward, backward, update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.gradient import GRADIENT, Gradient
from edgetrain.model import Block, Model
from edgetrain.ops import Add, Linear, SoftmaxCrossEntropy
from edgetrain.ops.conv import Conv
from edgetrain.ops.pool import Pool
from edgetrain.ops.shortcut import BitShortcut
from edgetrain.reference.average_pool import spread, spread_windows, sum_pixels, sum_windows
from edgetrain.reference.batch_norm import ChannelState, Statistics, sums_gradient
from edgetrain.reference.convolution import ConvWeights
from edgetrain.reference.flatten import flatten, unflatten
from edgetrain.reference.gradient import Quantised, quantise
from edgetrain.reference.latents import held
from edgetrain.reference.linear import LinearWeights
from edgetrain.reference.matmul import Numbers
from edgetrain.reference.max_pool import max_pool, unpool
from edgetrain.reference.random import Purpose, derive
from edgetrain.reference.shortcut import Sent, join, receive, repeat, split
from edgetrain.reference.sign import activate, pass_gradient
from edgetrain.reference.softmax_cross_entropy import GRADIENT_UNITS, softmax_cross_entropy
from edgetrain.step import StepSettings

__all__ = ["ReferenceNetwork", "Trace"]

Integers = NDArray[np.int64]


@dataclass
class Trace:
    """What one block kept of a step.

    x holds images, (examples, height, width, channels), and out what leaves the block as images of
    +1 and -1; below and sums are the shapes of one image before flattening and of one before
    pooling, places where its maxima were. signs, mask and gradient have a row for every pixel of
    every example that pooling leaves. sent is the gradient of what the block's shortcut reads.
    """

    x: Integers
    below: tuple[int, ...]
    sums: tuple[int, ...]
    places: Integers | None
    signs: NDArray[np.bool_]
    mask: NDArray[np.bool_] | None
    statistics: Statistics
    out: Integers
    gradient: Quantised | None = None
    sent: Sent | None = None

    @property
    def codes(self) -> Numbers:
        """The codes of the gradient's first draw."""
        assert self.gradient is not None
        first: Numbers = self.gradient.codes[0]
        return first


class Layer:
    """A block's weights over images, whatever they are, and what stands around them."""

    def __init__(self, block: Block, mode: str, latent: str, seed: int, gradient: Gradient) -> None:
        op, self.source = block.weights, block.source
        self.span = op.gradient_span(block.source, mode, gradient)
        self.weights: LinearWeights | ConvWeights
        if isinstance(op, Linear):
            self.weights = LinearWeights.initial(
                op.weight_mode(mode),
                block.source.features,
                op.outputs,
                group=op.group,
                seed=seed,
                layer=block.index,
            )
        else:
            assert isinstance(op, Conv)
            self.weights = ConvWeights.initial(op, block.source, mode, seed=seed, layer=block.index)
        rows, columns = op.rows(block.source)
        self.weights.held = held(
            op.held(mode, latent),
            rows,
            columns,
            fan_in=columns * rows // op.outputs,
            seed=seed,
            layer=block.index,
        )
        pool = block.ops[1]
        sums = op.flow(block.source)
        self.window = pool.window(sums) if isinstance(pool, Pool) else None
        self.takes_maxima = pool.name == "max_pool"
        self.reads_averages = block.index > 0 and block.source.kind == "int8"
        self.hidden = not isinstance(block.ops[-1], SoftmaxCrossEntropy)
        self.branch = block.index - block.shortcut.back if block.shortcut else None
        self.joins, self.gain = None, 0
        if isinstance(block.shortcut, BitShortcut):
            self.joins = block.shortcut.name
        elif isinstance(block.shortcut, Add):
            self.gain = block.shortcut.gain * op.product_unit(mode)

    def read(self, out: Integers) -> Integers:
        """Return the images that the layer reads of those that leave the block below."""
        if self.reads_averages:
            return sum_pixels(out)
        return out if self.source.pixels == out.shape[1] * out.shape[2] else flatten(out)

    def unread(self, gradient: Numbers, shape: tuple[int, ...]) -> Numbers:
        """Return the gradient of images of a shape that leave the block below."""
        return spread(gradient, shape) if self.reads_averages else unflatten(gradient, shape)

    def forward(self, x: Integers) -> Integers:
        """Return the sums of x, (examples, height, width, outputs)."""
        if isinstance(self.weights, ConvWeights):
            return self.weights.forward(x)
        return self.weights.forward(x.reshape(len(x), -1))[:, None, None, :]

    def input_gradient(self, demand: Numbers, x: Integers) -> Numbers:
        """Return dL/dx, of the shape of x, of the gradient of the sums as images."""
        if isinstance(self.weights, ConvWeights):
            return self.weights.input_gradient(demand)
        return self.weights.input_gradient(demand.reshape(len(demand), -1)).reshape(x.shape)

    def weight_gradient(self, demand: Numbers, x: Integers) -> Numbers:
        """Return dL/dW of the gradient of the sums as images."""
        if isinstance(self.weights, ConvWeights):
            return self.weights.weight_gradient(demand, x)
        rows = demand.reshape(len(demand), -1)
        return self.weights.weight_gradient(rows, x.reshape(len(x), -1))


class ReferenceNetwork:
    """A model's state and one training step over it, all in numpy."""

    def __init__(
        self,
        model: Model,
        mode: str,
        seed: int,
        latent: str = "int8",
        gradient: Gradient = GRADIENT,
    ) -> None:
        self.seed = seed
        self.gradient = gradient
        self.input_shape = model.input_shape
        self.lowest = model.lowest_trained
        self.layers = [
            Layer(block, mode, latent, seed, block.gradient(gradient)) for block in model.blocks()
        ]
        self.weights = [layer.weights for layer in self.layers]
        self.channels = [ChannelState(weights.outputs) for weights in self.weights]
        self.traces: list[Trace] = []

    def train(
        self, features: NDArray[np.integer], labels: NDArray[np.integer], settings: StepSettings
    ) -> tuple[float, int]:
        """Take one step on one micro-batch; return the summed loss and the right answers."""
        logits = self._forward(features, settings.statistics_momentum)
        loss, units = softmax_cross_entropy(logits, labels)
        gradient: Numbers = units
        scale = np.float32(1) / (np.float32(len(labels)) * np.float32(GRADIENT_UNITS))
        for index in reversed(range(self.lowest, len(self.weights))):
            gradient, scale = self._backward(index, gradient, scale, settings)
        return loss, int((logits.argmax(1) == labels).sum())

    def evaluate(
        self, features: NDArray[np.integer], labels: NDArray[np.integer]
    ) -> tuple[float, int]:
        """Return the summed loss and the right answers under the running statistics."""
        logits = self._forward(features, None)
        loss, _ = softmax_cross_entropy(logits, labels)
        return loss, int((logits.argmax(1) == labels).sum())

    def _forward(
        self, features: NDArray[np.integer], momentum: float | None
    ) -> NDArray[np.float32]:
        # uint8 data are taken 128 lower: batch norm cancels the constant, and it fits an int8.
        offset = 128 if features.dtype == np.uint8 else 0
        x: Integers = features.reshape(len(features), *self.input_shape).astype(np.int64) - offset
        self.traces = []
        for layer, channels in zip(self.layers, self.channels, strict=True):
            below = x.shape[1:]
            x = layer.read(x)
            y, places = layer.forward(x), None
            sums = y.shape[1:]
            if layer.window is not None and layer.takes_maxima:
                y, places = max_pool(y, layer.window)
            elif layer.window is not None:
                y = sum_windows(y, layer.window)
            branch = None if layer.branch is None else self.traces[layer.branch].out
            if branch is not None and layer.gain:
                y = y + layer.gain * repeat(branch, y.shape[1:])
            rows = y.reshape(-1, y.shape[3])
            statistics = channels.running() if momentum is None else Statistics.of(rows)
            if momentum is not None:
                channels.blend(statistics, momentum)
            shift = channels.shift if layer.hidden else np.zeros_like(channels.shift)
            signs = statistics.signs(rows, shift)
            mask = statistics.mask(rows, shift) if layer.hidden else None
            out = activate(signs).reshape(y.shape)
            if branch is not None and layer.joins:
                out = join(layer.joins, out, branch)
            self.traces.append(Trace(x, below, sums, places, signs, mask, statistics, out))
            x = out
        return statistics.normalise(rows, self.channels[-1].shift)

    def _backward(
        self, index: int, gradient: Numbers, scale: np.float32, settings: StepSettings
    ) -> tuple[Numbers, np.float32]:
        layer, channels, trace = self.layers[index], self.channels[index], self.traces[index]
        for reader, above in zip(self.layers, self.traces, strict=True):
            if reader.branch == index and above.sent is not None:
                gradient, scale = receive(gradient, scale, above.sent)
        if layer.joins:
            gradient = self._send(index, gradient, scale, settings)
        rows = gradient.reshape(trace.signs.shape)
        if trace.mask is not None:
            rows = pass_gradient(rows, trace.mask)
        channels.step_shift(
            np.float64(scale) * rows.sum(0).astype(np.float64),
            settings.shift_learning_rate,
            settings.correction1,
            settings.correction2,
        )
        keys = [
            derive(self.seed, settings.step, draw << 32 | index, Purpose.GRADIENT_CODES)
            for draw in range(self.gradient.draws)
        ]
        demand = sums_gradient(rows, trace.signs, trace.statistics.inverse(), scale)
        given = quantise(demand, self.gradient.format, layer.span, keys)
        trace.gradient = given
        if layer.gain:
            sent = given.below.reshape(trace.out.shape)
            trace.sent = Sent(sent, np.float32(layer.gain) * given.unit)
        below = layer.input_gradient(_before_pool(given.below, layer, trace), trace.x)
        moves = layer.weight_gradient(_before_pool(given.moves, layer, trace), trace.x)
        update_key = derive(self.seed, settings.step, index, Purpose.WEIGHT_UPDATE)
        layer.weights.update(moves, update_key, settings)
        return layer.unread(below, trace.below), given.unit

    def _send(
        self, index: int, gradient: Numbers, scale: np.float32, settings: StepSettings
    ) -> Numbers:
        """Keep the branch's share of the gradient of what left a block; return the signs' own."""
        layer, trace = self.layers[index], self.traces[index]
        assert layer.branch is not None
        assert layer.joins is not None
        a, b = activate(trace.signs).reshape(trace.out.shape), self.traces[layer.branch].out
        own, other = split(layer.joins, gradient, a, b)
        key = derive(self.seed, settings.step, index, Purpose.BRANCH_CODES)
        value = scale * other.astype(np.float32)
        given = quantise(value.reshape(trace.signs.shape), self.gradient.format, 0, [key])
        trace.sent = Sent(given.below.reshape(b.shape), given.unit)
        return own


def _before_pool(rows: Numbers, layer: Layer, trace: Trace) -> Numbers:
    """Return the gradient of what pooling left, a row a pixel, as that of the sums before it."""
    images = rows.reshape(trace.out.shape)
    if layer.window is None:
        return images
    if trace.places is None:
        return spread_windows(images, layer.window, trace.sums)
    return unpool(images, trace.places, layer.window, trace.sums)
