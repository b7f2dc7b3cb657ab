import pickle
import threading

import numpy as np
import pytest
from fake_encoders import FilterEncoder

from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.tiling import Window, sliding_offsets
from sits_keras.errors import ConfigError, DataError
from sits_keras.tasks import windows
from sits_keras.tasks.windows import (
    encode_at,
    iterate_offsets,
    iterate_windows,
    raw_pixels,
)


def image_of(height=150, width=100, bands=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 5000, (height, width, bands)).astype(np.uint16)


def mean_and_corner(images):
    return np.stack([images.mean(axis=(1, 2, 3)), images[:, 0, 0, 0]], axis=1)


@pytest.fixture
def image():
    return image_of()


def crop_of(image, row, col, context_margin=(0, 0)):
    """A window with its context, `(1, side, side, bands)` reflectance."""
    before, after = context_margin
    whole = np.pad(image, ((before, after), (before, after), (0, 0)), mode="reflect")
    side = 64 + before + after
    return whole[None, row : row + side, col : col + side].astype(np.float32) / np.float32(10_000)


def expect(encoder, image, rows, cols, context_margin=(0, 0)):
    """Features of windows, each encoded alone; NaN where there is no data."""
    features = []
    for row in rows:
        for col in cols:
            (one,) = np.asarray(encoder(crop_of(image, row, col, context_margin)), np.float32)
            has_data = image[row : row + 64, col : col + 64, 0].any()
            features.append(one if has_data else one * np.nan)
    return np.array(features).reshape(len(rows), len(cols), -1)


def stacked(rows, name="features"):
    return np.stack([getattr(row, name) for row in rows])


# Exact


def test_raw_pixels_returns_flattened_window():
    images = np.arange(2 * 3 * 3 * 2).reshape(2, 3, 3, 2)
    features = raw_pixels(images)
    assert features.shape == (2, 18)
    np.testing.assert_array_equal(features[1], np.arange(18, 36))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("stride", [16, 50])
def test_iterate_windows_features_equal_those_of_single_windows(stride, batch_size, image):
    sizes = []

    def encoder(images):
        sizes.append(len(images))
        return mean_and_corner(images)

    rows = list(iterate_windows(encoder, open_strips(image), stride, batch_size=batch_size))
    assert max(sizes) <= batch_size
    tops, lefts = (sliding_offsets(length, 64, stride) for length in (150, 100))
    assert [row.row for row in rows] == tops
    assert all(row.cols.tolist() == lefts for row in rows)
    expected = expect(mean_and_corner, image, tops, lefts)
    np.testing.assert_array_equal(stacked(rows)[..., 1], expected[..., 1])
    np.testing.assert_allclose(stacked(rows), expected, rtol=1e-6)
    assert rows[0].features.dtype == np.float32
    assert rows[-1].row == 150 - 64  # shifted in
    for row in rows:
        np.testing.assert_array_equal(row.valid_fraction, 1)
        np.testing.assert_allclose(row.brightness, row.features[:, 0], rtol=1e-6)


def test_iterate_windows_image_of_window_size_has_one_window():
    (row,) = iterate_windows(raw_pixels, open_strips(image_of(64, 64)), 8)
    assert (row.row, row.cols.tolist()) == (0, [0])
    np.testing.assert_array_equal(row.features, raw_pixels(crop_of(image_of(64, 64), 0, 0)))


def test_iterate_windows_raster_equals_array(image, tmp_path):
    write_raster(tmp_path / "a.tif", image, ["x", "y"], Grid(150, 100, None, None))
    of_array = iterate_windows(raw_pixels, open_strips(image), 32)
    of_raster = iterate_windows(raw_pixels, open_strips(tmp_path / "a.tif"), 32)
    for one, other in zip(of_array, of_raster, strict=True):
        np.testing.assert_array_equal(one.features, other.features)


def test_iterate_windows_windows_without_data_are_not_encoded(image):
    image[:100] = 0
    image[100:, 50:] = 0

    def encoder(images):
        assert images.any(axis=(1, 2, 3)).all()
        return images.max(axis=(1, 2))

    rows = list(iterate_windows(encoder, open_strips(image), 36))
    # Rows 0, 36, 72 and 86; columns 0 and 36. Data is in rows 100 to 149, columns 0 to 49.
    shares = np.array([row.valid_fraction for row in rows])
    covered = np.array([0, 0, 36, 50])[:, None] * np.array([50, 14])
    np.testing.assert_allclose(shares, covered / 64**2, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(rows[1].features), True)
    assert np.isfinite(rows[2].features).all()
    # Brightness is of the pixels with data.
    np.testing.assert_allclose(rows[3].brightness[0], image[100:, :50].mean() / 10_000, rtol=1e-6)
    assert rows[0].brightness[0] == 0


def test_iterate_windows_image_without_data_gives_nan():
    (row,) = iterate_windows(mean_and_corner, open_strips(np.zeros((64, 80, 1), np.uint16)), 16)
    assert row.features.shape == (2, 2)
    assert np.isnan(row.features).all()


# Dense mode, and windows with context


def with_holes(image):
    """Without some pixels, so that a window at the upper left and all at the lower right lack."""
    image = image.copy()
    image[:70, :66] = 0
    image[-100:, -70:] = 0
    image[40:45, 75:] = 0
    return image


@pytest.mark.parametrize("mode", ["exact", "dense"])
@pytest.mark.parametrize("context_margin", [(0, 0), (3, 5), (31, 47)])
@pytest.mark.parametrize("size", [(64, 64), (64, 150), (150, 64), (139, 203)])
def test_iterate_windows_modes_include_context(size, context_margin, mode, monkeypatch):
    monkeypatch.setattr(windows, "TILE_SIDE", 32)
    image = with_holes(image_of(*size)) if min(size) > 64 else image_of(*size)
    encoder = FilterEncoder(context_margin)
    rows = list(iterate_windows(encoder, open_strips(image), 8, mode=mode))
    tops, lefts = (sliding_offsets(length, 64, 8) for length in size)
    expected = expect(encoder, image, tops, lefts, context_margin)
    np.testing.assert_array_equal(stacked(rows), expected)
    shares = [[(image[r : r + 64, c : c + 64, 0] > 0).mean() for c in lefts] for r in tops]
    np.testing.assert_array_equal(stacked(rows, "valid_fraction"), np.float32(shares))
    if min(size) > 64:
        assert np.isnan(expected).any()


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_iterate_windows_context_may_exceed_image(mode):
    image = image_of(70, 64)
    encoder = FilterEncoder((80, 150))
    rows = list(iterate_windows(encoder, open_strips(image), 8, mode=mode))
    np.testing.assert_array_equal(
        stacked(rows), expect(encoder, image, [0, 6], [0], encoder.context_margin)
    )


def test_iterate_windows_is_independent_of_blocks(monkeypatch):
    image = with_holes(image_of(203, 267))
    encoder = FilterEncoder()
    found = []
    for side, num_bytes in ((512, 2**28), (8, 2**28), (24, 2**28), (96, 1), (104, 1000)):
        monkeypatch.setattr(windows, "TILE_SIDE", side)
        monkeypatch.setattr(windows, "_BLOCK_BYTES", num_bytes)
        for mode in ("exact", "dense"):
            found.append(list(iterate_windows(encoder, open_strips(image), 8, mode=mode)))
    for other in found[1:]:
        for name in ("features", "valid_fraction", "brightness"):
            np.testing.assert_array_equal(stacked(other, name), stacked(found[0], name))


def test_iterate_windows_shifted_windows_are_encoded_densely():
    image = image_of(200, 180)
    encoder = FilterEncoder()
    rows, cols = [0, 4, 12, 20, 60, 68, 136], [3, 11, 40, 116]
    found = list(iterate_offsets(encoder, open_strips(image), rows, cols, 8, mode="dense"))
    np.testing.assert_array_equal(
        stacked(found), expect(encoder, image, rows, cols, encoder.context_margin)
    )
    # Rows 0; 4, 12, 20; 60, 68; 136 and columns 3, 11; 40; 116: as many tiles, of so many windows.
    assert sorted(encoder.sizes[:12]) == sorted(r * c for r in (1, 3, 2, 1) for c in (2, 1, 1))


def test_iterate_windows_tiles_without_data_are_not_encoded(monkeypatch):
    monkeypatch.setattr(windows, "TILE_SIDE", 8)
    image = image_of(64, 144)
    image[:, :72] = 0
    encoder = FilterEncoder()
    (row,) = iterate_windows(encoder, open_strips(image), 8, mode="dense")
    assert np.isnan(row.features[:, 0]).tolist() == [True] * 2 + [False] * 9
    assert encoder.sizes == [1] * 9


@pytest.fixture(scope="module")
def shared():
    """The shared encoder of a small model in memory, which has cells."""
    from sits_keras import DisentangledSITS, ModelConfig, hub

    return hub.wrap(DisentangledSITS(ModelConfig(width=2, padding="context"), seed=0))


@pytest.mark.parametrize("stride", [4, 8, 16, 24, 32, 48])
def test_iterate_windows_cells_give_the_grids_of_dense(monkeypatch, shared, stride):
    monkeypatch.setattr(windows, "TILE_SIDE", 96)  # several tiles, the last ones smaller
    image = image_of(200, 260, bands=4)
    image[:140, :80] = 0  # a tile without data, and windows without data in others
    other = image_of(200, 260, bands=4, seed=1)
    strips = [open_strips(image), open_strips(other)]

    def distance(one, two):
        return np.abs(one - two).mean(axis=1)

    found = []
    for has_cells in (True, False):
        monkeypatch.setattr(windows, "has_cells", lambda encoder, value=has_cells: value)
        rows = list(iterate_windows(shared, strips[0], stride, mode="dense"))
        pairs = list(iterate_windows(shared, strips, stride, reduce=distance, mode="dense"))
        found.append((rows, pairs))
    for cells, dense in zip(*found, strict=True):
        assert np.isnan(stacked(cells)).any()
        np.testing.assert_allclose(stacked(cells), stacked(dense), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(
            stacked(cells, "valid_fraction"), stacked(dense, "valid_fraction")
        )


def test_iterate_windows_cells_of_an_image_without_data(shared):
    strips = open_strips(np.zeros((80, 72, 4), np.uint16))
    rows = list(iterate_windows(shared, strips, 8, mode="dense"))
    assert stacked(rows).shape == (3, 2, shared.num_flattened)
    assert np.isnan(stacked(rows)).all()


def test_grid_rows_of_another_process_are_the_same(shared):
    strips = open_strips(image_of(120, 130, bands=4))
    layout = windows.WindowLayout((0, 8, 16), 8, is_dense=True, batch_size=1)
    values, *_ = windows.read_and_encode(shared, layout, None, [strips], [0, 8])
    copied = pickle.loads(pickle.dumps(values))
    for row in range(2):
        np.testing.assert_array_equal(copied[row], values[row])
    assert len(pickle.dumps(values)) < 2 * values[0].nbytes


def test_is_dense_by_default_if_supported(image):
    encoder = FilterEncoder()
    for stride, mode, num_calls in ((8, None, 4), (8, "exact", 2), (20, None, 1)):
        encoder.sizes.clear()
        list(iterate_windows(encoder, open_strips(image), stride, mode=mode))
        # 12 x 6 windows at a stride of 8: a tile, two strips and a corner; or a batch and its rest.
        assert len(encoder.sizes) == num_calls


def test_is_dense_unsupported_encoder_is_refused(image):
    strips = open_strips(image)
    with pytest.raises(ConfigError, match="dense mode: it is a plain function of windows"):
        next(iterate_windows(raw_pixels, strips, 8, mode="dense"))
    encoder = FilterEncoder(dense_strides=())
    encoder.not_dense_reason = "it pads with zeros"
    with pytest.raises(ConfigError, match=r"dense mode: it pads with zeros\. Use exact mode"):
        next(iterate_windows(encoder, strips, 8, mode="dense"))
    with pytest.raises(ConfigError, match=r"a stride that is a multiple of 8 px\. Received: 12"):
        next(iterate_windows(FilterEncoder(), strips, 12, mode="dense"))
    with pytest.raises(ConfigError, match=r"must be 'exact', 'dense' or None\. Received: 'fast'"):
        next(iterate_windows(raw_pixels, strips, 8, mode="fast"))


# What is kept of windows


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_iterate_windows_reduce_is_applied_per_batch(mode):
    image = with_holes(image_of(139, 203))
    encoder = FilterEncoder()

    def largest(features):
        assert features.shape[1:] == (3,)
        return features.argmax(axis=1) + 1

    rows = list(iterate_windows(encoder, open_strips(image), 32, reduce=largest, mode=mode))
    features = stacked(iterate_windows(encoder, open_strips(image), 32))
    empty = np.isnan(features[..., 0])
    assert empty.any()
    expected = np.where(empty, 0, np.nan_to_num(features).argmax(axis=-1) + 1)
    np.testing.assert_array_equal(stacked(rows), expected)
    assert rows[0].features.dtype == expected.dtype


@pytest.mark.parametrize("mode", ["exact", "dense"])
def test_iterate_windows_several_images_are_reduced_together(mode):
    encoder = FilterEncoder()
    images = [image_of(100, 130, seed=seed) for seed in (0, 1)]
    strips = [open_strips(one) for one in images]
    rows = list(iterate_windows(encoder, strips, 8, reduce=np.subtract, mode=mode))
    one, other = (stacked(iterate_windows(encoder, open_strips(image), 8)) for image in images)
    np.testing.assert_array_equal(stacked(rows), one - other)


# One by one


def test_encode_at_encodes_windows_in_any_order(image):
    places = [Window(row, col, 64, 64) for row, col in ((86, 36), (0, 0), (40, 7), (0, 0))]
    encoder = FilterEncoder((31, 47))
    found = encode_at(encoder, open_strips(image), places, batch_size=3)
    expected = [
        expect(encoder, image, [w.row], [w.col], encoder.context_margin)[0, 0] for w in places
    ]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        encode_at(raw_pixels, open_strips(image), places[:1]), raw_pixels(crop_of(image, 86, 36))
    )


# Reading


class Spy:
    """Strips that tell what is read of them."""

    def __init__(self, strips, on_read):
        self.name, self.grid, self.bands = strips.name, strips.grid, strips.bands
        self.strips, self.on_read = strips, on_read

    def read(self, row, num_rows):
        self.on_read(row, num_rows)
        return self.strips.read(row, num_rows)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(windows, "TILE_SIDE", 32)


def test_iterate_windows_reads_only_current_rows(image, small_blocks):
    asked = []
    spy = Spy(open_strips(image), lambda *rows: asked.append(rows))
    list(iterate_windows(mean_and_corner, spy, 16))
    # Two rows of windows at a time, of 0, 16, 32, 48, 64, 80 and 86.
    assert asked == [(0, 64), (16, 80), (48, 80), (80, 70)]
    asked.clear()
    list(iterate_windows(FilterEncoder((3, 5), dense_strides=(16,)), spy, 16))
    # That at 86 is off the grid, and a strip of its own.
    assert asked == [(0, 85), (29, 88), (61, 88), (83, 67)]


def test_iterate_windows_reads_next_block_ahead(image, small_blocks):
    was_read = threading.Event()
    spy = Spy(open_strips(image), lambda row, num_rows: row == 16 and was_read.set())

    def encoder(images):
        assert was_read.wait(timeout=60)
        return mean_and_corner(images)

    assert len(list(iterate_windows(encoder, spy, 16))) == 7


def test_iterate_windows_read_error_is_raised(image, small_blocks):
    def fail(row, num_rows):
        if row:
            raise DataError("cut off")

    rows = iterate_windows(mean_and_corner, Spy(open_strips(image), fail), 16)
    assert next(rows).row == 0
    with pytest.raises(DataError, match="cut off"):
        list(rows)


def test_iterate_windows_closed_early_leaves_no_thread(image, small_blocks):
    before = threading.active_count()
    rows = iterate_windows(mean_and_corner, open_strips(image), 16)
    next(rows)
    assert threading.active_count() == before + 1
    rows.close()
    assert threading.active_count() == before


def test_iterate_windows_progress_bar_counts_windows(image, capsys):
    image[:64] = 0  # windows without data count, too
    list(iterate_windows(mean_and_corner, open_strips(image), 32, progress="encode"))
    shown = capsys.readouterr().err
    assert "encode: 100%" in shown
    assert "12/12" in shown  # rows 0, 32, 64 and 86; columns 0, 32 and 36
    list(iterate_windows(mean_and_corner, open_strips(image), 32))
    assert capsys.readouterr().err == ""


def test_check_size_names_small_image(tmp_path):
    write_raster(
        tmp_path / "a.tif", np.ones((63, 90, 1), np.uint16), ["x"], Grid(63, 90, None, None)
    )
    with pytest.raises(ConfigError, match=r"a\.tif is 63 x 90 px, smaller than a window of 64 x"):
        next(iterate_windows(raw_pixels, open_strips(tmp_path / "a.tif"), 32))
