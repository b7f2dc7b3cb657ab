"""Hooks of MkDocs: pages for files outside docs/, and the help of the command line.

Pages link to files of the repository by relative path (`../examples/demo.py`), as code hosts do.
The site has a page for each of them, so it needs neither the repository nor a network.
"""

import dataclasses
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from sits_keras import cli, config

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "source"
"""Folder of the site for files outside docs/."""

_LINK = re.compile(r"(\]\(|^\[[^\]]+\]: +|(?:src|href)=\")([^)\s\"#]+)", re.MULTILINE)
_FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".json": "json", ".yml": "yaml", ".cfg": "ini", ".toml": "toml"}
_HELP = "<!-- help of every verb -->"
_SETTINGS = "<!-- settings of every configuration -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each linked file outside docs/, and for files that those pages link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        for target in _outside(path, _text_of(path)) if path.endswith((".md", "/")) else ():
            if target not in known:
                known.add(target)
                waiting.append(target)
                files.append(File.generated(config, _uri_of(target), content=_text_of(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace links to files outside docs/ by links to their pages, and fill in the help."""
    here = page.file.src_uri
    path = here.removeprefix(f"{SOURCE}/") if here.startswith(f"{SOURCE}/") else f"docs/{here}"
    if not (ROOT / path.removesuffix(".md")).is_file():  # the links in code are its own
        markdown = _relinked(markdown, path, here)
    if _HELP in markdown:
        markdown = markdown.replace(_HELP, "\n".join(_help_of(cli.sits_keras, "sits-keras", None)))
    if _SETTINGS in markdown:
        markdown = markdown.replace(_SETTINGS, "\n".join(_settings()))
    return markdown


def _text_of(path: str) -> str:
    """Return the page of a file of the repository, or of a folder, which ends with a slash."""
    if path.endswith("/"):
        names = sorted(one.name for one in (ROOT / path).iterdir() if one.suffix in _LANGUAGES)
        return f"# {path}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{text}\n````\n"


def _uri_of(path: str) -> str:
    """Return the path of a file of the repository among the sources of the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith("/"):
        return f"{SOURCE}/{path}index.md"
    return f"{SOURCE}/{path}" if path.endswith(".md") else f"{SOURCE}/{path}.md"


def _target(path: str, link: str) -> str | None:
    """Return the file or folder of the repository that a relative link points to."""
    if re.match(r"[a-z]+:|/", link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if (ROOT / target).is_dir():
        return f"{target}/README.md" if (ROOT / target / "README.md").is_file() else f"{target}/"
    if not (ROOT / target).is_file():
        raise PluginError(f"{path} links to {link}, which does not exist")
    return target


def _outside(path: str, markdown: str) -> Iterator[str]:
    """Yield the files outside docs/ that a page links to."""
    for _, link in _LINK.findall(_FENCE.sub("", markdown)):
        target = _target(path, link)
        if target and not target.startswith("docs/"):
            yield target


def _relinked(markdown: str, path: str, here: str) -> str:
    def replace(match: re.Match[str]) -> str:
        target = _target(path, match[2])
        if target is None:
            return match[0]
        return match[1] + posixpath.relpath(_uri_of(target), posixpath.dirname(here) or ".")

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(replace, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(replace, markdown[end:])])


def _settings() -> Iterator[str]:
    """Yield a heading and a table of the settings of each configuration."""
    for kind in (*config.Config.__subclasses__(), config.RunConfig):
        summary = (kind.__doc__ or "").split("\n")[0]
        yield f"## sits_keras.{kind.__name__} {{#sits_keras.{kind.__name__}}}\n\n{summary}\n"
        yield "| setting | default | |\n|---|---|---|"
        for field in dataclasses.fields(kind):
            default = f"`{type(field.default).__name__}()`"
            if not dataclasses.is_dataclass(field.default):
                default = f"`{field.default!r}`"
            yield f"| `{field.name}` | {default} | {config.help_of(kind, field.name)} |"
        yield ""


def _help_of(command: click.Command, name: str, above: click.Context | None) -> Iterator[str]:
    """Yield a heading and the help of a command and of its subcommands."""
    settings = {"terminal_width": 78, "max_content_width": 78, **command.context_settings}
    context = click.Context(command, info_name=name, parent=above, **settings)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            assert below is not None
            yield from _help_of(below, verb, context)
