"""Peak memory of a worker process, predicted before it runs against what the kernel measured.

Every plan of the grid does a real task (train, encode, report) in a fresh worker process of its
own, born in a control group of its own where one can be made. Two figures are measured and never
mixed: rss_peak, the process's VmHWM, which is what is predicted, and cgroup_peak, the most that was
charged to its group. The gate: rss_peak never off by more than 5 %, never under by more than 2 %.

    python benchmarks/memory_prediction.py             the whole grid, and the record
    python benchmarks/memory_prediction.py --quick     some of it, nothing written
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edgetrain import models, tensorfile
from edgetrain.bench.record import write_record
from edgetrain.client.job import Job
from edgetrain.command import run_command
from edgetrain.data import store
from edgetrain.errors import EnforceError, WorkerError
from edgetrain.freeze import freeze
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.enforce.cgroup import ChildGroup, make_group
from edgetrain.memory_profiler.enforce.launch import launch
from edgetrain.memory_profiler.enforce.limits import Limits
from edgetrain.memory_profiler.estimate import OVER, UNDER, estimate
from edgetrain.memory_profiler.memory import WORKER, worker_command, worker_environment
from edgetrain.memory_profiler.probe import probe_base
from edgetrain.model import Model
from edgetrain.ops.op import Latent, Mode
from edgetrain.planner import Plan, plan
from edgetrain.task import Kind, Report, Task
from edgetrain.train import Trainer

RESULTS = Path(__file__).parent / "results" / "memory_prediction.json"
LOCAL_WORKER = Path(__file__).with_name("local_worker.py")
BATCH = 100
ROOM = 8 << 30
"""Bytes: a limit of the control group that no plan of the grid comes near."""
MODELS: dict[str, tuple[Model, int]] = {
    "784-256x4-10": (models.mlp(784, 10, (256,) * 4), 1000),
    "33-65-64-3": (models.mlp(33, 3, (65, 64)), 1000),
    "cnv": (models.cnv(), 300),
    "binarynet": (models.binarynet(), 200),
    "har_cnn": (models.har_cnn(), 1000),
    "resnet18_binary": (models.resnet18_binary(), 200),
}
"""Name -> model, and the examples that it is trained on."""
MODES: tuple[Mode, ...] = ("bnn", "fsb")
LATENTS: tuple[Latent, ...] = ("int4", "bop", "adam16")


@dataclass(frozen=True)
class Case:
    """One plan to try, and what its worker is asked."""

    model: str
    mode: Mode = "bnn"
    micro_batch: int = BATCH
    threads: int = 1
    latent: Latent = "int8"
    frozen: int = 0
    recompute: bool = False
    codec: str = "luq4"
    kind: Kind = "train"

    @property
    def network(self) -> Model:
        """The model, its lowest layers frozen."""
        return freeze(MODELS[self.model][0], self.frozen)

    def plan(self) -> Plan:
        """Return the plan."""
        return plan(self.network, **self.choices())

    def choices(self) -> dict[str, object]:
        """Return the arguments of edgetrain.plan beside the model."""
        return {
            "batch": BATCH,
            "mode": self.mode,
            "latent": self.latent,
            "micro_batch": self.micro_batch,
            "threads": self.threads,
            "recompute": "always" if self.recompute else "never",
        }

    def describe(self) -> str:
        """Return the plan and what is asked, as a phrase; what is usual is left out."""
        words = {
            f"{self.mode}, {self.micro_batch}, {self.threads}": True,
            self.latent: self.latent != "int8",
            f"{self.frozen} frozen": self.frozen > 0,
            "recomputing": self.recompute,
            self.codec: self.codec != "luq4",
            self.kind: self.kind != "train",
        }
        return ", ".join(word for word, told in words.items() if told)


@dataclass(frozen=True)
class Row:
    """What a plan was expected to use and what it used, in bytes."""

    case: Case
    arena: int
    predicted: int
    rss_peak: int
    cgroup_peak: int | None

    @property
    def error(self) -> float:
        """The prediction over the VmHWM, less one."""
        return self.predicted / self.rss_peak - 1

    @property
    def within(self) -> bool:
        """Whether the gate is kept."""
        return self.error <= OVER and self.rss_peak <= self.predicted * (1 + UNDER)


def grid() -> Iterator[Case]:
    """Yield the plans: of each model modes x micro-batches x threads, then what else may vary."""
    for name, (model, _) in MODELS.items():
        for mode, size, threads in product(MODES, (BATCH, 25, 4), (1, 2)):
            yield Case(name, mode, size, threads)
        for latent in LATENTS:
            yield Case(name, latent=latent)
            yield Case(name, latent=latent, micro_batch=25, threads=2)
        count = sum(1 for _ in model.blocks())
        for frozen in sorted({1, count - 1}):
            yield Case(name, frozen=frozen)
        for mode, threads in product(MODES, (1, 2)):
            recomputing = Case(name, mode, threads=threads, recompute=True)
            if recomputing.plan().recomputed:
                yield recomputing
        yield Case(name, codec="raw8")
        yield Case(name, kind="evaluate")


def some() -> Iterator[Case]:
    """Yield a part of the grid that touches each of its dimensions."""
    yield from (Case("784-256x4-10", mode, size) for mode, size in product(MODES, (BATCH, 25, 4)))
    yield from (Case("784-256x4-10", latent=latent) for latent in LATENTS)
    yield Case("784-256x4-10", threads=2)
    yield Case("784-256x4-10", frozen=2)
    yield Case("784-256x4-10", codec="raw8")
    yield Case("784-256x4-10", kind="evaluate")
    yield Case("33-65-64-3", micro_batch=4)
    yield from (Case("har_cnn", mode, threads=2) for mode in MODES)
    yield Case("har_cnn", recompute=True)
    yield Case("cnv", micro_batch=25, latent="int4")
    yield Case("cnv", frozen=6)
    yield Case("binarynet", micro_batch=4)


def measure(case: Case, folder: Path) -> Row:
    """Return what a plan used in a fresh worker, with what was expected of it before."""
    chosen = case.plan()
    data = data_file(case.model, folder)
    expected = estimate(
        chosen,
        Device(threads=case.threads, base_bytes=probe_base()),
        dataset_bytes=data.stat().st_size,
        codec=case.codec,
        kind=case.kind,
    )
    work = fleet_worker if case.latent == "int8" else local_worker
    rss, group = work(case, chosen, data, folder)
    return Row(case, chosen.peak_bytes, expected.peak_bytes, rss, group)


def fleet_worker(case: Case, chosen: Plan, data: Path, folder: Path) -> tuple[int, int | None]:
    """Return the peaks of a device's worker: of the process, and of its control group."""
    state = Trainer(chosen).state()
    task = Task(
        case.kind, 0, "bench", case.network, case.mode, BATCH, 1, 0.04, case.codec, 0, None, state
    )
    job = Job(
        task=str(folder / "task"),
        data=str(data),
        report=str(folder / "report"),
        micro_batch=case.micro_batch,
        threads=case.threads,
        recompute=case.recompute,
        durable=False,
    )
    Path(job.task).write_bytes(task.encode())
    _, group = run(worker_command(WORKER, job.to_json()))
    report = Report.decode(Path(job.report).read_bytes(), task)
    if report.measured_peak_bytes is None:
        raise WorkerError("this kernel does not tell the peak memory of a process: needs VmHWM")
    return report.measured_peak_bytes, group


def local_worker(case: Case, chosen: Plan, data: Path, folder: Path) -> tuple[int, int | None]:
    """Return the peaks of a worker that trains with latents of which no fleet knows."""
    tensorfile.write(folder / "state", Trainer(chosen).state(), durable=False)
    job = {
        "model": case.network.to_json(),
        "choices": case.choices(),
        "state": str(folder / "state"),
        "data": str(data),
        "report": str(folder / "report"),
    }
    command = [*worker_command()[:3], str(LOCAL_WORKER), json.dumps(job)]
    peak, group = run(command)
    return int(peak), group


def run(command: Sequence[str]) -> tuple[str, int | None]:
    """Return what a process printed, and the peak of the control group that it was born in."""
    group = own_group()
    try:
        process, _ = launch(
            command, Limits(), group, b"", env=worker_environment(), stdout=subprocess.PIPE
        )
        printed, _ = process.communicate()
        if process.returncode != 0:
            raise WorkerError(f"a worker ended with {process.returncode}: see above")
        return printed.decode(), group.peak_bytes() if group else None
    finally:
        if group is not None:
            group.remove()


def own_group() -> ChildGroup | None:
    """Return a new control group, or None where none can be made."""
    try:
        return make_group(ROOM)
    except EnforceError:
        return None


def data_file(name: str, folder: Path) -> Path:
    """Return a data file of random examples that fits a model."""
    model, examples = MODELS[name]
    path = folder / f"{name}.etd"
    if not path.exists():
        draw = random.Random(0)
        features = memoryview(draw.randbytes(examples * model.input_features)).cast("b")
        labels = bytes(draw.randrange(model.classes) for _ in range(examples))
        store.write(path, features, labels, model.classes, (model.input_features,))
    return path


def table(rows: list[Row]) -> Table:
    """Return the rows as a table."""
    found = Table(
        title="peak memory of the worker, KiB (plan: mode, micro-batch, threads)",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    found.add_column("model", no_wrap=True)
    found.add_column("plan", no_wrap=True)
    for name in ("predicted", "rss_peak", "error", "cgroup_peak"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        group = "unknown" if row.cgroup_peak is None else f"{row.cgroup_peak // 1024:,}"
        sizes = (f"{size // 1024:,}" for size in (row.predicted, row.rss_peak))
        cells = (*sizes, f"{row.error:+.2%}", group)
        style = None if row.within else "red"
        found.add_row(row.case.model, row.case.describe(), *cells, style=style)
    return found


def main(
    quick: Annotated[bool, typer.Option(help="A part of the grid, no record.")] = False,
) -> None:
    """Hold the prediction of every plan of the grid against what the kernel measures."""
    with tempfile.TemporaryDirectory() as folder:
        cases = list(some() if quick else grid())
        shown = track(cases, "measuring", console=Console(stderr=True), transient=True)
        rows = [measure(case, Path(folder)) for case in shown]
    errors = [row.error for row in rows]
    console = Console()
    console.print(table(rows))
    console.print(
        f"base {probe_base():,} bytes; {sum(row.within for row in rows)} of {len(rows)} plans "
        f"within {UNDER:.0%} under and {OVER:.0%} over; errors {min(errors):+.2%} to "
        f"{max(errors):+.2%}"
    )
    if not quick:
        told = [{**asdict(row), "error": round(row.error, 4)} for row in rows]
        command = "python benchmarks/memory_prediction.py"
        write_record(RESULTS, command, {"base_bytes": probe_base(), "rows": told})
    if not all(row.within for row in rows):
        raise WorkerError("a prediction is off by more than the gate allows: see the red rows")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
