"""A trained model in a file of its own, .etp: what predicts, a bit a binary weight, and no more.

It is a file of edgetrain.tensorfile whose tensors edgetrain.inference names. It may have come from
anywhere, so it is read strictly; tensors are views of the mapped file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetrain._version import __version__
from edgetrain.data.scaling import Scaling
from edgetrain.errors import DataError, ModelError, PayloadError
from edgetrain.fields import Rule, check_fields, choice, maybe, whole
from edgetrain.inference import inference_schema, inference_state
from edgetrain.model import Model
from edgetrain.ops.op import Mode
from edgetrain.schema import check_tensors
from edgetrain.tensorfile import State, parse_json, read, write

if TYPE_CHECKING:
    from edgetrain.train import Trainer

__all__ = ["PackedModel", "export_packed", "packed_model", "read_packed"]

FORMAT = "edgetrain-packed"
VERSION = "1"


@dataclass(frozen=True)
class PackedModel:
    """A model and the tensors with which it predicts: edgetrain.inference.inference_schema.

    seed is that of the fixed signs of fsb layers; scaling that of float data, None for integers.
    """

    model: Model
    mode: Mode
    seed: int
    scaling: Scaling | None
    tensors: State


def packed_model(trainer: Trainer) -> PackedModel:
    """Return what of a trainer predicts. Raises ModelError for a scaling that is not its own."""
    model, mode = trainer.plan.model, trainer.plan.mode
    check_channels(model, trainer.scaling)
    tensors = inference_state(model, mode, trainer.state())
    return PackedModel(model, mode, trainer.seed, trainer.scaling, tensors)


def export_packed(trainer: Trainer, path: str | Path) -> None:
    """Write what a trainer has learnt as a .etp file, for edgetrain.Predictor.

    Raises StorageError; the file is there whole or not at all.
    """
    packed = packed_model(trainer)
    fields = {
        "mode": packed.mode,
        "seed": packed.seed,
        "scaling": None if packed.scaling is None else packed.scaling.to_json(),
    }
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "edgetrain": __version__,
        "model": packed.model.to_json(),
        "packed": json.dumps(fields),
    }
    write(Path(path), packed.tensors, metadata)


def read_packed(path: str | Path) -> PackedModel:
    """Return what export_packed wrote.

    Raises DataError for a file that cannot be opened, PayloadError for one that is anything else.
    """
    tensors, metadata = read(path)
    if metadata.get("format") != FORMAT:
        raise PayloadError(f"{path} is no packed model: write one with edgetrain export --packed")
    if metadata.get("version") != VERSION:
        raise PayloadError(
            f"{path} is a packed model of version {metadata.get('version')!r}: this build reads "
            f"{VERSION}: update edgetrain"
        )
    try:
        fields = check_fields(parse_json(metadata.get("packed", "null")), RULES, "the header")
        model = Model.from_json(metadata.get("model", ""))
        for block in model.blocks():
            block.weights.check_mode(block.source, fields["mode"])
        check_channels(model, fields["scaling"])
        check_tensors(tensors, inference_schema(model, fields["mode"]), "the model")
    except (ModelError, PayloadError) as error:
        raise PayloadError(f"{path} is damaged: {error}: copy it again") from None
    return PackedModel(model, **fields, tensors=tensors)


def check_channels(model: Model, scaling: Scaling | None) -> None:
    """Raise ModelError for constants of more or fewer channels than an example can have."""
    if scaling is not None and model.input_features % len(scaling.center):
        raise ModelError(
            f"an example of {model.input_features} numbers cannot have the {len(scaling.center)} "
            f"channels of the scaling: give that of its own data"
        )


def _scaling(name: str, value: Any) -> Scaling:
    """Accept what Scaling.to_json wrote; this is a rule of edgetrain.fields."""
    if not isinstance(value, str):
        raise PayloadError(f"{name} is not text")
    try:
        return Scaling.from_json(value)
    except DataError as error:
        raise PayloadError(f"{name}: {error}") from None


RULES: dict[str, Rule] = {
    "mode": choice("bnn", "fsb"),
    "seed": whole(-(1 << 63), (1 << 64) - 1),
    "scaling": maybe(_scaling),
}
