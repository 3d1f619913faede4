"""Ready-made models, by name."""

from __future__ import annotations

from collections.abc import Callable

from edgetrain.model import Model
from edgetrain.models.binarynet import binarynet
from edgetrain.models.cnv import cnv
from edgetrain.models.har_cnn import har_cnn
from edgetrain.models.mlp import mlp
from edgetrain.models.resnet18_binary import resnet18_binary

__all__ = ["MODELS", "binarynet", "cnv", "har_cnn", "mlp", "resnet18_binary"]

MODELS: dict[str, Callable[..., Model]] = {
    "mlp": mlp,
    "cnv": cnv,
    "binarynet": binarynet,
    "har_cnn": har_cnn,
    "resnet18_binary": resnet18_binary,
}
