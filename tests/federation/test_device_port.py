"""What a device's port lets through to the services behind it."""

from __future__ import annotations

import datetime
from base64 import b64encode

import grpc
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from federation import READY_SECONDS, Federation
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgetrain.client.enrolment import read_enrolment

LOOPBACK = ("127.0.0.1", "::1")
HOUR = datetime.timedelta(hours=1)


def signed(key: ec.EllipticCurvePrivateKey, when: datetime.datetime) -> dict[str, str]:
    """Return the headers of a request that a device has signed."""
    now = when.isoformat()
    return {
        "content-type": "application/protobuf",
        FLEET_HTTP_PUBLIC_KEY_HEADER: named(key),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, now.encode())).decode(),
        TIMESTAMP_HEADER: now,
    }


def named(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the header that says whose a request is."""
    return b64encode(public_key_to_bytes(key.public_key())).decode()


@pytest.mark.slow
def test_a_signature_is_good_for_its_own_time_key_and_node(federation: Federation) -> None:
    federation.up()
    nodes = [int(federation.call("enroll", name)["node_id"]) for name in ("mallory", "pi")]
    enrolment = read_enrolment(federation.folder / "mallory.toml")
    key = load_pem_private_key(enrolment.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    own, theirs = (PullMessagesRequest(node=Node(node_id=one)).SerializeToString() for one in nodes)
    now = datetime.datetime.now(datetime.UTC)
    good, old = signed(key, now), signed(key, now - HOUR)
    moved = {**old, TIMESTAMP_HEADER: now.isoformat()}
    foreign = {**good, FLEET_HTTP_PUBLIC_KEY_HEADER: named(ec.generate_private_key(ec.SECP384R1()))}
    path = "/v1/fleet/pull-messages"
    for name, headers in (("old", old), ("moved", moved), ("foreign", foreign)):
        assert federation.ask("POST", path, headers, own) == 401, name
    assert 400 <= federation.ask("POST", path, signed(key, now), theirs) < 500


@pytest.mark.slow
def test_only_the_door_listens_to_other_machines_and_it_knows_no_grpc(
    federation: Federation,
) -> None:
    federation.up(listen="0.0.0.0")
    listening = {
        (one.laddr.ip, one.laddr.port)
        for process in federation.processes()
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert {port for ip, port in listening if ip not in LOOPBACK} == {federation.port}
    assert len(listening) > 1, "SuperLink listens too"
    trust = grpc.ssl_channel_credentials((federation.state / "authority" / "ca.crt").read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{federation.port}", trust) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Check(health_pb2.HealthCheckRequest(), timeout=READY_SECONDS)
    for path in (
        "/edgetrain.control.v1.Control/Status",
        "/edgetrain.control.v1.Control/Stop",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/metrics",
    ):
        for method in ("POST", "GET"):
            assert federation.ask(method, path) in (404, 405), path
    assert federation.call("status")["ready"]
