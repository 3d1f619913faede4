"""Ready-made models, by name."""

from __future__ import annotations

from collections.abc import Callable

from edgetrain.model import Model
from edgetrain.models.mlp import mlp

__all__ = ["MODELS", "mlp"]

MODELS: dict[str, Callable[..., Model]] = {"mlp": mlp}
