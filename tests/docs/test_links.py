"""Links and file names in the documentation; external links are checked for syntax only."""

import functools
import itertools
import re
import urllib.parse
from collections.abc import Iterator

import pytest
from blocks import PAGES, ROOT, read_page
from markdown_it import MarkdownIt
from markdown_it.token import Token

LINKED = [*PAGES, "CHANGELOG.md"]
each_page = pytest.mark.parametrize("page", LINKED)

# What looks like a file of the repository, in back ticks.
_FILE = re.compile(
    r"(?:sits_keras|tests|examples|benchmarks|docs|savedmodels)/[\w./-]*(?:::\w+)?"
    r"|[A-Z]+\.md|pyproject\.toml|setup\.cfg|mkdocs\.yml"
)


def tokens_of(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


def links_of(text: str) -> Iterator[str]:
    """Targets of links, images and `src`/`href` of HTML."""
    for token in tokens_of(text):
        if token.type in ("link_open", "image"):
            yield str(token.attrs.get("href") or token.attrs.get("src"))
        elif token.type in ("html_inline", "html_block"):
            yield from re.findall(r'(?:src|href)="([^"]*)"', token.content)


@functools.cache
def anchors_of(page: str) -> frozenset[str]:
    """Ids of headings, as code hosts and Python-Markdown make them."""
    tokens = list(tokens_of(read_page(page)))
    titles = [
        after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"
    ]
    words = (re.sub(r"[^\w\s-]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title)) for title in titles)
    named = re.findall(r'\bid="([^"]+)"', read_page(page))
    return frozenset({re.sub(r"[\s]", "-", one.strip().lower()) for one in words} | {*named})


@each_page
def test_links_lead_somewhere(page):
    broken = []
    for link in links_of(read_page(page)):
        url = urllib.parse.urlsplit(link)
        if url.scheme or url.netloc:
            if url.scheme not in ("https", "mailto") or " " in link:
                broken.append(link)
            continue
        target = (ROOT / page).parent / urllib.parse.unquote(url.path) if url.path else ROOT / page
        if not target.exists() or not target.resolve().is_relative_to(ROOT):
            broken.append(link)
        elif url.fragment and target.suffix == ".md":
            name = target.resolve().relative_to(ROOT).as_posix()
            if url.fragment not in anchors_of(name):
                broken.append(f"{link}: headings are {sorted(anchors_of(name))}")
    assert not broken, f"{page}: " + "\n".join(broken)


@each_page
def test_files_in_back_ticks_exist(page):
    named = (token.content for token in tokens_of(read_page(page)) if token.type == "code_inline")
    lost = [
        name
        for name in named
        if _FILE.fullmatch(name) and not (ROOT / name.split("::")[0]).exists()
    ]
    assert not lost, f"{page} names {lost}"


def test_links_are_found_in_any_form():
    text = """[a](one.md#b) ![c](two.png) <https://three.org>

| t |
|---|
| [d][e] |

<img src="four.png">

`[no](five.md)`

[e]: six.md
"""
    assert list(links_of(text)) == [
        "one.md#b",
        "two.png",
        "https://three.org",
        "six.md",
        "four.png",
    ]


def test_anchors_are_those_of_headings():
    assert {"import-order", "terms", "design"} <= anchors_of("docs/design.md")
