"""`edgetrain bench roofline`: limits, phases, and shares that agree with the plan's arithmetic."""

from __future__ import annotations

import json
import math
import os
import struct

import pytest
from typer.testing import CliRunner

from edgetrain import _native
from edgetrain.bench import cli
from edgetrain.bench.networks import find_network
from edgetrain.bench.ours import examples
from edgetrain.bench.roofline import PHASES, Limits, Roofline, report, roofline, step_times
from edgetrain.errors import ConfigError
from edgetrain.planner import Plan, plan
from edgetrain.train import Trainer

BATCH = 4
NETWORK = "har_cnn"
LIMITS = Limits(int8_dot=1e9, popcount=4e9)
SMALL = plan(find_network(NETWORK), BATCH)
PRODUCTS = [
    BATCH * pixels * inputs * outputs
    for pixels, inputs, outputs in (
        (64, 7 * 6, 64),
        (64, 7 * 64, 64),
        (32, 7 * 64, 128),
        (1, 16 * 128, 7),
    )
]
"""Of a layer's forward pass, and of either gradient; the first has no gradient of its input."""
ROUNDING = 1e-9
"""Relative: sums of a few doubles in another order."""


def profile_of(chosen: Plan) -> bytes:
    """Return one profile of a plan."""
    engine = _native.Engine(chosen.program(), 0, "")
    x, y = examples(chosen.model, BATCH)
    return engine.profile(x, False, y, struct.pack(f"<{BATCH}I", *range(BATCH)))


def spent(layers: int, **milliseconds: int) -> bytes:
    """Return a profile whose layers all spent the same."""
    phases = [1_000_000 * milliseconds.get(phase, 0) for phase in PHASES]
    return struct.pack(f"<{layers * len(PHASES)}Q", *phases * layers)


def judged(times: dict[str, float]) -> Roofline:
    """Hold times against limits that no machine has."""
    return report(SMALL, LIMITS, times, network=NETWORK, isa="any", steps=1)


@pytest.mark.parametrize("isa", _native.supported_isas())
def test_both_limits_are_measured_and_bits_are_faster(isa: str) -> None:
    dot, popcount = _native.limits(isa, 1)
    assert 0 < dot < popcount < math.inf


def test_a_profile_has_every_phase_of_every_layer() -> None:
    blocks = list(SMALL.model.blocks())
    times = step_times(profile_of(SMALL), 1, 1e9)
    for block in blocks:
        for phase in ("forward", "norm", "gradients"):
            assert times[f"{block.index}.{phase}"] > 0
    assert times["0.input_gradient"] == 0


def test_a_profiled_step_moves_no_weight() -> None:
    trainer = Trainer(SMALL, seed=3)
    before = trainer.state()
    x, y = examples(SMALL.model, BATCH)
    trainer._engine.profile(x, False, y, struct.pack(f"<{BATCH}I", *range(BATCH)))
    after = trainer.state()
    assert {name: after[name].data for name in after} == {
        name: before[name].data for name in before
    }


def test_nested_phases_are_taken_apart_and_the_rest_is_what_no_phase_has() -> None:
    raw = spent(2, forward=10, forward_norm=8, backward_norm=1, input_gradient=3, gradients=7)
    times = step_times(raw, 2, 50.0)
    # Two threads spent 8 ms on norms, side by side.
    assert times["1.forward"] == pytest.approx(6, rel=ROUNDING)
    assert times["1.norm"] == pytest.approx(5, rel=ROUNDING)
    assert times["1.gradients"] == pytest.approx(4, rel=ROUNDING)
    assert times["rest"] == pytest.approx(50 - 2 * 18, rel=ROUNDING)


@pytest.mark.parametrize("apart", [0, 2])
def test_operations_are_those_of_the_plan_and_shares_follow(apart: int) -> None:
    layers = sum(1 for _ in SMALL.model.blocks())
    times = step_times(spent(layers, forward=1, input_gradient=apart, gradients=4), 1, 100.0)
    found = judged(times)
    products = [row for row in found.rows if row.limit is not None]
    assert sum(row.operations for row in products) == 3 * sum(PRODUCTS) - PRODUCTS[0]
    assert sum(row.ms for row in found.rows) == pytest.approx(100.0, rel=ROUNDING)
    for row in products:
        assert row.limit is not None
        rate = row.operations / row.ms * 1e3
        assert row.share == pytest.approx(rate / LIMITS.of(row.limit), rel=ROUNDING)
    ideal = sum(row.operations / LIMITS.of(row.limit) for row in products if row.limit)
    assert found.share == pytest.approx(ideal / 0.1, rel=ROUNDING)
    names = {row.phase for row in products}
    assert ("input gradient" in names) == bool(apart)


def test_bits_meet_the_popcount_limit_and_bytes_the_int8_one() -> None:
    times = step_times(spent(4, forward=1, gradients=4), 1, 100.0)
    forward = [row.limit for row in judged(times).rows if row.phase == "forward"]
    assert forward == ["int8_dot", "popcount", "popcount", "int8_dot"]


def test_the_command_prints_json() -> None:
    options = ["roofline", "mlp", "--batch", "8", "--seconds", "0", "--mode", "fsb", "--json", "-"]
    done = CliRunner().invoke(cli.app, options)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["network"], found["mode"], found["batch"]) == ("mlp", "fsb", 8)
    assert found["isa"] == os.environ.get("EDGETRAIN_ISA", _native.supported_isas()[-1])
    assert found["share"] > 0
    assert found["limits"]["int8_dot"] > 0


def test_the_command_prints_a_table() -> None:
    done = CliRunner().invoke(cli.app, ["roofline", NETWORK, "--batch", "8", "--seconds", "0"])
    assert done.exit_code == 0, done.output
    for word in ("conv1d 64", "popcount", "whole step", "%"):
        assert word in done.stdout


def test_an_unknown_network_or_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="har_cnn"):
        roofline("har_cn")
    with pytest.raises(ConfigError, match="choose bnn or fsb"):
        roofline("mlp", mode="int8")  # type: ignore[arg-type]
