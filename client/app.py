"""The device's side of a fleet as a stock Flower ClientApp.

A SuperNode started with `--node-config` (see NodeSettings) and this app answers "train" and
"evaluate" with a report, and "query" with who it is. A device that cannot do what it is asked
replies with a report that says why; what is not a task for it is answered with a Flower Error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from edgetrain.client.flower_record import hello_to_record, record_to_task, report_to_record
from edgetrain.client.node_settings import NodeSettings
from edgetrain.client.run import run_task
from edgetrain.data import store
from edgetrain.errors import EdgetrainError, PayloadError
from edgetrain.task import one_line

__all__ = ["app"]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the report of the training task in the message."""
    return answer(message, context, work)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with the report of the evaluation task in the message."""
    return answer(message, context, work)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with who this device is and what its data look like."""
    return answer(message, context, introduce)


def answer(
    message: Message, context: Context, respond: Callable[[Message, NodeSettings], RecordDict]
) -> Message:
    """Return the reply with what `respond` says, or an Error with its exit code and one line."""
    try:
        return Message(respond(message, NodeSettings.of(context.node_config)), reply_to=message)
    except EdgetrainError as error:
        return Message(Error(error.exit_code, one_line(error)), reply_to=message)


def work(message: Message, node: NodeSettings) -> RecordDict:
    """Return the report of the task in a message. Raises PayloadError if it is not for us."""
    task = record_to_task(message.content)
    if task.kind != message.metadata.message_type:
        raise PayloadError(f"a task to {task.kind} came to {message.metadata.message_type}")
    if task.device != node.device:
        raise PayloadError(f"this is {node.device!r}, and the task is for {task.device!r}")
    report = run_task(
        task,
        node.dataset,
        node.budget,
        node.machine,
        simulated=node.clock == "virtual",
        ledger=None if node.ledger is None else Path(node.ledger),
        ledger_key=None if node.ledger_key is None else Path(node.ledger_key),
    )
    return report_to_record(report)


def introduce(_: Message, node: NodeSettings) -> RecordDict:
    """Return who this device is. Raises DataError when its data file cannot be used."""
    examples = features = classes = 0
    if node.dataset is not None:
        with store.open(node.dataset) as data:
            examples, features, classes = data.examples, data.feature_count, data.classes
    return hello_to_record(
        {
            "name": node.device,
            "device_class": node.device_class,
            "role": node.role,
            "examples": examples,
            "features": features,
            "classes": classes,
            "memory": node.memory,
        }
    )
