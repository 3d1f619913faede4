"""x86-64 processors that lack instructions of this one, emulated: the same bits, no crash."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from typing import Any

import pytest

from edgetrain._native import supported_isas

EMULATOR = "qemu-x86_64-static"
PROCESSORS = {"qemu64": ["portable"], "Haswell": ["portable", "avx2"]}
"""What each must run and, for want of instructions, nothing else."""
TRAIN = """
import hashlib, json, random
import edgetrain as et
from edgetrain._native import supported_isas
from edgetrain.model import Model
from edgetrain.ops import BatchNorm, Conv2d, Flatten, Linear, MaxPool, Sign, SoftmaxCrossEntropy
first = (Conv2d(32, 3, training="int8"), MaxPool(), BatchNorm(), Sign())
second = (Conv2d(64, 3), BatchNorm(), Sign(), Flatten())
model = Model((8, 8, 3), (*first, *second, Linear(4), BatchNorm(), SoftmaxCrossEntropy()))
trainer = et.Trainer(et.plan(model, 8), seed=3)
features = random.Random(1).randbytes(16 * 8 * 8 * 3)
trainer.fit(memoryview(features), memoryview(bytes([0, 1, 2, 3] * 4)))
state = hashlib.sha256(b"".join(bytes(part.data) for part in trainer.state().values()))
print(json.dumps({"isas": supported_isas(), "isa": trainer.isa, "state": state.hexdigest()}))
"""

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares x86-64 with x86-64"),
    pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"needs {EMULATOR}"),
]


def trained(*emulator: str) -> dict[str, Any]:
    """Return what a training run says of itself and of its state."""
    done = subprocess.run(
        [*emulator, sys.executable, "-c", TRAIN], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("processor", PROCESSORS)
def test_it_trains_to_the_same_state_as_this_processor(processor: str) -> None:
    emulated, here = trained(EMULATOR, "-cpu", processor), trained()
    assert emulated["isas"] == PROCESSORS[processor]
    assert emulated["isa"] == emulated["isas"][-1]
    assert here["isas"] == supported_isas()
    assert emulated["state"] == here["state"]
