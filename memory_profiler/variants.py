"""The ways in which a model may be trained: every combination of what a caller leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops.op import Latent, Mode
from edgetrain.planner import Plan, micro_batches
from edgetrain.recompute import recomputable

__all__ = ["Space", "Variant", "change", "describe", "summarise"]


@dataclass(frozen=True)
class Variant:
    """One way to train a model.

    frozen is how many of its lowest layers are frozen; recompute makes what decides the peak of
    memory more than once, so that it never exists whole.
    """

    mode: Mode
    latent: Latent
    frozen: int
    micro_batch: int
    threads: int
    recompute: bool


@dataclass(frozen=True)
class Space:
    """The values that each field of a variant may take, in the order in which they are tried."""

    mode: Sequence[Mode]
    latent: Sequence[Latent]
    frozen: Sequence[int]
    micro_batch: Sequence[int]
    threads: Sequence[int]
    recompute: Sequence[bool]

    @classmethod
    def of(
        cls,
        model: Model,
        batch: int,
        threads: int,
        *,
        modes: Sequence[Mode],
        latents: Sequence[Latent],
        fewest_trained: int | None,
    ) -> Space:
        """Return the space of a model on a device with so many cores.

        Micro-batches are halves of the batch and threads halves of the cores; layers freeze from
        the lowest up while so many of those that train are left, and none freezes for None. Raises
        ModelError where so many do not train to begin with.
        """
        blocks = list(model.blocks())
        lowest = model.lowest_trained
        training = [block.index for block in blocks if not block.weights.frozen]
        fewest = len(training) if fewest_trained is None else fewest_trained
        if not 1 <= fewest <= len(training):
            raise ModelError(f"{fewest} layers to train: choose 1 to {len(training)}, or all")
        ends = training[: len(training) - fewest]
        counts = [threads]
        while counts[-1] > 1:
            counts.append(counts[-1] // 2)
        return cls(
            tuple(dict.fromkeys(modes)),
            tuple(dict.fromkeys(latents)),
            (lowest, *(index + 1 for index in ends)),
            micro_batches(batch),
            tuple(counts),
            (False, True) if recomputable(model) else (False,),
        )

    def variants(self) -> Iterator[Variant]:
        """Yield every variant, the fields that are declared last varying fastest."""
        for values in product(*(getattr(self, field.name) for field in fields(self))):
            variant = Variant(*values)
            if self._exists(variant):
                yield variant

    def changes(self, variant: Variant) -> Iterator[tuple[str, Iterator[Variant]]]:
        """Yield each field with the variants that differ in it alone and come later in its order.

        The nearest come first.
        """
        for field in fields(self):
            values: Sequence[Any] = getattr(self, field.name)
            later = values[values.index(getattr(variant, field.name)) + 1 :]
            others = (replace(variant, **{field.name: value}) for value in later)
            yield field.name, (other for other in others if self._exists(other))

    def leanest(self, variant: Variant) -> Iterator[Variant]:
        """Yield the variants that take least memory of those that train the same layers alike.

        The first is the leanest unless recomputing makes no plan of its own.
        """
        for recompute in self.recompute[::-1]:
            yield replace(
                variant,
                micro_batch=self.micro_batch[-1],
                threads=self.threads[-1],
                recompute=recompute,
            )

    def _exists(self, variant: Variant) -> bool:
        # What fsb trains has no latents that could be held in another way.
        return variant.mode == "bnn" or variant.latent == "int8" or "int8" not in self.latent


def change(field: str, variant: Variant) -> str:
    """Return what a variant has in a field, as a phrase that asks for it."""
    value = getattr(variant, field)
    return {
        "mode": f"mode {value}",
        "latent": f"{value} latents",
        "frozen": f"{value} layer{'s' if value != 1 else ''} frozen",
        "micro_batch": f"micro-batch {value}",
        "threads": f"{value} thread{'s' if value != 1 else ''}",
        "recompute": "recomputing",
    }[field]


def describe(variants: Sequence[Variant], batch: int) -> str:
    """Return what some variants have in common, e.g. "bnn, 25 of 100, 1 thread, recomputing"."""
    modes = {variant.mode for variant in variants}
    latents = {variant.latent for variant in variants}
    frozen = sorted({variant.frozen for variant in variants})
    sizes = {variant.micro_batch for variant in variants}
    threads = {variant.threads for variant in variants}
    words: list[str] = [*modes] if len(modes) == 1 else []
    words.append(f"{'up to ' if len(sizes) > 1 else ''}{max(sizes)} of {batch}")
    if len(threads) == 1:
        words.append("1 thread" if threads == {1} else f"{max(threads)} threads")
    if len(latents) == 1 and latents != {"int8"}:
        words.append(f"{max(latents)} latents")
    if frozen[-1]:
        count = f"{frozen[0]} to {frozen[-1]}" if len(frozen) > 1 else f"{frozen[0]}"
        words.append(f"{count} layer{'s' if frozen[-1] > 1 else ''} frozen")
    if all(variant.recompute for variant in variants):
        words.append("recomputing")
    return ", ".join(words)


def summarise(plan: Plan) -> str:
    """Return a plan's choices in a phrase, e.g. "bnn, 25 of 100, 1 thread"."""
    variant = Variant(
        plan.mode,
        plan.latent,
        plan.model.lowest_trained,
        plan.micro_batch,
        plan.threads,
        plan.recomputed > 0,
    )
    return describe([variant], plan.batch)
