"""The training process: maps a device's data, does one task, writes one report, and ends.

    python -m edgetrain.client.worker JOB      a job as JSON text, see Job
    python -m edgetrain.client.worker --probe  do next to nothing, print peak and private bytes

It imports the standard library and the native engine alone, because every byte it takes is taken
from the device. SIGTERM lets the micro-batch at hand finish; what was learnt so far is reported.
A failure is one line on stderr, a report that says why, and an exit code of its kind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetrain.client.job import PROBE, SERVE, Job, debug_wanted
from edgetrain.client.progress import keeping, kept
from edgetrain.data import store
from edgetrain.data.store import StoredDataset
from edgetrain.errors import BudgetError, DataError, EdgetrainError, WorkerError
from edgetrain.keys import derive_key
from edgetrain.memory_profiler.memory import peak_bytes, private_bytes, reset_peak
from edgetrain.model import Model
from edgetrain.ops import BatchNorm, Linear, Sign, SoftmaxCrossEntropy
from edgetrain.planner import Plan, plan
from edgetrain.storage import forget_pages, map_file
from edgetrain.task import PlanSummary, Report, Task, one_line
from edgetrain.tensorfile import State
from edgetrain.train import Metrics, Trainer
from edgetrain.update import encode_update, trained_part, update_key

__all__ = ["main", "perform"]

STOPPED = "stopped early"
OUT_OF_MEMORY = "stopped early: out of memory"

Stop = Callable[[], bool]


def perform(job: Job, should_stop: Stop) -> tuple[Report, int]:
    """Return the report of a job, not yet written and without its peak memory, and an exit code.

    What goes wrong with the data, the plan or the engine is a "failed" report. Where memory ran out
    the code is that of BudgetError, even if something had been learnt and is reported. Raises an
    EdgetrainError when there is no task that a report could answer.
    """
    started = time.monotonic()
    mapped = map_file(Path(job.task))
    task = Task.decode(mapped)
    code = 0
    try:
        with store.open(job.data) as data:
            check_data(task, data)
            report = report_of(task, data, work(job, task, mapped, data, should_stop))
        if report.reason == OUT_OF_MEMORY:
            code = BudgetError.exit_code
    except Exception as error:
        show_traceback()
        report = Report("failed", task.version, task.device, reason=one_line(cause_of(error)))
        code = code_of(error)
    return replace(report, seconds=time.monotonic() - started), code


def cause_of(error: Exception) -> str:
    """Return what to say of an error: ours say it themselves."""
    if isinstance(error, EdgetrainError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory: allow the device more, or choose a smaller model"
    return f"internal error, {type(error).__name__}: {error}"


def code_of(error: Exception) -> int:
    """Return the exit code for an error."""
    if isinstance(error, MemoryError):
        return BudgetError.exit_code
    return error.exit_code if isinstance(error, EdgetrainError) else EdgetrainError.exit_code


@dataclass(frozen=True)
class Work:
    """What came of a task: its plan, what it did and, of a training, what was learnt."""

    plan: Plan
    metrics: Metrics
    examples: int
    steps: int
    ran_out: bool
    learnt: State


def work(job: Job, task: Task, mapped: memoryview, data: StoredDataset, should_stop: Stop) -> Work:
    """Train or evaluate on a device's data; the arena is given back at the end.

    `mapped` are the bytes of the task. Raises an EdgetrainError that says why, MemoryError.
    """
    trainer = prepare(job, task)
    # The arena holds it now, and it may be as large as all else that training takes.
    forget_pages(mapped)
    if task.kind == "evaluate":
        metrics = trainer.evaluate(data.features, data.labels, should_stop=should_stop)
        return Work(trainer.plan, metrics, metrics.examples, trainer.steps, False, {})
    before = trainer.metrics
    if job.checkpoint is not None:
        place = Path(job.checkpoint)
        should_stop = keeping(trainer, place, job.checkpoint_seconds, should_stop)
    ran_out = learn(trainer, data, task.local_epochs - trainer.epochs, should_stop)
    # The metrics are of the last epoch alone, which may have been cut short.
    metrics = trainer.metrics if trainer.metrics.examples else before
    used = trainer.epochs * data.examples + metrics.examples % data.examples
    if ran_out and not used:
        raise MemoryError
    learnt = trained_part(trainer.state(), task.model, task.mode)
    return Work(trainer.plan, metrics, used, trainer.steps, ran_out, learnt)


def prepare(job: Job, task: Task) -> Trainer:
    """Return a trainer of the job's plan with the task's state, or where a predecessor left it."""
    chosen = plan(
        task.model,
        task.batch,
        task.mode,
        micro_batch=job.micro_batch,
        threads=job.threads,
        recompute="always" if job.recompute else "never",
    )
    stream = derive_key("train", task.seed, task.version, task.device)
    found = kept(Path(job.checkpoint), task, chosen, stream) if job.checkpoint else None
    if found is not None:
        return found
    trainer = Trainer(chosen, seed=task.seed, learning_rate=task.learning_rate, stream=stream)
    trainer.load_state(task.state)
    return trainer


def report_of(task: Task, data: StoredDataset, done: Work) -> Report:
    """Return the report of a task's work. Raises WorkerError where there was none."""
    if not done.examples:
        raise WorkerError("stopped before the first micro-batch was done")
    update: State = {}
    passes = 1
    if task.kind == "train":
        passes = task.local_epochs
        key = update_key(task.seed, task.version, task.device)
        before = trained_part(task.state, task.model, task.mode)
        update = encode_update(before, done.learnt, task.codec, key)
    early = OUT_OF_MEMORY if done.ran_out else STOPPED
    return Report(
        "trained" if task.kind == "train" else "evaluated",
        task.version,
        task.device,
        reason=early if done.examples < passes * data.examples else "",
        examples=done.examples,
        steps=done.steps,
        loss=done.metrics.loss,
        accuracy=done.metrics.accuracy,
        plan=PlanSummary(task.mode, done.plan.micro_batch, done.plan.threads, done.plan.peak_bytes),
        update=update,
    )


def learn(trainer: Trainer, data: StoredDataset, epochs: int, should_stop: Stop) -> bool:
    """Train, and return whether memory ran out; what was learnt until then stands."""
    try:
        trainer.fit(data.features, data.labels, epochs=epochs, should_stop=should_stop)
    except MemoryError:
        show_traceback()
        take_reserve()
        return True
    return False


def take_reserve() -> None:
    """Allow this process the private memory that was held back for its report."""
    import resource  # noqa: PLC0415 - seldom needed, and not for nothing

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def check_data(task: Task, data: StoredDataset) -> None:
    """Raise DataError when the data are not what the model expects."""
    for what, found, expected in (
        ("features an example", data.feature_count, task.model.input_features),
        ("classes", data.classes, task.model.classes),
    ):
        if found != expected:
            raise DataError(
                f"the data have {found} {what}, the model {expected}: record data for this model"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker and return its exit code: 0, or that of the error which ended it."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == [PROBE]:
        rehearse()
        print(peak_bytes(), private_bytes())
        return 0
    if given == [SERVE]:
        return serve(sys.stdin)
    code, line = do(given[0] if len(given) == 1 else "")
    if line:
        print(f"error: {line}", file=sys.stderr)
    return code


def serve(jobs: Iterable[str]) -> int:
    """Do jobs, one a line, and answer each on stdout, until there are no more.

    The answer to a job is one line of JSON: its exit code, why, and whether there may be another,
    which is so where the kernel can start the measurement of peak memory afresh.
    """
    for job in jobs:
        code, line = do(job)
        print(json.dumps([code, line, reset_peak()]), flush=True)
    return 0


def do(text: str) -> tuple[int, str]:
    """Do the job in the JSON text, and return the exit code and, if it failed, why in one line."""
    should_stop = stop_token()
    try:
        job = Job.from_json(text)
        report, code = perform(job, should_stop)
        report = replace(report, measured_peak_bytes=peak_bytes())
        report.write(Path(job.report), durable=job.durable)
    except EdgetrainError as error:
        show_traceback()
        return error.exit_code, one_line(error)
    return code, report.reason if code else ""


def rehearse() -> None:
    """Do the smallest task there is.

    What a task needs beside its data and its arena, the code that it runs through above all, is
    then in memory as it is after a real one.
    """
    layers = (Linear(2), BatchNorm(), Sign(), Linear(2, "int8"), BatchNorm(), SoftmaxCrossEntropy())
    model = Model(2, layers)
    trainer = Trainer(plan(model, 2))
    task = Task("train", 0, "probe", model, "bnn", 2, 1, 0.04, "luq4", 0, None, trainer.state())
    task = Task.decode(task.encode())
    trainer.load_state(task.state)
    metrics = trainer.fit(memoryview(bytes(4)), memoryview(bytes(2)))
    update = encode_update(task.state, trainer.state(), task.codec, 0)
    measured = (metrics.examples, trainer.steps, metrics.loss, metrics.accuracy)
    Report("trained", 0, "probe", "", *measured, update=update).encode()


def stop_token() -> Stop:
    """Return what says whether to stop: SIGTERM has come, or whoever started us is gone."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    parent = os.getppid()
    return lambda: bool(asked) or os.getppid() != parent


def show_traceback() -> None:
    """Print the traceback of the error at hand, if tracebacks are wanted."""
    if debug_wanted():
        import traceback  # noqa: PLC0415 - seldom needed, and not for nothing

        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
