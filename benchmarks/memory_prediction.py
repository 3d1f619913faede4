"""Peak memory of a worker process, predicted before it runs against what the kernel measured.

Every plan of the grid does a real task (train, encode, report) in fresh worker processes of its
own; measured is the median of their VmHWM. The gate: never off by more than 5 %, never under by
more than 2 %.

    python benchmarks/memory_prediction.py             60 plans, three workers each
    python benchmarks/memory_prediction.py --quick     12 plans, one worker each, nothing written
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edgetrain import models
from edgetrain.bench.record import write_record
from edgetrain.client.worker import Job
from edgetrain.command import run_command
from edgetrain.data import store
from edgetrain.errors import WorkerError
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import OVER, UNDER, estimate
from edgetrain.memory_profiler.memory import WORKER, probe_base, worker_command, worker_environment
from edgetrain.model import Model
from edgetrain.ops.op import Mode
from edgetrain.planner import plan
from edgetrain.task import Kind, Report, Task
from edgetrain.train import Trainer

RESULTS = Path(__file__).parent / "results" / "memory_prediction.json"
BATCH = 100
EXAMPLES = 1000
MODELS: dict[str, Model] = {
    "784-256x4-10": models.mlp(784, 10, (256,) * 4),
    "768-512-256-7": models.mlp(768, 7, (512, 256), first="int8"),
    "33-65-64-3": models.mlp(33, 3, (65, 64)),
    "784-1024x3-10": models.mlp(784, 10, (1024,) * 3),
    "784-128x8-10": models.mlp(784, 10, (128,) * 8, first="int8"),
}
MODES: tuple[Mode, ...] = ("bnn", "fsb")


@dataclass(frozen=True)
class Case:
    """One plan to try, and what its worker is asked."""

    model: str
    mode: Mode = "bnn"
    micro_batch: int = BATCH
    threads: int = 1
    codec: str = "luq4"
    kind: Kind = "train"


@dataclass(frozen=True)
class Row:
    """What a plan was expected to use and what it used, in bytes."""

    case: Case
    arena: int
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """The prediction over what was measured, less one."""
        return self.predicted / self.measured - 1

    @property
    def within(self) -> bool:
        """Whether the gate is kept."""
        return self.error <= OVER and self.measured <= self.predicted * (1 + UNDER)


def grid(quick: bool) -> Iterator[Case]:
    """Yield the plans: models, modes, micro-batches and threads, each with each."""
    names = list(MODELS)[:2] if quick else list(MODELS)
    for name, mode, size, threads in product(
        names, MODES, (BATCH, 25, 4), (1,) if quick else (1, 2)
    ):
        yield Case(name, mode, size, threads)


def measure(case: Case, folder: Path, workers: int = 3) -> Row:
    """Return what a plan used in fresh workers, with what was expected of it before."""
    model = MODELS[case.model]
    data = data_file(model, folder)
    chosen = plan(model, BATCH, case.mode, micro_batch=case.micro_batch, threads=case.threads)
    expected = estimate(
        chosen,
        Device(threads=case.threads, base_bytes=probe_base()),
        dataset_bytes=data.stat().st_size,
        codec=case.codec,
        kind=case.kind,
    )
    state = Trainer(chosen).state()
    task = Task(case.kind, 0, "bench", model, case.mode, BATCH, 1, 0.04, case.codec, 0, None, state)
    peaks = [work(task, data, folder, case) for _ in range(workers)]
    return Row(case, chosen.peak_bytes, expected.peak_bytes, int(median(peaks)))


def work(task: Task, data: Path, folder: Path, case: Case) -> int:
    """Return the peak memory that a fresh worker reports of the task."""
    job = Job(
        task=str(folder / "task"),
        data=str(data),
        report=str(folder / "report"),
        micro_batch=case.micro_batch,
        threads=case.threads,
        durable=False,
    )
    Path(job.task).write_bytes(task.encode())
    subprocess.run(worker_command(WORKER, job.to_json()), env=worker_environment(), check=True)
    report = Report.decode(Path(job.report).read_bytes(), task)
    if report.measured_peak_bytes is None:
        raise WorkerError("this kernel does not tell the peak memory of a process: needs VmHWM")
    return report.measured_peak_bytes


def data_file(model: Model, folder: Path) -> Path:
    """Return a data file of random examples that fits the model."""
    path = folder / f"{model.input_features}-{model.classes}.etd"
    if not path.exists():
        draw = random.Random(0)
        features = memoryview(draw.randbytes(EXAMPLES * model.input_features)).cast("b")
        labels = bytes(draw.randrange(model.classes) for _ in range(EXAMPLES))
        store.write(path, features, labels, model.classes, (model.input_features,))
    return path


def table(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    found = Table(
        title="peak memory of the worker, KiB (plan: mode, micro-batch, threads)",
        title_justify="left",
    )
    found.add_column("model", no_wrap=True)
    found.add_column("plan", no_wrap=True)
    for name in ("arena", "predicted", "measured", "error"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        case = row.case
        found.add_row(
            case.model,
            f"{case.mode}, {case.micro_batch}, {case.threads}",
            *(f"{size // 1024:,}" for size in (row.arena, row.predicted, row.measured)),
            f"{row.error:+.2%}",
            style=None if row.within else "red",
        )
    return found


def main(
    quick: Annotated[bool, typer.Option(help="12 plans, one worker each, no record.")] = False,
) -> None:
    """Hold the prediction of every plan of the grid against what the kernel measures."""
    with tempfile.TemporaryDirectory() as folder:
        cases = track(list(grid(quick)), "measuring", console=Console(stderr=True), transient=True)
        rows = [measure(case, Path(folder), 1 if quick else 3) for case in cases]
    errors = [row.error for row in rows]
    console = Console()
    console.print(table(rows))
    console.print(
        f"base {probe_base():,} bytes; {sum(row.within for row in rows)} of {len(rows)} plans "
        f"within {UNDER:.0%} under and {OVER:.0%} over; errors {min(errors):+.2%} to "
        f"{max(errors):+.2%}"
    )
    if not quick:
        fields = [{**asdict(row), "error": round(row.error, 4)} for row in rows]
        command = "python benchmarks/memory_prediction.py"
        write_record(RESULTS, command, {"base_bytes": probe_base(), "rows": fields})
    if not all(row.within for row in rows):
        raise WorkerError("a prediction is off by more than the gate allows: see the red rows")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
