"""Contrastive training of the shared encoder on crops of several windows.

A crop is a square of whole windows with the context that the encoder needs around it. All its
windows share one pass of the encoder. Statistics of its layers are collected in cells of 16 px,
the spacing of the 4x4 grid. From them follow the means and standard deviations of any rectangle of
cells.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from sits_keras import losses
from sits_keras.config import CELL_SIZE, GRID_SIZE, IMAGE_SIZE, ModelConfig, ObjectiveConfig
from sits_keras.errors import ArgumentError, ConfigError
from sits_keras.layers import default_dtype_policy
from sits_keras.networks import build_projector
from sits_keras.receptive_field import SHARED_STEPS, context_margin, receptive_margin

Tensor = Any
Sampler = Callable[[tuple[int, ...]], Tensor]
"""Function from a shape to a random tensor."""

_NUM_LAYERS = len(SHARED_STEPS)
_EPSILON = 1e-6  # keeps the gradient of a deviation of 0 finite


def check_objective(config: ModelConfig, objective: ObjectiveConfig) -> None:
    """Check that a model can be trained with an objective.

    Args:
        config: Configuration of the model.
        objective: Weights of the terms.

    Raises:
        ConfigError: The shared encoder is to be trained alone without `padding="context"`, or the
            InfoNCE loss between windows has a weight beside the terms of the other networks.
    """
    if objective.encoder_only and config.padding != "context":
        raise ConfigError(
            "The shared encoder cannot be trained alone with this padding, because the windows of "
            "a crop share their layers. Expected padding='context'. Received: "
            f"padding={config.padding!r}. Set padding='context', or a weight for eq. 2, 3 or 4 "
            "(lambda_l1, lambda_kl, lambda_adversarial)."
        )
    if objective.lambda_global_info_nce and not objective.encoder_only:
        raise ConfigError(
            "lambda_global_info_nce is a term of the training of the shared encoder alone. "
            "Expected lambda_l1=0, lambda_kl=0 and lambda_adversarial=0 beside it. Received: "
            f"lambda_l1={objective.lambda_l1}, lambda_kl={objective.lambda_kl}, "
            f"lambda_adversarial={objective.lambda_adversarial}. Set them to 0, or set "
            "lambda_global_info_nce=0."
        )


def check_no_weights(weights: Tensor) -> None:
    """Raise an `ArgumentError` if a batch for all networks comes with weights of cells."""
    if weights is not None:
        raise ArgumentError(
            "Only the training of the shared encoder alone supports weights of cells. Expected "
            "batches of pairs (x, y). Received: sample weights."
        )


def jitter(images: Tensor, normal: Sampler, objective: ObjectiveConfig) -> Tensor:
    """Change brightness by a random gain of each image, and a gain and offset of each band.

    Args:
        images: `(batch, side, side, bands)` in [-1, 1].
        normal: Sampler of the standard normal distribution.
        objective: Standard deviations of the logarithm of the gains (`view_gain`,
            `view_band_gain`) and of the offset as a fraction of the range (`view_offset`).

    Returns:
        Images of the same shape in [-1, 1].
    """
    batch, _, _, bands = ops.shape(images)
    gain = ops.exp(
        objective.view_gain * normal((batch, 1, 1, 1))
        + objective.view_band_gain * normal((batch, 1, 1, bands))
    )
    offset = objective.view_offset * normal((batch, 1, 1, bands))
    # An affine function of values in [0, 1], written for values in [-1, 1].
    return ops.clip(images * gain + (gain - 1.0 + 2.0 * offset), -1.0, 1.0)


def build_layer_outputs(network: keras.Model, config: ModelConfig) -> keras.Model:
    """Return a model with the weights of a shared encoder and the output of every layer.

    Args:
        network: Shared encoder with `padding="context"`.
        config: Configuration of its model.

    Returns:
        A model from `(batch, side, side, bands)`, crops with exactly the context of the shared
        encoder, to a list: the activations of the five layers, then the shared representation if
        it is normalised after them (`shared_norm`).
    """
    start = network.get_layer("shared_context").output
    layers = [
        network.get_layer(f"shared_{index}_activation").output
        for index, _ in enumerate(SHARED_STEPS, start=1)
    ]
    if config.shared_norm != "none":
        layers.append(network.output)
    return keras.Model(start, layers, name="shared_layers")


def cell_statistics(
    maps: Sequence[Tensor], crop_size: int, first_layer: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Return the mean and the mean square of each channel in each cell of 16 px.

    Args:
        maps: Crops with their context, then the activations of the five layers.
        crop_size: Side of the crops without context, a multiple of 16.
        first_layer: Index of the first map to use.

    Returns:
        For each map used, two tensors `(batch, cells, cells, channels)` float32.
    """
    statistics = []
    for index, values in enumerate(maps[first_layer:], start=first_layer):
        before, _ = receptive_margin(SHARED_STEPS[index:])
        scale = 2 ** min(index, 4)
        side, pool = crop_size // scale, CELL_SIZE // scale
        values = crop(values, before, side)
        squares = ops.square(values)
        if pool > 1:
            values, squares = (
                ops.average_pool(
                    one, pool, strides=pool, padding="valid", data_format="channels_last"
                )
                for one in (values, squares)
            )
        statistics.append((ops.cast(values, "float32"), ops.cast(squares, "float32")))
    return statistics


def pooled_vectors(statistics: Sequence[tuple[Tensor, Tensor]], weights: Tensor) -> Tensor:
    """Return the mean and standard deviation of each channel over windows made of cells.

    Args:
        statistics: Result of `cell_statistics`.
        weights: Weights of the cells of each window, `(batch, windows, cells, cells)`; those of a
            window sum to 1.

    Returns:
        `(batch * windows, features)` float32, layer by layer, means before standard deviations.
    """
    vectors = []
    windows, cells = weights.shape[1], weights.shape[2] * weights.shape[3]
    weights = ops.reshape(weights, (-1, windows, cells))
    for values, squares in statistics:
        channels = values.shape[-1]
        mean, square = (
            ops.reshape(
                ops.matmul(weights, ops.reshape(one, (-1, cells, channels))), (-1, channels)
            )
            for one in (values, squares)
        )
        variance = ops.maximum(square - ops.square(mean), 0.0)
        vectors += [mean, ops.sqrt(variance + _EPSILON)]
    return ops.concatenate(vectors, axis=-1)


def window_weights(num_crops: Tensor, crop_size: int) -> Tensor:
    """Return the weights of cells of the windows that tile a crop.

    Args:
        num_crops: Number of crops.
        crop_size: Side of a crop in pixels, a multiple of 64.

    Returns:
        `(num_crops, windows, cells, cells)` float32, as in `pooled_vectors`.
    """
    side = ops.full((num_crops, (crop_size // IMAGE_SIZE) ** 2), GRID_SIZE, "int32")
    return _rectangles(side, side, ops.zeros_like(side), ops.zeros_like(side), crop_size)


def random_window_weights(
    num_crops: Tensor, crop_size: int, smallest: int, uniform: Sampler
) -> Tensor:
    """Return the weights of cells of a random rectangle in each window that tiles a crop.

    Args:
        num_crops: Number of crops.
        crop_size: Side of a crop in pixels, a multiple of 64.
        smallest: Minimum side of a rectangle in pixels; sides are multiples of 16 px.
        uniform: Sampler of the uniform distribution on [0, 1).

    Returns:
        As `window_weights`.
    """
    per_side = crop_size // IMAGE_SIZE
    shortest = smallest // CELL_SIZE
    axes = []
    for _ in range(2):
        numbers = uniform((num_crops, per_side * per_side, 2))
        side = shortest + ops.cast(ops.floor(numbers[..., 0] * (GRID_SIZE + 1 - shortest)), "int32")
        first = ops.cast(
            ops.floor(numbers[..., 1] * ops.cast(GRID_SIZE + 1 - side, "float32")), "int32"
        )
        axes.append((side, first))
    (rows, first_row), (cols, first_col) = axes
    return _rectangles(rows, cols, first_row, first_col, crop_size)


def _rectangles(
    rows: Tensor, cols: Tensor, first_row: Tensor, first_col: Tensor, crop_size: int
) -> Tensor:
    """Return the weights of one rectangle of `rows` x `cols` cells in each window of a crop."""
    per_side = crop_size // IMAGE_SIZE
    windows = per_side * per_side
    index = ops.arange(crop_size // CELL_SIZE, dtype="int32")
    masks = []
    corner = ops.arange(windows, dtype="int32")
    corners = (corner // per_side * GRID_SIZE, corner % per_side * GRID_SIZE)
    for side, first, corner in ((rows, first_row, corners[0]), (cols, first_col, corners[1])):
        low = (first + corner)[..., None]
        inside = ops.logical_and(index >= low, index < low + side[..., None])
        masks.append(ops.cast(inside, "float32") / ops.cast(side, "float32")[..., None])
    return masks[0][..., :, None] * masks[1][..., None, :]


def whole_windows(cells: Tensor) -> Tensor:
    """Return the weight of each window, the minimum over its cells.

    Args:
        cells: Weights of cells, `(batch, cells, cells)` in [0, 1].

    Returns:
        `(batch * windows,)` in [0, 1].
    """
    return ops.reshape(
        -ops.max_pool(-cells[..., None], GRID_SIZE, strides=GRID_SIZE, data_format="channels_last"),
        (-1,),
    )


def crop(values: Tensor, before: int, side: int) -> Tensor:
    """Return a central part of square maps.

    The gradient pads with zeros, which is four times as fast as TensorFlow's gradient of a slice.

    Args:
        values: `(batch, height, height, channels)`.
        before: Number of rows and columns to remove at the beginning.
        side: Number of rows and columns to keep.

    Returns:
        `(batch, side, side, channels)`.
    """
    after = values.shape[1] - before - side

    @ops.custom_gradient
    def sliced(values: Tensor) -> tuple[Tensor, Any]:
        def gradient(*args: Any, upstream: Tensor = None) -> Tensor:
            (upstream,) = args if upstream is None else (upstream,)
            return ops.pad(upstream, ((0, 0), (before, after), (before, after), (0, 0)))

        inside = slice(before, before + side)
        return values[:, inside, inside], gradient

    return sliced(values)


class EncoderTraining:
    """Mixin for `DisentangledSITS`: the training step of the shared encoder alone.

    Attributes:
        projector: Network between the pooled vectors and the InfoNCE loss between windows, which
            `compile` builds if this loss has a weight; `None` before. It is saved with a training
            run, but not in presets or hub modules.
    """

    config: ModelConfig
    objective: ObjectiveConfig
    shared_encoder: keras.Model
    projector: keras.Model | None = None
    optimizer: Any
    seed_generator: Any
    seed: int
    dtype_policy: Any
    num_replicas: Callable[[], int]
    replica: Callable[[], Tensor]
    _gradients: Callable[..., Any]
    _track: Callable[..., None]
    _synchronize_batch_norm: Callable[[], None]
    _layer_outputs: keras.Model | None = None

    def encoder_terms(
        self, x: Tensor, y: Tensor, weights: Tensor = None, *, training: bool
    ) -> dict[str, Tensor]:
        """Return the terms that the shared encoder minimises on crops of two dates.

        Args:
            x: Crops of the first dates, `(m, side, side, bands)` in [-1, 1]: 64 px, or a multiple
                of 64 px with the context of the encoder.
            y: Crops of the second dates of the same places, same shape.
            weights: Weights of cells of 16 px, `(m, cells, cells)` in [0, 1]; 0 for a cell without
                data. All are 1 by default.
            training: Sample views (jitter, and a rectangle of each window), and normalise by batch
                statistics.

        Returns:
            Scalars `shared_l1`, `info_nce`, `global_info_nce` and `loss`, their weighted sum.
        """
        objective = self.objective
        num_pairs = ops.shape(x)[0]
        images = ops.concatenate([self._with_context(x), self._with_context(y)], axis=0)
        crop_size = images.shape[1] - sum(context_margin(self.config))
        if training:
            images = jitter(images, self._normal, objective)
        maps = self._encoder_layers()(images, training=training)
        shared_x, shared_y = ops.split(ops.cast(maps[-1], "float32"), 2, axis=0)
        cells = crop_size // CELL_SIZE
        if weights is None:
            weights = ops.ones((num_pairs, cells, cells))
        weights = ops.cast(weights, "float32")
        terms = {
            "shared_l1": losses.shared_l1(shared_x, shared_y),
            "info_nce": losses.weighted_info_nce(
                ops.reshape(shared_x, (-1, shared_x.shape[-1])),
                ops.reshape(shared_y, (-1, shared_y.shape[-1])),
                objective.temperature,
                ops.reshape(weights, (-1,)),
            ),
            "global_info_nce": ops.zeros(()),
        }
        if objective.lambda_global_info_nce and self.projector is not None:
            statistics = cell_statistics(
                [images, *maps[:_NUM_LAYERS]], crop_size, objective.global_first_layer
            )
            # Each view is a random rectangle of each window, sampled for both dates separately.
            of_windows = [self._window_weights(num_pairs, crop_size, training) for _ in range(2)]
            vectors = pooled_vectors(statistics, ops.concatenate(of_windows, axis=0))
            first, second = ops.split(self.projector(vectors, training=training), 2, axis=0)
            terms["global_info_nce"] = losses.weighted_info_nce(
                first,
                second,
                objective.temperature,
                whole_windows(weights),
                # Windows of one place often show the same land cover.
                group_size=(crop_size // IMAGE_SIZE) ** 2,
            )
        loss = (
            objective.lambda_shared * terms["shared_l1"]
            + objective.lambda_info_nce * terms["info_nce"]
            + objective.lambda_global_info_nce * terms["global_info_nce"]
        )
        return {"loss": loss, **terms}

    def update_encoder(self, x: Tensor, y: Tensor, weights: Tensor = None) -> None:
        """Update the shared encoder and the projector once from a batch of pairs.

        Args:
            x: Crops of the first dates, as in `encoder_terms`.
            y: Crops of the second dates.
            weights: Weights of cells.
        """
        _, optimizer = self.optimizer.optimizers
        variables = self.generator_variables  # type: ignore[attr-defined]
        terms, gradients = self._gradients(
            lambda: self.encoder_terms(x, y, weights, training=True), "loss", variables
        )
        optimizer.apply(gradients, variables)
        self.optimizer.iterations.assign_add(1)
        self._track(terms, ops.shape(x)[0])

    def build_projector(self) -> None:
        """Build the projector if the objective needs one and there is none yet.

        Raises:
            ConfigError: The projector of an earlier `compile` has another input.
        """
        objective = self.objective
        if not objective.lambda_global_info_nce:
            return
        channels = [len(self.config.bands)]
        channels += [layer.shape[-1] for layer in self._encoder_layers().outputs[:_NUM_LAYERS]]
        num_features = 2 * sum(channels[objective.global_first_layer :])
        if self.projector is None:
            with default_dtype_policy(self.dtype_policy):
                self.projector = build_projector(num_features, self.seed)
            self._synchronize_batch_norm()
        elif self.projector.input_shape[-1] != num_features:
            # Keras cannot remove a network from a model.
            raise ConfigError(
                "The model has a projector for another global_first_layer. Expected "
                f"{num_features} features. Received: {self.projector.input_shape[-1]}. Create a "
                "model, and take the networks of this one with copy_networks."
            )

    def _encoder_layers(self) -> keras.Model:
        if self._layer_outputs is None:
            layers = build_layer_outputs(self.shared_encoder, self.config)
            # Not tracked: its weights are those of the shared encoder.
            object.__setattr__(self, "_layer_outputs", layers)
        return self._layer_outputs

    def _with_context(self, images: Tensor) -> Tensor:
        padding = self.shared_encoder.get_layer("shared_context")
        if images.shape[1] == IMAGE_SIZE:
            return padding(images)
        return padding.crop(images)

    def _window_weights(self, num_pairs: Tensor, crop_size: int, training: bool) -> Tensor:
        smallest = self.objective.view_window
        if not training or smallest == IMAGE_SIZE:
            return window_weights(num_pairs, crop_size)
        return random_window_weights(num_pairs, crop_size, smallest, self._uniform)

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        return self._own_part(keras.random.normal, shape, 2)

    def _uniform(self, shape: tuple[int, ...]) -> Tensor:
        return self._own_part(keras.random.uniform, shape, 1)

    def _own_part(self, draw: Callable[..., Tensor], shape: tuple[int, ...], views: int) -> Tensor:
        """Return this device's part of the random tensor of the whole batch."""
        num = shape[0] // views
        replicas = self.num_replicas()
        drawn = draw((views, replicas * num, *shape[1:]), seed=self.seed_generator)
        if replicas > 1:
            first = self.replica() * num
            drawn = drawn[:, first : first + num]
        return ops.reshape(drawn, shape)
