"""The encoders as TF-Hub Reusable SavedModels: out, and back in (section 4.4).

A module takes `(batch, 64, 64, bands)` float32 reflectance, 1.0 being full reflectance, and does
the scaling to the networks' range itself. It runs without this package.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.files import read_json, write_json, written_aside
from sits_keras.model import DisentangledSITS
from sits_keras.model_card import (
    FORMAT,
    FORMAT_VERSION,
    make_preset,
    make_stac_item,
    render_card,
)
from sits_keras.needs_tensorflow import tf
from sits_keras.trainers import BACKEND

PRESET_NAME = "preset.json"
CARD_NAME = "model_card.md"
ITEM_NAME = "item.json"

_LARGEST_INPUT = 10.0  # snow and glint reach a reflectance of about 2; digital numbers, thousands

Tensor = Any


class EncoderModule(tf.train.Checkpoint):
    """What is saved: an encoder that scales its input, with the members that TF-Hub asks for.

    Args:
        model: whose encoder it is.
        encoder: `"shared"` or `"exclusive"`.
    Raises:
        ConfigError: Keras runs on another backend.
    """

    def __init__(self, model: DisentangledSITS, encoder: Literal["shared", "exclusive"]):
        super().__init__()
        if BACKEND != "tensorflow":
            raise ConfigError(
                "An encoder becomes a hub module under Keras' TensorFlow backend. Received: "
                f"backend {BACKEND!r}. Save the model (model.save), and load and export it under "
                "KERAS_BACKEND=tensorflow."
            )
        network = model.shared_encoder if encoder == "shared" else model.exclusive_encoder
        # In a closure, so that the variables are saved, and Keras' own objects are not.
        self._run_network = lambda images, training: network(images, training=training)
        self._gain = 2.0 / np.array(model.config.band_max, np.float32)
        self.variables = [variable.value for variable in network.variables]
        self.trainable_variables = [variable.value for variable in network.trainable_variables]
        self.regularization_losses: list[Any] = []
        spec = tf.TensorSpec((None, *model.config.image_shape), tf.float32, name="inputs")
        for training in (False, True):
            self.__call__.get_concrete_function(spec, training=training)
            if encoder == "shared":
                self.spatial.get_concrete_function(spec, training=training)

    @tf.function(autograph=False)
    def __call__(self, inputs: Tensor, training: bool = False) -> Tensor:
        """`(batch, num_features)`: the flattened grid, or the mean of the exclusive posterior."""
        output = self._encode(inputs, training)
        if isinstance(output, list | tuple):
            return output[0]
        return tf.reshape(output, (tf.shape(output)[0], output.shape[1:].num_elements()))

    @tf.function(autograph=False)
    def spatial(self, inputs: Tensor, training: bool = False) -> Tensor:
        """`(batch, 4, 4, channels)`: the shared representation on its grid."""
        return self._encode(inputs, training)

    def _encode(self, inputs: Tensor, training: bool) -> Tensor:
        check = tf.debugging.assert_less_equal(
            tf.reduce_max(inputs),
            _LARGEST_INPUT,
            "Expected finite reflectance, about 0 to 1. Received NaN or larger values: divide "
            "digital numbers by 10000 (after adding the product's offset).",
        )
        with tf.control_dependencies([check]):
            images = tf.clip_by_value(inputs * self._gain - 1.0, -1.0, 1.0)
        output = self._run_network(images, training)
        # Under a mixed dtype policy the networks compute in another one.
        return tf.nest.map_structure(lambda one: tf.cast(one, tf.float32), output)


class HubEncoder:
    """An encoder that takes reflectance: of a hub module, or of a model in memory.

    Attributes:
        preset: what `preset.json` says: bands, input range, number of features, and more.
        bands: band names, in the order of the last axis.
        num_features: length of a feature vector.
        module: what `tf.saved_model.load` gave, or an `EncoderModule`.
    """

    def __init__(self, module: Any, preset: dict[str, Any]):
        self.module = module
        self.preset = preset
        self.bands: tuple[str, ...] = tuple(preset["bands"])
        self.num_features: int = preset["num_features"]

    def __call__(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: `(batch, 64, 64, bands)` reflectance.
        Returns:
            `(batch, num_features)` float32.
        Raises:
            ConfigError: the images have another shape.
        """
        return self.module(self._check(images))

    def spatial(self, images: Tensor) -> Tensor:
        """The shared representation on its grid, `(batch, 4, 4, channels)`; as `__call__` else.

        Raises:
            ConfigError: the module is of the exclusive encoder, which has none.
        """
        if self.preset["encoder"] != "shared":
            raise ConfigError("The exclusive representation has no grid; call the module instead.")
        return self.module.spatial(self._check(images))

    def _check(self, images: Tensor) -> Tensor:
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        expected = (IMAGE_SIZE, IMAGE_SIZE, len(self.bands))
        if tuple(images.shape[1:]) != expected:
            raise ConfigError(
                f"Expected images of shape (batch, {', '.join(map(str, expected))}), bands "
                f"{', '.join(self.bands)}. Received: {tuple(images.shape)}."
            )
        return images


def export(
    model: DisentangledSITS,
    path: Path | str,
    encoder: Literal["shared", "exclusive"] = "shared",
    *,
    license_id: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes an encoder as a hub module, whole or not at all.

    Beside the SavedModel lie `preset.json`, `model_card.md` and a STAC-MLM `item.json`.

    Args:
        model: whose encoder it is.
        path: the module's folder.
        encoder: which one.
        license_id: SPDX identifier of the weights' licence, for the card and the item.
        overwrite: replace a module that is there.
    Returns:
        The module's folder.
    Raises:
        ConfigError: there is no such encoder.
        ExistsError: `path` is there already, or, with `overwrite`, is no hub module.
    """
    _check_name(encoder)
    path = Path(path)
    if path.exists() and not (overwrite and _is_module(path)):
        raise ExistsError(
            f"{path} is there already. Name another folder"
            + (": it holds no hub module." if overwrite else ", or pass overwrite (--overwrite).")
        )
    module = EncoderModule(model, encoder)
    spec = tf.TensorSpec((None, *model.config.image_shape), tf.float32, name="inputs")
    preset = make_preset(model, encoder, path.resolve().name, license_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        serving = tf.function(lambda inputs: {"features": module(inputs)}, input_signature=[spec])
        tf.saved_model.save(module, str(aside), signatures={"serving_default": serving})
        write_json(aside / PRESET_NAME, preset)
        write_json(aside / ITEM_NAME, make_stac_item(preset))
        (aside / CARD_NAME).write_text(render_card(preset), encoding="utf-8")
    return path


def wrap(model: DisentangledSITS, encoder: Literal["shared", "exclusive"] = "shared") -> HubEncoder:
    """The encoder that `export` and `load` would give, without the files between them.

    It shares its weights with the model.

    Raises:
        ConfigError: there is no such encoder.
    """
    _check_name(encoder)
    return HubEncoder(
        EncoderModule(model, encoder), make_preset(model, encoder, f"{encoder}_encoder", None)
    )


def load(path: Path | str) -> HubEncoder:
    """Loads an encoder that `export` wrote.

    Raises:
        MissingError: no module there.
        DataError: the module is damaged or of another format.
    """
    path = Path(path)
    file = path / PRESET_NAME
    if not file.is_file():
        raise MissingError(
            f"No hub module at {path}: it has no {PRESET_NAME}. Make one with `sits-keras export`."
        )
    preset = read_preset(path)
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # of many kinds, by which file is damaged and where
        cause = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be loaded: {cause}. Export it again.") from error
    return HubEncoder(module, preset)


def _check_name(encoder: str) -> None:
    if encoder not in ("shared", "exclusive"):
        raise ConfigError(f"encoder must be 'shared' or 'exclusive'. Received: {encoder!r}.")


def _is_module(path: Path) -> bool:
    try:
        read_preset(path)
    except (OSError, DataError):
        return False
    return True


def read_preset(path: Path | str) -> dict[str, Any]:
    """What a hub module's `preset.json` says.

    Raises:
        DataError: it is damaged or of another format.
    """
    file = Path(path) / PRESET_NAME
    remedy = "Export the module again."
    preset = read_json(file, remedy)
    if (preset.get("format"), preset.get("version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"{file} is of format {preset.get('format')!r}, version {preset.get('version')!r}. "
            f"Expected {FORMAT!r}, version {FORMAT_VERSION}. {remedy}"
        )
    return preset
