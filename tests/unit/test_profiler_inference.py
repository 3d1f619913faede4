"""Inference reports: four measures that cannot disagree, and a run of the engine behind them."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import edgetrain as et
from edgetrain.errors import ConfigError, DataError, EdgetrainError
from edgetrain.examples import random_examples
from edgetrain.memory_profiler.budget import Interval
from edgetrain.memory_profiler.cli import app
from edgetrain.memory_profiler.energy.meter import open_meter
from edgetrain.memory_profiler.energy.reading import Reading, Source
from edgetrain.memory_profiler.inference import GIVEN, InferenceReport, measure_inference
from edgetrain.memory_profiler.inference_cli import MEASURES
from edgetrain.train import Trainer

ROUNDING = 1e-12
"""Relative: a handful of operations on doubles."""
BATCH = 4
MODEL = et.models.mlp(33, 3, (32,))
POSITIVE = st.floats(1e-6, 1e9)


def exactly(value: float) -> Interval:
    """Return a quantity known exactly."""
    return Interval(value, value)


def measured(inferences: int, seconds: float, joules: float) -> InferenceReport:
    """Return a report of a run whose energy a meter counted."""
    return InferenceReport(inferences, exactly(seconds), exactly(joules), "counter", "package")


def middle(found: Interval | None) -> float:
    """Return a known quantity's value."""
    assert found is not None
    return found.middle


class Clock:
    """A clock that every look moves on by so many seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Meter:
    """A meter of some power over a clock's time, or one that cannot tell."""

    name, scope = "steady", "package"
    source: Source = "counter"

    def __init__(self, clock: Clock, watts: float | None) -> None:
        self.clock, self.watts = clock, watts
        self.begun, self.reads = math.nan, 0

    def obstacle(self) -> str:
        return ""

    def start(self) -> None:
        self.begun = self.clock.now

    def read(self) -> Reading:
        self.reads += 1
        if self.watts is None:
            return Reading.unknown(self.scope, self.name)
        joules = self.watts * (self.clock.now - self.begun)
        bounds = (joules, joules, joules)
        return Reading(*bounds, self.source, self.scope, 1.0, self.name, self.reads)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(et.plan(MODEL, BATCH))


@given(st.integers(1, 10**9), POSITIVE, POSITIVE)
def test_the_measures_agree(inferences: int, seconds: float, joules: float) -> None:
    report = measured(inferences, seconds, joules)
    rate, watts = middle(report.inferences_per_second), middle(report.watts)
    efficiency = middle(report.inferences_per_second_per_watt)
    millijoules = middle(report.millijoules_per_inference)
    assert rate == pytest.approx(inferences / seconds, rel=ROUNDING)
    assert watts == pytest.approx(joules / seconds, rel=ROUNDING)
    assert efficiency == pytest.approx(1000 / millijoules, rel=ROUNDING)
    assert efficiency == pytest.approx(rate / watts, rel=ROUNDING)
    assert millijoules == pytest.approx(1000 * watts / rate, rel=ROUNDING)


@given(st.integers(1, 10**6), *[st.tuples(POSITIVE, POSITIVE).map(sorted)] * 2)
def test_bounds_hold_whatever_lies_within_them(
    inferences: int, seconds: list[float], joules: list[float]
) -> None:
    report = InferenceReport(inferences, Interval(*seconds), Interval(*joules), "sampled", "rail")
    for span in seconds:
        for energy in joules:
            inner = measured(inferences, span, energy)
            for name in MEASURES:
                bounds, value = getattr(report, name), middle(getattr(inner, name))
                assert bounds.low * (1 - ROUNDING) <= value <= bounds.high * (1 + ROUNDING)


@pytest.mark.parametrize(
    ("rate", "watts", "efficiency", "millijoules"),
    [(24.2, 1.5, 16.1, 62.0), (864.0, 864 / 52.6, 52.6, 19.0)],
    ids=["a stick of 1.5 W", "the most efficient board"],
)
def test_rows_of_the_published_comparison_are_reproduced(
    rate: float, watts: float, efficiency: float, millijoules: float
) -> None:
    report = InferenceReport(1000, exactly(1000 / rate)).powered(watts)
    assert middle(report.inferences_per_second_per_watt) == pytest.approx(efficiency, abs=0.05)
    assert middle(report.millijoules_per_inference) == pytest.approx(millijoules, abs=0.05)


def test_what_is_unknown_stays_unknown() -> None:
    timed = InferenceReport(10, exactly(2))
    assert middle(timed.inferences_per_second) == 5
    assert [getattr(timed, name) for name in list(MEASURES)[1:]] == [None] * 3
    counted = InferenceReport(10, None, exactly(2), "counter", "package")
    assert (counted.inferences_per_second, counted.watts) == (None, None)
    assert middle(counted.millijoules_per_inference) == 200
    assert InferenceReport(10).powered(5) == InferenceReport(10)
    # Energy that may have been next to nothing bounds no efficiency.
    coarse = InferenceReport(10, exactly(2), Interval(0, 4), "battery", "system")
    assert coarse.inferences_per_second_per_watt is None
    assert coarse.millijoules_per_inference == Interval(0, 400)


@pytest.mark.parametrize(
    ("inferences", "seconds", "joules", "source"),
    [
        (0, 1, None, "none"),
        (1, 0, None, "none"),
        (1, 1, 1, "none"),
        (1, 1, None, "counter"),
    ],
)
def test_a_run_that_cannot_have_been_is_refused(
    inferences: int, seconds: float, joules: float | None, source: Source
) -> None:
    energy = None if joules is None else exactly(joules)
    with pytest.raises(ConfigError):
        InferenceReport(inferences, exactly(seconds), energy, source)


@pytest.mark.parametrize("watts", [0.0, -1.0, math.nan, math.inf])
def test_a_power_that_cannot_be_is_refused(watts: float) -> None:
    with pytest.raises(ConfigError):
        InferenceReport(1, exactly(1)).powered(watts)


def test_the_engine_runs_until_the_time_is_over(trainer: Trainer) -> None:
    x, y = random_examples(33, 3, 10)
    report = measure_inference(trainer, x, y, 10.0, clock=Clock(1.0))
    assert report.inferences % 10 == 0
    assert report.seconds is not None
    assert report.seconds.low >= 10
    assert report.joules is None
    hasty = measure_inference(trainer, x, y, 1e-9, clock=Clock(1.0))
    assert hasty.inferences == 10


def test_measuring_leaves_the_model_as_it_was(trainer: Trainer) -> None:
    before = trainer.state()
    measure_inference(trainer, *random_examples(33, 3, 10), 1e-6)
    after = trainer.state()
    assert {name: t.data for name, t in after.items()} == {n: t.data for n, t in before.items()}


def test_a_meter_is_started_read_often_and_believed(trainer: Trainer) -> None:
    clock = Clock(0.01)
    meter = Meter(clock, 2.0)
    examples = random_examples(33, 3, BATCH)
    report = measure_inference(trainer, *examples, 1.0, meter=meter, clock=clock)
    assert meter.reads > 5
    assert (report.joules_source, report.joules_scope) == ("counter", "package")
    # The clock moves once between the last reading and the end.
    assert report.watts is not None
    assert report.watts.middle == pytest.approx(2.0, abs=2.0 * 2 * 0.01)


def test_a_meter_that_cannot_tell_leaves_energy_unknown(trainer: Trainer) -> None:
    clock = Clock(0.01)
    report = measure_inference(
        trainer, *random_examples(33, 3, BATCH), 0.1, meter=Meter(clock, None), clock=clock
    )
    assert (report.joules, report.joules_source, report.joules_scope) == (None, "none", "none")


def test_bad_data_and_a_bad_time_are_refused(trainer: Trainer) -> None:
    with pytest.raises(DataError):
        measure_inference(trainer, *random_examples(32, 3, BATCH), 1.0)
    for seconds in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="more than 0"):
            measure_inference(trainer, *random_examples(33, 3, BATCH), seconds)


def test_the_command_prints_json_whose_measures_agree() -> None:
    options = ["inference", "mlp", "--batch", "8", "--seconds", "0.01", "--json"]
    done = CliRunner().invoke(app, [*options, "--watts", "5"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["inferences"] % 8 == 0
    assert found["joules_source"] == GIVEN
    assert found["watts"]["low"] == pytest.approx(5, rel=ROUNDING)
    efficiency = found["inferences_per_second_per_watt"]["low"]
    assert efficiency == pytest.approx(found["inferences_per_second"]["low"] / 5, rel=ROUNDING)
    millijoules = found["millijoules_per_inference"]["high"]
    assert efficiency == pytest.approx(1000 / millijoules, rel=ROUNDING)


def test_the_command_asks_a_meter_that_is_named() -> None:
    options = ["inference", "mlp", "--batch", "8", "--seconds", "0.01", "--meter", "fake"]
    done = CliRunner().invoke(app, [*options, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["joules_source"], found["joules_scope"]) == ("prior", "simulated")
    assert found["watts"]["low"] > 0
    assert "no machine has used it" in CliRunner().invoke(app, options).stdout


@pytest.mark.skipif(open_meter().meter is not None, reason="a meter works on this machine")
def test_the_command_says_what_is_unknown() -> None:
    done = CliRunner().invoke(app, ["inference", "har_cnn", "--batch", "2", "--seconds", "0.01"])
    assert done.exit_code == 0, done.output
    for words in ("inferences/s", "unknown", "--watts", "har_cnn: bnn, 2 of 2"):
        assert words in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--seconds", "0"],
        ["--watts", "-1", "--seconds", "0.01"],
        ["--watts", "5", "--meter", "fake"],
        ["--meter", "prior"],
        ["--meter", "hourglass"],
        ["--threads", "99"],
    ],
)
def test_a_mistake_is_refused(options: list[str]) -> None:
    done = CliRunner().invoke(app, ["inference", "mlp", "--batch", "2", *options])
    assert isinstance(done.exception, EdgetrainError)
