"""Conv2d and Conv1d: the three products tap by tap over a padded image, and the update.

A convolution of groups is a dense one whose weights from group to group are absent: zero, and
never trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.ops.conv import Conv
from edgetrain.ops.op import Signal
from edgetrain.ops.weights import WeightMode
from edgetrain.reference.latents import Held, Tensors, fixed_signs, row_counters
from edgetrain.reference.linear import INITIAL_SCALE, initial_latents, moved
from edgetrain.reference.matmul import Numbers, matmul
from edgetrain.reference.random import Key, random_bytes
from edgetrain.step import StepSettings

__all__ = ["ConvWeights"]

Integers = NDArray[np.int64]


@dataclass
class ConvWeights:
    """The state: latents a weight or scales a kernel, shaped as Conv has it, or signs held."""

    op: Conv
    source: Signal
    mode: WeightMode
    seed: int
    layer: int
    stored: Integers
    held: Held | None = None

    @classmethod
    def initial(cls, op: Conv, source: Signal, mode: str, *, seed: int, layer: int) -> ConvWeights:
        """Draw the initial weights: latents uniform over their levels, scales one half."""
        shape = op.state_shape(source, mode)
        weights = cls(op, source, op.weight_mode(mode), seed, layer, np.zeros(shape, np.int64))
        if weights.mode == "fsb":
            weights.stored += INITIAL_SCALE
        else:
            weights.stored = initial_latents(weights.counters(), seed, layer)
        return weights

    def tensors(self) -> Tensors:
        """Return the state under the names of the schema."""
        if self.held is not None:
            return self.held.tensors()
        return {"scale" if self.mode == "fsb" else "latent": self.stored}

    @property
    def outputs(self) -> int:
        """The channels that come out."""
        return self.op.outputs

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """The shape of the weights: outputs, rows and columns of the kernel, channels seen."""
        seen = self.source.channels // self.op.groups
        return self.outputs, self.op.kernel_height, self.op.kernel, seen

    def counters(self) -> Integers:
        """Return the counter of each element of the state.

        A kernel over data is one row of patches, so its taps lie side by side; over signs every
        tap has a row as long as the kernels' tiles make it.
        """
        outputs, rows, columns, channels = self.weight_shape
        if self.mode == "fsb":
            return row_counters(outputs, channels)
        if self.source.kind == "int8":
            return row_counters(outputs, rows * columns * channels).reshape(self.weight_shape)
        if self.op.is_depthwise(self.source):
            return row_counters(rows * columns, outputs).reshape(self.stored.shape)
        return row_counters(outputs * rows * columns, channels).reshape(self.weight_shape)

    def signs(self) -> Integers:
        """Return the fixed signs of fsb, in the shape of the weights, drawn from the seed."""
        outputs, rows, columns, channels = self.weight_shape
        signs = fixed_signs(outputs * rows * columns, channels, self.seed, self.layer)
        return signs.reshape(self.weight_shape)

    def weights(self) -> Integers:
        """Return what the layer multiplies by, (outputs, rows, columns, channels), all of them."""
        if self.mode == "fsb":
            return self._joined(self.stored[:, None, None, :] * self.signs())
        values = np.where(self.stored >= 0, 1, -1) if self.mode == "bnn" else self.stored
        if self.held is not None:
            values = self.held.signs.reshape(self.stored.shape)
        if self.op.is_depthwise(self.source):
            values = values.transpose(2, 0, 1)[..., None]
        return self._joined(values)

    def forward(self, x: Integers) -> Integers:
        """Return y, (examples, height, width, outputs), of x, (examples, height, width, channels).

        A tap beyond the image adds nothing.
        """
        image, weights = self._padded(x), self.weights()
        out = self.op.flow(self.source)
        y = np.zeros((len(x), out.height, out.width, self.outputs), np.int64)
        for row, column, seen in self._taps():
            y += matmul(image[:, *seen], weights[:, row, column].T)
        return y

    def input_gradient(self, codes: Numbers) -> Numbers:
        """Return dL/dx, of the shape of x, in units of a code."""
        source, weights = self.source, self.weights()
        top, left = self.op.pads(source)
        shape = (len(codes), source.height, source.width, source.channels)
        image = self._padded(np.zeros(shape, codes.dtype))
        for row, column, seen in self._taps():
            image[:, *seen] += matmul(codes, weights[:, row, column])
        return image[:, top : top + source.height, left : left + source.width]

    def weight_gradient(self, codes: Numbers, x: Integers) -> Numbers:
        """Return dL/dW, or that of the scales: each the sum over the taps that share it."""
        image, flat = self._padded(x), codes.reshape(-1, self.outputs)
        channels = self.source.channels
        whole = np.zeros((*self.weight_shape[:3], channels), codes.dtype)
        for row, column, seen in self._taps():
            whole[:, row, column] = matmul(flat.T, image[:, *seen].reshape(-1, channels))
        gradient = self._own(whole)
        if self.mode == "fsb":
            gradient = (gradient * self.signs()).sum((1, 2))
        elif self.op.is_depthwise(self.source):
            gradient = gradient[..., 0].transpose(1, 2, 0)
        return gradient

    def update(self, gradient: Numbers, key: Key, settings: StepSettings) -> None:
        """Move the state against the sign of the gradient, rounded at random."""
        if self.held is not None:
            self.held.update(gradient.reshape(self.held.signs.shape), key, settings)
            return
        step = settings.scale_step if self.mode == "fsb" else settings.latent_step
        draws = random_bytes(key, self.counters())
        self.stored = moved(self.mode, self.stored, gradient, draws, step)

    def _joined(self, weights: Integers) -> Integers:
        """Return weights of weight_shape as those of a dense convolution, zero where absent."""
        outputs, rows, columns, seen = self.weight_shape
        groups, each = self.op.groups, np.arange(self.op.groups)
        whole = np.zeros((groups, outputs // groups, rows, columns, groups, seen), np.int64)
        whole[each, :, :, :, each] = weights.reshape(groups, -1, rows, columns, seen)
        return whole.reshape(outputs, rows, columns, -1)

    def _own(self, whole: Numbers) -> Numbers:
        """Return the part of a dense convolution's weights that exists, in weight_shape."""
        outputs, rows, columns, seen = self.weight_shape
        groups, each = self.op.groups, np.arange(self.op.groups)
        parts = whole.reshape(groups, outputs // groups, rows, columns, groups, seen)
        return parts[each, :, :, :, each].reshape(self.weight_shape)

    def _padded(self, x: Numbers) -> Numbers:
        """Return x with zeros around it, as many as the taps can reach."""
        out, stride = self.op.flow(self.source), self.op.stride
        top, left = self.op.pads(self.source)
        reach = (
            (out.height - 1) * stride + self.op.kernel_height,
            (out.width - 1) * stride + self.op.kernel,
        )
        bottom = max(reach[0] - top - self.source.height, 0)
        right = max(reach[1] - left - self.source.width, 0)
        return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))

    def _taps(self) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """Yield each tap of the kernel and the pixels of the padded image that it sees."""
        out, stride = self.op.flow(self.source), self.op.stride
        for row in range(self.op.kernel_height):
            for column in range(self.op.kernel):
                rows = slice(row, row + (out.height - 1) * stride + 1, stride)
                columns = slice(column, column + (out.width - 1) * stride + 1, stride)
                yield row, column, (rows, columns)
