"""Makes a model of a torch module's layers, to train it within a device's memory.

Needs torch, which is loaded as a module is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgetrain.chain import Chain, Kernel, fitting
from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.ops.weights import Training

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["from_torch"]

Read = Callable[[Chain, Any], object]


def _kernel(layer: Any) -> Kernel:
    """Return the kernel or window of a layer of torch.nn."""
    axes = 1 if type(layer).__name__.endswith("1d") else 2

    def each(value: Any) -> tuple[int, ...]:
        return tuple(value) if isinstance(value, tuple) else (value,) * axes

    if getattr(layer, "ceil_mode", False):
        raise ModelError("windows that are not whole are left out: choose ceil_mode=False")
    missing = None if layer.padding == "same" else (0,) * axes
    if not isinstance(layer.padding, str):
        missing = tuple(2 * zeros for zeros in each(layer.padding))
    return Kernel(
        each(layer.kernel_size),
        each(layer.stride if layer.stride is not None else layer.kernel_size),
        missing,
        each(getattr(layer, "dilation", 1)),
    )


def _convolution(chain: Chain, layer: Any) -> None:
    if layer.padding_mode != "zeros":
        raise ModelError(f"it pads with {layer.padding_mode}: choose zeros")
    chain.convolution(layer.in_channels, layer.out_channels, _kernel(layer), layer.groups)


def _average(chain: Chain, layer: Any) -> None:
    if layer.output_size not in (1, (1,), (1, 1)):
        raise ModelError("averages are over all pixels: choose an output of size 1")
    chain.average()


MODULES: dict[str, Read] = {
    "Linear": lambda chain, it: chain.linear(it.in_features, it.out_features),
    **dict.fromkeys(("Conv1d", "Conv2d"), _convolution),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d"), lambda chain, it: chain.pool_maxima(_kernel(it))),
    **dict.fromkeys(("AvgPool1d", "AvgPool2d"), lambda chain, it: chain.pool_averages(_kernel(it))),
    **dict.fromkeys(("AdaptiveAvgPool1d", "AdaptiveAvgPool2d"), _average),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d"), lambda chain, _: chain.normalise()),
    **dict.fromkeys(
        ("ReLU", "ReLU6", "LeakyReLU", "Hardtanh", "Tanh", "Sigmoid", "Softsign", "Hardsigmoid"),
        lambda chain, _: chain.activate(),
    ),
    "Flatten": lambda chain, _: chain.flatten(),
    **dict.fromkeys(("Softmax", "LogSoftmax"), lambda chain, _: chain.end()),
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d", "Identity"), lambda *_: None),
}
"""How a layer of torch.nn is read, by its class."""

CALLS: dict[str, Read] = {
    **dict.fromkeys(
        ("relu", "relu_", "relu6", "leaky_relu", "hardtanh", "tanh", "sigmoid", "sign"),
        lambda chain, _: chain.activate(),
    ),
    "flatten": lambda chain, _: chain.flatten(),
    **dict.fromkeys(("softmax", "log_softmax"), lambda chain, _: chain.end()),
    "dropout": lambda *_: None,
}
"""How a function or a method that a module calls is read, by its name."""


def from_torch(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    first: Training = "int8",
    last: Training = "int8",
) -> Model:
    """Return the model of a module whose layers follow one another, whatever their weights are.

    input_shape is that of an example as a trainer takes it: (features,), (length, channels) or
    (height, width, channels). See edgetrain.chain for what becomes of a layer; first and last are
    how the outer ones are trained. Raises ModelError naming the first layer that does not fit.
    """
    try:
        from torch import fx  # noqa: PLC0415 - a device has none
    except ModuleNotFoundError:
        raise ModelError(
            "there is no torch to read a module: pip install 'edgetrain[torch]'"
        ) from None
    try:
        graph = fx.symbolic_trace(module).graph
    except Exception as error:  # tracing runs the module's own code, which can fail in any way
        raise ModelError(
            f"the module cannot be traced: {error}: write its layers in a row"
        ) from None
    chain, value = Chain(input_shape), None
    for node in graph.nodes:
        if node.op == "placeholder" and value is None:
            value = node
        elif node.op == "output":
            with fitting("the output"):
                _check_row(node, value)
        elif not _is_size(node):
            with fitting(_name(node, module)):
                _check_row(node, value)
                _read(chain, node, module)
            value = node
    return chain.model(first, last)


def _read(chain: Chain, node: fx.Node, module: nn.Module) -> None:
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        MODULES.get(type(layer).__name__, _unknown)(chain, layer)
    elif node.op in ("call_function", "call_method"):
        name = getattr(node.target, "__name__", str(node.target))
        if name in ("view", "reshape") and node.args[-1] == -1 and len(node.args) == 3:
            name = "flatten"
        CALLS.get(name, _unknown)(chain, node)
    else:
        _unknown(chain, node)


def _unknown(chain: Chain, layer: object) -> None:
    del chain, layer
    raise ModelError(f"there is nothing like it here: write {', '.join(MODULES)}")


def _name(node: fx.Node, module: nn.Module) -> str:
    """Return a layer's name and class, or that of the function called."""
    if node.op == "call_module":
        return f"{node.target} ({type(module.get_submodule(str(node.target))).__name__})"
    return node.name


def _check_row(node: fx.Node, value: object) -> None:
    """Raise ModelError where a layer reads another value than that of the layer before."""
    others = [read for read in node.all_input_nodes if read is not value and not _is_size(read)]
    if others or value not in node.all_input_nodes:
        raise ModelError("it does not read what the layer before it gives, and nothing else")


def _is_size(node: fx.Node) -> bool:
    """Return whether a call asks for the number of examples, to reshape by."""
    return node.op == "call_method" and node.target == "size"
