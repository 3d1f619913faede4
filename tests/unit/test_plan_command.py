"""`edgetrain plan`: a table and a chart for people, JSON for programs."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgetrain as et
from edgetrain.cli import app
from edgetrain.command import run_command
from edgetrain.errors import BudgetError
from edgetrain.models import MODELS
from edgetrain.plan_report import EIGHTHS, bars
from edgetrain.sizes import format_size, parse_size
from edgetrain.timeline import peak, timeline

TIGHT = ("plan", "binarynet", "--memory", "48MiB")
TINY = ("plan", "mlp", "--inputs", "33", "--hidden", "65,64", "--classes", "3", "--batch", "16")


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run_command(app, arguments)
    return caught.value.code


def fields(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_what_is_made_again_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = et.plan(MODELS["binarynet"](), 100, memory="30MiB")
    assert chosen.remade
    assert chosen.streamed
    tightest = ("plan", "binarynet", "--memory", "30MiB")
    found = fields(capsys, *tightest)
    assert found["remade"] == sorted(chosen.remade)
    assert found["streamed"] == sorted(chosen.streamed)
    assert run(*tightest) == 0
    layers = ", ".join(map(str, sorted(chosen.remade)))
    ending = f"gradients made twice: layers {layers}; sums made three times: layers 0"
    assert ending in capsys.readouterr().out
    assert chosen.explain().endswith(ending)
    assert fields(capsys, "plan", "binarynet")["remade"] == []
    assert run("plan", "binarynet") == 0
    assert "nothing made again" in capsys.readouterr().out


@pytest.mark.parametrize("memory", ["100MiB", "48MiB", "24MiB"])
def test_what_would_have_been_preferred_is_told_with_what_it_lacks(
    memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("plan", "binarynet", "--memory", memory)
    found, allowed = fields(capsys, *arguments), parse_size(memory)
    assert found["peak_bytes"] <= allowed
    assert all(other["peak_bytes"] > allowed for other in found["larger"])
    assert all(other["micro_batch"] >= found["micro_batch"] for other in found["larger"])
    assert (found["micro_batch"], found["remade"]) == (100, []) or found["larger"]
    assert run(*arguments) == 0
    shown = capsys.readouterr().out
    assert f"{format_size(allowed)} allowed for the arena" in shown
    for other in found["larger"]:
        assert format_size(other["peak_bytes"] - allowed) in shown


def test_the_peak_is_named_and_is_the_highest_step(capsys: pytest.CaptureFixture[str]) -> None:
    worst = peak(timeline(et.plan(MODELS["binarynet"](), 100, memory="48MiB")))
    found = fields(capsys, *TIGHT)
    steps = found["steps"]
    assert found["peak_step"] == worst.step
    assert max(step["alive_bytes"] for step in steps) == steps[worst.step]["alive_bytes"]
    assert found["lower_bound_bytes"] == worst.bytes
    assert run(*TIGHT) == 0
    assert f"at step {worst.step}: {worst.name}" in capsys.readouterr().out


def test_every_tensor_is_listed_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    names = [tensor["name"] for tensor in fields(capsys, *TINY)["tensors"]]
    assert run(*TINY, "--tensors") == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in names)
    assert run(*TINY) == 0
    assert "layer1.latent" not in capsys.readouterr().out


@pytest.mark.parametrize("width", ["40", "200"])
@pytest.mark.parametrize("model", MODELS)
def test_a_terminal_of_any_width_shows_every_layer_and_the_chart(
    model: str, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert run("plan", model, "--batch", "2") == 0
    shown = capsys.readouterr().out
    for block in MODELS[model]().blocks():
        assert f" {block.index} {block.weights.name[:4]}" in shown
    chart = shown[shown.index("alive at each step") : shown.index("\narena ")]
    assert "forward" in chart
    assert all(len(line) <= int(width) for line in chart.splitlines())


@given(st.lists(st.integers(0, 10**9), min_size=1), st.integers(1, 12))
def test_bars_keep_the_order_of_what_they_show(values: list[int], rows: int) -> None:
    drawn = bars(values, rows)
    assert len(drawn) == rows
    heights = [sum(EIGHTHS.index(line[column]) for line in drawn) for column in range(len(values))]
    for value, height in zip(values, heights, strict=True):
        assert (height == 0) == (value == 0)
        # An eighth of a row is the least that can be drawn.
        assert abs(height - 8 * rows * value / (max(values) or 1)) <= 1
    for (_, lower), (_, higher) in pairwise(sorted(zip(values, heights, strict=True))):
        assert lower <= higher


def test_a_budget_that_nothing_fits_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "binarynet", "--memory", "1MiB") == BudgetError.exit_code
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: no bnn plan fits 1.0 MiB")
    assert error.count("\n") == 1
