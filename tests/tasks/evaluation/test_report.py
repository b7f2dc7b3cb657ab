import base64
import html.parser
import json

import pytest

from sits_keras.tasks.evaluation.report import (
    Figure,
    Row,
    Section,
    Table,
    mean_and_spread,
    render_report,
    show_number,
)

PNG = b"\x89PNG not really"


@pytest.fixture
def report(tmp_path):
    """A report of made-up numbers, with what it was made of."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/a.png").write_bytes(PNG)
    rows = [
        Row("shared <features>", [0.123456789, 3, "64 x 64"]),
        Row("raw pixels", [1.5e-7, 27_000, None], is_baseline=True),
    ]
    section = Section(
        "retrieval",
        "Finding places & more",
        {"stride": 4},
        [Table("table_2", "Of <b>windows</b>.", ["recall", "count", "size"], rows)],
        [Figure("figures/a.png", "A caption", 'An "alt" text')],
        ["Three places."],
    )
    metrics = {
        "format": "f",
        "version": 1,
        "model": {
            "name": "<script>alert(1)</script>",
            "sha256": "abc",
            "steps": 1234,
            "networks": {"bands": ["B04"], "band_max": [0.4]},
        },
        "data": {"held_out": ["a", "b"], "series": {"sha256": "def", "bytes": 987_654_321}},
        "settings": {"num_seeds": 2, "stride": 4},
        "sections": {
            "retrieval": {
                "settings": section.settings,
                "tables": {"table_2": section.tables[0].to_metrics()},
                "notes": section.notes,
            }
        },
        "skipped": {"change": "no pairs"},
        "versions": {"keras": "3.15"},
    }
    return metrics, section, render_report(metrics, [section], tmp_path)


class Reader(html.parser.HTMLParser):
    """Collects what a report holds, and sees that its elements are nested."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.numbers, self.text = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "data":
            self.numbers.append(float(attributes["value"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def numbers_in(values):
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return [number for one in values for number in numbers_in(one)]
    is_number = isinstance(values, int | float) and not isinstance(values, bool)
    return [float(values)] if is_number else []


def test_render_report_contains_every_number_in_full(report):
    metrics, _, text = report
    expected = numbers_in(metrics)
    assert {0.123456789, 1.5e-7, 27_000, 1234, 987_654_321, 0.4} <= set(expected)
    assert set(expected) <= set(Reader(text).numbers)


def test_render_report_escapes_text(report):
    _, _, text = report
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "shared &lt;features&gt;" in text
    assert "Of &lt;b&gt;windows&lt;/b&gt;." in text


def test_render_report_is_self_contained(report):
    _, _, text = report
    tags = Reader(text).tags
    (image,) = [attributes for tag, attributes in tags if tag == "img"]
    assert image["src"] == "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe")]
    assert "http://" not in text
    assert "https://" not in text


def test_render_report_is_accessible(report):
    reader = Reader(report[2])
    tags = reader.tags
    assert ("html", {"lang": "en"}) in tags
    assert [a["alt"] for tag, a in tags if tag == "img"] == ['An "alt" text']
    num_tables = sum(tag == "table" for tag, _ in tags)
    assert num_tables == sum(tag == "caption" for tag, _ in tags) == 1
    scopes = [a["scope"] for tag, a in tags if tag == "th"]
    assert scopes == ["col"] * 3 + ["row"] * 2
    assert "(baseline)" in "".join(reader.text)
    targets = {a["id"] for _, a in tags if "id" in a}
    assert {a["href"].removeprefix("#") for tag, a in tags if tag == "a"} <= targets


def test_render_report_lists_skipped_sections_and_versions(report):
    text = "".join(Reader(report[2]).text)
    for part in ("no pairs", "Three places.", "2 held-out places", "abc", "def", "keras"):
        assert part in text
    assert "One seed" not in text


def test_render_report_one_seed_is_noted(report, tmp_path):
    metrics, section, _ = report
    metrics["settings"]["num_seeds"] = 1
    assert "One seed:" in render_report(metrics, [section], tmp_path)


def test_render_report_same_results_give_same_bytes(report, tmp_path):
    metrics, section, text = report
    assert render_report(metrics, [section], tmp_path) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3"),
        (9999, "9999"),
        (27_000, "27\u202f000"),
        (0.0, "0.0000"),
        (0.73724, "0.7372"),
        (-0.5, "-0.5000"),
        (0.00012, "1.20e-04"),
        (123.456, "123.5"),
    ],
)
def test_show_number_formats_for_readers(value, shown):
    assert show_number(value) == shown


def test_section_json_round_trip_returns_same_section(report):
    _, section, _ = report
    assert Section.from_json(json.loads(json.dumps(section.to_json()))) == section


def test_mean_and_spread_match_hand_values():
    assert mean_and_spread([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5))
    assert mean_and_spread([4.0]) == (4.0, None)
