"""The rival: a binary network trained in torch, float32 latents and Adam (Courbariaux et al. 2016).

The only module of the package that imports torch. It is written to be fast, so that what is
measured against it means something: signs by `copysign` (six times faster than `where` on a CPU),
the straight-through estimator with its mask in one op, clipping and Adam over all tensors at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgetrain.bench.measure import (
    Request,
    Sample,
    Stopwatch,
    answer,
    memory_baseline,
    peak_bytes,
)
from edgetrain.bench.networks import find_network

__all__ = [
    "VARIANTS",
    "BinaryLinear",
    "Local",
    "Variant",
    "accuracy",
    "adam",
    "binary_mlp",
    "clip_latents",
    "float_mlp",
    "make_step",
    "measure",
    "train",
]

ONE = torch.ones(())
EVALUATED_AT_ONCE = 4096
Step = Callable[[Tensor, Tensor], None]
Fused = Literal["loop", "foreach", "fused"]


class SignOfLatent(torch.autograd.Function):
    """sign(W), the gradient passed straight through: the latent is clipped instead."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:  # noqa: ARG004
        return torch.copysign(ONE, latent)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient


class SignOfActivation(torch.autograd.Function):
    """sign(x), the gradient passed through where |x| < 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.copysign(ONE, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = torch.ops.aten.hardtanh_backward(gradient, x, -1.0, 1.0)
        return result


class BinaryLinear(nn.Linear):
    """y = sign(W) x."""

    def forward(self, input: Tensor) -> Tensor:
        signs = SignOfLatent.apply(self.weight)  # type: ignore[no-untyped-call]
        return nn.functional.linear(input, signs)


class BinaryActivation(nn.Module):
    """x -> +1 or -1."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = SignOfActivation.apply(x)  # type: ignore[no-untyped-call]
        return result


def binary_mlp(
    widths: Sequence[int], *, first_binary: bool = True, last_binary: bool = True
) -> nn.Sequential:
    """Return the binary network: (linear, batch norm, sign)..., linear, batch norm.

    The outer layers may keep float32 weights; their activations are signs all the same.
    """
    layers: list[nn.Module] = []
    last = len(widths) - 2
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        binary = (number > 0 or first_binary) and (number < last or last_binary)
        kind = BinaryLinear if binary else nn.Linear
        layers += [kind(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)]
        if number < last:
            layers.append(BinaryActivation())
    return nn.Sequential(*layers)


def float_mlp(widths: Sequence[int]) -> nn.Sequential:
    """Return the same network, not binary: linear, batch norm and ReLU in float32."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1]))
    return nn.Sequential(*layers)


def adam(model: nn.Module, learning_rate: float, kind: Fused = "fused") -> torch.optim.Adam:
    """Return Adam over every parameter, one tensor at a time ("loop") or all at once."""
    foreach, fused = kind == "foreach", kind == "fused"
    return torch.optim.Adam(model.parameters(), learning_rate, foreach=foreach, fused=fused)


def latents(model: nn.Module) -> list[Tensor]:
    """Return the weights that have a sign taken of them."""
    return [layer.weight for layer in model.modules() if isinstance(layer, BinaryLinear)]


@torch.no_grad()
def clip_latents(weights: list[Tensor]) -> None:
    """Clip every latent to [-1, 1], all in two calls."""
    if weights:
        torch._foreach_clamp_min_(weights, -1.0)
        torch._foreach_clamp_max_(weights, 1.0)


@dataclass(frozen=True)
class Variant:
    """One way of running the step: what is compiled, and which Adam."""

    compiled: Literal["nothing", "loss", "step"]
    optimizer: Fused

    @property
    def name(self) -> str:
        """The variant in words."""
        how = {
            "nothing": "eager",
            "loss": "compiled forward and backward",
            "step": "compiled with its optimizer",
        }
        return f"{how[self.compiled]}, {self.optimizer} Adam"


VARIANTS: dict[str, Variant] = {
    "eager-loop": Variant("nothing", "loop"),
    "eager-foreach": Variant("nothing", "foreach"),
    "eager-fused": Variant("nothing", "fused"),
    "compiled-foreach": Variant("loss", "foreach"),
    "compiled-fused": Variant("loss", "fused"),
    "compiled-step": Variant("step", "foreach"),
}
"""A name that starts with "compiled" needs a C++ compiler."""


def make_step(model: nn.Module, variant: Variant, learning_rate: float = 1e-3) -> Step:
    """Return step(x, y): forward, backward, Adam, clip, run as the variant says."""
    weights = latents(model)
    optimizer = adam(model, learning_rate, variant.optimizer)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    run: Callable[[Tensor, Tensor], Tensor] = loss
    if variant.compiled == "loss":
        run = torch.compile(loss)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        run(x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        clip_latents(weights)

    return torch.compile(step) if variant.compiled == "step" else step


@dataclass(frozen=True)
class Local:
    """How a model is trained on data of its own."""

    batch: int
    learning_rate: float
    final_rate: float = 1.0
    """The learning rate at the end, as a share of that at the start; it falls linearly."""
    epochs: int = 1
    optimizer: Literal["adam", "sgd"] = "adam"


def train(
    model: nn.Module, x: Tensor, y: Tensor, local: Local, generator: torch.Generator
) -> nn.Module:
    """Train the model over float32 x (N, features) and int64 y (N,), and return it.

    A last batch of one example is left out, because batch norm has no statistics of it.
    """
    model.train()
    weights, optimizer = latents(model), make_optimizer(model, local)
    steps = local.epochs * -(-len(x) // local.batch)
    step = 0
    for _ in range(local.epochs):
        for part in torch.split(torch.randperm(len(x), generator=generator), local.batch):
            rate = local.learning_rate * max(local.final_rate, 1 - step / steps)
            step += 1
            if len(part) == 1:
                continue
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x[part]), y[part])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            clip_latents(weights)
    return model


def make_optimizer(model: nn.Module, local: Local) -> torch.optim.Optimizer:
    """Return fused Adam, or fused SGD with momentum 0.9."""
    if local.optimizer == "adam":
        return adam(model, local.learning_rate)
    return torch.optim.SGD(model.parameters(), local.learning_rate, momentum=0.9, fused=True)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of float32 x (N, features) that is classified as y says, in [0, 1]."""
    model.eval()
    guesses = torch.cat([model(part).argmax(1) for part in torch.split(x, EVALUATED_AT_ONCE)])
    return float((guesses == y).float().mean())


def measure(request: Request) -> Sample:
    """Measure a step, after a tiny network has made torch load its libraries."""
    torch.set_num_threads(request.threads)
    torch.manual_seed(0)
    network, variant = find_network(request.network), VARIANTS[request.variant]
    x = torch.randn(request.batch, network.inputs)
    y = torch.arange(request.batch) % network.classes
    tiny = make_step(binary_mlp((8, 8, 2)), variant)
    for _ in range(2):
        tiny(torch.randn(4, 8), torch.zeros(4, dtype=torch.long))
    del tiny

    watch = Stopwatch()
    base = memory_baseline()
    step = make_step(binary_mlp(network.widths), variant)
    watch.run(lambda: step(x, y), request.seconds)
    growth = peak_bytes() - base
    return Sample(watch.median_ms, growth)


if __name__ == "__main__":
    answer(measure)
