"""Updates: what each codec puts on the wire, read back by a decoder written from the schema."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetrain import models
from edgetrain.errors import PayloadError
from edgetrain.keys import derive_key
from edgetrain.schema import STATISTICS, state_schema
from edgetrain.tensorfile import DTYPES, State, Tensor
from edgetrain.update import (
    CODECS,
    LUQ4_UNIT,
    MAXIMUM_CHANGE,
    Codec,
    check_update,
    codec_of,
    encode_update,
    update_bytes,
    update_key,
    update_schema,
)

Integers = npt.NDArray[np.int64]

MODEL = models.mlp(inputs=9, classes=3, hidden=(5, 6))
MODES = ("bnn", "fsb")
# How far the mean of independent draws may lie from its expectation, in standard errors of that
# mean: beyond 5.5 there is a chance of 4e-8 a tensor element, 1e-4 over all that are tested.
STANDARD_ERRORS = 5.5

latents = st.integers(0, 70).flatmap(
    lambda count: st.tuples(
        *(arrays(np.int8, count, elements=st.integers(-127, 127)) for _ in range(2))
    )
)


def change_of(codes: Tensor, maximum: Tensor, count: int) -> Integers:
    """Return the change that luq4 codes stand for, in 1/64 of a step, as the schema defines it."""
    packed = np.frombuffer(codes.data, np.uint8)
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int64)
    exponent = nibbles & 7
    magnitude = np.where(exponent == 0, 0, 1 << np.maximum(exponent - 1, 0))
    return np.where(nibbles >> 3 == 1, -magnitude, magnitude) * int(maximum.view()[0])


def latent_tensor(values: npt.NDArray[np.int8]) -> Tensor:
    return Tensor("I8", values.shape, values.tobytes())


def luq4_change(before: npt.NDArray[np.int8], after: npt.NDArray[np.int8], key: int) -> Integers:
    sent = CODECS["luq4"].encode("w", latent_tensor(before), latent_tensor(after), key)
    return change_of(sent["w.codes"], sent["w.maximum"], before.size)


def random_state(mode: str, seed: int) -> State:
    generator = np.random.default_rng(seed)
    state: State = {}
    for name, (dtype, shape) in state_schema(MODEL, mode).items():
        if dtype == "F32":
            values = generator.random(shape, np.float32).tobytes()
        else:
            low, high = (-127, 128) if dtype == "I8" else (0, 256)
            values = generator.integers(low, high, shape).astype(np.uint8).tobytes()
        state[name] = Tensor(dtype, shape, values)
    return state


@given(latents, st.integers(0, (1 << 64) - 1))
def test_luq4_codes_lie_beside_the_change(
    pair: tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]], key: int
) -> None:
    before, after = pair
    exact = (after.astype(np.int64) - before) * LUQ4_UNIT
    got = luq4_change(before, after, key)
    largest = int(np.abs(exact).max(initial=0)) // LUQ4_UNIT
    assert largest <= MAXIMUM_CHANGE
    # Rounding moves a change to one of the two powers of two beside it, or to one of 0 and the
    # least code: never past zero, never beyond twice or below half.
    assert np.all(got * np.sign(exact) >= 0)
    assert np.all(np.abs(got) <= np.maximum(2 * np.abs(exact), largest))
    assert np.all((2 * np.abs(got) >= np.abs(exact)) | (np.abs(exact) < largest))
    # Zero and the largest change are exact.
    assert np.all(got[exact == 0] == 0)
    extreme = np.abs(exact) == largest * LUQ4_UNIT
    assert np.array_equal(got[extreme], exact[extreme])
    assert len(np.unique(got)) <= 15


def test_luq4_is_unbiased() -> None:
    before = np.zeros(255, np.int8)
    after = np.arange(-127, 128).astype(np.int8)
    exact = after.astype(np.float64) * LUQ4_UNIT
    draws = np.stack([luq4_change(before, after, derive_key(draw)) for draw in range(4000)])
    error = draws.mean(axis=0) - exact
    standard_error = draws.std(axis=0) / math.sqrt(len(draws))
    assert np.all(np.abs(error) <= STANDARD_ERRORS * standard_error + 1e-9)


def test_luq4_is_a_function_of_its_key() -> None:
    before, after = np.zeros(999, np.int8), np.arange(999).astype(np.int8) // 2
    assert np.array_equal(luq4_change(before, after, 5), luq4_change(before, after, 5))
    assert not np.array_equal(luq4_change(before, after, 5), luq4_change(before, after, 6))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("codec", CODECS)
def test_an_update_has_the_tensors_of_its_schema(mode: str, codec: str) -> None:
    before, after = random_state(mode, 0), random_state(mode, 1)
    update = encode_update(before, after, codec, key=3)
    assert {name: (t.dtype, t.shape) for name, t in update.items()} == update_schema(
        MODEL, mode, codec
    )
    check_update(update, MODEL, mode, codec)
    assert sum(len(t.data) for t in update.values()) <= update_bytes(MODEL, mode, codec)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("codec", CODECS)
def test_what_travels_raw_arrives_as_it_is(mode: str, codec: str) -> None:
    before, after = random_state(mode, 0), random_state(mode, 1)
    update = encode_update(before, after, codec, key=3)
    raw = [name for name in after if codec_of(name, codec).name != "luq4"]
    assert {name for name in raw if name.endswith(STATISTICS)}
    for name in raw:
        assert update[name] == after[name]


@pytest.mark.parametrize("mode", MODES)
def test_latents_arrive_within_one_code_of_what_was_learnt(mode: str) -> None:
    before, after = random_state(mode, 0), random_state(mode, 1)
    update = encode_update(before, after, "luq4", key=3)
    for name, tensor in after.items():
        if not name.endswith(".latent"):
            continue
        exact = (
            np.frombuffer(tensor.data, np.int8).astype(np.int64)
            - np.frombuffer(before[name].data, np.int8)
        ) * LUQ4_UNIT
        got = change_of(update[f"{name}.codes"], update[f"{name}.maximum"], tensor.count)
        assert np.all(np.abs(got - exact) <= np.maximum(np.abs(exact), MAXIMUM_CHANGE))


def test_tensors_devices_and_versions_draw_apart() -> None:
    before, after = random_state("bnn", 0), random_state("bnn", 1)
    keys = {update_key(*who) for who in [(0, 1, "a"), (0, 1, "b"), (0, 2, "a"), (1, 1, "a")]}
    assert len(keys) == 4
    sent = {encode_update(before, after, "luq4", key)["layer0.latent.codes"].data for key in keys}
    assert len(sent) == 4


@given(st.lists(st.integers() | st.text(max_size=20), max_size=4, unique=True))
def test_keys_depend_on_every_part_and_its_place(parts: list[int | str]) -> None:
    key = derive_key(*parts)
    assert 0 <= key < 1 << 64
    for index in range(len(parts)):
        assert derive_key(*parts[:index], *parts[index + 1 :]) != key
    if len({str(part) for part in parts}) > 1:
        assert derive_key(*parts[1:], parts[0]) != key


def test_key_bits_are_even() -> None:
    draws = 4096
    keys = [derive_key("draw", number) for number in range(draws)]
    for bit in range(64):
        ones = sum(key >> bit & 1 for key in keys)
        assert abs(ones - draws / 2) <= STANDARD_ERRORS * math.sqrt(draws) / 2


def test_states_that_differ_in_shape_are_refused() -> None:
    before, after = random_state("bnn", 0), random_state("fsb", 0)
    with pytest.raises(PayloadError, match="lacks tensor"):
        encode_update(before, after, "luq4", key=0)


def test_luq4_refuses_what_it_cannot_carry() -> None:
    with pytest.raises(PayloadError, match="U8"):
        CODECS["luq4"].schema("layer0.scale", "U8", (3,))


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
@given(count=st.integers(0, 1000))
def test_the_worst_case_is_never_exceeded(codec: Codec, count: int) -> None:
    sizes = (
        math.prod(shape) * DTYPES[dtype][0]
        for dtype, shape in codec.schema("w", "I8", (count,)).values()
    )
    assert sum(sizes) <= codec.worst_case_bytes(count)
