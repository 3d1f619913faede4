"""What a training worker needs before it has a task: measured on this machine, and remembered.

A measurement starts several processes, which is seconds of work on a small device, and a daemon
starts afresh after every task. So it is kept in a file, and taken from there for as long as
nothing has changed that it depends on (see `probe_file`).
"""

from __future__ import annotations

from functools import cache

from edgetrain.errors import WorkerError
from edgetrain.memory_profiler.memory import WORKER, worker_command, worker_environment
from edgetrain.memory_profiler.probe_file import Probe, conditions, forget, recall, remember

__all__ = ["PROBE_SAMPLES", "forget_probes", "probe_base", "probe_private"]

PROBE_SAMPLES = 5
PROBE_SECONDS = 60


def probe_base(worker: str = WORKER, samples: int = PROBE_SAMPLES) -> int:
    """Return the peak memory in bytes of a training worker that trains next to nothing.

    The median over fresh processes of the real worker, each of which does the smallest task there
    is, so that all of a task's code is in memory, and reports its own VmHWM. Raises WorkerError
    when the worker cannot be started or does not answer with its numbers.
    """
    return sorted(one.peak for one in _probes(worker, samples))[samples // 2]


def probe_private(worker: str = WORKER, samples: int = PROBE_SAMPLES) -> int:
    """Return the most private memory in bytes that any of the same workers had in the end."""
    return max(one.private for one in _probes(worker, samples))


def forget_probes() -> None:
    """Let the next question be answered by a new measurement."""
    _probes.cache_clear()
    forget()


@cache
def _probes(worker: str, samples: int) -> tuple[Probe, ...]:
    # Taken before the workers start: what changes while they run must not pass for measured.
    under = conditions(worker)
    known = recall(under, samples)
    if known is None:
        known = tuple(_probe_once(worker) for _ in range(samples))
        remember(under, known)
    return known


def _probe_once(worker: str) -> Probe:
    # Imported here because nobody who knows the answer needs it.
    import subprocess  # noqa: PLC0415

    command = worker_command(worker, "--probe")
    try:
        answer = subprocess.run(
            command,
            env=worker_environment(),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkerError(f"the memory probe `{' '.join(command)}` did not run: {error}") from error
    numbers = answer.stdout.split()
    if answer.returncode != 0 or len(numbers) != 2 or not all(map(str.isdecimal, numbers)):
        last = (answer.stderr.strip() or answer.stdout.strip() or "no output").splitlines()[-1]
        raise WorkerError(
            f"the memory probe `{' '.join(command)}` ended with {answer.returncode} ({last}): "
            "run it by hand to see why"
        )
    return Probe(*map(int, numbers))
