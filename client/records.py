"""What the records of a Flower message are called in edgetrain, and what stands in them.

A task or a report is one uint8 Array whose bytes are the encoded message as it is, so that there
is nothing but its own strict decoder to trust. Beside it lie a ConfigRecord that says in words
what the message is about, for logs and for Flower's mods, and for a report a MetricRecord with
"num-examples", the weight that Flower's own strategies go by. Both are for reading alone: what
counts is in the Array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgetrain.fields import Rule, check_fields, choice, maybe, text, whole
from edgetrain.task import MAX_COUNT, MAX_NAME, Report

__all__ = [
    "ABOUT",
    "HELLO",
    "METRICS",
    "PAYLOAD",
    "SERIALISATION",
    "about_report",
    "check_hello",
    "metrics_of",
]

PAYLOAD = "payload"
ABOUT = "about"
METRICS = "metrics"
HELLO = "hello"
SERIALISATION = "edgetrain.tensorfile"
"""Of the Array's bytes: a tensor file, not numpy's format, which only numpy could read."""

HELLO_RULES: dict[str, Rule] = {
    "name": text(MAX_NAME),
    "device_class": text(MAX_NAME),
    "role": choice("train", "evaluate"),
    "examples": whole(0, MAX_COUNT),
    "features": whole(0, MAX_COUNT),
    "classes": whole(0, MAX_COUNT),
    "memory": maybe(whole(1, MAX_COUNT)),
}


def about_report(report: Report) -> dict[str, Any]:
    """Return what a report is about, in words."""
    return {
        "status": report.status,
        "reason": report.reason,
        "version": report.version,
        "device": report.device,
    }


def metrics_of(report: Report) -> dict[str, Any]:
    """Return what a report measured: counts, and loss and accuracy where they are known."""
    metrics: dict[str, Any] = {"num-examples": report.examples, "steps": report.steps}
    if report.loss is not None and report.accuracy is not None:
        metrics |= {"loss": report.loss, "accuracy": report.accuracy}
    return metrics


def check_hello(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields by which a device introduces itself.

    They are name, device_class, role ("train" or "evaluate"), examples, features and classes of
    its data (0 without), and memory in bytes or None. Raises PayloadError.
    """
    return check_fields(fields, HELLO_RULES, "hello")
