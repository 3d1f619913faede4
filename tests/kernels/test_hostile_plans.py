"""The engine under address and behaviour sanitizers, on every instruction set of this machine.

A damaged plan is refused or harmless; every kernel equals its portable twin; whole steps leave the
same bytes. `make sanitize` damages more plans than `make test`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgetrain._native import supported_isas
from edgetrain.freeze import freeze
from edgetrain.inference import inference_plan
from edgetrain.model import Model
from edgetrain.models import har_cnn, mlp
from edgetrain.models.stack import classifier, stage
from edgetrain.ops import (
    Add,
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
from edgetrain.planner import Plan, plan, recomputing
from edgetrain.recompute import remakable, streamable

NATIVE = Path(__file__).parents[2] / "edgetrain" / "native"
DAMAGED = int(os.environ.get("DAMAGED_PLANS", "1500"))
"""Damaged copies of each plan: 1500 take a few seconds."""
SEED = int(os.environ.get("DAMAGED_SEED", "1"))
PROGRAMS = ("hostile_plans", "isa_twins", "same_steps")

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
        *(Conv2d(64), AvgPool(), Add(2), BatchNorm(), Sign(), GlobalAveragePool()),
        *(Linear(5, "int8"), BatchNorm(), SoftmaxCrossEntropy()),
    ),
)
SEPARABLE = Model(
    (9, 8, 2),
    (
        *stage(Conv2d(64, 3, training="int8")),
        *stage(Conv2d(64, 3, stride=2, training="bnn", groups=64), pool=True),
        *stage(Conv2d(64, 4, training="int8", groups=64)),
        *classifier((), 5, "int8"),
    ),
)
GROUPED = Model(
    (6, 5, 4),
    (
        *stage(Conv2d(64, 3, training="int8", groups=2)),
        *stage(Conv2d(128, 3, groups=2), pool=True),
        *stage(Conv2d(96, 2, groups=32, training="bnn")),
        *stage(Conv2d(64, 3, groups=2)),
        *classifier((), 5, "int8"),
    ),
)
FROZEN_DEPTHWISE = tuple(
    replace(op, training="frozen") if isinstance(op, Conv2d) and op.groups > 1 else op
    for op in SEPARABLE.layers
)
PLANS: dict[str, Plan] = {
    "mlp_bnn": plan(mlp(70, 5, (64, 33)), 9, "bnn", threads=2),
    "mlp_fsb": plan(mlp(70, 5, (64, 33)), 9, "fsb"),
    "images_bnn": plan(IMAGES, 5, "bnn", threads=2),
    "images_fsb": plan(IMAGES, 5, "fsb"),
    "images_twice": recomputing(
        plan(IMAGES, 5, "bnn", threads=2), remakable(IMAGES), streamable(IMAGES), gathered=True
    ),
    "joined_bnn": plan(JOINED, 4, "bnn", threads=2),
    "joined_fsb": plan(JOINED, 4, "fsb"),
    "mlp_frozen": plan(freeze(mlp(70, 5, (64, 33)), 1), 9, "bnn", threads=2),
    "mlp_int4": plan(mlp(70, 5, (64, 33)), 9, latent="int4", threads=2),
    "images_bop": plan(IMAGES, 5, latent="bop"),
    "images_adam16": plan(IMAGES, 5, latent="adam16"),
    "joined_frozen": plan(freeze(JOINED, 2), 4, "bnn"),
    "images_frozen": plan(freeze(IMAGES, 1), 5, "bnn"),
    "separable": plan(SEPARABLE, 4, "bnn", threads=2),
    "separable_frozen": plan(Model(SEPARABLE.input_shape, FROZEN_DEPTHWISE), 4, "bnn"),
    "grouped_bnn": plan(GROUPED, 3, "bnn", threads=2),
    "grouped_fsb": plan(GROUPED, 3, "fsb"),
    "grouped_bop": plan(GROUPED, 3, latent="bop", threads=2, recompute="always"),
    "har_cnn": plan(har_cnn(window=16), 3, "fsb"),
    "images_predict": inference_plan(IMAGES, "bnn", 5, threads=2),
    "joined_predict": inference_plan(JOINED, "fsb", 4),
    "separable_predict": inference_plan(SEPARABLE, "bnn", 4),
    "signs_predict": inference_plan(mlp(70, 5, (64, 33), last="bnn"), "bnn", 9),
    "channel_bnn": plan(JOINED, 4, "bnn", gradient="luq4_channel", draws=2),
    "channel_fsb": plan(mlp(70, 5, (64, 33)), 9, "fsb", gradient="luq4_channel"),
}


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the native tests with sanitizers, and return the folder of their build."""
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
        [str(tools / "cmake"), "--build", str(build), "--target", *PROGRAMS],
        check=True,
        capture_output=True,
    )
    return build


def run(*command: object) -> str:
    """Run a command and return what it printed; show what it said where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PLANS)
def test_a_damaged_plan_never_leaves_its_arena(sanitized: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(PLANS[name].program())
    assert "harmless" in run(sanitized / "hostile_plans", DAMAGED, SEED, path)


def test_every_kernel_equals_its_twin(sanitized: Path) -> None:
    printed = run(sanitized / "tests" / "isa_twins")
    assert [line.split()[0] for line in printed.splitlines()] == supported_isas()


def test_whole_steps_leave_the_same_bytes(sanitized: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in PLANS]
    for path in paths:
        whole = PLANS[path.name]
        # Two threads share scratch by chance.
        path.write_bytes(plan(whole.model, whole.batch, whole.mode).program())
    printed = run(sanitized / "tests" / "same_steps", *paths)
    assert len(printed.splitlines()) == len(PLANS) * len(supported_isas())
