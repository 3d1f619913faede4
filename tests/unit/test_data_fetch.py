"""Fetching: checked, resumable, and one clear line when it cannot be done.

A registry's client is played by a small script that counts how often it was run.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from edgetrain.data import catalogue, load
from edgetrain.data.fetch import data_home, fetch, is_fetched
from edgetrain.data.sources import SOURCES, Archive, Source
from edgetrain.errors import DataError, StorageError

TEXT = "an archive"
CONTENT = TEXT.encode()
# Appends to the file, as a client that continues a partial download does.
CLIENT = """
import pathlib, sys
runs, text, code, complaint = sys.argv[1:]
with open(runs, "a") as log: log.write("x")
with open("set.bin", "ab") as file: file.write(text.encode())
print(complaint, file=sys.stderr)
sys.exit(int(code))
"""


def convert(path):
    assert path.read_bytes() == CONTENT
    x = np.arange(20, dtype=np.uint8).reshape(10, 2)
    y = np.arange(10) % 2
    return {"x.npy": x, "y.npy": y, "x_test.npy": x, "y_test.npy": y}


def source(tmp_path, text=TEXT, code=0, complaint="", file="set.bin") -> Source:
    return Source(
        name="toy",
        about="a toy",
        licence="none",
        archive=Archive(
            file=file,
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            size=len(CONTENT),
            command=(
                sys.executable,
                "-c",
                CLIENT,
                str(tmp_path / "runs"),
                text,
                str(code),
                complaint,
            ),
        ),
        class_names=("a", "b"),
        convert=convert,
    )


def runs(tmp_path) -> int:
    return len((tmp_path / "runs").read_text()) if (tmp_path / "runs").exists() else 0


def test_fetched_once_and_then_never_again(tmp_path):
    home, sources, seen = tmp_path / "home", {"toy": source(tmp_path)}, []
    assert not is_fetched("toy", home, sources)
    folder = fetch("toy", home, lambda *step: seen.append(step), sources)
    assert folder == home / "toy"
    assert is_fetched("toy", home, sources)
    assert any("converting" in step[0] for step in seen)
    splits = load(folder)
    assert (len(splits.train), len(splits.test), splits.train.class_names) == (10, 10, ("a", "b"))
    fetch("toy", home, None, sources)
    assert runs(tmp_path) == 1


def test_a_lost_conversion_needs_no_second_download(tmp_path):
    home, sources = tmp_path / "home", {"toy": source(tmp_path)}
    folder = fetch("toy", home, None, sources)
    (folder / "x.npy").write_bytes(b"")
    assert not is_fetched("toy", home, sources)
    fetch("toy", home, None, sources)
    assert is_fetched("toy", home, sources)
    assert runs(tmp_path) == 1


def test_an_interrupted_download_is_continued(tmp_path):
    home = tmp_path / "home"
    cut = {"toy": source(tmp_path, text="an ar", code=1, complaint="E: connection lost")}
    with pytest.raises(DataError, match="connection lost"):
        fetch("toy", home, None, cut)
    fetch("toy", home, None, {"toy": source(tmp_path, text="chive")})
    assert runs(tmp_path) == 2


def test_a_wrong_archive_is_deleted_and_said(tmp_path):
    home = tmp_path / "home"
    with pytest.raises(DataError, match="sha256") as caught:
        fetch("toy", home, None, {"toy": source(tmp_path, text="something else")})
    assert "\n" not in str(caught.value)
    assert [path.name for path in (home / "downloads").iterdir()] == ["toy.lock"]
    fetch("toy", home, None, {"toy": source(tmp_path)})


def test_a_damaged_archive_is_fetched_again(tmp_path):
    home, sources = tmp_path / "home", {"toy": source(tmp_path)}
    (home / "downloads").mkdir(parents=True)
    (home / "downloads" / "set.bin").write_bytes(b"damaged")
    fetch("toy", home, None, sources)
    assert runs(tmp_path) == 1


def test_an_archive_put_there_by_hand_is_taken(tmp_path):
    toy = source(tmp_path)
    toy = replace(toy, archive=replace(toy.archive, command=("no-such-client",)))
    home = tmp_path / "home"
    with pytest.raises(DataError, match=r"needs no-such-client: install it, or put set\.bin into"):
        fetch("toy", home, None, {"toy": toy})
    (home / "downloads" / "set.bin").write_bytes(CONTENT)
    fetch("toy", home, None, {"toy": toy})


OFFLINE = {
    "npm": ("npm error code ENOTFOUND\nnpm error network no route", "ENOTFOUND"),
    "apt-get": ("Get:1 ...\nE: Failed to fetch something", "E: Failed to fetch"),
    "silent": ("", "nothing"),
}


@pytest.mark.parametrize("client", OFFLINE)
def test_offline_is_one_line_with_the_clients_reason(tmp_path, client):
    complaint, reason = OFFLINE[client]
    toy = source(tmp_path, code=100, complaint=complaint)
    with pytest.raises(DataError, match="check the network, then run it again") as caught:
        fetch("toy", tmp_path / "home", None, {"toy": toy})
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_client_that_leaves_nothing_is_said(tmp_path):
    toy = source(tmp_path, file="other.bin")
    with pytest.raises(DataError, match=r"left no other\.bin"):
        fetch("toy", tmp_path / "home", None, {"toy": toy})


def test_two_at_once_are_refused(tmp_path):
    home = tmp_path / "home"
    (home / "downloads").mkdir(parents=True)
    with (home / "downloads" / "toy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            fetch("toy", home, None, {"toy": source(tmp_path)})


def test_a_folder_of_ones_own_is_never_overwritten(tmp_path):
    mine = tmp_path / "home" / "toy"
    mine.mkdir(parents=True)
    (mine / "x.npy").write_bytes(b"mine")
    with pytest.raises(DataError, match="was not fetched: move it"):
        fetch("toy", tmp_path / "home", None, {"toy": source(tmp_path)})
    assert (mine / "x.npy").read_bytes() == b"mine"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="EDGETRAIN_DATA"):
        fetch("toy", tmp_path / "file", None, {"toy": source(tmp_path)})


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(DataError, match="fetch one of fashion, mnist, cifar10"):
        fetch("imagenet", tmp_path)


def test_where_data_lives(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("EDGETRAIN_DATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert data_home() == tmp_path / ".local" / "share" / "edgetrain"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_home() == tmp_path / "xdg" / "edgetrain"
    monkeypatch.setenv("EDGETRAIN_DATA", str(tmp_path / "own"))
    assert data_home() == tmp_path / "own"


def idx(array) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def test_an_idx_archive_becomes_arrays(tmp_path):
    arrays = {
        "train-images-idx3-ubyte": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "train-labels-idx1-ubyte": np.array([1, 0], np.uint8),
        "t10k-images-idx3-ubyte": np.zeros((1, 3, 4), np.uint8),
        "t10k-labels-idx1-ubyte": np.array([1], np.uint8),
    }
    path = tmp_path / "mnist.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, array in arrays.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(idx(array))
            archive.addfile(member, io.BytesIO(idx(array)))
    found = SOURCES["mnist"].convert(path)
    for name, array in zip(
        ("x.npy", "y.npy", "x_test.npy", "y_test.npy"), arrays.values(), strict=True
    ):
        assert np.array_equal(found[name], array)


def test_the_catalogue_says_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGETRAIN_DATA", str(tmp_path))
    places = {entry.name: entry.place for entry in catalogue.entries()}
    assert list(places) == ["watch", *SOURCES]
    assert [name for name, place in places.items() if place] == ["watch"]
    assert json.dumps(sorted(places)) == json.dumps(
        sorted(["watch", "fashion", "mnist", "cifar10"])
    )
