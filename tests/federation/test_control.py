"""The control service: over gRPC the same answers as from a federation's files."""

from __future__ import annotations

import json
import socket
import stat
import tarfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from edgetrain.command import run_command
from edgetrain.config import FleetConfig
from edgetrain.coordinator.__main__ import app as commands
from edgetrain.coordinator.app import KEYS
from edgetrain.coordinator.control import client, messages, server
from edgetrain.coordinator.control.client import ask, follow
from edgetrain.coordinator.control.messages import DESCRIPTOR, SERVICE, fields_of, message_of
from edgetrain.coordinator.control.operations import OPERATIONS, STREAMS
from edgetrain.coordinator.control.operator import Operator, fresh_operator, read_operator
from edgetrain.coordinator.control.server import serve_control
from edgetrain.coordinator.directions import Directions
from edgetrain.coordinator.service.authority import Authority
from edgetrain.coordinator.service.backup import back_up
from edgetrain.coordinator.service.keeper import FLEET, RunRecord, directions_of, run_folder
from edgetrain.coordinator.service.place import Place, write_json
from edgetrain.errors import ConfigError, ServiceError

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 20.0
FLEET_TOML = """
[data]
path = "watch"

[training]
rounds = 3

[[device]]
name = "pi"
memory = "64MiB"
count = 2
total_energy = "5 J"

[[device]]
name = "board"
memory = "32MiB"
count = 1
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a federation that has a run, and is down."""
    found = Place(tmp_path / "f")
    found.make()
    write_json(found.settings, {"host": "localhost", "port": 1, "listen": "::1"})
    run_folder(found, "0001").mkdir()
    (run_folder(found, "0001") / FLEET).write_text(FLEET_TOML)
    write_json(found.wish, {"run": "0001", "go_on": True})
    record = RunRecord("0001", 7, 1, "running").to_fields()
    programs = {"proxy": {"running": True, "pid": 5, "restarts": 0}}
    write_json(found.state, {"ready": True, "programs": programs, "run": record})
    return found


@pytest.fixture
def served(place: Place) -> Iterator[Place]:
    """Return the same federation, with its control service."""
    with place.held(), serve_control(place, None):
        yield place


@pytest.fixture
def channel(served: Place) -> Iterator[Any]:
    """Return a channel to the control service, as any gRPC client has one."""
    with grpc.insecure_channel(f"unix:{served.control}") as found:
        yield found


def without_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command go to the files, though a service runs."""
    monkeypatch.setattr(client, "is_served", lambda _: False)


# --- the schema


def test_every_method_has_one_operation_and_every_operation_a_method() -> None:
    streams = {method.name for method in SERVICE.methods if method.server_streaming}
    assert streams == set(STREAMS)
    assert {method.name for method in SERVICE.methods} - streams == set(OPERATIONS)


def test_the_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    name = "edgetrain/coordinator/control"
    arguments = ["protoc", f"-I{name}={ROOT / 'coordinator' / 'control'}"]
    assert protoc.main([*arguments, f"--python_out={tmp_path}", f"{name}/control.proto"]) == 0
    made = (tmp_path / name / "control_pb2.py").read_text()
    assert made == (ROOT / "coordinator" / "control" / "control_pb2.py").read_text(), "make proto"


def test_a_status_is_the_same_before_and_after_the_wire(place: Place) -> None:
    found = OPERATIONS["Status"](place, {})
    kind = DESCRIPTOR.message_types_by_name["Federation"]
    again = type(message_of(kind, found)).FromString(message_of(kind, found).SerializeToString())
    assert fields_of(again) == found
    assert found["run"]["accuracy"] is None, "what is unknown is no zero"


# --- answers


@pytest.mark.parametrize("name", ["Status", "Pause", "Resume", "Budgets", "Stop"])
def test_the_service_answers_as_the_files_do(
    name: str, served: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ask(served, name)
    without_service(monkeypatch)
    assert ask(served, name) == told


def test_a_service_is_asked_where_one_runs(served: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = server.OPERATIONS["Status"]
    monkeypatch.setitem(
        server.OPERATIONS,
        "Status",
        lambda *it: (asked.append(threading.current_thread().name), real(*it))[1],
    )
    assert ask(served, "Status")["up"]
    assert asked[0] != threading.current_thread().name


def test_a_pause_is_kept_and_ends(served: Place) -> None:
    path = directions_of(served, "0001")
    assert ask(served, "Pause")["paused"]
    assert Directions.read(path).paused
    assert ask(served, "Status")["run"]["paused"]
    assert not ask(served, "Resume")["paused"]
    assert not Directions.read(path).paused


def test_a_budget_is_set_for_one_class_and_the_rest_stays(served: Place) -> None:
    ask(served, "Pause")
    ask(served, "SetBudget", {"device_class": "board", "total_seconds": 90.0})
    told = ask(served, "SetBudget", {"device_class": "pi", "total_seconds": 60.0})
    assert told["budgets"] == [
        {"device_class": "pi", "total_energy": 5.0, "total_seconds": 60.0},
        {"device_class": "board", "total_energy": None, "total_seconds": 90.0},
    ]
    assert ask(served, "Budgets") == told
    directions = Directions.read(directions_of(served, "0001"))
    assert directions.paused
    fleet = FleetConfig.from_toml(run_folder(served, "0001") / FLEET)
    assert directions.allowed(fleet.devices[0]).total_seconds == 60.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"device_class": "phone", "total_energy": 1.0}, "no class 'phone'"),
        ({"device_class": "pi"}, "nothing to set"),
        ({"device_class": "pi", "total_energy": -1.0}, "total_energy"),
        ({"device_class": "pi", "total_energy": float("nan")}, "total_energy"),
        ({"device_class": "pi", "total_seconds": float("inf")}, "total_seconds"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_alike(
    fields: dict[str, Any], said: str, served: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=said):
            ask(served, "SetBudget", fields)
        without_service(monkeypatch)
    assert not directions_of(served, "0001").exists()


def test_directions_that_are_damaged_do_not_end_a_pause(served: Place) -> None:
    directions_of(served, "0001").write_text('{"paused": tr')
    with pytest.raises(ConfigError, match="direct anew"):
        ask(served, "Status")


def test_watch_tells_every_change_and_ends_with_the_run(served: Place) -> None:
    stream = follow(served, "Watch")
    assert next(stream)["federation"]["run"]["status"] == "running"
    write_json(served.state, {"run": RunRecord("0001", None, 1, "completed").to_fields()})
    assert [event["federation"]["run"]["status"] for event in stream] == ["completed"]


def test_streams_leave_room_for_calls_and_make_room_when_they_end(served: Place) -> None:
    streams = [follow(served, "Watch") for _ in range(server.MOST_STREAMS)]
    for stream in streams:
        next(stream)
    with pytest.raises(ServiceError, match="too many"):
        next(follow(served, "Watch"))
    assert ask(served, "Status")["up"]
    for stream in streams:
        stream.close()
    eventually(lambda: next(follow(served, "Watch")))


def eventually(attempt: Callable[[], object]) -> None:
    """Try until it is not refused any more."""
    pause, end = threading.Event(), WAIT_SECONDS
    while True:
        try:
            attempt()
            return
        except ServiceError:
            if end <= 0:
                raise
            pause.wait(0.05)
            end -= 0.05


# --- who is answered


def test_the_socket_is_its_owners_alone_and_goes_with_the_service(place: Place) -> None:
    with place.held(), serve_control(place, None):
        assert stat.S_IMODE(place.control.stat().st_mode) == 0o600
    assert not place.control.exists()


def test_a_socket_that_was_left_behind_is_in_nobodys_way(place: Place) -> None:
    place.control.touch()
    with place.held(), serve_control(place, None):
        assert ask(place, "Status")["up"]


def test_a_folder_too_deep_for_a_socket_is_one_line(tmp_path: Path) -> None:
    deep = Place(tmp_path / ("d" * server.LONGEST_SOCKET))
    with pytest.raises(ConfigError, match="shorter --folder"), serve_control(deep, None):
        pass


def test_health_and_reflection_are_grpcs_own(channel: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE.full_name):
        request = health_pb2.HealthCheckRequest(service=name)
        answer = stub.Check(request, timeout=WAIT_SECONDS, wait_for_ready=True)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    told = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE.full_name in told.get_services()
    shown = told.FindFileContainingSymbol(SERVICE.full_name)
    assert [method.name for method in shown.service[0].method] == [
        method.name for method in SERVICE.methods
    ]


@pytest.mark.parametrize("body", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x7f", b"x" * (1 << 20)])
def test_what_is_no_request_is_refused_and_others_are_served(
    body: bytes, channel: Any, served: Place
) -> None:
    call = channel.unary_unary(messages.path_of(SERVICE.methods_by_name["SetBudget"]))
    with pytest.raises(grpc.RpcError):
        call(body, timeout=WAIT_SECONDS, wait_for_ready=True)
    assert ask(served, "Status")["up"]


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["pause"], ["resume"], ["budget"], ["budget", "pi", "--seconds", "9"], ["stop"]],
    ids=" ".join,
)
def test_a_command_says_the_same_through_the_service_and_without(
    arguments: list[str],
    served: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    for _ in range(2):
        for flags in ([], ["--json"]):
            with pytest.raises(SystemExit) as caught:
                run_command(commands, [*arguments, *flags, "--folder", str(served.folder)])
            assert caught.value.code == 0
        shown.append(capsys.readouterr().out)
        without_service(monkeypatch)
    assert shown[0] == shown[1] != ""


# --- operators of other machines


@pytest.fixture
def remote(place: Place) -> Iterator[Place]:
    """Return a federation that serves operators of other machines."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {"host": "127.0.0.1", "port": 1, "listen": "::1", "control": address}
    write_json(place.settings, settings)
    Authority(place.authority).prepare("127.0.0.1")
    with place.held(), serve_control(place, address):
        yield place


def test_an_operator_is_served_as_the_machines_own(remote: Place, tmp_path: Path) -> None:
    path = tmp_path / "anna.toml"
    given = ["--folder", str(remote.folder), "--output", str(path)]
    with pytest.raises(SystemExit) as caught:
        run_command(commands, ["operator", "anna", *given])
    assert caught.value.code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    operator = read_operator(path)
    assert ask(operator, "Status") == ask(remote, "Status")
    assert ask(operator, "Pause")["paused"]
    assert ask(remote, "Status")["run"]["paused"]
    with pytest.raises(ConfigError, match="no class 'phone'"):
        ask(operator, "SetBudget", {"device_class": "phone", "total_energy": 1.0})


@pytest.fixture
def operators(remote: Place) -> tuple[Operator, Operator]:
    """Return two operators of other machines."""
    return fresh_operator(remote, "anna"), fresh_operator(remote, "bert")


def revoke(place: Place, name: str) -> None:
    """Revoke an operator by the command."""
    with pytest.raises(SystemExit) as caught:
        run_command(commands, ["operator", name, "--revoke", "--folder", str(place.folder)])
    assert caught.value.code == 0


def test_a_revoked_operator_is_refused_at_once_and_another_goes_on(
    remote: Place, operators: tuple[Operator, Operator]
) -> None:
    anna, bert = operators
    assert ask(anna, "Status") == ask(bert, "Status")
    revoke(remote, "anna")
    with pytest.raises(ServiceError, match=r"not valid any more: have .* make another") as caught:
        ask(anna, "Status")
    assert "\n" not in str(caught.value)
    assert ask(bert, "Status") == ask(remote, "Status")


def test_a_stream_ends_when_its_operator_is_revoked(
    remote: Place, operators: tuple[Operator, Operator]
) -> None:
    anna, bert = operators
    watched, other = follow(anna, "Watch"), follow(bert, "Watch")
    next(watched)
    next(other)
    revoke(remote, "anna")
    write_json(remote.state, {"run": RunRecord("0001", None, 2, "running").to_fields()})
    with pytest.raises(ServiceError, match="not valid any more"):
        next(watched)
    assert next(other)["federation"]["run"]["attempts"] == 2
    other.close()


def test_a_revoked_operator_gets_no_health_and_no_reflection(
    remote: Place, operators: tuple[Operator, Operator]
) -> None:
    revoke(remote, "anna")
    anna, bert = operators
    asked = health_pb2.HealthCheckRequest()
    for operator, allowed in ((anna, False), (bert, True)):
        with grpc.secure_channel(operator.address, operator.credentials()) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            calls: list[Callable[[], Any]] = [
                lambda stub=stub: stub.Check(asked, timeout=WAIT_SECONDS),
                lambda stub=stub: next(stub.Watch(asked, timeout=WAIT_SECONDS)),
                lambda channel=channel: ProtoReflectionDescriptorDatabase(channel).get_services(),
            ]
            for call in calls:
                if allowed:
                    assert call()
                    continue
                with pytest.raises(grpc.RpcError) as caught:
                    call()
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_restored_federation_knows_whom_the_backup_knew(
    remote: Place, operators: tuple[Operator, Operator], tmp_path: Path
) -> None:
    anna, bert = operators
    revoke(remote, "anna")
    back_up(remote, tmp_path / "backup.tar.gz")
    restored = Place(tmp_path / "restored")
    with tarfile.open(tmp_path / "backup.tar.gz") as archive:
        archive.extractall(restored.folder, filter="data")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with restored.held(), serve_control(restored, address):
        assert ask(replace(bert, address=address), "Status")["up"]
        with pytest.raises(ServiceError, match="not valid any more"):
            ask(replace(anna, address=address), "Status")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["carl", "--revoke"], "'carl' is no operator: see"),
        (["anna"], "'anna' is an operator already: revoke it first"),
        (["anna", "--list"], "say --list alone"),
        (["--revoke"], "name an operator"),
        ([], "name an operator"),
        (["../anna", "--revoke"], "write a name of letters"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("operators")
def test_an_operator_that_cannot_be_is_one_line(
    arguments: list[str],
    said: str,
    remote: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run_command(commands, ["operator", *arguments, "--folder", str(remote.folder)])
    assert caught.value.code == ConfigError.exit_code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("operators")
def test_operators_are_listed_until_they_are_revoked(
    remote: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    revoke(remote, "bert")
    (remote.operators / "damaged.crt").write_text("none")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run_command(commands, ["operator", "--list", "--json", "--folder", str(remote.folder)])
    found = json.loads(capsys.readouterr().out)["operators"]
    assert [(one["name"], one["expired"]) for one in found] == [("anna", False)]


@pytest.mark.parametrize("stranger", ["nobody", "another authority", "the server itself"])
def test_without_a_certificate_for_operators_there_is_no_answer(
    stranger: str, remote: Place, tmp_path: Path
) -> None:
    authority = Authority(remote.authority)
    shown: tuple[bytes, ...] = ()
    if stranger == "another authority":
        other = Authority(tmp_path / "other")
        other.folder.mkdir()
        other.prepare("127.0.0.1")
        certificate, key = other.operator("anna")
        shown = key, certificate
    elif stranger == "the server itself":
        shown = authority.server_key.read_bytes(), authority.server_certificate.read_bytes()
    address = remote.known_settings().control_address
    trust = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), *shown)
    with grpc.secure_channel(address, trust) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ask(remote, "Status")["up"]


def test_over_tcp_nothing_is_said_in_the_clear(remote: Place) -> None:
    with grpc.insecure_channel(remote.known_settings().control_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS)


def test_a_service_that_is_not_the_operators_own_is_not_believed(
    remote: Place, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    other.folder.mkdir()
    other.prepare("127.0.0.1")
    deceived = replace(fresh_operator(remote, "anna"), ca=other.certificate.read_text())
    with pytest.raises(ServiceError, match="does not answer"):
        next(follow(deceived, "Watch"))


@pytest.mark.parametrize("text", ["", "name = 3", "\x00", "a = [", 'name = "x"\nkey = "y"'])
def test_an_operators_file_that_is_none_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "anna.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="make another") as caught:
        read_operator(path)
    assert "\n" not in str(caught.value)


def test_where_no_others_are_served_none_is_made(place: Place) -> None:
    with pytest.raises(ConfigError, match="up --control"):
        fresh_operator(place, "anna")


def test_superlink_lets_every_setting_of_the_serverapp_through() -> None:
    app = tomllib.loads((ROOT / "coordinator" / "flower_app" / "pyproject.toml").read_text())
    assert set(app["tool"]["flwr"]["app"]["config"]) == set(KEYS)
