"""A ServerApp that sends messages as tasks are sent: to the nodes in each file *.order of a folder.

What it sent is told in a file *.sent beside: when it began, and when it had sent to each node, in
seconds of the monotonic clock.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid

from edgetrain.coordinator.exchange import PUSH_AT_ONCE
from edgetrain.coordinator.guarded_grid import GuardedGrid
from edgetrain.coordinator.wake import wake

LIFE_SECONDS = 600.0
LOOK_SECONDS = 0.02

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Send what is ordered until a file `end` is there."""
    assert isinstance(grid, HttpGrid)
    folder = Path(str(context.run_config["folder"]))
    guarded = GuardedGrid(grid, partial(wake, Path(str(context.run_config["waker"]))))
    (folder / "ready").touch()
    while not (folder / "end").exists():
        for order in folder.glob("*.order"):
            nodes = json.loads(order.read_text())
            order.unlink()
            begun, sent = time.monotonic(), {}
            for start in range(0, len(nodes), PUSH_AT_ONCE):
                some = nodes[start : start + PUSH_AT_ONCE]
                guarded.push_messages([message(node) for node in some])
                sent |= dict.fromkeys(some, time.monotonic())
            told = folder / f"{order.stem}.draft"
            told.write_text(json.dumps({"begun": begun, "sent": sent}))
            told.rename(folder / f"{order.stem}.sent")
        time.sleep(LOOK_SECONDS)


def message(node: int) -> Message:
    """Return a message that is no other node's."""
    content = RecordDict({"for": ConfigRecord({"node": str(node)})})
    return Message(content, node, "query", ttl=LIFE_SECONDS, group_id="1")
