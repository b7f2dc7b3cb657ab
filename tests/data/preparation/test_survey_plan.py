import io
import json
import os

import numpy as np
import pytest
from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data.execution import runner
from sits_keras.data.preparation.survey import Plan, common_grids, fingerprint, make_plan, screen
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.sources.series import find_series
from sits_keras.data.tiling import Window
from sits_keras.errors import ConfigError, DataError

BANDS = ("B02", "B03", "B04", "B08")
# The dates of `coded_series`.
DAYS = ("2020-01-01", "2020-01-31", "2020-03-01", "2020-03-31", "2020-04-30", "2020-05-30")


def plan_of(source, bar=None, **options):
    series, config = find_series([source]), PrepareConfig(**options)
    grids = common_grids(series, config)
    with runner(1, None) as run:
        screenings = screen(series, grids, config, run, bar or tqdm(disable=True))
    return make_plan(series, grids, screenings, config)


def only(plan):
    (series,) = plan.series
    return series


@pytest.fixture
def series_of(tmp_path):
    """Writes a series of given images, `(height, width, 4)` each, and masks by their index."""

    def write(images, masks=None, name="lake"):
        folder = tmp_path / name
        folder.mkdir()
        for index, image in enumerate(images):
            grid = Grid(*image.shape[:2], None, None)
            write_raster(folder / f"{DAYS[index]}.tif", image, BANDS, grid)
            if masks and index in masks:
                mask = masks[index][..., None].astype(np.uint8)
                write_raster(folder / f"{DAYS[index]}_cloud.tif", mask, ["cloud"], grid)
        return folder

    return write


def image(height=100, width=100, missing=None, dtype=np.uint16):
    """Reflectance 0.05; `missing` names the pixels without data as a tuple of slices."""
    values = np.full((height, width, 4), 500 if dtype is np.uint16 else 0.05, dtype)
    if missing:
        values[missing] = 0 if dtype is np.uint16 else np.nan
    return values


def test_make_plan_small_raster_is_one_patch_of_all_its_dates(tmp_path, coded_series):
    series = only(plan_of(coded_series(tmp_path / "lake", size=(64, 70))))
    assert series.id == "lake"
    assert series.dates == DAYS[:3]
    assert series.rejected == {}
    assert series.skipped == ""
    assert series.patches == (Window(0, 0, 64, 70),)


def test_make_plan_patches_are_full_from_the_upper_left_and_the_rest_is_the_last(
    tmp_path, coded_series
):
    source = coded_series(tmp_path / "lake", dates=2, size=(330, 129))
    series = only(plan_of(source, patch_size=128))
    assert series.patches == (
        Window(0, 0, 128, 64),  # 129 px are no 128 and 1, but 64 and 65
        Window(0, 64, 128, 65),
        Window(128, 0, 128, 64),
        Window(128, 64, 128, 65),
        Window(256, 0, 74, 64),
        Window(256, 64, 74, 65),
    )


def test_make_plan_central_patches_are_nearest_to_the_middle(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake", dates=2, size=(400, 300))
    series = only(plan_of(source, patch_size=128, central=1))
    assert series.patches == (Window(128, 128, 128, 128),)
    with pytest.raises(ConfigError, match="3 x 3 patches of 128 px do not fit into 400 x 300"):
        plan_of(source, patch_size=128, central=3)


def test_make_plan_grid_is_that_of_the_rasters(tmp_path, coded_series):
    transform = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)
    with_crs = only(plan_of(coded_series(tmp_path / "a", size=(65, 64))))
    without = only(plan_of(coded_series(tmp_path / "b", size=(65, 64), crs=None)))
    assert with_crs.grid == Grid(65, 64, "EPSG:32631", transform)
    assert without.grid == Grid(65, 64, None, None)


def test_screen_cloudy_dates_are_rejected_with_the_fraction(tmp_path, coded_series):
    series = only(plan_of(coded_series(tmp_path / "lake", dates=4, cloudy=(0, 2))))
    assert series.dates == (DAYS[1], DAYS[3])
    assert series.rejected == {
        DAYS[0]: "cloud 100.00% > 2.00%",
        DAYS[2]: "cloud 100.00% > 2.00%",
    }


@pytest.mark.parametrize(("num_cloudy", "kept"), [(200, True), (201, False)])
def test_screen_cloud_threshold_counts_pixels_of_the_mask(series_of, num_cloudy, kept):
    mask = np.arange(100 * 100).reshape(100, 100) < num_cloudy
    source = series_of([image()] * 3, masks={1: mask})
    series = only(plan_of(source))
    assert (DAYS[1] in series.dates) is kept
    assert series.rejected == ({} if kept else {DAYS[1]: "cloud 2.01% > 2.00%"})


def test_screen_cloud_over_missing_pixels_does_not_count(series_of):
    missing = slice(0, 10)
    mask = np.zeros((100, 100), bool)
    mask[missing] = True
    series = only(plan_of(series_of([image(missing=missing), image()], masks={0: mask})))
    assert series.dates == DAYS[:2]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize(("rows", "kept"), [(15, True), (16, False)])
def test_screen_pixels_without_data_count_as_incomplete(series_of, dtype, rows, kept):
    images = [image(dtype=dtype), image(dtype=dtype, missing=slice(0, rows)), image(dtype=dtype)]
    series = only(plan_of(series_of(images)))
    assert series.rejected == ({} if kept else {DAYS[1]: "complete 84.00% < 85.00%"})


def test_screen_one_missing_band_makes_a_pixel_incomplete(series_of):
    holes = image(missing=(slice(0, 30), slice(None), 2))
    series = only(plan_of(series_of([image(), holes, image()])))
    assert series.rejected == {DAYS[1]: "complete 70.00% < 85.00%"}


def test_make_plan_band_that_is_not_asked_for_may_be_missing(series_of):
    holes = image(missing=(slice(0, 30), slice(None), 2))
    series = only(plan_of(series_of([image(), holes]), bands=("B08", "B02")))
    assert series.rejected == {}


def test_make_plan_dates_are_limited_and_spread_over_the_period(tmp_path, coded_series):
    series = only(plan_of(coded_series(tmp_path / "lake", dates=6), dates=3))
    # Days 0, 30, ... 150: day 60 and 90 are as near to the middle, and the earlier is taken.
    assert series.dates == (DAYS[0], DAYS[2], DAYS[5])
    assert series.rejected == {day: "3 other dates are kept" for day in (DAYS[1], *DAYS[3:5])}


def test_make_plan_limit_is_applied_to_the_dates_that_pass(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake", dates=6, cloudy=(0, 5))
    series = only(plan_of(source, dates=2))
    assert series.dates == (DAYS[1], DAYS[4])
    assert list(series.rejected) == [DAYS[0], DAYS[2], DAYS[3], DAYS[5]]
    assert series.rejected[DAYS[2]] == "2 other dates are kept"
    assert series.rejected[DAYS[5]] == "cloud 100.00% > 2.00%"


def test_make_plan_series_with_one_date_is_a_named_skip(tmp_path, coded_series):
    coded_series(tmp_path / "many", dates=3)
    coded_series(tmp_path / "single", dates=1)
    many, single = plan_of(tmp_path).series
    assert many.skipped == ""
    assert single.id == "single"
    assert single.skipped == "1 of 1 dates pass, 2 are needed"
    assert single.dates == ()
    assert single.patches == ()


def test_make_plan_error_names_every_series_and_reason_where_none_is_left(tmp_path, coded_series):
    coded_series(tmp_path / "grey", dates=3, cloudy=(0, 1))
    coded_series(tmp_path / "single", dates=1)
    expected = (
        r"No series is left after screening \(grey: 1 of 3 dates pass, 2 are needed; "
        r"single: 1 of 1 dates pass, 2 are needed\).*max_cloud.*min_dates.*min_complete"
    )
    with pytest.raises(DataError, match=expected):
        plan_of(tmp_path)


def test_make_plan_series_below_min_dates_raises(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake", dates=3)
    assert only(plan_of(source, min_dates=3)).dates == DAYS[:3]
    with pytest.raises(DataError, match="3 of 3 dates pass, 4 are needed"):
        plan_of(source, min_dates=4)


def test_screen_every_granule_is_reported_once(tmp_path, coded_series):
    coded_series(tmp_path / "a", dates=3, cloudy=(1,))
    coded_series(tmp_path / "b", dates=2)
    with tqdm(total=5, file=io.StringIO()) as bar:
        plan_of(tmp_path, bar)
        assert bar.n == 5


def test_common_grids_raster_smaller_than_a_crop_is_refused(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake", size=(63, 200))
    with pytest.raises(DataError, match=r"2020-01-01.tif has 63 x 200 pixels, smaller.*'lake'"):
        plan_of(source)


@pytest.mark.parametrize(
    ("what", "grid"),
    [
        ("size", Grid(64, 65, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))),
        ("CRS", Grid(64, 64, "EPSG:32632", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))),
        ("transform", Grid(64, 64, "EPSG:32631", (10.0, 0.0, 600_010.0, 0.0, -10.0, 5_000_000.0))),
        ("CRS", Grid(64, 64, None, None)),
    ],
)
def test_common_grids_raster_on_another_grid_is_refused(tmp_path, coded_series, what, grid):
    source = coded_series(tmp_path / "lake")
    path = source / "2020-12-31.tif"
    write_raster(path, image(grid.height, grid.width), BANDS, grid)
    with pytest.raises(DataError, match=f"has {what} .* All dates of a series must") as error:
        plan_of(source)
    assert str(error.value).startswith(str(path))


def test_common_grids_mask_of_another_size_is_refused(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake")
    path = source / "2020-01-31_cloud.tif"
    write_raster(path, np.zeros((32, 64, 1), np.uint8), ["cloud"], Grid(32, 64, None, None))
    with pytest.raises(
        DataError, match="has 32 x 64 pixels, which do not fit the 64 x 64"
    ) as error:
        plan_of(source)
    assert str(error.value).startswith(str(path))


def test_common_grids_headers_are_checked_before_pixels_are_read(tmp_path, coded_series):
    coded_series(tmp_path / "a")
    coded_series(tmp_path / "z", size=(32, 32))
    with (
        tqdm(total=6, file=io.StringIO()) as bar,
        pytest.raises(DataError, match="smaller than a crop"),
    ):
        plan_of(tmp_path, bar)
    assert bar.n == 0


def test_plan_survives_json(tmp_path, coded_series):
    coded_series(tmp_path / "a", dates=4, size=(150, 64), cloudy=(2,))
    coded_series(tmp_path / "b", crs=None)
    coded_series(tmp_path / "c", dates=1)
    plan = plan_of(tmp_path, shard_bytes=1, bands=("B08", "B02"))
    assert len(plan.shards) == 2
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    ("shard_bytes", "sizes"),
    [
        # A patch of 3 dates of 128 x 64 pixels of 4 bands of 2 bytes has 196,608 bytes.
        (1, [1, 1, 1, 1]),
        (196_608, [1, 1, 1, 1]),
        (196_609, [2, 2]),
        (589_824, [3, 1]),
        (10**9, [4]),
    ],
)
def test_make_plan_shards_are_closed_at_their_size(tmp_path, coded_series, shard_bytes, sizes):
    source = coded_series(tmp_path / "lake", size=(512, 64))
    plan = plan_of(source, shard_bytes=shard_bytes, patch_size=128)
    assert [len(shard) for shard in plan.shards] == sizes
    assert [patch for shard in plan.shards for patch in shard] == [(0, n) for n in range(4)]
    assert plan.num_bytes(plan.shards[0][0]) == 196_608


def test_make_plan_shards_hold_patches_of_more_than_one_series(tmp_path, coded_series):
    coded_series(tmp_path / "a")
    coded_series(tmp_path / "b")
    (shard,) = plan_of(tmp_path).shards
    assert shard == ((0, 0), (1, 0))


@pytest.fixture
def two_dates(tmp_path, coded_series):
    """A series of two dates, each with a mask."""
    return coded_series(tmp_path / "lake", dates=2, cloudy=(1,))


def checksum(folder, **options):
    return fingerprint(find_series([folder]), PrepareConfig(**options))


def touch_later(path):
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


def rename_date(folder, old, new):
    for suffix in (".tif", "_cloud.tif"):
        (folder / f"{old}{suffix}").rename(folder / f"{new}{suffix}")


def test_fingerprint_stays_while_nothing_changes(two_dates):
    assert checksum(two_dates) == checksum(two_dates)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: touch_later(folder / "2020-01-01.tif"),
        lambda folder: touch_later(folder / "2020-01-31_cloud.tif"),
        lambda folder: (folder / "2020-01-31_cloud.tif").unlink(),
        lambda folder: rename_date(folder, "2020-01-31", "2020-02-01"),
        lambda folder: (folder / "2020-05-05.tif").touch(),
    ],
    ids=["image", "mask", "mask gone", "date", "new date"],
)
def test_fingerprint_changes_with_the_files(two_dates, change):
    before = checksum(two_dates)
    change(two_dates)
    assert checksum(two_dates) != before


def test_fingerprint_changes_with_the_size_alone(two_dates):
    path = two_dates / "2020-01-01.tif"
    before, times = checksum(two_dates), path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(times, times))
    assert checksum(two_dates) != before


def test_fingerprint_changes_with_the_series_name(two_dates):
    before = checksum(two_dates)
    assert checksum(two_dates.rename(two_dates.with_name("pond"))) != before


@pytest.mark.parametrize(
    "options",
    [{"dates": 3}, {"bands": ("B08",)}, {"max_cloud": 0.5}, {"compression": "GZIP"}],
    ids=str,
)
def test_fingerprint_changes_with_the_options(two_dates, options):
    assert checksum(two_dates, **options) != checksum(two_dates)


def signed_search(path, query, scale=0.0001):
    """A file of one STAC item whose assets are URLs with a query."""
    assets = {
        band: {
            "href": f"https://store.example/{band}.tif?{query}",
            "eo:bands": [{"name": band}],
            "raster:bands": [{"scale": scale, "offset": 0}],
        }
        for band in BANDS
    }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "one",
        "geometry": None,
        "links": [],
        "properties": {"datetime": "2020-01-01T10:00:00Z", "s2:mgrs_tile": "31UFS"},
        "assets": assets,
    }
    path.write_text(json.dumps(item))
    return path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("st=2026-01-01T00%3A00%3A00Z&sp=rl&sig=one", "st=2026-01-02T00%3A00%3A00Z&sp=rl&sig=two"),
        ("X-Amz-Date=1&X-Amz-Signature=a", "X-Amz-Date=2&X-Amz-Signature=b"),
        ("X-Goog-Date=1&X-Goog-Signature=a", "X-Goog-Date=2&X-Goog-Signature=b"),
        ("band=2&sig=one", "band=2&sig=two"),
    ],
)
def test_fingerprint_stays_when_urls_are_signed_again(tmp_path, before, after):
    first = checksum(signed_search(tmp_path / "search.json", before))
    assert checksum(signed_search(tmp_path / "again.geojson", after)) == first


def test_fingerprint_changes_with_a_query_that_chooses_the_file(tmp_path):
    path = tmp_path / "search.json"
    one, other = (checksum(signed_search(path, f"band={n}&sig=a")) for n in (1, 2))
    assert one != other


def test_fingerprint_changes_with_the_scale_that_an_item_states(tmp_path):
    path = tmp_path / "search.json"
    assert checksum(signed_search(path, "sig=a")) != checksum(signed_search(path, "sig=a", 2e-4))


def test_fingerprint_stays_when_the_search_is_saved_again(tmp_path):
    path = signed_search(tmp_path / "search.json", "sig=a")
    before = checksum(path)
    touch_later(path)
    path.write_text(path.read_text() + "\n")
    assert checksum(path) == before
