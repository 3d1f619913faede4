"""How the gradient of a layer's sums is held: the one declaration of every format.

The sums' gradient enters two products, that of the layer's input and that of its weights. A
format says what stands in for it there, in how many bits, and which engines can compute with it.
Planner, engines, oracle, commands and tests read the formats from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from edgetrain.errors import ModelError

__all__ = [
    "ENGINES",
    "GRADIENT",
    "GRADIENT_FORMATS",
    "LARGEST_CODE",
    "MOST_DRAWS",
    "Engine",
    "Gradient",
    "GradientFormat",
    "gradient_of",
]

Engine = Literal["native", "reference"]
"""The engine in C++, or the numpy oracle, which is slow and knows every format."""
ENGINES: tuple[Engine, ...] = get_args(Engine)
LARGEST_CODE = 64
"""The largest magnitude of a LUQ code, in units of its scale."""
LARGEST_SPAN = 6
"""Powers of two by which a channel's scale may lie below its tensor's: a sign then weighs 64."""
MOST_DRAWS = 4


@dataclass(frozen=True)
class GradientFormat:
    """A format: its bits an element, and what is known of it.

    unbiased says that the expectation is the value, random that codes are drawn, channel_scales
    that every channel has a scale of its own.
    """

    name: str
    bits: int
    unbiased: bool
    random: bool
    channel_scales: bool
    engines: tuple[Engine, ...]
    paper: str

    @property
    def span(self) -> int:
        """The most powers of two by which a channel's scale may lie below its tensor's."""
        return LARGEST_SPAN if self.channel_scales else 0


GRADIENT_FORMATS: dict[str, GradientFormat] = {
    format_.name: format_
    for format_ in (
        GradientFormat("luq4", 4, True, True, False, ENGINES, "Chmiel et al. 2023"),
        GradientFormat(
            "luq4_channel", 4, True, True, True, ENGINES, "Chmiel et al. 2023, a scale a channel"
        ),
        GradientFormat("radix4_tpr", 4, False, False, False, ("reference",), "Sun et al. 2020"),
        GradientFormat("f32", 32, True, False, False, ("reference",), "no quantisation"),
    )
}


@dataclass(frozen=True)
class Gradient:
    """A plan's choice: a format, and how many draws of it the gradient of the weights sums."""

    format: GradientFormat
    draws: int = 1

    def code_bytes(self, elements: int) -> int:
        """Return the bytes of the codes of a gradient, of every draw."""
        return elements * self.format.bits // 8 * self.draws

    def of_one_scale(self) -> Gradient:
        """Return the choice without scales of channels."""
        return replace(self, format=replace(self.format, channel_scales=False))

    def describe(self) -> str:
        """Return the choice in a phrase, e.g. "luq4, 2 draws"."""
        return self.format.name + (f", {self.draws} draws" if self.draws > 1 else "")

    def check_engine(self, engine: Engine) -> None:
        """Raise ModelError where an engine does not know the format."""
        if engine not in self.format.engines:
            raise ModelError(
                f"the {engine} engine does not run gradient {self.format.name!r}: choose "
                f"--engine {' or '.join(self.format.engines)}"
            )


GRADIENT = Gradient(GRADIENT_FORMATS["luq4"])
"""What a plan chooses unless told."""


def gradient_of(name: str, draws: int = 1) -> Gradient:
    """Return the choice of a format and of draws. Raises ModelError for one that cannot be."""
    if name not in GRADIENT_FORMATS:
        raise ModelError(f"unknown gradient {name!r}: choose one of {', '.join(GRADIENT_FORMATS)}")
    format_ = GRADIENT_FORMATS[name]
    if not 1 <= draws <= MOST_DRAWS:
        raise ModelError(f"{draws} draws: choose 1 to {MOST_DRAWS}")
    if draws > 1 and not format_.random:
        raise ModelError(f"{draws} draws of {name!r} would all be the same: choose 1")
    return Gradient(format_, draws)
