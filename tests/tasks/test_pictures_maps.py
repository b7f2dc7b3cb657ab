import matplotlib.image
import numpy as np
import pytest

from sits_keras.data.rasters.rows import open_strips
from sits_keras.data.rasters.write import MapClass
from sits_keras.errors import ExistsError
from sits_keras.tasks.change.detection import detect_change
from sits_keras.tasks.change.maps import plot_change
from sits_keras.tasks.pictures import plot_classes, preview_image

BANDS = ("B02", "B03", "B04", "B08")


def band_means(images):
    return images.mean(axis=(1, 2))


def share_of(picture, colour, tolerance=0.02):
    return (np.abs(picture[..., :3] - colour).max(axis=-1) < tolerance).mean()


def test_preview_image_shows_true_colours():
    stored = np.zeros((3, 2, 4), np.uint16)
    stored[1] = [275, 1375, 2750, 5000]
    seen = preview_image(open_strips(stored, BANDS))
    np.testing.assert_allclose(seen[1], [[1.0, 0.5, 0.1]] * 2)
    np.testing.assert_array_equal(seen[0], 1)  # no data is white
    grey = preview_image(open_strips(stored[..., :2], BANDS[:2]))
    np.testing.assert_allclose(grey[1], [[0.1] * 3] * 2)


def test_preview_image_large_image_is_thinned():
    stored = np.ones((1000, 1700, 1), np.uint16)
    stored[::3, ::3] = 2750
    seen = preview_image(open_strips(stored))
    assert seen.shape == (334, 567, 3)
    np.testing.assert_array_equal(seen, 1)


@pytest.fixture
def change():
    before = np.full((128, 192, 4), 500, np.uint16)
    after = before.copy()
    after[:, 128:] += 2000
    return detect_change(before, after, band_means, stride=64, bands=BANDS)


def test_plot_change_marks_change_red_and_reference_yellow(change, tmp_path):
    plain = plot_change(change, tmp_path / "new" / "a.png")
    mask = np.zeros((128, 192), bool)
    mask[20:80, 100:150] = True
    outlined = plot_change(change, tmp_path / "b.png", mask=mask)
    plain, outlined = matplotlib.image.imread(plain), matplotlib.image.imread(outlined)
    assert plain.shape[1] > 3 * plain.shape[0]  # four panels
    red = 0.4 * 2500 / 2750 + 0.6 * np.array([0.84, 0, 0])
    # A third of one of four panels, less margins.
    assert 0.02 < share_of(plain, red) < 1 / 12
    columns = np.flatnonzero((np.abs(plain[..., :3] - red).max(axis=-1) < 0.02).any(axis=0))
    assert columns.min() > 0.75 * plain.shape[1]
    gold = np.array([255, 215, 0]) / 255
    assert share_of(outlined, gold, 0.1) > 5 * share_of(plain, gold, 0.1)


@pytest.mark.parametrize("value", [False, True])
def test_plot_change_uniform_reference_has_no_outline(value, change, tmp_path):
    path = plot_change(change, tmp_path / "a.png", mask=np.full((128, 192), value))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_plot_classes_shows_colours_and_legend(tmp_path):
    image = np.full((128, 128, 4), 500, np.uint16)
    labels = np.ones((128, 128), np.uint8)
    labels[:, 64:] = 2
    classes = {
        1: MapClass("wood", (17, 119, 51)),
        2: MapClass("town", (204, 102, 119)),
        3: MapClass("sea", (51, 34, 136)),
    }
    path = plot_classes(image, labels, classes, tmp_path / "a.png", bands=BANDS)
    picture = matplotlib.image.imread(path)
    wood, town, sea = (share_of(picture, np.array(one.colour) / 255) for one in classes.values())
    assert wood > 0.15
    assert town == pytest.approx(wood, rel=0.05)
    assert sea == 0  # what the map does not hold is not in the legend


def test_plot_change_existing_picture_is_kept(change, tmp_path):
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(ExistsError, match="--overwrite"):
        plot_change(change, tmp_path / "a.png")
    plot_change(change, tmp_path / "a.png", overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]
