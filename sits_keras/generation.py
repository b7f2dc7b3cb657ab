"""What a trained model makes of images (section 4.2)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from sits_keras.config import ModelConfig
from sits_keras.errors import ConfigError
from sits_keras.receptive_field import halo
from sits_keras.trainers.base import check_range

Tensor = Any


class Generated(NamedTuple):
    """What one forward pass of the encoders and the decoder gives for a batch of m pairs.

    The first m entries of each belong to `x`, the last m to `y`.

    Attributes:
        images: `(2m, 64, 64, bands)`, `x_hat` (the place of `y` at the date of `x`), then `y_hat`.
        shared: `(2m, 4, 4, shared_channels)`.
        mean: `(2m, exclusive_dim)`, the mean of the exclusive posterior.
        log_var: same shape, the log of its variance.
    """

    images: Tensor
    shared: Tensor
    mean: Tensor
    log_var: Tensor


class Generation:
    """Mixin for a `keras.Model` that has the two encoders and the decoder.

    Wherever images of `(batch, 64, 64, bands)` are taken, a model of `padding="context"` also takes
    them with their surroundings, larger by `halo`.
    """

    config: ModelConfig
    shared_encoder: keras.Model
    exclusive_encoder: keras.Model
    decoder: keras.Model

    @property
    def halo(self) -> tuple[int, int]:
        """Pixels of surroundings, before and after, that the encoders see (`surroundings.halo`)."""
        return halo(self.config)

    def translate(self, shared_from: Tensor, exclusive_from: Tensor) -> Tensor:
        """The place of one image at the date of another (section 4.2).

        Args:
            shared_from: `(batch, 64, 64, bands)` in [-1, 1], the places.
            exclusive_from: same shape, the dates.
        Returns:
            `(batch, 64, 64, bands)` float32 in [-1, 1].
        Raises:
            ConfigError: an input has another shape, or is an array of values beyond [-1, 1].
        """
        shared = self.shared_encoder(self._images(shared_from, "shared_from"))
        mean, _ = self.exclusive_encoder(self._images(exclusive_from, "exclusive_from"))
        if shared.shape[0] != mean.shape[0]:
            raise ConfigError(
                "shared_from and exclusive_from must hold as many images. "
                f"Received: {shared.shape[0]} and {mean.shape[0]}."
            )
        return self.decoder([shared, mean])

    def autoencode(self, images: Tensor) -> Tensor:
        """Images generated from both of their own representations (section 4.2).

        Shapes, ranges and errors as in `translate`.
        """
        return self.translate(images, images)

    def reconstruct_series(self, series: Tensor, shared_from: int = 0) -> Tensor:
        """A whole series from the shared representation of one of its dates (section 4.2).

        Args:
            series: `(time, 64, 64, bands)` in [-1, 1], dates of one place.
            shared_from: index of the date whose shared representation is used.
        Returns:
            `(time, 64, 64, bands)` float32 in [-1, 1].
        Raises:
            ConfigError: the series has another shape, or no such date.
        """
        series = self._images(series, "series")
        if not -series.shape[0] <= shared_from < series.shape[0]:
            raise ConfigError(
                f"shared_from must be the index of one of {series.shape[0]} dates. "
                f"Received: {shared_from}."
            )
        shared = self.shared_encoder(series[shared_from][None])
        mean, _ = self.exclusive_encoder(series)
        return self.decoder([ops.repeat(shared, ops.shape(mean)[0], axis=0), mean])

    def combine(
        self,
        shared_from: Tensor,
        exclusive_from: Tensor,
        place_of: Sequence[int] | np.ndarray,
        date_of: Sequence[int] | np.ndarray,
    ) -> Tensor:
        """Any places at any dates, each image encoded once however often it is used.

        Args:
            shared_from: `(places, 64, 64, bands)` in [-1, 1].
            exclusive_from: `(dates, 64, 64, bands)` in [-1, 1].
            place_of: of each image to generate, the index of its place.
            date_of: of each image to generate, the index of its date.
        Returns:
            `(len(place_of), 64, 64, bands)` float32 in [-1, 1].
        Raises:
            ConfigError: an input has another shape, or there is no such place or date.
        """
        shared = self.shared_encoder(self._images(shared_from, "shared_from"))
        mean, _ = self.exclusive_encoder(self._images(exclusive_from, "exclusive_from"))
        for name, indices, count in (
            ("place_of", place_of, shared.shape[0]),
            ("date_of", date_of, mean.shape[0]),
        ):
            if len(indices) == 0 or min(indices) < 0 or max(indices) >= count:
                raise ConfigError(
                    f"{name} must hold indices from 0 to {count - 1}. Received: {list(indices)}."
                )
        if len(place_of) != len(date_of):
            raise ConfigError(
                "place_of and date_of must be of one length. "
                f"Received: {len(place_of)} and {len(date_of)}."
            )
        return self.decoder(
            [
                ops.take(shared, ops.convert_to_tensor(place_of, "int32"), axis=0),
                ops.take(mean, ops.convert_to_tensor(date_of, "int32"), axis=0),
            ]
        )

    def sample(self, images: Tensor, num_samples: int, seed: int) -> Tensor:
        """Several plausible dates of each place: exclusive representations from N(0, I).

        Args:
            images: `(batch, 64, 64, bands)` in [-1, 1], the places.
            num_samples: how many dates of each.
            seed: seed of the draws; the same draws serve every place.
        Returns:
            `(batch, num_samples, 64, 64, bands)` float32 in [-1, 1].
        """
        shared = self.shared_encoder(self._images(images, "images"))
        batch = shared.shape[0]
        draws = keras.random.normal((num_samples, self.config.exclusive_dim), seed=seed)
        generated = self.decoder(
            [ops.repeat(shared, num_samples, axis=0), ops.tile(draws, (batch, 1))]
        )
        return ops.reshape(generated, (batch, num_samples, *self.config.image_shape))

    def interpolate(
        self, shared_from: Tensor, first: Tensor, last: Tensor, num_steps: int
    ) -> Tensor:
        """The place of each image at dates between two others: linear between exclusive means.

        Args:
            shared_from: `(batch, 64, 64, bands)` in [-1, 1], the places.
            first: same shape, the dates at which to begin.
            last: same shape, the dates at which to end.
            num_steps: images to generate of each place, both ends included, at least 2.
        Returns:
            `(batch, num_steps, 64, 64, bands)` float32 in [-1, 1]; the first and the last of each
            are what `translate` makes of the two dates.
        Raises:
            ConfigError: an input has another shape, or fewer than two steps are asked for.
        """
        if num_steps < 2:
            raise ConfigError(
                f"num_steps must be at least 2, for the two ends. Received: num_steps={num_steps}."
            )
        shared = self.shared_encoder(self._images(shared_from, "shared_from"))
        start, _ = self.exclusive_encoder(self._images(first, "first"))
        end, _ = self.exclusive_encoder(self._images(last, "last"))
        batch = shared.shape[0]
        if not batch == start.shape[0] == end.shape[0]:
            raise ConfigError(
                "shared_from, first and last must hold as many images. "
                f"Received: {batch}, {start.shape[0]} and {end.shape[0]}."
            )
        # Weights of both ends, so that each end is met to the bit.
        weights = ops.reshape(ops.linspace(0.0, 1.0, num_steps, dtype="float32"), (1, -1, 1))
        means = (1 - weights) * start[:, None] + weights * end[:, None]
        generated = self.decoder(
            [
                ops.repeat(shared, num_steps, axis=0),
                ops.reshape(means, (batch * num_steps, self.config.exclusive_dim)),
            ]
        )
        return ops.reshape(generated, (batch, num_steps, *self.config.image_shape))

    def _images(self, images: Tensor, name: str) -> Tensor:
        check_range(images)
        images = ops.convert_to_tensor(images, "float32")
        size, _, bands = self.config.image_shape
        whole = size + sum(self.halo)
        if tuple(images.shape[1:]) not in ((size, size, bands), (whole, whole, bands)):
            surrounded = f", or {whole} for {size} with surroundings" if self.halo[1] else ""
            raise ConfigError(
                f"{name} must have shape (batch, {size}, {size}, {bands}){surrounded}, bands "
                f"{', '.join(self.config.bands)}. Received: {tuple(images.shape)}."
            )
        return images
