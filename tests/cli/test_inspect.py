import json

import numpy as np
import pytest
from conftest import BANDS, UTM
from fake_products import make_safe, make_series

from sits_keras.data.rasters.read import Grid, write_raster


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    make_series(folder, 2)
    scl = np.full((192, 192), 4)
    scl[:48] = 9
    make_safe(folder, date="2023-06-01", scl=scl, baseline="04.00")
    return folder


def test_inspect_prints_a_line_for_each_granule(products, call):
    code, out, err = call("inspect", products, "--quiet")
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=7) for line in out.splitlines()] == [
        ["series", "date", "cloud", "mask", "complete", "level", "baseline", "kept"],
        ["T31UDQ", "2023-01-01", "0.00%", "SCL", "100.00%", "L2A", "05.09", "kept"],
        ["T31UDQ", "2023-02-01", "0.00%", "SCL", "100.00%", "L2A", "05.09", "kept"],
        [
            "T31UDQ",
            "2023-06-01",
            "25.00%",
            "SCL",
            "100.00%",
            "L2A",
            "04.00",
            "cloud 25.00% > 2.00%",
        ],
        ["2", "of", "3", "granules", "would", "be", "kept"],
    ]


def test_inspect_json_has_the_grid_too(products, call):
    _, out, _ = call("inspect", products, "--quiet", "--json", "--max-cloud", 0.3)
    rows = json.loads(out)
    assert [row["kept"] for row in rows] == ["kept"] * 3
    assert rows[2]["cloud"] == 0.25
    assert rows[0]["crs"] == "EPSG:32631"
    assert rows[0]["transform"] == [10, 0, 600_000, 0, -10, 5_400_000]
    assert rows[0]["footprint"][0] == [1.6, 48.6]


def test_inspect_rasters_without_metadata_have_none(coded_series, call, tmp_path):
    _, out, _ = call("inspect", coded_series(tmp_path / "lake", dates=1), "--quiet")
    assert out.splitlines()[1].split() == [
        *("lake", "2020-01-01", "0.00%", "none", "100.00%", "-", "-"),
        *("1", "of", "1", "dates", "pass,", "2", "are", "needed"),
    ]


def test_inspect_shows_progress_unless_quiet(products, call):
    assert "screen: 100%" in call("inspect", products).err


def test_inspect_missing_source_is_an_error(refuse, tmp_path):
    assert "Nothing at" in refuse("inspect", tmp_path / "missing")


def test_prepare_warning_is_one_line(products, call, tmp_path, monkeypatch):
    import warnings

    from sits_keras.data.preparation import pipeline as preparation

    monkeypatch.setattr(
        preparation, "_warn_of_resampling", lambda plan: warnings.warn("mind it", stacklevel=1)
    )
    err = call("prepare", products, tmp_path / "out", "--quiet").err
    assert err == "Warning: mind it\n"


@pytest.fixture
def processed_twice(tmp_path):
    """A file of STAC items: three dates, each of two processing baselines."""
    features = []
    for month in (4, 5, 6):
        for baseline, offset in (("02.14", 0), ("05.00", 1000)):
            name = f"S2A_2020-0{month}-21_{baseline}"
            assets = {}
            for band in BANDS:
                path = tmp_path / f"{name}_{band}.tif"
                values = np.full((64, 64, 1), 500 * month + offset, np.uint16)
                write_raster(path, values, [band], Grid(64, 64, "EPSG:32631", UTM))
                scale = {"raster:bands": [{"scale": 1e-4, "offset": -offset / 10_000}]}
                assets[band] = {"href": str(path), "eo:bands": [{"name": band}], **scale}
            properties = {
                "datetime": f"2020-0{month}-21T10:50:31Z",
                "s2:mgrs_tile": "31UFS",
                "s2:processing_baseline": baseline,
                "eo:cloud_cover": 1,
            }
            features.append(
                {
                    "type": "Feature",
                    "stac_version": "1.0.0",
                    "id": name,
                    "geometry": None,
                    "links": [],
                    "properties": properties,
                    "assets": assets,
                }
            )
    path = tmp_path / "search.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_inspect_lists_granules_of_one_date_with_what_to_keep(processed_twice, call):
    code, out, _ = call("inspect", processed_twice, "-q")
    assert code == 0
    assert out.splitlines()[-1] == "0 of 6 granules would be kept"
    assert out.count("keep this one, the newest processing baseline, 05.00 (--newest)") == 3
    assert out.count("same date as S2A_2020-0") == 6


def test_inspect_newest_keeps_the_newest_baseline(processed_twice, call):
    code, out, _ = call("inspect", processed_twice, "-q", "--newest")
    assert code == 0
    kept = [line.split()[6] for line in out.splitlines()[1:-1] if line.endswith(" kept")]
    assert kept == ["05.00"] * 3
    assert out.count("is kept, the newest processing baseline, 05.00") == 3


def test_prepare_lists_all_dates_that_have_several_granules(processed_twice, refuse, call):
    out = processed_twice.with_name("records")
    err = refuse("prepare", processed_twice, out, "-q")
    assert "3 dates have several granules, expected one" in err
    for month in (4, 5, 6):
        assert f"T31UFS 2020-0{month}-21: S2A_2020-0{month}-21_05.00, same date as" in err
    assert "(newest, --newest)" in err
    assert call("prepare", processed_twice, out, "-q", "--newest").code == 0
    (series,) = json.loads((out / "manifest.json").read_text())["series"]
    assert {one["baseline"] for one in series["products"].values()} == {"05.00"}


@pytest.fixture
def faulty(coded_series, tmp_path):
    """A series of six dates: one cut off, one of another grid, one without a band."""
    folder = coded_series(tmp_path / "lake", dates=6)
    cut, moved, poor, *_ = sorted(folder.glob("*.tif"))[1:]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    values = np.full((64, 64, 4), 700, np.uint16)
    write_raster(moved, values, BANDS, Grid(64, 64, "EPSG:32631", (*UTM[:2], 600_005, *UTM[3:])))
    write_raster(poor, values[..., :3], BANDS[:3], Grid(64, 64, "EPSG:32631", UTM))
    return folder


def test_inspect_shows_granules_that_cannot_be_read_in_its_table(faulty, call):
    code, out, _ = call("inspect", faulty, "-q")
    assert code == 0
    lines = out.splitlines()
    assert lines[-1] == "3 of 6 granules would be kept"
    assert [" kept" in line for line in lines[1:7]] == [True, False, False, False, True, True]
    assert "cannot be read" in lines[2]
    assert "has transform" in lines[3]
    assert "has no band B08" in lines[4]


def test_prepare_lists_all_granules_that_cannot_be_read(faulty, refuse):
    err = refuse("prepare", faulty, faulty.with_name("records"), "-q")
    assert "3 errors in the sources: (1) " in err
    for words in ("cannot be read", "has transform", "has no band B08"):
        assert words in err
    assert not faulty.with_name("records").exists()


def test_inspect_and_prepare_list_everything_that_is_wrong_at_once(faulty, call, refuse):
    for name in ("summer", "2020-13-01", "B04"):
        (faulty / f"{name}.tif").touch()
    write_raster(
        faulty / "2020-01-01_v2.tif",
        np.full((64, 64, 4), 700, np.uint16),
        BANDS,
        Grid(64, 64, "EPSG:32631", UTM),
    )
    code, out, _ = call("inspect", faulty, "-q")
    assert code == 0
    kept = [line for line in out.splitlines() if line.startswith("lake")]
    for words in ("summer.tif", "2020-13-01.tif", "B04.tif", "2020-01-01_v2.tif"):
        assert any(f"{words} " in line and "not read" in line for line in kept)
    for words in ("cannot be read", "has transform", "has no band B08"):
        assert any(words in line for line in kept)
    assert out.splitlines()[-1] == "2 of 9 granules would be kept"
    err = refuse("prepare", faulty, faulty.with_name("records"), "-q")
    assert "7 errors in the sources: (1) " in err
    for words in ("summer.tif", "2020-13-01.tif", "B04.tif", "2020-01-01_v2.tif"):
        assert words in err
    for words in ("cannot be read", "has transform", "has no band B08"):
        assert words in err
