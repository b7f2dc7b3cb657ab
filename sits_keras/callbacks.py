"""Callbacks of training runs, which also serve `model.fit` in scripts."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL.Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import true_colour
from sits_keras.errors import DataError, DivergedError
from sits_keras.files import written_aside
from sits_keras.model import DisentangledSITS
from sits_keras.receptive_field import crop_context
from sits_keras.saving import (
    checkpoint_name,
    current_step,
    list_checkpoints,
    restore_latest,
    save_model,
)

_CHECKPOINTS_KEPT = 2
_ROWS = 8  # of the grid of translations
_GAP = 2  # white pixels between two images
_DIVERGED_REMEDY = (
    "Earlier checkpoints are kept. Use a lower learning rate or clip_norm, in another folder, or "
    "check the records for outliers."
)


class Checkpoints(keras.callbacks.Callback):
    """Save the whole model at the end of each epoch, and keep the two newest checkpoints.

    With `restore`, `model.fit` resumes an interrupted run and gives the same weights as without
    the interruption. Raises `DivergedError` instead of saving a weight that is not finite.

    Args:
        folder: Folder of the checkpoints; created if missing.

    Examples:
        >>> from sits_keras import DisentangledSITS, ModelConfig
        >>> from sits_keras.callbacks import Checkpoints
        >>> from sits_keras.data import pair_dataset
        >>> model = DisentangledSITS(ModelConfig(width=2))
        >>> model.compile()
        >>> checkpoints = Checkpoints("run")
        >>> step = checkpoints.restore(model)  # 0 at first
        >>> history = model.fit(  # doctest: +SKIP
        ...     pair_dataset("records", seed=0, start_step=step),
        ...     steps_per_epoch=1000,
        ...     initial_epoch=step // 1000,
        ...     epochs=150,
        ...     callbacks=[checkpoints],
        ... )
    """

    def __init__(self, folder: Path | str):
        super().__init__()
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def restore(self, model: DisentangledSITS) -> int:
        """Restore a compiled model from the newest undamaged checkpoint.

        Args:
            model: Compiled model; unchanged if there is no checkpoint.

        Returns:
            Step of the checkpoint; 0 if there is none.

        Raises:
            ConfigError: The checkpoint is of a model or of optimizers with other settings.
            DataError: There are checkpoints, and none can be loaded.
        """
        return restore_latest(model, self.folder)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save a checkpoint and remove old ones."""
        step = current_step(self.model)
        # The terms of the last step were finite, but they belong to the weights before it.
        for variable in (*self.model.weights, *self.model.optimizer.variables):
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise DivergedError(
                    f"Training diverged: {variable.path} is not finite after step {step}. "
                    f"{_DIVERGED_REMEDY}"
                )
        save_model(self.model, self.folder / checkpoint_name(step))
        for old in list_checkpoints(self.folder)[:-_CHECKPOINTS_KEPT]:
            old.unlink()


class History(keras.callbacks.Callback):
    """Write `history.csv`: one row for each epoch, none beyond the restored checkpoint.

    Args:
        file: CSV file; existing rows up to `step` are kept.
        step: Step at which the run starts.

    Raises:
        DataError: The existing file is damaged.
    """

    def __init__(self, file: Path, step: int):
        super().__init__()
        self.file = file
        self.rows: list[dict[str, Any]] = []
        if file.is_file():
            try:
                with file.open(newline="", encoding="utf-8") as source:
                    self.rows = [row for row in csv.DictReader(source) if int(row["step"]) <= step]
            except (csv.Error, KeyError, TypeError, ValueError) as error:
                raise DataError(f"{file} is damaged: {error!r}. Remove it to resume.") from error

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Append a row and write the file."""
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
    """Raise `DivergedError`, before a checkpoint is written, if a term is NaN or infinite.

    The error names the terms and the step; with `steps_per_execution`, the last step of the
    execution in which it happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first_step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the step at which the epoch starts."""
        self.first_step = current_step(self.model)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Raise if a term is not finite."""
        values = logs or {}
        if all(map(math.isfinite, values.values())):
            return
        # The loss is the sum of other terms, so it is never the cause.
        found = [name for name, value in values.items() if not math.isfinite(value)]
        terms = [name for name in found if name != "loss"] or found
        raise DivergedError(
            f"Training diverged at step {self.first_step + batch + 1}. Expected finite terms. "
            f"Received: {', '.join(f'{name} {values[name]}' for name in terms)}. "
            f"{_DIVERGED_REMEDY}"
        )


class Progress(keras.callbacks.Callback):
    """Advance a progress bar over the whole run, with the means of the terms over the epoch.

    Args:
        bar: Progress bar of all steps of the run, which the caller closes.
    """

    def __init__(self, bar: "tqdm[Any]"):
        super().__init__()
        self.bar = bar
        self.done = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start to count the batches of an epoch."""
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Advance the bar."""
        terms = {name: f"{value:.3f}" for name, value in (logs or {}).items()}
        self.bar.set_postfix(terms, refresh=False)
        self.bar.update(batch + 1 - self.done)
        self.done = batch + 1


class EventLog(keras.callbacks.Callback):
    """Write the terms and a grid of translations for TensorBoard at the end of each epoch.

    The writer is TensorBoard's instead of TensorFlow's, so that it serves every backend.

    Args:
        folder: Folder of the event files.
        pairs: Pairs `(x, y)`, each `(batch, 64, 64, bands)` float in [-1, 1] as `pair_dataset`
            returns them, with or without context. The grid has one row for each of the first
            eight: the place (`y`), the date (`x`), and the translation, which should resemble
            the second.
        picture: PNG file of the newest grid.
    """

    def __init__(self, folder: Path, pairs: tuple[np.ndarray, np.ndarray], picture: Path):
        super().__init__()
        self.folder = folder
        self.x, self.y = (images[:_ROWS] for images in pairs)
        self.picture = picture
        self.writer: EventFileWriter | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Open the event file."""
        self.writer = EventFileWriter(str(self.folder))
        # Discard what an interrupted process wrote after the restored checkpoint.
        self._add(
            current_step(self.model) + 1,
            session_log=SessionLog(status=SessionLog.SessionStatus.START),
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the terms and the grid."""
        step = current_step(self.model)
        values = [
            Summary.Value(tag=_tag(name), simple_value=float(value))
            for name, value in (logs or {}).items()
        ]
        grid = self._grid()
        with io.BytesIO() as content:
            grid.save(content, "PNG")
            image = Summary.Image(
                height=grid.height,
                width=grid.width,
                colorspace=3,
                encoded_image_string=content.getvalue(),
            )
        values.append(Summary.Value(tag="translations", image=image))
        self._add(step, summary=Summary(value=values))
        with written_aside(self.picture) as aside:
            grid.save(aside, "PNG")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _add(self, step: int, **content: object) -> None:
        if self.writer is not None:
            self.writer.add_event(Event(wall_time=time.time(), step=step, **content))
            self.writer.flush()

    def _grid(self) -> PIL.Image.Image:
        generated = keras.ops.convert_to_numpy(self.model.translate(self.y, self.x))
        config = self.model.config
        columns = [
            true_colour(np.asarray(images), config.bands, config.band_max)
            for images in (crop_context(self.y, config), crop_context(self.x, config), generated)
        ]
        step = IMAGE_SIZE + _GAP
        rows = len(self.x)
        grid = np.ones((rows * step - _GAP, len(columns) * step - _GAP, 3))
        for col, images in enumerate(columns):
            for row, image in enumerate(images):
                corner = np.s_[row * step :, col * step :]
                grid[corner][:IMAGE_SIZE, :IMAGE_SIZE] = image
        return PIL.Image.fromarray(np.uint8(np.rint(255 * grid)))


def _tag(name: str) -> str:
    """Return a tag that groups the curves of a term in training and validation."""
    validated = name.removeprefix("val_")
    return f"{validated}/{'training' if validated == name else 'validation'}"
