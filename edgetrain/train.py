"""Trainer: runs a plan over data, a micro-batch at a time, and keeps what it learnt.

Standard library and the native engine alone, so that a device's worker needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetrain import _native
from edgetrain.checkpoint import (
    plan_fields,
    plan_of,
    read_checkpoint,
    trainer_fields,
    write_checkpoint,
)
from edgetrain.engines import start
from edgetrain.errors import DataError, ModelError, PayloadError
from edgetrain.examples import Examples, InputType
from edgetrain.gradient import Engine
from edgetrain.metrics import Epoch, Metrics
from edgetrain.model import Model
from edgetrain.planner import Plan
from edgetrain.schedule import check_schedule, decay
from edgetrain.schema import Schema, check_state, check_tensors, moment_schema, state_schema
from edgetrain.step import FLIP_THRESHOLD, batch_begin, batches_of, step_settings
from edgetrain.tensorfile import State, Tensor

__all__ = ["LEARNING_RATE", "STREAMS", "Metrics", "Trainer", "load", "restored"]

LEARNING_RATE = 0.04
"""Of a latent's or a scale's range, a step (ALGORITHMS: the knob that matters)."""

STREAMS = (1 << 32) - 1
"""Of a stream these bits count."""


class Trainer:
    """A plan with its engine and what it has learnt.

    seed decides the initial weights and the fixed signs, so it must be the same wherever a state
    is to be shared; stream decides every other draw, so that two devices, or two rounds of one,
    draw apart. flip_threshold is that of "bop" latents, of an average from -1 to 1. engine
    "reference" is the numpy oracle, which is slow and runs every gradient format. Raises ModelError
    for a format that the engine does not run, EngineError for an unknown EDGETRAIN_ISA, BudgetError
    where the arena cannot be had.
    """

    def __init__(
        self,
        plan: Plan,
        seed: int = 0,
        learning_rate: float = LEARNING_RATE,
        *,
        stream: int = 0,
        flip_threshold: float = FLIP_THRESHOLD,
        engine: Engine = "native",
    ) -> None:
        self.plan = plan
        self.seed = seed
        self.stream = stream & STREAMS
        self.learning_rate = learning_rate
        self.flip_threshold = flip_threshold
        self.steps = 0
        self.epochs = 0
        self.scaling: Any = None
        self.input_type: InputType | None = None
        self._steps_since_load = 0
        self._epoch = Epoch()
        self.engine: Engine = engine
        self._engine = start(plan, seed, engine)

    @property
    def isa(self) -> str:
        """The instruction set whose kernels run, or "reference"."""
        return self._engine.isa

    @property
    def metrics(self) -> Metrics:
        """The metrics of the epoch at hand so far, or else of the last one."""
        return self._epoch.metrics

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        *,
        learning_rate: float | None = None,
        schedule: str = "constant",
        schedule_epochs: int | None = None,
        warmup: float = 0.0,
        progress: bool = False,
        should_stop: Callable[[], bool] | None = None,
    ) -> Metrics:
        """Train on (x, y) and return the metrics of the last epoch, taken while it trained.

        x is uint8, int8 or float32 of N examples, y N labels. schedule is a name in
        edgetrain.schedule.SCHEDULES; it runs over these epochs or, where schedule_epochs is given,
        over that many from the trainer's first; the rate rises over the first `warmup` epochs of
        it. should_stop is asked before every micro-batch; when it says so, the metrics cover what
        was done of the epoch. The next call, on the same data, goes on within that epoch, and
        counts it as its first: with schedule_epochs given, the end is that of a run that never
        stopped. Raises DataError for data that do not fit the model or the unfinished epoch.
        """
        span = epochs if schedule_epochs is None else schedule_epochs
        check_schedule(schedule, span, warmup)
        examples = self._examples(x, y, adapt=True)
        rate = self.learning_rate if learning_rate is None else learning_rate
        batches = batches_of(examples.count, self.plan.micro_batch)
        if self._epoch.finished:
            self._epoch = Epoch()
        done = self._batches_done(examples.count, batches)
        origin = self.epochs if schedule_epochs is None else 0
        for number, indices in _watched(
            self._draws(examples.count, epochs, batches, done),
            epochs * batches - done,
            progress,
        ):
            if should_stop is not None and should_stop():
                break
            factor = decay(
                schedule,
                number - origin * batches,
                span * batches,
                warmup=round(warmup * batches),
            )
            loss, right = self._step(examples, indices, rate * factor)
            self._count(examples.count, len(indices) // 4, loss, right)
        return self.metrics

    def evaluate(self, x: Any, y: Any, *, should_stop: Callable[[], bool] | None = None) -> Metrics:
        """Return the metrics of (x, y) under the running statistics; nothing is learnt.

        should_stop is asked before every micro-batch; the metrics cover what came before it.
        """
        examples = self._examples(x, y, adapt=False)
        loss_sum, correct, end = 0.0, 0, 0
        for begin in range(0, examples.count, self.plan.micro_batch):
            if should_stop is not None and should_stop():
                break
            end = min(begin + self.plan.micro_batch, examples.count)
            indices = b"".join(i.to_bytes(4, "little") for i in range(begin, end))
            try:
                loss, right = self._engine.evaluate(
                    examples.features, examples.signed, examples.labels, indices
                )
            except ValueError as error:
                raise DataError(str(error)) from None
            loss_sum, correct = loss_sum + loss, correct + right
        return Metrics.of(loss_sum, correct, end)

    def state(self) -> State:
        """Return what was learnt: see edgetrain.schema for the tensors."""
        return {
            name: Tensor(dtype, shape, self.tensor(name))
            for name, (dtype, shape) in self._state().items()
        }

    def load_state(self, state: State) -> None:
        """Take over a state, forget the optimiser's, and leave the epoch at hand.

        Raises PayloadError for a state that is not of this model and mode.
        """
        check_state(state, self.plan.model, self.plan.mode, self.plan.latent)
        self._write(state)
        for name in self._moments():
            self._engine.write(self.plan.offset(name), bytes(self.plan.bytes_of(name)))
        self._steps_since_load = 0
        self._epoch = Epoch()

    def tensor(self, name: str) -> bytes:
        """Return the bytes of any tensor of the plan, as the last step left them."""
        return self._engine.read(self.plan.offset(name), self.plan.bytes_of(name))

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, whole or not at all, from which training goes on bit for bit.

        Never more than one tensor is copied at a time. Raises StorageError.
        """
        schema = self._state() | self._moments()
        fields = {
            **plan_fields(self.plan),
            "seed": self.seed,
            "stream": self.stream,
            "engine": self.engine,
            "steps": self.steps,
            "epochs": self.epochs,
            "epoch": asdict(self._epoch),
            "steps_since_load": self._steps_since_load,
            "learning_rate": self.learning_rate,
            "flip_threshold": self.flip_threshold,
            "input_type": self.input_type,
            "scaling": None if self.scaling is None else self.scaling.to_json(),
        }
        write_checkpoint(path, self.plan.model, fields, schema, self.tensor)

    def _restore(self, tensors: State, fields: dict[str, Any]) -> None:
        self._write(tensors)
        self.steps, self.epochs = fields["steps"], fields["epochs"]
        self._steps_since_load = fields["steps_since_load"]
        self._epoch = Epoch(**fields.get("epoch", {}))
        self.input_type = fields["input_type"]
        if fields["scaling"] is not None:
            from edgetrain.data.scaling import Scaling  # noqa: PLC0415  (numpy: not on a device)

            self.scaling = Scaling.from_json(fields["scaling"])

    def _state(self) -> Schema:
        return state_schema(self.plan.model, self.plan.mode, self.plan.latent)

    def _moments(self) -> Schema:
        return moment_schema(self.plan.model, self.plan.mode, self.plan.latent)

    def _write(self, tensors: State) -> None:
        for name, tensor in tensors.items():
            self._engine.write(self.plan.offset(name), tensor.data)

    def _examples(self, x: Any, y: Any, *, adapt: bool) -> Examples:
        floats = getattr(getattr(x, "dtype", None), "kind", "") == "f"
        if floats:
            from edgetrain.data import scaling  # noqa: PLC0415  (numpy: not on a device)

            if self.scaling is None and adapt:
                self.scaling = scaling.fit(x)
            if self.scaling is None:
                raise DataError(
                    "float data before training has no scale: fit first, or load a model"
                )
            x = self.scaling.apply(x)
        examples = Examples.of(x, y, self.plan.model.input_features)
        if adapt:
            integers: InputType = "int8" if examples.signed else "uint8"
            self.input_type = "float32" if floats else integers
        return examples

    def _batches_done(self, count: int, batches: int) -> int:
        """Return how many micro-batches of the epoch at hand are done."""
        used = self._epoch.used
        done = -(-used * batches // count) if count else 0
        if used and (self._epoch.examples != count or used != batch_begin(count, batches, done)):
            raise DataError(
                f"the epoch at hand has used {used} of {self._epoch.examples} examples, and "
                f"these are {count}: go on with the data it began with, or leave it by "
                "load_state(state())"
            )
        return done

    def _draws(
        self, count: int, epochs: int, batches: int, done: int
    ) -> Iterator[tuple[int, bytes]]:
        """Yield each micro-batch's number since the trainer's first epoch, and its examples."""
        for epoch in range(self.epochs, self.epochs + epochs):
            order = _native.shuffled(count, self.seed, self.stream << 32 | epoch)
            for index in range(done, batches):
                begin, end = (batch_begin(count, batches, edge) for edge in (index, index + 1))
                yield epoch * batches + index, order[4 * begin : 4 * end]
            done = 0
            # Here alone it is held: with that of the next epoch it would be the peak.
            del order

    def _count(self, count: int, used: int, loss: float, correct: int) -> None:
        """Add a micro-batch to the epoch at hand, or to a new one where that is finished."""
        if self._epoch.finished:
            self._epoch = Epoch(count)
        self._epoch.used += used
        self._epoch.loss += loss
        self._epoch.correct += correct
        self.epochs += self._epoch.finished

    def _step(self, examples: Examples, indices: bytes, rate: float) -> tuple[float, int]:
        """Train on one micro-batch, with its share of the batch's step."""
        self._steps_since_load += 1
        step = self.stream << 32 | self.steps
        settings = step_settings(self.plan, rate, step, self._steps_since_load, self.flip_threshold)
        try:
            result = self._engine.train(
                examples.features,
                examples.signed,
                examples.labels,
                indices,
                # One by one: astuple would copy each deeply, and leave CPython a tuple to keep.
                settings.step,
                settings.latent_step,
                settings.scale_step,
                settings.statistics_momentum,
                settings.shift_learning_rate,
                settings.correction1,
                settings.correction2,
                settings.held_step,
                settings.threshold,
            )
        except ValueError as error:
            raise DataError(str(error)) from None
        self.steps += 1
        return result


def load(path: str | Path, *, threads: int | None = None) -> Trainer:
    """Return the trainer that a checkpoint holds.

    Raises DataError for a file that cannot be read, PayloadError for one that is not a checkpoint.
    """
    return restored(path, *read_checkpoint(path), threads=threads)


def restored(
    path: str | Path, tensors: State, metadata: Mapping[str, str], *, threads: int | None = None
) -> Trainer:
    """Return the trainer of what read_checkpoint found in a file. Raises PayloadError."""
    fields = trainer_fields(path, metadata)
    try:
        model = Model.from_json(metadata["model"])
        chosen = plan_of(model, fields, threads)
        # Before the engine is built: what a file claims costs nothing, what it holds bounds it.
        kinds = (model, chosen.mode, chosen.latent)
        check_tensors(tensors, state_schema(*kinds) | moment_schema(*kinds), "the checkpoint")
        trainer = Trainer(
            chosen,
            fields["seed"],
            fields["learning_rate"],
            stream=fields["stream"],
            flip_threshold=fields["flip_threshold"],
            engine=fields["engine"],
        )
        trainer._restore(tensors, fields)
    except (KeyError, TypeError, ValueError, ModelError) as error:
        raise PayloadError(f"{path} is damaged: {error}") from None
    return trainer


def _watched(steps: Iterator[Any], total: int, progress: bool) -> Iterator[Any]:
    if not progress:
        return steps
    from rich.console import Console  # noqa: PLC0415  (only where someone watches)
    from rich.progress import track  # noqa: PLC0415

    console = Console(stderr=True)
    # Into a file, an empty bar would be an empty line.
    hidden = not console.is_terminal
    return iter(
        track(steps, "training", total=total, transient=True, console=console, disable=hidden)
    )
