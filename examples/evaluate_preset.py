"""Fill the paper's tables for a preset on your own data (section 4).

    python examples/evaluate_preset.py PRESET DATA OUT HELD_OUT [HELD_OUT ...]

The same as `sits-keras evaluate OUT --model PRESET --data DATA --test HELD_OUT --quick`: a check in
minutes rather than a measurement. For the layout of DATA see `sits-keras evaluate --help`. HELD_OUT
are series in DATA/series that the preset was not trained on (its card lists its training places).
OUT/report.html has all tables and figures.
"""

import sys

import sits_keras
from sits_keras.presets.folders import find_preset
from sits_keras.tasks import evaluate
from sits_keras.tasks.evaluation import QUICK, EvaluatedModel


def is_number(value: object) -> bool:
    """Return whether a value of the metrics is a number."""
    return isinstance(value, int | float)


preset, data, out, *held_out = sys.argv[1:]
model = EvaluatedModel.from_path(sits_keras.from_preset(preset), find_preset(preset))
metrics = evaluate(data, out, model, test=held_out, config=QUICK, progress=True)

for name, section in metrics["sections"].items():
    for table, rows in section["tables"].items():
        print(f"{name}: {table}")
        for method, values in rows.items():
            numbers = [f"{key} {value:.3f}" for key, value in values.items() if is_number(value)]
            print(f"  {method:<32}", "  ".join(numbers))
for name, reason in metrics["skipped"].items():
    print(f"{name}: skipped, {reason}")
