"""How much a plan is expected to teach, so that plans can be compared before any of them runs."""

from __future__ import annotations

from edgetrain.model import Model

__all__ = ["SHARES", "layers_taught"]

SHARES: dict[str, float] = {
    "int8": 1.0,
    "fsb": 0.99,
    "adam16": 0.98,
    "bop": 0.97,
    "int4": 0.96,
}
"""What a layer learns that is held so, as a share of int8 latents: accuracies measured on four
tasks, see decision 055."""
TAKEN_BY_THE_NORM = 2
"""Directions of a micro-batch's gradient that a normalisation removes: its mean and its share along
the signs (edgetrain.ops.batch_norm). What two examples would teach is removed whole."""


def layers_taught(model: Model, mode: str, latent: str, micro_batch: int) -> float:
    """Return how many layers' worth an example teaches, from 0 to the number of layers.

    It teaches each layer that trains, by the share that its kind of weights learns; of a
    micro-batch of m examples m - 2 teach. Times the examples of a round, that is what the round is
    expected to teach.
    """
    shares = 0.0
    for block in model.blocks():
        trained = block.weights.weight_mode(mode)
        if trained != "frozen":
            shares += SHARES[latent if trained == "bnn" else trained]
    return shares * max(0.0, 1 - TAKEN_BY_THE_NORM / micro_batch)
