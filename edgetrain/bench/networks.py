"""The networks that both sides of a measurement build, by name: those of edgetrain.models."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from edgetrain import models
from edgetrain.errors import ConfigError
from edgetrain.model import Model
from edgetrain.models import MODELS
from edgetrain.ops import OPS, Op

__all__ = ["TINY_BATCH", "convolves", "find_network", "tiny"]

TINY_BATCH = 4
TINY_CHANNELS = 32


def find_network(name: str) -> Model:
    """Return the model of that name. Raises ConfigError naming the nearest one there is."""
    if name in MODELS:
        return MODELS[name]()
    near = get_close_matches(name, MODELS, n=1) or list(MODELS)
    raise ConfigError(f"no network is called {name!r}: did you mean {near[0]!r}?")


def convolves(model: Model) -> bool:
    """Return whether a layer is a convolution."""
    return any(op.name in ("conv1d", "conv2d") for op in model.layers)


def tiny(model: Model) -> Model:
    """Return a small model that needs the code that this one needs.

    A side trains it before its memory is counted, so that its libraries are resident.
    """
    if not convolves(model):
        return models.mlp(8, 2, (8,))
    opening, *others = model.layers
    return replace(model, layers=(narrowed(opening, first=True), *map(narrowed, others)))


def narrowed(op: Op, *, first: bool = False) -> Op:
    """Return a weight layer with few outputs, and any other op as it is.

    One of the data has no groups, since the data stay as they are.
    """
    fields = {key: value for key, value in op.to_fields().items() if key != "op"}
    if "outputs" in fields:
        depthwise = not first and fields.get("groups", 1) == fields["outputs"] > 1
        fields["outputs"] = TINY_CHANNELS
        if "groups" in fields:
            fields["groups"] = TINY_CHANNELS if depthwise else 1
    return OPS[op.name](**fields)
