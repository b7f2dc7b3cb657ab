"""What happens beside the steps of a run. They serve `model.fit` in a user's script as well."""

import csv
import math
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from sits_keras.checkpoints import checkpoint_name, current_step, list_checkpoints, save_model
from sits_keras.errors import DataError, DivergedError
from sits_keras.files import written_aside

_CHECKPOINTS_KEPT = 2


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole model at the end of each epoch, and keeps the two newest."""

    def __init__(self, folder: Path):
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        save_model(self.model, self.folder / checkpoint_name(current_step(self.model)))
        for old in list_checkpoints(self.folder)[:-_CHECKPOINTS_KEPT]:
            old.unlink()


class History(keras.callbacks.Callback):
    """Keeps `history.csv`: a row for each epoch, none beyond the checkpoint gone on from."""

    def __init__(self, file: Path, step: int):
        super().__init__()
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if file.is_file():
            try:
                with file.open(newline="", encoding="utf-8") as source:
                    self.rows = [row for row in csv.DictReader(source) if int(row["step"]) <= step]
            except (csv.Error, KeyError, TypeError, ValueError) as error:
                raise DataError(f"{file} is damaged: {error!r}. Remove it to go on.") from error

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.rows.append({"step": current_step(self.model), **(logs or {})})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with (
            written_aside(self.file) as aside,
            aside.open("w", newline="", encoding="utf-8") as target,
        ):
            writer = csv.DictWriter(target, names)
            writer.writeheader()
            writer.writerows(self.rows)


class StopWhenNotFinite(keras.callbacks.Callback):
    """Stops the run, before a checkpoint is written, when a term is NaN or infinite."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"The term {name} is {value} at step {current_step(self.model)}. "
                    "The checkpoints before it are kept. Try a lower learning rate, in another "
                    "folder, or look for odd values in the records."
                )


class Progress(keras.callbacks.Callback):
    """Moves a bar over the whole run, with the terms' means over the epoch."""

    def __init__(self, bar: tqdm):
        super().__init__()
        self.bar = bar

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        terms = {name: f"{value:.3f}" for name, value in (logs or {}).items()}
        self.bar.set_postfix(terms, refresh=False)
        self.bar.update()
