"""A model as a command names it: one of ours, or a file of JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from edgetrain.errors import ConfigError, ModelError
from edgetrain.model import Model
from edgetrain.models import MODELS
from edgetrain.onnx_import import from_onnx
from edgetrain.ops.linear import Training
from edgetrain.settings import nearest

__all__ = ["check_features", "named_model"]


def named_model(
    name: str,
    inputs: int,
    classes: int,
    hidden: str,
    *,
    first: Training = "auto",
    last: Training = "int8",
) -> Model:
    """Return a model of ours for some data, or the one that a file of JSON or ONNX describes.

    hidden is the widths of the hidden layers, with commas; only mlp has them, and only mlp takes
    any number of inputs: the others are made for one shape of data. first="auto" leaves the first
    layer to the model. Raises ConfigError for a name or widths that mean nothing, ModelError for a
    file that holds no model.
    """
    if name == "mlp":
        try:
            widths = tuple(int(width) for width in hidden.split(","))
        except ValueError:
            raise ConfigError(f"--hidden {hidden!r} is no list of widths: write 256,256") from None
        return MODELS[name](inputs, classes, widths, first=first, last=last)
    if name in MODELS:
        chosen = {} if first == "auto" else {"first": first}
        return MODELS[name](classes=classes, last=last, **chosen)
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"{name!r} is neither a model nor a file: {nearest(name, MODELS)}")
    if path.suffix == ".onnx":
        return from_onnx(path, first="int8" if first == "auto" else first, last=last)
    try:
        return Model.from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read a model from {name}: {error}") from None


def check_features(model: Model, shape: Sequence[int]) -> None:
    """Raise ModelError, with the names of models that fit, for data of another size than its own.

    shape is that of an example.
    """
    features = math.prod(shape)
    if features == model.input_features:
        return
    fitting = [
        name for name, make in MODELS.items() if name != "mlp" and make().input_features == features
    ]
    raise ModelError(
        f"an example of the data has {' x '.join(map(str, shape))} = {features} features, but the "
        f"model takes {model.input_features}: choose {' or '.join([*fitting, 'mlp'])}"
    )
