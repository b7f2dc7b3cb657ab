import matplotlib.image
import numpy as np
import pytest

from sits_keras.errors import ConfigError
from sits_keras.tasks.figures import draw_translations, true_colour

BANDS = ("B02", "B03", "B04", "B08")
BAND_MAX = (0.3, 0.3, 0.4, 0.6)


def test_true_colour_by_hand():
    # Reflectance 0.15, 0.0, 0.2, 0.6; the display's white is 0.275.
    shown = true_colour(np.array([0.0, -1.0, 0.0, 1.0]), BANDS, BAND_MAX)
    np.testing.assert_allclose(shown, [0.2 / 0.275, 0, 0.15 / 0.275], rtol=1e-6)


def test_true_colour_takes_red_green_and_blue_by_name_and_clips():
    values = np.full((2, 64, 64, 3), -1.0)
    values[..., 0] = 1.0
    shown = true_colour(values, ("B04", "B03", "B02"), (0.4, 0.3, 0.3))
    assert shown.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(shown[0, 0, 0], [1, 0, 0])


@pytest.mark.parametrize("bands", [("B08",), ("B08", "B04", "B03")])
def test_without_the_three_colours_the_first_band_is_grey(bands):
    values = np.full((64, 64, len(bands)), -1.0)
    values[..., 0] = -0.5
    shown = true_colour(values, bands, (0.6,) * len(bands))
    np.testing.assert_allclose(shown[3, 4], [0.15 / 0.275] * 3, rtol=1e-6)


def plain(bright_band, count):
    images = np.full((count, 64, 64, 4), -1.0, np.float32)
    images[..., bright_band] = 1.0
    return images


def test_a_picture_has_a_column_for_each_title_and_a_row_for_each_place(tmp_path):
    columns = [("red", plain(2, 2)), ("green", plain(1, 2)), ("blue", plain(0, 2))]
    columns[2][1][1] = 1.0  # white, in the second row
    path = draw_translations(columns, tmp_path / "a.png", bands=BANDS, band_max=BAND_MAX)
    assert path == tmp_path / "a.png"
    picture = matplotlib.image.imread(path)[..., :3]
    height, width, _ = picture.shape
    # 1.7 inches a column; 1.65 a row and 0.3 for the titles; 110 pixels an inch.
    assert (height, width) == (int(110 * 3.6), int(110 * 5.1))
    red, green, blue, white = np.eye(3)[0], np.eye(3)[1], np.eye(3)[2], np.ones(3)
    for row, colours in ((0.3, (red, green, blue)), (0.75, (red, green, white))):
        for col, colour in zip((1 / 6, 3 / 6, 5 / 6), colours, strict=True):
            pixel = picture[int(row * height), int(col * width)]
            np.testing.assert_allclose(pixel, colour, atol=0.01)


def test_one_picture_replaces_another(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    draw_translations([("x", plain(0, 1))], path, bands=BANDS, band_max=BAND_MAX)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


def test_columns_of_different_length_are_refused(tmp_path):
    columns = [("x", plain(0, 2)), ("y", plain(0, 3))]
    with pytest.raises(ConfigError, match=r"as many images\. Received: x 2, y 3"):
        draw_translations(columns, tmp_path / "a.png", bands=BANDS, band_max=BAND_MAX)
    assert not list(tmp_path.iterdir())
