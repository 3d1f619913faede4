"""`edgetrain train`: real processes that are stopped by real signals and go on bit for bit."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import edgetrain as et
from edgetrain.metrics import Metrics
from edgetrain.schedule import SCHEDULES
from edgetrain.train_report import epoch_fields, epoch_line

COMMAND = str(Path(sys.executable).with_name("edgetrain"))
# Small batches, so that an epoch is hundreds of micro-batches and a stop falls inside one.
SMALL = ["train", "mlp", "--data", "watch", "--hidden", "512,512", "--batch", "2"]
TRAINING = 2631
"""Examples of the bundled set's training part."""
PATIENCE = 60.0


def edgetrain(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command to its end."""
    return subprocess.run(
        [COMMAND, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def interrupted(words: list[str], sight: str, delay: float) -> tuple[int, str, float]:
    """Run the command, and interrupt it some time after a line of its output is seen.

    Returns its exit code, its output and how long it took to end.
    """
    with subprocess.Popen(
        [COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = ""
        while sight not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        output += process.stdout.read()
        return process.wait(PATIENCE), output, time.monotonic() - begun


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, schedule: str) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    rest = ["--epochs", "3", "--schedule", schedule, "--warmup", "0.5", "--seed", "7"]
    assert edgetrain(*SMALL, *rest, "--save", whole).returncode == 0
    code, output, took = interrupted([*SMALL, *rest, "--save", str(stopped)], "epoch 1/3", 0.05)
    assert code == 130
    assert took < 5
    assert re.search(rf"epoch 2/3: .*stopped after \d+ of {TRAINING} examples", output), output
    used = et.load(stopped).metrics.examples
    assert 0 < used < TRAINING, "the delay ought to end inside the second epoch"
    again = shlex.split(output.split("go on with: ")[1])
    assert again[:4] == ["edgetrain", "train", "--resume", str(stopped)]
    result = edgetrain(*again[1:], "--json")
    assert result.returncode == 0, result.stderr
    fields = json.loads(result.stdout)
    assert [row["epoch"] for row in fields["epochs"]] == [2, 3]
    assert not fields["stopped"]
    assert stopped.read_bytes() == whole.read_bytes()


def test_two_interrupts_end_at_once() -> None:
    code = (
        "import time\nfrom pathlib import Path\n"
        "from edgetrain.train_command import stop_on_interrupt\n"
        "with stop_on_interrupt(Path('m')) as stopped:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "        if stopped: print('asked', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "stopping and saving; Ctrl-C again ends at once\n"
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(PATIENCE) == -signal.SIGINT
        assert "Traceback" not in process.stderr.read()


def test_a_run_says_what_each_epoch_and_the_memory_were(tmp_path: Path) -> None:
    path = tmp_path / "m"
    result = edgetrain(*SMALL[:-2], "--epochs", "2", "--save", path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    figures = r"loss \d\.\d{3}, training \d+\.\d%, test \d+\.\d%"
    assert re.fullmatch(f"epoch 1/2: {figures}", lines[0])
    assert re.fullmatch(f"epoch 2/2: {figures}", lines[1])
    memory = r"[\d.]+ [KM]iB planned for the arena; the process's peak grew by .* beside the data"
    assert re.fullmatch(f"memory: {memory}", lines[2])
    assert lines[3:] == [f"saved {path}"]
    once_more = edgetrain("train", "--resume", path, "--data", "watch", "--epochs", "2", "--json")
    fields: dict[str, Any] = json.loads(once_more.stdout)
    assert [row["epoch"] for row in fields["epochs"]] == [2]
    assert f"test {fields['epochs'][0]['test_accuracy']:.1%}" in lines[1]
    assert fields["planned_bytes"] == et.load(path).plan.peak_bytes
    assert fields["resume"] is None


@pytest.mark.parametrize(
    ("examples", "tested", "line"),
    [
        (9, True, "epoch 2/3: loss 1.500, training 50.0%, test 25.0%"),
        (9, False, "epoch 2/3: loss 1.500, training 50.0% (stopped before its test)"),
        (4, False, "epoch 2/3: loss 1.500, training 50.0% (stopped after 4 of 9 examples)"),
        (0, False, "epoch 2/3: nothing trained (stopped after 0 of 9 examples)"),
    ],
)
def test_a_line_says_where_its_epoch_was_stopped(examples: int, tested: bool, line: str) -> None:
    test = Metrics(1.0, 0.25, 8) if tested else None
    assert epoch_line(epoch_fields(2, Metrics(1.5, 0.5, examples), test), 3, 9) == line


def test_json_of_a_stopped_run_holds_the_command_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a name with spaces"
    words = [*SMALL, "--epochs", "9", "--save", str(path), "--json", "--test-group", "3"]
    code, output, _ = interrupted(words, "epoch 1/9", 0.05)
    assert code == 130
    fields = json.loads(output.splitlines()[-1])
    assert fields["stopped"]
    assert fields["epochs"][-1]["test_accuracy"] is None
    again = shlex.split(fields["resume"])
    assert again[again.index("--resume") + 1] == str(path)
    assert again[-2:] == ["--test-group", "3"]


def test_a_model_for_other_data_is_refused_with_the_names_of_those_that_fit(tmp_path: Path) -> None:
    images = tmp_path / "cnv"
    et.Trainer(et.plan(et.models.cnv(), 2)).save(images)
    for words in (["cnv"], ["--resume", images]):
        result = edgetrain("train", *words, "--data", "watch")
        assert result.returncode == 13, result.stderr
        assert "128 x 6 = 768 features, but the model takes 3072: choose har_cnn or mlp" in (
            result.stderr
        )
        assert result.stderr.count("\n") == 1


def test_mistakes_are_told_before_any_work(tmp_path: Path) -> None:
    saved = tmp_path / "m"
    et.Trainer(et.plan(et.models.mlp(768, 7, (32,)), 10), seed=5).save(saved)
    for words, code, message in (
        (["--schedule", "lineal"], 13, "choose constant, linear or cosine"),
        (["--warmup", "3"], 13, "a warm-up of 3 epochs does not fit a schedule of 3"),
        (["--resume", tmp_path / "no"], 11, "is no checkpoint: check the path"),
        (["--save", tmp_path / "no" / "m"], 11, "there is no folder"),
        (["--resume", saved], 11, "was trained with --seed 5"),
    ):
        result = edgetrain("train", "mlp", "--data", "watch", *words)
        assert result.returncode == code, result.stderr
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
