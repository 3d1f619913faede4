"""The Raspberry Pi 5's power chip, which tells volts and amperes of twelve rails.

It sees neither USB nor what the 5 V pins feed, nor its own losses, so that the sum S of its rails
is corrected by W = gain * S + offset. The coefficients that come with it are a community's fit of
unknown origin: calibrate them where it matters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgetrain.errors import DataError
from edgetrain.memory_profiler.energy.sampled import SampledMeter
from edgetrain.memory_profiler.energy.site import Site

__all__ = ["PmicMeter", "rails_watts"]

PROGRAM = "usr/bin/vcgencmd"
ARGUMENT = "pmic_read_adc"
PATIENCE_S = 2.0
LONGEST_ANSWER = 1 << 14
GAIN = 1.1451
OFFSET_W = 0.5879
LINE = re.compile(
    r"(?P<rail>\w+)_(?P<kind>[AV]) (?:current|volt)\(\d+\)=(?P<value>\d+\.\d+)(?P=kind)"
)


class PmicMeter(SampledMeter):
    """Energy of the board's rails, corrected for what they leave out."""

    name = "pmic"
    scope = "board"

    def __init__(
        self,
        site: Site,
        command: Sequence[str] | None = None,
        gain: float = GAIN,
        offset_w: float = OFFSET_W,
    ) -> None:
        self._command = [str(site.root / PROGRAM), ARGUMENT] if command is None else list(command)
        self._gain = gain
        self._offset_w = offset_w
        super().__init__(site)

    @property
    def path(self) -> str:
        """The command that is asked."""
        return " ".join(self._command)

    def watts(self) -> float:
        """Return the board's power. Raises DataError where the command does not tell it."""
        # Imported here because other machines, which import this module, must not pay for it.
        import subprocess  # noqa: PLC0415

        try:
            answer = subprocess.run(
                self._command, capture_output=True, timeout=PATIENCE_S, check=False
            )
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}: a Raspberry Pi 5 has it") from error
        except subprocess.TimeoutExpired:
            raise DataError(f"{self.path} does not answer within {PATIENCE_S:g} s") from None
        text = answer.stdout[:LONGEST_ANSWER].decode("ascii", "replace")
        if answer.returncode != 0:
            raise DataError(f"{self.path} ended with {answer.returncode}: a Raspberry Pi 5 answers")
        return self._gain * rails_watts(text) + self._offset_w


def rails_watts(answer: str) -> float:
    """Return the sum over all rails whose volts and amperes an answer tells.

    Raises DataError where it tells neither, or a rail's amperes without its volts.
    """
    found: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in answer.splitlines():
        if match := LINE.fullmatch(line.strip()):
            found[match["kind"]][match["rail"]] = float(match["value"])
    amperes, volts = found["A"], found["V"]
    if not amperes or amperes.keys() - volts.keys():
        raise DataError(
            "the power chip tells no rail's volts and amperes: only a Raspberry Pi 5 does"
        )
    return sum(current * volts[rail] for rail, current in amperes.items())
