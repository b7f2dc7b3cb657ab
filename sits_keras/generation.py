"""Image generation with a trained model (section 4.2)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from sits_keras.config import ModelConfig
from sits_keras.errors import ArgumentError
from sits_keras.networks import build_location_encoder
from sits_keras.receptive_field import context_margin
from sits_keras.trainers.base import check_range

Tensor = Any
Indices = Sequence[int] | npt.NDArray[np.integer[Any]]


class Generated(NamedTuple):
    """Result of one forward pass of the encoders and the decoder on a batch of m pairs.

    The first m entries of each tensor belong to `x`, the last m to `y`.

    Attributes:
        images: `(2m, 64, 64, bands)`: `x_hat` (the location of `y` at the date of `x`), then
            `y_hat`.
        shared: Shared representations, `(2m, 4, 4, shared_channels)`.
        mean: Mean of the exclusive posterior, `(2m, exclusive_dim)`.
        log_var: Log variance of the exclusive posterior, same shape.
    """

    images: Tensor
    shared: Tensor
    mean: Tensor
    log_var: Tensor


class Generation:
    """Mixin for a `keras.Model` that has the two encoders and the decoder.

    A model with `padding="context"` accepts images of shape `(batch, 64, 64, bands)` and also
    images with their context margin.
    """

    config: ModelConfig
    shared_encoder: keras.Model
    exclusive_encoder: keras.Model
    decoder: keras.Model
    _location_encoder: keras.Model | None = None

    @property
    def context_margin(self) -> tuple[int, int]:
        """Pixels of context before and after a window that the encoders use."""
        return context_margin(self.config)

    def translate(self, shared_from: Tensor, exclusive_from: Tensor) -> Tensor:
        """Generate the place of one image at the acquisition date of another (section 4.2).

        Args:
            shared_from: Images of the places, `(batch, 64, 64, bands)` in [-1, 1].
            exclusive_from: Images of the dates, same shape and range.

        Returns:
            `(batch, 64, 64, bands)` float32 in [-1, 1].

        Raises:
            ArgumentError: An input has the wrong shape, or is an array with values outside
                [-1, 1].

        Examples:
            >>> import numpy as np
            >>> from sits_keras import DisentangledSITS, ModelConfig
            >>> model = DisentangledSITS(ModelConfig(width=2))
            >>> summer, winter = np.zeros((2, 5, 64, 64, 4), "float32")
            >>> tuple(model.translate(summer, winter).shape)
            (5, 64, 64, 4)
        """
        location = self.encode_location(self._images(shared_from, "shared_from"))
        mean, _ = self.exclusive_encoder(self._images(exclusive_from, "exclusive_from"))
        if location[-1].shape[0] != mean.shape[0]:
            raise ArgumentError(
                "shared_from and exclusive_from must have the same batch size. "
                f"Received: {location[-1].shape[0]} and {mean.shape[0]}."
            )
        return self.decoder([*location, mean])

    def autoencode(self, images: Tensor) -> Tensor:
        """Reconstruct images from both of their own representations (section 4.2).

        Args:
            images: `(batch, 64, 64, bands)` in [-1, 1].

        Returns:
            `(batch, 64, 64, bands)` float32 in [-1, 1].

        Raises:
            ArgumentError: The input has the wrong shape or range.
        """
        return self.translate(images, images)

    def reconstruct_series(self, series: Tensor, shared_from: int = 0) -> Tensor:
        """Generate a whole series from the shared representation of one date (section 4.2).

        Args:
            series: Dates of one place, `(time, 64, 64, bands)` in [-1, 1].
            shared_from: Index of the date whose shared representation is used.

        Returns:
            `(time, 64, 64, bands)` float32 in [-1, 1].

        Raises:
            ArgumentError: The series has the wrong shape, or the index is out of range.
        """
        series = self._images(series, "series")
        if not -series.shape[0] <= shared_from < series.shape[0]:
            raise ArgumentError(
                f"shared_from must be the index of one of {series.shape[0]} dates. "
                f"Received: {shared_from}."
            )
        location = self.encode_location(series[shared_from][None])
        mean, _ = self.exclusive_encoder(series)
        return self.decoder([*_repeat(location, ops.shape(mean)[0]), mean])

    def combine(
        self, shared_from: Tensor, exclusive_from: Tensor, place_of: Indices, date_of: Indices
    ) -> Tensor:
        """Generate any combinations of places and dates, encoding each image once.

        Args:
            shared_from: Images of the places, `(places, 64, 64, bands)` in [-1, 1].
            exclusive_from: Images of the dates, `(dates, 64, 64, bands)` in [-1, 1].
            place_of: Index of the place of each generated image.
            date_of: Index of the date of each generated image.

        Returns:
            `(len(place_of), 64, 64, bands)` float32 in [-1, 1].

        Raises:
            ArgumentError: An input has the wrong shape, or an index is out of range.
        """
        location = self.encode_location(self._images(shared_from, "shared_from"))
        mean, _ = self.exclusive_encoder(self._images(exclusive_from, "exclusive_from"))
        for name, indices, count in (
            ("place_of", place_of, location[-1].shape[0]),
            ("date_of", date_of, mean.shape[0]),
        ):
            if len(indices) == 0 or min(indices) < 0 or max(indices) >= count:
                raise ArgumentError(
                    f"{name} must contain indices from 0 to {count - 1}. Received: {list(indices)}."
                )
        if len(place_of) != len(date_of):
            raise ArgumentError(
                "place_of and date_of must have the same length. "
                f"Received: {len(place_of)} and {len(date_of)}."
            )
        places, dates = (ops.convert_to_tensor(one, "int32") for one in (place_of, date_of))
        return self.decoder(
            [
                *(ops.take(one, places, axis=0) for one in location),
                ops.take(mean, dates, axis=0),
            ]
        )

    def sample(self, images: Tensor, num_samples: int, seed: int) -> Tensor:
        """Generate several plausible dates of each place: exclusive vectors from N(0, I).

        Args:
            images: Images of the places, `(batch, 64, 64, bands)` in [-1, 1].
            num_samples: Dates to generate for each place.
            seed: Seed of the samples, which are the same for every place.

        Returns:
            `(batch, num_samples, 64, 64, bands)` float32 in [-1, 1].

        Raises:
            ArgumentError: The input has the wrong shape or range.
        """
        location = self.encode_location(self._images(images, "images"))
        batch = location[-1].shape[0]
        exclusive = keras.random.normal(
            (num_samples, self.config.exclusive_dim), dtype="float32", seed=seed
        )
        generated = self.decoder([*_repeat(location, num_samples), ops.tile(exclusive, (batch, 1))])
        return ops.reshape(generated, (batch, num_samples, *self.config.image_shape))

    def interpolate(
        self, shared_from: Tensor, first: Tensor, last: Tensor, num_steps: int
    ) -> Tensor:
        """Generate each place at dates between two others, linear between exclusive means.

        Args:
            shared_from: Images of the places, `(batch, 64, 64, bands)` in [-1, 1].
            first: Images of the first dates, same shape and range.
            last: Images of the last dates, same shape and range.
            num_steps: Images to generate of each place, including both ends; at least 2.

        Returns:
            `(batch, num_steps, 64, 64, bands)` float32 in [-1, 1]. The first and last image of
            each place equal the output of `translate` for these dates.

        Raises:
            ArgumentError: An input has the wrong shape, or `num_steps` is less than 2.
        """
        if num_steps < 2:
            raise ArgumentError(
                "num_steps must be at least 2, because both ends are included. "
                f"Received: num_steps={num_steps}."
            )
        location = self.encode_location(self._images(shared_from, "shared_from"))
        start, _ = self.exclusive_encoder(self._images(first, "first"))
        end, _ = self.exclusive_encoder(self._images(last, "last"))
        batch = location[-1].shape[0]
        if not batch == start.shape[0] == end.shape[0]:
            raise ArgumentError(
                "shared_from, first and last must have the same batch size. "
                f"Received: {batch}, {start.shape[0]} and {end.shape[0]}."
            )
        # A weighted sum of both ends, which gives each end exactly.
        weights = ops.reshape(ops.linspace(0.0, 1.0, num_steps, dtype="float32"), (1, -1, 1))
        means = (1 - weights) * start[:, None] + weights * end[:, None]
        generated = self.decoder(
            [
                *_repeat(location, num_steps),
                ops.reshape(means, (batch * num_steps, self.config.exclusive_dim)),
            ]
        )
        return ops.reshape(generated, (batch, num_steps, *self.config.image_shape))

    def encode_location(self, images: Tensor, *, training: bool = False) -> list[Tensor]:
        """Return the location of each image: all that the decoder receives from the shared encoder.

        Args:
            images: Images of the places, `(batch, 64, 64, bands)` float32 in [-1, 1], or with
                their context margin.
            training: Normalise by batch statistics.

        Returns:
            Layers of the shared encoder if the model has `decoder_skips`, and last the shared
            representation, `(batch, 4, 4, shared_channels)`.
        """
        if not self.config.decoder_skips:
            return [self.shared_encoder(images, training=training)]
        return list(self._location_layers()(images, training=training))

    def _location_layers(self) -> keras.Model:
        if self._location_encoder is None:
            network = build_location_encoder(self.shared_encoder, self.config)
            # Not tracked: its weights are those of the shared encoder.
            object.__setattr__(self, "_location_encoder", network)
            return network
        return self._location_encoder

    def _images(self, images: Tensor, name: str) -> Tensor:
        check_range(images)
        images = ops.convert_to_tensor(images, "float32")
        size, _, bands = self.config.image_shape
        whole = size + sum(self.context_margin)
        if tuple(images.shape[1:]) not in ((size, size, bands), (whole, whole, bands)):
            with_context = f", or {whole} for {size} with context" if whole > size else ""
            raise ArgumentError(
                f"{name} has the wrong shape. Expected (batch, {size}, {size}, {bands})"
                f"{with_context}, bands {', '.join(self.config.bands)}. "
                f"Received: {tuple(images.shape)}."
            )
        return images


def _repeat(location: Sequence[Tensor], num_times: int) -> list[Tensor]:
    """Repeat each location of a batch, `num_times` times in a row."""
    return [ops.repeat(one, num_times, axis=0) for one in location]
