"""Picks the plan that teaches a model most inside a budget, and says why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetrain.errors import BudgetError, ConfigError, ModelError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import Estimate
from edgetrain.memory_profiler.rejections import Rejection, rejections
from edgetrain.memory_profiler.search import Findings, Search, explore
from edgetrain.memory_profiler.variants import Space, summarise
from edgetrain.model import Model
from edgetrain.ops.op import Latent, Mode
from edgetrain.ops.weights import LATENTS
from edgetrain.planner import Plan
from edgetrain.task import Kind

__all__ = ["MODES", "Choice", "Rejection", "choose", "summarise"]

MODES: tuple[Mode, ...] = ("bnn", "fsb")


@dataclass(frozen=True)
class Choice:
    """The plan chosen, what it is expected to use, and every plan that was not chosen.

    asked are the examples that the round has; a partial one trains on fewer, those of the estimate.
    layers_taught is how many layers' worth an example of the round is expected to teach: see
    edgetrain.memory_profiler.learning. cost is what the plan costs by which the choice was made, in
    cost_unit: "joules" or, where the device's power is unknown, "seconds" or, where its speed is
    too, "operations".
    """

    plan: Plan
    estimate: Estimate
    rejected: tuple[Rejection, ...]
    asked: int
    layers_taught: float
    cost: float
    cost_unit: str

    def explain(self) -> str:
        """Return the choice, its expected use part by part, and a reason for each other plan."""
        width = max((len(rejection.plan) for rejection in self.rejected), default=0)
        total = sum(rejection.plans for rejection in self.rejected)
        return "\n".join(
            [
                f"chosen: {summarise(self.plan)}",
                *(f"  {line}" for line in self.estimate.explain().splitlines()),
                f"  {self.objective()}",
                f"rejected: {total}",
                *(f"  {other.plan:<{width}}  {other.explain()}" for other in self.rejected),
            ]
        )

    def objective(self) -> str:
        """Return what the choice is expected to teach and to cost, and what stands for joules."""
        stand_in = {
            "joules": "",
            "seconds": " (they stand for joules: the device's power is unknown)",
            "operations": " (they stand for joules: the device's speed and power are unknown)",
        }[self.cost_unit]
        examples = f"{self.estimate.examples:,} examples"
        if self.estimate.examples < self.asked:
            examples = f"{self.estimate.examples:,} of the {self.asked:,} examples"
        return (
            f"teaches {self.layers_taught:.2f} layers' worth an example, {examples}, for "
            f"{self.cost:.3g} {self.cost_unit}{stand_in}"
        )


def choose(
    model: Model,
    budget: Budget,
    device: Device,
    *,
    batch: int = 100,
    modes: Sequence[Mode] = MODES,
    latents: Sequence[Latent] = LATENTS,
    fewest_trained: int | None = 1,
    partial: bool = False,
    examples: int | None = None,
    dataset_bytes: int = 0,
    codec: str = "luq4",
    kind: Kind = "train",
) -> Choice:
    """Return the plan that learns most from what the budget allows, sure to stay inside it.

    Searched are modes, latents, how many of the lowest layers are frozen (while fewest_trained
    still train; None freezes none), micro-batches (batch, batch/2, ... 2), threads (the device's,
    half of them, ... 1), and whether what decides the peak is made more than once. A plan fits
    where the upper bounds of its memory, joules and seconds do; memory is limited by the budget and
    by the device.

    Of those that fit, the one is taken that learns most: examples x trainable layers, each example
    and each layer at its worth (`learning.layers_taught`). The examples are those of the round or,
    where it may be partial, as many as the budget's joules and seconds are sure to allow. The
    budget is the same for all plans, so that this is the most learning for a joule allowed.
    Freezing a layer, which makes an example cheaper, wins only where joules, seconds or memory run
    short. Among plans that learn alike: the fewest joules spent (seconds where power is unknown,
    operations where speed is too), the fewest tensors made again, the most threads, the least
    memory, the first in the order of the search.

    examples, dataset_bytes, codec and kind are as for `estimate`. Raises BudgetError naming the
    nearest plan and what it lacks when nothing fits, ModelError when nothing can train the model,
    and ConfigError when the budget limits what the device does not say.
    """
    _check(budget, device)
    space = Space.of(
        model,
        batch,
        device.threads,
        modes=modes,
        latents=latents,
        fewest_trained=fewest_trained,
    )
    search = Search(
        model,
        batch,
        space,
        budget,
        device,
        partial=partial,
        examples=examples,
        dataset_bytes=dataset_bytes,
        codec=codec,
        kind=kind,
    )
    found = explore(search)
    best = found.best
    if best is None:
        raise _nothing_fits(search, found, device)
    return Choice(
        best.plan,
        best.estimate,
        tuple(rejections(search, found, best)),
        search.examples,
        search.layers_taught(best.variant),
        best.cost,
        best.cost_unit,
    )


def _check(budget: Budget, device: Device) -> None:
    """Refuse a limit that nothing could be held against."""
    timed = device.operations_per_second is not None or device.examples_per_second is not None
    if budget.seconds is not None and not timed:
        raise ConfigError(
            f"the budget limits seconds, but nobody knows the speed of {device.name!r}: "
            "give examples_per_second"
        )
    if budget.energy is not None and not (timed and device.knows_power):
        raise ConfigError(
            f"the budget limits energy, but nobody knows the power of {device.name!r}: "
            "give watts or a calibration, and examples_per_second"
        )


def _nothing_fits(search: Search, found: Findings, device: Device) -> Exception:
    """Return the error that names the plan nearest to the budget and what it lacks."""
    lean = (search.leanest(variants[0]) for variants in found.hopeless.values())
    tried = [*found.compared, *(candidate for candidate in lean if candidate is not None)]
    if not tried:
        reasons = "; ".join(found.refused)
        return ModelError(reasons or "there is no mode to choose from: give bnn, fsb or both")
    nearest = min(tried, key=lambda c: max(s.needed / s.allowed for s in c.shortfalls))
    lacks = " and ".join(shortfall.describe() for shortfall in nearest.shortfalls)
    part = search.shortened(nearest.plan)
    fewer = "" if part is None else f", ask for {part.examples:,} of {search.examples:,} examples"
    return BudgetError(
        f"nothing fits {device.name!r}: even with the smallest plan ({summarise(nearest.plan)}) "
        f"{lacks}: allow more{fewer} or choose a smaller model"
    )
