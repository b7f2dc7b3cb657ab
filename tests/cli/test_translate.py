import matplotlib.image
import numpy as np
import pytest

from sits_keras.data.radiometry import to_network
from sits_keras.data.rasters.read import Grid, read_info, read_stored, write_raster

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tiny_run):
    from sits_keras import load_model

    return load_model(tiny_run)


@pytest.fixture
def dates(tiny_series):
    return [tiny_series / "a" / f"2020-0{month}-01.tif" for month in (1, 2)]


def test_translate_writes_place_at_other_date(dates, tiny_run, model, call, tmp_path):
    out = tmp_path / "out.tif"
    code, text, err = call("translate", *dates, out, "--model", tiny_run, "--quiet")
    assert (code, text, err) == (0, f"{out}\n", "")
    info = read_info(out)
    assert info.bands == model.config.bands
    assert info.grid == Grid(128, 128, None, None)
    assert read_stored(out, info.bands).min() > 0


def test_translate_one_window_equals_model_output(dates, tiny_run, model, call, tmp_path):
    bands, band_max = model.config.bands, model.config.band_max
    crops = [read_stored(path, bands)[:64, :64] for path in dates]
    for name, crop in zip("ab", crops, strict=True):
        write_raster(tmp_path / f"{name}.tif", crop, bands, Grid(64, 64, None, None))
    x, y = (to_network(crop, band_max)[None] for crop in crops)
    pair = tmp_path / "a.tif", tmp_path / "b.tif"
    common = ("--model", tiny_run / "model.keras", "-q")

    def stored(images):
        return (np.asarray(images) + 1) / 2 * np.array(band_max) * 10_000

    assert call("translate", *pair, tmp_path / "t.tif", *common).code == 0
    written = read_stored(tmp_path / "t.tif", bands)
    np.testing.assert_allclose(written, stored(model.translate(x, y))[0], atol=1.5)

    done = call("translate", *pair, tmp_path / "s.tif", *common, "--steps", 3)
    outs = [tmp_path / f"s-{i}.tif" for i in (1, 2, 3)]
    assert done.out == "".join(f"{one}\n" for one in outs)
    for out, expected in zip(outs, model.interpolate(x, x, y, 3)[0], strict=True):
        np.testing.assert_allclose(read_stored(out, bands), stored(expected), atol=1.5)

    done = call("translate", pair[0], tmp_path / "d.tif", *common, "--samples", 2, "--seed", 5)
    outs = [tmp_path / f"d-{i}.tif" for i in (1, 2)]
    assert done.out == "".join(f"{one}\n" for one in outs)
    for out, expected in zip(outs, model.sample(x, 2, seed=5)[0], strict=True):
        np.testing.assert_allclose(read_stored(out, bands), stored(expected), atol=1.5)


@pytest.mark.parametrize(
    ("options", "num_rasters", "num_images"),
    [((), 2, 3), (("--steps", 4), 2, 6), (("--samples", 4, "--at", "0,64"), 1, 5)],
)
def test_translate_png_shows_crops(
    options, num_rasters, num_images, dates, tiny_run, call, tmp_path
):
    out = tmp_path / "out.png"
    done = call("translate", *dates[:num_rasters], out, "--model", tiny_run, *options)
    assert (done.code, done.out, done.err) == (0, f"{out}\n", "")
    height, width, _ = matplotlib.image.imread(out).shape
    assert width / height == pytest.approx(num_images * 1.7 / 2.05, rel=0.2)


@pytest.mark.parametrize(
    ("options", "num_rasters", "num_images"),
    [((), 2, 3), (("--steps", 3), 2, 5), (("--samples", 2), 1, 3)],
)
def test_translate_picture_shows_inputs_and_outputs(
    options, num_rasters, num_images, dates, tiny_run, call, tmp_path
):
    out, picture = tmp_path / "out.tif", tmp_path / "new" / "all.png"
    arguments = (*dates[:num_rasters], out, "--model", tiny_run, "--picture", picture, "-q")
    done = call("translate", *arguments, *options)
    assert (done.code, done.err) == (0, "")
    assert picture.name not in done.out
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width / height == pytest.approx(num_images, rel=0.3)
    again = call("translate", *arguments, *options)
    assert again.code == 2
    assert call("translate", *arguments, *options, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.tif", "o.tif"], "Expected two images, FROM and TO. Received: 1."),
        (
            ["a.tif", "b.tif", "o.tif", "--samples", 2],
            "Expected one image, FROM, with samples. Received: 2.",
        ),
        (
            ["a.tif", "b.tif", "o.tif", "--samples", 2, "--steps", 2],
            "samples (--samples) or steps (--steps). Received both.",
        ),
        (["a.tif", "b.tif", "o.jpg"], "OUT must end in .tif, .tiff or .png."),
        (["a.tif", "b.tif", "o.tif", "--at", "0,0"], "(--at) selects the crop of a picture"),
        (["a.tif", "b.tif", "o.png", "--picture", "p.png"], "o.png is a picture of a crop"),
        (["a.tif", "b.tif", "o.tif", "--picture", "p.gif"], "must end in .png"),
    ],
)
def test_translate_invalid_options_are_refused(arguments, message, refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refuse("translate", *arguments, "--model", ".")


def test_translate_existing_output_is_kept(dates, tiny_run, refuse, call, tmp_path):
    (tmp_path / "o-2.tif").write_text("mine")
    command = ("translate", *dates, tmp_path / "o.tif", "--model", tiny_run, "--steps", 2, "-q")
    assert "o-2.tif already exists" in refuse(*command)
    assert [one.name for one in tmp_path.iterdir()] == ["o-2.tif"]
    assert call(*command, "--overwrite").code == 0


def test_translate_hub_module_is_refused(dates, tiny_module, refuse, tmp_path):
    message = refuse("translate", *dates, tmp_path / "o.tif", "--model", tiny_module)
    assert "is a hub module, which has one encoder and no decoder" in message


def test_translate_invalid_position_is_refused(call):
    done = call("translate", "a.tif", "b.tif", "o.png", "--model", ".", "--at", "middle")
    assert done.code == 2
    assert "'middle' is not ROW,COL, such as 120,64." in done.err
