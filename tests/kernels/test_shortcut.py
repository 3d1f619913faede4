"""Shortcuts: the oracle by truth tables and differences, and the engine by the oracle."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetrain import _native
from edgetrain.errors import ModelError
from edgetrain.freeze import freeze
from edgetrain.model import MOST_COPIES, Model
from edgetrain.models.resnet18_binary import ShortcutKind, resnet18_binary
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Linear,
    MaxPool,
    Op,
    Or,
    Sign,
    SoftmaxCrossEntropy,
    Xnor,
)
from edgetrain.planner import plan
from edgetrain.reference.shortcut import LARGEST_ENTRY, Sent, join, receive, repeat, split
from edgetrain.train import Trainer
from tests.kernels.test_engine_equals_reference import (
    assert_same_state,
    data,
    decode,
    run_both,
    unpack,
)

ISAS = _native.supported_isas()
CLASSES = 5
BITS: dict[str, Any] = {"xnor": Xnor, "or": Or}


def whole(name: str, a: Any, b: Any) -> Any:
    """Return the polynomial of degree one in each bit that a shortcut of bits is."""
    return a * b if name == "xnor" else (a + b - a * b + 1) / 2


@pytest.mark.parametrize("name", BITS)
def test_bits_join_by_their_truth_table(name: str) -> None:
    a, b = np.array([-1, -1, 1, 1]), np.array([-1, 1, -1, 1])
    expected = {"xnor": [1, -1, -1, 1], "or": [-1, 1, 1, 1]}[name]
    np.testing.assert_array_equal(join(name, a, b), expected)
    np.testing.assert_array_equal(whole(name, a, b), expected)


@pytest.mark.parametrize("name", BITS)
def test_gradients_of_joined_bits_are_finite_differences(name: str) -> None:
    draws = np.random.default_rng(1)
    a, b = draws.choice([-1, 1], (2, 50, 33))
    demand = draws.integers(-500, 500, a.shape)
    to_signs, to_branch = split(name, demand, a, b)
    # The polynomial is linear in each of its bits, so a difference of one is exact.
    np.testing.assert_array_equal(to_signs, demand * (whole(name, a + 1, b) - whole(name, a, b)))
    np.testing.assert_array_equal(to_branch, demand * (whole(name, a, b + 1) - whole(name, a, b)))


@pytest.mark.parametrize(
    ("branch", "target"),
    [
        ((5, 6, 3), (5, 6, 3)),
        ((5, 6, 32), (5, 6, 96)),
        ((5, 6, 32), (3, 3, 64)),
        ((5, 7, 32), (2, 3, 32)),
        ((1, 9, 32), (1, 5, 64)),
    ],
)
def test_the_gradient_of_added_bits_is_the_finite_difference(branch: Any, target: Any) -> None:
    draws = np.random.default_rng(2)
    bits = draws.choice([-1, 1], (2, *branch))
    codes = draws.choice([-64, -1, 0, 1, 2, 64], (2, *target))
    there = draws.integers(-9, 9, bits.shape)
    gradient = receive(there, np.float32(0.5), Sent(codes, np.float32(1.5)))[0] - there
    before = (3 * codes * repeat(bits, target)).sum()
    for flat in draws.choice(bits.size, 60):
        at = np.unravel_index(flat, bits.shape)
        bits[at] += 1
        assert (3 * codes * repeat(bits, target)).sum() - before == gradient[at]
        bits[at] -= 1


def test_what_a_shortcut_sends_arrives_in_the_unit_of_what_is_there() -> None:
    codes = np.array([0, 1, -2, 64, -64])
    codes = codes.reshape(1, 1, 1, 5)
    there = np.full((1, 1, 1, 5), 5)
    total, scale = receive(there, np.float32(0.5), Sent(codes, np.float32(0.75)))
    # 1.5 is rounded to even.
    np.testing.assert_array_equal((total - there).ravel(), [0, 2, -3, 96, -96])
    assert scale == np.float32(0.5)
    total, _ = receive(there, np.float32(1e-20), Sent(codes, np.float32(1.0)))
    np.testing.assert_array_equal(total - there, np.sign(codes) * LARGEST_ENTRY)


def test_what_a_shortcut_sends_alone_keeps_its_unit() -> None:
    codes, unit = np.array([0, 1, -64]).reshape(1, 1, 1, 3), np.float32(0.3)
    nothing = np.zeros((1, 1, 1, 3), np.int64)
    total, scale = receive(nothing, np.float32(0), Sent(codes, unit))
    np.testing.assert_array_equal(total, codes)
    assert scale == unit
    total, scale = receive(nothing, np.float32(0), Sent(codes, np.float32(0)))
    assert not total.any()
    assert scale == 0


def images(shortcut: Op | None, width: int = 32) -> Model:
    """Return a model of images whose third block, and a fourth, join earlier bits."""
    ends = (shortcut,) if shortcut else ()
    layers = (
        *stage(Conv2d(width, training="bnn")),
        *stage(Conv2d(width)),
        *(*stage(Conv2d(width)), *ends),
        *(*stage(Conv2d(width)), *ends),
        *classifier((), CLASSES, "int8"),
    )
    return Model((7, 6, 3), layers)


def rows(shortcut: Any, widths: tuple[int, ...], backs: tuple[int, ...]) -> Model:
    """Return a model of rows with a shortcut after each layer but the first; 0 is none."""
    layers: list[Op] = []
    for index, width in enumerate(widths):
        back = 0 if index == 0 else backs[index - 1]
        layers += [*stage(Linear(width, group=2)), *((shortcut(back),) if back else ())]
    end = (Linear(CLASSES, "int8"), BatchNorm(), SoftmaxCrossEntropy())
    return Model(20, (*layers, *end))


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force each instruction set in turn."""
    monkeypatch.setenv("EDGETRAIN_ISA", request.param)
    return str(request.param)


def compare(model: Model, mode: str, count: int, **choices: int) -> tuple[Any, Any]:
    """Train engine and oracle, and compare all that they have learnt."""
    x, y = data(count, model.input_features, CLASSES)
    trainer, network = run_both(model, mode, x, y, **choices)
    assert_same_state(trainer, network)
    return trainer, network


def assert_same_step(trainer: Any, network: Any) -> None:
    """Compare the signs, masks and codes of the last step, and what each shortcut sent."""
    for index, (layer, trace) in enumerate(zip(network.layers, network.traces, strict=True)):
        count, channels = trace.signs.shape
        signs = unpack(trainer.tensor(f"layer{index}.sign"), count, channels)
        np.testing.assert_array_equal(signs, trace.signs, err_msg=str(index))
        codes = decode(trainer.tensor(f"layer{index}.codes"), count, channels)
        np.testing.assert_array_equal(codes, trace.codes, err_msg=str(index))
        if layer.joins:
            sent = decode(trainer.tensor(f"layer{index}.branch_codes"), count, channels)
            np.testing.assert_array_equal(sent, trace.sent.codes.reshape(count, channels))


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("back", [1, 2])
def test_every_tensor_of_a_step_of_images_is_the_oracles(
    isa: str, mode: str, name: str, back: int
) -> None:
    trainer, network = compare(images(BITS[name](back), 64), mode, 4, batch=4)
    assert trainer.isa == isa
    assert_same_step(trainer, network)


def residual(gain: int, pool: tuple[Op, ...] = (), stride: int = 2) -> Model:
    """Return a model of images in which bits are added at each kind of size."""

    def added(weights: Op, back: int, *between: Op) -> tuple[Op, ...]:
        return (weights, *between, Add(back, gain), BatchNorm(), Sign())

    layers = (
        *stage(Conv2d(32, training="bnn")),
        *added(Conv2d(32), 1),
        *added(Conv2d(64, stride=stride), 2, *pool),
        *added(Conv2d(64, 1), 1),
        *added(Conv2d(64), 2),
    )
    return Model((9, 10, 3), (*layers, *classifier((), CLASSES, "int8")))


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("pool", [None, MaxPool, AvgPool])
def test_every_tensor_of_a_residual_step_is_the_oracles(isa: str, mode: str, pool: Any) -> None:
    model = residual(9, (pool(),), stride=1) if pool else residual(9)
    trainer, network = compare(model, mode, 4, batch=4)
    assert trainer.isa == isa
    assert_same_step(trainer, network)


@pytest.mark.parametrize("threads", [1, 3])
def test_whole_residual_runs_are_the_oracles(isa: str, threads: int) -> None:
    trainer, network = compare(residual(25), "bnn", 10, batch=4, epochs=2, threads=threads)
    assert trainer.isa == isa
    x, y = data(10, network.layers[0].source.features, CLASSES)
    assert trainer.evaluate(x, y).accuracy == network.evaluate(x, y)[1] / 10


@pytest.mark.parametrize("mode", ["bnn", "fsb"])
@pytest.mark.parametrize("shortcut", get_args(ShortcutKind))
def test_residual_networks_are_the_oracles(mode: str, shortcut: Any) -> None:
    model = resnet18_binary(CLASSES, shortcut=shortcut, widths=(32, 64), stem_stride=2)
    trainer, network = compare(model, mode, 3, batch=3)
    assert_same_step(trainer, network)


@pytest.mark.parametrize("frozen", [1, 2, 3])
def test_shortcuts_out_of_frozen_layers_are_the_oracles(isa: str, frozen: int) -> None:
    for model in (residual(9), images(Xnor(2)), images(Or(1))):
        trainer, _ = compare(freeze(model, frozen), "bnn", 9, batch=4)
        assert trainer.isa == isa


@pytest.mark.parametrize("gain", [1, 4096])
@pytest.mark.parametrize("mode", ["bnn", "fsb"])
def test_bits_of_rows_are_added_as_the_oracles(isa: str, gain: int, mode: str) -> None:
    layers: list[Op] = [*stage(Linear(37, group=2))]
    for back in (1, 2, 1):
        layers += [Linear(37, group=2), Add(back, gain), BatchNorm(), Sign()]
    model = Model(20, (*layers, Linear(CLASSES, "int8"), BatchNorm(), SoftmaxCrossEntropy()))
    trainer, network = compare(model, mode, 9, batch=9)
    assert trainer.isa == isa
    assert_same_step(trainer, network)


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("width", [1, 3, 31, 32, 33, 70])
def test_every_width_of_rows_is_the_oracles(isa: str, name: str, width: int) -> None:
    model = rows(BITS[name], (width,) * 4, (1, 2, 3))
    mode = "fsb" if width % 2 and width > 2 else "bnn"
    trainer, network = compare(model, mode, 11, batch=11)
    assert trainer.isa == isa
    assert_same_step(trainer, network)


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_whole_runs_are_the_oracles(isa: str, name: str, threads: int) -> None:
    model = images(BITS[name](2), 64)
    trainer, network = compare(model, "bnn", 11, batch=4, epochs=2, threads=threads)
    assert trainer.isa == isa
    x, y = data(11, model.input_features, CLASSES)
    ours, (loss, correct) = trainer.evaluate(x, y), network.evaluate(x, y)
    assert ours.accuracy == correct / 11
    assert ours.loss == pytest.approx(loss / 11, rel=1e-12)


@settings(max_examples=40)
@given(
    width=st.integers(2, 70),
    backs=st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)),
    name=st.sampled_from(tuple(BITS)),
    mode=st.sampled_from(("bnn", "fsb")),
    batch=st.integers(1, 9),
    threads=st.integers(1, 3),
)
def test_any_graph_of_rows_is_the_oracles(
    width: int, backs: tuple[int, ...], name: str, mode: str, batch: int, threads: int
) -> None:
    width = max(width, 3) if mode == "fsb" else width
    model = rows(BITS[name], (width,) * 5, backs)
    compare(model, mode, 10, batch=batch, threads=threads)


def test_tensors_that_live_at_once_never_share_a_place() -> None:
    """A run whose tensors take turns in one place equals a run in which each has its own."""
    kept = freeze(residual(5), 2)
    for model in (
        residual(5),
        kept,
        *(images(op(back)) for op, back in product((Xnor, Or), (1, 2))),
    ):
        x, y = data(12, model.input_features, CLASSES)
        states = []
        for reuse in (True, False):
            trainer = Trainer(plan(model, 4, reuse=reuse), seed=2)
            trainer.fit(x, y, epochs=2)
            states.append({name: bytes(tensor.data) for name, tensor in trainer.state().items()})
        assert states[0] == states[1]


def test_bits_of_a_shortcut_take_no_memory_but_its_codes() -> None:
    plain, joined = plan(images(None), 4, reuse=False), plan(images(Or(2)), 4, reuse=False)
    codes = 4 * 42 * 32 // 2
    assert joined.peak_bytes - plain.peak_bytes == 2 * codes
    assert joined.bytes_of("layer2.branch_codes") == codes


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((*stage(Linear(8)), Xnor()), "layer 0 has a xnor that goes back 1 blocks, but only 0"),
        (
            (*stage(Linear(8)), *stage(Linear(9)), Or()),
            "or joins 1 x 1 x 9 bits with the 1 x 1 x 8 that left 1 blocks before: choose another",
        ),
        (
            (*stage(Linear(8)), *stage(Linear(8)), Or(), Xnor()),
            "reads linear, batch_norm, sign, or, xnor: write",
        ),
        (
            (*stage(Linear(8)), Linear(9), Add(), BatchNorm(), Sign()),
            "add cannot make 1 x 1 x 9 sums of the 1 x 1 x 8 bits .* choose as many channels",
        ),
        (
            (*stage(Linear(8)), Linear(8), Add(), BatchNorm(), Sign(), Or()),
            "one shortcut may stand before batch_norm, add, or after sign, xnor or or",
        ),
        ((*stage(Linear(8)), Linear(8), Or()), "or cannot follow integers: it needs bits"),
    ],
)
def test_a_shortcut_that_does_not_fit_is_refused(layers: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Model(10, (*layers, Linear(3), BatchNorm(), SoftmaxCrossEntropy()))


def test_a_bit_is_read_by_a_few_shortcuts_at_most() -> None:
    backs = tuple(range(1, MOST_COPIES + 2))
    with pytest.raises(ModelError, match="layer 0 is read by 8 shortcuts: choose at most 7"):
        rows(Xnor, (8,) * (MOST_COPIES + 2), backs)
    compare(rows(Or, (8,) * (MOST_COPIES + 1), backs[:-1]), "bnn", 6, batch=6)
    with pytest.raises(ModelError, match="add has a gain of 0: choose 1 to 4096"):
        Add(1, 0)
    with pytest.raises(ModelError, match="or goes back 0 blocks: choose 1 or more"):
        Or(0)


def test_bits_are_added_at_their_size_or_at_half_of_it() -> None:
    first = stage(Conv2d(32, training="int8"))
    smaller = (Conv2d(32, padding="valid"), Add(), BatchNorm(), Sign())
    with pytest.raises(ModelError, match=r"add cannot make 7 x 9 x 32 sums .* the same, or half"):
        Model((9, 11, 3), (*first, *smaller, *classifier((), CLASSES, "int8")))


def test_a_model_with_shortcuts_survives_json() -> None:
    model = images(Xnor(2))
    assert Model.from_json(model.to_json()) == model
    assert Model.from_json(model.to_json().replace('"back": 2', '"back": 1')) == images(Xnor(1))
