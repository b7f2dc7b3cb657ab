"""Fill the paper's tables for a preset on your own data, and read the numbers (section 4).

    python examples/evaluate_preset.py PRESET DATA OUT HELD_OUT [HELD_OUT ...]

As `sits-keras evaluate OUT --model PRESET --data DATA --test HELD_OUT --quick` does: in minutes, a
look rather than a measurement. DATA is laid out as `sits-keras evaluate --help` says; HELD_OUT are
names in DATA/series that the preset was not trained on (its card lists those that it was).
OUT/report.html has all of it, with pictures.
"""

import sys
from pathlib import Path

import sits_keras
from sits_keras.files import sha256_of
from sits_keras.presets.folders import MODEL_NAME, find_preset
from sits_keras.tasks.evaluation import Subject, evaluate
from sits_keras.tasks.evaluation.context import QUICK, take_stock


def is_number(value: object) -> bool:
    return isinstance(value, int | float)


preset, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
folder = find_preset(preset)
subject = Subject(sits_keras.from_preset(preset), folder.name, sha256_of(folder / MODEL_NAME))
metrics = evaluate(subject, take_stock(data, sys.argv[4:]), out, QUICK, progress=True)

for name, section in metrics["sections"].items():
    for table, rows in section["tables"].items():
        print(f"{name}: {table}")
        for method, values in rows.items():
            numbers = [f"{key} {value:.3f}" for key, value in values.items() if is_number(value)]
            print(f"  {method:<32}", "  ".join(numbers))
for name, reason in metrics["skipped"].items():
    print(f"{name}: left out, {reason}")
