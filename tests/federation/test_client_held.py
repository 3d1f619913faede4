"""A worker is held to the budget, what it passed is told, and no plan is retried as it was.

Real processes throughout: those that misbehave stand in for the worker's command.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.client.held import MARGIN_BYTES
from edgetrain.client.run import run_task
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.enforce.admission import Policy
from edgetrain.memory_profiler.estimate import UNDER
from edgetrain.memory_profiler.ledger import read, verify
from edgetrain.memory_profiler.ledger_line import Intent, Outcome
from edgetrain.memory_profiler.probe import probe_private
from edgetrain.planner import plan
from edgetrain.task import Report, Task
from edgetrain.train import Trainer

FEATURES, CLASSES = 64, 4
BATCH = 256
"""So many that training takes more than encoding what was learnt does: a smaller plan helps."""
EXAMPLES = 5 * BATCH
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(512, 512))
MEMORY = 64 << 20
BUDGET = Budget(memory=MEMORY)
GROWS = f"""
import mmap, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
shared = mmap.mmap(-1, {16 * MEMORY})
for place in range(0, len(shared), mmap.PAGESIZE): shared[place] = 1
"""
"""Takes page after page of shared memory, which RLIMIT_DATA does not count, and heeds no signal."""
LEAKY = """
import mmap, sys
import edgetrain.client.worker as worker
held, token = [], worker.stop_token
def leaking():
    stop = token()
    def should_stop():
        held.append({allocate})
        return stop()
    return should_stop
worker.stop_token = leaking
sys.exit(worker.main())
"""
TOUCHED = "(lambda block: block.write(bytes(len(block))) and block)(mmap.mmap(-1, 1 << 15))"
LEAKS = {"memory_data": "bytearray(1 << 15)", "memory_soft": TOUCHED}
"""By the belt that notices: private memory, and shared memory, which RLIMIT_DATA does not count.

So slowly that even on a busy machine the watchdog looks before the kernel's own limit is met.
"""
MOST_OVERSHOOT = 30 << 20
"""Bytes past its limit that the fastest process reaches between two looks (measured: 26 MiB)."""
KILLS = int(os.environ.get("EDGETRAIN_KILLS", "6"))
"""How often each is killed at random moments; the long form is 200."""
SPAWNED_WITHIN = 30.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "device.etd", MODEL, EXAMPLES)


def a_task(**changes: Any) -> Task:
    return small_task(**{"model": MODEL, "batch": BATCH} | changes)


def entries(ledger: Path) -> list[tuple[Intent, Outcome]]:
    """Return the tasks of a ledger that verifies."""
    assert verify(ledger).broken is None
    found = [line.entry for line in read(ledger)]
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert all(isinstance(i, Intent) and isinstance(o, Outcome) for i, o in pairs)
    return pairs  # type: ignore[return-value]


def instead(monkeypatch: pytest.MonkeyPatch, code: str, times: int = 1) -> Callable[..., list[str]]:
    """Let other code stand in for the worker so many times."""
    from edgetrain.client import processes  # noqa: PLC0415

    real, left = processes.worker_command, [times]

    def command(*arguments: str) -> list[str]:
        left[0] -= 1
        return [sys.executable, "-c", code] if left[0] >= 0 else real(*arguments)

    monkeypatch.setattr(processes, "worker_command", command)
    return command


def test_a_worker_that_outgrows_its_memory_ends_and_its_plan_is_not_retried(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger"
    instead(monkeypatch, GROWS)
    failed = run_task(a_task(), data, BUDGET, ledger=ledger)
    assert failed.status == "failed"
    assert "the next plan is smaller" in failed.reason
    later = run_task(a_task(), data, BUDGET, ledger=ledger)
    (first, outcome), (second, ended) = entries(ledger)
    assert outcome.enforcement in ("hard", "soft")
    assert outcome.cause == ("memory_hard" if outcome.enforcement == "hard" else "memory_soft")
    assert (later.status, ended.cause) == ("trained", "finished")
    assert second.predicted_peak_bytes < first.predicted_peak_bytes


def test_private_memory_past_the_plan_is_refused_where_it_is_asked_for(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = f"import sys\ntry: bytearray({MEMORY} * 4)\nexcept MemoryError: sys.exit('caught')"
    instead(monkeypatch, asks)
    report = run_task(a_task(), data, BUDGET)
    assert (report.status, report.reason) == ("failed", "caught")


@pytest.mark.parametrize("cause", LEAKS)
def test_a_worker_that_leaks_reports_what_it_has_learnt_so_far(
    cause: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real worker, but for memory that it loses with every micro-batch."""
    code = LEAKY.format(allocate=LEAKS[cause])
    monkeypatch.setattr(
        "edgetrain.client.processes.worker_command",
        lambda _, job: [sys.executable, "-P", "-s", "-c", code, job],
    )
    task = a_task(local_epochs=1000)
    report = run_task(task, data, BUDGET, ledger=tmp_path / "ledger")
    assert report.status == "trained", report.reason
    assert report.reason.startswith("stopped early")
    assert 0 < report.examples < 1000 * EXAMPLES
    assert report.update
    ((intent, outcome),) = entries(tmp_path / "ledger")
    assert outcome.cause == cause
    assert outcome.measured_peak_bytes is not None
    assert outcome.measured_peak_bytes < MEMORY + MOST_OVERSHOOT
    monkeypatch.undo()
    run_task(a_task(), data, BUDGET, ledger=tmp_path / "ledger")
    later, _ = entries(tmp_path / "ledger")[-1]
    assert later.predicted_peak_bytes < intent.predicted_peak_bytes


def test_an_arena_that_cannot_be_had_fails_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(2048, 2048))
    state = Trainer(plan(wide, BATCH), seed=5).state()
    task = a_task(kind="evaluate", model=wide, state=state)
    # As if an idle worker took less than it does: the interpreter finds room, the arena does not.
    less = probe_private() - MARGIN_BYTES - plan(wide, 2).peak_bytes // 2
    monkeypatch.setattr("edgetrain.client.held.probe_private", lambda: less)
    report = run_task(task, data, BUDGET, ledger=tmp_path / "ledger")
    assert (report.status, report.examples) == ("failed", 0)
    assert "arena" in report.reason
    ((_, outcome),) = entries(tmp_path / "ledger")
    assert outcome.cause == "memory_data"


def test_a_worker_whose_plan_is_right_never_passes_its_memory(data: Path, tmp_path: Path) -> None:
    """Held to what was predicted: its arena is touched as it begins, and nothing grows later."""
    expected = run_task(a_task(), data, BUDGET).predicted_peak_bytes
    assert expected is not None
    memory = int(expected * (1 + UNDER)) + 1
    report = run_task(a_task(), data, Budget(memory=memory), ledger=tmp_path / "ledger")
    assert (report.status, report.reason) == ("trained", "")
    assert report.predicted_peak_bytes == expected
    ((_, outcome),) = entries(tmp_path / "ledger")
    assert outcome.network in ("none", "open")
    assert outcome.cause == "finished"
    assert outcome.measured_peak_bytes is not None
    assert outcome.measured_peak_bytes <= memory


def test_a_killed_plan_is_quarantined_until_nothing_fits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger"
    instead(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 1000)
    statuses, peaks = [], []
    while not statuses or statuses[-1] == "failed":
        report = run_task(a_task(), data, BUDGET, ledger=ledger)
        statuses.append(report.status)
        peaks.append(report.predicted_peak_bytes)
    assert statuses[-1] == "declined"
    assert "ledger.quarantine" in report.reason, "it says what to do"
    tried = [peak for peak in peaks if peak is not None]
    assert len(tried) > 1
    assert tried == sorted(set(tried), reverse=True)


def test_a_damaged_quarantine_says_what_to_do(data: Path, tmp_path: Path) -> None:
    (tmp_path / "ledger.quarantine").write_text('{"a": -1}')
    report = run_task(a_task(), data, BUDGET, ledger=tmp_path / "ledger")
    assert report.status == "failed"
    assert "remove it" in report.reason
    assert (tmp_path / "ledger.quarantine").read_text() == '{"a": -1}'


def test_energy_stops_a_task_which_reports_what_it_has(data: Path, tmp_path: Path) -> None:
    # By its figures the device is quick; by its clock it is not.
    device = Device(name="hungry", examples_per_second=1e9, watts=1000)
    task, allowed = a_task(local_epochs=1000), Budget(memory=MEMORY, energy=1500.0)
    report = run_task(task, data, allowed, device, ledger=tmp_path / "ledger")
    assert report.status == "trained", report.reason
    assert "stopped early, after the" in report.reason
    assert report.examples > 0
    ((_, outcome),) = entries(tmp_path / "ledger")
    assert outcome.cause == "energy"


def test_a_task_begins_only_where_there_is_room(data: Path, tmp_path: Path) -> None:
    report = run_task(
        a_task(), data, BUDGET, ledger=tmp_path / "ledger", policy=Policy(headroom=1 << 60)
    )
    assert (report.status, report.examples) == ("declined", 0)
    assert report.reason.startswith("not now")
    assert not (tmp_path / "ledger").exists()


DAEMON = """
import sys
from pathlib import Path
from edgetrain.client.run import run_task
from edgetrain.memory_profiler.budget import Budget
from edgetrain.task import Task
task, data, ledger, memory = sys.argv[1:]
decoded = Task.decode(Path(task).read_bytes())
print("begun", flush=True)
while True:
    run_task(decoded, data, Budget(memory=int(memory)), ledger=Path(ledger))
"""


def test_a_kill_at_any_moment_leaves_a_ledger_that_verifies(data: Path, tmp_path: Path) -> None:
    """Whoever started the worker is killed, with it or alone; then a round is done in peace."""
    generator, rounds = random.Random(7), Rounds(tmp_path, data)
    (tmp_path / "task").write_bytes(a_task(local_epochs=50).encode())
    for _ in range(KILLS):
        arguments = (tmp_path / "task", data, rounds.ledger, MEMORY)
        command = [sys.executable, "-c", DAEMON, *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as daemon:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == b"begun\n"
            # Any moment will do: that is the point.
            threading.Event().wait(generator.uniform(0.0, 1.5))
            for victim in children(daemon.pid) if generator.random() < 0.5 else ():
                os.kill(victim, signal.SIGKILL)
            daemon.kill()
        rounds.one_in_peace()


def test_a_worker_killed_at_any_step_is_followed_by_a_smaller_plan(
    data: Path, tmp_path: Path
) -> None:
    generator, rounds = random.Random(8), Rounds(tmp_path, data)
    # What is probed once in a process is then known, and all later children are workers.
    rounds.one_in_peace()
    causes = []
    for _ in range(KILLS):
        before = set(children(os.getpid()))
        task = a_task(local_epochs=50)
        thread = threading.Thread(
            target=run_task, args=(task, data, BUDGET), kwargs={"ledger": rounds.ledger}
        )
        thread.start()
        threading.Event().wait(generator.uniform(0.0, 0.6))
        for victim in set(children(os.getpid())) - before:
            os.kill(victim, signal.SIGKILL)
        thread.join(SPAWNED_WITHIN)
        killed = next(reversed(entries(rounds.ledger)), None)
        causes.append(killed[1].cause if killed else None)
        rounds.one_in_peace(killed)
    assert "killed" in causes


class Rounds:
    """Rounds with one ledger, each with a plan as large as the one before, or a smaller one."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.ledger = folder / "ledger-0"
        self.peak: int | None = None

    def one_in_peace(self, killed: tuple[Intent, Outcome] | None = None) -> None:
        """Do a round; after one that was killed, its plan must be smaller, not just no larger."""
        report = run_task(a_task(), self.data, BUDGET, ledger=self.ledger)
        if self.ledger.exists():
            verdict = verify(self.ledger)
            assert verdict.broken is None
            assert not verdict.running
        if report.status == "declined":
            # Even the smallest plan was killed: an owner would look into it, and begin anew.
            assert "quarantine" in report.reason
            self.ledger = self.folder / f"ledger-{int(self.ledger.name[7:]) + 1}"
            self.peak = None
            return
        assert report.status == "trained", report.reason
        assert report.predicted_peak_bytes is not None
        assert self.peak is None or report.predicted_peak_bytes <= self.peak
        if killed and killed[1].cause == "killed":
            assert report.predicted_peak_bytes < killed[0].predicted_peak_bytes
        self.peak = report.predicted_peak_bytes


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
    return found


def test_a_report_says_nothing_of_belts_but_the_ledger_does(data: Path, tmp_path: Path) -> None:
    report = run_task(a_task(), data, BUDGET, ledger=tmp_path / "ledger")
    assert isinstance(report, Report)
    ((_, outcome),) = entries(tmp_path / "ledger")
    assert outcome.enforcement in ("hard", "soft")
    assert outcome.network in ("none", "open")
    assert outcome.cause == "finished"
    assert outcome.measured_peak_bytes is not None
    assert outcome.measured_peak_bytes <= MEMORY
