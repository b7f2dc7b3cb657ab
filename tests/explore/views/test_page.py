"""Tests of the page without a browser: a client sets controls and reads what is shown."""

import contextlib
import json
import threading
import time
from urllib.parse import urlsplit

import fake_products
import numpy as np
import pytest
from bokeh.client import pull_session
from bokeh.events import ButtonClick, RangesUpdate, Tap

from sits_keras.data.tiling import Window
from sits_keras.explore.engine import sources
from sits_keras.explore.engine.calls import ExploredModel
from sits_keras.explore.engine.embeddings import ExploredEmbeddings
from sits_keras.explore.engine.sources import RasterReader
from sits_keras.explore.views.widgets import packed

pytestmark = pytest.mark.integration

LABELS = ["Places", "Change", "Dates", "Segments"]


class Client:
    """A page on its server, and a connection that keeps it open."""

    def __init__(self, running):
        self.running = running
        parts = urlsplit(running.address)
        token = parts.query.removeprefix("token=")
        url = f"http://{parts.netloc}/"
        self._session = pull_session(url=url, arguments={"token": token})
        self.document = running.server.get_session("/", self._session.id).document

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._session.close()

    def set(self, model, **values):
        """Set properties of a control, in the page's own thread."""
        self.document.add_next_tick_callback(lambda: model.update(**values))

    def slide(self, slider, value):
        """Move a slider and release it."""
        self.set(slider, value=value)
        self.document.add_next_tick_callback(lambda: slider.trigger("value_throttled", None, value))

    def models(self, **what):
        return [
            model
            for model in self.document.models
            if all(getattr(model, name, None) == value for name, value in what.items())
        ]

    def find(self, **what):
        (found,) = self.models(**what)
        return found

    def wait(self, is_there, seconds=60):
        """Wait until something is there, and what the page was doing has ended."""
        end = time.monotonic() + seconds
        while not is_there():
            assert time.monotonic() < end, f"{is_there}; the page says {self.status}"
            time.sleep(0.05)
        ended = threading.Event()
        self.document.add_next_tick_callback(ended.set)
        assert ended.wait(seconds)

    @property
    def status(self):
        return self.find(name="status").text

    def view(self, index, labels=LABELS):
        self.set(self.find(labels=labels), active=index)

    def text(self, name):
        found = [model.text for model in self.document.models if model.name == name]
        return found[0] if found else ""

    def image(self, name):
        """Return the pixels that a figure shows."""
        figure = self.find(name=name)
        return figure.renderers[0].data_source.data["image"]

    def image_over(self, name):
        """Return the pixels of the layer over the raster of a figure."""
        return self.find(name=name).renderers[1].data_source.data["image"][0]

    def tap(self, figure, x, y):
        """Click in a figure."""
        event = Tap(figure, x=x, y=y)
        self.document.add_next_tick_callback(lambda: figure._trigger_event(event))

    def click(self, button):
        """Click a button."""
        self.document.add_next_tick_callback(lambda: button._trigger_event(ButtonClick(button)))

    def command(self):
        return self.find(title="Command that writes the same").value


@pytest.fixture
def page(served):
    @contextlib.contextmanager
    def open_page(explorer, **options):
        with served(explorer, **options) as running, Client(running) as client:
            yield client

    return open_page


def test_places_view_finds_a_window(page, explore, meadow):
    with page(explore(meadow)) as client:
        client.wait(lambda: "of 3" in client.text("dates"))
        assert client.image("query")[0].shape == (112, 144)
        row, col = (
            client.find(title=f"{name} of the upper left corner") for name in ("Row", "Column")
        )
        assert (row.value, col.value) == (24, 40)
        assert (row.high, col.high) == (48, 80)
        assert client.text("matches").count("<tr>") == 6  # a head, and five
        assert "--at 24,40 --method grid --matches 5" in client.command()
        client.set(row, value=48)
        client.wait(lambda: "--at 48,40" in client.command())
        client.set(client.find(title="Matches"), value=2)
        client.wait(lambda: client.text("matches").count("<tr>") == 3)
        before = client.command()
        client.set(client.find(title="Search in"), value=client.find(title="Search in").options[2])
        client.wait(lambda: client.command() != before)
        client.wait(lambda: client.find(title="Search in").value in client.text("matches"))


def test_places_view_click_chooses_window_around_it(page, explore, meadow):
    with page(explore(meadow)) as client:
        client.wait(lambda: client.text("matches"))
        for view, name in ((0, "query"), (2, "place")):
            client.view(view)
            client.wait(lambda name=name: client.models(name=name))
            figure = client.find(name=name)
            client.tap(figure, 60.4 + view, 70.9)
            row = client.find(title="Row of the upper left corner")
            col = client.find(title="Column of the upper left corner")
            client.wait(
                lambda row=row, col=col, view=view: (row.value, col.value) == (38, 28 + view)
            )


def test_export_panel_offers_written_file(page, explore, meadow, fetch):
    with page(explore(meadow)) as client:
        client.wait(lambda: client.text("matches"))
        button = client.find(label="Export")
        client.click(button)
        client.wait(lambda: "found.geojson" in client.text("places files"))
        client.wait(lambda: not button.disabled)  # a moment after the files are offered
        address = client.text("places files").split('href="')[1].split('"')[0]
        answer = fetch(client.running.address, address)
        assert answer.headers["Content-Disposition"] == 'attachment; filename="found.geojson"'
        boxes = json.loads(answer.body)["features"]
        assert {box["properties"]["query_row"] for box in boxes} == {24}


def test_dates_view_samples_dates(page, explore, meadow):
    with page(explore(meadow)) as client:
        client.view(2)
        client.wait(lambda: client.models(name="Sampled dates"))
        client.wait(lambda: client.text("difference"))
        button = client.find(label="Sample dates from N(0, I)")
        client.click(button)
        client.wait(lambda: len(client.image("Sampled dates")))
        assert client.image("Sampled dates")[0].shape == (64, 6 * 68 - 4)


def test_page_window_is_not_shared_with_other_pages(page, explore, meadow):
    with page(explore(meadow)) as client, Client(client.running) as other:
        for one in (client, other):
            one.wait(lambda one=one: "--at 24,40" in one.command())
        client.set(client.find(title="Row of the upper left corner"), value=3)
        client.wait(lambda: "--at 3,40" in client.command())
        other.wait(lambda: "of 3" in other.text("dates"))
        assert "--at 24,40" in other.command()


def test_change_view_scores_the_threshold(page, explore, felled):
    with page(explore(felled)) as client:
        client.view(1)
        client.wait(lambda: client.text("scores"))
        first = client.text("scores")
        assert "F1" in first
        assert "--threshold auto --mask" in client.command()
        threshold = client.find(name="threshold")
        value = (threshold.start + threshold.end) / 2
        client.set(threshold, value=value)
        client.wait(lambda: client.text("scores") != first)
        client.slide(threshold, value)
        client.wait(lambda: f"--threshold {value!r} " in client.command())
        automatic = client.find(label="Automatic threshold")
        client.click(automatic)
        client.wait(lambda: "--threshold auto --mask" in client.command())
        assert "--method layers" in client.command()
        of_layers = client.text("scores")
        client.set(client.find(title="Method"), value="exclusive")
        client.wait(lambda: client.text("scores") not in ("", of_layers))
        assert "--method exclusive --stride" in client.command()
        before, after = (
            one
            for one in client.document.models
            if getattr(one, "title", "") in ("Before (before)", "After (after)")
        )
        client.slide(before, after.value)
        client.wait(lambda: "Choose two different dates" in client.status)
        assert client.text("scores") == ""
        words = client.command().split()
        assert words[2] == words[3]


def test_change_view_points_steer_the_map_and_can_be_removed(page, explore, felled, fetch):
    with page(explore(felled)) as client:
        client.view(1)
        client.wait(lambda: client.text("scores"))
        distance = np.array(client.image_over("distance"))
        remove = client.find(label="Remove the point")
        assert remove.disabled
        figure = client.find(name="after")
        client.tap(figure, 40.7, 30.2)
        client.wait(lambda: "steered by 1 points" in client.status)
        assert "1 changed, 0 not changed" in client.text("points")
        assert "--method layers --labels points.geojson" in client.command()
        probability = np.array(client.image_over("distance"))
        assert 0 <= np.nanmin(probability) < np.nanmax(probability) <= 1
        assert (probability != distance).any()
        client.set(client.find(labels=["Changed", "Not changed"]), active=1)
        for name, value in (("Row", 90), ("Column", 15)):
            client.set(client.find(title=f"{name} of a point"), value=value)
        client.click(client.find(label="Add the point"))
        client.wait(lambda: "steered by 2 points" in client.status)
        chosen = client.find(title="Points")
        assert chosen.options[1][1] == "2: row 90, column 15, not changed"
        client.click(client.find(label="Export"))
        client.wait(lambda: "points.geojson" in client.text("change files"))
        addresses = client.text("change files").split('href="')[1:]
        (address,) = (one.split('"')[0] for one in addresses if "points.geojson" in one)
        written = json.loads(fetch(client.running.address, address).body)["features"]
        assert [one["properties"]["changed"] for one in written] == [True, False]
        client.set(chosen, value="0")
        client.click(remove)
        client.wait(lambda: "steered by 1 points" in client.status)
        assert "0 changed, 1 not changed" in client.text("points")
        client.click(client.find(label="Remove all"))
        client.wait(lambda: "steered" not in client.status)
        np.testing.assert_array_equal(client.image_over("distance"), distance)
        assert "--labels" not in client.command()


def test_change_view_points_are_of_two_dates_and_one_method(page, explore, meadow):
    with page(explore(meadow)) as client:
        client.view(1)
        client.wait(lambda: client.text("scores"))
        figure = client.find(name="distance")
        client.tap(figure, 5, 5)
        client.wait(lambda: "steered by 1 points" in client.status)
        client.set(client.find(title="Method"), value="pixels")
        client.wait(lambda: "--method pixels" in client.command())
        assert "--labels" not in client.command()
        assert client.find(label="Add the point").disabled
        client.tap(figure, 9, 9)
        client.set(client.find(title="Method"), value="layers")
        client.wait(lambda: "steered by 1 points" in client.status)
        before, *_ = (one for one in client.document.models if "Before" in titled(one))
        client.slide(before, 1)
        client.wait(lambda: "--labels" not in client.command())
        assert "0 changed, 0 not changed" in client.text("points")


def titled(model):
    return str(getattr(model, "title", ""))


def test_dates_view_generates_a_place(page, explore, meadow):
    with page(explore(meadow)) as client:
        client.view(2)
        client.wait(lambda: "Mean difference" in client.text("difference"))
        between = np.array(client.image("Between the two dates")[0])
        assert between.shape == (64, 64)
        client.set(client.find(title="From one date (0 %) to the other (100 %), in %"), value=100)
        client.wait(lambda: (np.array(client.image("Between the two dates")[0]) != between).any())
        np.testing.assert_array_equal(
            client.image("Between the two dates")[0], client.image("At that date, generated")[0]
        )
        assert "translated.tif" in client.command()
        kinds = client.find(title="What to export")
        client.set(kinds, value=kinds.options[2])
        client.wait(lambda: "between.png" in client.command())
        client.set(kinds, value=kinds.options[3])
        client.set(client.find(title="Samples"), value=2)
        client.wait(lambda: "--samples 2 --seed 0" in client.command())


def test_segments_view_keeps_colours(page, explore, meadow):
    with page(explore(meadow)) as client:
        client.view(3)
        client.wait(lambda: client.text("legend").count("<li>") == 7)
        colours = swatches(client)
        count = client.find(title="Clusters")
        client.slide(count, 8)
        client.wait(lambda: client.text("legend").count("<li>") == 8)
        assert colours < swatches(client)
        client.set(client.find(title="Smallest region, px"), value="4")
        client.wait(lambda: "--min-region 4" in client.command())


def swatches(client):
    """Return the colours of the legend."""
    return {part.split('"')[0] for part in client.text("legend").split("background: ")[1:]}


def test_embeddings_view_finds_similar_places(page, explore, meadow, similar):
    embeddings = ExploredEmbeddings(similar)
    with page(explore(meadow, embeddings=embeddings)) as client:
        client.wait(lambda: "of 3" in client.text("dates"))  # the status is no more of encoding
        client.view(4, [*LABELS, "Embeddings"])
        client.wait(lambda: client.text("similar places").count("<tr>") == 11)
        assert client.image("components")[0].shape == (60, 80)
        assert client.image_over("similarity").shape == (60, 80)
        assert "--window 30,40 --matches 10" in client.command()
        client.tap(client.find(name="components"), 45.5, 12.5)
        client.wait(lambda: "row 12, column 45" in client.text("similar places"))
        assert "600910, 4999750 in EPSG:32631" in client.status
        found = embeddings.find((12, 45), 10, 8, lambda text: None).places
        best = f"<td>{found[0].similarity:.3f}</td><td>{found[0].row}, {found[0].col}</td>"
        assert best in client.text("similar places")
        client.set(client.find(title="Places"), value=3)
        client.wait(lambda: client.text("similar places").count("<tr>") == 4)
        client.set(client.find(title="Row of the cell"), value=0)
        client.set(client.find(title="Column of the cell"), value=4)
        client.wait(lambda: "has no data at row 0, column 4" in client.status)
        client.set(client.find(title="Row of the cell"), value=20)
        client.wait(lambda: "row 20, column 4" in client.text("similar places"))
        client.click(client.find(name="embeddings export"))
        client.wait(lambda: "similar.geojson" in client.text("embeddings files"))


def test_page_changes_places_and_views(page, explore, meadow, felled):
    with page(explore(meadow, felled)) as client:
        client.wait(lambda: "of 3" in client.text("dates"))
        client.set(client.find(title="Place"), value="1")
        client.wait(lambda: "before.tif" in client.command())
        client.view(2)
        client.wait(lambda: "translate" in client.command())
        client.set(client.find(title="Row of the upper left corner"), value=5)
        client.wait(lambda: "5" in str(client.find(title="Row of the upper left corner").value))
        client.view(0)
        client.wait(lambda: "--at 5,24" in client.command())


def test_change_view_of_a_shared_module_maps_layers(page, explore, felled, model):
    one = ExploredModel("shared", "module", model.shared, None, None)
    with page(explore(felled, of=one)) as client:
        client.view(1)
        client.wait(lambda: client.text("scores"))
        assert client.find(title="Method").value == "layers"
        assert client.find(title="Method").options == ["layers", "pixels", "irmad"]
        assert client.text("missing") == ""


def test_page_of_a_module_names_the_missing_part(page, explore, meadow, model):
    one = ExploredModel("exclusive", "module", None, model.exclusive, None)
    with page(explore(meadow, of=one)) as client:
        client.wait(lambda: client.text("scores"))  # of the first view that there is
        client.view(3)
        client.wait(lambda: "needs the shared encoder" in client.text("missing"))
        client.view(2)
        client.wait(lambda: "needs the whole model" in client.text("missing"))


def test_raster_figure_zoom_reads_large_raster_again(page, explore, write, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_SMALL", 0)
    image = write(tmp_path / "large.tif", (64, 1500))
    with page(explore(image, stride=64)) as client:
        client.wait(lambda: len(client.image("query")))
        assert client.image("query")[0].shape == (44, 1024)
        figure = client.find(name="query")
        event = RangesUpdate(figure, x0=100.5, x1=300, y0=50, y1=10)
        client.document.add_next_tick_callback(lambda: figure._trigger_event(event))
        client.wait(lambda: client.image("query")[0].shape != (44, 1024))
        whole = RasterReader(image, ("B02", "B03", "B04", "B08")).picture(Window(10, 100, 40, 200))
        np.testing.assert_array_equal(client.image("query")[0], packed(whole))
        # All of its pixels are not held in memory, and what that means is said.
        client.wait(lambda: "among the 512 windows" in client.text("matches"))
        shown = figure.renderers[0].data_source.data
        assert [shown[name] for name in ("x", "y", "dw", "dh")] == [[100], [10], [200], [40]]


def test_page_shows_an_error_and_stays_usable(page, explore, meadow, tmp_path, monkeypatch):
    explorer = explore(meadow)

    def fail(*arguments):
        raise ZeroDivisionError("on purpose")

    with page(explorer) as client:
        client.wait(lambda: "of 3" in client.text("dates"))
        monkeypatch.setattr(explorer, "find_by_features", fail)
        client.set(client.find(title="Matches"), value=3)
        client.wait(lambda: "Failed: ZeroDivisionError" in client.status)
        monkeypatch.undo()
        client.set(client.find(title="Matches"), value=4)
        client.wait(lambda: client.text("matches").count("<tr>") == 5)


def test_page_damaged_cache_is_recomputed(page, explore, meadow, tmp_path):
    explorer = explore(meadow)
    for image in explorer.places[0].images:
        explorer.vectors(image, lambda text: None)
    for entry in (tmp_path / "cache").iterdir():
        (entry / "features.npy").write_bytes(b"")
    told = []
    again = explore(meadow)
    again.vectors(again.places[0].images[0], told.append)
    assert "is damaged and is recomputed" in told[0]


def test_page_loads_nothing_from_other_hosts(served, explore, meadow, fetch, monkeypatch):
    monkeypatch.setenv("BOKEH_RESOURCES", "cdn")
    with served(explore(meadow)) as running:
        text = fetch(running.address).body.decode()
    assert '<html lang="en">' in text
    links = {part.split('"')[0] for part in text.split('src="')[1:] + text.split('href="')[1:]}
    assert links
    assert all(one.startswith(("/static/", "data:")) for one in links), links


def test_segments_and_places_views_show_mean_of_series(page, explore, meadow):
    with page(explore(meadow, stride=16)) as client:
        client.wait(lambda: "of 3" in client.text("dates"))
        options = client.find(title="Search in").options
        assert options[-1] == "meadow: mean of the clear dates"
        client.set(client.find(title="Search in"), value=options[-1])
        client.wait(lambda: f"Matches in {options[-1]}" in client.text("matches"))
        assert f".tif {meadow} found.geojson" in client.command()
        assert client.image("shared")[0].shape == (112, 144)
        client.view(3)
        client.wait(lambda: client.models(title="Clusters"))
        client.wait(lambda: "7:" in client.text("legend"))
        slider = next(one for one in client.models(end=4) if (one.title or "").startswith("Date ("))
        client.slide(slider, 4)
        client.wait(lambda: f"segment {meadow} classes.tif" in client.command())
        client.wait(lambda: "7:" in client.text("legend"))
        assert client.image("segments")[0].shape == (112, 144)


def test_page_place_of_products_shows_mean_and_reason(page, explore, tmp_path):
    folder = fake_products.make_series(tmp_path / "downloads", 2, side=96)
    with page(explore(folder, stride=16)) as client:
        client.wait(lambda: "Rank" in client.text("matches"))
        assert f"retrieve {folder} {folder} found.geojson" in client.command()
        assert client.text("dates") == ""
        for view in (1, 2):
            client.view(view)
            client.wait(lambda: client.text("missing"))
            assert "This view needs dates that are single rasters" in client.text("missing")
        client.view(3)
        client.wait(lambda: client.models(title="Clusters"))
        client.wait(lambda: "1:" in client.text("legend"))
