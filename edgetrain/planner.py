"""Plan: a model plus choices, compiled to ops, lifetimes and offsets in one arena.

Pure Python without numpy, so that a device plans for itself. The arena's size is exact: the
engine allocates it once and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import get_args

from edgetrain.arena import Placement, lower_bound, place
from edgetrain.choices import Choices, tensors, walk
from edgetrain.errors import BudgetError, ModelError
from edgetrain.gradient import Gradient, gradient_of
from edgetrain.lifetime import Steps
from edgetrain.model import Block, Model
from edgetrain.ops import Arithmetic, Context, Op
from edgetrain.ops.linear import LARGEST_BATCH
from edgetrain.ops.op import Latent, Mode
from edgetrain.ops.weights import LATENTS
from edgetrain.recompute import Recompute, check_recomputed, without_the_largest
from edgetrain.sizes import format_size, parse_size

__all__ = [
    "LARGEST_BATCH",
    "Plan",
    "check_trainable",
    "compile_plan",
    "micro_batches",
    "plan",
    "recomputing",
]

MAGIC = 0x31504154_45474445  # "EDGETAP1", little-endian
SMALLEST_MICRO_BATCH = 2
"""Statistics of a single example have no deviation, so it teaches nothing."""
MOST_THREADS = 64


@dataclass(frozen=True)
class Plan:
    """What the engine will do and where every byte of it lies.

    peak_bytes is the arena's size: all state, activations, gradients and scratch.
    """

    model: Model
    batch: int
    choices: Choices
    placements: tuple[Placement, ...] = field(repr=False)

    @property
    def mode(self) -> Mode:
        """How layers are trained that leave it to the plan."""
        return self.choices.mode

    @property
    def latent(self) -> Latent:
        """How latents are held. Raises ModelError for a plan that predicts, which has none."""
        if self.choices.latent == "signs":
            raise ModelError("a plan that predicts holds signs, and no latents: it cannot train")
        return self.choices.latent

    @property
    def gradient(self) -> Gradient:
        """How the gradient of the sums is held."""
        return self.choices.gradient

    @property
    def micro_batch(self) -> int:
        """Examples that are trained on at a time."""
        return self.choices.micro_batch

    @property
    def threads(self) -> int:
        """Threads of the engine."""
        return self.choices.threads

    @property
    def remade(self) -> frozenset[int]:
        """The blocks whose output's gradient is made twice."""
        return self.choices.remade

    @property
    def streamed(self) -> frozenset[int]:
        """The blocks whose sums are made three times."""
        return self.choices.streamed

    @property
    def gathered(self) -> bool:
        """Whether patches of the data are made as they are read."""
        return self.choices.gathered

    @property
    def steps(self) -> Steps:
        """The steps of its program."""
        return Steps.of(self.model, self.choices.lowest(self.model))

    @property
    def recomputed(self) -> int:
        """How many tensors are made more than once, so that they never exist whole."""
        return len(self.remade) + len(self.streamed) + self.gathered

    @cached_property
    def peak_bytes(self) -> int:
        """Bytes of the arena, exactly."""
        return max(placement.end for placement in self.placements)

    @property
    def lower_bound_bytes(self) -> int:
        """The most bytes alive at one step, which no placement can undercut."""
        return lower_bound([placement.tensor for placement in self.placements])

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """What one step of one full micro-batch costs."""
        total = Arithmetic()
        for _, op, context in self.walk():
            total += op.arithmetic(context)
        return total

    def offset(self, name: str) -> int:
        """Return where a tensor starts in the arena. Raises KeyError for an unknown name."""
        return self._by_name[name].offset

    def bytes_of(self, name: str) -> int:
        """Return the bytes of a tensor. Raises KeyError for an unknown name."""
        return self._by_name[name].tensor.bytes

    @cached_property
    def _by_name(self) -> dict[str, Placement]:
        return {placement.tensor.name: placement for placement in self.placements}

    def program(self) -> bytes:
        """Return what the native engine executes: little-endian 64-bit words.

        Raises ModelError for a gradient format that it does not run.
        """
        self.gradient.check_engine("native")
        blocks = list(self.model.blocks())
        words = [
            MAGIC,
            self.micro_batch,
            self.threads,
            self.peak_bytes,
            self.model.input_features,
            self._input_offset,
            self.gradient.draws,
            len(blocks),
            self.choices.lowest(self.model),
        ]
        for block, op, context in self.walk():
            if op.opcode == 0:
                continue
            record = op.record(context, self._offsets(block))
            words += [op.opcode, len(record), *record]
        return struct.pack(f"<{len(words)}q", *words)

    @property
    def _input_offset(self) -> int:
        """Where the data are copied to, -1 where they are read where they lie."""
        return -1 if self.gathered else self.offset("input")

    def walk(self) -> Iterator[tuple[Block, Op, Context]]:
        """Yield every op with its block and where it stands in the plan."""
        return walk(self.model, self.choices)

    def _offsets(self, block: Block) -> dict[str, int]:
        prefix = f"layer{block.index}."
        offsets = {
            name.removeprefix(prefix): placement.offset
            for name, placement in self._by_name.items()
            if name.startswith(prefix)
        }
        below = block.index - 1
        # What a layer reads is the data, the bits below it or, as bytes, their sums over pixels.
        read = "features" if block.source.kind == "int8" else "sign"
        offsets["input"] = (
            self.offset(f"layer{below}.{read}") if block.index else self._input_offset
        )
        if below in self.remade:
            offsets["input_gradient"] = offsets["example_gradient"]
        elif block.index > self.choices.lowest(self.model):
            offsets["input_gradient"] = self.offset(f"layer{below}.output_gradient")
        else:
            offsets["input_gradient"] = -1
        return offsets

    def explain(self) -> str:
        """Return a text table of every tensor: life in steps, offset, bytes."""
        rows = [("tensor", "life", "offset", "bytes")]
        for placement in sorted(self.placements, key=lambda p: (p.tensor.first, p.offset)):
            tensor = placement.tensor
            life = f"{tensor.first}-{tensor.last}"
            rows.append((tensor.name, life, f"{placement.offset:,}", f"{tensor.bytes:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{name:<{widths[0]}}  {life:>{widths[1]}}  {offset:>{widths[2]}}  {size:>{widths[3]}}"
            for name, life, offset, size in rows
        ]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """Return the arena's size and the plan's choices in one line."""
        waste = self.peak_bytes / self.lower_bound_bytes - 1
        arena = (
            f"arena {self.peak_bytes:,} bytes ({format_size(self.peak_bytes)}), {waste:.1%} over "
            f"the most that is alive at once; mode {self.mode}"
        )
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        if self.choices.latent == "signs":
            return f"{arena}, predicts {self.micro_batch} at a time, {threads}"
        again = [
            f"{what}: layers {', '.join(map(str, sorted(layers)))}"
            for what, layers in (
                ("gradients made twice", self.remade),
                ("sums made three times", self.streamed),
            )
            if layers
        ] + ["patches of the data gathered as they are read"] * self.gathered
        return (
            f"{arena}, latents {self.latent}, {self.gradient.describe()}, micro-batch "
            f"{self.micro_batch} of batch {self.batch}, {threads}, "
            + ("; ".join(again) or "nothing made again")
        )


def plan(
    model: Model,
    batch: int = 100,
    mode: Mode = "bnn",
    *,
    latent: Latent = "int8",
    gradient: str = "luq4",
    draws: int = 1,
    micro_batch: int | None = None,
    threads: int = 1,
    memory: str | int | None = None,
    recompute: Recompute = "auto",
    reuse: bool = True,
) -> Plan:
    """Return the plan that trains a model.

    gradient is a name in edgetrain.gradient.GRADIENT_FORMATS; the gradient of the weights sums as
    many draws of it as draws says, which divides the variance that its codes add.

    Without micro_batch, the largest of batch, batch/2, ... whose arena fits the memory is taken,
    gradients made twice and sums three times (recompute) before it shrinks.
    With reuse=False every tensor keeps a place of its own, so that all can be read after a step.
    latent is how the latents of layers trained as bnn are held: see edgetrain.ops.weights.
    Raises BudgetError naming the smallest arena when none fits, ModelError for a bad choice.
    """
    if mode not in ("bnn", "fsb"):
        raise ModelError(f"unknown mode {mode!r}: choose bnn or fsb")
    if recompute not in get_args(Recompute):
        raise ModelError(f"unknown recompute {recompute!r}: choose auto, always or never")
    if not 1 <= batch <= LARGEST_BATCH:
        raise ModelError(f"batch {batch} is out of range: choose 1 to {LARGEST_BATCH}")
    if not 1 <= threads <= MOST_THREADS:
        raise ModelError(f"{threads} threads: choose 1 to {MOST_THREADS}")
    chosen = gradient_of(gradient, draws)
    if micro_batch is not None and not 1 <= micro_batch <= batch:
        raise ModelError(f"micro-batch {micro_batch} is out of range: choose 1 to {batch}")
    check_trainable(model, mode, latent)
    most = min(block.weights.most_examples(block.source, draws) for block in model.blocks())
    limit = None if memory is None else parse_size(memory)
    tried = micro_batches(batch) if micro_batch is None else (micro_batch,)
    sizes = [size for size in tried if size <= most]
    if not sizes:
        raise ModelError(f"a micro-batch of {tried[-1]} has too many pixels: choose 1 to {most}")
    for size in sizes:
        candidate = compile_plan(model, batch, Choices(mode, latent, chosen, size, threads, reuse))
        goal = {"auto": limit, "always": 0, "never": None}[recompute]
        if goal is not None:
            candidate = _leaner(candidate, goal)
        if limit is None or candidate.peak_bytes <= limit:
            return candidate
    assert limit is not None
    raise BudgetError(
        f"no {mode} plan fits {format_size(limit)}: the smallest, micro-batch "
        f"{candidate.micro_batch}, needs {format_size(candidate.peak_bytes)} "
        f"({candidate.peak_bytes} bytes)"
    )


def recomputing(
    base: Plan, remade: Iterable[int], streamed: Iterable[int], *, gathered: bool = False
) -> Plan:
    """Return the plan that makes the gradients of these blocks twice, and the sums of those thrice.

    gathered says that patches of the data are made as they are read. Raises ModelError for a block
    of which something else asks for them, or for data of which no patches are made.
    """
    again = (frozenset(remade), frozenset(streamed))
    choices = replace(base.choices, remade=again[0], streamed=again[1], gathered=gathered)
    check_recomputed(base.model, choices)
    return compile_plan(base.model, base.batch, choices)


def check_trainable(model: Model, mode: Mode, latent: Latent) -> None:
    """Raise ModelError where the model cannot be trained in a mode, or with such latents."""
    for block in model.blocks():
        block.weights.check_mode(block.source, mode)
    if latent not in LATENTS:
        raise ModelError(f"unknown latents {latent!r}: choose one of {', '.join(LATENTS)}")
    if latent == "int8":
        return
    modes = [block.weights.weight_mode(mode) for block in model.blocks()]
    if "fsb" in modes:
        raise ModelError(
            f"layer {modes.index('fsb')} trains scales of fixed signs and has no {latent} latents: "
            f"choose mode bnn or latents int8"
        )
    if "bnn" not in modes:
        raise ModelError(f"no layer is trained as bnn, so none has {latent} latents: choose int8")


def micro_batches(batch: int) -> tuple[int, ...]:
    """Return the micro-batches worth trying for a batch: halves, down to two examples."""
    sizes = [batch]
    while sizes[-1] > SMALLEST_MICRO_BATCH:
        sizes.append(max(SMALLEST_MICRO_BATCH, -(-sizes[-1] // 2)))
    return tuple(sizes)


def compile_plan(model: Model, batch: int, choices: Choices) -> Plan:
    """Return the plan of choices that were checked."""
    return Plan(model, batch, choices, place(tensors(model, choices)))


def _leaner(candidate: Plan, goal: int) -> Plan:
    """Return the plan that recomputes, until it fits or nothing that could go decides the peak."""
    while candidate.peak_bytes > goal:
        every = [placement.tensor for placement in candidate.placements]
        choices = without_the_largest(candidate.model, candidate.choices, every)
        if choices is None:
            break
        leaner = compile_plan(candidate.model, candidate.batch, choices)
        if leaner.peak_bytes >= candidate.peak_bytes:
            break
        candidate = leaner
    return candidate
