"""What a plan chooses beside its model, and what that makes of every op."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgetrain.arena import Tensor
from edgetrain.gradient import Gradient
from edgetrain.lifetime import Steps
from edgetrain.model import Block, Model
from edgetrain.ops import Add, Branch, Context, Op
from edgetrain.ops.op import Holding, Mode

__all__ = ["Choices", "tensors", "walk"]


@dataclass(frozen=True)
class Choices:
    """How a model is trained.

    remade are the blocks whose output's gradient is made twice, an example at a time, and never
    exists whole; streamed are those whose sums are made three times, some examples at a time.
    Where data are gathered, patches of them are made as they are read. Without reuse every tensor
    keeps a place of its own.
    """

    mode: Mode
    latent: Holding
    gradient: Gradient
    micro_batch: int
    threads: int
    reuse: bool = True
    remade: frozenset[int] = frozenset()
    streamed: frozenset[int] = frozenset()
    gathered: bool = False

    def lowest(self, model: Model) -> int:
        """Return the lowest block that a gradient reaches: the last, where signs alone are held."""
        return model.depth - 1 if self.latent == "signs" else model.lowest_trained


def walk(model: Model, choices: Choices) -> Iterator[tuple[Block, Op, Context]]:
    """Yield every op with its block and where it stands."""
    blocks, lowest = list(model.blocks()), choices.lowest(model)
    for block in blocks:
        signal = block.source
        for op in block.ops:
            context = Context(
                block.index,
                signal,
                choices.mode,
                choices.micro_batch,
                choices.threads,
                last=block.index == len(blocks) - 1,
                block_pixels=block.pixels,
                branch=_branch(blocks, block, choices.mode),
                lowest=lowest,
                latent=choices.latent,
                gradient=block.gradient(choices.gradient),
                twice=block.index - 1 in choices.remade,
                remade=block.index in choices.remade,
                streamed=block.index in choices.streamed,
                gathered=choices.gathered and block.index == 0,
            )
            yield block, op, context
            signal = op.flow(signal)


def tensors(model: Model, choices: Choices) -> list[Tensor]:
    """Return every tensor of a step, and when it is alive."""
    steps, opening = Steps.of(model, choices.lowest(model)), next(model.blocks())
    found: list[Tensor] = []
    size = choices.micro_batch * opening.weights.input_bytes(opening.source)
    # Where the first layer is frozen, nothing reads the data again.
    last = 1 if choices.reuse and steps.lowest else steps.last
    if not choices.gathered:
        found.append(Tensor("input", size, 0, last))
    for block, op, context in walk(model, choices):
        for rule in op.tensors(context):
            life = steps.life(rule.phase, block.index) if choices.reuse else (0, steps.last)
            found.append(Tensor(f"layer{block.index}.{rule.name}", rule.bytes, *life))
    return found


def _branch(blocks: list[Block], block: Block, mode: Mode) -> Branch | None:
    if block.shortcut is None:
        return None
    below = block.index - block.shortcut.back
    adds = isinstance(block.shortcut, Add)
    return Branch(below, blocks[below].bits, adds, block.weights.product_unit(mode))
