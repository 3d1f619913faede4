"""A coordinator that is killed at any line goes on where it was: every report counts once.

EDGETRAIN_KILLS sets how often it is killed in each way of gathering, EDGETRAIN_KILL_SEED where.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from killed_coordinator import ALL_VERSIONS, live, update_of

from edgetrain.config import FleetConfig
from edgetrain.coordinator.audit import audit_folder, refold
from edgetrain.coordinator.checkpoint import CheckpointFolder, read_checkpoint
from edgetrain.coordinator.global_model import GlobalModel
from edgetrain.coordinator.journal import Entry, read_journal

KILLS = int(os.environ.get("EDGETRAIN_KILLS", "10"))
SEED = int(os.environ.get("EDGETRAIN_KILL_SEED", "1"))
LIFE_SECONDS = 120
ROUNDS = 5
SHORT, LONG = 6_000, 40_000
"""The most lines that a life lasts: those of a round, and those of the whole run."""

WAYS = {
    "synchronous": {"deadline": 3.0, "staleness": 2, "fraction": 0.8, "over_selection": 0.3},
    "buffered": {"aggregation": "buffered", "buffer": 3},
}


def fleet(mode: str, **training: Any) -> FleetConfig:
    """Return a fleet of quick and slow devices."""
    return FleetConfig.from_table(
        {
            "data": {"path": "nowhere"},
            "model": {"hidden": [6], "mode": mode},
            "training": {"rounds": ROUNDS, "seed": 3, "evaluate_every": 2, **training},
            "device": [
                {"name": "quick", "memory": "64MiB", "count": 4, "examples_per_second": 40},
                {"name": "slow", "memory": "64MiB", "count": 2, "examples_per_second": 6},
                {"name": "judge", "memory": "64MiB", "count": 1, "role": "evaluate"},
            ],
        }
    )


@pytest.fixture(scope="module")
def processes() -> Any:
    """Return what starts processes that share nothing with this one but the modules."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killed_coordinator"])
    return context


def live_once(processes: Any, *arguments: Any) -> int:
    """Return how a coordinator's process ended."""
    process = processes.Process(target=live, args=arguments)
    process.start()
    process.join(LIFE_SECONDS)
    assert process.exitcode is not None, "it hangs"
    return int(process.exitcode)


@pytest.mark.parametrize(
    ("way", "mode"), [("synchronous", "fsb"), ("buffered", "bnn"), ("buffered", "fsb")]
)
def test_no_report_is_lost_and_none_counts_twice(
    processes: Any, tmp_path: Path, way: str, mode: str
) -> None:
    draw = random.Random(f"{SEED} {way} {mode}")
    config = fleet(mode, **WAYS[way])
    kills = attempt = 0
    while kills < KILLS:
        attempt += 1
        folder, acknowledged = tmp_path / str(attempt), tmp_path / f"{attempt}.acknowledged"
        ended = -signal.SIGKILL
        while ended == -signal.SIGKILL:
            kill_at = draw.randint(1, draw.choice((SHORT, LONG))) if kills < KILLS else 0
            ended = live_once(processes, config, folder, acknowledged, kill_at)
            kills += ended == -signal.SIGKILL
        assert ended == 0
        check(config, folder, acknowledged)


def check(config: FleetConfig, folder: Path, acknowledged: Path) -> None:
    """Hold what a run has left behind to what was acknowledged, and to the sum of all reports."""
    kept = CheckpointFolder(folder, kept=ALL_VERSIONS)
    final = read_checkpoint(kept.path_of(ROUNDS))
    journals = {one: list(read_journal(kept.journal_of(one))) for one in range(ROUNDS)}
    counted = Counter(name_of(entry) for entries in journals.values() for entry in entries)
    told = Counter(acknowledged.read_text().split("\n")[:-1])
    assert set(counted.values()) == {1}
    assert set(told.values()) == {1}
    assert set(told) <= set(counted)

    model = GlobalModel.fresh(final.model.model, final.model.mode, config.training.seed)
    for version in range(ROUNDS):
        assert read_checkpoint(kept.path_of(version)).model.to_tensors() == model.to_tensors()
        for entry in journals[version]:
            check_report(config, entry, final.model)
        model = refold(model, journals[version]).apply()
    assert final.model.to_tensors() == model.to_tensors()
    assert all(one.same for one in audit_folder(folder))

    records = final.history.rounds
    assert [record.reported for record in records] == [len(one) for one in journals.values()]
    for name, device in final.history.devices.items():
        if device.role == "train":
            assert device.answered == sum(one.startswith(f"{name} ") for one in counted)


def name_of(entry: Entry) -> str:
    """Return the name of a report: its device and the version that it began with."""
    assert entry.answer.report is not None
    return f"{entry.answer.report.device} {entry.answer.report.version}"


def check_report(config: FleetConfig, entry: Entry, model: GlobalModel) -> None:
    """Hold a report to what its device sends."""
    report = entry.answer.report
    assert report is not None
    codec = config.training.codec
    assert report.update == update_of(report.device, report.version, model.model, model.mode, codec)
