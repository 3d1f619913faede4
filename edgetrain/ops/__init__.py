"""The ops, each declared once in a module of its own."""

from __future__ import annotations

from edgetrain.ops.add import Add
from edgetrain.ops.avg_pool import AvgPool
from edgetrain.ops.batch_norm import BatchNorm
from edgetrain.ops.conv import Conv2d
from edgetrain.ops.conv1d import Conv1d
from edgetrain.ops.flatten import Flatten
from edgetrain.ops.global_average_pool import GlobalAveragePool
from edgetrain.ops.linear import Linear
from edgetrain.ops.max_pool import MaxPool
from edgetrain.ops.op import Arithmetic, Branch, Context, Op, Signal, TensorRule
from edgetrain.ops.products import Products
from edgetrain.ops.shortcut import Or, Shortcut, Xnor
from edgetrain.ops.sign import Sign
from edgetrain.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgetrain.ops.weights import WeightOp

__all__ = [
    "OPS",
    "Add",
    "Arithmetic",
    "AvgPool",
    "BatchNorm",
    "Branch",
    "Context",
    "Conv1d",
    "Conv2d",
    "Flatten",
    "GlobalAveragePool",
    "Linear",
    "MaxPool",
    "Op",
    "Or",
    "Products",
    "Shortcut",
    "Sign",
    "Signal",
    "SoftmaxCrossEntropy",
    "TensorRule",
    "WeightOp",
    "Xnor",
]

OPS: dict[str, type[Op]] = {
    op.name: op
    for op in (
        Linear,
        Conv2d,
        Conv1d,
        MaxPool,
        AvgPool,
        Add,
        BatchNorm,
        Sign,
        Xnor,
        Or,
        Flatten,
        GlobalAveragePool,
        SoftmaxCrossEntropy,
    )
}
