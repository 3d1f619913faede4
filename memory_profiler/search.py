"""The search for the plan that teaches most: from the most promising down, until one fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from edgetrain.errors import ModelError
from edgetrain.freeze import freeze
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.candidates import Candidate, cost_of, shortfalls_of
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.estimate import Estimate, estimate
from edgetrain.memory_profiler.learning import layers_taught
from edgetrain.memory_profiler.variants import Space, Variant
from edgetrain.model import Model
from edgetrain.ops.op import Latent, Mode
from edgetrain.planner import Plan, check_trainable, plan
from edgetrain.task import Kind

__all__ = ["Findings", "Search", "explore"]


class Search:
    """Plans the variants of one model, and remembers them: nothing of choosing costs as much."""

    def __init__(
        self,
        model: Model,
        batch: int,
        space: Space,
        budget: Budget,
        device: Device,
        *,
        partial: bool,
        examples: int | None,
        dataset_bytes: int,
        codec: str,
        kind: Kind,
    ) -> None:
        self.batch, self.space = batch, space
        self.examples = batch if examples is None else examples
        self._budget, self._device, self._partial = budget, device, partial
        self._dataset_bytes, self._codec, self._kind = dataset_bytes, codec, kind
        self._models = {0: model}
        self._taught: dict[tuple[int, tuple[Mode, Latent, int]], float] = {}
        self._known: dict[Variant, Candidate | None] = {}
        self._refused: dict[Variant, str] = {}

    def layers_taught(self, variant: Variant) -> float:
        """Return how many layers' worth an example is expected to teach."""
        kind = (variant.mode, variant.latent, variant.micro_batch)
        if (variant.frozen, kind) not in self._taught:
            self._taught[variant.frozen, kind] = layers_taught(self._model(variant.frozen), *kind)
        return self._taught[variant.frozen, kind]

    def promise(self, variant: Variant) -> float:
        """Return what a round on all examples is expected to teach."""
        return self.examples * self.layers_taught(variant)

    def candidate(self, variant: Variant) -> Candidate | None:
        """Return the plan of a variant, or None where there is none or it is that of another."""
        if variant not in self._known:
            self._known[variant] = self._planned(variant)
        return self._known[variant]

    def refusal(self, variant: Variant) -> str | None:
        """Return why a variant cannot train the model, or None as far as it can be told."""
        try:
            check_trainable(self._model(variant.frozen), variant.mode, variant.latent)
        except ModelError as error:
            return str(error)
        return self._refused.get(variant)

    def leanest(self, variant: Variant) -> Candidate | None:
        """Return the plan that takes least memory and trains the same layers alike."""
        found = map(self.candidate, self.space.leanest(variant))
        return next((candidate for candidate in found if candidate is not None), None)

    def shortened(self, compiled: Plan) -> Estimate | None:
        """Return what a plan uses on as many examples as the budget allows, None where on none."""
        fewest, most = 0, -(-self.examples // compiled.micro_batch)
        found = None
        while most - fewest > 1:
            count = (fewest + most) // 2
            part = self._estimate(compiled, count * compiled.micro_batch)
            if shortfalls_of(part, self._budget, self._device):
                most = count
            else:
                fewest, found = count, part
        return found

    def _model(self, frozen: int) -> Model:
        if frozen not in self._models:
            self._models[frozen] = freeze(self._models[0], frozen)
        return self._models[frozen]

    def _planned(self, variant: Variant) -> Candidate | None:
        try:
            compiled = plan(
                self._model(variant.frozen),
                self.batch,
                variant.mode,
                latent=variant.latent,
                micro_batch=variant.micro_batch,
                threads=variant.threads,
                recompute="always" if variant.recompute else "never",
            )
        except ModelError as error:
            self._refused[variant] = str(error)
            return None
        if variant.recompute and not compiled.recomputed:
            return None
        return self._compared(variant, compiled)

    def _compared(self, variant: Variant, compiled: Plan) -> Candidate:
        expected = self._estimate(compiled, self.examples)
        shortfalls = shortfalls_of(expected, self._budget, self._device)
        if shortfalls and self._partial and (part := self.shortened(compiled)):
            expected, shortfalls = part, ()
        cost, unit = cost_of(compiled, expected)
        learning = expected.examples * self.layers_taught(variant)
        place = len(self._known)
        return Candidate(variant, compiled, expected, shortfalls, learning, cost, unit, place)

    def _estimate(self, compiled: Plan, examples: int) -> Estimate:
        return estimate(
            compiled,
            self._device,
            examples=examples,
            dataset_bytes=self._dataset_bytes,
            codec=self._codec,
            kind=self._kind,
        )


@dataclass
class Findings:
    """What a search has found: the best of the plans that fit, and every other variant, once.

    refused are variants that cannot train the model, by the reason; compared are the plans that
    were made, the best among them; hopeless are variants whose memory exceeds what is allowed even
    in the leanest plan of their kind, by mode, latents and frozen layers; lesser are those that
    teach less than the best, whatever they use.
    """

    best: Candidate | None = None
    refused: dict[str, list[Variant]] = field(default_factory=dict)
    compared: list[Candidate] = field(default_factory=list)
    hopeless: dict[tuple[object, ...], list[Variant]] = field(default_factory=dict)
    lesser: list[Variant] = field(default_factory=list)


def explore(search: Search) -> Findings:
    """Return what a search finds.

    The most promising variants are planned first: once one fits, what cannot teach as much need not
    be planned. Nor need a kind of plans of which the leanest does not fit.
    """
    found = Findings()
    variants = sorted(search.space.variants(), key=search.promise, reverse=True)
    for promise, tier in groupby(variants, key=search.promise):
        for variant in tier:
            settle(variant, promise, search, found)
        fitting = (candidate for candidate in found.compared if candidate.fits)
        found.best = min(fitting, key=lambda candidate: candidate.rank, default=None)
    return found


def settle(variant: Variant, promise: float, search: Search, found: Findings) -> None:
    """Put a variant where it belongs among the findings, and plan it if need be."""
    kind = (variant.mode, variant.latent, variant.frozen)
    if kind in found.hopeless:
        found.hopeless[kind].append(variant)
    elif reason := search.refusal(variant):
        found.refused.setdefault(reason, []).append(variant)
    elif found.best is not None and promise < found.best.learning:
        found.lesser.append(variant)
    elif (lean := search.leanest(variant)) is not None and lean.lacks_memory:
        found.hopeless[kind] = [variant]
    elif (candidate := search.candidate(variant)) is not None:
        found.compared.append(candidate)
    elif reason := search.refusal(variant):
        found.refused.setdefault(reason, []).append(variant)
