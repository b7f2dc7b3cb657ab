"""Small pieces of HTML. Whatever is put in is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from bokeh.themes import Theme


def message(text: str, is_error: bool = False) -> str:
    """A line of what is going on."""
    kind = "error" if is_error else "note"
    return f'<p class="{kind}">{"&#9888; " if is_error else ""}{escape(text)}</p>'


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first column names the rows."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in header)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>'
        + "".join(f"<td>{escape(str(one))}</td>" for one in others)
        + "</tr>"
        for first, *others in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def legend(entries: Iterable[tuple[tuple[int, int, int], str]]) -> str:
    """Colours and what they stand for."""
    items = "".join(
        f'<li><span class="swatch" style="background: rgb{colour}"></span>{escape(text)}</li>'
        for colour, text in entries
    )
    return f'<ul class="legend">{items}</ul>'


def links(files: Iterable[tuple[str, str, int]]) -> str:
    """Files to download, with their sizes."""
    items = "".join(
        f'<li><a href="{escape(address)}" download="{escape(name)}">{escape(name)}</a> '
        f"({size / 1000:,.1f} kB)</li>"
        for name, address, size in files
    )
    return f'<ul class="files">{items}</ul>'


_FOCUS = ":focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 1px; }"
_BUTTON = ".bk-btn-primary { background: #0b5394; border-color: #0b5394; color: #ffffff; }"
_RADIO = ".bk-input-group { font-size: 1rem; } label { margin-right: 0.8rem; }"
_TEXT = "textarea { font-family: ui-monospace, monospace; font-size: 0.85rem; }"
_DIV = """
p { margin: 0.2rem 0; max-width: 60rem; font-size: 0.95rem; }
p.error { border-left: 0.4rem solid #d55e00; padding: 0.2rem 0.6rem; font-weight: bold; }
table { border-collapse: collapse; font-size: 0.85rem; }
caption { text-align: left; font-weight: bold; padding: 0.3rem 0; max-width: 26rem; }
th, td { padding: 0.1rem 0.7rem; text-align: left; border-bottom: 1px solid #cccccc; }
th[scope="row"] { font-weight: normal; }
ul { margin: 0.2rem 0; padding: 0; list-style: none; font-size: 0.95rem; }
ul.files li { display: inline-block; margin-right: 1.5rem; }
.swatch { display: inline-block; width: 1.1em; height: 1.1em; margin-right: 0.5em;
  border: 1px solid #333333; vertical-align: text-bottom; }
a { color: #0b5394; }
"""

THEME = Theme(
    json={
        "attrs": {
            "Widget": {"stylesheets": [_FOCUS]},
            "RadioGroup": {"stylesheets": [_FOCUS, _RADIO]},
            "Button": {"stylesheets": [_FOCUS, _BUTTON]},
            "TextAreaInput": {"stylesheets": [_FOCUS, _TEXT]},
            "Div": {"stylesheets": [_FOCUS, _DIV]},
        }
    }
)
