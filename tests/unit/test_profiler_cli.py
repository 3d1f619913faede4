"""`edgetrain-profile`: tables for people, JSON for programs, one line for mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgetrain.command import run_command
from edgetrain.errors import BudgetError, ConfigError, ModelError
from edgetrain.memory_profiler import cli
from edgetrain.memory_profiler.cli import app
from edgetrain.models import mlp

NET = ("--inputs", "33", "--classes", "3", "--hidden", "65,64", "--batch", "16", "--base", "8MiB")


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_command(app, arguments)
    return caught.value.code


def fields(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> int:
    """Stand in for the probe, which starts workers."""
    monkeypatch.setattr(cli, "probe_base", lambda: 12345678)
    return 12345678


def test_probe(base: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = fields(capsys, "probe")
    assert found["base_bytes"] == base
    assert found["available_bytes"] > 0
    assert run("probe") == 0
    assert f"{base:,}" in capsys.readouterr().out


def test_an_unknown_figure_is_null(
    base: int,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "available_bytes", lambda: None)
    assert fields(capsys, "probe")["available_bytes"] is None
    assert run("probe") == 0
    assert "unknown" in capsys.readouterr().out
    expected = fields(capsys, "estimate", *NET)
    assert expected["seconds"] is None
    assert expected["energy"] is None
    assert expected["fits"] is None


def test_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("estimate", *NET, "--examples-per-second", "100", "--watts", "2")
    found = fields(capsys, *arguments, "--memory", "64MiB", "--dataset", "1MiB")
    assert found["fits"] is True
    assert sum(found["parts"].values()) == found["peak_bytes"]
    assert found["parts"]["dataset, mapped"] == 2**20
    assert found["memory"]["low"] < found["peak_bytes"] < found["memory"]["high"]
    assert found["source"] == "modelled"
    assert run(*arguments, "--memory", "1MiB") == 0
    shown = capsys.readouterr().out
    assert "does not fit" in shown
    assert "modelled" in shown


def test_choose(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("choose", *NET, "--memory", "64MiB", "--mode", "fsb")
    found = fields(capsys, *arguments)
    assert found["plan"]["mode"] == "fsb"
    assert found["plan"]["micro_batch"] == 16
    assert found["plan"]["layers_frozen"] == 0
    assert found["cost"]["unit"] == "operations"
    assert [other["plan"] for other in found["rejected"]] == [
        "fsb, up to 8 of 16, 1 thread",
        "fsb, up to 16 of 16, 1 thread, 1 to 2 layers frozen",
    ]
    assert {other["fits"] for other in found["rejected"]} == {None}
    assert run(*arguments) == 0
    shown = capsys.readouterr().out
    assert "chosen: fsb, 16 of 16, 1 thread" in shown
    assert "stand for joules" in shown
    assert "fsb, up to 8 of 16, 1 thread" in shown


def test_choose_says_what_would_make_a_plan_fit(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("choose", "binarynet", "--base", "12MiB", "--memory", "100MiB")
    found = fields(capsys, *arguments)
    whole = next(other for other in found["rejected"] if other["cures"])
    assert whole["plan"] == "bnn, 100 of 100, 1 thread"
    assert whole["cures"][0] == "recomputing"
    assert re.fullmatch(r"allow [0-9.]+ MiB of memory", whole["cures"][-1])
    assert run(*arguments) == 0
    assert "would fit with (cheapest first) recomputing, or" in capsys.readouterr().out


def test_choose_leaves_open_what_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    narrow = ("choose", *NET, "--mode", "bnn", "--trainable", "all")
    assert fields(capsys, *narrow, "--latent", "int4")["plan"]["latent"] == "int4"
    told = json.dumps(fields(capsys, *narrow, "--latent", "int8")["rejected"])
    assert not re.search("int4|frozen|fsb", told)
    two = fields(capsys, "choose", *NET, "--mode", "bnn", "--trainable", "2")["rejected"]
    assert any("1 layer frozen" in other["plan"] for other in two)
    assert not any("2 layers frozen" in other["plan"] for other in two)
    part = ("--examples", "1000", "--examples-per-second", "10", "--seconds", "20", "--partial")
    found = fields(capsys, *narrow, *part)
    assert found["estimate"]["examples"] == 160
    assert found["asked"] == 1000


def test_a_model_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.json"
    path.write_text(mlp(33, 3, (65, 64)).to_json())
    arguments = ("--batch", "16", "--base", "8MiB")
    assert fields(capsys, "estimate", str(path), *arguments) == fields(capsys, "estimate", *NET)


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("choose", *NET, "--memory", "1MiB"), BudgetError, "allow more"),
        (("choose", *NET, "--energy", "20Q"), ConfigError, "energy"),
        (("choose", *NET, "--mode", "bmn"), ConfigError, "'bnn'"),
        (("choose", "mlq"), ConfigError, "'mlp'"),
        (("choose", *NET, "--latent", "int9"), ConfigError, "'int8'"),
        (("choose", *NET, "--trainable", "most"), ConfigError, "all or any"),
        (("choose", *NET, "--trainable", "9"), ModelError, "choose 1 to 3, or all"),
        (("estimate", *NET, "--hidden", "wide"), ConfigError, "256,256"),
        (("estimate", *NET, "--micro-batch", "17"), ModelError, "17"),
        (("estimate", *NET, "--codec", "morse"), ConfigError, "luq4"),
        (("estimate", *NET, "--base", "lots"), ConfigError, "64MiB"),
    ],
)
def test_a_mistake_is_one_line_that_helps(
    arguments: tuple[str, ...],
    error: type[ConfigError],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*arguments) == error.exit_code
    out, shown = capsys.readouterr()
    assert out == ""
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert named in shown


def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(b"\xff\x00")
    assert run("estimate", str(path)) == ModelError.exit_code
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["probe", "estimate", "choose", "meters", "calibrate"])
def test_help_explains_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert "--json" in capsys.readouterr().out


def test_without_its_libraries_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None\nimport edgetrain.memory_profiler.cli"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    assert answer.returncode == 1
    assert answer.stderr == "error: edgetrain-profile needs typer: pip install 'edgetrain[fleet]'\n"
