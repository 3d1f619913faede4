"""Choosing: what is promised fits, what is best is taken, and every other plan gets a reason."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.errors import BudgetError, ConfigError, ModelError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.choose import GROUNDS, Choice, choose, summarise
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import estimate
from edgetrain.model import Model
from edgetrain.models import cnv, mlp
from edgetrain.ops import BatchNorm, Linear, SoftmaxCrossEntropy
from edgetrain.ops.op import Mode
from edgetrain.planner import micro_batches, plan
from edgetrain.sizes import format_size

MODEL = mlp(784, 10, (256, 256))
BASE = 8 * 2**20
DEVICE = Device("pi", threads=2, base_bytes=BASE, examples_per_second=1000, watts=2)
BATCH = 64
MODES: tuple[Mode, ...] = ("bnn", "fsb")
EVERY = [
    plan(MODEL, BATCH, mode, micro_batch=size, threads=threads)
    for mode, size, threads in itertools.product(MODES, micro_batches(BATCH), (2, 1))
]
UPPER = sorted(estimate(p, DEVICE).memory.high for p in EVERY)


def chosen(budget: Budget, modes: tuple[Mode, ...] = MODES) -> Choice:
    return choose(MODEL, budget, DEVICE, batch=BATCH, modes=modes)


def test_with_room_for_all_the_whole_batch_in_the_first_mode_on_all_cores_is_taken() -> None:
    best = chosen(Budget()).plan
    assert (best.mode, best.micro_batch, best.threads) == ("bnn", BATCH, 2)
    assert chosen(Budget(), ("fsb", "bnn")).plan.mode == "fsb"


def test_every_plan_is_either_chosen_or_given_a_reason() -> None:
    choice = chosen(Budget(memory=int(UPPER[len(UPPER) // 2])))
    named = sorted([summarise(choice.plan), *(other.plan for other in choice.rejected)])
    assert named == sorted(summarise(p) for p in EVERY)
    assert all(other.reason for other in choice.rejected)
    table = choice.explain()
    for other in choice.rejected:
        assert other.plan in table
        assert other.reason in table


@settings(max_examples=25)
@given(st.integers(int(UPPER[0]) + 1, int(UPPER[-1]) + 1))
def test_what_is_chosen_is_sure_to_fit_and_no_larger_micro_batch_would(memory: int) -> None:
    choice = chosen(Budget(memory=memory))
    assert choice.estimate.memory.high <= memory
    fitting = [p for p in EVERY if estimate(p, DEVICE).memory.high <= memory]
    assert choice.plan.micro_batch == max(p.micro_batch for p in fitting)
    for other in choice.rejected:
        assert other.fits == (other.reason in GROUNDS)
    assert sum(other.fits for other in choice.rejected) == len(fitting) - 1


def test_a_choice_is_the_same_every_time() -> None:
    budget = Budget(memory=int(UPPER[len(UPPER) // 2]), energy=1.0)
    assert chosen(budget) == chosen(budget)


def test_the_device_limits_memory_as_the_budget_does() -> None:
    tight = Device("pi", memory=int(UPPER[0]) + 1, base_bytes=BASE)
    by_device = choose(MODEL, Budget(), tight, batch=BATCH)
    assert by_device.estimate.memory.high <= UPPER[0] + 1
    with pytest.raises(BudgetError):
        choose(MODEL, Budget(memory=int(UPPER[0]) - 1), tight, batch=BATCH)


def test_when_nothing_fits_the_error_names_the_smallest_and_what_it_lacks() -> None:
    missing = 100 * 1024
    smallest = min(EVERY, key=lambda p: estimate(p, DEVICE).memory.high)
    allowed = int(UPPER[0]) - missing
    with pytest.raises(BudgetError) as caught:
        chosen(Budget(memory=allowed))
    message = str(caught.value)
    assert summarise(smallest) in message
    assert "'pi'" in message
    assert format_size(missing) in message
    assert format_size(allowed) in message
    assert "\n" not in message


def test_energy_and_time_are_held_against_their_upper_bounds() -> None:
    # 64 examples at 1000 a second and 2 W, a quarter of uncertainty: at most 0.08 s and 0.16 J.
    assert chosen(Budget(energy=0.161, seconds=0.081)).plan.threads == 2
    slow = [o for o in chosen(Budget(seconds=0.081)).rejected if o.plan.endswith("1 thread")]
    assert slow
    assert all("seconds may reach 0.16 s" in o.reason for o in slow)
    with pytest.raises(BudgetError, match=r"energy may reach 0\.16 J, 0\.01 J over"):
        chosen(Budget(energy=0.15))


@pytest.mark.parametrize("budget", [Budget(seconds=1), Budget(energy=1)])
def test_a_limit_that_nothing_can_be_held_against_is_refused(budget: Budget) -> None:
    with pytest.raises(ConfigError, match="nobody knows"):
        choose(MODEL, budget, Device("pi", base_bytes=BASE))


def test_a_mode_that_cannot_train_the_model_is_a_reason_not_a_crash() -> None:
    narrow = Model(784, (Linear(10, "auto", 32), BatchNorm(), SoftmaxCrossEntropy()))
    device = Device("pi", base_bytes=BASE)
    assert choose(narrow, Budget(), device, batch=8).plan.mode == "bnn"
    untrainable = Model(16, (Linear(10, "auto", 32), BatchNorm(), SoftmaxCrossEntropy()))
    choice = choose(untrainable, Budget(), device, batch=8)
    assert [o.plan for o in choice.rejected if "trains nothing" in o.reason] == ["fsb, any"]
    with pytest.raises(ModelError, match="trains nothing"):
        choose(untrainable, Budget(), device, batch=8, modes=("fsb",))
    with pytest.raises(ModelError, match="no mode"):
        choose(untrainable, Budget(), device, batch=8, modes=())


def test_a_batch_of_one_is_a_batch() -> None:
    device = Device("pi", base_bytes=BASE)
    assert choose(MODEL, Budget(), device, batch=1).plan.micro_batch == 1


def test_gradients_are_made_twice_before_the_micro_batch_shrinks() -> None:
    model = cnv()
    once = plan(model, 32, "bnn", micro_batch=32)
    twice = plan(model, 32, "bnn", micro_batch=32, recompute="always")
    needs = [estimate(each, DEVICE).memory.high for each in (once, twice)]
    budget = Budget(memory=int(sum(needs) / 2))
    chosen_plan = choose(model, budget, DEVICE, batch=32, modes=("bnn",)).plan
    assert chosen_plan.remade
    assert chosen_plan.micro_batch == 32
    roomy = choose(model, Budget(), DEVICE, batch=32, modes=("bnn",)).plan
    assert not roomy.remade
