"""What `edgetrain plan` shows: the layers of a plan, and its arena over time, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgetrain.model import Block
from edgetrain.planner import Plan
from edgetrain.sizes import format_size
from edgetrain.timeline import PURPOSES, Moment, Owner, peak, timeline

__all__ = ["bars", "print_plan"]

EIGHTHS = " ▁▂▃▄▅▆▇█"
ROWS = 8
SCALE = 11
"""Columns of a chart's scale: a size and a tick."""
WIDEST_STEP = 3
TWICE = " ×2"
THRICE = " ×3"


def print_plan(plan: Plan, console: Console) -> None:
    """Print the layers, how much is alive at each step, and the plan's choices."""
    moments = timeline(plan)
    console.print(layer_table(plan, moments))
    console.print(chart(moments, console.width))
    console.print(plan.summary(), soft_wrap=True)


def print_larger(plan: Plan, larger: Sequence[Plan], allowed: int, console: Console) -> None:
    """Print how much of the memory allowed is left, and the plans that it is too little for."""
    spare = format_size(allowed - plan.peak_bytes)
    console.print(f"{format_size(allowed)} allowed for the arena, {spare} to spare")
    if not larger:
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("does not fit", no_wrap=True)
    table.add_column("arena", justify="right", no_wrap=True)
    table.add_column("more needed", justify="right", no_wrap=True)
    for other in larger:
        again = f", {other.recomputed} tensors made again" if other.recomputed else ""
        more = format_size(other.peak_bytes - allowed)
        table.add_row(
            f"micro-batch {other.micro_batch}{again}", format_size(other.peak_bytes), more
        )
    console.print(table)


def layer_table(plan: Plan, moments: Sequence[Moment]) -> Table:
    """Return the most that each layer holds at once, by purpose, and what it holds at the peak."""
    worst = peak(moments)
    unit, factor = ("MiB", 2**20) if worst.bytes >= 2**20 else ("KiB", 2**10)

    def shown(sizes: Iterable[int]) -> Iterator[str]:
        return (f"{size / factor:.2f}" if size else "" for size in sizes)

    title = f"the most that a layer holds at once, {unit}"
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_footer=True,
        title=title,
        title_justify="left",
    )
    table.add_column("layer", no_wrap=True, footer="at the peak")
    at_the_peak = [*map(worst.used, PURPOSES), worst.bytes]
    for name, footer in zip((*PURPOSES, "at peak"), shown(at_the_peak), strict=True):
        table.add_column(name, justify="right", no_wrap=True, footer=footer)
    names = {None: "input"} | {block.index: layer_name(block) for block in plan.model.blocks()}
    for layer, name in names.items():
        owners = [Owner(layer, purpose) for purpose in PURPOSES]
        most = [max(moment.alive.get(owner, 0) for moment in moments) for owner in owners]
        again = [mark for mark, _, layers in recomputed(plan) if layer in layers]
        table.add_row(name + "".join(again), *shown([*most, worst.held(layer)]))
    table.caption = "; ".join(f"{mark.strip()}: {what}" for mark, what, _ in recomputed(plan))
    table.caption_justify = "left"
    return table


def recomputed(plan: Plan) -> list[tuple[str, str, frozenset[int]]]:
    """Return a mark, what it stands for and the layers, for all that is made more than once."""
    ways = (
        (TWICE, "the gradient of its output is made twice", plan.remade),
        (THRICE, "its sums are made three times", plan.streamed),
    )
    return [way for way in ways if way[2]]


def layer_name(block: Block) -> str:
    """Return a layer's number, its kind and how many outputs it has."""
    return f"{block.index} {block.weights.name} {block.weights.outputs}"


def chart(moments: Sequence[Moment], width: int) -> Text:
    """Return the bytes that are alive at each step as an area, and the name of the peak."""
    worst = peak(moments)
    columns = columns_of(moments, width - SCALE)
    first = columns.index(max(columns))
    beyond = first + columns.count(columns[first])
    text = Text("alive at each step\n")
    for row, cells in enumerate(bars(columns, ROWS)):
        scale = format_size(worst.bytes * (ROWS - row) / ROWS) if row % 2 == 0 else ""
        text.append(f"{scale:>{SCALE - 2}} ┤" if scale else " " * (SCALE - 1) + "│")
        text.append(cells[:first], "cyan")
        text.append(cells[first:beyond], "bold red")
        text.append(cells[beyond:] + "\n", "cyan")
    text.append(" " * (SCALE - 1) + "└" + "─" * len(columns) + "\n")
    text.append(" " * SCALE + passes(moments, len(columns)) + "\n")
    text.append(f"peak {format_size(worst.bytes)} ", "bold red")
    text.append(f"at step {worst.step}: {worst.name}\n")
    return text


def columns_of(moments: Sequence[Moment], width: int) -> list[int]:
    """Return the bytes of each column of a chart: a step takes several, or shares one."""
    sizes = [moment.bytes for moment in moments]
    wide = min(WIDEST_STEP, width // len(sizes))
    if wide:
        return [size for size in sizes for _ in range(wide)]
    edges = [len(sizes) * column // width for column in range(width + 1)]
    return [max(sizes[first:last]) for first, last in pairwise(edges)]


def passes(moments: Sequence[Moment], columns: int) -> str:
    """Return a line that says where the forward and the backward pass begin."""
    line = ""
    for word, start in (("forward", "forward"), ("backward", "norm")):
        step = next(moment.step for moment in moments if moment.name.startswith(start))
        line += " " * max(step * columns // len(moments) - len(line), bool(line)) + word
    return line


def bars(values: Sequence[float], rows: int) -> list[str]:
    """Return the values as bars of blocks, so many rows high, the top row first.

    The largest fills them all; nothing but 0 is drawn as nothing.
    """
    full = max(values) or 1
    eighths = [max(round(8 * rows * value / full), 1 if value else 0) for value in values]
    return [
        "".join(EIGHTHS[min(max(height - 8 * row, 0), 8)] for height in eighths)
        for row in reversed(range(rows))
    ]
