"""What happens beside the steps of a run. They serve `model.fit` in a user's script as well."""

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


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole model at the end of each epoch, and keeps the two newest.

    With `restore`, `model.fit` goes on where it was stopped, to the same weights:

        checkpoints = Checkpoints("run")
        step = checkpoints.restore(model)  # 0 at first
        model.fit(
            pair_dataset("records", seed=0, start_step=step),
            steps_per_epoch=1000,
            initial_epoch=step // 1000,
            epochs=150,
            callbacks=[checkpoints],
        )

    Args:
        folder: where they go; made where it is missing.
    Raises:
        DivergedError: in place of a checkpoint, when a weight is not finite.
    """

    def __init__(self, folder: Path | str):
        super().__init__()
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def restore(self, model: DisentangledSITS) -> int:
        """Puts a compiled model into the state of the newest checkpoint that can be loaded.

        Returns:
            Its step; 0 where there is none, and then the model stays as it is.
        Raises:
            ConfigError: the checkpoint is of a model, or of optimizers, with other settings.
        """
        return restore_latest(model, self.folder)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        step = current_step(self.model)
        # The last step's terms were finite, but they are of the weights before it.
        for variable in (*self.model.weights, *self.model.optimizer.variables):
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise DivergedError(f"{variable.path} is not finite after step {step}. {_KEPT}")
        save_model(self.model, self.folder / checkpoint_name(step))
        for old in list_checkpoints(self.folder)[:-_CHECKPOINTS_KEPT]:
            old.unlink()


class History(keras.callbacks.Callback):
    """Keeps `history.csv`: a row for each epoch, none beyond the checkpoint gone on from.

    Args:
        file: where it goes.
        step: the step that the run begins with.
    Raises:
        DataError: there is a file already, and it is damaged.
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
    """Stops the run, before a checkpoint is written, when a term is NaN or infinite.

    Raises:
        DivergedError: it names the terms and the step; with `steps_per_execution`, the last step
            of the execution that it happened in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first_step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.first_step = current_step(self.model)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        values = logs or {}
        if all(map(math.isfinite, values.values())):
            return
        # The loss is the sum of other terms, so it is to blame for none.
        found = [name for name, value in values.items() if not math.isfinite(value)]
        terms = [name for name in found if name != "loss"] or found
        raise DivergedError(
            f"Not finite any more at step {self.first_step + batch + 1}: "
            f"{', '.join(f'{name} {values[name]}' for name in terms)}. {_KEPT}"
        )


class Progress(keras.callbacks.Callback):
    """Moves a bar over the whole run, with the terms' means over the epoch.

    Args:
        bar: of as many steps as the run has; it is closed by who made it.
    """

    def __init__(self, bar: "tqdm[Any]"):
        super().__init__()
        self.bar = bar
        self.done = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        terms = {name: f"{value:.3f}" for name, value in (logs or {}).items()}
        self.bar.set_postfix(terms, refresh=False)
        self.bar.update(batch + 1 - self.done)
        self.done = batch + 1


_KEPT = (
    "The checkpoints before it are kept. Try a lower learning rate or clip_norm, in another "
    "folder, or look for odd values in the records."
)


_ROWS = 8
_GAP = 2  # white pixels between two images


class EventLog(keras.callbacks.Callback):
    """Writes the terms and a grid of translations at the end of each epoch, for TensorBoard.

    TensorBoard's own writer is used, not TensorFlow's, so that it serves every backend.

    Args:
        folder: of the event files.
        pairs: `(x, y)`, each `(batch, 64, 64, bands)` float in [-1, 1] as `pair_dataset` gives
            them, or with surroundings. The grid has a row for each of the first eight: the place
            of `y`; the date of `x`; and what the model makes of both, which is to look like the
            second.
        picture: PNG of the newest grid.
    """

    def __init__(self, folder: Path, pairs: tuple[np.ndarray, np.ndarray], picture: Path):
        super().__init__()
        self.folder = folder
        self.x, self.y = (images[:_ROWS] for images in pairs)
        self.picture = picture
        self.writer: EventFileWriter | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.writer = EventFileWriter(str(self.folder))
        # What an earlier process wrote beyond the checkpoint that this one goes on from is void.
        self._add(
            current_step(self.model) + 1,
            session_log=SessionLog(status=SessionLog.SessionStatus.START),
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
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
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _add(self, step: int, **what: object) -> None:
        if self.writer is not None:
            self.writer.add_event(Event(wall_time=time.time(), step=step, **what))
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
                place = np.s_[row * step :, col * step :]
                grid[place][:IMAGE_SIZE, :IMAGE_SIZE] = image
        return PIL.Image.fromarray(np.uint8(np.rint(255 * grid)))


def _tag(name: str) -> str:
    """Curves of the same term in training and validation side by side."""
    validated = name.removeprefix("val_")
    return f"{validated}/{'training' if validated == name else 'validation'}"
