"""`edgetrain export`: a trained model as a file that an application runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgetrain.data.scaling import Scaling
from edgetrain.errors import ConfigError
from edgetrain.examples import InputType
from edgetrain.onnx import export_onnx
from edgetrain.options import Json
from edgetrain.packed import export_packed
from edgetrain.predictor import Predictor
from edgetrain.sizes import format_size
from edgetrain.train import load

__all__ = ["export"]


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="What `edgetrain train --save` or `edgetrain-coordinator export` has written."
        ),
    ],
    *,
    onnx: Annotated[
        Path | None, typer.Option(help="Write an ONNX file there, for any runtime of ONNX.")
    ] = None,
    packed: Annotated[
        Path | None, typer.Option(help="Write a .etp file there, for edgetrain.Predictor.")
    ] = None,
    input_type: Annotated[
        InputType | None,
        typer.Option(
            "--input",
            help="What the ONNX file takes. It is known but for a fleet's model: float32, scaled "
            "inside, where floats were trained on.",
        ),
    ] = None,
    scaling: Annotated[
        Path | None,
        typer.Option(
            help="Constants to scale floats by, where the model has none: see `edgetrain data info "
            "--save-scaling`."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trained model as a file that an application runs.

    Both give the trained model's own scores: a .etp file on a device, without numpy.
    """
    if onnx is None and packed is None:
        raise ConfigError("nothing to write: give --packed model.etp, --onnx model.onnx or both")
    trainer = load(checkpoint)
    if scaling is not None:
        trainer.scaling = Scaling.load(scaling)
    told: dict[str, Any] = {
        "classes": trainer.plan.model.classes,
        "input_shape": list(trainer.plan.model.example_shape),
    }
    if packed is not None:
        export_packed(trainer, packed)
        memory = Predictor(packed).memory_bytes
        told["packed"] = {**file_fields(packed), "memory_bytes": memory}
    if onnx is not None:
        export_onnx(trainer, onnx, input_type)
        told["onnx"] = file_fields(onnx)
    if as_json:
        print(json.dumps(told))
        return
    for written in (told[form] for form in ("packed", "onnx") if form in told):
        memory = written.get("memory_bytes")
        beside = "" if memory is None else f", predicts in {format_size(memory)}"
        print(f"wrote {written['file']}: {format_size(written['bytes'])}{beside}")


def file_fields(path: Path) -> dict[str, Any]:
    """Return a file's name and size."""
    return {"file": str(path), "bytes": path.stat().st_size}
