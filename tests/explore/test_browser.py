"""Tests of the page in Chromium, served by the command line.

With SITS_KERAS_PICTURES=docs/images they also write the pictures of docs/howto/explore.md.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import PIL.Image
import pytest
import rasterio

from sits_keras import cli
from sits_keras.explore.server import redirect_file

pytestmark = pytest.mark.browser

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SECONDS = 180_000  # ms that a busy machine may take


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: neither `chromium` nor the variable CHROMIUM names one")
    with playwright.sync_playwright() as tools:
        opened = tools.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


@contextlib.contextmanager
def command_line(*paths, cache, embeddings=None):
    """Run `sits-keras explore`, yield its address, and check that Ctrl-C ends it."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sits_keras", "explore", *map(str, paths), "--no-browser"),
            *("--model", "sits_rgbn_small", "--port", "0", "--cache", str(cache)),
            *([] if embeddings is None else ["--embeddings", str(embeddings)]),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        address = r"http://127\.0\.0\.1:\d+/\?token=[-\w]{43}"
        found = re.match(rf"({address})  \(Ctrl-C ends the server\)\n", lines[-1])
        assert found, (lines, process.stderr.read() if process.poll() is not None else "")
        yield found[1]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "Stopped.\n")
        # One date of the real series is suspected of an offset, which is reported.
        unexpected = [line for line in err.splitlines() if "contain an offset of 1,000" not in line]
        assert not unexpected
    finally:
        process.kill()
        process.wait()


class Visitor:
    """A page, its requests, and its errors."""

    def __init__(self, browser, address, pictures=None):
        self._pictures = pictures
        # A context of its own: no cookies but its own.
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(SECONDS)
        self.asked, self.wrong = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console",
            lambda line: self.wrong.append(line.text) if line.type == "error" else None,
        )
        self.page.goto(address)

    def view(self, name):
        self.page.get_by_role("radio", name=name).check()

    def wait(self, text):
        self.page.get_by_text(re.compile(text)).first.wait_for()

    def command(self):
        return self.page.get_by_label("Command that writes the same").input_value()

    def wait_command(self, part):
        box = self.page.get_by_label("Command that writes the same")
        playwright.expect(box).to_have_value(re.compile(re.escape(part)), timeout=SECONDS)

    def click_figure(self, index, x, y):
        """Click a figure at a fraction of its width and height."""
        canvas = self.page.locator(".bk-Figure").nth(index)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def press(self, group, key, times):
        handle = self.page.get_by_role("group", name=group).get_by_role("slider")
        for _ in range(times):
            handle.press(key)

    def export(self, name, folder):
        self.page.get_by_role("button", name="Export").click()
        link = self.page.get_by_role("link", name=name, exact=True)
        link.wait_for()
        with self.page.expect_download() as download:
            link.click()
        download.value.save_as(folder / name)
        return folder / name

    def picture(self, name):
        if self._pictures:
            self.page.evaluate("window.scrollTo(0, 0)")
            self.page.wait_for_timeout(500)
            shot = PIL.Image.open(io.BytesIO(self.page.screenshot()))
            small = shot.convert("RGB").quantize(128, dither=PIL.Image.Dither.NONE)
            small.save(Path(self._pictures) / f"explore_{name}.png", optimize=True)


def explore(browser, series, pair, crs, tmp_path, pictures=None):
    """Use each of the four views, by mouse and by keyboard."""
    with command_line(series, pair, cache=tmp_path / "cache") as address:
        visitor = Visitor(browser, address, pictures)
        dates = sorted(series.glob("*[0-9].tif"))
        visitor.wait(rf"by shared features \d+ of {len(dates) - 1}, by raw")
        first = visitor.command()
        visitor.click_figure(0, 0.55, 0.3)
        box = visitor.page.get_by_label("Command that writes the same")
        playwright.expect(box).not_to_have_value(first, timeout=SECONDS)
        visitor.wait(r"Searched for row \d+, column \d+")
        visitor.wait("Rank")
        visitor.wait(rf"by shared features \d+ of {len(dates) - 1}, by raw")
        visitor.picture("places")

        other = Visitor(browser, address)  # another client, with a window of its own
        other.wait_command("--at ")
        mine = visitor.command()
        other.page.get_by_label("Row of the upper left corner").fill("1")
        other.page.keyboard.press("Tab")
        other.wait_command("--at 1,")
        assert visitor.command() == mine
        assert other.wrong == []
        other.page.close()

        visitor.page.get_by_label("Place", exact=True).select_option(pair.name)
        visitor.view("Change")
        visitor.wait(r"F1 \d\.\d+ against the reference")
        scores = visitor.page.get_by_text("against the reference").inner_text()
        visitor.press("Threshold", "ArrowRight", 25)
        playwright.expect(box).to_have_value(re.compile(r"--threshold \d"), timeout=SECONDS)
        playwright.expect(visitor.page.get_by_text("against the reference")).not_to_have_text(
            scores, timeout=SECONDS
        )
        visitor.picture("change")
        with rasterio.open(visitor.export("change.tif", tmp_path)) as written:
            assert written.descriptions == ("distance", "changed", "percentile")
            assert written.crs == crs
            assert written.tags()["threshold"] in visitor.command()

        steer(visitor, tmp_path)

        visitor.page.get_by_label("Place", exact=True).select_option(series.name)
        visitor.view("Dates")
        visitor.wait("Mean difference from the real image")
        visitor.page.get_by_role("button", name="Sample dates from").click()
        visitor.page.wait_for_timeout(1500)
        visitor.picture("dates")

        visitor.view("Segments")
        visitor.wait("7: .* of the pixels")
        visitor.press("Clusters", "ArrowRight", 1)
        visitor.wait("8: .* of the pixels")
        visitor.picture("segments")

        assert visitor.wrong == []
        others = [url for url in visitor.asked if not url.startswith(OWN)]
        host = urlsplit(address).netloc
        assert [url for url in others if urlsplit(url).netloc != host] == []
        token = urlsplit(address).query
        assert [url for url in others if token in url] == [address]
        assert visitor.page.url == f"http://{host}/"
        visitor.page.close()
        refuse_stranger(browser, address)
        use_keyboard(Visitor(browser, address))


def steer(visitor, folder):
    """Label pixels by mouse and by keyboard, export them with the map, and remove them."""
    page = visitor.page
    visitor.click_figure(1, 0.57, 0.22)
    visitor.wait("steered by 1 points")
    page.get_by_role("radio", name="Not changed").check()
    page.get_by_label("Row of a point").fill("111")
    page.get_by_label("Column of a point").fill("80")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Add the point").press("Enter")
    visitor.wait("steered by 2 points")
    visitor.wait_command("--labels points.geojson")
    visitor.picture("clicks")
    exported = json.loads(visitor.export("points.geojson", folder).read_text())["features"]
    assert [one["properties"]["changed"] for one in exported] == [True, False]
    page.get_by_label("Points", exact=True).select_option(index=0)
    page.get_by_role("button", name="Remove the point").click()
    visitor.wait("steered by 1 points")
    page.get_by_role("button", name="Remove all").click()
    visitor.wait("Points: 0 changed, 0 not changed")


OWN = ("data:", "blob:")


def refuse_stranger(browser, address):
    """A second client without the token sees nothing, and a redirect file brings it to the page."""
    page = browser.new_page()
    host = urlsplit(address).netloc
    for path in ("", "export/a/b", "metadata", "?token=guess"):
        assert page.goto(f"http://{host}/{path}").status == 403
    refused = page.evaluate(
        """(address) => new Promise((resolve) => {
            const socket = new WebSocket(address, ["bokeh", "guess"]);
            socket.onopen = () => resolve("opened");
            socket.onerror = () => resolve("refused");
        })""",
        f"ws://{host}/ws",
    )
    assert refused == "refused"
    with redirect_file(address) as file:
        page.goto(file.as_uri())
        page.wait_for_url(f"http://{host}/")
        page.get_by_role("group", name="View").wait_for()
        referrer = page.evaluate("document.referrer")
    assert referrer == ""
    page.close()


def test_page_in_chromium_shows_procedural_rasters(
    browser, meadow, felled, make_meadow, make_felled, tmp_path, monkeypatch
):
    pictures = os.environ.get("SITS_KERAS_PICTURES")
    if pictures:  # of larger places, which are better to look at, and named as a user would
        pictures = Path(pictures).resolve()
        monkeypatch.chdir(tmp_path)
        meadow = make_meadow(Path("meadow"), 256, num_dates=8)
        felled = make_felled(Path("felled"), 256)
    explore(browser, meadow, felled, rasterio.crs.CRS.from_epsg(32631), tmp_path, pictures)


@pytest.mark.slow
def test_page_in_chromium_shows_real_rasters(browser, real_data, tmp_path):
    pair = real_data / "change" / "wildfire-HURST_20250107"
    series = real_data / "series" / "worldcereal-31UFS-monthly"
    explore(browser, series, pair, rasterio.crs.CRS.from_epsg(4326), tmp_path)


def search(browser, series, pictures=None):
    """Ask an embedding raster by a click and by keyboard, and export what is shown."""
    embeddings = Path(f"{series.name}-embeddings.tif")
    options = ("--model", "sits_rgbn_small", "-q")
    assert cli.run(["embed", str(series), str(embeddings), *options]) == 0
    with command_line(series, cache=Path("cache"), embeddings=embeddings) as address:
        visitor = Visitor(browser, address, pictures)
        visitor.view("Embeddings")
        visitor.wait("Places like row")
        first = visitor.command()
        visitor.click_figure(0, 0.4, 0.6)
        box = visitor.page.get_by_label("Command that writes the same")
        playwright.expect(box).not_to_have_value(first, timeout=SECONDS)
        clicked = visitor.command()
        visitor.page.get_by_label("Column of the cell").fill("31")
        visitor.page.keyboard.press("Tab")
        visitor.wait_command(",31 ")
        row, col = map(int, re.search(r"--window (\d+),(\d+)", visitor.command()).groups())
        assert f"--window {row}," in clicked
        visitor.page.get_by_label("Places", exact=True).last.fill("5")
        visitor.page.keyboard.press("Tab")
        visitor.wait_command("--matches 5 ")
        visitor.wait(f"Places like row {row}, column {col}")
        shown = visitor.page.get_by_role("table").filter(has_text="Places like").inner_text()
        visitor.picture("embeddings")
        exported = Path("exported")
        exported.mkdir()
        names = ("similar.geojson", "similar.tif", "similar.png")
        files = [visitor.export(names[0], exported)]
        for name in names[1:]:
            with visitor.page.expect_download() as download:
                visitor.page.get_by_role("link", name=name, exact=True).click()
            download.value.save_as(exported / name)
            files.append(exported / name)
        command = shlex.split(visitor.command())
        assert visitor.wrong == []
    assert cli.run(command[1:]) == 0  # in the folder of the page, whose paths it names
    for file in files:
        assert file.read_bytes() == Path(file.name).read_bytes(), file.name
    found = json.loads(files[0].read_text())["features"]
    assert len(found) == 5
    for one in (feature["properties"] for feature in found):
        line = rf"{one['rank']}\s+{one['similarity']:.3f}\s+{one['row']}, {one['col']}"
        assert re.search(line, shown), (line, shown)


def test_embeddings_view_in_chromium_finds_what_query_writes(
    browser, make_meadow, tmp_path, monkeypatch
):
    pictures = os.environ.get("SITS_KERAS_PICTURES")
    if pictures:
        pictures = Path(pictures).resolve()
    monkeypatch.chdir(tmp_path)
    search(browser, make_meadow(Path("meadow"), 192), pictures)


@pytest.mark.slow
def test_embeddings_view_in_chromium_of_real_series(browser, real_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search(browser, real_data / "series" / "worldcereal-31UFS-monthly")


def focused(page):
    """Return the label or text of the focused element."""
    return page.evaluate(
        """() => {
            let found = document.activeElement;
            while (found.shadowRoot && found.shadowRoot.activeElement)
                found = found.shadowRoot.activeElement;
            const group = found.closest("[aria-label]") || found.getRootNode().host;
            const label = found.labels && found.labels[0];
            return (label || {}).innerText || (group && group.getAttribute("aria-label"))
                || found.innerText || found.tagName;
        }"""
    )


def use_keyboard(visitor):
    """Check the order of focus, choose a window by keyboard, and check accessible names."""
    visitor.wait("Rank")
    order = []
    for _ in range(12):
        visitor.page.keyboard.press("Tab")
        order.append(focused(visitor.page))
    expected = [
        *("Place", "Places", "Date of the window", "Search in", "Matches"),
        *("Row of the upper left corner", "Column of the upper left corner"),
    ]
    places = [order.index(name) for name in expected]
    assert places == sorted(places), order
    row = visitor.page.get_by_label("Row of the upper left corner")
    row.focus()
    before = int(row.input_value())
    visitor.page.keyboard.press("ArrowUp")
    visitor.wait_command(f"--at {before + 1},")
    visitor.page.get_by_role("radio", name="Places").focus()
    visitor.page.keyboard.press("ArrowRight")
    visitor.wait("The distance between the exclusive representations")
    names = visitor.page.locator("main").aria_snapshot()
    for control in ('combobox "Stride, px"', 'group "Threshold"', 'group "View"', "status"):
        assert control in names
    assert visitor.wrong == []
