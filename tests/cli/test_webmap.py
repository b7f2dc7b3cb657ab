"""`sits-keras webmap`, and its page in Chromium."""

import os
import shutil

import numpy as np
import pytest
from fake_embeddings import write_embeddings


@pytest.fixture
def raster(tmp_path):
    rows, cols = np.indices((300, 300))
    numbers = np.stack([rows // 3 - 50, cols // 3 - 50, (rows + cols) // 6 - 50, rows % 7])
    return write_embeddings(tmp_path / "e.tif", numbers.astype(np.int8))


def test_webmap_prints_layers_and_tiles(raster, call, tmp_path):
    done = call("webmap", raster, tmp_path / "map", "--quiet")
    assert (done.code, done.err) == (0, "")
    tiles = len(list((tmp_path / "map").rglob("*.png")))
    assert done.out == f"{tmp_path / 'map' / 'index.html'}: 1 layer, {tiles} tiles, zoom 12 to 13\n"


def test_webmap_existing_folder_is_refused(raster, refuse, tmp_path):
    message = refuse("webmap", raster, tmp_path, "-q")
    assert message.endswith(
        "already exists. Choose another folder, or pass overwrite (--overwrite)."
    )


@pytest.mark.browser
def test_webmap_in_chromium_shows_tiles_from_disk(raster, call, tmp_path):
    tools = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: neither `chromium` nor the variable CHROMIUM names one")
    assert call("webmap", raster, tmp_path / "map", "-q").code == 0
    requests, errors = [], []
    with tools.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "map" / "index.html").as_uri())
        page.wait_for_function(
            "[...document.images].filter(i => i.complete && i.naturalWidth).length > 0"
        )
        before = page.url
        page.click("#in")
        page.mouse.move(450, 350)
        page.mouse.down()
        page.mouse.move(500, 380)
        page.mouse.up()
        page.wait_for_function(
            "[...document.images].filter(i => i.complete && i.naturalWidth).length > 0"
        )
        assert page.url != before  # the view is in the address
        assert "zoom 14" in page.inner_text("#status")
        page.uncheck("#layers input[type=checkbox]")
        assert page.evaluate("document.images.length") == 0
        browser.close()
    assert not errors
    assert requests
    assert all(url.startswith("file://") for url in requests)
