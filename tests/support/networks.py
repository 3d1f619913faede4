"""Networks of every op and way of training, trained a little, on which exported models are held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import edgetrain as et
from edgetrain.freeze import freeze
from edgetrain.models import MODELS
from edgetrain.ops import (
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
    Sign,
    SoftmaxCrossEntropy,
)

EXAMPLES = 9
"""No multiple of a micro-batch, so that the last one is smaller."""


class Network(NamedTuple):
    """A model and how it is trained."""

    make: Callable[[], et.Model]
    mode: Any = "bnn"
    latent: Any = "int8"


class Trained(NamedTuple):
    """A trainer, and examples in the shape of the model's."""

    trainer: et.Trainer
    x: Any
    y: Any


def block(weights: Op, *rest: Op) -> list[Op]:
    """Return a hidden block; rest is a pool."""
    return [weights, *rest, BatchNorm(), Sign()]


def head(classes: int = 5) -> list[Op]:
    """Return a last block."""
    return [Linear(classes, "int8"), BatchNorm(), SoftmaxCrossEntropy()]


def separable() -> et.Model:
    """Return depthwise convolutions between dense ones, sums over windows and over images."""
    layers = [
        *block(Conv2d(64, 3, 2, training="int8")),
        *block(Conv2d(64, 3, groups=64), AvgPool()),
        *block(Conv2d(64, 4, 2, training="int8", groups=64)),
        *block(Conv2d(96, 1)),
        GlobalAveragePool(),
        *head(),
    ]
    return et.Model((21, 18, 3), tuple(layers))


def grouped() -> et.Model:
    """Return groups of data, of whole words and of parts of words, and a frozen layer of them."""
    layers = [
        *block(Conv2d(64, 3, groups=2)),
        *block(Conv2d(128, 3, groups=2, training="frozen"), MaxPool()),
        *block(Conv2d(64, 2, padding="valid", groups=16)),
        Flatten(),
        *head(),
    ]
    return et.Model((9, 8, 4), tuple(layers))


def sequence() -> et.Model:
    """Return convolutions of sequences with pools of both kinds, whose ends fill no window."""
    layers = [
        *block(Conv1d(32, 5, 2), MaxPool()),
        *block(Conv1d(64, 3, groups=2), AvgPool()),
        Flatten(),
        *head(),
    ]
    return et.Model((45, 3), tuple(layers))


def shortcut(kind: Any) -> Callable[[], et.Model]:
    """Return how a small residual network with shortcuts of a kind is made."""
    return lambda: MODELS["resnet18_binary"](5, shortcut=kind, widths=(32, 64, 64), stem_stride=2)


def narrow(**choices: Any) -> et.Model:
    """Return an MLP of widths that fill no word."""
    return et.models.mlp(70, 3, (65, 33, 20), **choices)


NETWORKS = {
    **{name: Network(make) for name, make in MODELS.items()},
    **{f"shortcut_{kind}": Network(shortcut(kind)) for kind in ("add", "xnor", "or", "boolnet")},
    "separable": Network(separable),
    "grouped": Network(grouped),
    "sequence": Network(sequence),
    "mlp_fsb": Network(lambda: narrow(group=8), "fsb"),
    "mlp_signs": Network(lambda: narrow(first="auto", last="bnn")),
    "mlp_frozen": Network(lambda: freeze(narrow(), 2)),
    "cnv_fsb": Network(lambda: et.models.cnv("valid", first="int8"), "fsb"),
    "har_cnn_fsb": Network(MODELS["har_cnn"], "fsb"),
    **{f"mlp_{kind}": Network(narrow, latent=kind) for kind in ("int4", "bop", "adam16")},
    "har_cnn_int4": Network(MODELS["har_cnn"], latent="int4"),
}
"""Every model of edgetrain.models, and what else the ops can be."""


def trained(name: str, dtype: str = "uint8") -> Trained:
    """Return a network after two steps over random examples, integers or, for float32, reals."""
    make, mode, latent = NETWORKS[name]
    model, draws = make(), np.random.default_rng(0)
    shape = (EXAMPLES, *model.example_shape)
    if dtype == "float32":
        x: Any = draws.normal(3.0, 2.0, shape).astype(np.float32)
    else:
        kinds = np.iinfo(dtype)
        x = draws.integers(kinds.min, kinds.max + 1, shape).astype(dtype)
    y = draws.integers(0, model.classes, EXAMPLES).astype(np.uint8)
    trainer = et.Trainer(et.plan(model, EXAMPLES, mode, latent=latent), seed=7)
    trainer.fit(x, y, 2)
    return Trained(trainer, x, y)


def scores_of(trainer: et.Trainer, x: Any, y: Any) -> Any:
    """Return the trainer's own scores of as many examples as fit its micro-batch."""
    trainer.evaluate(x, y)
    logits = trainer.tensor(f"layer{trainer.plan.model.depth - 1}.logits")
    return np.frombuffer(logits, np.float32).reshape(-1, trainer.plan.model.classes)[: len(x)]
