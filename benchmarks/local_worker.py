"""Trains as a worker does, with latents that no fleet averages: see memory_prediction.py.

    python -P -s benchmarks/local_worker.py JOB     prints the peak memory in bytes

A fleet's task cannot name such latents, so that the worker of a device cannot be asked. This one
loads the same modules, maps a state, trains one epoch, and writes the state that was learnt in
place of an update.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgetrain.client import worker
from edgetrain.data import store
from edgetrain.memory_profiler.memory import peak_bytes
from edgetrain.model import Model
from edgetrain.planner import plan
from edgetrain.storage import forget_pages, map_file
from edgetrain.tensorfile import decode, write
from edgetrain.train import Trainer


def main() -> None:
    """Do the job in the first argument: the model, the plan's choices and three paths."""
    worker.stop_token()
    job = json.loads(sys.argv[1])
    chosen = plan(Model.from_json(job["model"]), **job["choices"])
    mapped = map_file(Path(job["state"]))
    trainer = Trainer(chosen)
    trainer.load_state(decode(mapped)[0])
    forget_pages(mapped)
    with store.open(job["data"]) as data:
        trainer.fit(data.features, data.labels)
        learnt = trainer.state()
        write(Path(job["report"]), learnt, durable=False)
    print(peak_bytes())


if __name__ == "__main__":
    main()
