"""The report page: self-contained, escaped, well formed, and right about what it shows."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.config import FleetConfig
from edgetrain.coordinator.app import run as run_app
from edgetrain.coordinator.dashboard.page import render
from edgetrain.coordinator.dashboard.words import as_toml
from edgetrain.coordinator.history import DeviceRecord, RoundRecord
from edgetrain.coordinator.loop import RoundBegun, RoundEnded
from edgetrain.coordinator.simulation.report import SimulationReport
from edgetrain.coordinator.simulation.terminal import ProgressBar
from edgetrain.errors import ConfigError, StorageError
from edgetrain.page.charts import (
    LEAST_RANGE,
    Bar,
    Series,
    bar_rows,
    line_chart,
    nice_ticks,
    whole_ticks,
)

EVIL = "<script>alert('x')</script>&\"$style"
VOID = {"meta", "br"}
FLEET = FleetConfig.from_table(
    {"data": {"path": EVIL}, "device": [{"name": "pi", "memory": "32MiB", "count": 2}]}
)
TRAINER = DeviceRecord(
    "pi-0", "pi", memory=32 << 20, held=100, asked=3, answered=2, examples=200, status="trained",
    reasons={f"failed: {EVIL}": 1}, plan="bnn, 32 at a time", predicted_peak_bytes=17 << 20,
    measured_peak_bytes=16 << 20, joules=4.5, uplink_bytes=3000, downlink_bytes=9000,
)  # fmt: skip
JUDGE = replace(
    TRAINER, name="pi-1", role="evaluate", status="evaluated", reasons={}, accuracy=0.75
)
ROUNDS = tuple(
    RoundRecord(number, 1, 1, 100, 2.0 / number, 0.2 * number, 1.5 / number, 100, 10, 20, 1.0)
    for number in (1, 2, 3)
)


def report(**changes: Any) -> SimulationReport:
    """Return a small report."""
    whole = SimulationReport(
        FLEET.to_table(), ROUNDS, (TRAINER, JUDGE), 1000, 520, seconds=1.5, virtual_seconds=90.0
    )
    return replace(whole, **changes)


class Page(HTMLParser):
    """Reads a page; refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page() -> Page:
    """Return the page of the small report."""
    return Page(render(report()))


def test_tags_close_in_order(page: Page) -> None:
    assert page.open == []
    assert page.tags.count("html") == page.tags.count("main") == 1
    assert page.tags.count("svg") == 2


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    assert not {"script", "img", "link", "iframe", "object", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("src", "href", "action")
        assert not name.startswith("on")
        assert "url(" not in (value or "")
    assert "http" not in render(report()).replace("http-equiv", "")


def test_names_reasons_and_paths_are_escaped(page: Page) -> None:
    assert EVIL not in render(report())
    assert EVIL in page.text
    assert "$" not in render(report()).replace("$style", "")


def test_the_figures_are_there(page: Page) -> None:
    for shown in ("60.0%", "16.00, predicted 17.00 MiB", "75.0% of 100", "1 of 3 tasks", "4.5 J"):
        assert shown in page.text
    assert "7.7 times less than float32" in page.text


def test_every_round_is_a_point_that_says_what_it_is(page: Page) -> None:
    for number in (1, 2, 3):
        assert f"held-out accuracy, round {number}: {20 * number} %" in page.text


def test_a_fleet_in_which_nothing_happened_has_a_page_too() -> None:
    silent = replace(TRAINER, measured_peak_bytes=None, predicted_peak_bytes=None, plan=None)
    empty = Page(render(report(rounds=(), devices=(silent,))))
    assert empty.open == []
    assert "never ran" in empty.text
    assert "No device has judged" in empty.text
    assert Page(render(report(devices=()))).open == []


def test_of_many_devices_the_bars_show_the_worst_of_each_class() -> None:
    many = tuple(
        replace(TRAINER, name=f"pi-{number}", measured_peak_bytes=(10 << 20) + number)
        for number in range(200)
    )
    bars = render(report(devices=many)).split('<div class="bars">')[1].split("</section>")[0]
    assert bars.count('class="row"') == 1
    assert "pi-199" in bars


def test_a_process_over_its_budget_is_painted_as_a_warning() -> None:
    over = replace(TRAINER, measured_peak_bytes=33 << 20)
    text = render(report(devices=(over, JUDGE)))
    assert 'class="fill bad"' in text
    assert "over: pi-0" in Page(text).text
    assert 'class="fill bad"' not in render(report())


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    report().to_html(target)
    assert target.read_text() == render(report())
    with pytest.raises(StorageError, match="cannot write"):
        report().to_html(tmp_path / "missing" / "report.html")


def test_the_configuration_is_shown_as_toml_that_makes_the_fleet_again() -> None:
    assert FleetConfig.from_table(tomllib.loads(as_toml(FLEET.to_table()))) == FLEET


@given(low=st.floats(-1e6, 1e6), size=st.floats(0, 1e6), count=st.integers(2, 10))
def test_ticks_are_round_cover_the_values_and_are_few(low: float, size: float, count: int) -> None:
    ticks = nice_ticks(low, low + size, count)
    assert ticks == sorted(set(ticks))
    slack = 2 * LEAST_RANGE * max(1.0, abs(low), size)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + size - slack
    assert 2 <= len(ticks) <= 2 * count + 2


@given(st.integers(1, 1000), st.integers(1, 5000))
def test_rounds_on_the_axis_are_whole_and_begin_with_the_first(first: int, count: int) -> None:
    ticks = whole_ticks(first, first + count)
    assert ticks[0] == first
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 8
    assert ticks[-1] <= first + count


@given(st.lists(st.floats(-1e3, 1e3), max_size=80))
def test_any_line_can_be_drawn(values: list[float]) -> None:
    points = list(enumerate(values))
    drawn = line_chart([Series(EVIL, "a", points)], title=EVIL, y_format="{:.1f}".format)
    assert Page(drawn).open == []
    assert "<script" not in drawn


@given(st.lists(st.tuples(st.text(), st.none() | st.floats(0, 1e9)), max_size=5))
def test_any_bars_can_be_drawn(rows: list[tuple[str, float | None]]) -> None:
    bars = [Bar(label, value, mark=value, limit=value, note=label) for label, value in rows]
    assert Page(bar_rows(bars)).open == []


def test_the_terminal_tells_result_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    report().print()
    shown = capsys.readouterr().out
    assert "60.0% on held-out devices after 3 rounds" in shown
    assert "pi-0, once: failed: " in shown


def test_without_a_terminal_progress_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        for number in range(1, 101):
            bar.hear(RoundBegun(number, 100, 2))
            bar.hear(RoundEnded(RoundRecord(number, accuracy=0.5), 100))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 11
    assert "round 100/100: accuracy 50.0%" in captured.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fleet": "x"}, "run-config lacks checkpoints"),
        ({"checkpoints": "x"}, "run-config lacks fleet"),
        ({"fleet": "x", "checkpoint": "y"}, "no key 'checkpoint': did you mean 'checkpoints'"),
        ({"fleet": "nowhere.toml", "checkpoints": "y"}, "cannot read nowhere.toml"),
    ],
)
def test_a_server_app_without_its_settings_says_which(
    settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_app(None, settings)  # type: ignore[arg-type]


def test_the_page_says_how_reports_were_gathered() -> None:
    assert "Synchronous: a round waited for the devices that it asked." in render(report())
    training = {**FLEET.to_table()["training"], "aggregation": "buffered", "buffer": 7}
    rounds = tuple(replace(one, reported=7, stale=2) for one in ROUNDS)
    page = render(report(fleet={**FLEET.to_table(), "training": training}, rounds=rounds))
    assert "every 7 reports made a version; 6 of 21 reports began with an older one." in page
    assert "of them late" in page
