"""A SuperLink's Fleet API in the test's own process: flwr's application and state, over real TLS.

What a ServerApp would do with a Grid is done on the state itself, so that a test decides when.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from flwr.app import Message, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID
from flwr.common.serde import message_to_proto
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.main import create_app

START_SECONDS = 30.0
TTL_SECONDS = 600.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Certificates:
    """An authority made for a test and its certificate for the loopback, as PEM files."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def authority_pem(self) -> str:
        """What a device has to trust."""
        return self.authority.read_text()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a PEM without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half of a key as a PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a certificate for the loopback, valid for a day around now."""
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        for name in ("test authority", LOOPBACK)
    ]
    paths = Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    for index, path in enumerate((paths.authority, paths.certificate)):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[index])
            .issuer_name(names[0])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(index == 0, None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")]
                ),
                critical=False,
            )
            .sign(keys[0], hashes.SHA256())
        )
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(private_pem(keys[1]))
    return paths


class FleetServer:
    """What a test does on the coordinator's side, with a run that goes on until `end_run`."""

    def __init__(self, app: FastAPI, port: int, certificates: Certificates) -> None:
        self.app = app
        self.port = port
        self.certificates = certificates
        self.address = f"{LOOPBACK}:{port}"
        self.state: Any = app.state.linkstate_factory.state()
        self.run_id: int = self.state.create_run(
            *("edgetrain/test", "1.0", "", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID),
            TaskType.SERVER_APP,
        )
        (run,) = self.state.get_run_info(run_ids=[self.run_id])
        self.task_id: int = run.primary_task_id
        assert self.state.claim_task(self.task_id)
        assert self.state.activate_task(self.task_id)

    def another_run(self) -> FleetServer:
        """Return the same server with a run of its own, and with doors open to any node."""
        self.app.state.enable_supernode_auth = False
        return FleetServer(self.app, self.port, self.certificates)

    def enrol(self, key: ec.EllipticCurvePrivateKey, name: str = "device") -> int:
        """Make a node's key known, as `flwr supernode register` does; return the node's id."""
        self.app.state.enable_supernode_auth = True
        node_id: int = self.state.create_node(NOOP_FLWR_AID, "me", public_pem(key), 0, name=name)
        return node_id

    def status(self, node_id: int) -> str:
        """Return "registered", "online", "offline" or "unregistered"."""
        self.state._check_and_tag_offline_nodes([node_id])
        (node,) = self.state.get_node_info(node_ids=[node_id])
        return str(node.status)

    def send(
        self, node_id: int, content: RecordDict, kind: str = "train", *, available: bool = True
    ) -> str:
        """Send a node an instruction and return its id; `available` says whether all of it."""
        TaskIdentity.task_id, TaskIdentity.node_id = self.task_id, 1
        TaskIdentity.run_id = self.run_id
        message = Message(content, node_id, kind, ttl=TTL_SECONDS, group_id="1")
        message.metadata.__dict__["_message_id"] = message.object_id
        bare = remove_content_from_message(message)
        session = self.state.start_session(self.run_id)
        stored, missing = self.state.store_message_and_object_tree(
            bare, get_object_tree(message), session
        )
        assert stored, message_to_proto(bare)
        pieces = get_all_nested_objects(message)
        for object_id in missing if available else missing[:-1]:
            assert self.state.store_object(
                self.run_id, session, object_id, pieces[object_id].deflate()
            )
        return message.object_id

    def take(self, message_id: str) -> Message | None:
        """Take the reply to an instruction as a ServerApp does, without its objects; None without.

        From then on Flower knows nothing of the instruction.
        """
        replies = self.state.get_message_res({message_id}, self.run_id)
        if not replies:
            return None
        self.state.delete_messages(message_ins_ids={message_id})
        (bare,) = replies
        return cast(Message, bare)

    def whole(self, bare: Message) -> Message:
        """Return a reply with its objects, all of which must have come; they are then deleted."""
        root = bare.metadata.message_id
        store = self.state.object_store
        contents: dict[str, bytes] = {}
        trees = [store.get_object_tree(root)]
        while trees:
            tree = trees.pop()
            contents[tree.object_id] = store.get(tree.object_id)
            trees.extend(tree.children)
        assert all(contents.values()), "an object was announced and not pushed"
        store.delete(root)
        message = inflate_object_from_contents(root, contents)
        assert isinstance(message, Message)
        return message

    def reply(self, message_id: str) -> Message | None:
        """Return the reply to an instruction, whole, and once; None where there is none."""
        bare = self.take(message_id)
        return None if bare is None else self.whole(bare)

    def end_run(self) -> None:
        """End the run, as when its ServerApp returns."""
        assert self.state.finish_task(self.task_id, "completed", "")


@contextmanager
def serve(certificates: Certificates, database: Path | str) -> Iterator[FleetServer]:
    """Serve flwr's application on the loopback while the context is open."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("FLWR_DATABASE", str(database))
        # flwr asks alembic for something that a later alembic will do otherwise.
        warnings.simplefilter("ignore", DeprecationWarning)
        app = create_app()
    config = uvicorn.Config(
        app,
        host=LOOPBACK,
        port=0,
        log_level="warning",
        ws="none",
        timeout_graceful_shutdown=1,
        ssl_certfile=certificates.certificate,
        ssl_keyfile=certificates.key,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + START_SECONDS
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        assert time.monotonic() < end, "the server did not start in time"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield FleetServer(app, port, certificates)
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


@dataclass
class Impostor:
    """A server with a certificate that is right and answers that need not be."""

    address: str
    requests: list[bytes]
    connections: int = 0


@contextmanager
def answering(
    certificates: Certificates, *answers: bytes, closes: bool = True
) -> Iterator[Impostor]:
    """Serve raw answers, one a request and the last one again; `closes` says what follows each."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    listener = socket.create_server((LOOPBACK, 0))
    impostor = Impostor(f"{LOOPBACK}:{listener.getsockname()[1]}", [])

    def converse(connection: ssl.SSLSocket) -> None:
        reader = connection.makefile("rb")
        while head := b"".join(takewhile(lambda line: line.strip(), reader)):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            impostor.requests.append(head + b"\r\n" + reader.read(length))
            connection.sendall(answers[min(len(impostor.requests), len(answers)) - 1])
            if closes:
                break

    def listen() -> None:
        # Whoever speaks to an impostor may hang up at any moment, and the test does in the end.
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with (
                    contextlib.suppress(OSError),
                    raw,
                    context.wrap_socket(raw, server_side=True) as connection,
                ):
                    impostor.connections += 1
                    converse(connection)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield impostor
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(START_SECONDS)
