"""Samples as text, from files and over the socket: samples are recorded, all else is named."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetrain.client.sample_ring import Sample, SampleForm, SampleRing
from edgetrain.client.sample_socket import MOST_CLIENTS, sample_socket
from edgetrain.client.sample_text import longest_line, parse_sample, read_samples
from edgetrain.errors import DataError

FORM = SampleForm((2, 3), "b", 5)
GOOD = b'{"x": [[1, -2, 3], [4, 5, -128]], "y": 4}\n'
SAMPLE = Sample(bytes((1, 254, 3, 4, 5, 128)), 4)
SECONDS = 10.0
"""Most that an answer over a local socket takes, on the slowest machine."""


def test_features_may_be_nested_or_flat() -> None:
    assert parse_sample(GOOD, FORM) == SAMPLE
    assert parse_sample(b'{"y": 4, "x": [1, -2, 3, 4, 5, -128]}', FORM) == SAMPLE


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"hello", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not a sample"),
        (b'{"x": [1, 2, 3, 4, 5, 6]}', "not a sample"),
        (b'{"x": [1, 2, 3, 4, 5, 6], "y": 1, "z": 1}', "not a sample"),
        (b'{"x": 1, "y": 1}', "not a list"),
        (b'{"x": [1, 2, 3, 4, 5], "y": 1}', "has 5 features"),
        (b'{"x": [1, 2, 3, 4, 5, 128], "y": 1}', "from -128 to 127"),
        (b'{"x": [1, 2, 3, 4, 5, 0.5], "y": 1}', "from -128 to 127"),
        (b'{"x": [1, 2, 3, 4, 5, true], "y": 1}', "from -128 to 127"),
        (b'{"x": [1, 2, 3, 4, 5, NaN], "y": 1}', "from -128 to 127"),
        (b'{"x": [[[1]], 2, 3, 4, 5, 6], "y": 1}', "from -128 to 127"),
        (b'{"x": [1, 2, 3, 4, 5, 6], "y": 5}', "outside 0..4"),
        (b'{"x": [1, 2, 3, 4, 5, 6], "y": -1}', "outside 0..4"),
        (b'{"x": [1, 2, 3, 4, 5, 6], "y": true}', "not a whole number"),
    ],
)
def test_what_is_no_sample_is_refused_by_its_cause(line: bytes, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        parse_sample(line, FORM)


@given(st.binary(max_size=200))
def test_anything_else_is_refused_in_one_line(line: bytes) -> None:
    with pytest.raises(DataError) as caught:
        parse_sample(line, FORM)
    assert str(caught.value).isprintable()


def test_the_line_that_is_wrong_is_named() -> None:
    with pytest.raises(DataError, match="line 3: not JSON"):
        list(read_samples(io.BytesIO(GOOD + b"\n" + b"oops\n"), FORM))
    endless = io.BytesIO(GOOD + b"[" * longest_line(FORM) + b"\n")
    with pytest.raises(DataError, match="line 2 is longer"):
        list(read_samples(endless, FORM))


@pytest.fixture
def ring(tmp_path: Path) -> SampleRing:
    return SampleRing.create(tmp_path / "ring", FORM, 1 << 12)


@pytest.fixture
def address(ring: SampleRing, tmp_path: Path) -> Iterator[str]:
    with sample_socket(tmp_path / "socket", ring):
        yield str(tmp_path / "socket")
    assert not (tmp_path / "socket").exists()


def connected(address: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(SECONDS)
    client.connect(address)
    return client


def test_every_line_is_answered_once_it_is_recorded(ring: SampleRing, address: str) -> None:
    with connected(address) as client, client.makefile("rb") as answers:
        client.sendall(GOOD + b'{"x": 1, "y": 1}\n' + GOOD)
        assert json.loads(answers.readline()) == {"recorded": 1}
        assert json.loads(answers.readline()) == {"error": "the features x are not a list"}
        assert json.loads(answers.readline()) == {"recorded": 2}
        assert ring.samples() == [SAMPLE, SAMPLE]


def test_a_line_without_an_end_is_hung_up_on(ring: SampleRing, address: str) -> None:
    with connected(address) as client, client.makefile("rb") as answers:
        client.sendall(b"[" * (longest_line(FORM) + 1))
        assert "longer than" in json.loads(answers.readline())["error"]
        assert answers.readline() == b""
    assert ring.recorded() == 0


def test_too_many_clients_are_sent_away_and_the_others_served(address: str) -> None:
    clients = [connected(address) for _ in range(MOST_CLIENTS)]
    for client in clients:
        client.sendall(GOOD)
        assert "recorded" in json.loads(client.makefile("rb").readline())
    with connected(address) as late:
        assert "try again later" in json.loads(late.makefile("rb").readline())["error"]
    for client in clients:
        client.sendall(GOOD)
        assert "recorded" in json.loads(client.makefile("rb").readline())
        client.close()


def test_a_socket_left_behind_is_taken_over(ring: SampleRing, tmp_path: Path) -> None:
    path = tmp_path / "left"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with sample_socket(path, ring), connected(str(path)) as client:
        client.sendall(GOOD)
        assert json.loads(client.makefile("rb").readline()) == {"recorded": 1}
