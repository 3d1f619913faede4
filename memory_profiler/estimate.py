"""Predicts what a plan will use before it runs: memory, seconds and joules, each as an interval.

Memory is a sum of parts, each of which has a cause that can be named; nothing in it is fitted.
Speed and power are as good as the figures of the device, and carry their source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from edgetrain.errors import ConfigError
from edgetrain.memory_profiler.budget import Interval, format_joules, format_seconds
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.energy.law import Usage, Work
from edgetrain.memory_profiler.probe import probe_base
from edgetrain.planner import Plan
from edgetrain.schema import state_schema, trained_schema
from edgetrain.sizes import format_size
from edgetrain.task import Kind
from edgetrain.tensorfile import DTYPES
from edgetrain.update import CODECS, codec_of

__all__ = [
    "OVER",
    "RATE_ERRORS",
    "UNDER",
    "Estimate",
    "Part",
    "estimate",
    "state_bytes",
    "work_of",
]

OVER = 0.05
"""Most that a prediction may exceed the measured peak by, as a share of it."""
UNDER = 0.02
"""Most that the measured peak may exceed a prediction by, as a share of the prediction."""
RATE_ERRORS = {"modelled": 0.25, "calibrated": 0.10, "measured": 0.05}
"""How far a device's speed may be off, by where the figure comes from."""

PAGE = 4096
STACK_TOUCHED = 16 * 1024
"""Bytes that a kernel thread touches of its stack and its control block (measured, x86-64)."""


class Part(NamedTuple):
    """One cause of memory use; private says that nothing on a disk stands behind its pages."""

    name: str
    bytes: int
    private: bool = True


@dataclass(frozen=True)
class Estimate:
    """What a plan will use on a device.

    memory is in bytes and bounds the worker's VmHWM; parts are what is in memory at the worst
    moment; private_bytes is the most that is private and writable at any moment, beside what a
    worker has of it before it has a task. seconds and energy (joules) are for the given number of
    examples, None where the device's speed or power is unknown. source says whether seconds are
    modelled, calibrated or measured, energy_source whether joules are; memory never is modelled.
    """

    memory: Interval
    seconds: Interval | None
    energy: Interval | None
    parts: tuple[Part, ...]
    private_bytes: int
    examples: int
    source: str
    energy_source: str

    @property
    def peak_bytes(self) -> int:
        """The peak memory expected: the sum of the parts."""
        return sum(part.bytes for part in self.parts)

    def explain(self) -> str:
        """Return a text table of the parts, then the intervals."""
        width = max(len(part.name) for part in self.parts)
        lines = [f"{part.name:<{width}}  {part.bytes:>13,}" for part in self.parts]
        lines.append(f"{'peak memory':<{width}}  {self.peak_bytes:>13,}")
        low, high = format_size(self.memory.low), format_size(self.memory.high)
        lines.append(f"memory   {low} to {high}")
        for name, interval, text, source in (
            ("seconds", self.seconds, format_seconds, self.source),
            ("energy", self.energy, format_joules, self.energy_source),
        ):
            if interval is None:
                lines.append(f"{name:<8} unknown: the device does not say")
            else:
                lines.append(
                    f"{name:<8} {text(interval.low)} to {text(interval.high)} "
                    f"for {self.examples} examples ({source})"
                )
        return "\n".join(lines)


def estimate(
    plan: Plan,
    device: Device,
    *,
    examples: int | None = None,
    dataset_bytes: int = 0,
    codec: str = "luq4",
    kind: Kind = "train",
) -> Estimate:
    """Return what the plan will use on the device, for one round of training.

    examples are those trained on (one batch unless given), dataset_bytes those of the mapped
    dataset, every page of which the worker is taken to touch, codec the one that the update is
    sent in, kind what the task asks for: one that only evaluates makes no update. Raises
    ConfigError for an unknown codec, WorkerError when the device's base is to be probed and the
    worker does not start.
    """
    if codec not in CODECS:
        raise ConfigError(f"unknown codec {codec!r}: choose one of {', '.join(CODECS)}")
    trained = plan.batch if examples is None else examples
    moments = _moments(plan, device, dataset_bytes, codec, kind)
    parts = max(moments, key=lambda moment: sum(part.bytes for part in moment))
    peak = sum(part.bytes for part in parts)
    private = max(sum(part.bytes for part in moment if part.private) for moment in moments)
    seconds = _seconds(plan, device, trained)
    energy = _energy(device, seconds, work_of(plan, trained))
    memory = Interval(peak / (1 + OVER), peak * (1 + UNDER))
    return Estimate(
        memory, seconds, energy, parts, private, trained, device.source, device.energy_source
    )


def state_bytes(plan: Plan) -> int:
    """Return the bytes of a model's trained state: weights and batch-norm statistics."""
    return sum(_tensor_bytes(plan))


def _tensor_bytes(plan: Plan) -> list[int]:
    """Return the bytes of each tensor of the state."""
    schema = state_schema(plan.model, plan.mode, plan.latent)
    return [DTYPES[dtype][0] * math.prod(shape) for dtype, shape in schema.values()]


def work_of(plan: Plan, examples: float) -> Work:
    """Return the operations and bytes of training on some examples, as the plan's ops declare."""
    steps = examples / plan.micro_batch
    return Work(steps * plan.arithmetic.operations, steps * plan.arithmetic.bytes_moved)


def _moments(
    plan: Plan, device: Device, dataset_bytes: int, codec: str, kind: Kind
) -> tuple[tuple[Part, ...], ...]:
    """Return what is in memory at each of the moments one of which is the worst.

    The pages of the task's state are let go of when the arena has taken it over, and come back when
    the update is encoded; before that the arena is given back, once what it learnt was read out.
    """
    base = probe_base() if device.base_bytes is None else device.base_bytes
    worker = Part("worker and its code", base, private=False)
    running = (
        worker,
        Part("arena", plan.peak_bytes),
        Part("thread stacks", (plan.threads - 1) * STACK_TOUCHED),
    )
    data = Part("dataset, mapped", _pages(dataset_bytes), private=False)
    state = _pages(state_bytes(plan))
    task = Part("task's state, mapped", state, private=False)
    if kind == "evaluate":
        return (*running, task), (*running, data)
    examples = dataset_bytes // (plan.model.input_features + 1)
    # A 32-bit index an example.
    order = Part("order of the examples", _pages(4 * examples))
    checkpoint = Part("tensor of a checkpoint", _pages(max(_tensor_bytes(plan))))
    trained = Part("trained state", state)
    update = Part("update", _pages(_update_buffers(plan, codec)))
    return (
        (*running, data, order, checkpoint),
        (*running, data, trained),
        (worker, data, task, trained, update),
    )


def _update_buffers(plan: Plan, codec: str) -> int:
    """Return the most bytes that the update takes beside the trained state while it is encoded.

    A tensor that travels as it is takes no bytes of its own; of one that is encoded the encoder
    holds a second copy while it works. Latents other than int8 are never sent: no fleet averages
    them.
    """
    if plan.latent != "int8":
        return 0
    held = peak = 0
    for name, (dtype, shape) in trained_schema(plan.model, plan.mode).items():
        carrier = codec_of(name, codec)
        if carrier.schema(name, dtype, shape) != {name: (dtype, shape)}:
            size = carrier.worst_case_bytes(math.prod(shape))
            peak = max(peak, held + 2 * size)
            held += size
    return peak


def _pages(count: int) -> int:
    return -(-count // PAGE) * PAGE


def _seconds(plan: Plan, device: Device, examples: int) -> Interval | None:
    """Return the time for a number of examples, or None where the device gives no rate.

    A plan with fewer threads than the device has is as fast as the device at best, and slower
    by the ratio of threads at worst.
    """
    if device.operations_per_second is not None:
        work = plan.arithmetic.operations
        nominal = examples / plan.micro_batch * work / device.operations_per_second
    elif device.examples_per_second is not None:
        nominal = examples / device.examples_per_second
    else:
        return None
    error = RATE_ERRORS[device.source]
    idle = max(1.0, device.threads / plan.threads)
    return Interval(nominal / (1 + error), nominal * (1 + error) * idle)


def _energy(device: Device, seconds: Interval | None, work: Work) -> Interval | None:
    """Return the energy of some time and work, or None where the device does not say.

    With a calibration the bounds are 95 % of what its meter would read, at the shortest and at the
    longest time; with a power they are those of the time alone.
    """
    if seconds is None:
        return None
    if device.fit is not None:
        shortest = device.fit.predict(Usage(seconds.low, *work))
        longest = device.fit.predict(Usage(seconds.high, *work))
        return Interval(shortest.low, longest.high)
    return None if device.watts is None else seconds.scaled(device.watts)
