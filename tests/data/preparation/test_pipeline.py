import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import tensorflow as tf

from sits_keras.config import PrepareConfig
from sits_keras.data import pair_dataset, prepare, read_manifest
from sits_keras.data.preparation import pipeline as preparation
from sits_keras.data.preparation import shards, survey
from sits_keras.data.preparation.granule_reader import KeptPixels, PixelWriter
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.records import begin_shard, verify
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError

BANDS = ("B02", "B03", "B04", "B08")
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0)
# The dates of `coded_series`.
DAYS = ("2020-01-01", "2020-01-31", "2020-03-01", "2020-03-31")
EACH_RECORD_A_SHARD = PrepareConfig(shard_bytes=1, patch_size=128)


def quietly(*args, **kwargs):
    return prepare(*args, progress=False, **kwargs)


def coded(window, dates, num_bands=4):
    """Return the content of `coded_series` in a window, by its formula."""
    row, col, height, width = window
    dates, rows, cols, bands = np.meshgrid(
        dates, np.arange(row, row + height), np.arange(col, col + width), range(num_bands),
        indexing="ij",
    )  # fmt: skip
    return 1 + bands * 10_000 + dates * 1000 + (rows % 30) * 30 + cols % 30


def contents(folder):
    """Checksum of each file in a folder, hidden ones included."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")}


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture
def source(tmp_path, coded_series):
    """Two series in three blocks, the second series without CRS."""
    coded_series(tmp_path / "source" / "a", size=(150, 64))
    coded_series(tmp_path / "source" / "b", dates=2, crs=None)
    return tmp_path / "source"


def test_prepare_each_record_holds_the_pixels_of_its_window_and_dates(
    tmp_path, coded_series, read_plainly
):
    source = coded_series(tmp_path / "lake", dates=4, size=(200, 150), cloudy=(1,))
    manifest = quietly(source, tmp_path / "out")
    records = read_plainly(manifest.files)
    assert [(record.series, record.patch, record.window) for record in records] == [
        ("lake", 0, (0, 0, 100, 75)),
        ("lake", 0, (0, 75, 100, 75)),
        ("lake", 0, (100, 0, 100, 75)),
        ("lake", 0, (100, 75, 100, 75)),
    ]
    for record in records:
        assert record.dates == (DAYS[0], DAYS[2], DAYS[3])
        np.testing.assert_array_equal(record.images, coded(record.window, (0, 2, 3)))


def test_prepare_big_raster_is_cut_into_patches(tmp_path, coded_series, read_plainly):
    source = coded_series(tmp_path / "lake", dates=2, size=(64, 290))
    manifest = quietly(source, tmp_path / "out", PrepareConfig(patch_size=160))
    records = read_plainly(manifest.files)
    assert [(record.patch, record.window) for record in records] == [
        (0, (0, 0, 64, 80)),
        (0, (0, 80, 64, 80)),
        (1, (0, 160, 64, 65)),
        (1, (0, 225, 64, 65)),
    ]
    for record in records:
        np.testing.assert_array_equal(record.images, coded(record.window, (0, 1)))


def test_prepare_record_lacks_the_dates_on_which_its_block_is_incomplete(tmp_path, read_plainly):
    source = tmp_path / "lake"
    source.mkdir()
    for index, day in enumerate(DAYS[:3]):
        image = np.full((100, 200, 4), 1000 * (index + 1), np.uint16)
        if index == 1:
            image[:, :20] = 0  # a tenth of the granule, a fifth of the left block
        write_raster(source / f"{day}.tif", image, BANDS, Grid(100, 200, None, None))
    left, right = read_plainly(quietly(source, tmp_path / "out").files)
    assert left.dates == (DAYS[0], DAYS[2])
    assert np.unique(left.images[0]) == [1000]
    assert np.unique(left.images[1]) == [3000]
    assert right.dates == DAYS[:3]
    assert np.unique(right.images[1]) == [2000]


def holed(*columns):
    """Two blocks of 100 x 100 px, no data in some columns."""
    image = np.full((100, 200, 4), 500, np.uint16)
    image[:, slice(*columns)] = 0
    return image


def test_prepare_block_with_too_few_dates_is_left_out(tmp_path, read_plainly):
    (tmp_path / "lake").mkdir()
    for day, image in zip(DAYS, (holed(0), holed(20)), strict=False):
        write_raster(tmp_path / "lake" / f"{day}.tif", image, BANDS, Grid(100, 200, None, None))
    manifest = quietly(tmp_path / "lake", tmp_path / "out")
    (record,) = read_plainly(manifest.files)
    assert record.window == (0, 100, 100, 100)
    (series,) = manifest.series
    assert (series["blocks"], series["blocks_skipped"]) == (1, 1)


def test_prepare_series_without_a_block_is_skipped_though_its_dates_pass(tmp_path, coded_series):
    coded_series(tmp_path / "source" / "fine")
    (tmp_path / "source" / "lake").mkdir()
    for day, image in zip(DAYS, (holed(20), holed(180, 200)), strict=False):
        path = tmp_path / "source" / "lake" / f"{day}.tif"
        write_raster(path, image, BANDS, Grid(100, 200, None, None))
    manifest = quietly(tmp_path / "source", tmp_path / "out")
    assert [series["id"] for series in manifest.series] == ["fine"]
    assert manifest.skipped == {"lake": "no block has 2 dates that pass"}
    with pytest.raises(DataError, match=r"lake: no block has 2 dates that pass"):
        quietly(tmp_path / "source" / "lake", tmp_path / "none")
    with pytest.raises(MissingError):
        read_manifest(tmp_path / "none")


def test_prepare_bands_are_stored_in_the_order_asked_for(tmp_path, coded_series, read_plainly):
    config = PrepareConfig(bands=("B08", "B03"))
    manifest = quietly(coded_series(tmp_path / "lake"), tmp_path / "out", config)
    (record,) = read_plainly(manifest.files)
    assert manifest.bands == ("B08", "B03")
    expected = coded((0, 0, 64, 64), (0, 1, 2))[..., [3, 1]]
    np.testing.assert_array_equal(record.images, expected)


def test_prepare_manifest_lists_kept_dates_and_reasons(tmp_path, coded_series):
    coded_series(tmp_path / "source" / "lake", dates=4, size=(150, 64), cloudy=(2,))
    coded_series(tmp_path / "source" / "single", dates=1)
    manifest = quietly(tmp_path / "source", tmp_path / "out")
    assert manifest.series == (
        {
            "id": "lake",
            "height": 150,
            "width": 64,
            "crs": "EPSG:32631",
            "transform": list(UTM),
            "dates": [DAYS[0], DAYS[1], DAYS[3]],
            "products": {},
            "rejected": {DAYS[2]: "cloud 100.00% > 2.00%"},
            "resampled": [],
            "blocks": 2,
            "blocks_skipped": 0,
        },
    )
    assert manifest.skipped == {"single": "1 of 1 dates pass, 2 are needed"}
    assert manifest.options == PrepareConfig().to_dict()
    assert manifest.num_records == 2


def test_prepare_manifest_that_is_returned_is_the_one_on_disk(tmp_path, source):
    manifest = quietly(source, tmp_path / "out")
    assert read_manifest(tmp_path / "out") == manifest
    verify(manifest)


def test_prepare_series_without_crs_stays_without(tmp_path, source):
    first, second = quietly(source, tmp_path / "out").series
    assert (first["id"], first["crs"], first["transform"]) == ("a", "EPSG:32631", list(UTM))
    assert (second["id"], second["crs"], second["transform"]) == ("b", None, None)


def test_prepare_output_holds_plan_manifest_and_numbered_shards(tmp_path, source, listing):
    quietly(source, tmp_path / "deep" / "out", EACH_RECORD_A_SHARD)
    assert listing(tmp_path / "deep" / "out") == [
        "manifest.json",
        "plan.json",
        "shard-00000.tfrecord",
        "shard-00001.tfrecord",
        "shard-00002.tfrecord",
    ]


def test_prepare_several_sources_gives_one_series_each(tmp_path, source):
    manifest = quietly([source / "b", str(source / "a")], tmp_path / "out")
    assert [series["id"] for series in manifest.series] == ["a", "b"]


def test_prepare_include_and_exclude_select_series(tmp_path, source):
    assert [s["id"] for s in quietly(source, tmp_path / "x", include=["a*"]).series] == ["a"]
    assert [s["id"] for s in quietly(source, tmp_path / "y", exclude=["a*"]).series] == ["b"]


def test_prepare_compressed_records_hold_the_same(tmp_path, source, read_plainly):
    plain = quietly(source, tmp_path / "plain")
    packed = quietly(source, tmp_path / "packed", PrepareConfig(compression="GZIP"))
    assert packed.compression == "GZIP"
    assert packed.shards[0].bytes < plain.shards[0].bytes / 2
    pairs = zip(read_plainly(plain.files), read_plainly(packed.files, "GZIP"), strict=True)
    for one, other in pairs:
        assert one[:4] == other[:4]
        np.testing.assert_array_equal(one.images, other.images)


def test_prepare_progress_is_shown_unless_declined(tmp_path, source, capsys):
    prepare(source, tmp_path / "out")
    shown = capsys.readouterr().err
    assert "screen: 100%" in shown
    assert "5/5" in shown
    assert "write: 100%" in shown
    assert re.search(r"296k/296k .*B/s", shown)  # 150 x 64 px at 3 dates, 64 x 64 at 2
    quietly(source, tmp_path / "quiet")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_prepare_two_runs_write_the_same_bytes(tmp_path, source, compression):
    config = PrepareConfig(shard_bytes=1, compression=compression)
    quietly(source, tmp_path / "one", config)
    quietly(source, tmp_path / "two", config)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_prepare_where_sources_and_output_lie_changes_no_byte(tmp_path, source):
    quietly(source, tmp_path / "one")
    copy = shutil.copytree(source, tmp_path / "elsewhere" / "copy")
    quietly(copy, tmp_path / "elsewhere" / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "elsewhere" / "two")


def replace(day, image, grid):
    bands = BANDS[: image.shape[-1]]
    return lambda folder: write_raster(folder / f"{day}.tif", image, bands, grid)


def ones(height, width, bands=4):
    return np.ones((height, width, bands), np.uint16)


FAULTS = {
    "smaller than a crop": (
        replace(DAYS[0], ones(63, 64), Grid(63, 64, "EPSG:32631", UTM)),
        rf"{DAYS[0]}.tif has 63 x 64 pixels, smaller than a crop",
    ),
    "size": (
        replace(DAYS[1], ones(64, 65), Grid(64, 65, "EPSG:32631", UTM)),
        rf"{DAYS[1]}.tif has size \(64, 65\)",
    ),
    "CRS": (
        replace(DAYS[1], ones(64, 64), Grid(64, 64, "EPSG:32632", UTM)),
        rf"{DAYS[1]}.tif has CRS EPSG:32632",
    ),
    "transform": (
        replace(DAYS[2], ones(64, 64), Grid(64, 64, "EPSG:32631", (20.0, *UTM[1:]))),
        rf"{DAYS[2]}.tif has transform \(20.0",
    ),
    "bands": (
        replace(DAYS[2], ones(64, 64, 3), Grid(64, 64, "EPSG:32631", UTM)),
        rf"{DAYS[2]}.tif has no band B08",
    ),
    "mask of another size": (
        replace(f"{DAYS[0]}_cloud", ones(64, 32, 1), Grid(64, 32, None, None)),
        rf"{DAYS[0]}_cloud.tif has 64 x 32 pixels, which do not fit the 64 x 64",
    ),
    "cut in half": (
        lambda folder: cut_in_half(folder / f"{DAYS[1]}.tif"),
        rf"{DAYS[1]}.tif cannot be read: .* truncated or damaged",
    ),
    "mask cut in half": (
        lambda folder: cut_in_half(folder / f"{DAYS[1]}_cloud.tif"),
        rf"{DAYS[1]}_cloud.tif cannot be read: .* truncated or damaged",
    ),
    "no raster": (
        lambda folder: (folder / f"{DAYS[1]}.tif").write_text("not found"),
        rf"{DAYS[1]}.tif cannot be read",
    ),
    "display values": (
        replace(DAYS[1], ones(64, 64).astype(np.uint8), Grid(64, 64, "EPSG:32631", UTM)),
        rf"{DAYS[1]}.tif holds 8-bit values",
    ),
    "floats of thousands": (
        replace(DAYS[1], 3000 * ones(64, 64).astype("f4"), Grid(64, 64, "EPSG:32631", UTM)),
        rf"{DAYS[1]}.tif holds reflectance up to 3000",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_prepare_raster_at_fault_is_named_and_nothing_is_written(tmp_path, coded_series, fault):
    coded_series(tmp_path / "source" / "fine")
    folder = coded_series(tmp_path / "source" / "lake", cloudy=(0,))
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(DataError, match=message):
        quietly(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepare_raster_that_is_truncated_after_screening_leaves_no_manifest(
    tmp_path, source, monkeypatch
):
    monkeypatch.setattr(survey, "KEPT_BYTES", 0)  # so that rasters are read again

    def cut_then_write(path, records, compression, num_threads):
        cut_in_half(source / "b" / f"{DAYS[0]}.tif")
        return begin_shard(path, records, compression, num_threads)

    monkeypatch.setattr(shards, "begin_shard", cut_then_write)
    with pytest.raises(DataError, match=rf"{DAYS[0]}.tif cannot be read"):
        quietly(source, tmp_path / "out", EACH_RECORD_A_SHARD)
    with pytest.raises(MissingError, match="is not finished"):
        read_manifest(tmp_path / "out")


def keep_nothing(monkeypatch):
    monkeypatch.setattr(survey, "KEPT_BYTES", 0)


def keep_one_date(monkeypatch):
    monkeypatch.setattr(survey, "KEPT_BYTES", 9 * 300 * 280)


def fail_to_keep(monkeypatch):
    def seek(writer, at, values):
        writer.is_complete = False

    monkeypatch.setattr(PixelWriter, "_put", seek)


def have_no_room(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    monkeypatch.setattr(preparation, "check_space", lambda *args: None)


@pytest.mark.parametrize("limit", [keep_nothing, keep_one_date, fail_to_keep, have_no_room])
def test_prepare_pixels_that_are_not_kept_are_read_again(tmp_path, monkeypatch, limit, listing):
    config = PrepareConfig(patch_size=130, shard_bytes=1, max_cloud=0.5)
    rng = np.random.default_rng(0)
    folder = tmp_path / "lake"
    folder.mkdir()
    for day in DAYS[:3]:
        image = rng.integers(1, 9000, (300, 280, 4)).astype(np.uint16)
        image[rng.random((300, 280)) < 0.05, 1] = 0
        write_raster(folder / f"{day}.tif", image, BANDS, Grid(300, 280, None, None))
        cloud = (rng.random((300, 280, 1)) < 0.1).astype(np.uint8)
        write_raster(folder / f"{day}_cloud.tif", cloud, ["cloud"], Grid(300, 280, None, None))
    kept = []
    opened = KeptPixels.opened
    monkeypatch.setattr(KeptPixels, "opened", lambda one: (kept.append(one.path), opened(one))[1])
    quietly(folder, tmp_path / "whole", config)
    assert len(set(kept)) == 3
    kept.clear()
    with monkeypatch.context() as patch:
        limit(patch)
        quietly(folder, tmp_path / "out", config)
    assert len(set(kept)) == (limit is keep_one_date)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_prepare_kept_pixels_that_are_lost_are_an_error_and_the_run_resumes(
    tmp_path, source, monkeypatch, listing
):
    whole, out = tmp_path / "whole", tmp_path / "out"
    quietly(source, whole, EACH_RECORD_A_SHARD)

    def lose(path, records, compression, num_threads):
        for kept in out.glob(".partial-*.pixels"):
            os.truncate(kept, 100)
        return begin_shard(path, records, compression, num_threads)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "begin_shard", lose)
        with pytest.raises(DataError, match=r"is truncated\. Run the same command again"):
            quietly(source, out, EACH_RECORD_A_SHARD)
    assert listing(out) == ["plan.json"]
    quietly(source, out, EACH_RECORD_A_SHARD)
    assert contents(out) == contents(whole)


def test_prepare_nothing_is_written_where_no_series_is_left(tmp_path, coded_series):
    source = coded_series(tmp_path / "lake", dates=1)
    with pytest.raises(DataError, match="lake: 1 of 1 dates pass, 2 are needed"):
        quietly(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepare_no_source_at_all(tmp_path):
    with pytest.raises(ConfigError, match="No source is given"):
        quietly([], tmp_path / "out")


def test_prepare_missing_source_raises(tmp_path):
    with pytest.raises(MissingError, match=r"Nothing at .*nowhere"):
        quietly(tmp_path / "nowhere", tmp_path / "out")


def test_prepare_finished_records_are_left_as_they_are(tmp_path, source):
    first = quietly(source, tmp_path / "out", EACH_RECORD_A_SHARD)
    before, stamps = contents(tmp_path / "out"), times(tmp_path / "out")
    assert quietly(source, tmp_path / "out", EACH_RECORD_A_SHARD) == first
    assert contents(tmp_path / "out") == before
    assert times(tmp_path / "out") == stamps


@pytest.mark.parametrize("num_shards", [0, 1, 2])
def test_prepare_run_that_met_a_full_disk_resumes(
    tmp_path, source, monkeypatch, num_shards, listing
):
    whole, out = tmp_path / "whole", tmp_path / "out"
    quietly(source, whole, EACH_RECORD_A_SHARD)
    written = []

    def write_until_full(path, records, compression, num_threads):
        if len(written) == num_shards:
            raise OSError("no space left on device")
        written.append(path.name)
        return begin_shard(path, records, compression, num_threads)

    monkeypatch.setattr(shards, "begin_shard", write_until_full)
    with pytest.raises(OSError, match="no space left"):
        quietly(source, out, EACH_RECORD_A_SHARD)
    monkeypatch.undo()
    assert listing(out) == ["plan.json", *written]
    stamps = times(out)
    quietly(source, out, EACH_RECORD_A_SHARD)
    assert contents(out) == contents(whole)
    assert stamps.items() <= times(out).items()


# Replaces old records again and again, each time killed one step later: before each removal, before
# each record, and before and after each rename. Forks save loading TensorFlow for each run.
KILLED_AT_EVERY_STEP = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from sits_keras.config import PrepareConfig
from sits_keras.data.preparation import pipeline as preparation, shards as sharding

source, old, folder = map(Path, sys.argv[1:])


def replace_until(step, out):
    steps = itertools.count()

    def kill_here():
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def replace(*paths):
        kill_here()
        os_replace(*paths)
        kill_here()

    def unlink(path):
        if os.path.exists(path):
            kill_here()
        os_unlink(path)

    def serialize(*args):
        kill_here()
        return sharding_serialize(*args)

    os_replace, os.replace = os.replace, replace
    os_unlink, os.unlink = os.unlink, unlink
    sharding_serialize, sharding.serialize = sharding.serialize, serialize
    config = PrepareConfig(shard_bytes=1, patch_size=128)
    preparation.prepare(source, out, config, overwrite=True, progress=False)


for step in itertools.count():
    out = folder / f"out-{step:02d}"
    shutil.copytree(old, out)
    child = os.fork()
    if not child:
        replace_until(step, out)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_prepare_run_that_is_killed_at_any_step_resumes(tmp_path, coded_series):
    coded_series(tmp_path / "source" / "a")
    coded_series(tmp_path / "source" / "b", dates=2)
    source = tmp_path / "source"
    whole, old, killed = tmp_path / "whole", tmp_path / "old", tmp_path / "killed"
    quietly(source, whole, EACH_RECORD_A_SHARD)
    quietly(source, old, PrepareConfig(shard_bytes=1, patch_size=128, bands=("B08",)))
    killed.mkdir()
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, source, old, killed]
    path = os.pathsep.join([str(Path(preparation.__file__).parents[3]), *sys.path])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    outs = sorted(killed.iterdir())
    # 4 old files are removed, 2 records made, 4 new files renamed, and the kept pixels of 5 dates
    # removed; the last run is not killed.
    assert len(outs) == 4 + 2 + 2 * 4 + 5 + 1
    old_plan, new_plan = contents(old)["plan.json"], contents(whole)["plan.json"]
    shards_kept = set()
    for out in outs:
        plan, stamps = contents(out).get("plan.json"), times(out)
        quietly(source, out, EACH_RECORD_A_SHARD, overwrite=plan == old_plan)
        assert contents(out) == contents(whole)
        if plan == new_plan:
            assert stamps.items() <= times(out).items()
            shards_kept.add(len(stamps))
    assert shards_kept == {0, 1, 2}


def test_prepare_shard_that_was_truncated_is_written_again(tmp_path, source):
    out = tmp_path / "out"
    quietly(source, out, EACH_RECORD_A_SHARD)
    before, stamps = contents(out), times(out)
    cut_in_half(out / "shard-00001.tfrecord")
    with pytest.raises(DataError, match=r"shard-00001.tfrecord has .* bytes"):
        read_manifest(out)
    quietly(source, out, EACH_RECORD_A_SHARD)
    assert contents(out) == before
    after = times(out)
    assert after.pop("shard-00001.tfrecord") != stamps.pop("shard-00001.tfrecord")
    assert after == stamps


def test_prepare_shard_with_a_flipped_bit_is_written_again(tmp_path, source):
    out = tmp_path / "out"
    quietly(source, out)
    before = contents(out)
    path = out / "shard-00000.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert contents(out) != before
    quietly(source, out)
    assert contents(out) == before


def test_prepare_shard_that_went_missing_is_written_again(tmp_path, source):
    out = tmp_path / "out"
    quietly(source, out, EACH_RECORD_A_SHARD)
    before = contents(out)
    (out / "shard-00002.tfrecord").unlink()
    quietly(source, out, EACH_RECORD_A_SHARD)
    assert contents(out) == before


def test_prepare_damaged_manifest_is_replaced_with_overwrite_alone(tmp_path, source):
    out = tmp_path / "out"
    quietly(source, out)
    before = contents(out)
    cut_in_half(out / "manifest.json")
    cut_in_half(out / "shard-00000.tfrecord")
    with pytest.raises(DataError, match=r"manifest.json is damaged: .*--overwrite"):
        quietly(source, out)
    quietly(source, out, overwrite=True)
    assert contents(out) == before


def test_prepare_other_options_need_overwrite(tmp_path, source):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    quietly(source, out, EACH_RECORD_A_SHARD)
    before = contents(out)
    with pytest.raises(
        ExistsError,
        match=r"records of other sources or options.* \(options: .*shard_bytes 1 \(here",
    ):
        quietly(source, out)
    assert contents(out) == before
    quietly(source, out, overwrite=True)
    quietly(source, fresh)
    assert contents(out) == contents(fresh)


def test_prepare_changed_sources_need_overwrite(tmp_path, source, coded_series, read_plainly):
    out = tmp_path / "out"
    quietly(source, out)
    image = np.full((64, 64, 4), 77, np.uint16)
    write_raster(source / "b" / f"{DAYS[0]}.tif", image, BANDS, Grid(64, 64, None, None))
    with pytest.raises(
        ExistsError,
        match=rf"or the sources have changed since \(sources: b/{DAYS[0]}/b/{DAYS[0]}\.tif has ",
    ):
        quietly(source, out)
    manifest = quietly(source, out, overwrite=True)
    assert np.unique(read_plainly(manifest.files)[-1].images[0]) == [77]


def test_prepare_of_copies_names_what_differs_and_gives_the_same_records(tmp_path, source):
    out = tmp_path / "out"
    manifest = quietly(source, out)
    changed = sorted(source.rglob("*.tif"))
    for file in changed:
        os.utime(file, ns=(0, 1_600_000_000_123_000_000))
    with pytest.raises(
        ExistsError,
        match=r"\.tif has the same size but was written at 2020-09-13 12:26:40\.123 UTC, before at "
        rf".*; {len(changed) - 3} more\)",
    ):
        quietly(source, out)
    again = quietly(source, out, overwrite=True)
    assert again.inputs != manifest.inputs
    assert again.content_sha256 == manifest.content_sha256
    one, *others = manifest.shards
    other = manifest._replace(shards=(one._replace(sha256="0" * 64), *others))
    assert other.content_sha256 != manifest.content_sha256
    source.joinpath("b", f"{DAYS[0]}.tif").unlink()
    with pytest.raises(ExistsError, match=rf"{DAYS[0]}\.tif is missing"):
        quietly(source, out)


def test_prepare_old_records_stay_where_the_new_ones_cannot_be_planned(tmp_path, source):
    out = tmp_path / "out"
    manifest = quietly(source, out)
    cut_in_half(source / "a" / f"{DAYS[0]}.tif")
    with pytest.raises(DataError, match="cannot be read"):
        quietly(source, out, overwrite=True)
    verify(read_manifest(out))
    assert read_manifest(out) == manifest


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "years of work"},
        {"manifest.json": '{"name": "a web page"}'},
        {"plan.json": '{"name": "a holiday"}', "shard-1.tfrecord": "not ours"},
        {"plan.json": "no JSON", "manifest.json": "neither"},
        {"plan.json": "[1, 2]"},
    ],
    ids=str,
)
def test_prepare_folder_of_another_kind_is_never_touched(tmp_path, source, files, overwrite):
    out = tmp_path / "out"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    before = contents(out)
    with pytest.raises(ExistsError, match="is not empty and does not contain records"):
        quietly(source, out, overwrite=overwrite)
    assert contents(out) == before


def test_prepare_overwrite_leaves_the_files_of_others(tmp_path, source):
    out = tmp_path / "out"
    quietly(source, out)
    (out / "notes.txt").write_text("mine")
    quietly(source, out, EACH_RECORD_A_SHARD, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_prepare_output_that_is_a_file(tmp_path, source, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExistsError, match=r"out is a file. Expected a folder"):
        quietly(source, tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "mine"


def test_prepare_empty_folder_is_written_to(tmp_path, source):
    (tmp_path / "out").mkdir()
    assert quietly(source, tmp_path / "out").num_records == 3


def screened_independently(path):
    """Return the valid-data fraction of an image and its cloud fraction, by rasterio."""
    with rasterio.open(path) as dataset:
        complete = (dataset.read() != 0).all(axis=0)
    mask = path.with_name(f"{path.stem}_cloud.tif")
    if not mask.exists():
        return complete.mean(), 0.0
    with rasterio.open(mask) as dataset:
        return complete.mean(), (dataset.read(1) != 0)[complete].mean()


@pytest.fixture(scope="module")
def real_records(real_data, tmp_path_factory):
    names = ["earthnet-29SND-1209-1977", "gfmap-31N", "worldcereal-31UFS-monthly"]
    return quietly(real_data / "series", tmp_path_factory.mktemp("real"), include=names)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_prepare_real_series_are_screened_as_their_pixels_say(real_data, real_records):
    assert len(real_records.series) == 3
    for series in real_records.series:
        passed = []
        for path in sorted((real_data / "series" / series["id"]).glob("????-??-??.tif")):
            complete, cloud = screened_independently(path)
            reason = series["rejected"].get(path.stem)
            if complete < 0.85:
                assert reason == f"complete {complete:.2%} < 85.00%"
            elif cloud > 0.02:
                assert reason == f"cloud {cloud:.2%} > 2.00%"
            else:
                assert reason == (
                    None if path.stem in series["dates"] else "12 other dates are kept"
                )
                passed.append(path.stem)
        assert len(series["dates"]) == min(len(passed), 12)
        assert set(series["dates"]) <= set(passed)
        assert (series["dates"][0], series["dates"][-1]) == (passed[0], passed[-1])


def test_prepare_real_series_are_rejected_for_reasons_that_are_known(real_records):
    cloudy, clear, holes = real_records.series
    assert cloudy["rejected"] == {
        "2017-08-19": "cloud 18.71% > 2.00%",
        "2017-10-03": "cloud 12.15% > 2.00%",
        "2017-10-28": "cloud 100.00% > 2.00%",
        "2017-11-17": "cloud 2.86% > 2.00%",
    }
    assert clear["rejected"] == {}
    assert holes["rejected"]["2021-01-01"] == "complete 0.00% < 85.00%"
    assert list(holes["rejected"].values()).count("12 other dates are kept") == 5


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_prepare_real_records_hold_the_pixels_of_the_files(real_data, real_records, read_plainly):
    for record in read_plainly(real_records.files):
        row, col, height, width = record.window
        for date, image in zip(record.dates, record.images, strict=True):
            with rasterio.open(real_data / "series" / record.series / f"{date}.tif") as dataset:
                pixels = np.moveaxis(dataset.read(), 0, -1)[row : row + height, col : col + width]
            complete = (pixels != 0).all(axis=-1, keepdims=True)
            np.testing.assert_array_equal(image, np.where(complete, pixels, 0))


def test_prepare_real_records_give_a_batch(real_records):
    ((x, y),) = pair_dataset(real_records, 8, seed=0, num_steps=1)
    assert x.shape == y.shape == (8, 64, 64, 4)
    for images in (x, y):
        assert float(tf.reduce_min(images)) >= -1
        assert float(tf.reduce_max(images)) <= 1
        # No crop is blank, and none is all clipped.
        assert float(tf.reduce_min(tf.math.reduce_std(images, axis=(1, 2, 3)))) > 0.01
    assert float(tf.reduce_min(tf.reduce_max(tf.abs(x - y), axis=(1, 2, 3)))) > 0
