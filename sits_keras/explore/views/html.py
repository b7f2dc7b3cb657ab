"""Small pieces of HTML. Whatever is put in is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


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
