"""The arena as a page: self-contained, escaped, and every tensor where the plan has it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import edgetrain as et
from edgetrain.cli import app
from edgetrain.command import run_command
from edgetrain.errors import StorageError
from edgetrain.freeze import freeze
from edgetrain.models import MODELS
from edgetrain.page.arena import render
from edgetrain.planner import Plan, plan
from edgetrain.timeline import peak, timeline

EVIL = "<script>alert('x')</script>&\"$style"
THOUSANDTH = 1e-3
"""Of a per cent: what the page rounds its lengths to."""
VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page; refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, kind: str) -> list[dict[str, str]]:
        """Return the attributes of the elements of a class."""
        return [a for _, a in self.elements if a.get("class", "").split(" ")[0] == kind]


PLANS = [
    plan(MODELS["cnv"](), 4, recompute="always"),
    plan(freeze(MODELS["cnv"](), 4), 4),
    plan(et.models.mlp(8, 2, (4,)), 4, "fsb"),
]


def lengths(style: str) -> dict[str, float]:
    """Return the lengths of a style, in per cent."""
    return {name: float(value) for name, value in re.findall(r"(\w+):([\d.]+)%", style)}


@pytest.mark.parametrize("chosen", PLANS, ids=str)
def test_every_tensor_is_a_block_at_its_offset_and_time(chosen: Plan) -> None:
    page = Page(render(chosen, "cnv"))
    assert page.open == []
    blocks = {block["title"].split(" ")[0]: block for block in page.of("block")}
    assert len(blocks) == len(page.of("block")) == len(chosen.placements)
    steps = len(timeline(chosen))
    for placement in chosen.placements:
        tensor = placement.tensor
        block = blocks[tensor.name]
        assert f"{tensor.bytes:,} bytes at {placement.offset:,}" in block["title"]
        place = lengths(block["style"])
        last = min(tensor.last, steps - 1)
        expected = {
            "left": tensor.first / steps,
            "width": (last - tensor.first + 1) / steps,
            "bottom": placement.offset / chosen.peak_bytes,
            "height": tensor.room / chosen.peak_bytes,
        }
        assert place == {
            name: pytest.approx(100 * share, abs=THOUSANDTH) for name, share in expected.items()
        }


@pytest.mark.parametrize("chosen", PLANS, ids=str)
def test_every_step_is_a_column_and_the_peak_the_only_one_marked(chosen: Plan) -> None:
    moments = timeline(chosen)
    columns = Page(render(chosen, "cnv")).of("moment")
    assert len(columns) == len(moments)
    marked = [c for c in columns if c["class"] == "moment peak"]
    assert [lengths(c["style"])["height"] for c in marked] == [100]
    assert f"step {peak(moments).step}, {peak(moments).name}" in marked[0]["title"]


def test_links_lead_from_blocks_to_rows_and_back_and_nowhere_else() -> None:
    page = Page(render(PLANS[0], "cnv"))
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert len(links) == 2 * len(PLANS[0].placements)
    assert {link.removeprefix("#") for link in links} == targets


def test_nothing_is_fetched_nothing_runs_and_names_are_escaped() -> None:
    text = render(PLANS[-1], EVIL)
    page = Page(text)
    assert EVIL not in text
    tags = {tag for tag, _ in page.elements}
    assert not {"script", "img", "link", "iframe", "object", "form"} & tags
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert "url(" not in attributes.get("style", "")
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "arena.html"
    with pytest.raises(SystemExit) as caught:
        run_command(app, ["plan", "binarynet", "--memory", "48MiB", "--html", str(path)])
    assert caught.value.code == 0
    assert str(path) in capsys.readouterr().out
    chosen = et.plan(MODELS["binarynet"](), 100, memory="48MiB")
    assert path.read_text(encoding="utf-8") == render(chosen, "binarynet")
    with pytest.raises(SystemExit) as caught:
        run_command(app, ["plan", "mlp", "--html", str(tmp_path / "none" / "arena.html")])
    assert caught.value.code == StorageError.exit_code
