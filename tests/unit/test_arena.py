"""Tensors that live at once never overlap, and the arena wastes little."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgetrain.arena import ALIGNMENT, Tensor, lower_bound, place
from edgetrain.models import mlp
from edgetrain.planner import plan

# What the engine's documentation promises for its plans.
LARGEST_WASTE = 0.03


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    """Return tensors with names of their own and lives within ten steps."""
    lives = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 5000))
    return [
        Tensor(f"t{number}", size, min(one, other), max(one, other))
        for number, (one, other, size) in enumerate(draw(st.lists(lives, max_size=20)))
    ]


@given(tensors())
def test_no_two_that_live_at_once_overlap(given_tensors: list[Tensor]) -> None:
    placed = place(given_tensors)
    assert [placement.tensor for placement in placed] == given_tensors
    for number, one in enumerate(placed):
        assert one.offset % ALIGNMENT == 0
        assert one.end >= one.offset + one.tensor.bytes
        for other in placed[number + 1 :]:
            if one.tensor.meets(other.tensor):
                assert one.end <= other.offset or other.end <= one.offset


@given(tensors())
def test_the_arena_lies_between_its_bounds(given_tensors: list[Tensor]) -> None:
    size = max((placement.end for placement in place(given_tensors)), default=0)
    assert lower_bound(given_tensors) <= size <= sum(tensor.room for tensor in given_tensors)


def test_plans_of_real_models_waste_little() -> None:
    for hidden in ((256,), (256,) * 4, (1024, 64, 512)):
        for mode in ("bnn", "fsb"):
            for batch in (2, 32, 100):
                chosen = plan(mlp(784, 10, hidden), batch, mode)  # type: ignore[arg-type]
                assert chosen.peak_bytes <= (1 + LARGEST_WASTE) * chosen.lower_bound_bytes
