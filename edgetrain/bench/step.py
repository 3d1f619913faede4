"""One training step of ours against the rival's: time and peak memory, in fresh processes.

The rival runs at its best: every variant is tried once, the fastest is then measured in turn with
ours (ours, rival, ours, rival ...), so that both see the same noise. Its memory is that of its
leanest variant, which need not be the fastest: a compiler leaves its own memory behind. A network
of convolutions has variants of its own, few, since each takes long: how torch holds images matters
there, not how Adam goes over the tensors.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from statistics import median
from typing import get_args

from edgetrain.bench.measure import Request, Sample
from edgetrain.bench.networks import convolves, find_network
from edgetrain.errors import ConfigError, WorkerError
from edgetrain.gradient import gradient_of
from edgetrain.recompute import Recompute

__all__ = [
    "COMPILED",
    "COMPILED_IMAGES",
    "EAGER",
    "EAGER_IMAGES",
    "Comparison",
    "Ours",
    "Rival",
    "StepReport",
    "compare",
    "summarize",
]

AGAINST = ("torch", "none")
MODES = ("bnn", "fsb")
EAGER = ("eager-loop", "eager-foreach", "eager-fused")
COMPILED = ("compiled-foreach", "compiled-fused", "compiled-step")
EAGER_IMAGES = ("eager-fused", "eager-fused-nhwc")
COMPILED_IMAGES = ("compiled-fused-nhwc",)
CHILD_SECONDS = 600.0
"""A child that takes longer hangs: compiling takes tens of seconds at most."""

Ask = Callable[[str, Request], Sample]
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What to compare: request for ours, against "torch" or "none", processes of each side.

    pairs is how many processes of each side at most: none begins limit seconds after the first.
    Raises ConfigError for a name or a number that makes no sense, or a rival not installed;
    ModelError for a gradient that the native engine does not run.
    """

    request: Request
    against: str = "torch"
    pairs: int = 5
    limit: float = 600.0

    def __post_init__(self) -> None:
        find_network(self.request.network)
        gradient_of(self.request.gradient, self.request.draws).check_engine("native")
        known = (
            ("--against", self.against, AGAINST),
            ("--mode", self.request.mode, MODES),
            ("--recompute", self.request.recompute, get_args(Recompute)),
        )
        for option, word, words in known:
            if word not in words:
                raise ConfigError(f"{option} {word!r} is unknown: choose {' or '.join(words)}")
        least = (
            ("--batch", self.request.batch, 2),
            ("--threads", self.request.threads, 1),
            ("--pairs", self.pairs, 1),
        )
        for option, value, minimum in least:
            if value < minimum:
                raise ConfigError(f"{option} {value} is too small: give {minimum} or more")
        if self.against == "torch" and find_spec("torch") is None:
            raise ConfigError(
                'torch is not installed: pip install "edgetrain[torch]", or give --against none'
            )

    @property
    def variants(self) -> tuple[str, ...]:
        """The rival's variants that can run here: compiled ones need a C++ compiler."""
        if self.against == "none":
            return ()
        compilers = (os.environ.get("CXX", ""), "g++", "clang++")
        found = any(name and shutil.which(name) for name in compilers)
        if convolves(find_network(self.request.network)):
            return EAGER_IMAGES + (COMPILED_IMAGES if found else ())
        return EAGER + (COMPILED if found else ())

    @property
    def processes(self) -> int:
        """How many processes it takes at most."""
        variants = len(self.variants)
        return self.pairs + (self.pairs + variants if variants else 0)


@dataclass(frozen=True)
class Ours:
    """Our side: medians over the processes."""

    step_ms: float
    peak_growth_bytes: int
    planned_bytes: int


@dataclass(frozen=True)
class Rival:
    """The rival's side: variant is the fastest and gives step_ms, peak_variant the leanest.

    tried is the median step in milliseconds of every variant that ran.
    """

    step_ms: float
    peak_growth_bytes: int
    variant: str
    peak_variant: str
    tried: dict[str, float]


@dataclass(frozen=True)
class StepReport:
    """What `edgetrain bench step` found.

    ratio: "step" and "peak" are rival over ours, "planned" our growth over the plan's peak_bytes.
    """

    network: str
    batch: int
    threads: int
    mode: str
    gradient: str
    recompute: str
    isa: str
    pairs: int
    ours: Ours
    torch: Rival | None
    ratio: dict[str, float]

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(asdict(self), indent=2)


def run_child(module: str, request: Request) -> Sample:
    """Measure in a fresh process. Raises WorkerError with its last words when it fails."""
    threads = str(request.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    argument = json.dumps(asdict(request))
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"edgetrain.bench.{module}", argument],
            env=environment,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkerError(
            f"measuring {module} took more than {CHILD_SECONDS:.0f} s: try a smaller batch"
        ) from None
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WorkerError(f"measuring {module} {request.variant} failed: {words}")
    return Sample(**json.loads(done.stdout.splitlines()[-1]))


def compare(
    comparison: Comparison, tick: Tick = lambda _: None, ask: Ask = run_child
) -> StepReport:
    """Measure both sides and return the report.

    tick is told what is measured next; ask(module, request) measures in a process of its own.
    Raises WorkerError when a process fails; a compiled variant that fails is passed over.
    """
    request = comparison.request
    tried: dict[str, Sample] = {}
    for variant in comparison.variants:
        tick(f"torch, {variant}")
        try:
            tried[variant] = ask("rival", replace(request, variant=variant))
        except WorkerError:
            if not variant.startswith("compiled"):
                raise
    fastest = min(tried, key=lambda name: tried[name].step_ms, default="")
    ours, rival = list[Sample](), list[Sample]()
    begun = time.monotonic()
    for pair in range(1, comparison.pairs + 1):
        if ours and time.monotonic() - begun > comparison.limit:
            break
        tick(f"ours, {pair} of {comparison.pairs}")
        ours.append(ask("ours", request))
        if fastest:
            tick(f"torch, {fastest}, {pair} of {comparison.pairs}")
            rival.append(ask("rival", replace(request, variant=fastest)))
    return summarize(request, ours, rival, tried)


def summarize(
    request: Request, ours: Sequence[Sample], rival: Sequence[Sample], tried: Mapping[str, Sample]
) -> StepReport:
    """Return the medians of both sides, and the median of the pairs' ratios."""
    mine = Ours(
        step_ms=median(sample.step_ms for sample in ours),
        peak_growth_bytes=int(median(sample.peak_growth_bytes for sample in ours)),
        planned_bytes=ours[0].planned_bytes,
    )
    ratio = {"planned": mine.peak_growth_bytes / mine.planned_bytes}
    other = None
    if rival:
        leanest = min(tried, key=lambda name: tried[name].peak_growth_bytes)
        other = Rival(
            step_ms=median(sample.step_ms for sample in rival),
            peak_growth_bytes=tried[leanest].peak_growth_bytes,
            variant=min(tried, key=lambda name: tried[name].step_ms),
            peak_variant=leanest,
            tried={name: sample.step_ms for name, sample in tried.items()},
        )
        ratio["step"] = median(a.step_ms / b.step_ms for a, b in zip(rival, ours, strict=True))
        ratio["peak"] = other.peak_growth_bytes / mine.peak_growth_bytes
    return StepReport(
        network=request.network,
        batch=request.batch,
        threads=request.threads,
        mode=request.mode,
        gradient=gradient_of(request.gradient, request.draws).describe(),
        recompute=request.recompute,
        isa=ours[0].isa,
        pairs=len(ours),
        ours=mine,
        torch=other,
        ratio=ratio,
    )
