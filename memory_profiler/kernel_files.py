"""What the kernel says in files: text that may be missing, figures that may be garbage.

What a file does not tell is None, never 0; what it tells in a form that nobody understands is a
DataError that names the file.
"""

from __future__ import annotations

from pathlib import Path

from edgetrain.errors import DataError

__all__ = ["bytes_in", "counter_in", "table_bytes", "text_of"]


def text_of(path: Path) -> str | None:
    """Return a file's text, or None where there is no such file or it may not be read."""
    try:
        return path.read_text()
    except OSError:
        return None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: is it really the kernel's?") from error


def table_bytes(path: Path, name: str) -> int | None:
    """Return the bytes in the line `name:  N kB` of a file of the proc file system."""
    for line in (text_of(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key != name:
            continue
        number, _, unit = value.strip().partition(" ")
        if not (is_count(number) and unit.strip() == "kB"):
            raise DataError(f"{path} says {line.strip()!r}: expected `{name}: <count> kB`")
        return int(number) * 1024
    return None


def bytes_in(path: Path) -> int | None:
    """Return the bytes that a control group's file holds, or None for `max` or no file."""
    text = (text_of(path) or "").strip()
    if text in ("", "max"):
        return None
    if not is_count(text):
        raise DataError(f"{path} says {text!r}: expected a count of bytes or `max`")
    return int(text)


def counter_in(path: Path, name: str) -> int | None:
    """Return the count in the line `name N` of a control group's file, or None without one."""
    for line in (text_of(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            if not is_count(value):
                raise DataError(f"{path} says {line!r}: expected `{name} <count>`")
            return int(value)
    return None


def is_count(text: str) -> bool:
    """Say whether text is a count in plain digits."""
    return text.isdecimal() and text.isascii()
