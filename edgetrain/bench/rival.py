"""The rival: a binary network trained in torch, float32 latents and Adam (Courbariaux et al. 2016).

Torch is imported here and in rival_network alone. Both are written to be fast, so that what is
measured against them means something: clipping and Adam are over all tensors at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
from edgetrain.bench.networks import TINY_BATCH, find_network, tiny
from edgetrain.bench.rival_network import (
    BinaryConv2d,
    BinaryLinear,
    SignOfActivation,
    SignOfLatent,
    binary_mlp,
    binary_network,
    example_shape,
    float_mlp,
)
from edgetrain.model import Model

__all__ = [
    "VARIANTS",
    "BinaryLinear",
    "Local",
    "SignOfActivation",
    "SignOfLatent",
    "Variant",
    "accuracy",
    "adam",
    "binary_mlp",
    "binary_network",
    "clip_latents",
    "float_mlp",
    "make_step",
    "measure",
    "train",
]

EVALUATED_AT_ONCE = 4096
Step = Callable[[Tensor, Tensor], None]
Fused = Literal["loop", "foreach", "fused"]


def adam(model: nn.Module, learning_rate: float, kind: Fused = "fused") -> torch.optim.Adam:
    """Return Adam over every parameter, one tensor at a time ("loop") or all at once."""
    foreach, fused = kind == "foreach", kind == "fused"
    return torch.optim.Adam(model.parameters(), learning_rate, foreach=foreach, fused=fused)


def latents(model: nn.Module) -> list[Tensor]:
    """Return the weights that have a sign taken of them."""
    kinds = (BinaryConv2d, BinaryLinear)
    return [layer.weight for layer in model.modules() if isinstance(layer, kinds)]


@torch.no_grad()
def clip_latents(weights: list[Tensor]) -> None:
    """Clip every latent to [-1, 1], all in two calls."""
    if weights:
        torch._foreach_clamp_min_(weights, -1.0)
        torch._foreach_clamp_max_(weights, 1.0)


@dataclass(frozen=True)
class Variant:
    """One way of running the step: what is compiled, which Adam, and how images are held."""

    compiled: Literal["nothing", "loss", "step"]
    optimizer: Fused
    channels_last: bool = False

    @property
    def name(self) -> str:
        """The variant in words."""
        how = {
            "nothing": "eager",
            "loss": "compiled forward and backward",
            "step": "compiled with its optimizer",
        }
        layout = ", channels last" if self.channels_last else ""
        return f"{how[self.compiled]}, {self.optimizer} Adam{layout}"


VARIANTS: dict[str, Variant] = {
    "eager-loop": Variant("nothing", "loop"),
    "eager-foreach": Variant("nothing", "foreach"),
    "eager-fused": Variant("nothing", "fused"),
    "compiled-foreach": Variant("loss", "foreach"),
    "compiled-fused": Variant("loss", "fused"),
    "compiled-step": Variant("step", "foreach"),
    "eager-fused-nhwc": Variant("nothing", "fused", channels_last=True),
    "compiled-fused-nhwc": Variant("loss", "fused", channels_last=True),
}
"""A name that starts with "compiled" needs a C++ compiler."""


def make_step(
    model: nn.Module, variant: Variant, optimizer: torch.optim.Optimizer | None = None
) -> Step:
    """Return step(x, y): forward, backward, Adam, clip, run as the variant says.

    An optimizer that is given takes the place of the variant's; its rate may change between steps.
    """
    weights = latents(model)
    optimizer = optimizer or adam(model, 1e-3, variant.optimizer)

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
    model, variant = find_network(request.network), VARIANTS[request.variant]
    x, y = examples(model, request.batch, variant)
    small = tiny(model)
    warm = make_step(build(small, variant), variant)
    for _ in range(2):
        warm(*examples(small, TINY_BATCH, variant))
    del warm

    watch = Stopwatch()
    base = memory_baseline()
    step = make_step(build(model, variant), variant)
    watch.run(lambda: step(x, y), request.seconds)
    growth = peak_bytes() - base
    return Sample(watch.median_ms, growth)


def build(model: Model, variant: Variant) -> nn.Module:
    """Return the rival's network of a model, held as the variant says."""
    network = binary_network(model)
    if variant.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def examples(model: Model, batch: int, variant: Variant) -> tuple[Tensor, Tensor]:
    """Return a batch for the rival's network of a model, held as the variant says."""
    x = torch.randn(batch, *example_shape(model))
    if variant.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    return x, torch.arange(batch) % model.classes


if __name__ == "__main__":
    answer(measure)
