"""Hub modules: encoders as TF-Hub Reusable SavedModels (section 4.4).

`export` writes one, `load` reads it, `wrap` gives the same from a model in memory. A module takes
reflectance, scales it to the network's range itself, and runs without this package.
"""

import functools
from pathlib import Path
from typing import Any, Literal

from sits_keras.config import IMAGE_SIZE
from sits_keras.errors import ArgumentError, ConfigError, DataError, ExistsError, MissingError
from sits_keras.files import check_place, write_json, written_aside
from sits_keras.formats import (
    CONVERTED,
    HUB_MODULE,
    PRESET,
    PROJECTION_NAME,
    is_kind,
    read_format,
)
from sits_keras.hub.conversion import FileFormat, check_format, convert
from sits_keras.hub.dense import NOT_DENSE_REASON
from sits_keras.hub.metadata import (
    CARD_NAME,
    ITEM_NAME,
    make_metadata,
    make_stac_item,
    render_card,
)
from sits_keras.hub.module import EncoderModule, apply
from sits_keras.hub.projection import (
    Projection,
    read_projection,
    write_projection,
)
from sits_keras.model import DisentangledSITS
from sits_keras.tensorflow_import import tf

Tensor = Any


class HubEncoder:
    """Encoder that takes reflectance: of a hub module, or of a model in memory.

    It can be pickled: as the path of its module, which is loaded again, or as its model.

    Attributes:
        metadata: Content of `module.json`: bands, input range, number of features, and more.
        bands: Names of the bands, in the order of the last axis.
        num_features: Length of a feature vector.
        num_flattened: Length of the flattened grid; for the exclusive encoder, `num_features`.
        context_margin: Pixels of context that the features of a window depend on, before (above,
            left) and after (below, right); `(0, 0)` for an encoder that pads with zeros.
        dense_strides: Strides that `dense` supports, with their multiples; empty if none.
        not_dense_reason: Reason why there are none, as the end of a sentence; else empty.
        module: What `tf.saved_model.load` returned, or an `EncoderModule`.
        network: Network of a wrapped model, whose weights it shares; None for a loaded module.
        projection: Projection of its layers to few numbers; None if it has none.
        layer_functions: Functions of layers that were traced: of `sits_keras.hub.layers`, by
            numbers of layers, and of `sits_keras.tasks.retrieval.distances`, "locations". They are
            not pickled.
    """

    def __init__(
        self,
        module: Any,
        metadata: dict[str, Any],
        made_by: tuple[Any, ...],
        network: Any = None,
        projection: Projection | None = None,
    ):
        self._made_by = made_by  # a function, and its arguments
        self.network = network
        self.projection = projection
        self.layer_functions: dict[tuple[int, ...] | str, Any] = {}
        self.module = module
        self.metadata = metadata
        self.bands: tuple[str, ...] = tuple(metadata["bands"])
        self.num_features: int = metadata.get("num_pooled") or metadata["num_features"]
        # In modules of earlier versions, the flattened grid is the default function.
        self._is_flattened_by_default = not metadata.get("num_flattened")
        self.num_flattened: int = metadata.get("num_flattened") or metadata["num_features"]
        before, after = metadata.get("context_margin", (0, 0))  # modules of old pad with zeros
        self.context_margin: tuple[int, int] = (before, after)
        self.dense_strides: tuple[int, ...] = tuple(metadata.get("dense_strides", ()))
        self.not_dense_reason = "" if self.dense_strides else NOT_DENSE_REASON

    def __reduce__(self) -> tuple[Any, ...]:
        function, *arguments = self._made_by
        return function, tuple(arguments)

    def __call__(self, images: Tensor) -> Tensor:
        """Return a feature vector for each image.

        The shared encoder returns statistics of its layers: mean, standard deviation and texture of
        each channel (`sits_keras.hub.pooling`), the best features for classifiers. The exclusive
        encoder returns the mean of the posterior.

        Args:
            images: Reflectance, `(batch, 64, 64, bands)`, or with the context of `context_margin`
                around each window. Without it, an encoder that uses context reflects the image.

        Returns:
            `(batch, num_features)` float32.

        Raises:
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance: above 10, -1 or less, or NaN.
        """
        if self._is_flattened_by_default and self.metadata.get("num_pooled"):
            return self.pooled(images)
        return self._call_either(images, "__call__", "with_context")

    def flattened(self, images: Tensor) -> Tensor:
        """Return the shared representation as a vector, as in section 4.4.

        Retrieval, segmentation and embedding use it.

        Args:
            images: Reflectance, as in `__call__`.

        Returns:
            `(batch, num_flattened)` float32; for the exclusive encoder, the same as `__call__`.

        Raises:
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance.
        """
        if self._is_flattened_by_default:
            return self._call_either(images, "__call__", "with_context")
        return self._call_either(images, "flattened", "flattened_with_context")

    def spatial(self, images: Tensor) -> Tensor:
        """Return the shared representation on its grid.

        Args:
            images: Reflectance, as in `__call__`.

        Returns:
            `(batch, 4, 4, channels)` float32.

        Raises:
            ConfigError: This is the exclusive encoder, whose representation has no grid.
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance.
        """
        if self.metadata["encoder"] != "shared":
            raise ConfigError(
                "The exclusive representation has no grid. Expected the shared encoder. Received: "
                "the exclusive encoder. Call the encoder itself instead."
            )
        return tf.reshape(self.flattened(images), (-1, *self.metadata["grid"]))

    def pooled(self, images: Tensor) -> Tensor:
        """Return the same as a call of the shared encoder, without context.

        It is the only function for the pooled vector in modules of earlier versions.

        Args:
            images: Reflectance, `(batch, 64, 64, bands)`.

        Returns:
            `(batch, num_pooled)` float32; `num_pooled` is in `metadata`.

        Raises:
            ConfigError: The module has no such function, because it contains the exclusive encoder
                or was exported by an earlier version.
            ArgumentError: Images have another shape.
            DataError: Values are not reflectance.
        """
        if not self.metadata.get("num_pooled"):
            raise ConfigError(
                "The module has no pooled features: it contains the exclusive encoder, or was "
                "exported by an earlier version. Export the shared encoder again."
            )
        return apply(self.module.pooled, self._check(images, {IMAGE_SIZE}))

    def dense(self, images: Tensor, stride: int) -> Tensor:
        """Return the flattened grids of all windows of images (`sits_keras.hub.dense`).

        Layers are computed once where windows overlap.

        Args:
            images: Reflectance, `(batch, height, width, bands)`. The outermost `context_margin`
                pixels are context only: the first window begins at pixel `context_margin[0]` of
                both axes.
            stride: Pixels from one window to the next, a multiple of one of `dense_strides`.

        Returns:
            `(batch, rows, cols, num_flattened)` float32, the output of `flattened` for each window
            with its context; rows is `(height - sum(context_margin) - 64) // stride + 1`.

        Raises:
            ConfigError: The encoder has no dense function.
            ArgumentError: The stride is not supported, or images have another shape.
            DataError: Values are not reflectance.
        """
        if not self.dense_strides:
            raise ConfigError(f"The encoder cannot encode densely: {self.not_dense_reason}.")
        finer = [s for s in self.dense_strides if stride > 0 and stride % s == 0]
        if not finer:
            raise ArgumentError(
                "Dense encoding takes strides that are multiples of "
                f"{min(self.dense_strides)} px. Received: {stride}."
            )
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        smallest = IMAGE_SIZE + sum(self.context_margin)
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[3] != len(self.bands) or min(shape[1:3]) < smallest:
            raise ArgumentError(
                f"Expected images of shape (batch, height, width, {len(self.bands)}), of at least "
                f"{smallest} x {smallest} px, bands {', '.join(self.bands)}. Received: {shape}."
            )
        step = stride // max(finer)
        return apply(getattr(self.module, f"dense_{max(finer)}"), images)[:, ::step, ::step]

    def _call_either(self, images: Tensor, alone: str, with_context: str) -> Tensor:
        """Call the function of the module for windows alone or the one for windows with context."""
        images = self._check(images, {IMAGE_SIZE, IMAGE_SIZE + sum(self.context_margin)})
        name = alone if images.shape[1] == IMAGE_SIZE else with_context
        return apply(getattr(self.module, name), images)

    def _check(self, images: Tensor, sizes: set[int]) -> Tensor:
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        expected = [(size, size, len(self.bands)) for size in sorted(sizes)]
        if tuple(images.shape[1:]) not in expected:
            shapes = " or ".join(f"(batch, {', '.join(map(str, shape))})" for shape in expected)
            raise ArgumentError(
                f"Expected images of shape {shapes}, bands {', '.join(self.bands)}. "
                f"Received: {tuple(images.shape)}."
            )
        return images


def export(
    model: DisentangledSITS,
    path: Path | str,
    encoder: Literal["shared", "exclusive"] = "shared",
    *,
    name: str | None = None,
    license_id: str | None = None,
    overwrite: bool = False,
    file_format: FileFormat = "savedmodel",
    stride: int = 8,
    projection: Projection | None = None,
) -> Path:
    """Write an encoder as a hub module, or as ONNX or LiteRT files.

    The folder of a hub module contains a SavedModel, `module.json`, a card (`README.md`) and a
    STAC-MLM `item.json`. That of other formats contains a file for windows, a file for whole
    rasters if the encoder supports them, `encoder.json` and a card. If writing fails, nothing is
    left behind.

    Args:
        model: Model whose encoder is written.
        path: Folder of the module.
        encoder: Encoder to write.
        name: Name of the module in the card and the item; that of the folder by default.
        license_id: SPDX identifier of the weights' licence, for the card and the item.
        overwrite: Overwrite an existing module, or encoder in another format.
        file_format: `"savedmodel"` for a hub module, `"onnx"` (needs tf2onnx) or `"litert"`.
        stride: Distance in pixels between the windows of rasters in ONNX and LiteRT files, 4, 8, 16
            or 32. A hub module has a function for each.
        projection: Projection of the shared encoder's layers, for a hub module.

    Returns:
        The folder.

    Raises:
        ConfigError: There is no such encoder, format or stride.
        MissingError: tf2onnx is not installed.
        ExistsError: `path` exists and, with `overwrite`, is not an exported encoder.
        OutputError: `path` cannot be written.

    Examples:
        >>> import tempfile
        >>> import sits_keras
        >>> model = sits_keras.DisentangledSITS(sits_keras.ModelConfig(width=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = sits_keras.hub.export(model, f"{folder}/encoder", "shared")
        ...     encoder = sits_keras.hub.load(path)
        >>> encoder.bands
        ('B02', 'B03', 'B04', 'B08')
    """
    _check_name(encoder)
    check_format(file_format, model.config.padding, stride)
    path = Path(path)
    if path.exists() and not (overwrite and is_kind(path, "hub module", "converted encoder")):
        raise ExistsError(
            f"{path} already exists. Name another folder"
            + (": it is not a hub module." if overwrite else ", or pass overwrite (--overwrite).")
        )
    check_place(path)
    module = EncoderModule(model, encoder)
    spec = tf.TensorSpec((None, *model.config.image_shape), tf.float32, name="inputs")
    metadata = make_metadata(model, encoder, name or path.resolve().name, license_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        if file_format != "savedmodel":
            aside.mkdir()
            files = convert(module, metadata, aside, file_format, stride)
            described = {"format": CONVERTED.name, "version": CONVERTED.version}
            metadata |= {**described, "file_format": file_format, "files": files}
            write_json(aside / CONVERTED.file, metadata)
            card = render_card(metadata, "converted.md")
            (aside / CARD_NAME).write_text(card, encoding="utf-8")
            return path
        serving = tf.function(lambda inputs: {"features": module(inputs)}, input_signature=[spec])
        tf.saved_model.save(module, str(aside), signatures={"serving_default": serving})
        write_json(aside / HUB_MODULE.file, metadata)
        if projection is not None:
            write_projection(aside / PROJECTION_NAME, projection)
        write_card(aside)
    return path


def write_card(path: Path) -> None:
    """Write the `README.md` and the STAC item of a hub module, from its `module.json`.

    Args:
        path: Folder of the module. Existing files are overwritten.

    Raises:
        DataError: `module.json` is damaged or of a version that is not supported.
    """
    metadata = read_metadata(path)
    write_json(path / ITEM_NAME, make_stac_item(metadata))
    (path / CARD_NAME).write_text(render_card(metadata), encoding="utf-8")


def wrap(
    model: DisentangledSITS,
    encoder: Literal["shared", "exclusive"] = "shared",
    *,
    name: str | None = None,
    license_id: str | None = None,
    projection: Projection | None = None,
) -> HubEncoder:
    """Make an encoder of a model in memory, as `export` and `load` would return it.

    Args:
        model: Model, whose weights are shared.
        encoder: Encoder to wrap.
        name: Name in the metadata; `shared_encoder` or `exclusive_encoder` by default.
        license_id: SPDX identifier of the weights' licence.
        projection: Projection of the encoder's layers.

    Returns:
        The encoder, which takes reflectance as a loaded module does.

    Raises:
        ConfigError: There is no such encoder.
    """
    _check_name(encoder)
    return HubEncoder(
        EncoderModule(model, encoder),
        make_metadata(model, encoder, name or f"{encoder}_encoder", license_id),
        (
            functools.partial(wrap, name=name, license_id=license_id, projection=projection),
            model,
            encoder,
        ),
        model.shared_encoder if encoder == "shared" else model.exclusive_encoder,
        projection,
    )


def load(path: Path | str) -> HubEncoder:
    """Load a hub module that `export` wrote.

    Args:
        path: Folder of the module.

    Returns:
        The encoder, which takes `(batch, 64, 64, bands)` reflectance.

    Raises:
        MissingError: There is no module at `path`.
        DataError: The module is damaged or of a version that is not supported, or is a preset.
    """
    path = Path(path)
    if not (path / HUB_MODULE.file).is_file():
        if is_kind(path, "preset"):
            raise DataError(
                f"{path} is a preset, which contains several modules. Load one of them with "
                f"sits_keras.from_preset({str(path)!r}, 'shared')."
            )
        if (path / PRESET.file).is_file():
            read_format(path, PRESET)  # says what it is, and what to do
        raise MissingError(
            f"No hub module at {path}: it has no {HUB_MODULE.file}. Export one with `sits-keras "
            f"export`. To load a preset by name, call sits_keras.from_preset({str(path)!r}, "
            "'shared')."
        )
    metadata = read_metadata(path)
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # of many kinds, by which file is damaged and where
        cause = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path} cannot be loaded: {cause}. {HUB_MODULE.remedy}") from error
    file = path / PROJECTION_NAME
    projection = read_projection(file) if file.is_file() else None
    return HubEncoder(module, metadata, (load, path.absolute()), projection=projection)


def _check_name(encoder: str) -> None:
    if encoder not in ("shared", "exclusive"):
        raise ConfigError(f"encoder must be 'shared' or 'exclusive'. Received: {encoder!r}.")


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Read the `module.json` of a hub module.

    Args:
        path: Folder of the module.

    Returns:
        The file's content, see `sits_keras.hub.metadata.make_metadata`.

    Raises:
        DataError: The file is damaged or of a version that is not supported.
    """
    return read_format(Path(path), HUB_MODULE)
