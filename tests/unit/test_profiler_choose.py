"""Choosing: what is promised fits, what teaches most is taken, and every other has a reason."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.errors import BudgetError, ConfigError, ModelError
from edgetrain.freeze import freeze
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.choose import MODES, Choice, choose
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import estimate
from edgetrain.memory_profiler.learning import layers_taught
from edgetrain.memory_profiler.variants import Space, Variant, describe, summarise
from edgetrain.model import Model
from edgetrain.models import MODELS, mlp
from edgetrain.ops import BatchNorm, Linear, Sign, SoftmaxCrossEntropy
from edgetrain.ops.weights import LATENTS
from edgetrain.planner import Plan, plan
from edgetrain.sizes import format_size, parse_size

BATCH = 16
BASE = 8 * 2**20
DEVICE = Device("pi", threads=2, base_bytes=BASE, examples_per_second=1000, watts=2)
MODEL = MODELS["har_cnn"]()
SPACE = Space.of(
    MODEL, BATCH, DEVICE.threads, modes=MODES, latents=("int8", "int4"), fewest_trained=1
)
WIDE = mlp(784, 10, (256, 256, 256))
LAPTOP = Device("laptop", base_bytes=BASE, operations_per_second=1e9, watts=2)
SAME = 1e-12
"""Learning is a product of the same few floats, in whichever order."""


def planned(variant: Variant) -> Plan:
    """Return a variant's plan."""
    return plan(
        freeze(MODEL, variant.frozen),
        BATCH,
        variant.mode,
        latent=variant.latent,
        micro_batch=variant.micro_batch,
        threads=variant.threads,
        recompute="always" if variant.recompute else "never",
    )


def exists(variant: Variant) -> bool:
    """Return whether a variant has a plan of its own."""
    # With all but the last layer frozen, which is int8, there are no latents of four bits.
    return variant.latent == "int8" or variant.frozen < 3


EVERY = {
    variant: compiled
    for variant in filter(exists, SPACE.variants())
    if (compiled := planned(variant)).recomputed or not variant.recompute
}
UPPER = {variant: estimate(chosen, DEVICE).memory.high for variant, chosen in EVERY.items()}
TAUGHT = {
    variant: layers_taught(chosen.model, variant.mode, variant.latent, variant.micro_batch)
    for variant, chosen in EVERY.items()
}


def chosen(budget: Budget, **options: Any) -> Choice:
    """Return the choice among EVERY."""
    return choose(MODEL, budget, DEVICE, batch=BATCH, latents=("int8", "int4"), **options)


budgets = st.integers(int(min(UPPER.values())) + 1, int(max(UPPER.values())) + 1)


def test_with_room_for_all_nothing_is_given_up() -> None:
    best = chosen(Budget()).plan
    assert (best.mode, best.latent, best.micro_batch, best.threads) == ("bnn", "int8", BATCH, 2)
    assert best.model == MODEL
    assert not best.recomputed


@settings(max_examples=12)
@given(budgets)
def test_nothing_that_fits_teaches_more_or_as_much_for_less(memory: int) -> None:
    """The search skips what cannot fit and what cannot win; looking at all of it finds the same."""
    choice = chosen(Budget(memory=memory))
    assert choice.estimate.memory.high <= memory
    fitting = [variant for variant in EVERY if UPPER[variant] <= memory]
    most = max(TAUGHT[variant] for variant in fitting)
    assert choice.layers_taught == pytest.approx(most, rel=SAME)
    alike = [EVERY[v] for v in fitting if TAUGHT[v] == pytest.approx(most, rel=SAME)]
    costs = [estimate(other, DEVICE).energy for other in alike]
    assert choice.cost == min(cost.middle for cost in costs if cost is not None)


@settings(max_examples=8)
@given(budgets)
def test_every_plan_is_chosen_or_counted_once_with_a_reason(memory: int) -> None:
    choice = chosen(Budget(memory=memory))
    total = 1 + sum(other.plans for other in choice.rejected)
    # A variant whose recomputing makes no other plan may be counted before anybody looks.
    assert len(EVERY) <= total <= len(list(SPACE.variants()))
    table = choice.explain()
    for other in choice.rejected:
        assert other.plans == 1 or other.fits is not True
        assert bool(other.cures) == (
            other.fits is False and "no layer is trained" not in other.reason
        )
        assert other.plan in table
        assert other.explain() in table


@settings(max_examples=8)
@given(budgets)
def test_what_is_said_to_make_a_plan_fit_does_and_nothing_cheaper_would(memory: int) -> None:
    names = {describe([variant], BATCH): variant for variant in EVERY}
    for other in chosen(Budget(memory=memory)).rejected:
        if not other.cures or other.plans > 1:
            continue
        variant = names[other.plan]
        missing = UPPER[variant] - memory
        assert other.cures[-1] == f"allow {format_size(missing)} of memory"
        cures = list(single_changes(variant, memory))
        assert len(other.cures) == 1 + len(cures)
        if cures:
            assert TAUGHT[names_after(other.cures[0], variant)] == max(TAUGHT[c] for c in cures)


def single_changes(variant: Variant, memory: int) -> list[Variant]:
    """Return the nearest change of each field, one at a time, with which a plan fits."""
    nearest = []
    for _, others in SPACE.changes(variant):
        fitting = [other for other in others if other in EVERY and UPPER[other] <= memory]
        nearest += fitting[:1]
    return nearest


def names_after(cure: str, variant: Variant) -> Variant:
    """Return the variant that a cure asks for."""
    number = int(found[0]) if (found := re.findall(r"\b\d+\b", cure)) else 0
    if cure.startswith("micro-batch"):
        return replace(variant, micro_batch=number)
    if cure.endswith("frozen"):
        return replace(variant, frozen=number)
    if "thread" in cure:
        return replace(variant, threads=number)
    if cure == "recomputing":
        return replace(variant, recompute=True)
    return replace(variant, **{"mode": "fsb"} if "mode" in cure else {"latent": "int4"})


def test_kinds_of_plans_that_cannot_fit_are_told_by_their_leanest() -> None:
    least = min(UPPER.values())
    whole = [o for o in chosen(Budget(memory=int(least) + 1)).rejected if o.plans > 1]
    told = [other for other in whole if other.cures]
    assert told
    assert all(f"even with {other.plan.split(',')[0]}, 2 of 16" in other.reason for other in told)


def joules(frozen: int, examples: int) -> float:
    """Return what training WIDE may use at most on LAPTOP, its lowest layers frozen."""
    energy = estimate(plan(freeze(WIDE, frozen), BATCH), LAPTOP, examples=examples).energy
    assert energy is not None
    return energy.high


def test_freezing_is_cheaper_for_a_joule_but_wins_only_where_they_run_short() -> None:
    layers = sum(1 for _ in WIDE.blocks())
    # Each joule would teach more layers if the lowest were frozen.
    assert (layers - 1) / joules(1, 1000) > layers / joules(0, 1000)
    options: dict[str, Any] = {"batch": BATCH, "examples": 1000}
    roomy = choose(WIDE, Budget(energy=joules(0, 1000)), LAPTOP, **options)
    assert roomy.plan.model == WIDE
    short = choose(WIDE, Budget(energy=joules(1, 1000)), LAPTOP, **options)
    assert short.plan.model.lowest_trained == 1
    with pytest.raises(BudgetError):
        choose(WIDE, Budget(energy=joules(1, 1000)), LAPTOP, fewest_trained=None, **options)


def test_a_round_that_may_end_early_trains_on_all_that_is_sure_to_be_allowed() -> None:
    # At 1000 examples a second and 2 W, a quarter of uncertainty: 0.0025 J an example at most.
    with pytest.raises(BudgetError, match="ask for 192 of 10,000 examples"):
        chosen(Budget(energy=0.5), examples=10_000)
    part = chosen(Budget(energy=0.5), examples=10_000, partial=True)
    assert part.estimate.energy is not None
    assert part.estimate.energy.high <= 0.5
    assert part.estimate.examples == 192
    assert "192 of the 10,000 examples" in part.explain()
    more = estimate(part.plan, DEVICE, examples=192 + part.plan.micro_batch).energy
    assert more is not None
    assert more.high > 0.5
    whole = chosen(Budget(energy=50), examples=10_000, partial=True)
    assert whole.estimate.examples == 10_000


def test_a_partial_round_freezes_where_that_teaches_more_in_all() -> None:
    budget = Budget(energy=joules(1, 5000))
    options: dict[str, Any] = {"batch": BATCH, "examples": 5000, "partial": True}
    choice = choose(WIDE, budget, LAPTOP, **options)
    kept = choose(WIDE, budget, LAPTOP, fewest_trained=None, **options)
    assert choice.plan.model.lowest_trained > 0
    assert kept.estimate.examples < 5000
    worth = [c.layers_taught * c.estimate.examples for c in (choice, kept)]
    assert worth[0] > worth[1]


def test_what_stands_for_joules_is_said() -> None:
    costs = {
        "joules": DEVICE,
        "seconds": replace(DEVICE, watts=None),
        "operations": replace(DEVICE, watts=None, examples_per_second=None),
    }
    for unit, device in costs.items():
        choice = choose(MODEL, Budget(), device, batch=BATCH)
        assert choice.cost_unit == unit
        assert f" {unit}" in choice.objective()
        assert ("they stand for joules" in choice.objective()) == (unit != "joules")


def test_a_choice_is_the_same_every_time() -> None:
    budget = Budget(memory=int(sorted(UPPER.values())[len(UPPER) // 2]), energy=1.0)
    assert chosen(budget) == chosen(budget)


def test_what_is_not_left_open_is_not_searched() -> None:
    memory = int(UPPER[Variant("bnn", "int8", 0, 4, 1, recompute=False)]) + 1
    choice = choose(
        MODEL, Budget(memory=memory), DEVICE,
        batch=BATCH, modes=("bnn",), latents=("int8",), fewest_trained=None,
    )  # fmt: skip
    assert choice.plan.model == MODEL
    assert (choice.plan.mode, choice.plan.latent) == ("bnn", "int8")
    assert not re.search("fsb|int4|frozen", choice.explain())
    for fewest in (0, 5):
        with pytest.raises(ModelError, match="choose 1 to 4, or all"):
            choose(MODEL, Budget(), DEVICE, batch=BATCH, fewest_trained=fewest)


def test_the_device_limits_memory_as_the_budget_does() -> None:
    least = int(min(UPPER.values()))
    tight = Device("pi", memory=least + 1, threads=2, base_bytes=BASE)
    assert choose(MODEL, Budget(), tight, batch=BATCH).estimate.memory.high <= least + 1
    with pytest.raises(BudgetError):
        choose(MODEL, Budget(memory=least - 1), tight, batch=BATCH)


def test_when_nothing_fits_the_error_names_the_smallest_and_what_it_lacks() -> None:
    missing = 100 * 1024
    smallest = min(UPPER, key=UPPER.__getitem__)
    allowed = int(UPPER[smallest]) - missing
    with pytest.raises(BudgetError) as caught:
        chosen(Budget(memory=allowed))
    message = str(caught.value)
    assert summarise(EVERY[smallest]) in message
    assert "'pi'" in message
    assert format_size(missing) in message
    assert format_size(allowed) in message
    assert "\n" not in message


def test_energy_and_time_are_held_against_their_upper_bounds() -> None:
    # 64 examples at 1000 a second and 2 W, a quarter of uncertainty: at most 0.08 s and 0.16 J.
    assert chosen(Budget(energy=0.161, seconds=0.081), examples=64).plan.threads == 2
    rejected = chosen(Budget(seconds=0.081), examples=64).rejected
    slow = [other for other in rejected if "1 thread" in other.plan and other.plans == 1]
    assert slow
    assert all("seconds may reach 0.16 s" in other.reason for other in slow)
    assert all("32 of the 64 examples" in other.cures for other in slow)
    with pytest.raises(BudgetError, match=r"energy may reach 0\.16 J, 0\.01 J over"):
        chosen(Budget(energy=0.15), examples=64)


@pytest.mark.parametrize("budget", [Budget(seconds=1), Budget(energy=1)])
def test_a_limit_that_nothing_can_be_held_against_is_refused(budget: Budget) -> None:
    with pytest.raises(ConfigError, match="nobody knows"):
        choose(MODEL, budget, Device("pi", base_bytes=BASE))


def test_a_way_that_cannot_train_the_model_is_a_reason_not_a_crash() -> None:
    device = Device("pi", base_bytes=BASE)
    untrainable = Model(16, (Linear(10, "auto", 32), BatchNorm(), SoftmaxCrossEntropy()))
    assert choose(untrainable, Budget(), device, batch=8).plan.mode == "bnn"
    with pytest.raises(ModelError, match="trains nothing"):
        choose(untrainable, Budget(), device, batch=8, modes=("fsb",))
    with pytest.raises(ModelError, match="no mode"):
        choose(untrainable, Budget(), device, batch=8, modes=())
    layers = (Linear(32, "int8"), BatchNorm(), Sign(), Linear(2, "int8"), BatchNorm())
    whole = Model(16, (*layers, SoftmaxCrossEntropy()))
    choice = choose(whole, Budget(), device, batch=8, latents=("int4", "int8"))
    assert choice.plan.latent == "int8"
    refused = [o.reason for o in choice.rejected if o.fits is False]
    assert refused == ["no layer is trained as bnn, so none has int4 latents: choose int8"]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_of_one_or_two_is_a_batch(batch: int) -> None:
    device = Device("pi", base_bytes=BASE)
    assert choose(mlp(8, 2, (4,)), Budget(), device, batch=batch).plan.micro_batch == batch


def test_gradients_are_made_twice_before_the_micro_batch_shrinks() -> None:
    model = MODELS["cnv"]()
    once = plan(model, 32, micro_batch=32)
    twice = plan(model, 32, micro_batch=32, recompute="always")
    needs = [estimate(each, DEVICE).memory.high for each in (once, twice)]
    budget = Budget(memory=int(sum(needs) / 2))
    lean = choose(model, budget, DEVICE, batch=32, modes=("bnn",)).plan
    assert lean.recomputed
    assert lean.micro_batch == 32
    assert not choose(model, Budget(), DEVICE, batch=32, modes=("bnn",)).plan.recomputed


@pytest.mark.parametrize("name", MODELS)
def test_no_plan_of_a_kind_takes_less_than_its_leanest(name: str) -> None:
    """What the search takes for granted where it does not look at a kind of plans."""
    model = MODELS[name]()
    lean = plan(model, BATCH, micro_batch=2, recompute="always").peak_bytes
    for size in (2, 4, 8, 16):
        for recompute in ("always", "never"):
            other = plan(model, BATCH, micro_batch=size, threads=2, recompute=recompute)
            assert lean <= other.peak_bytes


def test_an_example_teaches_what_the_norm_leaves_of_it() -> None:
    taught = [layers_taught(MODEL, "bnn", "int8", size) for size in (1, 2, 3, 4, 25, 100)]
    assert taught[:2] == [0, 0]
    assert all(less < more for less, more in pairwise(taught[1:]))
    assert taught[-1] == pytest.approx(4 * 0.98)
    assert layers_taught(freeze(MODEL, 1), "bnn", "int8", 100) == pytest.approx(3 * 0.98)
    for latent in LATENTS:
        assert layers_taught(MODEL, "bnn", latent, 100) <= taught[-1]


def test_binarynet_is_chosen_for_in_a_moment_however_tight() -> None:
    """Planning is most of what choosing costs; whole kinds that cannot fit are not planned."""
    tight = choose(MODELS["binarynet"](), Budget(memory=parse_size("22MiB")), DEVICE)
    assert sum(other.plans == 1 for other in tight.rejected) < 60
    assert sum(other.plans for other in tight.rejected) > 1000
