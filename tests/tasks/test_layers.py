import numpy as np
import pytest

from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.data.rasters.rows import open_strips
from sits_keras.errors import ConfigError
from sits_keras.hub.layers import LayerEncoder
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.layers import BORDER, encode_pixels, iterate_tiles, open_layers

SHAPE = {"width": 2, "shared_channels": 3, "exclusive_dim": 5}


@pytest.fixture(scope="module")
def encoders() -> list[hub.HubEncoder]:
    model = DisentangledSITS(ModelConfig(**SHAPE, padding="context"))
    return [hub.wrap(model, name) for name in ("shared", "exclusive")]


def make_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(100, 4000, (height, width, 4)).astype(np.uint16)


@pytest.mark.parametrize("size", [(100, 75), (33, 64), (5, 3), (2, 90)])
def test_pixels_of_tiles_equal_those_of_the_whole(encoders, size):
    image = make_image(*size)
    whole = encode_pixels(encoders, image, (1, 2, 3, 4))
    tiled = encode_pixels(encoders, image, (1, 2, 3, 4), tile_side=16)
    assert whole.shape == (*size, 2 * (2 + 4 + 8 + 16))
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_pixels_at_the_centres_of_cells_have_their_activations(encoders):
    # Cells of the shared encoder are centred between pixels: the four around share the cell's
    # weight, so that the mean of a linear interpolation over them is its value.
    image = make_image(64, 64)
    (layers,) = open_layers(encoders[:1], (1,))
    (tile,) = iterate_tiles([layers], open_strips(image, layers.bands))
    ramp = np.arange(32 + 2 * BORDER)[:, None] + 10.0 * np.arange(32 + 2 * BORDER)
    pixels = tile.upsample(0, ramp)
    blocks = pixels.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(blocks, ramp[BORDER:-BORDER, BORDER:-BORDER], rtol=1e-6)
    assert pixels[1, 0] - pixels[0, 0] == pytest.approx(0.5)


def test_values_at_some_pixels_are_those_of_all(encoders):
    layers = open_layers(encoders, (1, 3))
    (tile,) = iterate_tiles(layers, open_strips(make_image(45, 70), layers[0].bands))
    rows, cols = np.array([0, 44, 20, 44]), np.array([0, 69, 33, 0])
    for index, cells in enumerate(tile.cells):
        whole = tile.upsample(index, cells)
        found = tile.at(index, cells, rows, cols)
        np.testing.assert_allclose(found, whole[rows, cols], rtol=0, atol=1e-6)


def test_pixels_without_data_are_nan_and_do_not_count_as_cells(encoders):
    image = make_image(32, 48)
    image[5, 7] = 0
    image[9, 9, 2] = 0  # missing in one band only
    pixels = encode_pixels(encoders, image, (1,))
    missing = np.isnan(pixels).all(axis=-1)
    assert np.argwhere(missing).tolist() == [[5, 7], [9, 9]]
    assert np.isfinite(pixels[~missing]).all()
    layers = open_layers(encoders, (1, 2))
    (tile,) = iterate_tiles(layers, open_strips(image, layers[0].bands))
    assert tile.inner(0, tile.cells[0]).shape == (16 * 24 - 2, 2)
    assert tile.inner(1, tile.cells[1]).shape == (8 * 12 - 2, 4)


def test_tile_without_data_has_cells_of_zero_and_the_others_have_their_own(encoders):
    image = make_image(32, 32)
    image[:16] = 0
    layers = open_layers(encoders, (1,))
    tiles = list(iterate_tiles(layers, open_strips(image, layers[0].bands), 16))
    assert [tile.window[:2] for tile in tiles] == [(0, 0), (0, 16), (16, 0), (16, 16)]
    assert not tiles[0].valid.any()
    assert not tiles[0].cells[0].any()
    assert tiles[0].cells[0].shape == tiles[2].cells[0].shape
    assert tiles[2].cells[0].any()


def test_reading_in_tiles_equals_one_call_with_a_margin(encoders):
    image = make_image(160, 160)
    layers = LayerEncoder(encoders[1], (2, 3))
    margin = layers.margin(BORDER)
    inner = image[margin:-margin, margin:-margin]
    expected = layers(image / np.float32(10_000), margin, BORDER)
    (tile,) = iterate_tiles([layers], open_strips(inner, layers.bands))
    for cells, whole, grid in zip(tile.cells, expected, layers.grids, strict=True):
        trim = BORDER + -(-max(grid.before, grid.after) // grid.stride)  # these see the reflection
        np.testing.assert_allclose(
            cells[trim:-trim, trim:-trim], whole[trim:-trim, trim:-trim], rtol=0, atol=1e-4
        )


def test_unusable_images_and_encoders_raise_an_error(encoders):
    layers = open_layers(encoders, (1,))
    image = open_strips(make_image(1, 50), layers[0].bands)
    with pytest.raises(ConfigError, match="at least 2 px"):
        next(iterate_tiles(layers, image))
    image = open_strips(make_image(20, 50), layers[0].bands)
    with pytest.raises(ConfigError, match="multiple of 16"):
        next(iterate_tiles(layers, image, 40))
    rgb = DisentangledSITS(ModelConfig(**SHAPE, padding="context", bands=("B04", "B03", "B02")))
    with pytest.raises(ConfigError, match="encoders of the same bands"):
        open_layers([encoders[0], hub.wrap(rgb)])
    with pytest.raises(ConfigError, match="no encoder"):
        open_layers([])
