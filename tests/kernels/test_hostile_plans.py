"""A damaged plan is refused or harmless: the engine under address and behaviour sanitizers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgetrain.freeze import freeze
from edgetrain.model import Model
from edgetrain.models import har_cnn, mlp
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import (
    AvgPool,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    Or,
    Sign,
    SoftmaxCrossEntropy,
    Xnor,
)
from edgetrain.planner import Plan, plan

NATIVE = Path(__file__).parents[2] / "edgetrain" / "native"
DAMAGED = 1500
"""Damaged copies of each plan: a few seconds."""
SEED = 1

IMAGES = Model(
    (9, 8, 3),
    (
        *stage(Conv2d(32, 3, training="bnn")),
        *stage(Conv2d(64, 3, stride=2), pool=True),
        *classifier((40,), 5, "int8"),
    ),
)
JOINED = Model(
    (6, 7, 3),
    (
        *stage(Conv2d(32, training="bnn")),
        *(*stage(Conv2d(32)), Xnor()),
        *(*stage(Conv2d(32)), Or(2)),
        *(Conv2d(64), AvgPool(), BatchNorm(), Sign(), GlobalAveragePool()),
        *(Linear(5, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
    ),
)
PLANS: dict[str, Plan] = {
    "mlp_bnn": plan(mlp(70, 5, (64, 33)), 9, "bnn", threads=2),
    "mlp_fsb": plan(mlp(70, 5, (64, 33)), 9, "fsb"),
    "images_bnn": plan(IMAGES, 5, "bnn", threads=2),
    "images_fsb": plan(IMAGES, 5, "fsb"),
    "joined_bnn": plan(JOINED, 4, "bnn", threads=2),
    "joined_fsb": plan(JOINED, 4, "fsb"),
    "mlp_frozen": plan(freeze(mlp(70, 5, (64, 33)), 1), 9, "bnn", threads=2),
    "joined_frozen": plan(freeze(JOINED, 2), 4, "bnn"),
    "images_frozen": plan(freeze(IMAGES, 1), 5, "bnn"),
    "har_cnn": plan(har_cnn(window=16), 3, "fsb"),
}


@pytest.fixture(scope="module")
def hostile_plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the program that damages plans, with sanitizers."""
    build = tmp_path_factory.mktemp("sanitized")
    tools = Path(sys.executable).parent
    configure = [
        str(tools / "cmake"),
        *("-S", str(NATIVE), "-B", str(build), "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}",
        "-DEDGETRAIN_SANITIZE=ON",
    ]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(
        [str(tools / "cmake"), "--build", str(build), "--target", "hostile_plans"],
        check=True,
        capture_output=True,
    )
    return build / "hostile_plans"


@pytest.mark.parametrize("name", PLANS)
def test_a_damaged_plan_never_leaves_its_arena(
    hostile_plans: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(PLANS[name].program())
    command = [str(hostile_plans), str(DAMAGED), str(SEED), str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "harmless" in done.stdout
