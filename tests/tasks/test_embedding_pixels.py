import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pystac
import pytest
import rasterio

from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.hub.encoder import weights_sha256
from sits_keras.hub.projection import read_projection, write_projection
from sits_keras.model import DisentangledSITS
from sits_keras.tasks.embedding import tiles
from sits_keras.tasks.embedding.projection import fit_projection
from sits_keras.tasks.embedding.rasters import embed_raster

BANDS = ("B02", "B03", "B04", "B08")
NUM_FEATURES = 4 + 1 + 2 + 4 + 8


@pytest.fixture(scope="module")
def model() -> DisentangledSITS:
    return DisentangledSITS(
        ModelConfig(width=1, shared_channels=2, exclusive_dim=3, padding="context")
    )


@pytest.fixture(scope="module")
def plain(model) -> hub.HubEncoder:
    """An encoder without a projection. Not to change."""
    return hub.wrap(model)


@pytest.fixture(scope="module")
def encoder(plain) -> hub.HubEncoder:
    """The same with a projection. Not to change."""
    images = [(name, make_images(seed)) for seed, name in enumerate(("lake", "wood"))]
    encoder = copy.copy(plain)
    encoder.projection = fit_projection(plain, images)
    return encoder


def make_images(seed: int, height: int = 96, width: int = 80, dates: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(300, 3000, (dates, height // 8, width // 8, 4))
    fine = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return (fine + rng.integers(-200, 200, fine.shape)).astype(np.uint16)


def save(path, values, corner=(602_240, 5_000_320), names=BANDS):
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = (10.0, 0.0, float(corner[0]), 0.0, -10.0, float(corner[1]))
    write_raster(path, values, names, Grid(*values.shape[:2], "EPSG:32631", transform))
    return path


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "lake"
    for month, image in enumerate(make_images(7), start=1):
        save(folder / f"2020-0{month}-01.tif", image)
        cloud = np.zeros((*image.shape[:2], 1), np.uint8)
        cloud[: 16 * month, :16] = 1
        save(folder / f"2020-0{month}-01_cloud.tif", cloud, names=["cloud"])
    return folder


def read(path):
    with rasterio.open(path) as source:
        return np.moveaxis(source.read(), 0, -1)


def test_fitted_projection_is_the_same_each_time(encoder):
    projection = encoder.projection
    assert projection.axes.shape == (NUM_FEATURES, NUM_FEATURES)
    assert projection.encoder == weights_sha256(encoder)
    again = fit_projection(encoder, [("lake", make_images(0)), ("wood", make_images(1))])
    np.testing.assert_array_equal(again.axes, projection.axes)


def test_fitted_axes_are_principal_components(encoder, tmp_path):
    # The numbers of the images that they are fitted on are uncorrelated, and of deviation 1.
    values = []
    for seed in (0, 1):
        for date, image in enumerate(make_images(seed)):
            out = tmp_path / f"{seed}_{date}.tif"
            embed_raster(image, out, encoder, dim=8, dtype="float32")
            values.append(read(out).reshape(-1, 8))
    found = np.cov(np.concatenate(values), rowvar=False)
    np.testing.assert_allclose(found, np.eye(8), atol=0.25)  # they are a sample of the pixels


def test_projection_round_trip_has_same_bytes(encoder, tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    write_projection(first, encoder.projection)
    found = read_projection(first)
    write_projection(second, found)
    assert first.read_bytes() == second.read_bytes()
    assert found.sha256 == encoder.projection.sha256


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_damaged_projection_is_refused(content, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is not a projection, or damaged"):
        read_projection(path)


def test_exported_module_keeps_projection(model, encoder, tmp_path):
    path = hub.export(model, tmp_path / "module", projection=encoder.projection)
    assert hub.load(path).projection.sha256 == encoder.projection.sha256


def test_embed_raster_of_series_writes_contract(encoder, series, tmp_path):
    out = tmp_path / "lake.tif"
    done = embed_raster(series, out, encoder, dim=8)
    with rasterio.open(out) as source:
        assert source.descriptions == tuple(f"A{number:02}" for number in range(8))
        assert (source.dtypes[0], source.nodata) == ("int8", -128)
        assert source.scales == (0.05,) * 8
        assert source.offsets == (0,) * 8
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        tags = source.tags()
        shape = source.shape
    assert shape == (96, 80)
    assert tags["encoder_sha256"] == weights_sha256(encoder)
    assert tags["projection_sha256"] == encoder.projection.sha256
    assert tags["dates"] == "2020-01-01,2020-02-01,2020-03-01"
    assert (tags["dim"], tags["resolution"], tags["num_dates"]) == ("8", "1", "3")
    with rasterio.open(tmp_path / "lake.quality.tif") as source:
        assert source.descriptions == ("spread", "dates")
        spread, dates = source.read()
    np.testing.assert_array_equal(dates[:, 20], 3)
    np.testing.assert_array_equal(dates[::16, 0], [0, 1, 2, 3, 3, 3])
    assert (read(out)[:16, :16] == -128).all()
    np.testing.assert_array_equal(np.isnan(spread[::16, 0]), [True, True, False] + [False] * 3)
    assert done.num_pixels == 96 * 80 - 16 * 16
    assert len(done.dates) == 3


def test_embed_raster_int8_is_rounded_float(encoder, series, tmp_path):
    for dtype in ("int8", "float16", "float32"):
        embed_raster(series, tmp_path / f"{dtype}.tif", encoder, dim=16, dtype=dtype)
    exact = read(tmp_path / "float32.tif")
    known = np.isfinite(exact)
    stored = read(tmp_path / "int8.tif").astype(np.float32)
    np.testing.assert_array_equal(stored == -128, ~known)
    inside = known & (np.abs(exact) < 127 * 0.05)
    assert inside.sum() > 0.99 * known.sum()
    assert np.abs(stored * np.float32(0.05) - exact)[inside].max() <= 0.0251
    half = read(tmp_path / "float16.tif")
    np.testing.assert_array_equal(half, exact.astype(np.float16).astype(np.float32))


def test_embed_raster_fewer_numbers_are_the_first_of_more(encoder, series, tmp_path):
    for dim in (4, 16):
        embed_raster(series, tmp_path / f"{dim}.tif", encoder, dim=dim)
    few, many = read(tmp_path / "4.tif"), read(tmp_path / "16.tif")[..., :4]
    # Rounding of sums may differ by a step.
    assert np.abs(few.astype(int) - many).max() <= 1
    assert (few == many).mean() > 0.999


def test_embed_raster_cells_are_means_of_pixels_with_data(encoder, series, tmp_path):
    embed_raster(series, tmp_path / "a.tif", encoder, dim=4, dtype="float32")
    embed_raster(series, tmp_path / "b.tif", encoder, dim=4, dtype="float32", resolution=80)
    fine = read(tmp_path / "a.tif").reshape(12, 8, 10, 8, 4).swapaxes(1, 2).reshape(12, 10, 64, 4)
    with np.errstate(invalid="ignore"):
        expected = np.nansum(fine, axis=2) / np.isfinite(fine).sum(axis=2)
    np.testing.assert_allclose(read(tmp_path / "b.tif"), expected, rtol=0, atol=1e-4)
    with rasterio.open(tmp_path / "b.tif") as source:
        assert source.res == (80, 80)


def test_embed_raster_of_one_image_has_no_quality(encoder, tmp_path):
    stale = tmp_path / "a.quality.tif"
    stale.write_bytes(b"of another raster")
    embed_raster(make_images(3, dates=1)[0], tmp_path / "a.tif", encoder, dim=4)
    assert not stale.exists()


def test_embed_raster_tiles_equal_one_raster(encoder, series, tmp_path):
    # The corner of the series is at a multiple of 64 px, but not of the 128 px of a tile.
    embed_raster(series, tmp_path / "one.tif", encoder, dim=4, dtype="float32")
    done = embed_raster(series, tmp_path / "tiles", encoder, dim=4, dtype="float32", tile_side=128)
    with (
        rasterio.open(tmp_path / "tiles" / "mosaic.vrt") as source,
        rasterio.open(tmp_path / "one.tif") as other,
    ):
        assert source.descriptions == other.descriptions
        assert source.tags()["dates"] == other.tags()["dates"]
        assert np.isnan(source.nodata)
        window = source.window(*other.bounds)
        found, expected = source.read(window=window), other.read()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert done.num_tiles == len(list((tmp_path / "tiles" / "tiles").glob("*_*0.tif")))
    with rasterio.open(tmp_path / "tiles" / "quality.vrt") as source:
        assert source.descriptions == ("spread", "dates")


def test_embed_raster_overlapping_scenes_have_no_seam(encoder, tmp_path):
    # Two scenes of one date overlap: the mosaic is that of the whole.
    whole = make_images(11, 128, 192, dates=1)[0]
    corner = (601_600, 5_000_960)
    left = save(tmp_path / "left" / "2020-01-01.tif", whole[:, :112], corner)
    right = save(tmp_path / "right" / "2020-01-01.tif", whole[:, 80:], (602_400, corner[1]))
    options = {"dim": 4, "dtype": "float32", "tile_side": 128}
    embed_raster([left, right], tmp_path / "two", encoder, **options)
    together = save(tmp_path / "both" / "2020-01-01.tif", whole, corner)
    embed_raster(together, tmp_path / "one", encoder, **options)
    for name in ("two", "one"):
        assert (tmp_path / name / "mosaic.vrt").is_file()
    np.testing.assert_array_equal(
        read(tmp_path / "two" / "mosaic.vrt"), read(tmp_path / "one" / "mosaic.vrt")
    )


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_embed_raster_interrupted_folder_resumes_with_same_bytes(
    encoder, series, tmp_path, monkeypatch
):
    options = {"dim": 4, "tile_side": 128}
    first = embed_raster(series, tmp_path / "a", encoder, **options)
    written = tiles.write_area
    done = []

    def interrupted(*arguments):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(arguments)
        return written(*arguments)

    monkeypatch.setattr(tiles, "write_area", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embed_raster(series, tmp_path / "b", encoder, **options)
    monkeypatch.setattr(tiles, "write_area", written)
    assert not (tmp_path / "b" / "mosaic.vrt").exists()
    second = embed_raster(series, tmp_path / "b", encoder, **options)
    assert (first.num_skipped, second.num_skipped) == (0, 1)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_embed_raster_folder_of_other_settings_is_refused(encoder, series, tmp_path):
    embed_raster(series, tmp_path / "a", encoder, dim=4, tile_side=128)
    with pytest.raises(ExistsError, match="another job, which differs in dim"):
        embed_raster(series, tmp_path / "a", encoder, dim=8, tile_side=128)
    embed_raster(series, tmp_path / "a", encoder, dim=8, tile_side=128, overwrite=True)
    with rasterio.open(tmp_path / "a" / "mosaic.vrt") as source:
        assert source.count == 8
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ExistsError, match="is not empty"):
        embed_raster(series, tmp_path / "b", encoder, dim=4)


def test_embed_raster_without_projection_is_refused(plain, series, tmp_path):
    with pytest.raises(ConfigError, match="has no projection"):
        embed_raster(series, tmp_path / "a.tif", plain, dim=4)
    assert not list(tmp_path.iterdir())


def test_embed_raster_fits_projection_when_asked(plain, series, tmp_path):
    file = tmp_path / "lake.npz"
    embed_raster(series, tmp_path / "a.tif", plain, dim=4, projection=file, fit=True)
    embed_raster(series, tmp_path / "b.tif", plain, dim=4, projection=file)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with pytest.raises(ExistsError, match=r"lake\.npz already exists"):
        embed_raster(series, tmp_path / "c.tif", plain, dim=4, projection=file, fit=True)
    with pytest.raises(ConfigError, match="written to a file"):
        embed_raster(series, tmp_path / "c.tif", plain, dim=4, fit=True)


def test_embed_raster_projection_of_other_weights_is_refused(encoder, series, tmp_path):
    other = encoder.projection._replace(encoder="0" * 64)
    with pytest.raises(ConfigError, match="fitted with another encoder"):
        embed_raster(series, tmp_path / "a.tif", encoder, dim=4, projection=other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 64}, "dim must be 1 to 19"),
        ({"dtype": "uint8"}, "dtype must be"),
        ({"resolution": 30}, "resolution must be 10, 20, 40 or 80 m"),
        ({"tile_side": 100}, "tile_side must be a multiple of 128"),
        ({"method": "pixels"}, "method must be 'layers' or 'windows'"),
        ({"method": "layers", "stride": 8}, "does not take stride"),
        ({"stride": 8, "resolution": 20}, "does not take resolution"),
        ({"stride": 8, "dtype": "float16"}, "for windows"),
    ],
)
def test_embed_raster_wrong_options_are_refused(options, message, encoder, series, tmp_path):
    with pytest.raises(ConfigError, match=message):
        embed_raster(series, tmp_path / "a.tif", encoder, **{"dim": 4, **options})


def test_embed_raster_resolution_finer_than_pixels_is_refused(encoder, tmp_path):
    image = make_images(0, dates=1)[0]
    transform = (20.0, 0.0, 6e5, 0.0, -20.0, 5e6)
    path = tmp_path / "coarse.tif"
    write_raster(path, image, BANDS, Grid(*image.shape[:2], "EPSG:32631", transform))
    with pytest.raises(ConfigError, match="pixels of 20 m"):
        embed_raster(path, tmp_path / "a.tif", encoder, dim=4, resolution=10)


def test_embed_raster_line_of_pixels_is_refused(encoder, tmp_path):
    path = save(tmp_path / "line.tif", make_images(1)[0, :1])
    with pytest.raises(ConfigError, match=r"line\.tif is 1 x 80 px\. Expected at least 2 px"):
        embed_raster(path, tmp_path / "a.tif", encoder)


def test_embed_raster_without_clear_pixels_is_refused(encoder, tmp_path):
    image = np.zeros((32, 32, 4), np.uint16)
    with pytest.raises(DataError, match="no data: every pixel is nodata or cloud"):
        embed_raster(image, tmp_path / "a.tif", encoder, dim=4)
    assert not list(tmp_path.iterdir())


def test_embed_raster_exclusive_encoder_is_refused(model, series, tmp_path):
    exclusive = hub.wrap(model, "exclusive")
    with pytest.raises(ConfigError, match="shared encoder"):
        embed_raster(series, tmp_path / "a.tif", exclusive, projection=tmp_path / "p.npz", fit=True)


@pytest.mark.slow
@pytest.mark.integration
def test_embed_raster_in_processes_gives_same_bytes(model, encoder, series, tmp_path):
    path = hub.export(model, tmp_path / "module", projection=encoder.projection)
    loaded = hub.load(path)
    options = {"dim": 4, "tile_side": 128}
    embed_raster(series, tmp_path / "a", loaded, **options)
    embed_raster(series, tmp_path / "b", loaded, **options, workers=2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.slow
def test_embed_killed_at_random_moments_gives_same_bytes(model, encoder, series, tmp_path):
    module = hub.export(model, tmp_path / "module", projection=encoder.projection)

    def command(out):
        words = ["embed", series, out, "--model", module, "--dim", "16", "--tile-side", "128", "-q"]
        return [sys.executable, "-m", "sits_keras", *map(str, words)]

    started = time.monotonic()
    subprocess.run(command(tmp_path / "a"), check=True, env=os.environ)
    duration = time.monotonic() - started
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = subprocess.Popen(command(tmp_path / "b"), env=os.environ)
        try:
            process.wait(timeout=duration * rng.uniform(0.5, 1.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    subprocess.run(command(tmp_path / "b"), check=True, env=os.environ)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize("name", ["a.tif", "folder", "windows.parquet"])
def test_embed_raster_writes_item_with_link_to_encoder(name, encoder, series, tmp_path):
    source = series / "2020-01-01.tif" if name.endswith(".parquet") else series
    options = {} if name.endswith(".parquet") else {"dim": 4}
    embed_raster(source, tmp_path / name, encoder, **options)
    item = json.loads((tmp_path / f"{name}.item.json").read_text())
    assert item["assets"]["embeddings"]["href"] == f"./{name}"
    (link,) = [one for one in item["links"] if one["rel"] == "emb:model"]
    model = json.loads((tmp_path / link["href"]).read_text())
    assert model["properties"]["mlm:input"][0]["bands"] == list(BANDS)
    (asset,) = model["assets"].values()  # whose files are not beside the embeddings
    assert asset["href"].startswith("urn:sits-keras:encoder:")
    assert pystac.Item.from_dict(model).assets["model"].href == asset["href"]


def test_embed_raster_finished_folder_is_described_again(encoder, series, tmp_path):
    for _ in range(2):
        embed_raster(series, tmp_path / "folder", encoder, dim=4)
    assert (tmp_path / "folder.item.json").is_file()


def test_embed_raster_existing_item_is_kept(encoder, series, tmp_path):
    (tmp_path / "a.tif.item.json").write_text("mine")
    with pytest.raises(ExistsError, match=r"a\.tif\.item\.json"):
        embed_raster(series, tmp_path / "a.tif", encoder, dim=4)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("a")] == [
        "a.tif.item.json"
    ]


def test_embed_raster_picture_shows_principal_components(encoder, series, tmp_path):
    embed_raster(series, tmp_path / "a.tif", encoder, dim=4, picture=tmp_path / "a.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "a.png").shape
    assert height > width  # as the series
