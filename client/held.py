"""What a device's worker is held to: the owner's budget as limits, and what passing one means."""

from __future__ import annotations

import resource
import signal

from edgetrain.client.processes import Ended
from edgetrain.memory_profiler.budget import Budget, format_joules
from edgetrain.memory_profiler.choose import Choice
from edgetrain.memory_profiler.device import Device
from edgetrain.memory_profiler.enforce.admission import Policy, admit
from edgetrain.memory_profiler.enforce.enforced import Cause
from edgetrain.memory_profiler.enforce.joules import Counted, count, modelled
from edgetrain.memory_profiler.enforce.limits import Limits
from edgetrain.memory_profiler.estimate import Estimate
from edgetrain.memory_profiler.probe import probe_private
from edgetrain.sizes import format_size

__all__ = ["admitted", "counted", "early", "held_to", "short_of_memory", "why_killed"]

RESERVED = 0.05
"""Share of the energy allowed that is kept for encoding the update and sending it."""
MARGIN_BYTES = 4 << 20
"""Private memory that the interpreter sets aside in lots of a MiB, and mostly never touches."""
STACK_BYTES = 8 << 20
"""Of a thread, where the system sets no limit to a stack."""


def admitted(expected: Estimate, policy: Policy) -> None:
    """Raise BudgetError where this machine, as it is now, has no room for a task."""
    admit(policy, int(expected.memory.high)).require()


def held_to(choice: Choice, budget: Budget, device: Device, seconds: float) -> Limits:
    """Return the limits of a worker that runs a plan.

    Private memory counts at once (RLIMIT_DATA), touched or not: that of a worker without a task, of
    the plan, of stacks, and a margin. A worker that asks for more is refused, and may then use as
    much again as the plan takes beside its arena, to encode and report what it has learnt.
    """
    bounds = [bound for bound in (budget.memory, device.memory) if bound is not None]
    plan, private = choice.plan, choice.estimate.private_bytes
    stacks = (plan.threads - 1) * stack_bytes()
    return Limits(
        memory=min(bounds, default=None),
        data=probe_private() + private + stacks + MARGIN_BYTES if bounds else None,
        data_reserve=private - plan.peak_bytes + MARGIN_BYTES,
        seconds=seconds,
        energy=None if budget.energy is None else budget.energy * (1 - RESERVED),
    )


def stack_bytes() -> int:
    """Return the bytes that are set aside for a thread's stack."""
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return STACK_BYTES if soft == resource.RLIM_INFINITY else soft


def counted(device: Device) -> Counted | None:
    """Return what counts joules from now on: a meter that works here, or the power that is known.

    None where there is neither.
    """
    return count() or (None if device.watts is None else modelled(device.watts))


def short_of_memory(ended: Ended) -> bool:
    """Say whether a plan must not be tried again.

    A SIGKILL that nobody here sent is taken for the kernel's.
    """
    return ended.cause in ("memory_data", "memory_soft", "memory_hard") or (
        ended.cause == "killed" and ended.code == -signal.SIGKILL
    )


def early(ended: Ended, limits: Limits) -> str:
    """Return why a task that reported was cut short, or nothing where it was not."""
    reasons: dict[Cause, str] = {
        "seconds": f"after {limits.seconds or 0:g} s",
        "energy": f"after the {format_joules(limits.energy or 0)} that it may use",
        "memory_data": f"at the {format_size(limits.data or 0)} of private memory planned for it",
        "memory_soft": f"at the {format_size(limits.memory or 0)} that it may use",
        "memory_hard": f"at the {format_size(limits.memory or 0)} that it may use",
    }
    return f"stopped early, {reasons[ended.cause]}" if ended.cause in reasons else ""


def why_killed(ended: Ended, limits: Limits) -> str:
    """Return why a worker ended without a report, and what may help."""
    memory = format_size(limits.memory or 0)
    reasons: dict[Cause, str] = {
        "seconds": f"took longer than {limits.seconds or 0:g} s and did not stop: allow it more "
        "time",
        "energy": "its energy was used up before it could report: allow it more",
        "memory_hard": f"the kernel killed it at its limit of {memory}: the next plan is smaller",
        "memory_soft": f"its memory passed {memory} before it could report: the next plan is "
        "smaller",
    }
    if ended.cause in reasons:
        return reasons[ended.cause]
    if ended.code == -signal.SIGKILL:
        return "the worker was killed, most likely for want of memory: allow it less"
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        return f"the worker was ended by {name}: run it with EDGETRAIN_DEBUG=1 to see where"
    return ended.line or f"the worker ended with {ended.code} and without a report"
