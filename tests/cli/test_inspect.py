import json

import numpy as np
import pytest
from fake_products import make_safe, make_series


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    folder = tmp_path_factory.mktemp("products")
    make_series(folder, 2)
    scl = np.full((192, 192), 4)
    scl[:48] = 9
    make_safe(folder, date="2023-06-01", scl=scl, baseline="04.00")
    return folder


def test_it_prints_a_line_for_each_granule(products, call):
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


def test_json_has_the_place_too(products, call):
    _, out, _ = call("inspect", products, "--quiet", "--json", "--max-cloud", 0.3)
    rows = json.loads(out)
    assert [row["kept"] for row in rows] == ["kept"] * 3
    assert rows[2]["cloud"] == 0.25
    assert rows[0]["crs"] == "EPSG:32631"
    assert rows[0]["transform"] == [10, 0, 600_000, 0, -10, 5_400_000]
    assert rows[0]["footprint"][0] == [1.6, 48.6]


def test_rasters_without_metadata_have_none(coded_series, call, tmp_path):
    _, out, _ = call("inspect", coded_series(tmp_path / "lake", dates=1), "--quiet")
    assert out.splitlines()[1].split() == [
        *("lake", "2020-01-01", "0.00%", "none", "100.00%", "-", "-"),
        *("1", "of", "1", "dates", "pass,", "2", "are", "needed"),
    ]


def test_progress_is_shown_unless_declined(products, call):
    assert "screen: 100%" in call("inspect", products).err


def test_a_wrong_source_is_told(refuse, tmp_path):
    assert "Nothing at" in refuse("inspect", tmp_path / "missing")


def test_a_warning_is_a_line(products, call, tmp_path, monkeypatch):
    import warnings

    from sits_keras.data.preparation import pipeline as preparation

    monkeypatch.setattr(
        preparation, "_warn_of_resampling", lambda plan: warnings.warn("mind it", stacklevel=1)
    )
    err = call("prepare", products, tmp_path / "out", "--quiet").err
    assert err == "Warning: mind it\n"
