"""What training counts: loss and accuracy, and how far an epoch has come."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Epoch", "Metrics"]


@dataclass(frozen=True)
class Metrics:
    """Mean loss and accuracy (0 to 1) over the examples that were really used."""

    loss: float
    accuracy: float
    examples: int

    @classmethod
    def of(cls, loss_sum: float, correct: int, examples: int) -> Metrics:
        """Return the means of sums; zeros where there is no example."""
        if not examples:
            return cls(0.0, 0.0, 0)
        return cls(loss_sum / examples, correct / examples, examples)


@dataclass
class Epoch:
    """How far an epoch has come: its examples, those used, and the sums over these.

    Raises ValueError for numbers that cannot be true, as a damaged checkpoint may hold.
    """

    examples: int = 0
    used: int = 0
    loss: float = 0.0
    correct: int = 0

    def __post_init__(self) -> None:
        whole = (self.examples, self.used, self.correct)
        if any(type(number) is not int for number in whole) or type(self.loss) is not float:
            raise ValueError("its epoch holds what is no number")
        if not 0 <= self.correct <= self.used <= self.examples:
            raise ValueError(f"its epoch has used {self.used} of {self.examples} examples")

    @property
    def finished(self) -> bool:
        """Whether none of its examples is left; so it is where it has not begun."""
        return self.used == self.examples

    @property
    def metrics(self) -> Metrics:
        """The means over the examples used."""
        return Metrics.of(self.loss, self.correct, self.used)
