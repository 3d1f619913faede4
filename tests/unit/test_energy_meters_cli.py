"""`edgetrain-profile meters`: every meter of the registry, with a reason where it does not work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetrain.command import run_command
from edgetrain.memory_profiler.cli import app
from edgetrain.memory_profiler.energy.meter import METERS

ZONE = "sys/class/powercap/intel-rapl:0"


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_command(app, arguments)
    return caught.value.code


def with_package(root: Path) -> None:
    folder = root / ZONE
    folder.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "9")):
        (folder / name).write_text(text)


def test_every_meter_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("meters", "--root", str(tmp_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)["meters"]
    assert [one["meter"] for one in found] == list(METERS)
    assert [one["meter"] for one in found if one["obstacle"] is None] == ["prior"]


def test_a_meter_that_works_has_no_obstacle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_package(tmp_path)
    assert run("meters", "--root", str(tmp_path), "--json") == 0
    first = json.loads(capsys.readouterr().out)["meters"][0]
    assert first == {"meter": "rapl", "scope": "package", "source": "counter", "obstacle": None}


def test_the_table_says_what_is_used_and_what_is_modelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with_package(tmp_path)
    assert run("meters", "--root", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    used = [line for line in shown.splitlines() if "is used" in line]
    assert len(used) == 1
    assert "rapl" in used[0]
    assert "modelled, from literature" in shown


def test_this_machine_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("meters", "--json") == 0
    assert json.loads(capsys.readouterr().out)["meters"]


def test_the_documents_name_every_meter() -> None:
    told = (Path(__file__).parents[2] / "docs" / "energy.md").read_text()
    assert all(f"| `{name}` |" in told for name in METERS)
