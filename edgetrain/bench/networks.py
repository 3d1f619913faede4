"""The networks that both sides of a measurement build, by name."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from edgetrain.errors import ConfigError

__all__ = ["NETWORKS", "Network", "find_network"]


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron: inputs - hidden... - classes."""

    inputs: int
    hidden: tuple[int, ...]
    classes: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Every width, from the inputs to the classes."""
        return (self.inputs, *self.hidden, self.classes)


NETWORKS: dict[str, Network] = {"mlp": Network(784, (256,) * 4, 10)}


def find_network(name: str) -> Network:
    """Return the network of that name. Raises ConfigError naming the nearest one there is."""
    if name in NETWORKS:
        return NETWORKS[name]
    near = get_close_matches(name, NETWORKS, n=1) or list(NETWORKS)
    raise ConfigError(f"no network is called {name!r}: did you mean {near[0]!r}?")
