"""The native module's edges: hostile plans, forced instruction sets, the generator's statistics."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.errors import DataError, EngineError
from edgetrain.models import mlp
from edgetrain.planner import plan
from edgetrain.reference.random import Purpose, derive, random_bits
from edgetrain.train import Trainer

PROGRAM = plan(mlp(20, 3, (16, 8)), 6).program()
WORDS = len(PROGRAM) // 8
# Five standard errors: a fair generator strays further once in 1.7 million tests.
STANDARD_ERRORS = 5.0


@settings(max_examples=600)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, WORDS - 1),
            st.one_of(
                st.integers(-(2**63), 2**63 - 1),
                st.integers(-2, 300),
                st.sampled_from([64, 128, 4096, 65536, 2**31, 2**40]),
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_hostile_plan_is_refused_or_stays_inside_its_arena(
    changes: list[tuple[int, int]],
) -> None:
    words = list(struct.unpack(f"<{WORDS}q", PROGRAM))
    for position, value in changes:
        # A large arena is the caller's to refuse; here it would only slow the test.
        words[position] = min(value, 2**22) if position == 3 else value
    try:
        engine = _native.Engine(struct.pack(f"<{WORDS}q", *words), 0, "")
    except ValueError:
        return
    features = bytes(range(256)) * 300
    settings_of_step = (0, 1000, 1000, 0.1, 1e-3, 0.1, 0.001, 500, 40)
    count = min(words[1], 4)
    indices = np.arange(count, dtype=np.uint32)
    engine.train(features, False, bytes(count), indices, *settings_of_step)
    engine.evaluate(features, False, bytes(count), indices)


def test_an_offset_that_is_not_needed_is_not_taken() -> None:
    """Layers whose weights are one bit never expand their input, whatever the plan says."""
    words = list(struct.unpack(f"<{WORDS}q", PROGRAM))
    header, linear, rest = 9, 23, 14 + 5
    second = header + linear + rest
    assert words[second : second + 3] == [1, 21, 1], "the record of the second linear layer"
    expanded = second + 2 + 11
    assert words[expanded] == -1
    words[expanded] = 2**40
    with pytest.raises(ValueError, match="expanded that need not be"):
        _native.Engine(struct.pack(f"<{WORDS}q", *words), 0, "")


@given(st.binary(max_size=400))
def test_bytes_that_are_no_plan_are_refused(noise: bytes) -> None:
    with pytest.raises(ValueError, match="plan is damaged"):
        _native.Engine(noise, 0, "")


@given(st.integers(0, WORDS - 1))
def test_a_cut_plan_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="plan is damaged"):
        _native.Engine(PROGRAM[: 8 * length], 0, "")


def test_an_unknown_instruction_set_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETRAIN_ISA", "avx1024")
    with pytest.raises(EngineError, match="EDGETRAIN_ISA is 'avx1024': choose one of portable"):
        Trainer(plan(mlp(8, 2, (4,)), 2))


def test_without_a_wish_the_fastest_instruction_set_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGETRAIN_ISA", raising=False)
    assert Trainer(plan(mlp(8, 2, (4,)), 2)).isa == _native.supported_isas()[-1]


def test_reading_outside_the_arena_is_refused() -> None:
    chosen = plan(mlp(8, 2, (4,)), 2)
    engine = _native.Engine(chosen.program(), 0, "")
    for offset, size in ((chosen.peak_bytes, 1), (0, chosen.peak_bytes + 1), (2**63, 2**63)):
        with pytest.raises(ValueError, match="outside the arena"):
            engine.read(offset, size)
    with pytest.raises(ValueError, match="outside the arena"):
        engine.write(chosen.peak_bytes - 1, b"ab")


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ([0, 9], 2, "label 9 of example 1 is out of range: the model has 2 classes"),
        ([0, 300], 2, "not an integer from 0 to 255"),
        ([0, -1], 2, "not an integer from 0 to 255"),
        ([0], 2, "x holds 2 examples but y 1 labels"),
        ([], 0, "x holds no example"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: list[int], count: int, message: str) -> None:
    trainer = Trainer(plan(mlp(8, 2, (4,)), 2))
    with pytest.raises(DataError, match=message):
        trainer.fit(np.zeros((count, 8), np.uint8), np.array(labels, np.int64))


def test_the_generators_agree() -> None:
    for purpose in Purpose:
        key = derive(2**64 - 1, 2**40, 7, purpose)
        ours = np.frombuffer(_native.random_words(2**64 - 1, 2**40, 7, purpose, 999), np.uint32)
        np.testing.assert_array_equal(ours, random_bits(key, np.arange(999)))


def test_every_bit_of_the_generator_is_fair_and_independent() -> None:
    count = 1 << 16
    streams = [
        np.frombuffer(_native.random_words(0, step, 0, Purpose.WEIGHT_UPDATE, count), np.uint8)
        for step in range(8)
    ]
    bound = STANDARD_ERRORS / np.sqrt(count)
    for stream in streams:
        bits = np.unpackbits(stream).reshape(count, 32) * 2.0 - 1
        assert np.abs(bits.mean(0)).max() < bound
        assert np.abs((bits[1:] * bits[:-1]).mean(0)).max() < bound
    for one, other in pairwise(streams):
        product = (np.unpackbits(one) * 2.0 - 1) * (np.unpackbits(other) * 2.0 - 1)
        assert np.abs(product.reshape(count, 32).mean(0)).max() < bound


def test_bytes_of_the_generator_are_uniform() -> None:
    words = np.frombuffer(_native.random_words(1, 2, 3, Purpose.WEIGHT_UPDATE, 1 << 18), np.uint8)
    counts = np.bincount(words, minlength=256)
    expected = words.size / 256
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # Chi-square of 255 degrees has mean 255 and standard deviation 22.6.
    assert abs(chi_square - 255) < STANDARD_ERRORS * np.sqrt(2 * 255)
