"""The small task and the small data that the tests of a device share; each has its own model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from edgetrain.data import store
from edgetrain.model import Model
from edgetrain.planner import plan
from edgetrain.task import Task
from edgetrain.train import Trainer


def small_task(model: Model, **changes: Any) -> Task:
    """Return a task on a freshly drawn model; changes are fields of it."""
    fields: dict[str, Any] = {
        "kind": "train",
        "version": 1,
        "device": "left",
        "model": model,
        "mode": "bnn",
        "batch": 20,
        "local_epochs": 1,
        "learning_rate": 0.04,
        "codec": "luq4",
        "seed": 5,
        "deadline": None,
    } | changes
    if "state" not in fields:
        drawn = Trainer(plan(fields["model"], fields["batch"], fields["mode"]), seed=fields["seed"])
        fields["state"] = drawn.state()
    return Task(**fields)


def write_noise(path: Path, model: Model, examples: int) -> Path:
    """Write examples of features and labels drawn at random, which a model takes."""
    draw = random.Random(0)
    labels = bytes(draw.randrange(model.classes) for _ in range(examples))
    features = draw.randbytes(examples * model.input_features)
    store.write(path, features, labels, model.classes, (model.input_features,))
    return path
