"""`edgetrain-profile verify` and `report`: a ledger for people and for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgetrain.command import run_command
from edgetrain.errors import DataError, PayloadError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.cli import app
from edgetrain.memory_profiler.ledger import Ledger, verify
from edgetrain.memory_profiler.ledger_line import Intent, Outcome
from edgetrain.task import PlanSummary

INTENT = Intent("train", 3, "left", PlanSummary("bnn", 30, 1, 9), 17 << 20, Budget(memory=24 << 20))
OUTCOMES = (
    Outcome("trained", "", 18 << 20, 540, 2.5, 1.6, "modelled"),
    Outcome("failed", "the worker was killed"),
    Outcome("trained", "", 25 << 20, 540, 2.5, 1.6, "modelled"),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "device.ledger"
    for version, outcome in enumerate(OUTCOMES):
        with Ledger(path) as opened:
            opened.begin(replace(INTENT, version=version))
            opened.end(outcome)
    return path


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_command(app, arguments)
    return caught.value.code


def fields(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert run(*arguments, "--json") == code
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def damage(ledger: Path) -> None:
    """Let the third line say that less energy was expected to be allowed."""
    lines = ledger.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"energy":null', b'"energy":1234')
    ledger.write_bytes(b"".join(lines))


def test_verify_says_that_a_ledger_is_whole(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", str(ledger)) == 0
    shown = capsys.readouterr().out
    assert "6 lines, each as it was written" in shown
    assert verify(ledger).digest in shown
    found = fields(capsys, "verify", str(ledger))
    assert (found["valid"], found["lines"], found["broken"]) == (True, 6, None)
    assert found["totals"]["joules"] == 3.2
    assert found["totals"]["joules_unknown"] == 1


@pytest.mark.parametrize("command", ["verify", "report"])
def test_the_first_line_that_is_wrong_is_named(
    command: str, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(ledger)
    assert run(command, str(ledger)) == PayloadError.exit_code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert "line 3 is wrong" in shown
    found = fields(capsys, command, str(ledger), code=PayloadError.exit_code)
    assert found["valid"] is False
    assert found["broken"]["line"] == 3
    assert found["totals"]["tasks"] == 1


def test_report_shows_each_task_and_the_sums(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with Ledger(ledger) as opened:
        opened.begin(replace(INTENT, version=9))
    assert run("report", str(ledger)) == 0
    shown = capsys.readouterr().out
    for told in ("train 2", "failed", "running", "unknown", "18.0 MiB", "24.0 MiB", "1.6 J"):
        assert told in shown
    assert "3.2 J, unknown for 1 more" in shown
    assert "3, one running" in shown
    assert run("report", str(ledger), "--last", "1") == 0
    shown = capsys.readouterr().out
    assert "1 of 4 tasks" in shown
    assert "train 2" not in shown


def test_report_for_programs_leaves_nothing_out(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger(ledger) as opened:
        opened.begin(replace(INTENT, version=9))
    tasks = fields(capsys, "report", str(ledger), "--last", "1")["tasks"]
    assert [task["within_budget"] for task in tasks] == [True, None, False, None]
    assert tasks[1]["outcome"]["joules"] is None
    assert tasks[3]["outcome"] is None
    assert tasks[3]["intent"]["plan"]["micro_batch"] == 30


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_ledger_that_is_not_there_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, str(tmp_path / "absent")) == DataError.exit_code
    assert "check the path" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "report"])
def test_help_tells_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "16" in shown


def test_what_held_a_task_to_its_budget_is_shown(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    held = replace(
        OUTCOMES[0],
        enforcement="soft",
        network="open",
        cause="finished",
        cgroup_peak_bytes=12_345 * 1024,
    )
    with Ledger(ledger) as opened:
        opened.begin(replace(INTENT, version=9))
        opened.end(held)
    assert run("report", str(ledger), "--last", "1") == 0
    assert "soft, network open" in capsys.readouterr().out.partition("held: ")[0]
    told = fields(capsys, "report", str(ledger))["tasks"][-1]["outcome"]
    assert (told["enforcement"], told["cause"]) == ("soft", "finished")
    assert told["cgroup_peak_bytes"] == 12_345 * 1024
    shown = page(ledger, capsys)
    assert "<td>soft, network open</td>" in shown
    assert "12.1 MiB" in shown


def page(ledger: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    out = ledger.with_name("page.html")
    assert run("report", str(ledger), "--html", str(out)) == code
    capsys.readouterr()
    return out.read_text()


def test_the_page_tells_what_the_table_does(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ledger(ledger) as opened:
        opened.begin(replace(INTENT, version=9))
    shown = page(ledger, capsys)
    for told in (
        "1 of 4 tasks used more than they were allowed",
        "trained: used more than it was allowed",
        "failed: the worker was killed",
        "running",
        "25.0 MiB of 24.0 MiB",
        "3.2 J",
        "energy, modelled, unknown for 1 task",
        verify(ledger).digest,
    ):
        assert told in shown, told


def test_the_page_needs_no_network_and_trusts_no_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger"
    with Ledger(path) as opened:
        opened.begin(replace(INTENT, device="<script>alert(1)</script>"))
        opened.end(OUTCOMES[1])
    shown = page(path, capsys)
    assert "<script" not in shown
    assert "http" not in shown.replace('http-equiv="Content-Security-Policy"', "")
    assert "Nobody knows" in shown


def test_the_page_of_a_broken_ledger_says_so_and_shows_what_stands_before(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(ledger)
    shown = page(ledger, capsys, PayloadError.exit_code)
    assert "Line 3 is wrong" in shown
    assert "failed" not in shown


def test_the_page_of_an_empty_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Ledger(tmp_path / "ledger").close()
    assert "0 tasks" in page(tmp_path / "ledger", capsys)
