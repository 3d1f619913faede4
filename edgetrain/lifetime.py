"""The steps of a training step, and from which to which a tensor is alive.

Step 0 loads the micro-batch, 1 + i is the forward step of block i, blocks + 1 the loss, and then
each block that a gradient reaches, the last first, has the step of its norm and that of its
products.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgetrain.model import Model
from edgetrain.ops.op import Phase

__all__ = ["Steps"]


@dataclass(frozen=True)
class Steps:
    """The steps of a model: its number of blocks, the lowest that trains, and its shortcuts.

    sources has for every block the number of the block that its shortcut reads, or None.
    """

    blocks: int
    lowest: int
    sources: tuple[int | None, ...]

    @classmethod
    def of(cls, model: Model, lowest: int | None = None) -> Steps:
        """Return the steps of a model; lowest is that which the model says, unless given."""
        sources = tuple(
            None if block.shortcut is None else block.index - block.shortcut.back
            for block in model.blocks()
        )
        reached = model.lowest_trained if lowest is None else lowest
        return cls(len(sources), reached, sources)

    @property
    def last(self) -> int:
        """The last step of all: the products of the first block."""
        return self.products(0)

    @property
    def busy(self) -> range:
        """The steps in which something is done: up to the products of the lowest that trains."""
        return range(self.products(self.lowest) + 1)

    def forward(self, index: int) -> int:
        """Return the forward step of a block."""
        return 1 + index

    def norm(self, index: int) -> int:
        """Return the step in which a block's norm turns its gradient into codes."""
        return 3 * self.blocks - 2 * index

    def products(self, index: int) -> int:
        """Return the step in which a block multiplies its codes."""
        return self.norm(index) + 1

    def describe(self, step: int) -> str:
        """Return what is done in a step, e.g. "forward, layer 3"."""
        if step == 0:
            return "loading"
        if step <= self.blocks:
            return f"forward, layer {step - 1}"
        if step == self.blocks + 1:
            return "loss"
        index = (3 * self.blocks + 1 - step) // 2
        return f"{'norm' if step == self.norm(index) else 'products'}, layer {index}"

    def last_reading(self, index: int) -> int:
        """Return the last step of another block that reads the bits that leave this one."""
        readers = [index + 1, *(i for i, source in enumerate(self.sources) if source == index)]
        return max(self.products(i) if i >= self.lowest else self.forward(i) for i in readers)

    def life(self, phase: Phase, index: int) -> tuple[int, int]:
        """Return the first and last step of a tensor of a block."""
        forward, norm, products = self.forward(index), self.norm(index), self.products(index)
        source = self.sources[index]
        # Below the lowest block that trains nobody takes what is sent.
        receiver = index if source is None or source < self.lowest else source
        return {
            "persistent": (0, self.last),
            "loaded": (0, products),
            "retained": (forward, norm),
            "pooled": (forward, products),
            "passed": (forward, self.last_reading(index)),
            "gradient": (norm - 1, norm),
            "forward": (forward, forward),
            "norm": (norm, norm),
            "remade": (norm - 1, norm),
            "codes": (norm, products),
            "early_codes": (norm - 1, products),
            "products": (products, products),
            "sent": (norm, max(products, self.norm(receiver))),
        }[phase]
