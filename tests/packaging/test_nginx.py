"""nginx with our configuration before a door: what it lets through, and what never arrives."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fleet_server import private_pem

from edgetrain.client.fleet.hold import APPLIED, PREFER, Hold
from edgetrain.client.fleet.identity import ServerClock
from edgetrain.client.fleet.transport import Transport, trust
from edgetrain.coordinator.service.authority import Authority
from edgetrain.signing import PrivateKey

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "proxy" / "nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
PROMPT = 20.0
"""Seconds in which a process on a busy machine does the next thing."""
LOCAL = "127.0.0.1"
LARGEST = 8 << 20

pytestmark = pytest.mark.skipif(NGINX is None, reason="install Debian's package nginx-light")


class Door(ThreadingHTTPServer):
    """Stands in for the service's own door, and remembers what came."""

    daemon_threads = True

    def __init__(self, authority: Authority) -> None:
        super().__init__((LOCAL, 0), DoorHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.server_certificate, authority.server_key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.seen: list[tuple[str, str | None, bytes]] = []
        self.woken = threading.Event()


class DoorHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Door

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, self.headers["flwr-signature"], body))
        self.send_response(200)
        if PREFER in self.headers:
            self.send_header(APPLIED, self.headers[PREFER])
            self.send_header("x-accel-buffering", "no")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            assert self.server.woken.wait(PROMPT)
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(tmp_path_factory.mktemp("authority"))
    found.prepare("localhost")
    return found


@pytest.fixture(scope="module")
def door(authority: Authority) -> Iterator[Door]:
    with Door(authority) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def port(
    door: Door, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Run nginx with our configuration, but for addresses and folders; yield its port."""
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server((LOCAL, 0)) as probe:
        free = int(probe.getsockname()[1])
    temporary = "".join(
        f"{name}_temp_path {folder / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = CONFIGURATION.read_text()
    for ours, here in (
        ("192.0.2.1:9443", f"{LOCAL}:{free}"),
        ("server 127.0.0.1:9443", f"server {LOCAL}:{door.server_address[1]}"),
        ("/var/lib/edgetrain-coordinator/authority", str(authority.folder)),
        ("http {", f"http {{\n{temporary}"),
    ):
        assert ours in text
        text = text.replace(ours, here)
    path = folder / "nginx.conf"
    path.write_text(text)
    words = [str(NGINX), "-c", path, "-p", folder, "-e", folder / "error.log"]
    directives = f"daemon off; pid {folder / 'pid'};"
    checked = subprocess.run(
        [*words, "-t", "-g", directives], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen([*words, "-g", directives]) as process:
        until_open(free)
        yield free
        process.terminate()


def until_open(port: int) -> None:
    """Wait until somebody listens on a port."""
    end = time.monotonic() + PROMPT
    while True:
        try:
            socket.create_connection((LOCAL, port), PROMPT).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end, "nginx does not listen"
            time.sleep(0.02)
        else:
            return


def ask(port: int, authority: Authority, method: str, path: str, body: bytes = b"") -> int:
    """Return the status that a device gets."""
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    connection = HTTPSConnection("localhost", port, context=trust, timeout=PROMPT)
    try:
        connection.request(method, path, body, {"flwr-signature": "signed"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_devices_call_arrives_as_it_was_sent(door: Door, port: int, authority: Authority) -> None:
    # What fits in a buffer: the worker of an nginx of root's may not write into our folder.
    body = bytes(range(256)) * 32
    assert ask(port, authority, "POST", "/v1/fleet/pull-messages?query=1", body) == 200
    assert door.seen[-1] == ("/v1/fleet/pull-messages", "signed", body)


def test_a_device_that_is_held_knows_it_at_once(
    door: Door, port: int, authority: Authority
) -> None:
    key = private_pem(ec.generate_private_key(ec.SECP384R1()))
    transport = Transport(
        f"localhost:{port}",
        trust(authority.certificate.read_text()),
        PrivateKey(key),
        ServerClock(),
    )

    def wanted() -> bool:
        door.woken.set()
        return True

    # The door goes on only when the device has seen the head of the answer.
    hold = Hold(PROMPT, PROMPT, wanted)
    assert not transport.post("/v1/fleet/pull-messages", b"", LARGEST, hold)
    assert hold.applied
    assert door.woken.is_set()
    transport.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 404),
        ("POST", "/v1/control/start-run", 404),
        ("POST", "/flwr.proto.Control/StartRun", 404),
        ("POST", "/v1/fleet/", 404),
        ("POST", "/v1/fleet/a/../../control/stop-run", 404),
        ("POST", "/v1/fleet/%2e%2e/control/stop-run", 404),
        ("POST", "/v1/fleet/pull-messages/", 404),
        ("POST", "/v1/fleet/pull%0A", 404),
        ("POST", "/v1/fleet/pull%0D%0Aheader:%20x", 404),
        ("POST", f"/v1/fleet/{'a' * 33}", 404),
        ("GET", "/v1/fleet/pull-messages", 405),
        ("PUT", "/v1/fleet/pull-messages", 405),
    ],
)
def test_nothing_else_arrives(
    method: str, path: str, status: int, door: Door, port: int, authority: Authority
) -> None:
    before = len(door.seen)
    assert ask(port, authority, method, path) == status
    assert len(door.seen) == before


def test_a_body_is_of_a_bounded_and_stated_length(
    door: Door, port: int, authority: Authority
) -> None:
    before = len(door.seen)
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    for header, status in (
        (f"content-length: {LARGEST + 1}", 413),
        ("transfer-encoding: chunked", 411),
    ):
        with (
            socket.create_connection((LOCAL, port), PROMPT) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as stream,
        ):
            request = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n"
            stream.sendall(request.encode())
            assert stream.recv(100).split()[1] == str(status).encode()
    assert len(door.seen) == before
