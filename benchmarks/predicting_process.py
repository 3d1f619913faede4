"""Predicts in a process of its own, and prints what that took as JSON: see prediction.py.

    python benchmarks/predicting_process.py edgetrain|onnxruntime FILE EXAMPLE_BYTES BATCH

Its examples are random bytes, there before the memory is first read, as the runtime's modules are.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgetrain.bench.measure import Stopwatch, memory_baseline, peak_bytes
from edgetrain.memory_profiler.kernel_files import table_bytes

SECONDS = 1.0
ROLLUP = Path("/proc/self/smaps_rollup")


def pss_bytes() -> int:
    """Return this process's proportional share of memory, in bytes."""
    found = table_bytes(ROLLUP, "Pss")
    assert found is not None
    return found


def ours(examples: bytes, file: str, batch: int) -> Callable[[], Callable[[], object]]:
    """Return how a file is loaded, which returns how it predicts."""
    import edgetrain  # noqa: PLC0415 - of one runtime alone

    make = edgetrain.Predictor

    def load() -> Callable[[], object]:
        predictor = make(file, batch=batch)
        return lambda: predictor.predict(examples)

    return load


def theirs(examples: bytes, file: str, batch: int) -> Callable[[], Callable[[], object]]:
    """Return the same of onnxruntime, on one thread and with its own optimisations."""
    import numpy as np  # noqa: PLC0415 - of one runtime alone
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3

    def load() -> Callable[[], object]:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        shape = [batch, *session.get_inputs()[0].shape[1:]]
        x = np.frombuffer(examples, np.uint8).reshape(shape)
        return lambda: session.run(["class"], {"input": x})

    return load


def main() -> None:
    """Measure one runtime."""
    runtime, file, size, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    watch, examples = Stopwatch(), os.urandom(size * batch)
    load = {"edgetrain": ours, "onnxruntime": theirs}[runtime](examples, file, batch)
    pss_bytes()
    resident, share = memory_baseline(), pss_bytes()
    predict = load()
    watch.run(predict, SECONDS)
    print(
        json.dumps(
            {
                "example_ms": watch.median_ms / batch,
                "pss_growth_bytes": pss_bytes() - share,
                "peak_growth_bytes": peak_bytes() - resident,
                "pss_bytes": pss_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
