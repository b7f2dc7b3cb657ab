import pickle

import numpy as np
import pytest

from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.data.rasters.rows import ArrayStrips
from sits_keras.data.tiling import Window
from sits_keras.errors import ArgumentError, ConfigError, DataError
from sits_keras.model import DisentangledSITS
from sits_keras.tasks import windows
from sits_keras.tasks.retrieval.distances import (
    LocationEncoder,
    comparison_of,
    distances_to,
    location_distances,
)
from sits_keras.tasks.retrieval.search import find_windows
from sits_keras.tasks.retrieval.table_2 import measure_recall
from sits_keras.tasks.windows import encode_at, iterate_windows, raw_pixels

NUM_GRID = 48  # 4 x 4 cells of 3 channels
CHANNELS = (4, 8)  # of layers 2 and 3


def build(padding):
    config = ModelConfig(width=2, shared_channels=3, exclusive_dim=5, padding=padding)
    model = DisentangledSITS(config)
    rng = np.random.default_rng(0)
    for variable in model.shared_encoder.variables:
        variable.assign(variable + rng.uniform(0.01, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def models():
    return {padding: build(padding) for padding in ("context", "zeros")}


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(1)
    coarse = rng.integers(1, 3000, (26, 34, 4)).repeat(4, 0).repeat(4, 1)
    return (coarse + rng.integers(0, 300, coarse.shape)).astype(np.uint16)


def encode_all(encoder, image, stride, mode):
    rows = iterate_windows(encoder, ArrayStrips(image, None), stride, mode=mode)
    return np.stack([row.features for row in rows])


@pytest.mark.parametrize("padding", ["context", "zeros"])
def test_location_encoder_returns_grid_and_normalised_activations(models, image, padding):
    model = models[padding]
    shared = hub.wrap(model)
    encoder = LocationEncoder(shared)
    window = image[None, :64, :64] / np.float32(10_000)
    features = encoder(window)
    assert features.shape == (1, encoder.num_flattened) == (1, NUM_GRID + 64 * sum(CHANNELS))
    np.testing.assert_allclose(features[:, :NUM_GRID], shared.flattened(window), atol=1e-5)
    for channel in features[0, NUM_GRID:].reshape(-1, 64):
        assert channel.mean() == pytest.approx(0, abs=1e-4)
        assert 0.5 < channel.std() < 1
    if padding == "zeros":  # whose activations are those of the window alone
        network = model.shared_encoder
        scaled = np.clip(window * 2 / np.array(model.config.band_max, np.float32) - 1, -1, 1)
        start = NUM_GRID
        for layer, step, num in ((2, 2, CHANNELS[0]), (3, 1, CHANNELS[1])):
            output = network.get_layer(f"shared_{layer}_activation").output
            cells = type(network)(network.input, output)(scaled).numpy()[0, ::step, ::step]
            for channel in np.moveaxis(cells, -1, 0):
                expected = (channel - channel.mean()) / (channel.std() + 1e-3)
                found = features[0, start : start + 64]
                np.testing.assert_allclose(found, expected.ravel(), atol=1e-3)
                start += 64
            assert num == cells.shape[-1]
        assert start == features.shape[1]


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@pytest.mark.parametrize("tile_bytes", [2**28, 4 * 9 * (NUM_GRID + 64 * sum(CHANNELS))])
def test_location_encoder_dense_equals_exact(models, image, stride, tile_bytes, monkeypatch):
    monkeypatch.setattr(windows, "_BLOCK_BYTES", tile_bytes)  # the second: 3 x 3 windows
    encoder = LocationEncoder(hub.wrap(models["context"]))
    image = image[:90, :103]
    exact, dense = (encode_all(encoder, image, stride, mode) for mode in ("exact", "dense"))
    assert np.ptp(exact, axis=(0, 1)).min() > 0.01  # windows differ in every feature
    np.testing.assert_allclose(dense, exact, atol=1e-4)


def test_location_encoder_of_module_and_pickled_equal_that_of_model(models, image, tmp_path):
    window = image[None, :64, :64] / np.float32(10_000)
    expected = LocationEncoder(hub.wrap(models["context"]))(window)
    module = hub.load(hub.export(models["context"], tmp_path / "module"))
    encoder = LocationEncoder(module)
    for one in (encoder, LocationEncoder(module), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_allclose(one(window), expected, atol=1e-4)


def test_location_encoder_invalid_images_are_refused(models):
    encoder = LocationEncoder(hub.wrap(models["zeros"]))
    with pytest.raises(ArgumentError, match=r"Expected images of shape \(batch, 64, 64, 4\)"):
        encoder(np.zeros((1, 60, 64, 4), np.float32))
    with pytest.raises(DataError, match="Divide digital numbers by 10,000"):
        encoder(np.full((1, 64, 64, 4), 255, np.float32))
    with pytest.raises(ConfigError, match="does not support dense mode"):
        measure_recall(hub.wrap(models["zeros"]), [np.ones((2, 64, 64, 4))], mode="dense")


def test_location_distances_match_hand_values():
    pattern = np.repeat([1.0, -1.0], 32)  # of deviation 1
    other = np.tile([1.0, -1.0], 32)  # not correlated with it

    def features(grid, *channels):
        return np.concatenate([grid, *channels]).astype(np.float32)

    # A grid of two numbers, one channel of layer 2, two channels of layer 3.
    query = features([1, 2], pattern, pattern, other)
    found = np.stack(
        [
            query,
            features([2, 4], pattern, pattern, other),
            features([1, 2], other, pattern, other),
            features([1, 2], pattern, pattern, pattern),
            features([1, 2], -pattern, -pattern, -other),
            features([1, 2], pattern, 0.5 * pattern, 0 * other),
        ]
    )
    distances = location_distances(np.stack([query, found[1]]), found, num_grid=2)
    expected = np.array([0, 1.5, 1, 0.5, 0, 0.75])
    np.testing.assert_allclose(distances[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(distances[:, 1], [1.5, 0, 2.5, 2, 1.5, 2.25], atol=1e-6)


def test_location_distances_non_finite_features_are_refused():
    features = np.zeros((2, 2 + 64 * 3), np.float32)
    for index in (0, 100):
        wrong = features.copy()
        wrong[1, index] = np.nan
        with pytest.raises(DataError, match="NaN or infinite"):
            location_distances(features, wrong, num_grid=2)


def test_location_distances_ignore_inverted_contrast():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 2 + 64 * 3)).astype(np.float32)
    inverted = other.copy()
    inverted[:, 2:] *= -1
    np.testing.assert_array_equal(
        location_distances(one, other, num_grid=2), location_distances(one, inverted, num_grid=2)
    )


def test_find_windows_compares_layers_by_default_and_grid_on_request(models, image):
    encoder = hub.wrap(models["context"])
    strips, query = ArrayStrips(image, None), Window(20, 40, 64, 64)

    def find(method, mode=None):
        (found,) = find_windows(encoder, strips, [query], strips, method=method, mode=mode)
        return found.window, found.distance

    assert find(None) == find("layers") != find("grid")
    assert find(None, "exact") == (query, pytest.approx(find(None)[1], abs=1e-4))
    assert find("grid") == (query, pytest.approx(0, abs=1e-3))
    locations = LocationEncoder(encoder)
    (own,) = encode_at(locations, strips, [query])
    expected = location_distances(own[None], own[None], num_grid=NUM_GRID).item()
    assert find("layers") == (query, pytest.approx(expected, abs=1e-4))


def test_measure_recall_method_is_the_distance(models, image):
    encoder = hub.wrap(models["zeros"])  # a plain function of it sees the same windows
    other = (image[::-1, ::-1] // 2 + 100).astype(np.uint16)
    series = [np.stack([image[:96, :96], other[:96, :96]])]
    default, layers, grid, plain = (
        measure_recall(one, series, num_queries=8, stride=8, method=method)
        for one, method in (
            (encoder, None),
            (encoder, "layers"),
            (encoder, "grid"),
            (encoder.flattened, None),
        )
    )
    assert default == layers != grid
    assert grid[:3] == plain[:3]


def test_comparison_of_encoder_without_layers_is_refused(models):
    exclusive = hub.wrap(models["zeros"], "exclusive")
    for encoder, received in ((raw_pixels, "a function"), (exclusive, "an exclusive encoder")):
        assert comparison_of(encoder, None) == (encoder, distances_to)
        assert comparison_of(encoder, "grid") == (encoder, distances_to)
        with pytest.raises(ConfigError, match=rf"has no layers to compare\. .*{received}"):
            comparison_of(encoder, "layers")
    with pytest.raises(ConfigError, match=r"'layers', 'grid' or None\. Received: 'cosine'"):
        comparison_of(raw_pixels, "cosine")


def test_comparison_of_series_is_by_grid(models):
    shared = hub.wrap(models["zeros"])
    assert comparison_of(shared, None, has_series=True) == (shared, distances_to)
    with pytest.raises(ConfigError, match="averages over the dates of a series"):
        comparison_of(shared, "layers", has_series=True)
