"""What the wearers of some watches are doing, by a packed model, as an application asks it.

    edgetrain train har_cnn --data watch --epochs 3 --save model.safetensors
    edgetrain export model.safetensors --packed model.etp
    python examples/predict.py model.etp

An application on a device needs edgetrain.Predictor and its own readings, and no numpy; here, the
readings are those of the three people whom the bundled data hold out.
"""

from __future__ import annotations

import sys
from collections import Counter

import edgetrain as et
from edgetrain.data import load


def main(path: str) -> None:
    """Predict every window of the people held out, and print which exercise is taken for which."""
    test = load("watch").test
    predictor = et.Predictor(path, memory="2MiB")
    windows = test.features.reshape(-1, *predictor.input_shape)
    predicted = predictor.predict(windows)
    right = sum(map(int.__eq__, predicted, test.labels.tolist())) / len(predicted)
    print(f"{right:.1%} of {len(predicted)} windows, in {predictor.memory_bytes} bytes of memory")
    pairs = Counter(zip(test.labels.tolist(), predicted, strict=True))
    for label, name in enumerate(test.class_names):
        windows_taken, found = max((pairs[label, other], other) for other in range(test.classes))
        print(f"{name:<20} {windows_taken:4} windows taken for {test.class_names[found]}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"error: no model: python {sys.argv[0]} model.etp")
    main(sys.argv[1])
