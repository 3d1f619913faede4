"""A plan's arena as a page: every tensor a block over time and offset, and what is alive when."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from edgetrain.arena import Placement
from edgetrain.page.parts import fill, tile
from edgetrain.planner import Plan
from edgetrain.sizes import format_size
from edgetrain.timeline import PURPOSES, Moment, Purpose, owners, peak, timeline

__all__ = ["render"]

FOLDER = Path(__file__).parent
SCALE_PARTS = 4
LABELLED, UPRIGHT = 0.024, 0.18
"""The shares of the arena from which a block has room for its name, across and upright."""
WIDE = 0.12
"""The share of the steps from which a block has room for its name across."""


def render(plan: Plan, model: str) -> str:
    """Return the page of a plan; model is how its model is called."""
    moments = timeline(plan)
    worst = peak(moments)
    purposes = {name: owner.purpose for name, owner in owners(plan).items()}
    placed = sorted(plan.placements, key=lambda p: (-p.tensor.bytes, p.tensor.name))
    title = escape(f"The arena of {model}")
    parts = {
        "title": title,
        "heading": title,
        "lead": escape(plan.summary()),
        "tiles": "\n".join(tile(*figure) for figure in figures(plan, worst)),
        "blocks": plot("blocks", blocks(placed, purposes, moments), plan.peak_bytes, moments),
        "moments": plot("moments", columns(moments), worst.bytes, moments),
        "legend": legend(),
        "peak": escape(
            f"Most is alive at step {worst.step}, {worst.name}: {format_size(worst.bytes)}."
        ),
        "tensors": tensors(placed, purposes),
    }
    return fill(FOLDER / "arena.html", parts, [FOLDER / "arena.css"])


def figures(plan: Plan, worst: Moment) -> list[tuple[str, str]]:
    """Return the figures that lead the page, each with what it is."""
    over = plan.peak_bytes / plan.lower_bound_bytes - 1
    return [
        (format_size(plan.peak_bytes), f"arena, {over:.1%} over the most alive at once"),
        (f"{plan.micro_batch} of {plan.batch}", "examples at a time"),
        (worst.name, f"the peak, step {worst.step}"),
        (str(plan.recomputed or "none"), "tensors made more than once, never whole"),
        (format_size(worst.used("state")), "weights and all that outlives a step"),
    ]


def plot(kind: str, inside: str, top: int, moments: Sequence[Moment]) -> str:
    """Return a field with a scale of bytes on its left and the passes under it."""
    scale = "".join(
        f'<span style="bottom:{percent(part / SCALE_PARTS)}">'
        f"{format_size(top * part / SCALE_PARTS) if part else '0'}</span>"
        for part in range(SCALE_PARTS + 1)
    )
    starts = {"forward": 1, "backward": next(m.step for m in moments if m.name.startswith("norm"))}
    steps = "".join(
        f'<span style="left:{percent(step / len(moments))}">{word}</span>'
        for word, step in starts.items()
    )
    return (
        f'<div class="plot {kind}"><div class="scale">{scale}</div>'
        f'<div class="field">{inside}</div><div class="steps">{steps}</div></div>'
    )


def blocks(
    placed: Sequence[Placement], purposes: dict[str, Purpose], moments: Sequence[Moment]
) -> str:
    """Return every tensor as a block, the largest first."""
    top = max(placement.end for placement in placed)
    return "\n".join(
        block(number, placement, purposes[placement.tensor.name], top, len(moments))
        for number, placement in enumerate(placed)
    )


def block(number: int, placement: Placement, purpose: Purpose, top: int, steps: int) -> str:
    """Return one tensor's block, which leads to its row in the table."""
    tensor = placement.tensor
    width = (min(tensor.last, steps - 1) - tensor.first + 1) / steps
    height = tensor.room / top
    label = ""
    if height >= LABELLED and width >= WIDE:
        label = f"<span>{escape(tensor.name)}, {format_size(tensor.bytes)}</span>"
    elif height >= UPRIGHT:
        label = f'<span class="upright">{escape(tensor.name)}</span>'
    place = (
        f"left:{percent(tensor.first / steps)};width:{percent(width)};"
        f"bottom:{percent(placement.offset / top)};height:{percent(height)}"
    )
    tip = escape(
        f"{tensor.name} ({purpose}): {tensor.bytes:,} bytes at {placement.offset:,}, "
        f"steps {tensor.first} to {tensor.last}"
    )
    return (
        f'<a class="block {purpose}" id="block{number}" href="#tensor{number}" title="{tip}" '
        f'style="{place}">{label}</a>'
    )


def columns(moments: Sequence[Moment]) -> str:
    """Return every step as a column of what is alive, by purpose."""
    worst = peak(moments)
    found = []
    for moment in moments:
        parts = "".join(
            f'<i class="{purpose}" style="height:{percent(size / moment.bytes)}"></i>'
            for purpose in PURPOSES
            if (size := moment.used(purpose))
        )
        tip = escape(f"step {moment.step}, {moment.name}: {moment.bytes:,} bytes")
        place = (
            f"left:{percent(moment.step / len(moments))};width:{percent(1 / len(moments))};"
            f"height:{percent(moment.bytes / worst.bytes)}"
        )
        kind = "moment peak" if moment is worst else "moment"
        found.append(f'<div class="{kind}" title="{tip}" style="{place}">{parts}</div>')
    return "\n".join(found)


def legend() -> str:
    """Return what the colours stand for."""
    keys = "".join(f'<span><i class="key {name}"></i>{name}</span>' for name in PURPOSES)
    return f'<p class="legend">{keys}</p>'


def tensors(placed: Sequence[Placement], purposes: dict[str, Purpose]) -> str:
    """Return the table of all tensors, whose rows lead to their blocks."""
    rows = []
    for number, placement in enumerate(placed):
        tensor = placement.tensor
        life = f"{tensor.first} to {tensor.last}"
        numbers = (f"{tensor.bytes:,}", life, f"{placement.offset:,}")
        rows.append(
            f'<tr id="tensor{number}"><td><a href="#block{number}">{escape(tensor.name)}</a></td>'
            + "".join(f'<td class="number">{text}</td>' for text in numbers)
            + f"<td>{purposes[tensor.name]}</td></tr>"
        )
    heads = "".join(f'<th class="number">{name}</th>' for name in ("bytes", "steps", "offset"))
    body = "\n".join(rows)
    return (
        f"<table><thead><tr><th>tensor</th>{heads}<th>for</th></tr></thead>"
        f"<tbody>\n{body}\n</tbody></table>"
    )


def percent(share: float) -> str:
    """Return a share as CSS writes it."""
    return f"{100 * share:.3f}%"
