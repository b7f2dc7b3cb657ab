"""Whole preparations of Sentinel-2 products: many workers, kills, and what can be amiss."""

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_products import SIDE, ground, make_safe, make_series, write_image

from sits_keras.config import PrepareConfig
from sits_keras.data import execution, inspect, prepare, read_manifest
from sits_keras.data.preparation import granule_reader, survey
from sits_keras.data.preparation import pipeline as preparation
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.records import read_blocks, verify
from sits_keras.errors import DataError

pytestmark = pytest.mark.integration

RGBN = ("B02", "B03", "B04", "B08")
SMALL = PrepareConfig(patch_size=128, shard_bytes=1)  # nine patches, each a shard


def quietly(*args, **kwargs):
    return prepare(*args, progress=False, **kwargs)


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """Three clear dates of one tile. Not to change."""
    return make_series(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def whole(products, tmp_path_factory):
    """The records of `products` in nine shards. Not to change."""
    return quietly(products, tmp_path_factory.mktemp("whole") / "out", SMALL).folder


@pytest.mark.parametrize("num_cores", [1, 3])
def test_prepare_number_of_cores_does_not_change_the_records(
    products, whole, tmp_path, monkeypatch, num_cores
):
    monkeypatch.setattr(execution, "num_cores", lambda: num_cores)
    monkeypatch.setattr(survey, "KEPT_BYTES", 0)  # each patch is read at several dates at a time
    quietly(products, tmp_path / "out", SMALL)
    assert contents(tmp_path / "out") == contents(whole)


def test_prepare_products_of_a_tile_become_one_series(products, whole):
    manifest = read_manifest(whole)
    (series,) = manifest.series
    assert (series["id"], series["crs"]) == ("T31UDQ", "EPSG:32631")
    assert series["transform"] == [10, 0, 600_000, 0, -10, 5_400_000]
    assert series["dates"] == ["2023-01-01", "2023-02-01", "2023-03-01"]
    assert series["products"]["2023-02-01"] == {
        "name": "S2A_MSIL2A_20230201T105031_N0509_R051_T31UDQ_20230201T150000.SAFE",
        "baseline": "05.09",
    }
    assert (series["blocks"], len(manifest.shards)) == (9, 9)
    for block, images in read_blocks(manifest):
        row, col, height, width = block.window
        for date, image in enumerate(images):
            for band, name in enumerate(RGBN):
                known = ground(name, 10, date)[row : row + height, col : col + width]
                np.testing.assert_array_equal(image[..., band], known)


def test_prepare_folders_and_zips_give_the_same_records(products, whole, tmp_path):
    make_series(tmp_path / "zips", archive=True)
    packed = quietly(tmp_path / "zips", tmp_path / "out", SMALL)
    assert packed.shards == read_manifest(whole).shards


def test_prepare_any_number_of_workers_writes_the_same_bytes(products, whole, tmp_path):
    quietly(products, tmp_path / "out", SMALL, workers=2)
    assert contents(tmp_path / "out") == contents(whole)


def test_prepare_bands_of_several_resolutions_go_together(products, tmp_path):
    source = make_series(tmp_path / "in", 2, bands=("B02", "B11", "B01"))
    manifest = quietly(source, tmp_path / "out", PrepareConfig(bands=("B11", "B02", "B01")))
    block, images = next(read_blocks(manifest))
    row, col, height, width = block.window
    for position, (band, factor) in enumerate((("B11", 2), ("B02", 1), ("B01", 6))):
        fine = ground(band, 10 * factor, 1).repeat(factor, 0).repeat(factor, 1)
        known = fine[row : row + height, col : col + width]
        np.testing.assert_array_equal(images[1, ..., position], known)


def test_prepare_central_patches_alone(products, tmp_path):
    config = PrepareConfig(patch_size=128, central=1)
    ((block, _),) = read_blocks(quietly(products, tmp_path / "out", config))
    assert block.window == (128, 128, 128, 128)


def test_prepare_clouds_of_a_block_leave_that_block_out(tmp_path):
    scl = np.full((192, 192), 4)
    scl[:20, :20] = 9  # 1 % of the granule, a tenth of its first block
    make_series(tmp_path / "in", 2)
    make_safe(tmp_path / "in", date="2023-06-01", when=2, scl=scl)
    manifest = quietly(tmp_path / "in", tmp_path / "out", SMALL)
    dates = {block.window[:2]: block.dates for block, _ in read_blocks(manifest)}
    assert dates.pop((0, 0)) == ("2023-01-01", "2023-02-01")
    assert set(dates.values()) == {("2023-01-01", "2023-02-01", "2023-06-01")}


@pytest.mark.parametrize("mask", ["scl", "classi", None])
def test_prepare_small_product_is_read_once_and_gives_the_records_of_a_large_one(
    tmp_path, monkeypatch, mask
):
    source, options = tmp_path / "in", {"level": "L1C"}
    for month in range(1, 4):
        if mask == "scl":
            scl = np.full((192, 192), 4)
            scl[150 - month :] = 9
            options = {"scl": scl}
        elif mask == "classi":
            classi = np.zeros((2, 64, 64))
            classi[0, 50 - month :] = 1
            options = {"level": "L1C", "classi": classi}
        date, holes = f"2023-0{month}-01", {"B03": slice(month)}
        make_safe(source, date=date, when=month, holes=holes, cloud=10.0, **options)
    config = PrepareConfig(patch_size=128, shard_bytes=1, min_complete=0.9, max_cloud=0.5)
    reads = []
    read = GranuleReader.read
    monkeypatch.setattr(GranuleReader, "read", lambda *args: (reads.append(args), read(*args))[1])
    quietly(source, tmp_path / "small", config)
    assert not reads
    monkeypatch.setattr(granule_reader, "_SMALL_SIDE", 0)
    quietly(source, tmp_path / "large", config)
    assert reads
    assert contents(tmp_path / "small") == contents(tmp_path / "large")


def moved(folder):
    """Two dates of one place on grids that lie 30 m apart."""
    for month, shift in ((1, 0), (2, 30)):
        for band in RGBN:
            path = folder / f"2020-0{month}-01_{band}.tif"
            values = ground(band, 10).astype(np.uint16)
            write_image(path, values, 10, corner=(600_000 + shift, 5_400_000))
    return folder


def test_prepare_dates_on_other_grids_are_resampled_if_asked_and_it_is_reported(tmp_path):
    source = moved(tmp_path / "lake")
    with pytest.raises(DataError, match=r"02-01_\* has transform .*resample them to one \(align"):
        quietly(source, tmp_path / "out")
    config = PrepareConfig(align=True, min_complete=0.5)
    with pytest.warns(UserWarning, match=r"lake: 2020-02-01 lie on another grid .*\(bilinear\)"):
        manifest = quietly(source, tmp_path / "out", config)
    assert manifest.series[0]["resampled"] == ["2020-02-01"]
    _, images = next(read_blocks(manifest))
    np.testing.assert_array_equal(images[1, :, 3:, 0], images[0, :, :-3, 0])


@pytest.mark.parametrize("align", [False, True])
def test_prepare_utm_zones_are_never_mixed(tmp_path, align):
    for month, crs in ((1, "EPSG:32631"), (2, "EPSG:32632")):
        path = tmp_path / "lake" / f"2020-0{month}-01_B02.tif"
        write_image(path, ground("B02", 10).astype(np.uint16), 10, crs)
    config = PrepareConfig(bands=("B02",), align=align)
    with pytest.raises(DataError, match=r"has CRS EPSG:32632, .*UTM zones are never mixed"):
        quietly(tmp_path / "lake", tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_inspect_agrees_with_prepare(tmp_path):
    make_series(tmp_path / "in", 2)
    cloudy, holes = np.full((192, 192), 4), np.full((192, 192), 4)
    cloudy[:96] = 8
    holes[:60] = 0
    make_safe(tmp_path / "in", date="2023-06-01", scl=cloudy)
    make_safe(tmp_path / "in", date="2023-07-01", scl=holes, baseline="03.01", offset=None)
    rows = inspect(tmp_path / "in", progress=False)
    assert [row["kept"] for row in rows] == [
        "kept",
        "kept",
        "cloud 50.00% > 2.00%",
        "complete 68.75% < 85.00%",
    ]
    assert [row["baseline"] for row in rows] == ["05.09"] * 3 + ["03.01"]
    assert {row["mask"] for row in rows} == {"SCL"}
    assert rows[0]["footprint"][0] == (1.6, 48.6)
    (series,) = quietly(tmp_path / "in", tmp_path / "out").series
    assert series["dates"] == [row["date"] for row in rows[:2]]
    assert series["rejected"] == {row["date"]: row["kept"] for row in rows[2:]}


# Runs preparations in forks, which save loading TensorFlow for each, and kills them after a random
# part of the time that one takes.
KILLED_AT_RANDOM = """
import os, random, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from sits_keras.config import PrepareConfig
from sits_keras.data.preparation.pipeline import prepare

source, folder = map(Path, sys.argv[1:])


def start(out):
    child = os.fork()
    if not child:
        config = PrepareConfig(patch_size=128, shard_bytes=1)
        prepare(source, out, config, progress=False)
        os._exit(0)
    return child


durations = []
for name in ("first", "second"):  # the first one alone finds nothing in the caches
    begun = time.monotonic()
    assert os.waitpid(start(folder / name), 0)[1] == 0
    durations.append(time.monotonic() - begun)
duration = min(durations)
random.seed(0)
killed = 0
for index in range(20):
    out = folder / f"out-{index:02d}"
    child = start(out)
    time.sleep(random.uniform(0, duration))
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
        killed += 1
    else:
        duration *= 0.8  # the machine was busier when it was measured
    assert os.waitpid(start(out), 0)[1] == 0
print(killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_prepare_run_that_is_killed_at_20_random_moments_ends_with_the_same_bytes(
    products, whole, tmp_path
):
    root = Path(preparation.__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_RANDOM, products, tmp_path],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    )
    assert int(done.stdout) >= 10  # the rest were done before their time came
    outs = sorted(tmp_path.glob("out-*"))
    assert len(outs) == 20
    for out in outs:
        assert contents(out) == contents(whole)


@pytest.fixture
def tmpfs(tmp_path):
    """Mounts a small file system of its own."""
    mounted = []

    def mount(options):
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"needs to mount a file system, and cannot: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_prepare_too_little_room_is_reported_before_anything_is_written(products, tmpfs):
    disk = tmpfs("size=1100k")  # of nine shards of 400 kB, two
    with pytest.raises(OSError, match=r"up to 3\.5 MB are needed, and 1\.1 MB are free"):
        quietly(products, disk / "out", SMALL)
    assert [path.name for path in (disk / "out").iterdir()] == ["plan.json"]


def test_prepare_full_disk_leaves_no_partial_file_and_resumes_with_space(
    products, whole, tmpfs, monkeypatch
):
    disk = tmpfs("size=1100k")
    with monkeypatch.context() as patch:  # as if others filled it meanwhile
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
        with pytest.raises(OSError, match=r"shard-0000\d.tfrecord cannot be written|No space left"):
            quietly(products, disk / "out", SMALL)
    left = contents(disk / "out")
    assert set(left) == {"plan.json", "shard-00000.tfrecord", "shard-00001.tfrecord"}
    assert left.items() <= contents(whole).items()
    subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
    quietly(products, disk / "out", SMALL)
    assert contents(disk / "out") == contents(whole)


def test_prepare_output_that_is_read_only_is_named(products, tmpfs):
    disk = tmpfs("ro")
    with pytest.raises(OSError, match=f"out cannot be written: the folder {disk} is not writable"):
        quietly(products, disk / "out", SMALL)


def test_prepare_input_that_is_read_only_is_read_and_left_alone(tmpfs, whole, tmp_path):
    disk = tmpfs("size=20m")
    make_series(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    manifest = quietly(disk, tmp_path / "out", SMALL)
    assert manifest.shards == read_manifest(whole).shards


def test_prepare_patches_without_any_data_are_left_out(tmp_path):
    scl = np.full((192, 192), 4)
    holes = dict.fromkeys(RGBN, slice(0, 40))  # a tenth; the classification says nothing of it
    source = make_series(tmp_path / "in", 2, scl=scl, holes=holes)
    config = PrepareConfig(patch_size=128, min_complete=0.8)
    manifest = quietly(source, tmp_path / "out", config)
    assert {block.window.row for block, _ in read_blocks(manifest)} == {128, 256}
    assert manifest.series[0]["blocks_skipped"] == 3


def test_prepare_no_granule_that_passes_is_reported_before_anything_is_written(tmp_path):
    source = make_series(tmp_path / "in", 2, scl=np.full((192, 192), 9))
    with pytest.raises(DataError, match="T31UDQ: 0 of 2 dates pass, 2 are needed"):
        quietly(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepare_truncated_image_is_named_before_anything_is_written(tmp_path):
    source = make_series(tmp_path / "in", 2)
    image = sorted(source.rglob("*_B08_10m.jp2"))[1]
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{image.name} cannot be read"):
        quietly(source, tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()


def test_prepare_shards_of_nothing_are_not_in_the_manifest(tmp_path):
    holes = dict.fromkeys(RGBN, slice(0, 128))
    source = make_series(tmp_path / "in", 2, holes=holes)
    config = PrepareConfig(patch_size=128, shard_bytes=1, min_complete=0.5)
    manifest = quietly(source, tmp_path / "out", config)
    assert len(manifest.shards) == 6
    assert manifest.num_records == 6
    verify(manifest)
    assert quietly(source, tmp_path / "out", config) == manifest
    assert SIDE == 3 * 128


@pytest.fixture
def store(tmp_path):
    """A server of the files of `tmp_path`, which wants the signature that `store.signature` is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path, _, query = self.path.partition("?")
            if f"sig={server.signature}" not in query:
                self.send_error(403)
                return
            content = (tmp_path / path[1:]).read_bytes()
            wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            first = int(wanted[1]) if wanted else 0
            part = content[first : int(wanted[2]) + 1 if wanted and wanted[2] else None]
            self.send_response(206 if wanted else 200)
            if wanted:
                last = first + len(part) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.signature = ""
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sign(store, folder, signature):
    """Writes two dates of one place as a search whose URLs have a signature."""
    store.signature = signature
    features = []
    for month in (4, 5):
        assets = {}
        for band in RGBN:
            name = f"2020-0{month}-21_{band}.tif"
            if not (folder / name).exists():
                write_image(folder / name, ground(band, 10, month, 128).astype(np.uint16), 10)
            port = store.server_address[1]
            assets[band] = {
                "href": f"http://127.0.0.1:{port}/{name}?sp=rl&sig={signature}",
                "eo:bands": [{"name": band}],
            }
        features.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"S2_{month}",
                "geometry": None,
                "links": [],
                "properties": {
                    "datetime": f"2020-0{month}-21T10:50:31Z",
                    "s2:mgrs_tile": "31UFS",
                    "s2:processing_baseline": "02.14",
                    "eo:cloud_cover": 1,
                },
                "assets": assets,
            }
        )
    path = folder / "search.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_prepare_resumes_after_urls_were_signed_again(store, tmp_path):
    out = tmp_path / "records"
    quietly(sign(store, tmp_path, "one"), out, SMALL)
    before = contents(out)
    (out / "manifest.json").unlink()  # as if it had been stopped before its end
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    quietly(sign(store, tmp_path, "two"), out, SMALL)
    assert contents(out) == before
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*")} == times


def test_prepare_signature_that_ran_out_is_reported_without_it(store, tmp_path):
    search = sign(store, tmp_path, "secret")
    store.signature = "another"
    with pytest.raises(DataError, match="403") as error:
        quietly(search, tmp_path / "out", SMALL)
    assert "secret" not in str(error.value)
    assert "sign" in str(error.value)
