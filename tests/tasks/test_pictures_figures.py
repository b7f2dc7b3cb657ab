import matplotlib.image
import numpy as np
import pytest

from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError
from sits_keras.tasks.pictures import (
    plot_boxes,
    plot_matrix,
    plot_series,
    plot_translations,
)

BANDS = ("B02", "B03", "B04", "B08")
BAND_MAX = (0.3, 0.3, 0.4, 0.6)


def plain(bright_band, count):
    images = np.full((count, 64, 64, 4), -1.0, np.float32)
    images[..., bright_band] = 1.0
    return images


def test_plot_translations_has_column_for_each_title(tmp_path):
    columns = [("red", plain(2, 2)), ("green", plain(1, 2)), ("blue", plain(0, 2))]
    columns[2][1][1] = 1.0  # white, in the second row
    path = plot_translations(columns, tmp_path / "a.png", bands=BANDS, band_max=BAND_MAX)
    assert path == tmp_path / "a.png"
    picture = matplotlib.image.imread(path)[..., :3]
    height, width, _ = picture.shape
    # 1.7 inches a column; 1.65 a row and 0.4 for the titles; 110 pixels an inch.
    assert (height, width) == (int(110 * 3.7), int(110 * 5.1))
    red, green, blue, white = np.eye(3)[0], np.eye(3)[1], np.eye(3)[2], np.ones(3)
    for row, colours in ((0.3, (red, green, blue)), (0.75, (red, green, white))):
        for col, colour in zip((1 / 6, 3 / 6, 5 / 6), colours, strict=True):
            pixel = picture[int(row * height), int(col * width)]
            np.testing.assert_allclose(pixel, colour, atol=0.01)


def test_plot_translations_replaces_existing_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    plot_translations([("x", plain(0, 1))], path, bands=BANDS, band_max=BAND_MAX)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


def test_plot_translations_columns_of_unequal_length_are_refused(tmp_path):
    columns = [("x", plain(0, 2)), ("y", plain(0, 3))]
    with pytest.raises(ConfigError, match=r"Expected equal lengths\. Received: x 2, y 3"):
        plot_translations(columns, tmp_path / "a.png", bands=BANDS, band_max=BAND_MAX)
    assert not list(tmp_path.iterdir())


def pixel_at(picture, rows, cols, row, col):
    """The middle of a field of a grid of pictures, below titles of 0.4 inches."""
    height, width, _ = picture.shape
    top = 0.3 * 110
    return picture[int(top + (row + 0.5) * (height - top) / rows), int((col + 0.5) * width / cols)]


def test_plot_matrix_has_places_in_rows_and_dates_in_columns(tmp_path):
    red, green, blue, white = plain(2, 1)[0], plain(1, 1)[0], plain(0, 1)[0], plain(0, 1)[0] + 2
    path = plot_matrix(
        np.stack([red, white]),
        np.stack([green, blue]),
        np.stack([[red, green], [blue, white]]),
        tmp_path / "a.png",
        bands=BANDS,
        band_max=BAND_MAX,
    )
    picture = matplotlib.image.imread(path)[..., :3]
    colours = {"r": [1, 0, 0], "g": [0, 1, 0], "b": [0, 0, 1], "w": [1, 1, 1]}
    for row, expected in enumerate(("wgb", "rrg", "wbw")):  # the corner is empty
        for col, colour in enumerate(expected):
            pixel = pixel_at(picture, 3, 3, row, col)
            np.testing.assert_allclose(pixel, colours[colour], atol=0.01)


def test_plot_matrix_other_shape_is_refused(tmp_path):
    images = plain(0, 3)
    with pytest.raises(ConfigError, match=r"Expected 3 x 2 generated images.* Received: 2 x 3"):
        plot_matrix(
            images,
            images[:2],
            np.stack([images, images]),
            tmp_path / "a.png",
            bands=BANDS,
            band_max=BAND_MAX,
        )


def test_plot_series_shows_images_side_by_side(tmp_path):
    rows = [
        ("real", np.concatenate([plain(2, 1), plain(1, 1), plain(0, 1)])),
        ("reconstructed", plain(0, 3)),
    ]
    path = plot_series(
        rows, ["one", "two", "three"], tmp_path / "a.png", bands=BANDS, band_max=BAND_MAX
    )
    picture = matplotlib.image.imread(path)[..., :3]
    red, green, blue = np.eye(3)
    for row, colours in enumerate(([red, green, blue], [blue] * 3)):
        for col, colour in enumerate(colours):
            np.testing.assert_allclose(pixel_at(picture, 2, 3, row, col), colour, atol=0.01)


def test_plot_series_missing_title_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected 2 images.*row 'x'\. Received: 3"):
        plot_series(
            [("x", plain(0, 3))], ["a", "b"], tmp_path / "a.png", bands=BANDS, band_max=BAND_MAX
        )


def test_plot_boxes_draws_windows_on_their_pixels(tmp_path):
    image = np.zeros((200, 200, 3))
    image[50:114, 20:84] = 1  # what the first box goes around
    windows = [Window(50, 20, 64, 64), Window(120, 130, 64, 64)]
    path = plot_boxes([("a", image, windows), ("b", image, windows[::-1])], tmp_path / "a.png")
    picture = matplotlib.image.imread(path)[..., :3]
    # White is found inside the first box; all around it is the line's colour.
    left = picture[:, : picture.shape[1] // 2]
    is_white = (left > 0.99).all(axis=-1)
    is_white[:40] = is_white[-25:] = False  # the paper above and below
    is_white[:, :15] = is_white[:, -15:] = False
    rows, cols = np.nonzero(is_white)
    scale = 5.5 * 110 / 200
    assert np.ptp(rows) == pytest.approx(64 * scale, abs=6)
    assert np.ptp(cols) == pytest.approx(64 * scale, abs=6)
    edge = left[rows.min() - 2, (cols.min() + cols.max()) // 2]
    assert np.ptp(edge) > 0.3  # coloured, neither black nor white
    # In the second image the same colour goes around the other window, which is black there.
    right = picture[:, picture.shape[1] // 2 :]
    same = np.abs(right - edge).max(axis=-1) < 0.05
    assert np.nonzero(same)[0].mean() > right.shape[0] / 2
