"""What a trained model makes of images (section 4.2)."""

from typing import Any

import keras
from keras import ops

from sits_keras.config import ModelConfig
from sits_keras.errors import ConfigError

Tensor = Any


class Generation:
    """Mixin for a `keras.Model` that has the two encoders and the decoder."""

    config: ModelConfig
    shared_encoder: keras.Model
    exclusive_encoder: keras.Model
    decoder: keras.Model

    def translate(self, shared_from: Tensor, exclusive_from: Tensor) -> Tensor:
        """The place of one image at the date of another (section 4.2).

        Args:
            shared_from: `(batch, 64, 64, bands)` in [-1, 1], the places.
            exclusive_from: same shape, the dates.
        Returns:
            `(batch, 64, 64, bands)` float32 in [-1, 1].
        Raises:
            ConfigError: an input has another shape.
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

    def _images(self, images: Tensor, name: str) -> Tensor:
        images = ops.convert_to_tensor(images, "float32")
        if tuple(images.shape[1:]) != self.config.image_shape:
            size, _, bands = self.config.image_shape
            raise ConfigError(
                f"{name} must have shape (batch, {size}, {size}, {bands}), bands "
                f"{', '.join(self.config.bands)}. Received: {tuple(images.shape)}."
            )
        return images
