"""Options that several commands of `edgetrain` share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgetrain.gradient import GRADIENT_FORMATS, MOST_DRAWS, Engine
from edgetrain.models import MODELS

__all__ = [
    "Batch",
    "Draws",
    "EngineOption",
    "Freeze",
    "GradientOption",
    "Hidden",
    "Json",
    "LatentOption",
    "Memory",
    "ModeOption",
    "ModelArgument",
    "Outer",
    "RecomputeOption",
    "Threads",
]

ModelArgument = Annotated[
    str,
    typer.Argument(
        help=f"{', '.join(MODELS)}, or a file that describes a model: of JSON, or .onnx."
    ),
]
Hidden = Annotated[str, typer.Option(help="Widths of the hidden layers, with commas.")]
ModeOption = Annotated[
    Literal["bnn", "fsb"], typer.Option(help="bnn trains latents, fsb scales of fixed signs.")
]
LatentOption = Annotated[
    Literal["int8", "int4", "bop", "adam16"],
    typer.Option(help="How the latents of bnn layers are held and trained."),
]
GradientOption = Annotated[
    str, typer.Option(help=f"How gradients are held: {', '.join(GRADIENT_FORMATS)}.")
]
Draws = Annotated[
    int,
    typer.Option(help=f"Draws of it that the gradient of the weights sums, 1 to {MOST_DRAWS}."),
]
EngineOption = Annotated[
    Engine, typer.Option(help="reference is the numpy oracle: slow, but it runs every gradient.")
]
Outer = Annotated[
    Literal["auto", "int8"], typer.Option(help="How this layer is trained: as the mode, or int8.")
]
Freeze = Annotated[
    int, typer.Option(help="Lowest layers to freeze: they keep signs, and no gradient comes there.")
]
Batch = Annotated[int, typer.Option(help="Examples a step.")]
Threads = Annotated[int, typer.Option(help="Threads of the engine.")]
Memory = Annotated[
    str | None, typer.Option(help="Most memory for the arena, e.g. 64MiB; smaller steps fit it.")
]
RecomputeOption = Annotated[
    Literal["auto", "always", "never"],
    typer.Option(
        help="Make gradients of convolutions twice and sums three times, so that they never exist "
        "whole: where --memory asks for it, always or never. What is learnt is the same."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
