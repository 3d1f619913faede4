"""64-bit ARM, emulated: every kernel against its portable twin, whole steps against this machine.

Skipped where the cross compiler or the emulator is missing; `make arm-test` insists on both.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgetrain.freeze import freeze
from edgetrain.model import Model
from edgetrain.models import mlp
from edgetrain.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Or,
    Sign,
    SoftmaxCrossEntropy,
    Xnor,
)
from edgetrain.planner import Plan, plan, recomputing

NATIVE = Path(__file__).parents[2] / "edgetrain" / "native"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
ARM = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    f"-DCMAKE_CXX_COMPILER={COMPILER}",
    "-DCMAKE_EXE_LINKER_FLAGS=-static",
)
PROCESSORS = {"cortex-a53": ("portable", "neon"), "max": ("portable", "neon", "neon_dot")}
"""What each must run and, without the dot products of ARMv8.2, must not."""

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares ARM with x86-64"),
    pytest.mark.skipif(
        shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None,
        reason=f"needs {COMPILER} and {EMULATOR}",
    ),
]


def image_model(training: str) -> Model:
    """Return a model of an odd image, with a pool, a stride and borders."""
    first = (Conv2d(32, 3, training=training), MaxPool(), BatchNorm(), Sign())
    second = (Conv2d(64, 3, stride=2), BatchNorm(), Sign(), Flatten())
    return Model((9, 7, 3), (*first, *second, Linear(10), BatchNorm(), SoftmaxCrossEntropy()))


def signal_model() -> Model:
    """Return a model of a signal, with a convolution that pads nothing."""
    first = (Conv1d(32, 5, stride=2), BatchNorm(), Sign())
    second = (Conv1d(32, 3, padding="valid"), MaxPool(), BatchNorm(), Sign(), Flatten())
    return Model((40, 6), (*first, *second, Linear(5), BatchNorm(), SoftmaxCrossEntropy()))


def residual_model() -> Model:
    """Return a model with every shortcut, and with both averages."""
    first = (Conv2d(32, 3, training="bnn"), BatchNorm(), Sign())
    second = (Conv2d(32, 3), BatchNorm(), Sign(), Xnor(), Conv2d(32, 3), BatchNorm(), Sign(), Or())
    third = (Conv2d(64, 3), AvgPool(), Add(3, 20), BatchNorm(), Sign(), GlobalAveragePool())
    last = (Linear(5, "int8"), BatchNorm(), SoftmaxCrossEntropy())
    return Model((8, 7, 3), (*first, *second, *third, *last))


def separable_model() -> Model:
    """Return a model of depthwise convolutions, one of signs and one of bytes."""
    first = (Conv2d(64, 3, training="int8"), BatchNorm(), Sign())
    second = (Conv2d(64, 3, groups=64), MaxPool(), BatchNorm(), Sign())
    third = (Conv2d(64, 4, 2, training="int8", groups=64), BatchNorm(), Sign(), Flatten())
    end = (Linear(5), BatchNorm(), SoftmaxCrossEntropy())
    return Model((9, 7, 2), (*first, *second, *third, *end))


def grouped_model() -> Model:
    """Return a model of groups: of whole words, of parts of one, and of parts of two."""
    first = (Conv2d(64, 3, training="int8", groups=2), BatchNorm(), Sign())
    second = (Conv2d(96, 3, groups=2), MaxPool(), BatchNorm(), Sign())
    third = (Conv2d(64, 2, groups=2), BatchNorm(), Sign())
    fourth = (Conv2d(32, 3, groups=16), BatchNorm(), Sign(), Flatten())
    end = (Linear(5), BatchNorm(), SoftmaxCrossEntropy())
    return Model((7, 6, 4), (*first, *second, *third, *fourth, *end))


PLANS: dict[str, Plan] = {
    "mlp_bnn": plan(mlp(70, 5, (64, 33)), 9, "bnn"),
    "mlp_fsb": plan(mlp(70, 5, (64, 33)), 9, "fsb"),
    "image_bnn": plan(image_model("bnn"), 6, "bnn", threads=2),
    "image_fsb": plan(image_model("int8"), 6, "fsb"),
    "mlp_int4": plan(mlp(70, 5, (64, 33)), 9, latent="int4"),
    "image_bop": plan(image_model("bnn"), 6, latent="bop"),
    "image_adam16": plan(image_model("bnn"), 6, latent="adam16"),
    "image_frozen": plan(freeze(image_model("bnn"), 1), 6, "bnn"),
    "residual_bnn": plan(residual_model(), 4, "bnn"),
    "image_twice": recomputing(plan(image_model("int8"), 6, "fsb"), (0,), (0, 1), gathered=True),
    "signal_bnn": plan(signal_model(), 5, "bnn"),
    "separable_bnn": plan(separable_model(), 5, "bnn"),
    "grouped_bnn": plan(grouped_model(), 4, "bnn"),
    "grouped_fsb": plan(grouped_model(), 4, "fsb"),
    "grouped_int4": plan(grouped_model(), 4, latent="int4"),
    "signal_channel": plan(signal_model(), 5, "bnn", gradient="luq4_channel", draws=2),
    "image_channel": plan(image_model("int8"), 6, "fsb", gradient="luq4_channel"),
}


def built(build: Path, *options: str) -> Path:
    """Build the native tests and return where they are."""
    tools = Path(sys.executable).parent
    ninja = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}")
    run(str(tools / "cmake"), "-S", str(NATIVE), "-B", str(build), *ninja, *options)
    run(str(tools / "cmake"), "--build", str(build), "--target", "isa_twins", "same_steps")
    return build / "tests"


def run(*command: str) -> str:
    """Run a command and return its output; show what it said where it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digests(output: str) -> list[str]:
    """Return the last words of the lines of the portable kernels."""
    return [line.split()[-1] for line in output.splitlines() if "portable" in line]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build for this machine."""
    return built(tmp_path_factory.mktemp("x86"))


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build for 64-bit ARM."""
    return built(tmp_path_factory.mktemp("arm"), *ARM)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_kernel_equals_its_twin(here: Path, arm: Path, processor: str) -> None:
    emulated = run(EMULATOR, "-cpu", processor, str(arm / "isa_twins"), *PROCESSORS[processor])
    assert digests(emulated) == digests(run(str(here / "isa_twins")))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_whole_steps_leave_the_same_state(
    here: Path, arm: Path, tmp_path: Path, processor: str
) -> None:
    paths = [tmp_path / name for name in PLANS]
    for path in paths:
        path.write_bytes(PLANS[path.name].program())
    plans = [str(path) for path in paths]
    emulated = run(EMULATOR, "-cpu", processor, str(arm / "same_steps"), *plans)
    assert len(digests(emulated)) == len(PLANS)
    assert digests(emulated) == digests(run(str(here / "same_steps"), *plans))
