"""Models: what can be built, what JSON may say, and what is refused."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.errors import ModelError
from edgetrain.model import Model
from edgetrain.models import MODELS, mlp
from edgetrain.ops import OPS, BatchNorm, Linear, Sign, SoftmaxCrossEntropy


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
