"""Fit the whitening and the projection of a preset on its training places, and store both.

    python benchmarks/projection.py PRESET DATA OUT

PRESET is the folder of a preset whose name is one of benchmarks/presets.py, and DATA its training
data. The records in OUT are those of benchmarks/presets.py, and are prepared if they do not exist.
The whitening of the pooled features (`hub.pooling`) becomes part of `model.keras` and of the hub
module. `projection.npz`, the projection of the layers (`hub.projection`), is written to the preset
and to the module.
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
from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import QUANTIFICATION, has_data
from sits_keras.data.records import Manifest, read_blocks
from sits_keras.hub.pooling import fit_whitening
from sits_keras.presets import store_projection, store_whitening
from sits_keras.tasks.embedding import fit_projection

NUM_DATES = 4


def fit(records: Manifest, preset: Path) -> None:
    """Fit the whitening and the projection of a preset's shared encoder, and store them.

    Args:
        records: Records of the training places, with the preset's bands.
        preset: Folder of the preset.
    """
    model = sits_keras.DisentangledSITS.from_preset(preset)
    store_whitening(preset, fit_whitening(model, _windows(records)))
    projection = fit_projection(sits_keras.from_preset(preset, "shared"), _images(records))
    store_projection(preset, projection)
    print(f"{preset}: {projection.axes.shape[1]} numbers of {len(projection.offset)} features")


def _windows(records: Manifest) -> Iterator[np.ndarray]:
    """Yield windows without missing pixels, at most 16 of each of 4 dates of a record."""
    count = 0
    for _, images in read_blocks(records):
        dates = np.unique(np.linspace(0, len(images) - 1, NUM_DATES).round().astype(int))
        down, along = (
            np.unique(np.linspace(0, side - IMAGE_SIZE, min(4, side // IMAGE_SIZE)).astype(int))
            for side in images.shape[1:3]
        )
        windows = [
            images[date, row : row + IMAGE_SIZE, col : col + IMAGE_SIZE]
            for date in dates
            for row in down
            for col in along
        ]
        full = [window for window in windows if has_data(window).all()]
        count += len(full)
        if full:
            yield np.stack(full) / np.float32(QUANTIFICATION)
    print(f"whitening: {count} windows")


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
