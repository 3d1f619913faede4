"""A trainer's checkpoint: a file of tensors and of what else training goes on from.

It is read strictly, because it may come from anywhere.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from edgetrain.errors import PayloadError
from edgetrain.examples import InputType
from edgetrain.fields import Rule, choice, flag, maybe, real, several, whole
from edgetrain.gradient import GRADIENT
from edgetrain.model import Model
from edgetrain.planner import Plan, plan, recomputing
from edgetrain.schema import Schema
from edgetrain.step import FLIP_THRESHOLD
from edgetrain.storage import Buffer
from edgetrain.tensorfile import State, parse_json, read, write_parts

__all__ = [
    "FORMAT",
    "VERSION",
    "plan_fields",
    "plan_of",
    "read_checkpoint",
    "trainer_fields",
    "write_checkpoint",
]

FORMAT = "edgetrain-checkpoint"
VERSION = "2"
READABLE = ("1", VERSION)
"""Version 1 knew no position within an epoch: an epoch it left unfinished begins anew."""
COUNT = whole(0, (1 << 32) - 1)
BLOCKS = several(whole(0, 255), 256)
DEFAULTS: Mapping[str, Any] = {
    "latent": "int8",
    "flip_threshold": FLIP_THRESHOLD,
    "gradient": GRADIENT.format.name,
    "draws": GRADIENT.draws,
    "engine": "native",
    "remade": [],
    "streamed": [],
    "gathered": False,
    "input_type": None,
}
"""What a checkpoint meant before it said so."""
RULES: Mapping[str, Rule] = {
    "batch": COUNT,
    "micro_batch": COUNT,
    "threads": COUNT,
    "seed": whole(-(1 << 63), (1 << 64) - 1),
    "stream": COUNT,
    "steps": COUNT,
    "epochs": COUNT,
    "steps_since_load": COUNT,
    "learning_rate": real(0, 1000),
    "flip_threshold": real(0, 1),
    "draws": COUNT,
    "remade": BLOCKS,
    "streamed": BLOCKS,
    "gathered": flag,
    "input_type": maybe(choice(*get_args(InputType))),
}
"""The numbers that a trainer goes on from. Plan and epoch check the rest of what they are given."""


def write_checkpoint(
    path: Path | str,
    model: Model,
    fields: Mapping[str, Any],
    schema: Schema,
    part: Callable[[str], Buffer],
) -> None:
    """Write what a trainer goes on from, whole or not at all; `part` gives a tensor's bytes.

    Raises StorageError.
    """
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": model.to_json(),
        "trainer": json.dumps(fields),
        "crc32": str(checksum(schema, part)),
    }
    write_parts(path, schema, part, metadata)


def read_checkpoint(path: Path | str) -> tuple[State, dict[str, str]]:
    """Return a file's tensors, views of it, and its metadata, for trainer_fields to read.

    Raises DataError for a file that cannot be read, PayloadError for one that is damaged.
    """
    tensors, metadata = read(path)
    # Those of early builds have none.
    told = metadata.get("crc32")
    if told is not None and told != str(checksum(tensors, lambda name: tensors[name].data)):
        raise PayloadError(f"{path} is damaged: its tensors are not those that were written")
    return tensors, metadata


def checksum(names: Iterable[str], part: Callable[[str], Buffer]) -> int:
    """Return the CRC-32 of tensors, in the order of their names."""
    return reduce(lambda crc, name: zlib.crc32(part(name), crc), sorted(names), 0)


def trainer_fields(path: Path | str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what the metadata of a checkpoint say of its trainer.

    Raises PayloadError for what is no checkpoint, or one of another version.
    """
    if metadata.get("format") != FORMAT:
        raise PayloadError(
            f"{path} is not a checkpoint of edgetrain: edgetrain-coordinator export makes one of a "
            f"fleet's"
        )
    if metadata.get("version") not in READABLE:
        raise PayloadError(
            f"{path} is a checkpoint of version {metadata.get('version')!r}: this build reads "
            f"{' and '.join(READABLE)}: update edgetrain"
        )
    fields = parse_json(metadata.get("trainer", "null"))
    if not isinstance(fields, dict):
        raise PayloadError(f"{path} is damaged: it does not describe a trainer")
    fields = {**DEFAULTS, **fields}
    for name, rule in RULES.items():
        if name not in fields:
            raise PayloadError(f"{path} is damaged: it lacks {name}")
        fields[name] = rule(f"{path} is damaged: {name}", fields[name])
    return fields


def plan_fields(chosen: Plan) -> dict[str, Any]:
    """Return what a checkpoint says of the plan, beside the model."""
    return {
        "mode": chosen.mode,
        "latent": chosen.latent,
        "gradient": chosen.gradient.format.name,
        "draws": chosen.gradient.draws,
        "batch": chosen.batch,
        "micro_batch": chosen.micro_batch,
        "threads": chosen.threads,
        "remade": sorted(chosen.remade),
        "streamed": sorted(chosen.streamed),
        "gathered": chosen.gathered,
    }


def plan_of(model: Model, fields: Mapping[str, Any], threads: int | None) -> Plan:
    """Return the plan that a checkpoint's fields say, with other threads if they are given.

    Raises KeyError, TypeError and ModelError for fields that no plan has.
    """
    base = plan(
        model,
        fields["batch"],
        fields["mode"],
        latent=fields["latent"],
        gradient=fields["gradient"],
        draws=fields["draws"],
        micro_batch=fields["micro_batch"],
        threads=threads or fields["threads"],
    )
    return recomputing(base, fields["remade"], fields["streamed"], gathered=fields["gathered"])
