"""Supervised commands: real processes, stopped by each belt alone and by all together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from edgetrain.errors import ConfigError, EnforceError, WorkerError
from edgetrain.memory_profiler.enforce.cgroup import make_group
from edgetrain.memory_profiler.enforce.limits import BELTS, Belt, Limits
from edgetrain.memory_profiler.enforce.supervise import Supervised, supervise

MIB = 1 << 20
LIMIT = 100 * MIB
# Bytes past its limit that the fastest process reaches between two looks (measured: 26 MiB).
MOST_OVERSHOOT = 30 * MIB
GROW = """
import mmap
blocks = []
while True:
    block = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"x" * (1 << 20))
    blocks.append(block)
"""
POLITE = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
# A signal that comes just before a pause would be noticed by nobody.
REST = "import time\nwhile True: time.sleep(0.01)"
# A process that holds so many MiB, beside some 9 of Python itself.
HOLD = "held = b'x' * ({} << 20)\n" + REST


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def only(*belts: Belt) -> frozenset[Belt]:
    return frozenset(belts)


@pytest.fixture(scope="session")
def group_or_skip() -> None:
    try:
        make_group(LIMIT).remove()
    except EnforceError as error:
        pytest.skip(f"no control group can be made here: {error}")


def test_a_command_that_keeps_its_limits_ends_by_itself() -> None:
    ended = supervise(python("raise SystemExit(3)"), Limits(memory=LIMIT, seconds=60))
    assert (ended.code, ended.cause, ended.forced) == (3, "finished", False)
    assert {"watchdog", "seconds"} <= set(ended.belts)
    assert "data" not in ended.belts
    assert ended.seconds > 0


def test_the_end_of_what_it_says_is_kept() -> None:
    said = python("import os; os.write(2, b'a' * 300_000 + b'the end'); os._exit(1)")
    ended = supervise(said, Limits(), stderr=subprocess.PIPE)
    assert ended.code == 1
    assert ended.words.endswith("aathe end")
    assert len(ended.words) < 300_000


def test_it_is_another_process_with_nothing_of_ours_but_what_is_given() -> None:
    tell = (
        "import os, resource, signal; signals = (signal.SIGPIPE, signal.SIGXFSZ);"
        "print(os.getpid() == os.getpgid(0), os.listdir('/proc/self/fd'),"
        "os.environ.get('TOLD'), open('/proc/self/oom_score_adj').read().strip(),"
        "resource.getrlimit(resource.RLIMIT_DATA))"
    )
    running = Supervised(
        python(tell),
        Limits(data=LIMIT, data_reserve=MIB),
        env={"TOLD": "yes"},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    with running:
        stdout = running.process.stdout
        assert stdout is not None
        said = stdout.read().decode()
    # 3 is the folder that is being listed.
    assert said == f"True ['0', '1', '2', '3'] yes 500 ({LIMIT}, {LIMIT + MIB})\n"


def test_who_is_the_kernels_first_choice_already_stays_it() -> None:
    """As in many a container; who may not lower it must not be stopped from starting a command."""
    code = (
        "from edgetrain.memory_profiler.enforce.supervise import supervise;"
        "from edgetrain.memory_profiler.enforce.limits import Limits;"
        "open('/proc/self/oom_score_adj', 'w').write('900');"
        "ended = supervise(['cat', '/proc/self/oom_score_adj'], Limits());"
        "raise SystemExit(ended.code)"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "900\n"


def test_a_broken_pipe_ends_it_as_it_would_in_a_shell() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        ended = supervise(["cat", "/proc/self/status"], Limits(), stdout=writes)
    finally:
        os.close(writes)
    assert (ended.code, ended.cause) == (-signal.SIGPIPE, "killed")


@pytest.mark.parametrize("command", [["/nonexistent/program"], ["/proc/self/status"]])
def test_what_cannot_be_started_is_named(command: list[str]) -> None:
    with pytest.raises(WorkerError, match=f"cannot start a process: {command[0]}"):
        supervise(command, Limits(memory=LIMIT))


# Each belt alone.


def test_private_memory_past_its_limit_is_an_error_that_can_be_caught() -> None:
    code = "held = []\ntry:\n    while True: held.append(bytearray(1 << 20))\n"
    code += "except MemoryError:\n    print(len(held))\n"
    limits = Limits(data=LIMIT, belts=only("data"))
    with Supervised(python(code), limits, stdout=subprocess.PIPE) as running:
        assert running.watch() is None
        stdout = running.process.stdout
        assert stdout is not None
        held = int(stdout.read())
        ended = running.end()
    assert (ended.code, ended.cause, ended.belts) == (0, "finished", ("data",))
    assert LIMIT / 2 < held * MIB <= LIMIT


def test_a_limit_of_private_memory_can_be_raised_by_the_reserve_alone() -> None:
    code = (
        "import resource as r; _, hard = r.getrlimit(r.RLIMIT_DATA);"
        "r.setrlimit(r.RLIMIT_DATA, (hard, hard)); held = bytearray(80 << 20);"
        "more = bytearray(40 << 20)"
    )
    limits = Limits(data=50 * MIB, data_reserve=50 * MIB, belts=only("data"))
    ended = supervise(python(code), limits, stderr=subprocess.PIPE)
    assert ended.words.strip().endswith("MemoryError")
    assert ended.rss_peak is None or ended.rss_peak < 120 * MIB


def test_the_watchdog_asks_to_stop_and_a_polite_command_does() -> None:
    limits = Limits(memory=LIMIT, belts=only("watchdog"))
    ended = supervise(python(POLITE + HOLD.format(95)), limits)
    assert (ended.code, ended.cause, ended.forced) == (7, "memory_soft", False)
    assert ended.enforcement == "soft"


@pytest.mark.parametrize("manners", ["", DEAF], ids=["as it comes", "deaf"])
def test_the_watchdog_bounds_the_overshoot_of_the_fastest_growth(manners: str) -> None:
    """The median of a few: where every processor is taken, any look may come late."""
    limits = Limits(memory=LIMIT, belts=only("watchdog"))
    peaks = []
    for _ in range(5):
        ended = supervise(python(manners + GROW), limits)
        assert ended.cause == "memory_soft"
        assert ended.rss_peak is not None
        peaks.append(ended.rss_peak)
    assert LIMIT < median(peaks) < LIMIT + MOST_OVERSHOOT


def test_the_watchdog_sees_what_a_command_starts() -> None:
    child = python("import signal\n" + HOLD.format(120))
    parent = f"import subprocess; subprocess.run({child!r})"
    ended = supervise(python(parent), Limits(memory=LIMIT, belts=only("watchdog")))
    assert ended.cause == "memory_soft"
    assert ended.rss_peak is not None
    assert ended.rss_peak > LIMIT


@pytest.mark.usefixtures("group_or_skip")
def test_the_group_is_a_limit_that_nothing_passes() -> None:
    limits = Limits(memory=LIMIT, belts=only("group"))
    ended = supervise(python(DEAF + GROW), limits)
    assert (ended.code, ended.cause) == (-signal.SIGKILL, "memory_hard")
    assert ended.enforcement == "hard"
    assert ended.cgroup_peak == LIMIT


@pytest.mark.usefixtures("group_or_skip")
def test_a_command_that_goes_on_after_its_child_was_killed_is_stopped() -> None:
    child = python(GROW)
    parent = f"import subprocess, signal; subprocess.run({child!r}); signal.pause()"
    ended = supervise(python(parent), Limits(memory=LIMIT, belts=only("group")))
    assert ended.cause == "memory_hard"


@pytest.mark.usefixtures("group_or_skip")
def test_all_that_is_used_from_the_first_page_on_counts() -> None:
    """Who is moved in later has pages that its group never counts."""
    held = python("held = b'x' * (40 << 20)")
    ended = supervise(held, Limits(memory=LIMIT, belts=only("group")))
    assert ended.cgroup_peak is not None
    assert ended.cgroup_peak > 40 * MIB


def test_time_is_up() -> None:
    ended = supervise(python(POLITE + REST), Limits(seconds=0.5))
    assert ended.cause == "seconds"
    assert ended.code in (7, -signal.SIGTERM)
    assert ended.seconds >= 0.5


def test_who_does_not_stop_is_killed_after_the_grace() -> None:
    deaf = python(DEAF + "print(flush=True)\nsignal.pause()")
    limits = Limits(seconds=0.3, grace=0.2)
    with Supervised(deaf, limits, stdout=subprocess.PIPE) as running:
        stdout = running.process.stdout
        assert stdout is not None
        # It is deaf from here on.
        stdout.readline()
        assert running.watch() == "seconds"
        ended = running.end()
    assert (ended.code, ended.cause, ended.forced) == (-signal.SIGKILL, "seconds", True)
    assert ended.seconds >= 0.5


def test_joules_are_asked_for_and_unknown_is_not_none_used() -> None:
    readings: list[float | None] = [None, 1.0, None, 4.9, 5.0]
    ended = supervise(
        python("import signal; signal.pause()"),
        Limits(energy=5.0, seconds=60),
        joules=lambda: readings.pop(0) if len(readings) > 1 else readings[0],
    )
    assert (ended.cause, readings) == ("energy", [5.0])


def test_without_a_meter_there_is_no_belt_of_energy() -> None:
    assert supervise(["true"], Limits(energy=5.0)).belts == ()


def test_a_signal_from_elsewhere_is_told_from_ours() -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    ended = supervise(python(kill), Limits(memory=LIMIT, seconds=60))
    assert (ended.code, ended.cause, ended.forced) == (-signal.SIGKILL, "killed", False)


# All together.


@pytest.mark.parametrize("manners", ["", DEAF], ids=["as it comes", "deaf"])
def test_all_belts_together_hold(manners: str) -> None:
    limits = Limits(memory=LIMIT, data=2 * LIMIT, seconds=60, energy=1e9, network="none")
    ended = supervise(python(manners + GROW), limits, joules=lambda: 0.0)
    assert set(ended.belts) == BELTS.keys() - (
        ({"group"} if ended.no_group else set()) | ({"network"} if ended.no_filter else set())
    )
    assert ended.cause in ("memory_soft", "memory_hard")
    assert ended.rss_peak is not None
    assert ended.rss_peak < LIMIT + MOST_OVERSHOOT
    if ended.cgroup_peak is not None:
        assert ended.cgroup_peak <= LIMIT


def test_the_inner_belt_comes_first() -> None:
    limits = Limits(memory=LIMIT, data=LIMIT // 2, seconds=60)
    ended = supervise(python(GROW), limits, stderr=subprocess.PIPE)
    assert (ended.code, ended.cause) == (1, "finished")
    assert ended.rss_peak is None or ended.rss_peak < LIMIT


# What is left.


def exists(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("belts", [only("watchdog"), only("group", "watchdog")], ids=len)
def test_what_a_command_leaves_running_ends_with_it(belts: frozenset[Belt]) -> None:
    code = "import os, signal; child = os.fork(); print(child, flush=True) if child else "
    command = python(code + "signal.pause()")
    with Supervised(command, Limits(memory=LIMIT, belts=belts), stdout=subprocess.PIPE) as running:
        stdout = running.process.stdout
        assert stdout is not None
        child = int(stdout.readline())
        assert running.watch() is None
        assert exists(child)
        running.end()
    wait_for(lambda: not exists(child))


def wait_for(true: Callable[[], bool]) -> None:
    """Return once it is so; a test that waits for ever is ended from outside."""
    while not true():
        os.sched_yield()


@pytest.mark.usefixtures("group_or_skip")
@pytest.mark.parametrize("code", ["pass", GROW], ids=["finished", "killed"])
def test_no_group_is_left_behind(code: str) -> None:
    before = groups()
    assert supervise(python(code), Limits(memory=LIMIT, belts=only("group"))).belts == ("group",)
    assert groups() == before


def groups() -> set[Path]:
    probe = make_group(LIMIT)
    probe.remove()
    return set(probe.folder.parent.glob(f"edgetrain-{os.getpid()}-*"))


def test_an_interrupted_supervisor_leaves_nothing_running() -> None:
    def interrupt() -> float:
        raise KeyboardInterrupt

    limits = Limits(memory=LIMIT, energy=1.0)
    with (
        pytest.raises(KeyboardInterrupt),
        Supervised(python(HOLD.format(1)), limits, joules=interrupt) as running,
    ):
        running.watch()
    assert not running.running
    assert running.end().code == -signal.SIGKILL


def test_a_watch_may_have_limits_of_its_own_and_end_with_an_answer() -> None:
    echo = python("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Supervised(echo, Limits(memory=LIMIT), **streams) as running:
        stdin, stdout = running.process.stdin, running.process.stdout
        assert stdin is not None
        assert stdout is not None
        for word in (b"one\n", b"two\n"):
            stdin.write(word)
            stdin.flush()
            assert running.watch(Limits(seconds=60), answer=stdout.fileno()) is None
            assert stdout.readline() == word
        assert running.watch(Limits(seconds=1e-3), answer=stdout.fileno()) == "seconds"
        assert running.end().cause == "seconds"


# Limits.


@pytest.mark.parametrize("name", ["memory", "data", "seconds", "energy"])
def test_a_limit_that_allows_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: 0})


def test_a_reserve_only_adds() -> None:
    with pytest.raises(ConfigError, match="reserve"):
        Limits(data=LIMIT, data_reserve=-1)


def test_an_unknown_belt_is_refused() -> None:
    with pytest.raises(ConfigError, match="braces: belts are group"):
        Limits(belts=frozenset({"braces"}))  # type: ignore[arg-type]
