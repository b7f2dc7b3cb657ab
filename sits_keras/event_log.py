"""A run as TensorBoard shows it: its terms, and images of translations (Figure 3)."""

import io
import time
from pathlib import Path

import keras
import numpy as np
import PIL.Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import true_colour
from sits_keras.files import written_aside
from sits_keras.receptive_field import centre
from sits_keras.saving import current_step

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
            for images in (centre(self.y, config), centre(self.x, config), generated)
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
