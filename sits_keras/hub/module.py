"""The object that is saved as a hub module: an encoder that takes reflectance."""

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.data.radiometry import MAX_REFLECTANCE
from sits_keras.errors import ConfigError
from sits_keras.hub.dense import cells_densely, encode_densely
from sits_keras.hub.encoder import DENSE_STRIDES, EXPECTED_REFLECTANCE
from sits_keras.hub.pooling import build_pooled_encoder
from sits_keras.model import DisentangledSITS
from sits_keras.tensorflow_import import tf
from sits_keras.trainers import BACKEND

_FILL_VALUE = -1.0  # no reflectance is as low as this, and fill values are

# A saved function does not convert its arguments, so there is one for each of these types. All of
# them compute with the first.
_FLOATS = (tf.float32, tf.float64, tf.float16, tf.bfloat16)
_INTEGERS = (tf.uint8, tf.uint16, tf.int32)  # so that digital numbers are refused in plain words

Tensor = Any


class EncoderModule(tf.train.Checkpoint):
    """An encoder with the members of a TF-Hub Reusable SavedModel.

    Every function takes reflectance of any float type, scales it to the network's range and
    returns float32. Images with a value of -1 or less, above 10, or NaN are refused: an assertion
    fails, and where assertions are not executed (XLA, TensorFlow Lite) all features of such an
    image are NaN.

    A SavedModel contains the functions that were traced: call `trace_all` before saving.

    Args:
        model: Model whose encoder is saved. The weights are shared with it.
        encoder: `"shared"` or `"exclusive"`.

    Raises:
        ConfigError: Keras runs on another backend than TensorFlow.
    """

    def __init__(self, model: DisentangledSITS, encoder: Literal["shared", "exclusive"]):
        super().__init__()
        if BACKEND != "tensorflow":
            raise ConfigError(
                "Hub modules are exported under Keras' TensorFlow backend. Received: "
                f"backend {BACKEND!r}. Save the model (model.save), then load and export it with "
                "KERAS_BACKEND=tensorflow."
            )
        network = model.shared_encoder if encoder == "shared" else model.exclusive_encoder
        # In a closure, so that the variables are saved and the Keras objects are not.
        self._run_network = lambda images, training: network(images, training=training)
        self._run_pooled: Callable[[Tensor, bool], Tensor] | None = None
        if encoder == "shared":
            pooled = build_pooled_encoder(network, model.config, model.whitening)
            # Not among `variables`, which are those of the encoder.
            num_shared = len(network.variables)
            self.whitening = [variable.value for variable in pooled.variables[num_shared:]]
            self._run_pooled = lambda images, training: pooled(images, training=training)
        self._gain = 2.0 / np.array(model.config.band_max, np.float32)
        self.variables = [variable.value for variable in network.variables]
        self.trainable_variables = [variable.value for variable in network.trainable_variables]
        self.regularization_losses: list[Any] = []
        self._bands = len(model.config.bands)
        self._side = IMAGE_SIZE + sum(model.context_margin)
        if model.config.padding == "context":
            for stride in DENSE_STRIDES:
                setattr(self, f"dense_{stride}", self._dense(network, stride))

    def trace_all(self) -> None:
        """Trace every function for images of each type, in inference and training."""
        windows = ["spatial", "flattened", "pooled"] if self._run_pooled else []
        context = ["flattened_with_context"] if self._run_pooled else []
        is_dense = hasattr(self, f"dense_{DENSE_STRIDES[0]}")
        for training in (False, True):
            self.trace("__call__", (*_FLOATS, *_INTEGERS), training=training)
            for name in windows + (["with_context", *context] if is_dense else []):
                self.trace(name, training=training)
        for stride in DENSE_STRIDES if is_dense else ():
            self.trace(f"dense_{stride}")

    def trace(self, name: str, types: tuple[tf.DType, ...] = _FLOATS, **options: bool) -> Any:
        """Trace a function for any number of images, unless it already is.

        Without it, a function is traced again for other numbers of images.

        Args:
            name: Name of the function.
            types: Types of the images.
            **options: `training`, if the function has it.

        Returns:
            The function.
        """
        function = getattr(self, name)
        side: int | None = self._side if name.endswith("with_context") else IMAGE_SIZE
        if name.startswith("dense"):
            side = None
        for dtype in types:
            spec = tf.TensorSpec((None, side, side, self._bands), dtype, name="inputs")
            function.get_concrete_function(spec, **options)
        return function

    @tf.function(autograph=False)
    def __call__(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return `(batch, num_features)`: the feature vector of each image.

        Of the shared encoder, it is the pooled vector (`sits_keras.hub.pooling`), which serves
        classifiers best. Of the exclusive encoder, it is the mean of the posterior.
        """
        if inputs.dtype != tf.float32:
            return self.__call__(tf.cast(inputs, tf.float32), training=training)
        if (run_pooled := self._run_pooled) is not None:
            return self._encode(inputs, run_pooled, training)
        mean, _ = self._encode(inputs, self._run_network, training)
        return mean

    @tf.function(autograph=False)
    def spatial(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return `(batch, 4, 4, channels)`: the shared representation on its grid."""
        if inputs.dtype != tf.float32:
            return self.spatial(tf.cast(inputs, tf.float32), training=training)
        return self._encode(inputs, self._run_network, training)

    @tf.function(autograph=False)
    def flattened(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return `(batch, 16 * channels)`: the flattened grid, the paper's shared features."""
        grid = self.spatial(inputs, training=training)
        return tf.reshape(grid, (tf.shape(grid)[0], grid.shape[1:].num_elements()))

    @tf.function(autograph=False)
    def pooled(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return the same as `__call__`, as in modules of earlier versions."""
        return self.__call__(inputs, training=training)

    @tf.function(autograph=False)
    def with_context(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return what `__call__` does, from `(batch, 64 + margin, 64 + margin, bands)`."""
        return self.__call__(inputs, training=training)

    @tf.function(autograph=False)
    def flattened_with_context(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Return what `flattened` does, from `(batch, 64 + margin, 64 + margin, bands)`."""
        return self.flattened(inputs, training=training)

    def _dense(self, network: keras.Model, stride: int) -> Any:
        """Make the function that encodes whole rasters `(batch, height, width, bands)`."""

        @tf.function(autograph=False)
        def dense(inputs: Tensor) -> Tensor:
            if inputs.dtype != tf.float32:
                return dense(tf.cast(inputs, tf.float32))
            images, is_valid = self._check(inputs)
            return encode_densely(network, self._scale(images), stride, is_valid)

        return dense

    def make_cells(self, network: keras.Model, stride: int) -> Any:
        """Make a function of images to the cells of the shared encoder (`dense.cells_densely`).

        A SavedModel does not contain it, so it is not a member. It does not check its images.

        Args:
            network: The shared encoder.
            stride: Distance between windows in pixels.
        """

        @tf.function(
            input_signature=[tf.TensorSpec((None, None, None, self._bands), tf.float32)],
            autograph=False,
        )
        def cells(inputs: Tensor) -> Tensor:
            return cells_densely(network, self._scale(inputs), stride)

        return cells

    def _encode(
        self, inputs: Tensor, run: Callable[[Tensor, bool], Tensor], training: bool
    ) -> Tensor:
        """Run a network on reflectance; features of images with invalid values are NaN."""
        images, is_valid = self._check(inputs)
        if training:  # zeros in their place, so that NaN does not get into moving statistics
            images = tf.where(is_valid[:, None, None, None], images, 0.0)

        def finish(output: Tensor) -> Tensor:
            # Under a mixed precision policy the networks compute in another type.
            features = tf.cast(output, tf.float32)
            ones = [1] * (len(features.shape) - 1)
            return tf.where(tf.reshape(is_valid, [-1, *ones]), features, np.float32(np.nan))

        return tf.nest.map_structure(finish, run(self._scale(images), training))

    def _check(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images, after an assertion, and `(batch,)` bool, which of them are valid."""
        # Element by element: a maximum would pass over NaN in TensorFlow Lite.
        is_valid = tf.reduce_all((inputs > _FILL_VALUE) & (inputs <= MAX_REFLECTANCE), (1, 2, 3))
        check = tf.debugging.Assert(
            tf.reduce_all(is_valid),
            [
                f"{EXPECTED_REFLECTANCE}. Received NaN, values above 10, or -1 and less: divide "
                "digital numbers by 10000 (after adding the product's offset). Maximum and "
                "minimum:",
                tf.reduce_max(inputs),
                tf.reduce_min(inputs),
            ],
        )
        with tf.control_dependencies([check] if check is not None else []):
            return tf.identity(inputs), is_valid

    def _scale(self, images: Tensor) -> Tensor:
        # A row of pixels at once: four bands are too few to multiply fast.
        shape = tf.shape(images)
        rows = tf.reshape(images, (-1, shape[2] * shape[3]))
        scaled = tf.clip_by_value(rows * tf.tile(self._gain, shape[2:3]) - 1.0, -1.0, 1.0)
        return tf.ensure_shape(tf.reshape(scaled, shape), images.shape)
