"""Predicted peak memory against VmHWM of real workers: the gate that makes estimates promises."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from edgetrain.client.run import run_task
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.estimate import OVER, UNDER
from edgetrain.memory_profiler.memory import peak_bytes
from edgetrain.ops.op import Mode
from edgetrain.planner import plan
from edgetrain.task import Kind, Report, Task
from edgetrain.train import Trainer

# One way to measure: what the benchmark does for all plans is done here for some.
BENCHMARK = Path(__file__).parents[2] / "benchmarks/memory_prediction.py"
pytest.importorskip("typer", reason="the benchmark is a command")
benchmark = runpy.run_path(str(BENCHMARK))
SMALL = "784-256x4-10"
CASES = list(benchmark["some"]())

if peak_bytes() is None:
    pytest.skip("this kernel does not tell a process's peak memory", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_plan_uses_what_was_predicted(case: Any, folder: Path) -> None:
    row = benchmark["measure"](case, folder)
    assert row.within, f"predicted {row.predicted}, measured {row.rss_peak}: {row.error:+.2%}"
    # What is charged to a group of the worker's own leaves out libraries that others have loaded.
    if row.cgroup_peak is not None:
        assert row.cgroup_peak <= row.predicted * (1 + UNDER)


def task_of(name: str, kind: Kind = "train", mode: Mode = "bnn") -> Task:
    model, _ = benchmark["MODELS"][name]
    state = Trainer(plan(model, 32, mode)).state()
    return Task(kind, 0, "device", model, mode, 32, 2, 0.04, "luq4", 0, None, state)


def test_a_report_carries_the_promise_and_what_became_of_it(folder: Path) -> None:
    task = task_of(SMALL)
    budget = Budget.parse("48MiB")
    report = run_task(task, benchmark["data_file"](SMALL, folder), budget)
    assert report.status == "trained", report.reason
    assert report.measured_peak_bytes is not None
    assert budget.memory is not None
    assert report.measured_peak_bytes <= budget.memory
    assert -UNDER <= error_of(report) <= OVER
    assert report.plan is not None
    assert report.plan.micro_batch == 32


def test_a_simulated_device_uses_what_a_fresh_worker_does(folder: Path) -> None:
    """Its workers have done other tasks, larger ones too, which must not show in its peak."""
    tasks = {
        "har_cnn": task_of("har_cnn"),
        SMALL: task_of(SMALL),
        f"{SMALL}, judged": task_of(SMALL, "evaluate"),
        "33-65-64-3": task_of("33-65-64-3", mode="fsb"),
    }
    peaks = set()
    for name, task in 3 * list(tasks.items()):
        data = benchmark["data_file"](name.partition(",")[0], folder)
        report = run_task(task, data, Budget.parse("64MiB"), simulated=True)
        assert -UNDER <= error_of(report) <= OVER
        peaks.add(report.measured_peak_bytes)
    assert len(peaks) <= len(tasks), "a task of a shape seen before is not measured anew"


def error_of(report: Report) -> float:
    assert report.predicted_peak_bytes is not None
    assert report.measured_peak_bytes is not None
    return report.predicted_peak_bytes / report.measured_peak_bytes - 1


def test_a_budget_below_the_prediction_is_declined_politely(folder: Path) -> None:
    task = task_of(SMALL)
    data = benchmark["data_file"](SMALL, folder)
    report = run_task(task, data, Budget.parse("1MiB"))
    assert report.status == "declined"
    assert report.examples == 0
    assert "nothing fits" in report.reason
