import json
import re

import numpy as np
import PIL.Image
import pytest
from fake_embeddings import place_at, random_vectors, write_embeddings

from sits_keras.data.rasters.read import Grid, write_raster
from sits_keras.data.rasters.write import MapClass, open_map
from sits_keras.errors import ConfigError, DataError, ExistsError, MissingError
from sits_keras.tasks import write_webmap
from sits_keras.tasks.pictures import PrincipalColours, apply_colormap

PLACE = (20.0, 0.0, 600_000.0, 0.0, -20.0, 5_000_000.0)


def tile_of(lon, lat, zoom):
    """Tile and pixel of a place, by the formula of web maps."""
    x = (lon + 180) / 360 * 2**zoom
    y = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * 2**zoom
    return (int(x), int(y)), (int(y % 1 * 256), int(x % 1 * 256))


def colour_at(folder, lon, lat, zoom, layer=0):
    (x, y), (row, col) = tile_of(lon, lat, zoom)
    with PIL.Image.open(folder / "tiles" / str(layer) / str(zoom) / str(x) / f"{y}.png") as tile:
        return np.asarray(tile)[row, col]


@pytest.fixture
def classes(tmp_path):
    """A map of 600 x 800 px: class 1 in the west, 2 in the east, no data in the first 100 rows."""
    values = np.full((600, 800), 1, np.uint8)
    values[:, 400:], values[:100] = 2, 0
    colours = {1: MapClass("wood", (10, 120, 30)), 2: MapClass("lake", (20, 40, 200))}
    grid = Grid(600, 800, "EPSG:32631", PLACE)
    with open_map(tmp_path / "land.tif", grid, ["class"], "uint8", 0, classes=colours) as target:
        target.write(0, values)
    return tmp_path / "land.tif"


def test_write_webmap_of_classes_has_their_colours_at_their_places(classes, tmp_path):
    (layer,) = write_webmap([classes], tmp_path / "map")
    assert layer.name == "land"
    zoom = layer.pyramid.max_zoom
    # 20 m at 45 degrees north are 28 m of web mercator: between 38.2 (zoom 12) and 19.1 (13).
    assert zoom == 13
    # 16 km are 22.6 km of the mercator: they fit into a tile of 39 km (zoom 10).
    assert layer.pyramid.min_zoom == 10
    for level in range(layer.pyramid.min_zoom, zoom + 1):
        wood = colour_at(tmp_path / "map", *place_at(350, 200), level)
        lake = colour_at(tmp_path / "map", *place_at(350, 600), level)
        none = colour_at(tmp_path / "map", *place_at(50, 600), level)
        assert (wood.tolist(), lake.tolist()) == ([10, 120, 30, 255], [20, 40, 200, 255])
        assert none[3] == 0
    files = sorted((tmp_path / "map" / "tiles").rglob("*.png"))
    assert len(files) == layer.pyramid.num_tiles
    for file in files:
        colours = np.asarray(PIL.Image.open(file)).reshape(-1, 4)
        colours = {tuple(one) for one in np.unique(colours[colours[:, 3] > 0], axis=0).tolist()}
        assert colours, "tiles without data are not written"
        assert colours <= {(10, 120, 30, 255), (20, 40, 200, 255)}


def test_write_webmap_of_embeddings_shows_principal_components(tmp_path):
    rows, cols = np.indices((300, 300))
    numbers = np.stack([rows // 3 - 50, cols // 6 - 25, np.zeros_like(rows)]).astype(np.int8)
    numbers[:, :40, :40] = -128
    path = write_embeddings(tmp_path / "e.tif", numbers, scales=0.5)
    (layer,) = write_webmap([path], tmp_path / "map")
    assert layer.legend.startswith("Principal components as red, green and blue (80%, 20%, 0%")
    zoom = layer.pyramid.max_zoom
    north, south, east = (
        colour_at(tmp_path / "map", *place_at(*at), zoom)
        for at in ((60, 150), (290, 150), (150, 290))
    )
    assert south[0] > north[0] + 150  # the first component is that of the rows
    assert east[1] > north[1] + 80
    assert colour_at(tmp_path / "map", *place_at(20, 20), zoom)[3] == 0


def test_write_webmap_shows_images_and_quantities(tmp_path):
    grid = Grid(64, 64, "EPSG:32631", PLACE)
    image = np.full((64, 64, 4), 1375, np.uint16)  # half of what is shown as white
    write_raster(tmp_path / "image.tif", image, ("B02", "B03", "B04", "B08"), grid)
    values = np.repeat(np.linspace(0, 1, 64, dtype=np.float32)[None], 64, axis=0)
    values[:8] = np.nan
    with open_map(tmp_path / "change.tif", grid, ["distance"], "float32", np.nan) as target:
        target.write(0, values)
    layers = write_webmap([tmp_path / "image.tif", tmp_path / "change.tif"], tmp_path / "map")
    zoom = layers[0].pyramid.max_zoom
    assert colour_at(tmp_path / "map", *place_at(30, 30), zoom).tolist() == [128, 128, 128, 255]
    assert layers[1].legend.startswith("distance, from 0.0")
    found = colour_at(tmp_path / "map", *place_at(30, 32), zoom, layer=1)
    expected = np.rint(apply_colormap(np.array(0.5)) * 255)
    assert np.abs(found[:3].astype(int) - expected).max() <= 6
    assert colour_at(tmp_path / "map", *place_at(3, 32), zoom, layer=1)[3] == 0


def test_write_webmap_page_loads_nothing_from_other_hosts(classes, tmp_path):
    write_webmap([classes], tmp_path / "map")
    page = (tmp_path / "map" / "index.html").read_text()
    assert not re.search(r"https?://|src=[\"']|@import|url\(", page)
    description = json.loads((tmp_path / "map" / "webmap.json").read_text())
    found = json.loads(re.search(r"const MAP = (.*);", page)[1])
    assert found == description
    assert found["layers"][0]["tiles"] == "tiles/0/{z}/{x}/{y}.png"
    assert sorted(one.name for one in (tmp_path / "map").iterdir()) == [
        *("index.html", "tiles", "webmap.json")
    ]


def test_write_webmap_escapes_names(classes, tmp_path):
    layers = write_webmap([classes.rename(tmp_path / "<b>&'.tif")], tmp_path / "map")
    page = (tmp_path / "map" / "index.html").read_text()
    assert layers[0].name == "<b>&'"
    assert "<b>" not in page
    assert "\\u003cb\\u003e" in page


def test_write_webmap_same_raster_gives_same_bytes(classes, tmp_path):
    for name in ("one", "two"):
        write_webmap([classes], tmp_path / name)
    files = sorted(one for one in (tmp_path / "one").rglob("*") if one.is_file())
    assert files
    for file in files:
        other = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert file.read_bytes() == other.read_bytes()


# Bad input


def test_write_webmap_existing_folder_is_kept(classes, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(ExistsError, match="already exists"):
        write_webmap([classes], tmp_path / "mine")
    with pytest.raises(ExistsError, match="is not a web map"):
        write_webmap([classes], tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "file").read_text() == "mine"
    write_webmap([classes], tmp_path / "map")
    write_webmap([classes], tmp_path / "map", overwrite=True)


def test_write_webmap_bad_raster_leaves_nothing(classes, tmp_path):
    bare = write_embeddings(tmp_path / "bare.tif", random_vectors(3, 20, 20), crs=None)
    empty = write_embeddings(tmp_path / "empty.tif", np.full((3, 20, 20), -128, np.int8))
    for rasters, error, message in (
        ([], ConfigError, "needs at least one raster"),
        ([classes, bare], DataError, r"bare\.tif has no CRS or no transform"),
        ([empty], DataError, r"empty\.tif has no data"),
        ([tmp_path / "none.tif"], MissingError, r"none\.tif"),
    ):
        with pytest.raises(error, match=message):
            write_webmap(rasters, tmp_path / "map")
    assert {one.name for one in tmp_path.iterdir()} == {
        *("bare.tif", "empty.tif", "land.tif", "land.tif.aux.xml")
    }


def test_write_webmap_interrupted_leaves_nothing(classes, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sits_keras.tasks.webmap.write_tiles", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_webmap([classes], tmp_path / "map")
    assert not list(tmp_path.glob("*map*"))


# Colours


def test_principal_colours_have_fixed_order_and_sign():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(500, 4)) * [1, 5, 0.1, 3]
    vectors = parts @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    colours = PrincipalColours(vectors)
    image = colours(vectors)
    assert colours.explained == pytest.approx([25 / 35.01, 9 / 35.01, 1 / 35.01], abs=0.05)
    for component, part in enumerate((1, 3, 0)):
        found = np.corrcoef(image[:, component], parts[:, part])[0, 1]
        assert abs(found) > 0.95
    # The order of the samples does not count, and neither does the sign of the eigenvectors.
    np.testing.assert_allclose(PrincipalColours(vectors[::-1])(vectors), image, atol=1e-9)
    axes = np.linalg.eigh(np.cov(vectors.T))[1][:, ::-1][:, :3]
    largest = np.abs(axes).argmax(axis=0)
    for component in range(3):
        one = axes[:, component] * np.sign(axes[largest[component], component])
        values = vectors @ one
        low, high = np.percentile(values, (2, 98))
        expected = np.clip((values - low) / (high - low), 0, 1)
        np.testing.assert_allclose(image[:, component], expected, atol=1e-9)


def test_principal_colours_of_missing_data_are_white():
    colours = PrincipalColours(np.array([[0.0, 0], [1, 2], [2, 4]]))
    image = colours(np.array([[[np.nan, np.nan], [2, 4]]]))
    np.testing.assert_array_equal(image[0, 0], 1)
    np.testing.assert_array_equal(image[0, 1], [1, image[0, 1, 1], 0.5])  # there is no third
