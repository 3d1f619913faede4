"""The bundled set is whole, small, licensed, and never splits a person."""

from __future__ import annotations

import numpy as np
import pytest

from edgetrain.data import load, partition, store
from edgetrain.data.watch import BUNDLE, CLASS_NAMES
from edgetrain.errors import ConfigError, DataError

WINDOWS, DEVICES, PEOPLE = 3605, 20, 10
MAXIMUM_BUNDLE_BYTES = 3_000_000


def test_counts():
    splits = load("watch")
    train, test = splits.train, splits.test
    assert len(train) + len(test) == WINDOWS
    assert (len(np.unique(train.groups)), len(np.unique(test.groups))) == (14, DEVICES - 14)
    assert sorted(np.unique(test.subjects)) == [3, 6, 9]
    assert len(np.unique(train.subjects)) == PEOPLE - 3
    for part in (train, test):
        assert part.features.shape == (len(part), 768)
        assert part.features.dtype == np.int8
        assert part.feature_shape == (128, 6)
        assert part.classes == len(CLASS_NAMES) == 7
        assert (np.bincount(part.labels, minlength=7) > 50).all()
        assert (part.groups // 2 == part.subjects).all()


def test_the_training_part_is_centred_and_channels_weigh_alike():
    """The constants were taken from the training people: there, and only there, it must hold."""
    channels = load("watch").train.samples.reshape(-1, 6).astype(float)
    assert np.abs(channels.mean(axis=0)).max() < 8
    assert 55 < channels.std(axis=0).min() <= channels.std(axis=0).max() < 85
    assert (np.abs(channels) == 127).mean() < 0.15


def test_neighbours_that_share_samples_stay_in_one_part():
    """Windows overlap by half; none of the training part continues in the test part."""
    splits = load("watch")
    heads = {window[:64].tobytes() for window in splits.train.samples}
    tails = {window[64:].tobytes() for window in splits.train.samples}
    assert len(heads & tails) > 1000
    test = splits.test.samples
    assert not any(window[:64].tobytes() in tails for window in test)
    assert not any(window[64:].tobytes() in heads for window in test)


def test_other_people_can_be_held_out():
    splits = load("watch", test_groups=[1])
    assert np.unique(splits.test.subjects).tolist() == [1]
    drawn = load("watch", test_fraction=0.3, seed=4)
    assert not set(drawn.train.subjects) & set(drawn.test.subjects)
    assert 0.15 < len(drawn.test) / WINDOWS < 0.45
    with pytest.raises(ConfigError, match="names 11"):
        load("watch", test_groups=[3, 11])
    with pytest.raises(ConfigError, match="not both"):
        load("watch", test_groups=[3], test_fraction=0.5)
    with pytest.raises(ConfigError, match="on each side"):
        load("watch", test_groups=range(1, 11))


def test_a_device_maps_its_own_windows(tmp_path):
    train = load("watch").train
    rows = partition.partition(train)[5]
    train.take(rows).write(tmp_path / "device.etd")
    with store.open(tmp_path / "device.etd") as data:
        assert np.array_equal(np.asarray(data.features), train.features[rows])
        assert np.array_equal(np.asarray(data.labels), train.labels[rows])


def test_bundle_is_small_and_has_its_licence():
    assert BUNDLE.stat().st_size < MAXIMUM_BUNDLE_BYTES
    assert "Redistribution and use" in BUNDLE.with_suffix(".LICENSE").read_text()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", b"\x93NUMPY"])
def test_a_damaged_bundle_is_one_line(tmp_path, monkeypatch, content):
    broken = tmp_path / "watch.npz"
    broken.write_bytes(content)
    monkeypatch.setattr("edgetrain.data.watch.BUNDLE", broken)
    with pytest.raises(DataError, match="install edgetrain again"):
        load("watch")
