"""The ops, each declared once in a module of its own."""

from __future__ import annotations

from edgetrain.ops.batch_norm import BatchNorm
from edgetrain.ops.linear import Linear
from edgetrain.ops.op import Arithmetic, Context, Op, Signal, TensorRule
from edgetrain.ops.sign import Sign
from edgetrain.ops.softmax_cross_entropy import SoftmaxCrossEntropy

__all__ = [
    "OPS",
    "Arithmetic",
    "BatchNorm",
    "Context",
    "Linear",
    "Op",
    "Sign",
    "Signal",
    "SoftmaxCrossEntropy",
    "TensorRule",
]

OPS: dict[str, type[Op]] = {op.name: op for op in (Linear, BatchNorm, Sign, SoftmaxCrossEntropy)}
