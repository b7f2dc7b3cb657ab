"""Fit the projection of a preset on its training places, and store it with the preset.

    python benchmarks/projection.py PRESET DATA OUT

PRESET is the folder of a preset whose name is one of benchmarks/presets.py, and DATA its training
data. The records in OUT are those of benchmarks/presets.py, and are prepared if they do not exist.
`projection.npz` is written to the preset and to its hub module of the shared encoder.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import presets

import sits_keras
from sits_keras.data.records import Manifest, read_blocks
from sits_keras.presets import store_projection
from sits_keras.tasks.embedding import fit_projection


def fit(records: Manifest, preset: Path) -> None:
    """Fit the projection of a preset's shared encoder on records, and store it.

    Args:
        records: Records of the training places, with the preset's bands.
        preset: Folder of the preset.
    """
    encoder = sits_keras.from_preset(preset, "shared")
    projection = fit_projection(encoder, _images(records))
    store_projection(preset, projection)
    print(f"{preset}: {projection.axes.shape[1]} numbers of {len(projection.offset)} features")


def _images(records: Manifest) -> Iterator[tuple[str, np.ndarray]]:
    for block, images in read_blocks(records):
        yield block.series, images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", type=Path, metavar="PRESET")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    args = parser.parse_args()
    settings = presets.PRESETS[args.preset.resolve().name]
    fit(presets.prepare_records(args.data, args.out, settings), args.preset)


if __name__ == "__main__":
    main()
