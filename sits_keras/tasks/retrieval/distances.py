"""Distances of windows: of layers and grid, and the L1 distance of features (section 4.3).

The distance of layers is the sum of three parts:

- the mean absolute difference of the grids, as in the paper, divided by their length;
- for each of layers 2 and 3 of the shared encoder, 1 minus the mean over the channels of
  `abs(correlation)` of the two windows, over 8 x 8 cells.

The grid distinguishes places by their content; the layers locate a window to a few pixels. A
correlation ignores the contrast of a date. Its absolute value also ignores whether the contrast is
inverted, by snow or harvest.
"""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from sits_keras.config import IMAGE_SIZE, ModelConfig
from sits_keras.errors import ArgumentError, ConfigError, DataError
from sits_keras.hub import HubEncoder
from sits_keras.hub.dense import LAYER_SPACING, layers_densely
from sits_keras.hub.encoder import check_reflectance
from sits_keras.hub.layers import network_of, scale_to_network
from sits_keras.networks import build_location_encoder
from sits_keras.tasks.windows import Encoder
from sits_keras.tensorflow_import import tf

Tensor = Any

RetrievalMethod = Literal["layers", "grid"] | None
"""Distance of windows; None is "layers" if the encoder has layers, else "grid"."""

Distances = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[np.float64]]
"""From `(queries, num_features)` and `(windows, num_features)` to `(windows, queries)`."""

_CELLS = 8  # compared along each side of a window, 8 px apart
_CELL_STEP = IMAGE_SIZE // _CELLS // LAYER_SPACING
_MIN_DEVIATION = 1e-3  # added to the deviation of a channel, so that flat ones do not become noise


class LocationEncoder:
    """Grid and normalised layers 2 and 3 of windows, for `location_distances`.

    Each channel of a layer is centred over the window and divided by its standard deviation plus
    0.001. It can be pickled if the encoder can. Functions are traced once for each encoder; the
    weights are those of the encoder when its last `LocationEncoder` was made, or those of the
    wrapped model at each call.

    Args:
        encoder: Shared encoder.

    Attributes:
        encoder: The encoder.
        bands: See `HubEncoder`.
        context_margin: See `HubEncoder`.
        dense_strides: See `HubEncoder`.
        not_dense_reason: See `HubEncoder`.
        num_grid: Length of the flattened grid, the first of the features.
        num_flattened: Number of features of a window: the grid, then 8 x 8 cells of each channel of
            layer 2 and of layer 3.

    Raises:
        DataError: If the module's weights are not those of its configuration.

    Examples:
        >>> encoder = LocationEncoder(sits_keras.from_preset("sits_rgbn_small", "shared"))
        >>> features = encoder(windows)  # `(batch, 64, 64, 4)` reflectance
    """

    def __init__(self, encoder: HubEncoder):
        self.encoder = encoder
        self.bands = encoder.bands
        self.context_margin = encoder.context_margin
        self.dense_strides = encoder.dense_strides
        self.not_dense_reason = encoder.not_dense_reason
        self.num_grid = encoder.num_flattened
        config = ModelConfig.from_dict(encoder.metadata["model"])
        network, run_alone, run_densely = encoder.layer_functions.get("locations", [None] * 3)
        if network is None:
            network = network_of(encoder)
            run_alone, run_densely = _trace(network, config)
            encoder.layer_functions["locations"] = network, run_alone, run_densely
        else:
            network_of(encoder, network)
        self._run_alone, self._run_densely = run_alone, run_densely
        num_channels = sum(
            network.get_layer(f"shared_{index}_activation").output.shape[-1] for index in (2, 3)
        )
        self.num_flattened = self.num_grid + _CELLS**2 * num_channels

    def __reduce__(self) -> tuple[Any, ...]:
        return LocationEncoder, (self.encoder,)

    def __call__(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Return the features of windows.

        Args:
            images: Reflectance, `(batch, 64, 64, bands)`, or with the context of `context_margin`
                around each window.

        Returns:
            `(batch, num_flattened)` float32.

        Raises:
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance: above 10, -1 or less, or NaN.
        """
        images = np.asarray(images, np.float32)
        sides = sorted({IMAGE_SIZE, IMAGE_SIZE + sum(self.context_margin)})
        shapes = [(side, side, len(self.bands)) for side in sides]
        if images.shape[1:] not in shapes:
            expected = " or ".join(f"(batch, {', '.join(map(str, one))})" for one in shapes)
            raise ArgumentError(
                f"Expected images of shape {expected}, bands {', '.join(self.bands)}. "
                f"Received: {images.shape}."
            )
        check_reflectance(images)
        grid, *layers = (one.numpy() for one in self._run_alone(images))
        cells = np.concatenate(layers, axis=-1).transpose(0, 3, 1, 2)
        return np.concatenate([grid, _normalise(cells)], axis=1)

    def dense(self, images: Tensor, stride: int) -> npt.NDArray[np.float32]:
        """Return the features of all windows of images, as `HubEncoder.dense` returns their grids.

        Args:
            images: See `HubEncoder.dense`.
            stride: See `HubEncoder.dense`.

        Returns:
            `(batch, rows, cols, num_flattened)` float32.

        Raises:
            ConfigError: The encoder has no dense function.
            ArgumentError: The stride is not supported, or images have another shape.
            DataError: Values are not reflectance.
        """
        grids = self.encoder.dense(images, stride).numpy()  # checks the arguments
        layers = self._run_densely(tf.cast(images, tf.float32)).numpy()
        side, step = (_CELLS - 1) * _CELL_STEP + 1, stride // LAYER_SPACING
        windows = np.lib.stride_tricks.sliding_window_view(layers, (side, side), axis=(1, 2))
        windows = windows[:, ::step, ::step, :, ::_CELL_STEP, ::_CELL_STEP]
        features = np.empty((*grids.shape[:3], self.num_flattened), np.float32)
        features[..., : self.num_grid] = grids
        rows, cols = grids.shape[1:3]
        for index, row in np.ndindex(len(grids), rows):  # one at a time: copies are large
            features[index, row, :, self.num_grid :] = _normalise(windows[index, row, :cols])
        return features


def _trace(network: Any, config: ModelConfig) -> tuple[Any, Any]:
    """Return functions of the reflectance of windows and of whole images.

    The first returns the flattened grid, and layers 2 and 3, `(batch, 8, 8, channels)`. The second
    returns the output of `layers_densely`.
    """
    scale = scale_to_network(config)
    locations = build_location_encoder(network, dataclasses.replace(config, decoder_skips=True))

    @tf.function(autograph=False, reduce_retracing=True)
    def run_alone(images: Tensor) -> tuple[Tensor, ...]:
        _, second, third, grid = locations(scale(images), training=False)
        flat = tf.reshape(grid, (-1, np.prod(grid.shape[1:])))
        step = second.shape[1] // _CELLS
        parts = flat, second[:, ::step, ::step], third
        return tuple(tf.cast(one, tf.float32) for one in parts)

    bands = len(config.bands)

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, bands), tf.float32)], autograph=False
    )
    def run_densely(images: Tensor) -> Tensor:
        return layers_densely(network, scale(images))

    return run_alone, run_densely


def _normalise(cells: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Centre each channel of a window and divide it by its deviation.

    Args:
        cells: `(windows, channels, 8, 8)`.

    Returns:
        `(windows, channels * 64)`.
    """
    values: npt.NDArray[np.float32] = np.array(cells).reshape(*cells.shape[:2], -1)
    values -= values.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.einsum("wck,wck->wc", values, values) / values.shape[-1])
    values /= (deviation + np.float32(_MIN_DEVIATION))[..., None]
    return values.reshape(len(values), -1)


def comparison_of(
    encoder: Encoder, method: RetrievalMethod, *, has_series: bool = False
) -> tuple[Encoder, Distances]:
    """Return the encoder whose features a method compares, and their distance.

    Args:
        encoder: Encoder of the caller.
        method: See `sits_keras.tasks.retrieve`.
        has_series: Whether features are averaged over the dates of a series. Correlations of
            averages would depend on whether contrasts are inverted, so "layers" is refused.

    Raises:
        ConfigError: If there is no such method, or "layers" is required and the encoder is not a
            shared `HubEncoder` or a series is compared.
    """
    if method not in ("layers", "grid", None):
        raise ConfigError(f"method must be 'layers', 'grid' or None. Received: {method!r}.")
    hub_encoder = encoder if isinstance(encoder, HubEncoder) else None
    has_layers = hub_encoder is not None and hub_encoder.metadata["encoder"] == "shared"
    if method == "layers" and not has_layers:
        received = "an exclusive encoder" if hub_encoder else "a function of windows"
        raise ConfigError(
            "The encoder has no layers to compare. Expected the shared encoder of a preset, a hub "
            f"module or a model. Received: {received}. Use the method grid (--method grid), which "
            "compares its features."
        )
    if method == "layers" and has_series:
        raise ConfigError(
            "Layers cannot be compared with averages over the dates of a series. Expected two "
            "rasters of one date each. Received: a series. Use the method grid (--method grid)."
        )
    if hub_encoder and has_layers and not has_series and method != "grid":
        locations = LocationEncoder(hub_encoder)
        return locations, functools.partial(location_distances, num_grid=locations.num_grid)
    return encoder, distances_to


def l1_distances(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the L1 distance of every row of one array from every row of another.

    Args:
        one: `(n, features)`.
        other: `(m, features)`.

    Returns:
        `(n, m)` float64.

    Raises:
        DataError: If a feature is NaN or infinite.
    """
    _check_finite(one, other)
    # SciPy's loop is as fast as scikit-learn's and releases the interpreter's lock.
    num_threads = os.cpu_count() or 1
    parts = np.array_split(one, min(num_threads, len(one)))
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        return np.concatenate(list(pool.map(lambda part: cdist(part, other, "cityblock"), parts)))


def distances_to(queries: npt.NDArray[Any], features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return L1 distances of windows from all queries; a `Reduce`.

    Args:
        queries: `(queries, num_features)`.
        features: `(windows, num_features)`.

    Returns:
        `(windows, queries)` float64.
    """
    return l1_distances(queries, features).T


def location_distances(
    queries: npt.NDArray[np.float32], features: npt.NDArray[np.float32], *, num_grid: int
) -> npt.NDArray[np.float64]:
    """Return distances of windows from all queries by layers and grid; a `Reduce`.

    A channel that is flat in a window is not correlated with any other, so the distance of a window
    from itself can be above 0.

    Args:
        queries: `(queries, num_features)` of a `LocationEncoder`.
        features: `(windows, num_features)` of the same.
        num_grid: Length of the flattened grid.

    Returns:
        `(windows, queries)` float64, the sum that the module describes; layers count from 0 to 2.

    Raises:
        DataError: If a feature is NaN or infinite.
    """
    distances = distances_to(queries[:, :num_grid], features[:, :num_grid]) / num_grid
    size = _CELLS**2
    num_channels = (queries.shape[1] - num_grid) // size
    second = num_channels // 3  # layer 3 has twice as many
    for channels in (range(second), range(second, num_channels)):
        total = np.zeros(distances.shape, np.float32)
        for channel in channels:
            part = slice(num_grid + channel * size, num_grid + (channel + 1) * size)
            products = features[:, part] @ queries[:, part].T
            total += np.abs(products, out=products)
        distances += 1 - total / (len(channels) * size)
    _check_finite(distances)
    return distances


def _check_finite(*arrays: npt.NDArray[Any]) -> None:
    if not all(np.isfinite(one).all() for one in arrays):
        raise DataError("Features to compare are NaN or infinite. Expected finite features.")
