"""The ClientApp and the command line: a device as Flower and as its owner see it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.client.app import app
from edgetrain.client.flower_record import (
    PAYLOAD,
    hello_to_record,
    record_to_hello,
    record_to_report,
    record_to_task,
    report_to_record,
    task_to_record,
)
from edgetrain.client.node_settings import NodeSettings
from edgetrain.client.run import run_task
from edgetrain.errors import (
    BudgetError,
    ConfigError,
    DataError,
    PayloadError,
    StorageError,
    WorkerError,
)
from edgetrain.memory_profiler.budget import Budget
from edgetrain.memory_profiler.enforce.admission import Policy
from edgetrain.memory_profiler.ledger import verify
from edgetrain.task import Report, Task

FEATURES, CLASSES, EXAMPLES = 10, 3, 40
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(8,))
NODE_ID = 7


@pytest.fixture(autouse=True)
def task_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give messages a sender, as Flower's runtime does."""
    for name in ("task_id", "run_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "device.etd", MODEL, EXAMPLES)


def a_task(**changes: Any) -> Task:
    return small_task(MODEL, **changes)


def ask(content: RecordDict, kind: str, **node_config: Any) -> Message:
    """Return the app's reply to a message, on a node that says this of itself."""
    context = Context(1, NODE_ID, node_config=node_config, state=RecordDict(), run_config={})
    return app(Message(content, NODE_ID, kind), context)


DECLINED = Report("declined", 1, "left", reason="no examples")


def test_a_task_travels_in_a_record() -> None:
    assert record_to_task(task_to_record(a_task())) == a_task()


def test_a_report_travels_in_a_record_with_flowers_weight(data: Path) -> None:
    task = a_task()
    report = run_task(task, data, Budget(memory=256 << 20))
    record = report_to_record(report)
    assert record_to_report(record, task) == report
    (metrics,) = record.metric_records.values()
    assert metrics["num-examples"] == EXAMPLES
    assert metrics["accuracy"] == report.accuracy


def test_a_polite_no_weighs_nothing() -> None:
    record = report_to_record(DECLINED)
    assert record_to_report(record, a_task()) == DECLINED
    (metrics,) = record.metric_records.values()
    assert metrics["num-examples"] == 0


def payload(**changes: Any) -> RecordDict:
    fields = {"dtype": "uint8", "shape": (1,), "stype": "edgetrain.tensorfile", "data": b"1"}
    return RecordDict({PAYLOAD: ArrayRecord({PAYLOAD: Array(**fields | changes)})})


FOREIGN = {
    "nothing": RecordDict(),
    "another kind of record": RecordDict({PAYLOAD: ConfigRecord({"a": 1})}),
    "another array": RecordDict({PAYLOAD: ArrayRecord({"a": Array("uint8", (1,), "x", b"1")})}),
    "numpy's format": payload(stype="numpy.ndarray"),
    "another dtype": payload(dtype="float32"),
    "no tensor file": payload(),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_records_are_refused(case: str) -> None:
    with pytest.raises(PayloadError):
        record_to_task(FOREIGN[case])
    with pytest.raises(PayloadError):
        record_to_report(FOREIGN[case], a_task())
    with pytest.raises(PayloadError):
        record_to_hello(FOREIGN[case])


@pytest.mark.parametrize("memory", [None, 48 << 20])
def test_an_introduction_travels_in_a_record(memory: int | None) -> None:
    fields = {
        "name": "left",
        "device_class": "pi-zero",
        "role": "train",
        "examples": 40,
        "features": 10,
        "classes": 3,
        "memory": memory,
    }
    assert record_to_hello(hello_to_record(fields)) == fields
    with pytest.raises(PayloadError, match="role"):
        hello_to_record({**fields, "role": "spectator"})


@pytest.mark.parametrize(("kind", "status"), [("train", "trained"), ("evaluate", "evaluated")])
def test_a_node_does_what_it_is_asked(kind: str, status: str, data: Path) -> None:
    task = a_task(kind=kind)
    reply = ask(task_to_record(task), kind, device="left", dataset=str(data), memory="256MiB")
    report = record_to_report(reply.content, task)
    assert (report.status, report.examples) == (status, EXAMPLES)
    direct = run_task(task, data, Budget(memory=256 << 20))
    assert (report.update, report.loss) == (direct.update, direct.loss)


def test_a_node_keeps_account_where_its_owner_says(data: Path, tmp_path: Path) -> None:
    node = {"device": "left", "dataset": str(data), "ledger": str(tmp_path / "ledger")}
    reply = ask(task_to_record(a_task()), "train", **node)
    assert record_to_report(reply.content, a_task()).status == "trained"
    assert verify(tmp_path / "ledger").totals.examples == EXAMPLES
    node["ledger"] = str(tmp_path / "absent" / "ledger")
    reply = ask(task_to_record(a_task()), "train", **node)
    assert reply.error.code == StorageError.exit_code


def test_a_node_without_data_declines() -> None:
    reply = ask(task_to_record(a_task()), "train", device="left", memory=48 << 20)
    assert record_to_report(reply.content, a_task()).reason == "no examples"


def test_a_node_with_too_little_memory_declines(data: Path) -> None:
    reply = ask(task_to_record(a_task()), "train", device="left", dataset=str(data), memory="1MiB")
    report = record_to_report(reply.content, a_task())
    assert report.status == "declined"
    assert "nothing fits 'left'" in report.reason


def test_a_node_says_who_it_is(data: Path) -> None:
    node = {"device": "left", "class": "pi-zero", "role": "evaluate", "memory": "48MiB"}
    reply = ask(RecordDict(), "query", dataset=str(data), **node)
    assert record_to_hello(reply.content) == {
        "name": "left",
        "device_class": "pi-zero",
        "role": "evaluate",
        "examples": EXAMPLES,
        "features": FEATURES,
        "classes": CLASSES,
        "memory": 48 << 20,
    }
    reply = ask(RecordDict(), "query", device="right")
    assert record_to_hello(reply.content)["examples"] == 0


ERRORS: dict[str, tuple[RecordDict, str, dict[str, Any], int, str]] = {
    "no task": (RecordDict(), "train", {}, PayloadError.exit_code, "no payload"),
    "another's task": (
        task_to_record(a_task(device="right")),
        "train",
        {},
        PayloadError.exit_code,
        "task is for 'right'",
    ),
    "another kind": (
        task_to_record(a_task()),
        "evaluate",
        {},
        PayloadError.exit_code,
        "train came to evaluate",
    ),
    "unknown key": (RecordDict(), "query", {"memroy": "1"}, ConfigError.exit_code, "memory"),
    "no memory size": (RecordDict(), "query", {"memory": "lots"}, ConfigError.exit_code, "lots"),
    "no data file": (RecordDict(), "query", {"dataset": "/absent"}, DataError.exit_code, "absent"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_a_node_cannot_answer_is_an_error_in_one_line(case: str) -> None:
    content, kind, node, code, message = ERRORS[case]
    reply = ask(content, kind, **{"device": "left", **node})
    assert reply.has_error()
    assert reply.error.code == code
    assert message in str(reply.error.reason)
    assert "\n" not in str(reply.error.reason)


def test_flowers_own_keys_are_let_be() -> None:
    node = NodeSettings.of({"device": "left", "partition-id": 1, "num-partitions": 2})
    assert node.budget == Budget()
    node = NodeSettings.of({"device": "left", "examples-per-second": 100, "watts": 2.0})
    assert (node.machine.examples_per_second, node.machine.watts) == (100.0, 2.0)


def test_an_owner_says_when_a_task_may_begin() -> None:
    assert NodeSettings.of({"device": "left"}).policy == Policy()
    asked = {"device": "left", "battery": 0.3, "charger": "connected", "celsius": 70}
    assert NodeSettings.of(asked).policy == Policy(battery=0.3, charger=True, celsius=70.0)
    for wrong in ({"battery": 30}, {"charger": "yes"}, {"celsius": "hot"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            NodeSettings.of({"device": "left", **wrong})


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "edgetrain.client", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "task"
    path.write_bytes(a_task().encode())
    return path


def test_the_command_does_a_task(data: Path, task_file: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    options = ["--task", str(task_file), "--data", str(data), "--report", str(report)]
    ended = command("run-task", *options, "--memory", "256MiB", "--json")
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert (printed["status"], printed["examples"]) == ("trained", EXAMPLES)
    written = Report.decode(report.read_bytes(), a_task())
    assert printed["update_bytes"] == sum(len(t.data) for t in written.update.values())
    table = command("run-task", *options, "--memory", "256MiB")
    assert "trained" in table.stdout
    assert "measured peak bytes" in table.stdout


def test_the_command_declines_with_its_own_exit_code(data: Path, task_file: Path) -> None:
    ended = command("run-task", "--task", str(task_file), "--data", str(data), "--memory", "1MiB")
    assert ended.returncode == BudgetError.exit_code
    assert ended.stderr.startswith("error: declined: nothing fits")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("broken", "code"),
    [("task", PayloadError), ("data", WorkerError), ("report", StorageError)],
)
def test_the_command_fails_in_one_line(
    broken: str, code: type[Exception], data: Path, task_file: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"nonsense")
    places = {"task": str(task_file), "data": str(data), "report": str(tmp_path / "report")}
    places[broken] = str(bad / "inside" if broken == "report" else bad)
    ended = command("run-task", *(f"--{name}={place}" for name, place in places.items()))
    assert ended.returncode == code.exit_code  # type: ignore[attr-defined]
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_help_says_what_to_give() -> None:
    ended = command("run-task", "--help")
    assert ended.returncode == 0
    for option in ("--task", "--data", "--memory", "--report", "--json"):
        assert option in ended.stdout
