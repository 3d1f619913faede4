"""The native engine gives the oracle's bits, whatever the instruction set, mode and shape."""

from __future__ import annotations

from dataclasses import astuple
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.gradient import GRADIENT, Gradient
from edgetrain.model import Model
from edgetrain.models import mlp
from edgetrain.planner import plan
from edgetrain.reference import ReferenceNetwork
from edgetrain.reference.random import shuffled
from edgetrain.schema import state_schema
from edgetrain.step import batch_bounds, step_settings
from edgetrain.train import Trainer

ISAS = _native.supported_isas()
# One below, at and above a word and a register, and lengths that divide by nothing.
AWKWARD = (1, 3, 63, 64, 65, 1000)
KINDS = tuple(product(("bnn", "fsb"), ("auto", "int8"), ("auto", "int8")))
DTYPES = {"I8": np.int8, "U8": np.uint8, "F32": np.float32, "U32": np.uint32}


def data(count: int, features: int, classes: int, *, signed: bool = False) -> tuple[Any, Any]:
    """Return random examples, uint8 or int8, and labels."""
    draws = np.random.default_rng(count * 7919 + features)
    x = draws.integers(0, 256, (count, features)).astype(np.uint8)
    return (x.view(np.int8) if signed else x), draws.integers(0, classes, count).astype(np.uint8)


def engine_state(trainer: Trainer) -> dict[str, Any]:
    """Return a trainer's state as arrays."""
    return {
        name: np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in trainer.state().items()
    }


def reference_state(network: ReferenceNetwork) -> dict[str, Any]:
    """Return the oracle's state under the names of the schema."""
    state: dict[str, Any] = {}
    for index, (weights, channels) in enumerate(
        zip(network.weights, network.channels, strict=True)
    ):
        state |= {f"layer{index}.{name}": value for name, value in weights.tensors().items()}
        for name in ("shift", "mean", "deviation"):
            state[f"layer{index}.{name}"] = getattr(channels, name)
    return state


def assert_same_state(trainer: Trainer, network: ReferenceNetwork) -> None:
    """Compare every tensor of the state exactly."""
    ours, oracle = engine_state(trainer), reference_state(network)
    assert ours.keys() == oracle.keys()
    for name, value in oracle.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def run_both(
    model: Model,
    mode: Any,
    x: Any,
    y: Any,
    *,
    batch: int,
    epochs: int = 1,
    threads: int = 1,
    gradient: Gradient = GRADIENT,
) -> tuple[Trainer, ReferenceNetwork]:
    """Train the engine and the oracle alike."""
    form, draws = gradient.format.name, gradient.draws
    chosen = plan(model, batch, mode, gradient=form, draws=draws, threads=threads, reuse=False)
    trainer = Trainer(chosen, seed=5, stream=9)
    trainer.fit(x, y, epochs=epochs)
    network = ReferenceNetwork(model, mode, seed=5, gradient=gradient)
    step = 0
    for epoch in range(epochs):
        order = shuffled(len(x), 5, 9 << 32 | epoch)
        for begin, end in batch_bounds(len(x), batch):
            rows = order[begin:end]
            settings_of_step = step_settings(
                chosen, trainer.learning_rate, 9 << 32 | step, step + 1
            )
            network.train(x[rows], y[rows], settings_of_step)
            step += 1
    return trainer, network


def unpack(words: bytes, count: int, channels: int) -> Any:
    """Return packed signs as booleans, (examples, channels)."""
    bits = np.unpackbits(np.frombuffer(words, np.uint8), bitorder="little")
    return bits.reshape(-1, -(-channels // 32) * 32)[:count, :channels].astype(bool)


def decode(codes: bytes, count: int, channels: int) -> Any:
    """Return 4-bit codes as integers, (examples, channels)."""
    packed = np.frombuffer(codes, np.uint8)
    nibbles = np.stack([packed & 15, packed >> 4], 1).reshape(-1, -(-channels // 32) * 32)
    magnitude = (1 << (nibbles & 7).astype(np.int64)) >> 1
    return np.where(nibbles & 8, -magnitude, magnitude)[:count, :channels]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize(
    ("mode", "width"),
    # A width of one has one scale an output, which fsb refuses by a test of its own; three have
    # three, with a group of one.
    [(mode, width) for mode in ("bnn", "fsb") for width in AWKWARD if (mode, width) != ("fsb", 1)],
)
def test_every_tensor_of_a_step_is_the_oracles(isa: str, mode: str, width: int) -> None:
    model = mlp(width, 5, (width, 40), last="int8", group=1 if width < 8 else 4)
    x, y = data(33, width, 5)
    trainer, network = run_both(model, mode, x, y, batch=33)
    assert trainer.isa == isa
    for index, trace in enumerate(network.traces):
        channels = network.weights[index].outputs
        signs = unpack(trainer.tensor(f"layer{index}.sign"), 33, channels)
        np.testing.assert_array_equal(signs, trace.signs)
        if trace.mask is not None:
            mask = unpack(trainer.tensor(f"layer{index}.mask"), 33, channels)
            np.testing.assert_array_equal(mask, trace.mask)
        codes = decode(trainer.tensor(f"layer{index}.codes"), 33, channels)
        np.testing.assert_array_equal(codes, trace.codes)
    assert_same_state(trainer, network)


@pytest.mark.parametrize(("mode", "first", "last"), KINDS)
def test_whole_runs_are_the_oracles(isa: str, mode: str, first: Any, last: Any) -> None:
    model = mlp(70, 4, (65, 33), first=first, last=last, group=8)
    x, y = data(50, 70, 4, signed=True)
    trainer, network = run_both(model, mode, x, y, batch=16, epochs=3)
    assert trainer.isa == isa
    assert_same_state(trainer, network)
    ours = trainer.evaluate(x, y)
    loss, correct = network.evaluate(x, y)
    assert ours.accuracy == correct / 50
    assert ours.loss == pytest.approx(loss / 50, rel=1e-12)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_no_bit(isa: str, threads: int) -> None:
    model = mlp(100, 3, (130, 70))
    x, y = data(40, 100, 3)
    trainer, network = run_both(model, "bnn", x, y, batch=20, threads=threads)
    assert trainer.isa == isa
    assert_same_state(trainer, network)


@settings(max_examples=40)
@given(
    features=st.integers(2, 90),
    hidden=st.integers(2, 90),
    classes=st.integers(2, 40),
    count=st.integers(1, 30),
    batch=st.integers(1, 12),
    kind=st.sampled_from(KINDS),
    group=st.sampled_from((1, 2, 8, 32)),
    signed=st.booleans(),
)
def test_any_shape_is_the_oracles(
    features: int,
    hidden: int,
    classes: int,
    count: int,
    batch: int,
    kind: Any,
    group: int,
    signed: bool,
) -> None:
    mode, first, last = kind
    group = group if min(features, hidden) > group else 1
    model = mlp(features, classes, (hidden,), first=first, last=last, group=group)
    x, y = data(count, features, classes, signed=signed)
    trainer, network = run_both(model, mode, x, y, batch=batch)
    assert_same_state(trainer, network)


def test_a_single_step_through_the_native_interface_is_the_oracles() -> None:
    model = mlp(20, 3, (10,))
    chosen = plan(model, 8)
    engine = _native.Engine(chosen.program(), 1, "")
    network = ReferenceNetwork(model, "bnn", seed=1)
    x, y = data(8, 20, 3)
    step = step_settings(chosen, 0.1, 77, 1)
    loss, correct = engine.train(x, False, y, np.arange(8, dtype=np.uint32), *astuple(step))
    expected, right = network.train(x, y, step)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert correct == right
    for name, (dtype, _) in state_schema(model, "bnn").items():
        stored = engine.read(chosen.offset(name), chosen.bytes_of(name))
        value = reference_state(network)[name]
        np.testing.assert_array_equal(np.frombuffer(stored, DTYPES[dtype]), value.reshape(-1))


def test_the_order_of_an_epoch_is_the_oracles() -> None:
    for count in AWKWARD:
        ours = np.frombuffer(_native.shuffled(count, 3, 4), np.uint32)
        np.testing.assert_array_equal(ours, shuffled(count, 3, 4))
        np.testing.assert_array_equal(np.sort(ours), np.arange(count))
