"""What of a trained model predicts: its plan, and its tensors with what only training needs gone.

For every weight layer i of a model:

    layer{i}.signs      U32 (rows, words)   a layer trained as bnn or frozen: a bit a weight
    layer{i}.latent     I8                  a layer trained as int8, as in edgetrain.schema
    layer{i}.scale      U8                  a layer trained as fsb; its signs follow from a seed
    layer{i}.threshold  U32 (outputs,)      int32: the sums from which a channel's sign is +1
    layer{i}.shift, layer{i}.mean, layer{i}.deviation    of the last layer, in the threshold's place
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

from edgetrain.choices import Choices
from edgetrain.errors import BudgetError, ModelError
from edgetrain.gradient import GRADIENT
from edgetrain.model import Block, Model
from edgetrain.ops.op import Mode
from edgetrain.planner import MOST_THREADS, Plan, compile_plan, micro_batches
from edgetrain.recompute import gatherable, streamable
from edgetrain.schema import STATISTICS, Schema, state_schema
from edgetrain.signs import take_signs
from edgetrain.sizes import format_size, parse_size
from edgetrain.tensorfile import State, Tensor

__all__ = ["engine_tensors", "inference_plan", "inference_schema", "inference_state"]

LEAST, MOST = -(2**31), 2**31 - 1


def inference_plan(
    model: Model, mode: Mode, batch: int, threads: int = 1, memory: str | int | None = None
) -> Plan:
    """Return the plan that predicts, and cannot train: up to batch examples at a time.

    Fewer where images are very large and, where memory is given, the most of batch, batch / 2, ...
    that fit. Raises ModelError for a model that has no such mode, for a batch of none and for
    threads that cannot be, BudgetError where nothing fits.
    """
    for block in model.blocks():
        block.weights.check_mode(block.source, mode)
    most = min(block.weights.most_examples(block.source) for block in model.blocks())
    if batch < 1 or not 1 <= threads <= MOST_THREADS:
        raise ModelError(
            f"{batch} examples at a time on {threads} threads: choose 1 or more, on 1 to "
            f"{MOST_THREADS}"
        )
    limit = None if memory is None else parse_size(memory)
    for size in dict.fromkeys((*micro_batches(min(batch, most)), 1)):
        # Each sum is made once, whoever streams it, and patches that are gathered take no room.
        choices = Choices(
            mode,
            "signs",
            GRADIENT,
            size,
            threads,
            streamed=streamable(model),
            gathered=gatherable(model),
        )
        plan = compile_plan(model, size, choices)
        if limit is None or plan.peak_bytes <= limit:
            return plan
    assert limit is not None
    raise BudgetError(
        f"no plan that predicts fits {format_size(limit)}: the smallest needs "
        f"{format_size(plan.peak_bytes)}"
    )


def inference_schema(model: Model, mode: str) -> Schema:
    """Return the name, dtype and shape of every tensor that predicts."""
    schema = state_schema(model, mode, "signs")
    for block in _hidden(model):
        for name in STATISTICS:
            del schema[f"layer{block.index}.{name}"]
        schema[f"layer{block.index}.threshold"] = ("U32", (block.weights.outputs,))
    return schema


def inference_state(model: Model, mode: str, state: Mapping[str, Tensor]) -> State:
    """Return the tensors that predict of a state as edgetrain.schema has it."""
    found = dict(state)
    for block in model.blocks():
        weights, layer = block.weights, f"layer{block.index}"
        if weights.has_signs(mode):
            found[f"{layer}.signs"] = take_signs(found, layer, *weights.rows(block.source))
    for block in _hidden(model):
        layer = f"layer{block.index}"
        numbers = (found.pop(f"{layer}.{name}").view() for name in STATISTICS)
        thresholds = [_threshold(*channel) for channel in zip(*numbers, strict=True)]
        data = array("i", thresholds).tobytes()
        found[f"{layer}.threshold"] = Tensor("U32", (len(thresholds),), data)
    return found


def engine_tensors(model: Model, tensors: Mapping[str, Tensor]) -> State:
    """Return what the engine holds of tensors that predict: it makes thresholds of statistics.

    mean - shift deviation is the threshold, exactly, with the nearest float32 as the mean, what it
    lacks as the shift, and a deviation of one.
    """
    found = dict(tensors)
    for block in _hidden(model):
        layer = f"layer{block.index}"
        thresholds = memoryview(found.pop(f"{layer}.threshold").data).cast("i")
        mean = array("f", thresholds)
        shift = array("f", (near - far for near, far in zip(mean, thresholds, strict=True)))
        deviation = array("f", [1.0]) * len(mean)
        for name, values in zip(STATISTICS, (shift, mean, deviation), strict=True):
            found[f"{layer}.{name}"] = Tensor("F32", (len(mean),), values.tobytes())
    return found


def _hidden(model: Model) -> list[Block]:
    """Return the blocks whose normalisation ends in signs."""
    return list(model.blocks())[:-1]


def _threshold(shift: float, mean: float, deviation: float) -> int:
    """Return the least sum y for which (y - mean) / deviation + shift >= 0, as the engine does."""
    return min(max(math.ceil(mean - shift * deviation), LEAST), MOST)
