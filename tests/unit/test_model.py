"""Models: what can be built, what JSON may say, and what is refused."""

from __future__ import annotations

import importlib
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.models import MODELS, binarynet, cnv, har_cnn, mlp, resnet18_binary
from edgetrain.models.named import named_model
from edgetrain.models.resnet18_binary import ShortcutKind
from edgetrain.ops import (
    OPS,
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool,
    Op,
    Sign,
    Signal,
    SoftmaxCrossEntropy,
)
from edgetrain.ops.conv import Conv
from edgetrain.schema import state_schema


@pytest.mark.parametrize("name", MODELS)
def test_a_ready_made_model_survives_json(name: str) -> None:
    model = MODELS[name]()
    assert Model.from_json(model.to_json()) == model


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_declared_whole(name: str) -> None:
    op = OPS[name]
    assert op.name == name
    assert op.__doc__
    assert importlib.import_module(op.reference).__doc__
    # One record serves both convolutions.
    same = {other.name for other in OPS.values() if other.opcode == op.opcode}
    assert same == ({"conv1d", "conv2d"} if name in ("conv1d", "conv2d") else {name})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**6) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.text(max_size=60))
def test_text_that_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        Model.from_json(text)


@given(key=st.sampled_from(["input_shape", "layers", "format", "version"]), value=JSON)
def test_a_model_with_any_field_changed_is_refused_or_whole(key: str, value: Any) -> None:
    fields = json.loads(mlp(20, 3, (8,)).to_json())
    fields[key] = value
    try:
        model = Model.from_json(json.dumps(fields))
    except ModelError:
        return
    assert Model.from_json(model.to_json()) == model


@given(layer=st.integers(0, 5), field=st.text(max_size=10), value=JSON)
def test_a_layer_with_any_field_changed_is_refused_or_whole(
    layer: int, field: str, value: Any
) -> None:
    fields = json.loads(mlp(20, 3, (8,)).to_json())
    for name in (field, "outputs", "training", "group", "op"):
        changed = json.loads(json.dumps(fields))
        changed["layers"][layer][name] = value
        try:
            model = Model.from_json(json.dumps(changed))
        except ModelError:
            continue
        assert Model.from_json(model.to_json()) == model


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "1 to 256 layers"),
        ((BatchNorm(),), "starts with linear"),
        ((Linear(4), Sign(), Linear(2), BatchNorm(), SoftmaxCrossEntropy()), "sign cannot follow"),
        ((Linear(4), BatchNorm(), Sign()), "must be softmax_cross_entropy"),
        ((Linear(4), BatchNorm(), Linear(2)), "layer 0 reads linear, batch_norm: write"),
        ((Linear(1), BatchNorm(), SoftmaxCrossEntropy()), "2 to 256 classes"),
        ((Linear(300), BatchNorm(), SoftmaxCrossEntropy()), "2 to 256 classes"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Model(10, layers)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"outputs": 0}, "linear has 0 outputs: choose 1 to"),
        ({"outputs": 4, "training": "float"}, "cannot be trained as 'float'"),
        ({"outputs": 4, "group": 3}, "3 inputs cannot share a scale: choose one of 1, 2, 4"),
    ],
)
def test_a_layer_that_cannot_be_says_why(field: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Linear(**field)


def hidden(*ops: Op) -> tuple[Op, ...]:
    """Return a hidden block of these ops."""
    return (*ops, BatchNorm(), Sign())


END = (Linear(4, "int8"), BatchNorm(), SoftmaxCrossEntropy())


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        (12, (1, 1, 12)),
        ((12,), (1, 1, 12)),
        ((6, 2), (1, 6, 2)),
        ((3, 2, 2), (3, 2, 2)),
        ([3, 2, 2], (3, 2, 2)),
    ],
)
def test_an_input_is_an_image_however_it_is_written(shape: Any, image: Any) -> None:
    model = Model(shape, (Flatten(), *END))
    assert model.input_shape == image
    assert model.input_features == 12
    assert next(model.blocks()).source == Signal(1, 1, 12, "int8")
    assert Model.from_json(model.to_json()) == model


@pytest.mark.parametrize("shape", [0, -1, (), (1, 2, 3, 4), (3, 0), (2.5,), (True,), 65537])
def test_an_input_that_cannot_be_is_refused(shape: Any) -> None:
    with pytest.raises(ModelError, match="the input has shape"):
        Model(shape, (Flatten(), *END))


def test_a_model_written_before_images_is_still_read() -> None:
    fields = json.loads(mlp(20, 3, (8,)).to_json())
    assert fields.pop("input_shape") == [1, 1, 20]
    assert Model.from_json(json.dumps({**fields, "input_features": 20})) == mlp(20, 3, (8,))


@pytest.mark.parametrize(
    ("shape", "op", "out", "pads"),
    [
        ((7, 8), Conv2d(4), (7, 8), (1, 1)),
        ((7, 8), Conv2d(4, stride=2), (4, 4), (1, 0)),
        ((7, 8), Conv2d(4, 2), (7, 8), (0, 0)),
        ((7, 8), Conv2d(4, 1, 2), (4, 4), (0, 0)),
        ((7, 8), Conv2d(4, 5, padding="valid"), (3, 4), (0, 0)),
        ((7, 8), Conv2d(4, 3, 2, "valid"), (3, 3), (0, 0)),
        ((1, 128), Conv1d(4, 7, 2), (1, 64), (0, 2)),
        ((1, 9), Conv1d(4, 7, padding="valid"), (1, 3), (0, 0)),
    ],
)
def test_a_convolution_pads_as_tensorflow_does(shape: Any, op: Any, out: Any, pads: Any) -> None:
    source = Signal(*shape, 3, "int8")
    assert op.flow(source) == Signal(*out, 4, "integers")
    assert op.pads(source) == pads


@pytest.mark.parametrize(("shape", "out"), [((5, 4), (2, 2)), ((1, 5), (1, 2)), ((2, 2), (1, 1))])
def test_a_pool_halves_and_leaves_the_rest(shape: Any, out: Any) -> None:
    assert MaxPool().flow(Signal(*shape, 8, "integers")) == Signal(*out, 8, "integers")


@pytest.mark.parametrize(
    ("shape", "layers", "message"),
    [
        ((8, 8, 3), END, r"linear cannot read 8 x 8 pixels: write flatten before"),
        ((8, 8, 3), (*hidden(Conv2d(32)), *END), r"linear cannot read 8 x 8 pixels"),
        ((8, 8, 3), (*hidden(Conv2d(33)), *hidden(Conv2d(8))), "widths in multiples of 32"),
        ((8, 8, 3), (*hidden(Conv2d(33)), Flatten(), *END), "choose a multiple of 32 channels"),
        ((8, 8, 3), hidden(Conv1d(32)), "conv1d cannot read an image 8 high: use conv2d"),
        ((4, 4, 3), hidden(Conv2d(32, 5, padding="valid")), r"kernel of 5 x 5 .* source of 4 x 4"),
        ((2, 1, 3), hidden(Conv2d(32), MaxPool()), "max_pool has windows of 2 x 2 but a source"),
        ((8, 8, 3), hidden(MaxPool()), "starts with linear or a convolution, not max_pool"),
        ((8, 8, 3), (*hidden(Conv2d(32), MaxPool(), MaxPool()), *END), "reads conv2d, max_pool, m"),
        ((9,), (*hidden(Conv2d(32)), Conv2d(4, 1), *END[1:]), "layer 1 reads conv2d, batch_norm"),
        ((4, 4, 1), (Flatten(),), "needs a layer with weights"),
        ((4, 4, 3), hidden(Conv2d(64, groups=2)), "cannot divide 3 channels into 2 groups"),
        (
            (4, 4, 3),
            (*hidden(Conv2d(64)), *hidden(Conv2d(96, groups=3))),
            "cannot divide 64 channels into 3 groups",
        ),
        ((4, 4, 64), hidden(Conv2d(600, 15)), "a sum has at most 131072 terms"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape: Any, layers: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Model(shape, layers)


@pytest.mark.parametrize("op", [Conv1d, Conv2d])
@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"kernel": 0}, "has a kernel of 0: choose 1 to 15"),
        ({"kernel": 16}, "has a kernel of 16"),
        ({"stride": 3}, "has a stride of 3: choose 1 or 2"),
        ({"groups": 0}, "cannot divide 32 outputs into 0 groups"),
        ({"groups": 3}, "cannot divide 32 outputs into 3 groups"),
        ({"padding": "full"}, "has padding 'full': choose same or valid"),
        ({"training": "float"}, "cannot be trained as 'float'"),
    ],
)
def test_a_convolution_that_cannot_be_says_why(op: Any, field: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        op(32, **field)
    with pytest.raises(ModelError, match="size 3: choose 2"):
        MaxPool(3)


@pytest.mark.parametrize(
    ("model", "features"),
    [(cnv(), 4096), (cnv("valid"), 256), (binarynet(), 8192), (har_cnn(), 2048)],
)
def test_a_ready_made_model_leaves_the_features_of_its_paper(model: Model, features: int) -> None:
    sources = [block.source for block in model.blocks()]
    convolutions = sum(isinstance(block.weights, Conv) for block in model.blocks())
    assert sources[convolutions].features == features


@pytest.mark.parametrize(
    ("model", "widths"),
    [
        (cnv(), (64, 64, 128, 128, 256, 256, 512, 512, 10)),
        (cnv("valid"), (64, 64, 128, 128, 256, 256, 512, 512, 10)),
        (binarynet(), (128, 128, 256, 256, 512, 512, 1024, 1024, 10)),
        (resnet18_binary(), (64, *(64,) * 4, *(128,) * 4, *(256,) * 4, *(512,) * 4, 10)),
    ],
)
def test_a_ready_made_model_has_the_layers_of_its_paper(
    model: Model, widths: tuple[int, ...]
) -> None:
    assert tuple(block.weights.outputs for block in model.blocks()) == widths


@pytest.mark.parametrize("shortcut", get_args(ShortcutKind))
def test_a_residual_network_halves_three_times_and_ends_with_an_average(shortcut: Any) -> None:
    model = resnet18_binary(shortcut=shortcut)
    blocks = list(model.blocks())
    sizes = [block.bits.height for block in blocks[:-1]]
    assert sizes == [32] * 5 + [16] * 4 + [8] * 4 + [4] * 4
    assert blocks[-1].source == Signal(1, 1, 512, "int8")
    # Of 16 convolutions; three change the shape, which shortcuts of bits leave out.
    read = {"add": 16, "add2": 8, "xnor": 13, "or": 13, "boolnet": 5 + 8, "none": 0}
    assert sum(block.shortcut is not None for block in blocks) == read[shortcut]
    assert Model.from_json(model.to_json()) == model


def test_an_unknown_shortcut_is_named() -> None:
    with pytest.raises(ModelError, match="unknown shortcut 'sum': choose one of add, add2, xnor"):
        resnet18_binary(shortcut="sum")  # type: ignore[arg-type]


def test_the_state_of_a_convolution_has_its_shape() -> None:
    model = Model(
        (8, 8, 3), (*hidden(Conv2d(32, training="bnn")), *hidden(Conv2d(64)), Flatten(), *END)
    )
    for mode, second in (("bnn", ("I8", (64, 3, 3, 32))), ("fsb", ("U8", (64, 32)))):
        schema = state_schema(model, mode)
        assert schema["layer0.latent"] == ("I8", (32, 3, 3, 3))
        assert schema["layer1.scale" if mode == "fsb" else "layer1.latent"] == second


@pytest.mark.parametrize("name", MODELS)
def test_a_command_names_every_model(name: str) -> None:
    assert named_model(name, 784, 4, "32,16").classes == 4
    assert named_model(name, 784, 4, "32,16", first="int8") != named_model(
        name, 784, 4, "32", first="bnn"
    )
