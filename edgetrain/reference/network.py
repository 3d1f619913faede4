"""A whole model under the oracle: forward, backward, update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.model import Model
from edgetrain.ops import Sign
from edgetrain.reference.batch_norm import ChannelState, Statistics, gradient_codes
from edgetrain.reference.linear import LinearWeights
from edgetrain.reference.random import Purpose, derive
from edgetrain.reference.sign import activate, pass_gradient
from edgetrain.reference.softmax_cross_entropy import GRADIENT_UNITS, softmax_cross_entropy
from edgetrain.step import StepSettings

__all__ = ["ReferenceNetwork", "Trace"]


@dataclass
class Trace:
    """What one block kept of a step."""

    x: NDArray[np.int64]
    signs: NDArray[np.bool_]
    mask: NDArray[np.bool_] | None
    statistics: Statistics
    codes: NDArray[np.int64] | None = None


class ReferenceNetwork:
    """A model's state and one training step over it, all in numpy."""

    def __init__(self, model: Model, mode: str, seed: int) -> None:
        self.seed = seed
        self.weights: list[LinearWeights] = []
        self.channels: list[ChannelState] = []
        self.hidden = [isinstance(block.ops[-1], Sign) for block in model.blocks()]
        self.traces: list[Trace] = []
        for block in model.blocks():
            linear = block.linear
            self.weights.append(
                LinearWeights.initial(
                    linear.weight_mode(mode),
                    block.source.features,
                    linear.outputs,
                    group=linear.group,
                    seed=seed,
                    layer=block.index,
                )
            )
            self.channels.append(ChannelState(linear.outputs))

    def train(
        self, features: NDArray[np.integer], labels: NDArray[np.integer], settings: StepSettings
    ) -> float:
        """Take one step on one micro-batch; return the summed loss."""
        logits = self._forward(features, settings.statistics_momentum)
        loss, gradient = softmax_cross_entropy(logits, labels)
        scale = np.float32(1) / (np.float32(len(labels)) * np.float32(GRADIENT_UNITS))
        for index in reversed(range(len(self.weights))):
            gradient, scale = self._backward(index, gradient, scale, settings)
        return loss

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
        x = features.reshape(len(features), -1).astype(np.int64) - offset
        self.traces = []
        for weights, channels, hidden in zip(self.weights, self.channels, self.hidden, strict=True):
            y = weights.forward(x)
            statistics = channels.running() if momentum is None else Statistics.of(y)
            if momentum is not None:
                channels.blend(statistics, momentum)
            shift = channels.shift if hidden else np.zeros_like(channels.shift)
            signs = statistics.signs(y, shift)
            mask = statistics.mask(y, shift) if hidden else None
            self.traces.append(Trace(x, signs, mask, statistics))
            x = activate(signs)
        return statistics.normalise(y, self.channels[-1].shift)

    def _backward(
        self, index: int, gradient: NDArray[np.int64], scale: np.float32, settings: StepSettings
    ) -> tuple[NDArray[np.int64], np.float32]:
        weights, channels, trace = self.weights[index], self.channels[index], self.traces[index]
        if trace.mask is not None:
            gradient = pass_gradient(gradient, trace.mask)
        channels.step_shift(
            np.float64(scale) * gradient.sum(0).astype(np.float64),
            settings.shift_learning_rate,
            settings.correction1,
            settings.correction2,
        )
        key = derive(self.seed, settings.step, index, Purpose.GRADIENT_CODES)
        codes, unit = gradient_codes(gradient, trace.signs, trace.statistics.inverse(), scale, key)
        trace.codes = codes
        below = weights.input_gradient(codes)
        update_key = derive(self.seed, settings.step, index, Purpose.WEIGHT_UPDATE)
        step = settings.scale_step if weights.mode == "fsb" else settings.latent_step
        weights.update(weights.weight_gradient(codes, trace.x), update_key, step)
        return below, unit
