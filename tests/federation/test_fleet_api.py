"""The calls of a device on flwr's own Fleet API, and what it makes of answers that are bad."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fleet_server import (
    Certificates,
    FleetServer,
    answering,
    make_certificates,
    private_pem,
    serve,
)
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.constant import NOOP_FLWR_AID, ErrorCode

from edgetrain.client.fleet import transport as transport_module
from edgetrain.client.fleet.identity import ServerClock
from edgetrain.client.fleet.incoming import save_payload
from edgetrain.client.fleet.messages import Instruction, make_reply
from edgetrain.client.fleet.objects import array_record, record_dict
from edgetrain.client.fleet.transport import Transport, trust
from edgetrain.client.fleet_api import RUN_ENDED, FleetApi
from edgetrain.client.records import PAYLOAD, SERIALISATION
from edgetrain.errors import ConfigError, FleetError, PayloadError
from edgetrain.signing import PrivateKey

HOUR = 3600.0
Connect = Callable[..., FleetApi]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def superlink(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FleetServer]:
    with serve(certificates, tmp_path_factory.mktemp("superlink") / "superlink.db") as found:
        yield found


@pytest.fixture
def server(superlink: FleetServer) -> FleetServer:
    return superlink.another_run()


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def connect(certificates: Certificates, key: ec.EllipticCurvePrivateKey) -> Iterator[Connect]:
    opened: list[FleetApi] = []

    def to(
        address: str,
        node_id: int = 0,
        other_key: ec.EllipticCurvePrivateKey | None = None,
        skew: float = 0,
    ) -> FleetApi:
        clock = ServerClock(time.time() + skew)
        context = trust(certificates.authority_pem)
        node_key = PrivateKey(private_pem(other_key or key))
        api = FleetApi(Transport(address, context, node_key, clock), node_id)
        opened.append(api)
        return api

    yield to
    for api in opened:
        api.transport.close()


@pytest.fixture
def online(server: FleetServer, connect: Connect, key: ec.EllipticCurvePrivateKey) -> FleetApi:
    """A node that is enrolled and online."""
    server.enrol(key)
    api = connect(server.address)
    api.activate(60)
    return api


def a_task(data: bytes) -> RecordDict:
    array = Array("uint8", (len(data),), SERIALISATION, data)
    return RecordDict({"about": ConfigRecord({}), PAYLOAD: ArrayRecord({PAYLOAD: array})})


def asked(api: FleetApi) -> Instruction:
    found = api.pull_message()
    assert found is not None
    return found


def push(api: FleetApi, instruction: Instruction, data: bytes) -> list[str]:
    """Push a reply and return the objects that the coordinator asked for."""
    content = record_dict({PAYLOAD: array_record(PAYLOAD, SERIALISATION, data)})
    reply = make_reply(instruction, api.node_id, instruction.created_at + 1, content)
    session, missing = api.push_message(reply, 1.5)
    for piece in reply.root.walk():
        if piece.object_id in missing:
            assert api.push_object(instruction.run_id, session, piece)
    return missing


def test_a_message_goes_there_and_its_reply_comes_back(
    server: FleetServer, online: FleetApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flwr.app.message.array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 100)
    task = bytes(250) + b"task" * 50
    message_id = server.send(online.node_id, a_task(task))

    instruction = asked(online)
    assert online.pull_message() is None
    assert (instruction.message_id, instruction.message_type) == (message_id, "train")

    def pull(object_id: str) -> memoryview:
        content = online.pull_object(instruction.run_id, object_id)
        assert content is not None
        return content

    save_payload(pull, instruction.content_id, tmp_path / "task")
    assert (tmp_path / "task").read_bytes() == task
    report = bytes(600_000) + b"report"
    assert len(push(online, instruction, report)) == 6  # two of its three chunks are alike
    online.confirm(instruction)

    reply = server.reply(message_id)
    assert reply is not None
    assert reply.content.array_records[PAYLOAD][PAYLOAD].data == report
    assert reply.metadata.group_id == "1"
    assert server.state.object_store.get(message_id) is None


def test_a_reply_of_a_node_that_was_revoked_meanwhile_reaches_nobody(
    server: FleetServer, online: FleetApi
) -> None:
    message_id = server.send(online.node_id, a_task(b"task"))
    assert push(online, asked(online), b"report")
    server.state.delete_node(NOOP_FLWR_AID, online.node_id)
    reply = server.take(message_id)
    assert reply is not None
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE


def test_a_reply_that_is_pushed_again_counts_once(server: FleetServer, online: FleetApi) -> None:
    message_id = server.send(online.node_id, a_task(b"task"))
    instruction = asked(online)
    assert push(online, instruction, b"report")
    assert push(online, instruction, b"report") == []
    assert server.reply(message_id) is not None
    assert push(online, instruction, b"report") == []
    # Flower's own words for it: there is no such message, nor a reply to it.
    again = server.reply(message_id)
    assert again is not None
    assert again.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def test_a_session_that_has_ended_says_so(server: FleetServer, online: FleetApi) -> None:
    server.send(online.node_id, a_task(b"task"))
    instruction = asked(online)
    reply = make_reply(instruction, online.node_id, instruction.created_at, None, (7, "no"))
    online.push_message(reply, 0)
    assert not online.push_object(instruction.run_id, "another", reply.root)


def test_an_error_is_a_reply(server: FleetServer, online: FleetApi) -> None:
    message_id = server.send(online.node_id, RecordDict(), "query")
    instruction = asked(online)
    reply = make_reply(instruction, online.node_id, instruction.created_at, None, (16, "not ours"))
    session, missing = online.push_message(reply, 0)
    assert missing == [reply.root.object_id]
    assert online.push_object(instruction.run_id, session, reply.root)
    found = server.reply(message_id)
    assert found is not None
    assert (found.error.code, found.error.reason) == (16, "not ours")


def test_an_object_may_not_be_there_yet_or_be_unknown(
    server: FleetServer, online: FleetApi
) -> None:
    message_id = server.send(online.node_id, a_task(b"task"), available=False)
    instruction = asked(online)
    assert online.pull_object(instruction.run_id, instruction.content_id) is not None
    assert online.pull_object(instruction.run_id, message_id) is None
    with pytest.raises(PayloadError, match="no object"):
        online.pull_object(instruction.run_id, "0" * 64)


def test_a_run_that_has_ended_says_so(server: FleetServer, online: FleetApi) -> None:
    server.send(online.node_id, a_task(b"task"))
    instruction = asked(online)
    server.end_run()
    with pytest.raises(FleetError) as pulled:
        online.pull_object(instruction.run_id, instruction.content_id)
    with pytest.raises(FleetError) as pushed:
        push(online, instruction, b"report")
    assert pulled.value.code == pushed.value.code == RUN_ENDED


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_a_device_whose_clock_is_wrong_learns_the_time(
    server: FleetServer, connect: Connect, key: ec.EllipticCurvePrivateKey, skew: float
) -> None:
    node_id = server.enrol(key)
    api = connect(server.address, skew=skew)
    api.activate(60)
    assert api.node_id == node_id
    assert api.transport.clock.now() == pytest.approx(time.time(), abs=5)


def test_a_node_that_knows_its_id_needs_no_more_than_a_heartbeat(
    server: FleetServer, connect: Connect, key: ec.EllipticCurvePrivateKey
) -> None:
    node_id = server.enrol(key)
    connect(server.address).activate(60)
    api = connect(server.address, node_id)
    with pytest.raises(FleetError) as refused:
        api.activate(60)  # the coordinator thinks it online
    assert refused.value.status == 412
    assert api.heartbeat(60)
    api.deactivate()
    assert server.status(node_id) == "offline"
    assert api.heartbeat(60)
    assert server.status(node_id) == "online"


def test_a_key_that_nobody_enrolled_is_refused(
    server: FleetServer, connect: Connect, key: ec.EllipticCurvePrivateKey
) -> None:
    node_id = server.enrol(key)
    stranger = ec.generate_private_key(ec.SECP384R1())
    api = connect(server.address, node_id, stranger)
    with pytest.raises(FleetError) as unknown:
        api.activate(60)
    assert unknown.value.status == 412
    with pytest.raises(FleetError) as another:
        api.pull_message()
    assert another.value.status == 401
    with pytest.raises(FleetError) as closed:
        api.register()
    assert closed.value.status == 412


def test_a_node_registers_itself_where_it_may(server: FleetServer, connect: Connect) -> None:
    api = connect(server.address)
    api.register()
    api.activate(60)
    assert server.status(api.node_id) == "online"
    api.unregister()
    with pytest.raises(FleetError):
        api.heartbeat(60)


def test_a_server_of_another_authority_is_not_believed(connect: Connect, tmp_path: Path) -> None:
    with answering(make_certificates(tmp_path), ok(b"")) as impostor:
        with pytest.raises(FleetError, match="certificate"):
            connect(impostor.address).heartbeat(60)
        assert impostor.requests == []


def test_who_is_not_there_is_named(connect: Connect) -> None:
    with pytest.raises(FleetError, match=r"cannot reach 127\.0\.0\.1:1: .*refused") as error:
        connect("127.0.0.1:1").heartbeat(60)
    assert error.value.status is None


def ok(body: bytes, head: bytes = b"") -> bytes:
    length = b"content-length: %d\r\n" % len(body)
    return b"HTTP/1.1 200 OK\r\n" + (head or length) + b"\r\n" + body


MANY = b"".join(b"10000\r\n" + bytes(65536) + b"\r\n" for _ in range(3))
BAD_ANSWERS = {
    "declares a gigabyte": (ok(b"", b"content-length: 1000000000\r\n"), PayloadError),
    "goes on and on": (ok(MANY, b"transfer-encoding: chunked\r\n"), PayloadError),
    "is cut off": (ok(b"\x08", b"content-length: 2\r\n"), FleetError),
    "says nothing": (b"", FleetError),
    "is no HTTP": (b"220 mail.example ESMTP\r\n", FleetError),
    "has no end of headers": (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200, FleetError),
    "is no protobuf": (ok(b"\xff\xff"), PayloadError),
    "sends one elsewhere": (
        b"HTTP/1.1 307 Go\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        FleetError,
    ),
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_an_answer_that_is_bad_is_an_error_and_nothing_is_sent_again(
    certificates: Certificates, connect: Connect, what: str
) -> None:
    answer, error = BAD_ANSWERS[what]
    with answering(certificates, answer) as impostor:
        with pytest.raises(error):
            connect(impostor.address).heartbeat(60)
        assert len(impostor.requests) == 1


@pytest.mark.parametrize(
    ("body", "said", "code"),
    [
        (b'{"code": 2007, "detail": "The run is over."}', "The run is over.", 2007),
        (b'{"code": "x"}', "Forbidden", None),
        (b"[1]", "Forbidden", None),
        (b"<html>", "Forbidden", None),
        (b"\xff" * 9, "Forbidden", None),
        (b'{"detail": "' + b"a\\n" * 5000 + b'"}', "a a a a", None),
    ],
)
def test_a_refusal_says_why_where_it_is_said(
    certificates: Certificates, connect: Connect, body: bytes, said: str, code: int | None
) -> None:
    head = b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\n\r\n" % len(body)
    with answering(certificates, head + body) as impostor, pytest.raises(FleetError) as error:
        connect(impostor.address).heartbeat(60)
    assert said in str(error.value)
    assert len(str(error.value)) < 300
    assert (error.value.status, error.value.code) == (403, code)


def test_a_signature_of_the_wrong_time_is_made_once_more_and_not_twice(
    certificates: Certificates, connect: Connect
) -> None:
    refusal = b"HTTP/1.1 401 No\r\ndate: %s\r\ncontent-length: 0\r\n\r\n"
    early = refusal % b"Mon, 24 Nov 2025 10:00:00 GMT"
    late = refusal % b"Mon, 24 Nov 2025 23:00:00 GMT"
    with answering(certificates, early, late, early, closes=False) as impostor:
        api = connect(impostor.address)
        with pytest.raises(FleetError, match="401"):
            api.heartbeat(60)
        assert len(impostor.requests) == 2
        api.transport.close()
    assert b"flwr-timestamp: 2025-11-24T10:00:0" in impostor.requests[1]


@pytest.mark.parametrize(("idle", "connections"), [(60.0, 1), (0.0, 2)])
def test_a_connection_is_used_again_while_it_is_fresh(
    certificates: Certificates,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    idle: float,
    connections: int,
) -> None:
    monkeypatch.setattr(transport_module, "REUSE_SECONDS", idle)
    with answering(certificates, ok(b"\x08\x01"), closes=False) as impostor:
        api = connect(impostor.address)
        assert api.heartbeat(60)
        assert api.heartbeat(60)
        assert (len(impostor.requests), impostor.connections) == (2, connections)
        api.transport.close()


def test_two_threads_have_two_connections_and_one_clock(connect: Connect) -> None:
    api = connect("127.0.0.1:1", 5)
    other = api.another()
    assert other.node_id == 5
    assert other.transport.clock is api.transport.clock


def test_an_authority_is_a_certificate() -> None:
    with pytest.raises(ConfigError, match="authority"):
        trust("nothing")
