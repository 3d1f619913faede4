"""The device's side of a fleet as a stock Flower ClientApp.

A SuperNode started with `--node-config` (see NodeSettings) and this app answers "train" and
"evaluate" with a report, and "query" with who it is. A device that cannot do what it is asked
replies with a report that says why; what is not a task for it is answered with a Flower Error.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from edgetrain.client.answer import introduction, work
from edgetrain.client.flower_record import hello_to_record, record_to_task, report_to_record
from edgetrain.client.node_settings import NodeSettings
from edgetrain.errors import EdgetrainError
from edgetrain.task import one_line

__all__ = ["app"]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the report of the training task in the message."""
    return answer(message, context, report)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with the report of the evaluation task in the message."""
    return answer(message, context, report)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with who this device is and what its data look like."""
    return answer(message, context, lambda _, node: hello_to_record(introduction(node)))


def answer(
    message: Message, context: Context, respond: Callable[[Message, NodeSettings], RecordDict]
) -> Message:
    """Return the reply with what `respond` says, or an Error with its exit code and one line."""
    try:
        return Message(respond(message, NodeSettings.of(context.node_config)), reply_to=message)
    except EdgetrainError as error:
        return Message(Error(error.exit_code, one_line(error)), reply_to=message)


def report(message: Message, node: NodeSettings) -> RecordDict:
    """Return the report of the task in a message. Raises PayloadError if it is not for us."""
    task = record_to_task(message.content)
    return report_to_record(work(task, message.metadata.message_type, node))
