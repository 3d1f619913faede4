"""Models made of torch modules: what each layer becomes, and the first that does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edgetrain as et
from edgetrain.errors import ModelError
from edgetrain.ops import (
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Sign,
    SoftmaxCrossEntropy,
)

torch = pytest.importorskip("torch")
nn = torch.nn

END = (BatchNorm(), SoftmaxCrossEntropy())


class Small(nn.Module):  # type: ignore[misc, name-defined]
    """A network as people write them, with functions between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
        self.dense = nn.Linear(64 * 4 * 4, 10)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.conv1(x)))
        x = nn.functional.dropout(x, 0.1)
        x = nn.functional.relu(self.conv2(x))
        x = x.view(x.size(0), -1)
        return torch.log_softmax(self.dense(x), 1)


class Residual(nn.Module):  # type: ignore[misc, name-defined]
    """A network whose layers do not follow one another."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        return self.two(x + torch.relu(self.one(x)))


class Branches(nn.Module):  # type: ignore[misc, name-defined]
    """A network that looks at its data."""

    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


def test_layers_become_blocks_of_weights_norm_and_sign() -> None:
    assert et.from_torch(Small(), (8, 8, 3)) == et.Model(
        (8, 8, 3),
        (
            *(Conv2d(32, training="int8"), BatchNorm(), Sign()),
            *(Conv2d(64, 3, 2), BatchNorm(), Sign(), Flatten()),
            *(Linear(10, "int8"), *END),
        ),
    )


def test_a_model_of_ours_is_found_again_in_a_module_like_it() -> None:
    layers = [nn.Flatten()]
    for inputs in (784, 256):
        layers += [nn.Linear(inputs, 256), nn.BatchNorm1d(256), nn.Hardtanh(), nn.Dropout()]
    module = nn.Sequential(*layers, nn.Sequential(nn.Linear(256, 10), nn.Softmax(1)))
    assert et.from_torch(module, (784,), first="auto") == et.models.mlp(hidden=(256, 256))


def test_pools_of_maxima_go_before_the_norm_and_averages_over_all_pixels_stay() -> None:
    module = nn.Sequential(
        *(nn.Conv2d(1, 32, 5), nn.AvgPool2d(2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding="same", groups=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)),
    )
    assert et.from_torch(module, (20, 20, 1), first="bnn", last="bnn") == et.Model(
        (20, 20, 1),
        (
            *(Conv2d(32, 5, 1, "valid", "bnn"), AvgPool(), BatchNorm(), Sign()),
            *(Conv2d(64, 3, groups=2), MaxPool(), BatchNorm(), Sign(), GlobalAveragePool()),
            *(Linear(4, "bnn"), *END),
        ),
    )


def test_sequences_are_read_and_train() -> None:
    module = nn.Sequential(
        *(nn.Conv1d(6, 64, 7, 2, 3), nn.ReLU(), nn.Conv1d(64, 64, 7, padding=3), nn.ReLU()),
        *(nn.MaxPool1d(2), nn.Flatten(), nn.Linear(64 * 32, 7)),
    )
    model = et.from_torch(module, (128, 6))
    assert model.layers[0] == Conv1d(64, 7, 2, training="int8")
    x = np.random.default_rng(0).integers(-128, 128, (4, 128, 6)).astype(np.int8)
    trainer = et.Trainer(et.plan(model, 4))
    assert trainer.fit(x, np.arange(4, dtype=np.uint8)).examples == 4


def in_a_row(*layers: Any) -> Any:
    """Return layers over eight features and what they need to end."""
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (in_a_row(nn.Linear(8, 8), nn.GELU()), (8,), r"1 \(GELU\) does not fit: there is nothing"),
        (in_a_row(nn.Linear(8, 8)), (8,), r"2 \(Linear\) .*no activation between"),
        (in_a_row(nn.ReLU()), (8,), r"0 \(ReLU\) .*before any weights"),
        (in_a_row(nn.Linear(9, 8)), (8,), r"0 \(Linear\) .*reads 9 .* but 8 come"),
        (in_a_row(nn.Linear(8, 8), nn.ReLU(), nn.ReLU()), (8,), r"2 \(ReLU\) .*one activation"),
        (in_a_row(nn.Linear(8, 8), nn.ReLU(), nn.BatchNorm1d(8)), (8,), r"2 \(BatchNorm1d\)"),
        (in_a_row(nn.Conv2d(8, 8, 3)), (8, 9, 9), r"0 \(Conv2d\) .*a shape has them last"),
        (in_a_row(nn.Conv2d(8, 8, (3, 5))), (9, 9, 8), r"choose one size, one step"),
        (in_a_row(nn.Conv2d(8, 8, 3, padding=2)), (9, 9, 8), r"choose no padding, or as much"),
        (in_a_row(nn.Conv2d(8, 8, 3, dilation=2)), (9, 9, 8), r"no dilation"),
        (in_a_row(nn.Conv2d(8, 8, 3, 4)), (9, 9, 8), r"0 \(Conv2d\) .*stride of 4"),
        (
            in_a_row(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")),
            (9, 9, 8),
            r"pads with reflect",
        ),
        (
            in_a_row(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AvgPool2d(2)),
            (9, 9, 8),
            r"2 \(AvgPool2d\) .*an average of signs is no sign",
        ),
        (in_a_row(nn.Conv2d(8, 8, 3), nn.MaxPool2d(3, 2)), (9, 9, 8), r"1 \(MaxPool2d\) .*side by"),
        (
            in_a_row(nn.Conv2d(8, 30, 3), nn.ReLU(), nn.Conv2d(30, 8, 3)),
            (9, 9, 8),
            r"2 \(Conv2d\) .*multiples of 32",
        ),
        (nn.Sequential(nn.Linear(8, 8), nn.ReLU()), (8,), "ends with a dense layer"),
        (nn.Sequential(nn.Linear(8, 2), nn.Softmax(1), nn.Linear(2, 2)), (8,), "probabilities"),
        (Residual(), (8,), "add does not fit"),
        (Branches(), (8,), "cannot be traced"),
        (in_a_row(), (0,), "the input has shape"),
    ],
)
def test_the_first_layer_that_does_not_fit_is_named(module: Any, shape: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        et.from_torch(module, shape)
