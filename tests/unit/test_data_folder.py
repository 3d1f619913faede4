"""Anyone's folder: integers as they are, floats by recorded constants, and clear refusals."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain.data import Scaling, load
from edgetrain.data.scaling import fit
from edgetrain.errors import ConfigError, DataError

EXAMPLES = 40


def make(folder, **arrays):
    random = np.random.default_rng(0)
    arrays = {
        "x": random.integers(0, 256, (EXAMPLES, 4, 3)).astype(np.uint8),
        "y": np.arange(EXAMPLES) % 3,
    } | arrays
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return arrays


def test_integers_are_used_as_they_are(tmp_path):
    arrays = make(tmp_path)
    splits = load(tmp_path, test_fraction=0.25, seed=1)
    assert (len(splits.train), len(splits.test)) == (30, 10)
    assert splits.scaling is None
    assert (splits.classes, splits.feature_shape) == (3, (4, 3))
    rows = np.concatenate([splits.train.samples, splits.test.samples])
    assert sorted(r.tobytes() for r in rows) == sorted(r.tobytes() for r in arrays["x"])
    again = load(tmp_path, test_fraction=0.25, seed=1)
    assert np.array_equal(again.train.features, splits.train.features)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (np.array([[0, 255]] * 4, np.int64), np.uint8),
        (np.array([[-128, 127]] * 4, np.int32), np.int8),
        (np.array([[-128, 127]] * 4, np.int8), np.int8),
        (np.array([[True, False]] * 4), np.uint8),
        (np.asfortranarray(np.arange(8, dtype=np.uint8).reshape(4, 2)), np.uint8),
    ],
)
def test_integers_of_any_width_that_fit(tmp_path, x, dtype):
    make(tmp_path, x=x, y=np.zeros(4, int))
    splits = load(tmp_path)
    assert splits.train.features.dtype == dtype
    assert splits.train.features.flags.c_contiguous
    assert splits.train.features.tolist()[0] in x.astype(int).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_are_scaled_by_constants_of_the_training_part(tmp_path, dtype):
    x = np.random.default_rng(0).normal([5, 0], [0.1, 30], (EXAMPLES, 8, 2)).astype(dtype)
    group = np.arange(EXAMPLES) % 4
    x[group == 3] += 4  # the test part must not move the constants
    make(tmp_path, x=x, group=group)
    splits = load(tmp_path, test_groups=[3])
    assert splits.scaling == fit(np.asarray(x)[group != 3])
    assert len(splits.scaling.center) == 2
    assert splits.train.features.dtype == np.int8
    expected = splits.scaling.apply(np.asarray(x)[group == 3])
    assert np.array_equal(splits.test.samples, expected)


def test_recorded_constants_are_used(tmp_path):
    make(tmp_path, x=np.full((EXAMPLES, 2), 3.0, np.float32))
    Scaling((1.0, 2.0), (0.5, 0.25)).save(tmp_path / "scaling.json")
    assert load(tmp_path).train.features[0].tolist() == [4, 4]


def test_a_folder_may_bring_its_own_test_part_and_class_names(tmp_path):
    arrays = make(tmp_path)
    make(tmp_path, x_test=arrays["x"][:5], y_test=arrays["y"][:5])
    (tmp_path / "classes.json").write_text('["a", "b", "c", "d"]')
    splits = load(tmp_path)
    assert (len(splits.train), len(splits.test), splits.classes) == (EXAMPLES, 5, 4)
    assert splits.test.class_names == ("a", "b", "c", "d")
    with pytest.raises(ConfigError, match="own test part"):
        load(tmp_path, test_fraction=0.5)


def test_subjects_are_held_out_whole_with_all_their_devices(tmp_path):
    subject = np.arange(EXAMPLES) % 5
    make(tmp_path, group=np.arange(EXAMPLES) % 10, subject=subject)
    splits = load(tmp_path, test_fraction=0.4, seed=2)
    assert len(np.unique(splits.test.groups)) == 4
    assert not set(splits.train.subjects) & set(splits.test.subjects)
    assert not set(splits.train.groups) & set(splits.test.groups)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_scaling_inverts_within_half_a_step_where_nothing_is_cut_off(data):
    channels = data.draw(st.integers(1, 4))
    size = st.floats(-1e6, 1e6, width=32)
    row = st.lists(size, min_size=channels, max_size=channels)
    x = np.array(data.draw(st.lists(row, min_size=1, max_size=20)), np.float64)
    scaling = fit(x)
    q = scaling.apply(x)
    inside = np.abs(q) < 127
    back = q * np.array(scaling.step) + np.array(scaling.center)
    tolerance = np.broadcast_to(np.array(scaling.step) / 2 + 1e-9 * np.abs(x).max(), x.shape)
    assert (np.abs(back - x) <= tolerance)[inside].all()
    assert Scaling.from_json(scaling.to_json()) == scaling


def test_scaling_leaves_its_input_alone_and_constants_at_zero():
    x = np.array([[0.1, 1.0]] * 99 + [[0.1, 2.0]])
    before = x.copy()
    scaled = fit(x).apply(x)
    assert np.array_equal(x, before)
    assert not scaled[:, 0].any()
    assert scaled[-1, 1] == 127


FLOATS = np.zeros((EXAMPLES, 2), np.float32)
SPOILED = FLOATS.copy()
SPOILED[7, 1] = np.nan
LABELS = np.arange(EXAMPLES) % 3
BAD = {
    "no x": ({"x": None}, "x.npy is missing"),
    "no y": ({"y": None}, "y.npy is missing"),
    "NaN": ({"x": SPOILED}, "NaN or infinity"),
    "infinite": ({"x": np.where(np.isnan(SPOILED), np.inf, 0)}, "NaN or infinity"),
    "NaN in the test part": ({"x": SPOILED, "group": np.arange(EXAMPLES) == 7}, "group.npy holds"),
    "wide integers": ({"x": np.full((EXAMPLES, 2), 300)}, "do not fit 8 bits"),
    "mixed integers": ({"x": np.array([[-1, 200]] * EXAMPLES)}, "do not fit 8 bits"),
    "complex": ({"x": FLOATS.astype(complex)}, "save integers or floats"),
    "text": ({"x": FLOATS.astype(str)}, "save integers or floats"),
    "flat x": ({"x": np.zeros(EXAMPLES)}, "samples along the first axis"),
    "no features": ({"x": np.zeros((EXAMPLES, 0))}, "samples along the first axis"),
    "no samples": ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "no samples"),
    "one sample": ({"x": np.zeros((1, 2)), "y": np.zeros(1, int)}, "on each side"),
    "length": ({"y": LABELS[:-1]}, "one label a sample"),
    "one-hot": ({"y": np.eye(3, dtype=int)[LABELS]}, "one label a sample"),
    "negative": ({"y": LABELS - 1}, "label -1"),
    "too large": ({"y": LABELS + 254}, "label 256"),
    "real labels": ({"y": LABELS * 1.0}, "labels as integers"),
    "group length": ({"group": LABELS[:3]}, "one integer for each"),
    "pickled": ({"x": np.array([{}] * EXAMPLES)}, "pickled"),
    "other test": ({"x_test": FLOATS, "y_test": LABELS}, "make them alike"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_line_that_names_the_file(tmp_path, name):
    arrays, message = BAD[name]
    make(tmp_path, **arrays)
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    if isinstance(caught.value, DataError):
        assert str(tmp_path) in str(caught.value)


def test_nan_outside_the_training_part_is_found_too(tmp_path):
    make(tmp_path, x=SPOILED, group=(np.arange(EXAMPLES) == 7).astype(int))
    with pytest.raises(DataError, match="NaN or infinity"):
        load(tmp_path, test_groups=[1])


FILES = {
    "text": b"not an array",
    "empty": b"",
    "magic alone": b"\x93NUMPY\x01\x00",
    "zip": b"PK\x03\x04" + bytes(40),
    "huge": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 2), }".ljust(117)
    + b"\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_one_line(tmp_path, name):
    make(tmp_path)
    (tmp_path / "x.npy").write_bytes(FILES[name])
    with pytest.raises(DataError, match=r"x\.npy") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_mutated_array_file_never_crashes(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("folder")
    make(folder)
    whole = bytearray((folder / "x.npy").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 140))] = data.draw(st.integers(0, 255))
    (folder / "x.npy").write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(DataError, ConfigError):
        load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '["a"]', '{"center": [0], "step": [0]}', "[1]"])
def test_broken_side_files_are_one_line(tmp_path, text):
    make(tmp_path, x=FLOATS)
    for name in ("classes.json", "scaling.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            load(tmp_path)
        (tmp_path / name).unlink()


def test_scaling_of_another_width_is_refused(tmp_path):
    make(tmp_path, x=FLOATS)
    text = json.dumps({"center": [0.0], "step": [1.0]})
    (tmp_path / "scaling.json").write_text(text)
    with pytest.raises(DataError, match="1 channels"):
        load(tmp_path)


def test_names_that_do_not_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGETRAIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match="did you mean 'fashion'"):
        load("fashon")
    with pytest.raises(DataError, match="run: edgetrain data fetch fashion"):
        load("fashion")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        load(tmp_path / "file")
