"""Frozen features of a preset beside simple peers, on a labelled set or a sample of it.

    python benchmarks/peers.py sits_rgb_small EuroSAT.zip --limit 2000 --fractions 1 0.1
    python benchmarks/peers.py sits_rgbn_small EuroSATallBands.zip --splits spatial longitude

The peers are rows of Table 3 (sits_keras/tasks/classification/peers.py), so `sits-keras evaluate`
measures them as well, with all other rows. EfficientNet-Lite0 needs the extra [peers].
"""

import argparse
import sys
import typing
from pathlib import Path

import sits_keras
from sits_keras.data.eurosat import SplitName, read_labelled
from sits_keras.files import write_json
from sits_keras.tasks.classification.table_3 import fill_table
from sits_keras.tasks.evaluation.report import render_accuracies
from sits_keras.tasks.evaluation.tables import make_accuracy_tables, make_literature_table

FEATURES = ("pooled", "untrained_pooled", "random", "imagenet", "statistics")
METHODS = [f"{features}_{probe}" for features in FEATURES for probe in ("linear", "nearest")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", help="Name or folder of a preset.")
    parser.add_argument("data", type=Path, help="Labelled set: EuroSAT.zip, or a folder.")
    names = typing.get_args(SplitName)
    parser.add_argument("--splits", nargs="+", default=["stratified"], choices=names)
    parser.add_argument("--fractions", nargs="+", type=float, default=[1.0, 0.1, 0.01])
    parser.add_argument("--limit", type=int, help="Read this many images, about.")
    parser.add_argument("--seeds", type=int, default=1, help="Number of seeds.")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="Rows of Table 3.")
    parser.add_argument("--out", type=Path, help="JSON file of the scores.")
    args = parser.parse_args()
    model = sits_keras.from_preset(args.preset)
    images = read_labelled(args.data, model.config.bands, limit=args.limit)
    tables = {}
    for split in args.splits:
        rows = fill_table(
            model,
            images,
            methods=args.methods,
            fractions=args.fractions,
            split=split,
            seeds=range(args.seeds),
            on_row=lambda row: print(
                f"{row['split']}, {row['fraction']:.0%}, {row['title']}: {row['accuracy']:.4f} "
                f"({row['low']:.4f} to {row['high']:.4f}), {row['seconds']} s",
                file=sys.stderr,
            ),
        )
        for table in make_accuracy_tables(args.data.name, images, split, rows):
            tables[table.id] = table.to_metrics()
    literature = make_literature_table()
    tables[literature.id] = literature.to_metrics()
    if args.out:
        facts = {"preset": args.preset, "data": args.data.name, "images": len(images.labels)}
        write_json(args.out, {**facts, "tables": tables})
    print(render_accuracies(tables))


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
