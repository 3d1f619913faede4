"""Every scheme deals every sample exactly once, and the same seed deals the same hands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.data import PARTITIONS, Dataset
from edgetrain.data.partition import partition
from edgetrain.errors import ConfigError, DataError


def dataset(labels, groups=None) -> Dataset:
    labels = np.asarray(labels, np.uint8)
    groups = None if groups is None else np.asarray(groups, np.int64)
    return Dataset(np.zeros((len(labels), 1), np.uint8), labels, 256, (1,), groups=groups)


def counts(data: Dataset, hands) -> np.ndarray:
    return np.array([np.bincount(data.labels[hand], minlength=10) for hand in hands])


@pytest.mark.parametrize("scheme", PARTITIONS)
@given(data=st.data(), seed=st.integers(0, 2**31), alpha=st.sampled_from([0.01, 0.5, 100.0]))
@settings(max_examples=40)
def test_each_sample_is_dealt_once(scheme, data, seed, alpha):
    examples = data.draw(st.integers(1, 200), label="examples")
    labels = data.draw(st.lists(st.integers(0, 5), min_size=examples, max_size=examples))
    groups = data.draw(st.lists(st.integers(0, 3), min_size=examples, max_size=examples))
    devices = data.draw(st.integers(1, min(examples, 20)), label="devices")
    samples = dataset(labels, groups)
    if scheme == "group":
        devices = len(set(groups))
    options = {"seed": seed, "alpha": alpha, "shards_per_device": 1, "minimum": 1}
    try:
        hands = partition(samples, scheme, devices, **options)
    except DataError:  # a draw cannot always leave everyone a sample
        assert scheme == "dirichlet"
        return
    assert len(hands) == devices
    assert sorted(np.concatenate(hands).tolist()) == list(range(examples))
    assert all(hand.dtype == np.int64 and (np.diff(hand) > 0).all() for hand in hands)
    again = partition(samples, scheme, devices, **options)
    assert all(np.array_equal(a, b) for a, b in zip(hands, again, strict=True))


@pytest.mark.parametrize("scheme", [name for name in PARTITIONS if name != "group"])
def test_another_seed_deals_other_hands(scheme):
    samples = dataset(np.arange(1000) % 10)
    first, second = (partition(samples, scheme, 8, seed=seed) for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_group_makes_one_device_a_group():
    hands = partition(dataset([0, 1, 2, 3], groups=[7, 3, 7, 3]))
    assert [hand.tolist() for hand in hands] == [[1, 3], [0, 2]]


def test_iid_sizes_differ_by_one_at_most():
    sizes = [len(hand) for hand in partition(dataset(np.zeros(103)), "iid", 10)]
    assert max(sizes) - min(sizes) == 1


def test_shards_leave_a_device_few_labels():
    samples = dataset(np.arange(1000) % 10)
    hands = partition(samples, "shards", 10, shards_per_device=2)
    assert (counts(samples, hands) > 0).sum(1).max() <= 2


@pytest.mark.parametrize("scheme", ["dirichlet", "quantity"])
def test_alpha_sets_the_skew_and_minimum_holds(scheme):
    """A small alpha is more uneven than a large one, in what that scheme makes uneven."""
    samples = dataset(np.arange(4000) % 10)

    def unevenness(alpha):
        hands = partition(samples, scheme, 10, alpha=alpha, minimum=15)
        assert min(map(len, hands)) >= 15
        held = counts(samples, hands)
        return held.std() if scheme == "dirichlet" else held.sum(1).std()

    assert unevenness(0.1) > 2 * unevenness(100.0)


BAD = {
    "unknown": (ConfigError, "did you mean 'dirichlet'", {"scheme": "dirichlett", "devices": 2}),
    "no devices": (ConfigError, "needs the number of devices", {"scheme": "iid"}),
    "none": (ConfigError, "at least 1", {"scheme": "iid", "devices": 0}),
    "too many": (DataError, "use fewer devices", {"scheme": "iid", "devices": 21}),
    "too many shards": (DataError, "lower shards_per_device", {"scheme": "shards", "devices": 11}),
    "minimum": (DataError, "lower minimum", {"scheme": "quantity", "devices": 3}),
    "no luck": (DataError, "raise alpha", {"scheme": "dirichlet", "devices": 2, "alpha": 1e-6}),
    "alpha": (ConfigError, "above 0", {"scheme": "dirichlet", "devices": 1, "alpha": 0.0}),
    "no groups": (DataError, r"add a group\.npy", {"scheme": "group"}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_dealt_is_one_line(name):
    kind, message, options = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        partition(dataset([0] * 19 + [1]), **options)
    assert "\n" not in str(caught.value)


def test_group_needs_as_many_devices_as_groups():
    with pytest.raises(ConfigError, match="2 groups and the fleet 3 devices"):
        partition(dataset([0] * 9, groups=[1, 2, 1, 2, 1, 2, 1, 2, 1]), "group", 3)
