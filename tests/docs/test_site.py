"""The site, built as `make docs` builds it."""

import html.parser
import inspect
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import sits_keras
import sits_keras.data
import sits_keras.tasks
from sits_keras import cli

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loads(html.parser.HTMLParser):
    """Resources that a page loads, and its ids."""

    def __init__(self, page: Path):
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get(LOADED.get(tag, "")) is not None:
            self.targets.append(values[LOADED[tag]])
        if "id" in values:
            self.ids.add(values["id"])


def test_site_loads_nothing_from_other_hosts(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        for target in Loads(page).targets:
            assert "//" not in target.removeprefix("data:"), f"{page.name} loads {target}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "@import" not in text
        for part in text.split("url(")[1:]:
            address = part.split(")")[0].strip("\"'")
            assert address.startswith("data:") or "//" not in address, f"{style.name}: {address}"


def test_site_pages_load_existing_files(site):
    for page in site.rglob("*.html"):
        if page.name != "404.html":  # which is served at any depth
            for target in Loads(page).targets:
                if not target.startswith("data:"):
                    assert (page.parent / target.split("?")[0]).exists(), f"{page.name}: {target}"


def test_site_contains_help_of_every_command(site):
    ids = Loads(site / "cli.html").ids
    assert {"sits-keras", "sits-keras-classify-train"} <= ids
    assert {f"sits-keras-{verb}" for verb in cli.VERBS} <= ids
    assert "Usage: sits-keras classify train [OPTIONS] DATA OUT" in (site / "cli.html").read_text()


def test_site_reference_contains_every_exported_name(site):
    there = set().union(*(Loads(page).ids for page in (site / "api").glob("*.html")))
    offered = [
        {f"{where.__name__}.{one.__name__}", f"{one.__module__}.{one.__qualname__}"}
        for where in (sits_keras, sits_keras.data, sits_keras.tasks)
        for one in (getattr(where, name) for name in where.__all__)
        if inspect.isfunction(one) or inspect.isclass(one)
    ]
    modules = [
        getattr(where, name).__name__
        for where in (sits_keras, sits_keras.tasks)
        for name in where.__all__
        if inspect.ismodule(getattr(where, name)) and name not in ("data", "tasks")
    ]
    assert {"sits_keras.hub", "sits_keras.tasks.change"} <= set(modules)
    missing = [min(names) for names in offered if not names & there]
    missing += [name for name in modules if not any(one.startswith(f"{name}.") for one in there)]
    assert not missing, f"not in docs/api: {missing}"


def test_site_files_outside_docs_have_pages(site):
    """That the results link to, with links of their own."""
    text = (site / "results.html").read_text(encoding="utf-8")
    assert 'href="source/savedmodels/index.html"' in text
    assert (site / "source" / "savedmodels" / "index.html").is_file()


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../design.md#terms", "../design.md#terms"),
        ("../../README.md#licence", "../source/README.md#licence"),
        ("../../examples", "../source/examples/index.md"),
        ("../../examples/demo.py", "../source/examples/demo.py.md"),
        ("../../savedmodels", "../source/savedmodels/README.md"),
        ("https://hal.science", "https://hal.science"),
    ],
)
def test_site_links_out_of_docs_lead_to_pages(link, expected):
    relinked = runpy.run_path(str(ROOT / "docs" / "make" / "hooks.py"))["_relinked"]
    page = f"A [link]({link}).\n\n```text\n[code]({link})\n```\n"
    assert relinked(page, "docs/api/index.md", "api/index.md") == page.replace(link, expected, 1)
