"""What a plan was preferred to for want of memory: those that the planner tried before it."""

from __future__ import annotations

from edgetrain.planner import Plan, micro_batches, plan
from edgetrain.recompute import Recompute

__all__ = ["larger_plans"]


def larger_plans(chosen: Plan, recompute: Recompute = "auto") -> list[Plan]:
    """Return the plans that would have been taken, had they fitted, the most wanted first.

    They take larger micro-batches, or make less again; recompute is what was asked of `chosen`.
    """
    found: list[Plan] = []
    ways: tuple[Recompute, ...] = ("never", "always") if recompute == "auto" else (recompute,)
    for size in micro_batches(chosen.batch):
        for way in ways:
            other = plan(
                chosen.model,
                chosen.batch,
                chosen.mode,
                latent=chosen.latent,
                gradient=chosen.gradient.format.name,
                draws=chosen.gradient.draws,
                micro_batch=size,
                threads=chosen.threads,
                recompute=way,
            )
            if size == chosen.micro_batch and other.recomputed >= chosen.recomputed:
                return found
            if other not in found:
                found.append(other)
    return found
