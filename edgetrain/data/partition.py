"""Who holds what: deterministic ways to deal one training set to a fleet of devices.

Every scheme returns one sorted int64 index array a device; together they hold every sample
exactly once, and the same seed deals the same hands. "group" is what a real fleet looks like
(each device its own person); the others isolate one kind of difference:

- "iid": sizes equal within one, labels alike.
- "dirichlet": label skew; the shares of a class over the devices are drawn from Dir(alpha).
  A device that already holds its fair share gets no more (the balance guard of NIID-Bench),
  which makes it a little milder than the plain draw.
- "shards": label skew at its worst; samples sorted by label, cut into equal shards, and a few
  shards dealt to each device (McMahan et al., 2017).
- "quantity": size skew; labels alike, sizes drawn from Dir(alpha).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetrain.data.dataset import Dataset, Indices, Labels
from edgetrain.errors import ConfigError, DataError

__all__ = ["PARTITIONS", "partition"]

DIRICHLET_TRIES = 1000


@dataclass(frozen=True)
class Deal:
    """Everything a scheme may look at: labels (N,) uint8, groups (N,) int64 or None."""

    labels: Labels
    groups: Indices | None
    devices: int
    seed: int
    alpha: float
    shards_per_device: int
    minimum: int

    @property
    def examples(self) -> int:
        return len(self.labels)

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def partition(
    dataset: Dataset,
    scheme: str = "group",
    devices: int | None = None,
    *,
    seed: int = 0,
    alpha: float = 0.5,
    shards_per_device: int = 2,
    minimum: int = 10,
) -> tuple[Indices, ...]:
    """Deal a data set to `devices`: one sorted int64 index array a device, each sample once.

    devices may be left out for "group" alone, which makes one device a group. alpha is the
    concentration of "dirichlet" and "quantity" (small: unequal), `minimum` the samples that
    those two leave a device at least, shards_per_device belongs to "shards". Raises ConfigError
    for a scheme or number that makes no sense, DataError when the data cannot be dealt so.
    """
    if scheme not in PARTITIONS:
        near = difflib.get_close_matches(scheme, PARTITIONS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(PARTITIONS)}"
        raise ConfigError(f"no partition is called {scheme!r}: {hint}")
    if devices is None and scheme != "group":
        raise ConfigError(f"partition {scheme!r} needs the number of devices: set devices")
    if devices is not None and devices < 1:
        raise ConfigError(f"{devices} devices: a fleet has at least 1")
    if not alpha > 0 or shards_per_device < 1 or minimum < 1:
        raise ConfigError("alpha must be above 0, shards_per_device and minimum at least 1")
    if not len(dataset) or (devices or 1) > len(dataset):
        raise DataError(
            f"{len(dataset)} samples cannot be dealt to {devices or 1} devices: use fewer devices"
        )
    if devices is None:
        devices = 0 if dataset.groups is None else len(np.unique(dataset.groups))
    deal = Deal(
        dataset.labels, dataset.groups, devices, seed, float(alpha), shards_per_device, minimum
    )
    return tuple(np.sort(np.asarray(hand, np.int64)) for hand in PARTITIONS[scheme](deal))


def _by_group(deal: Deal) -> list[Indices]:
    if deal.groups is None:
        raise DataError(
            "this data does not say whose a sample is: add a group.npy, or use partition 'iid'"
        )
    known = np.unique(deal.groups)
    if deal.devices != len(known):
        raise ConfigError(
            f"partition 'group' makes one device a group: the data has {len(known)} groups and "
            f"the fleet {deal.devices} devices; make them equal, or use partition 'iid'"
        )
    return [np.flatnonzero(deal.groups == group) for group in known]


def _iid(deal: Deal) -> list[Indices]:
    return np.array_split(deal.generator().permutation(deal.examples), deal.devices)


def _dirichlet(deal: Deal) -> list[Indices]:
    _check_minimum(deal)
    random = deal.generator()
    for _ in range(DIRICHLET_TRIES):
        owner = _draw_dirichlet(deal, random)
        sizes = np.bincount(owner, minlength=deal.devices)
        if sizes.min() >= deal.minimum:
            return np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    raise DataError(
        f"no draw of {DIRICHLET_TRIES} left every device {deal.minimum} samples: "
        f"raise alpha (now {deal.alpha}), lower minimum, or use fewer devices"
    )


def _draw_dirichlet(deal: Deal, random: np.random.Generator) -> Indices:
    """Return who holds each sample, (examples,) int64."""
    owner = np.zeros(deal.examples, np.int64)
    sizes = np.zeros(deal.devices, np.int64)
    for label in np.unique(deal.labels):
        members = random.permutation(np.flatnonzero(deal.labels == label))
        open_hands = sizes < deal.examples / deal.devices
        shares = random.dirichlet(np.full(deal.devices, deal.alpha)) * open_hands
        if not shares.sum() > 0:  # a tiny alpha can give all of a class to a hand that is full
            shares = open_hands.astype(np.float64)
        ends = _ends(len(members), shares / shares.sum())
        pieces = np.diff(ends, prepend=0, append=len(members))
        owner[members] = np.repeat(np.arange(deal.devices), pieces)
        sizes += pieces
    return owner


def _shards(deal: Deal) -> list[Indices]:
    count = deal.devices * deal.shards_per_device
    if count > deal.examples:
        raise DataError(
            f"{deal.examples} samples cannot be cut into {count} shards: lower shards_per_device "
            "or use fewer devices"
        )
    pieces = np.array_split(np.argsort(deal.labels, kind="stable"), count)
    order = deal.generator().permutation(count).reshape(deal.devices, deal.shards_per_device)
    return [np.concatenate([pieces[shard] for shard in hand]) for hand in order]


def _quantity(deal: Deal) -> list[Indices]:
    _check_minimum(deal)
    random = deal.generator()
    shares = random.dirichlet(np.full(deal.devices, deal.alpha))
    # Everyone gets the minimum first, so that rounding cannot leave a device short of it.
    members = random.permutation(deal.examples)
    first = deal.minimum * deal.devices
    sure, rest = members[:first].reshape(deal.devices, deal.minimum), members[first:]
    return [
        np.concatenate([own, more])
        for own, more in zip(sure, np.split(rest, _ends(len(rest), shares)), strict=True)
    ]


def _ends(count: int, shares: NDArray[np.float64]) -> Indices:
    """Return where to cut `count` samples so that the pieces follow shares, which add up to 1."""
    return (np.cumsum(shares)[:-1] * count).astype(np.int64).clip(max=count)


def _check_minimum(deal: Deal) -> None:
    if deal.minimum * deal.devices > deal.examples:
        raise DataError(
            f"{deal.examples} samples cannot leave each of {deal.devices} devices "
            f"{deal.minimum}: lower minimum or use fewer devices"
        )


PARTITIONS: dict[str, Callable[[Deal], list[Indices]]] = {
    "group": _by_group,
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
    "quantity": _quantity,
}
