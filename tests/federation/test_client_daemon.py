"""The daemon on flwr's own Fleet API: what it answers, and that no moment is a bad one to die."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fleet_server import Certificates, FleetServer, make_certificates, private_pem, serve
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import NOOP_FLWR_AID
from small_task import small_task, write_noise

from edgetrain import models
from edgetrain.client import daemon as daemon_module
from edgetrain.client import errand
from edgetrain.client.answer import introduction
from edgetrain.client.daemon import Daemon
from edgetrain.client.enrolment import Enrolment
from edgetrain.client.fleet.transport import Transport
from edgetrain.client.flower_record import record_to_hello, record_to_report, task_to_record
from edgetrain.client.journal import Journal
from edgetrain.client.node_settings import NodeSettings
from edgetrain.client.run import run_task
from edgetrain.client.state import StateFolder
from edgetrain.errors import FleetError, PayloadError, StorageError
from edgetrain.memory_profiler.budget import Budget
from edgetrain.planner import plan
from edgetrain.task import Report, Task
from edgetrain.train import Trainer

FEATURES, CLASSES, EXAMPLES, BATCH = 10, 3, 40, 20
MODEL = models.mlp(inputs=FEATURES, classes=CLASSES, hidden=(8,))


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    folder = tmp_path_factory.mktemp("superlink")
    with serve(make_certificates(folder), ":memory:") as found:
        yield found


@pytest.fixture
def server(superlink: FleetServer) -> FleetServer:
    return superlink.another_run()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("data") / "device.etd", MODEL, EXAMPLES)


@pytest.fixture
def state(server: FleetServer, data: Path, tmp_path: Path) -> StateFolder:
    """A device that has joined and was online once."""
    key = ec.generate_private_key(ec.SECP384R1())
    folder = StateFolder(tmp_path / "state")
    folder.join(enrolment(server.address, server.certificates, key), {"dataset": str(data)})
    server.enrol(key, "left")
    with pytest.raises(Idle):
        daemon(folder).run()
    return folder


def enrolment(
    address: str, certificates: Certificates, key: ec.EllipticCurvePrivateKey
) -> Enrolment:
    return Enrolment("left", address, certificates.authority_pem, private_pem(key).decode())


class Idle(BaseException):
    """Raised in place of the first wait."""


def daemon(state: StateFolder, said: list[str] | None = None, patience: int = 0) -> Daemon:
    """Return a daemon that is stopped when it would wait once more than `patience` times."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > patience:
            raise Idle

    return Daemon(state, wait=wait, say=(said if said is not None else []).append)


def run_until_idle(state: StateFolder) -> None:
    """Start daemons one after the other, as the command does, until there is nothing to do."""
    with contextlib.suppress(Idle):
        while True:
            daemon(state).run()


def a_task(**changes: Any) -> Task:
    return small_task(MODEL, **changes)


def answered(server: FleetServer, message_id: str) -> Message:
    found = server.reply(message_id)
    assert found is not None
    return found


def test_a_device_says_who_it_is(server: FleetServer, state: StateFolder, data: Path) -> None:
    message_id = server.send(state.node_id, RecordDict(), "query")
    daemon(state).run()
    hello = record_to_hello(answered(server, message_id).content)
    assert hello == introduction(NodeSettings(device="left", dataset=str(data)))
    assert (hello["examples"], hello["features"], hello["classes"]) == (40, 10, 3)


def test_a_device_trains_as_it_would_by_hand(
    server: FleetServer, state: StateFolder, data: Path
) -> None:
    task = a_task()
    message_id = server.send(state.node_id, task_to_record(task))
    said: list[str] = []
    daemon(state, said).run()
    assert said[-4:] == ["pulling", "training", "pushing", "train: delivered"]
    reply = answered(server, message_id).content
    report = record_to_report(reply, task)
    by_hand = run_task(task, data, Budget())
    assert report.status == "trained"
    assert report.update == by_hand.update
    assert reply.metric_records["metrics"]["num-examples"] == EXAMPLES
    assert reply.config_records["about"]["status"] == "trained"
    assert Journal(state.path / "journal").events == []
    assert not state.work.exists()
    assert server.state.object_store.get(message_id) is None


def test_what_a_predecessor_left_is_no_part_of_another_task(
    server: FleetServer, state: StateFolder
) -> None:
    state.work.mkdir()
    (state.work / "incoming").write_bytes(a_task(version=7).encode())
    task = a_task()
    message_id = server.send(state.node_id, task_to_record(task))
    run_until_idle(state)
    assert record_to_report(answered(server, message_id).content, task).version == task.version


def test_a_device_evaluates(server: FleetServer, state: StateFolder) -> None:
    task = a_task(kind="evaluate")
    message_id = server.send(state.node_id, task_to_record(task), "evaluate")
    daemon(state).run()
    report = record_to_report(answered(server, message_id).content, task)
    assert (report.status, report.examples) == ("evaluated", EXAMPLES)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (lambda: RecordDict({"config": ConfigRecord({"a": 1})}), "train", "no payload"),
        (lambda: task_to_record(a_task(device="right")), "train", "the task is for 'right'"),
        (lambda: task_to_record(a_task()), "evaluate", "a task to train came to evaluate"),
    ],
)
def test_what_is_not_for_it_is_answered_with_an_error(
    content: Any, kind: str, said: str, server: FleetServer, state: StateFolder
) -> None:
    message_id = server.send(state.node_id, content(), kind)
    daemon(state).run()
    reply = answered(server, message_id)
    assert reply.error.code == PayloadError.exit_code
    assert said in str(reply.error.reason)


def test_a_fault_of_ours_is_an_answer_and_not_an_endless_loop(
    server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errand, "work", lambda *_: {}["a fault"])
    message_id = server.send(state.node_id, task_to_record(a_task()))
    daemon(state).run()
    assert "KeyError" in str(answered(server, message_id).error.reason)


class Killed(BaseException):
    """Stands for SIGKILL: once raised, nothing else of the process happens."""


class Reaper:
    """Kills at the n-th point, and at every point after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = float("inf")
        self.points = 0
        post, append, clear = Transport.post, Journal.append, Journal.clear

        def mortal(call: Any) -> Any:
            def around(*arguments: Any) -> Any:
                self.point()
                found = call(*arguments)
                self.point()
                return found

            return around

        monkeypatch.setattr(Transport, "post", mortal(post))
        monkeypatch.setattr(Journal, "append", mortal(append))
        monkeypatch.setattr(Journal, "clear", mortal(clear))

    def point(self) -> None:
        self.points += 1
        self.left -= 1
        if self.left < 0:
            raise Killed


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Report:
    """Let a report be there at once."""
    report = run_task(a_task(), None, Budget())
    monkeypatch.setattr(errand, "work", lambda *_: report)
    return report


def resident_of(path: Path) -> list[str]:
    """Return what this process has in memory of a file, mapping by mapping, as the kernel says."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return [
        next(rest for rest in lines if rest.startswith("Rss:")).split()[1]
        for line in lines
        if line.endswith(f" {path}")
    ]


def test_a_task_is_not_held_in_memory_while_its_worker_has_it(
    server: FleetServer, state: StateFolder, quick: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[list[str]] = []

    def look(*_: Any) -> Report:
        held.append(resident_of(state.work / "incoming"))
        return quick

    monkeypatch.setattr(errand, "work", look)
    server.send(state.node_id, task_to_record(a_task()))
    daemon(state).run()
    assert held == [["0"]], "it is mapped once, and none of its pages is in memory"


def events(state: StateFolder) -> list[str]:
    return [event["event"] for event in Journal(state.path / "journal").events]


def test_a_device_may_be_killed_at_any_point(
    server: FleetServer, state: StateFolder, quick: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper = Reaper(monkeypatch)
    message_id = server.send(state.node_id, task_to_record(a_task()))
    daemon(state).run()
    points = reaper.points
    assert record_to_report(answered(server, message_id).content, a_task()) == quick
    lost = []
    for number in range(points):
        message_id = server.send(state.node_id, task_to_record(a_task()))
        reaper.left = number
        with pytest.raises(Killed):
            daemon(state).run()
        reaper.left = float("inf")
        run_until_idle(state)
        reply = server.reply(message_id)
        assert events(state) == []
        if reply is None:
            lost.append(number)
            continue
        assert record_to_report(reply.content, a_task()) == quick
        # Whatever was sent twice counts once: a ServerApp has nothing more to take.
        again = server.reply(message_id)
        assert again is None or again.has_error()
    # Flower gives an instruction once: what it says into the void, in the moment between its
    # answer and our disk, is gone. That is all.
    assert len(lost) == 2
    assert points > 25


def pulled(server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a device be killed just as it has taken a task on; return the task's message."""
    message_id = server.send(state.node_id, task_to_record(a_task()))
    with monkeypatch.context() as patch:
        patch.setattr(errand.Errand, "carry_out", lambda _: killed())
        with pytest.raises(Killed):
            daemon(state).run()
    assert events(state) == ["pulled"]
    return message_id


def killed() -> None:
    raise Killed


def test_what_a_run_wanted_that_has_ended_is_dropped(
    server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled(server, state, monkeypatch)
    server.end_run()
    said: list[str] = []
    daemon(state, said).run()
    assert said[-1] == "train: dropped: its run has ended"
    assert events(state) == []


def test_what_came_too_late_is_dropped_before_it_costs_anything(
    server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled(server, state, monkeypatch)
    monkeypatch.setattr(errand, "work", lambda *_: pytest.fail("it worked for nobody"))
    monkeypatch.setattr(errand.Instruction, "expires_at", 1.0)
    said: list[str] = []
    daemon(state, said).run()
    assert said[-1] == "train: dropped: it came too late"


@pytest.mark.usefixtures("quick")
def test_a_reply_that_nobody_waits_for_is_not_sent(
    server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = pulled(server, state, monkeypatch)
    server.state.delete_messages(message_ins_ids={message_id})
    said: list[str] = []
    daemon(state, said).run()
    assert said[-1] == "train: dropped: nobody waits for it any more"


def test_a_reply_is_completed_though_the_serverapp_has_taken_its_first_part(
    server: FleetServer, state: StateFolder, quick: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = pulled(server, state, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("edgetrain.client.fleet_api.FleetApi.push_object", lambda *_: killed())
        with pytest.raises(Killed):
            daemon(state).run()
    bare = server.take(message_id)
    assert bare is not None
    said: list[str] = []
    daemon(state, said).run()
    assert said[-1] == "train: delivered"
    assert record_to_report(server.whole(bare).content, a_task()) == quick


def test_a_task_that_ends_the_daemon_each_time_is_given_up(
    server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = server.send(state.node_id, task_to_record(a_task()))
    monkeypatch.setattr(errand, "work", lambda *_: killed())
    for _ in range(errand.ATTEMPTS):
        with pytest.raises(Killed):
            daemon(state).run()
    daemon(state).run()
    assert "given up" in str(answered(server, message_id).error.reason)


def test_attempts_that_got_further_do_not_count(
    server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = server.send(state.node_id, task_to_record(a_task()))
    trainer = Trainer(plan(MODEL, BATCH))

    def work(*given: Any) -> Report:
        trainer.steps += 1
        trainer.save(given[-1].checkpoint)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(errand, "work", work)
        for _ in range(2 * errand.ATTEMPTS):
            with pytest.raises(Killed):
                daemon(state).run()
    said: list[str] = []
    daemon(state, said).run()
    assert f"training: going on after {2 * errand.ATTEMPTS} micro-batches" in said
    # It is none of this task's, so that the worker begins anew.
    report = record_to_report(answered(server, message_id).content, a_task())
    assert report.update == run_task(a_task(), state.settings["dataset"], Budget()).update


def test_a_full_disk_is_waited_out(
    server: FleetServer, state: StateFolder, quick: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = server.send(state.node_id, task_to_record(a_task()))
    full = iter([True, True, False])

    def work(*_: Any) -> Report:
        if next(full):
            raise StorageError("no space")
        return quick

    monkeypatch.setattr(errand, "work", work)
    said: list[str] = []
    daemon(state, said, patience=2).run()
    assert "failing: no space" in said
    assert record_to_report(answered(server, message_id).content, a_task()) == quick


def test_a_coordinator_that_is_away_is_asked_less_and_less(state: StateFolder, data: Path) -> None:
    away = Enrolment(
        "left", "127.0.0.1:1", state.enrolment.ca, state.enrolment.key, poll_seconds=15
    )
    state.join(away, {"dataset": str(data)})
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 14:
            raise Idle

    said: list[str] = []
    with pytest.raises(Idle):
        Daemon(state, wait=wait, say=said.append).run()
    assert len(said) == 1
    assert said[0].startswith("unreachable: cannot reach 127.0.0.1:1")
    expected = [min(2.0**failures, 600.0) for failures in range(14)]
    assert all(most / 2 <= took <= most for took, most in zip(waits, expected, strict=True))
    assert len(set(waits)) == 14


def test_work_goes_on_without_the_coordinator_and_is_delivered_when_it_is_back(
    server: FleetServer, state: StateFolder, quick: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = server.send(state.node_id, task_to_record(a_task()))
    with monkeypatch.context() as patch:
        patch.setattr(errand, "work", lambda *_: killed())
        with pytest.raises(Killed):
            daemon(state).run()
    with monkeypatch.context() as patch:
        patch.setattr(Transport, "post", unreachable)
        with pytest.raises(Idle):
            daemon(state).run()
    assert "answered" in events(state)
    daemon(state).run()
    assert record_to_report(answered(server, message_id).content, a_task()) == quick


def unreachable(*_: Any) -> bytearray:
    raise FleetError("cannot reach it")


def test_a_paused_device_takes_nothing_on_and_says_so(
    server: FleetServer, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "QUIET_SECONDS", 0.0)
    message_id = server.send(state.node_id, RecordDict(), "query")
    state.paused = True
    said: list[str] = []
    with pytest.raises(Idle):
        daemon(state, said, patience=3).run()
    assert said == ["paused"]
    state.paused = False
    daemon(state).run()
    assert record_to_hello(answered(server, message_id).content)["name"] == "left"


def test_a_paused_device_finishes_what_it_has_begun(
    server: FleetServer, state: StateFolder, quick: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = pulled(server, state, monkeypatch)
    state.paused = True
    daemon(state).run()
    assert record_to_report(answered(server, message_id).content, a_task()) == quick


@pytest.mark.parametrize(("quiet", "then"), [(0.0, "offline"), (60.0, "online")])
def test_a_device_that_is_stopped_says_goodbye_unless_its_reply_may_not_have_been_taken(
    server: FleetServer,
    state: StateFolder,
    monkeypatch: pytest.MonkeyPatch,
    quiet: float,
    then: str,
) -> None:
    monkeypatch.setattr(daemon_module, "QUIET_SECONDS", quiet)
    with pytest.raises(Idle):
        daemon(state).run()
    assert server.status(state.node_id) == then


def test_a_device_that_was_enrolled_anew_is_another_node(
    server: FleetServer, state: StateFolder, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled(server, state, monkeypatch)
    old = state.node_id
    key = ec.generate_private_key(ec.SECP384R1())
    state.join(enrolment(server.address, server.certificates, key), {"dataset": str(data)})
    new = server.enrol(key, "left")
    with pytest.raises(Idle):
        daemon(state).run()
    assert state.node_id == new != old
    assert events(state) == []


def test_a_device_that_was_revoked_waits_for_better_times(
    server: FleetServer, state: StateFolder
) -> None:
    server.state.delete_node(NOOP_FLWR_AID, state.node_id)
    said: list[str] = []
    with pytest.raises(Idle):
        daemon(state, said, patience=2).run()
    assert said[0].startswith("refused:")


def test_a_device_registers_itself_where_nobody_has_to_enrol_it(
    superlink: FleetServer, data: Path, tmp_path: Path
) -> None:
    server = superlink.another_run()
    key = ec.generate_private_key(ec.SECP384R1())
    state = StateFolder(tmp_path / "open")
    state.join(enrolment(server.address, server.certificates, key), {"dataset": str(data)})
    with pytest.raises(Idle):
        daemon(state).run()
    assert server.status(state.node_id) == "online"
