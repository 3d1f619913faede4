"""What predicting takes: a packed model under edgetrain.Predictor beside onnxruntime.

Every network is trained for two steps on random bytes and exported both ways. Each runtime loads
its file and predicts in fresh processes of one thread, in turn: memory is what the process grew by
from when its modules and the examples were there, time the median of a second of predicting.

    python benchmarks/prediction.py             three networks, one example and sixteen at a time
    python benchmarks/prediction.py --quick     mlp alone, one process each, nothing written
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgetrain import Trainer, export_onnx, export_packed, plan
from edgetrain.bench.record import installed, write_record
from edgetrain.command import run_command
from edgetrain.examples import random_examples
from edgetrain.models import MODELS
from edgetrain.sizes import format_size

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "prediction.json"
NETWORKS, BATCHES, PROCESSES = ("mlp", "cnv", "binarynet"), (1, 16), 3
STEP = 16
"""Examples that a network is trained on."""
RUNTIMES = ("edgetrain", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """What a runtime took of a network: medians over the processes."""

    network: str
    batch: int
    runtime: str
    file_bytes: int
    example_ms: float
    pss_growth_bytes: int
    peak_growth_bytes: int
    pss_bytes: int


def exported(network: str, folder: Path) -> dict[str, Path]:
    """Write a network both ways, and return the files by runtime."""
    model = MODELS[network]()
    trainer = Trainer(plan(model, STEP))
    trainer.fit(*random_examples(model.input_features, model.classes, STEP), epochs=2)
    files = {"edgetrain": folder / f"{network}.etp", "onnxruntime": folder / f"{network}.onnx"}
    export_packed(trainer, files["edgetrain"])
    export_onnx(trainer, files["onnxruntime"])
    return files


def process(runtime: str, file: Path, features: int, batch: int) -> dict[str, Any]:
    """Predict in a fresh process, and return what it printed."""
    words = [runtime, file, features, batch]
    command = [sys.executable, HERE / "predicting_process.py", *map(str, words)]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(network: str, batch: int, files: dict[str, Path], processes: int) -> list[Row]:
    """Measure both runtimes in turn."""
    features = MODELS[network]().input_features
    told: dict[str, list[dict[str, Any]]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(processes):
        for runtime in RUNTIMES:
            told[runtime].append(process(runtime, files[runtime], features, batch))
    return [
        Row(
            network,
            batch,
            runtime,
            files[runtime].stat().st_size,
            **{name: median(one[name] for one in told[runtime]) for name in told[runtime][0]},
        )
        for runtime in RUNTIMES
    ]


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="One network, one process each.")] = False,
) -> None:
    """Measure every network, print a table and write the figures."""
    networks, processes = (NETWORKS[:1], 1) if quick else (NETWORKS, PROCESSES)
    table = Table("network", "batch", "runtime", "file", "PSS growth", "process", "ms an example")
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        for network in networks:
            files = exported(network, Path(folder))
            for batch in BATCHES:
                rows += measure(network, batch, files, processes)
    for row in rows:
        sizes = map(format_size, (row.file_bytes, row.pss_growth_bytes, row.pss_bytes))
        cells = (row.network, str(row.batch), row.runtime, *sizes, f"{row.example_ms:.3f}")
        table.add_row(*cells, end_section=row.runtime == RUNTIMES[-1])
    Console().print(table)
    if not quick:
        found = {"onnxruntime": installed("onnxruntime"), "rows": [*map(asdict, rows)]}
        write_record(RESULTS, "python benchmarks/prediction.py", found)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    run_command(app)
