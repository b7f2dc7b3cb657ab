import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.errors import DataError, MissingError
from sits_keras.tasks.change import scores as change_scores
from sits_keras.tasks.change.detection import detect_change
from sits_keras.tasks.change.scores import (
    change_vector,
    image_difference,
    mean_by_family,
    score_change,
    score_pairs,
)

BANDS = ("B02", "B03")


def band_means(images):
    return images.mean(axis=(1, 2))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    before = rng.integers(1000, 1400, (150, 130, 2)).astype(np.uint16)
    after = rng.integers(1000, 1400, (150, 130, 2)).astype(np.uint16)
    after[40:110, 30:100, 0] += 400
    return before, after


@pytest.fixture
def mask():
    mask = np.zeros((150, 130), bool)
    mask[40:110, 30:100] = True
    return mask


def scores_of(changes, mask):
    return {one.method: one for one in score_change(changes, mask)}


def test_baselines_match_hand_values():
    before, after = np.array([0.1, 0.2]), np.array([0.4, 0.6])
    assert image_difference(before, after) == pytest.approx(0.35)
    assert change_vector(before, after) == pytest.approx(0.5)


def test_score_change_equals_scikit_learn(images, mask):
    change = detect_change(*images, band_means, stride=16)
    scores = scores_of({"mine": change}, mask)
    distance, changed = change.map()
    mine = scores["mine"]
    assert mine.threshold == change.threshold
    assert mine.f1 == pytest.approx(f1_score(mask.ravel(), changed.ravel()))
    assert mine.iou == pytest.approx(jaccard_score(mask.ravel(), changed.ravel()))
    expected = average_precision_score(mask.ravel(), distance.ravel())
    assert mine.average_precision == pytest.approx(expected)
    assert mine.average_precision > 0.9
    assert mine.num_pixels == 150 * 130
    assert mine.chance == pytest.approx(70 * 70 / (150 * 130))


def test_score_change_scores_baselines_by_pixel_and_averaged(images, mask):
    change = detect_change(*images, band_means, stride=64)
    scores = scores_of({"mine": change}, mask)
    before, after = (image.astype(np.float32) / 10_000 for image in images)
    for name, distance in (
        ("image difference", image_difference(before, after)),
        ("change vector", change_vector(before, after)),
    ):
        expected = average_precision_score(mask.ravel(), distance.ravel())
        assert scores[name].average_precision == pytest.approx(expected, abs=1e-4)
        found = distance > scores[name].threshold
        assert scores[name].f1 == pytest.approx(f1_score(mask.ravel(), found.ravel()))
        # The mean of each window, then of the windows over a pixel.
        sums, counts = np.zeros(mask.shape), np.zeros(mask.shape)
        for row in (0, 64, 86):
            for col in (0, 64, 66):
                window = np.s_[row : row + 64, col : col + 64]
                sums[window] += distance[window].mean()
                counts[window] += 1
        expected = average_precision_score(mask.ravel(), (sums / counts).ravel())
        averaged = scores[f"{name}, averaged"]
        assert averaged.average_precision == pytest.approx(expected, abs=1e-3)
        assert averaged.average_precision != pytest.approx(scores[name].average_precision)


def test_score_change_averages_use_pixels_with_data(images, mask):
    before, after = images
    before[:, :5] = 0
    change = detect_change(before, after, band_means, stride=64)
    scores = scores_of({"mine": change}, mask)
    difference = image_difference(before.astype(float), after.astype(float))[:64, 5:64].mean()
    averaged = change_scores._average(change.pair, change.windows, image_difference)
    assert averaged.distances[0, 0] == pytest.approx(difference / 10_000, rel=1e-5)
    assert scores["mine"].num_pixels == 150 * 125


def test_score_change_perfect_map_scores_one(images, mask):
    before, after = images[0], images[0].copy()
    after[mask] += 1000
    scores = scores_of({"mine": detect_change(before, after, band_means)}, mask)
    for name in ("image difference", "change vector"):
        assert scores[name][1:4] == (1, 1, 1)


def test_score_change_constant_features_give_chance(images, mask):
    def constant(batch):
        return np.ones((len(batch), 3))

    mine = scores_of({"mine": detect_change(*images, constant)}, mask)["mine"]
    assert mine.average_precision == pytest.approx(mine.chance)
    assert (mine.f1, mine.iou) == (0, 0)


def test_score_change_many_pixels_are_thinned(images, mask, monkeypatch):
    monkeypatch.setattr(change_scores, "_MAX_SCORED", 150 * 130 // 4)
    change = detect_change(*images, band_means, stride=16)
    mine = scores_of({"mine": change}, mask)["mine"]
    assert mine.num_pixels == 75 * 65
    distance = change.map().distance[::2, ::2]
    expected = average_precision_score(mask[::2, ::2].ravel(), distance.ravel())
    assert mine.average_precision == pytest.approx(expected)


@pytest.mark.parametrize(("value", "word"), [(False, "none"), (True, "all")])
def test_score_change_uniform_mask_is_refused(value, word, images):
    change = detect_change(*images, band_means)
    with pytest.raises(DataError, match=f"the mask marks {word} of the pixels with data"):
        score_change({"mine": change}, np.full((150, 130), value))


def test_score_change_mask_of_other_size_is_refused(images, tmp_path):
    change = detect_change(*images, band_means)
    with pytest.raises(DataError, match="the image and the mask are not on the same grid: size"):
        score_change({"mine": change}, np.ones((150, 131), bool))


def write_pair(folder, images, mask=None):
    folder.mkdir(parents=True)
    grid = Grid(150, 130, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))
    for name, image in zip(("before", "after"), images, strict=True):
        write_raster(folder / f"{name}.tif", image, BANDS, grid)
    if mask is not None:
        write_raster(folder / "mask.tif", mask[..., None].astype(np.uint8), ["changed"], grid)


def test_score_pairs_folder_is_averaged_by_family(images, mask, tmp_path):
    write_pair(tmp_path / "fire-a", images, mask)
    write_pair(tmp_path / "fire-b", images[::-1], mask)
    write_pair(tmp_path / "flood-c", images, ~mask)
    write_pair(tmp_path / "clean-d", images)
    done = []
    scores = score_pairs(tmp_path, {"mine": band_means}, stride=32, on_pair=done.append)
    assert done == list(scores) == ["fire-a", "fire-b", "flood-c"]
    paths = (tmp_path / "fire-a" / "before.tif", tmp_path / "fire-a" / "after.tif")
    expected = score_change({"mine": detect_change(*paths, band_means, stride=32)}, mask)
    assert scores["fire-a"] == expected
    means = mean_by_family(scores)
    assert list(means) == ["fire", "flood"]
    mean = (scores["fire-a"][0].f1 + scores["fire-b"][0].f1) / 2
    assert means["fire"]["mine"]["f1"] == pytest.approx(mean)
    assert means["fire"]["mine"]["num_pairs"] == 2
    assert means["flood"]["change vector"]["iou"] == scores["flood-c"][3].iou
    assert scores["flood-c"][3].method == "change vector"


def test_score_pairs_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(MissingError, match=r"No labelled pairs in .* before\.tif, after\.tif"):
        score_pairs(tmp_path, {"mine": band_means})
