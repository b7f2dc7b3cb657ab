"""Reads the code blocks of Markdown pages, and runs them as a reader would, with less to do.

CONTRIBUTING.md ("Code in the pages") says what the comments before a block mean.
"""

import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from markdown_it import MarkdownIt

from sits_keras import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        ROOT / "savedmodels" / "README.md",
    ]
    if path.is_file()
)

# What is made smaller before a block runs. Nothing else is changed.
SMALLER = [
    (r"--steps \d+", "--steps 2"),
    (r"--batch-size \d+", "--batch-size 4"),
    (r"--width \d+", "--width 4"),
    (r"--epochs \d+", "--epochs 1"),
    (r"(sits-keras train\b.*--steps) \d+", r"\1 1"),
    (r"(sits-keras train)(?!.*--steps )", r"\1 --steps 1"),
    (r"(sits-keras train)(?!.*--batch-size)", r"\1 --batch-size 4"),
    (r"(sits-keras train)(?!.*--(?:width|config|preset))", r"\1 --width 4"),
    (r"(sits-keras classify train)(?!.*--epochs)", r"\1 --epochs 1"),
    (r"(sits-keras evaluate)", r"\1 --seeds 1 --crops 8 --queries 4 --train-encoder none"),
    (r"\bsteps_per_epoch=\d+", "steps_per_epoch=1"),
    (r"\bsteps_per_execution=\d+", "steps_per_execution=1"),
    (r"\bmixed_bfloat16\b", "float32"),  # processors without it take ten times as long
    (r"\bsteps=\d+", "steps=1"),
    (r"\bepochs=\d+", "epochs=1"),
    (r"\bbatch_size=\d+", "batch_size=4"),
    (r"\bwidth=\d+", "width=4"),
    (r"\bModelConfig\(\)", "ModelConfig(width=4)"),
]

# Variables that Python blocks may use without making them.
GIVEN_NAMES = """
import numpy as np
images = np.random.default_rng(0).uniform(0.01, 0.4, (8, 64, 64, 4)).astype("float32")
series = [np.random.default_rng(k).integers(1, 5000, (3, 96, 96, 4), "uint16") for k in range(2)]
del np
"""

_RUN = {"bash", "python"}
_PARSED = {"json": json.loads, "yaml": yaml.safe_load}
_SHOWN = {"", "text", "mermaid"}
LANGUAGES = _RUN | _PARSED.keys() | _SHOWN
_COMMENT = re.compile(r"<!--\s*(not run|files):\s*(.*?)\s*-->", re.DOTALL)
_SHELL = re.compile(r"[*?\[\]$|<>&;`~{}()!]")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the page's path in the repository.
        line: of the opening fence, from 1.
        language: its tag.
        code: what is in it.
        not_run: why it cannot run here; empty where it can.
        files: names of the inputs that lie in the new folder that begins with this block; `None`
            where it runs in the folder of the block before.
    """

    page: str
    line: int
    language: str
    code: str
    not_run: str = ""
    files: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in _RUN and not self.not_run


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def find_blocks(page: str, text: str, first_line: int = 1) -> Iterator[Block]:
    """The fenced blocks of a page, those in lists, notes and tabs too.

    Raises:
        ValueError: a block that is indented and not fenced, or a comment that nothing follows.
    """
    not_run, files = "", None
    for token in MarkdownIt("commonmark").parse(text):
        line = first_line + (token.map[0] if token.map else 0)
        if token.type == "html_block" and (found := _COMMENT.search(token.content)):
            if found[1] == "files":
                files = tuple(found[2].split())
            else:
                not_run = found[2]
        elif token.type == "fence":
            yield Block(page, line, token.info.strip(), token.content, not_run, files)
            not_run, files = "", None
        elif token.type == "code_block":
            inside = list(find_blocks(page, token.content, line))
            if not inside:
                raise ValueError(f"{page}:{line}: this block is indented. Fence it with ```.")
            yield from inside
        elif not_run and token.type.endswith("_open"):
            raise ValueError(f"{page}:{line}: 'not run' must stand right before a block.")


def commands_of(code: str) -> Iterator[list[str]]:
    """The words of each `sits-keras` command in bash code, from the verb on."""
    lexer = shlex.shlex(
        code.replace("\\\n", " ").replace("\n", "\n;\n"), posix=True, punctuation_chars=";|&<>()"
    )
    lexer.whitespace_split = True
    words: list[str] = []
    for token in itertools.chain(lexer, [";"]):
        if not set(token) <= set(";|&<>()"):
            words.append(token)
            continue
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if words[:1] == ["sits-keras"]:
            yield words[1:]
        words = []


def inline_commands(text: str) -> Iterator[str]:
    """Code in back ticks that begins with `sits-keras`."""
    for token in MarkdownIt("commonmark").parse(text):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("sits-keras "):
                yield child.content


def parse_command(words: list[str], whole: bool = True) -> dict[str, Any]:
    """The options and arguments of a command line, parsed by the verb itself, which is not run.

    Args:
        words: from the verb on.
        whole: whether arguments must all be there.
    Raises:
        click.UsageError: there is no such verb or option, or a value is not of its kind.
    """
    command: click.Command = cli.sits_keras
    context = click.Context(command, info_name="sits-keras", **command.context_settings)
    while True:
        values, words, given = command.make_parser(context).parse_args(args=list(words))
        if not isinstance(command, click.Group) or not words:
            break
        name, verb, words = command.resolve_command(context, words)
        context = click.Context(verb, info_name=name, parent=context)
        command = verb
    if words:
        raise click.UsageError(f"unexpected {' '.join(words)}", context)
    whole = whole and command.get_help_option(context) not in given
    for param in command.params:
        value = values.get(param.name)
        missing = param.name not in values or param.value_is_missing(value)
        if missing and whole and param.required:
            raise click.MissingParameter(ctx=context, param=param)
        if not missing and value is not None and not isinstance(param.type, click.Path):
            param.type_cast_value(context, value)
    return values


def check_block(block: Block) -> None:
    """Looks at a block without running it: its tag, its commands, its syntax.

    Raises:
        AssertionError: naming the block and what is wrong in it.
    """
    assert block.language in LANGUAGES, f"{block}: tag {block.language!r}, of {sorted(LANGUAGES)}"
    if block.language == "python":
        compile(block.code, str(block), "exec")
    elif block.language in _PARSED:
        _PARSED[block.language](block.code)
    elif block.language == "bash":
        for words in commands_of(block.code):
            try:
                parse_command(words)
            except click.UsageError as error:
                raise AssertionError(
                    f"{block}: sits-keras {shlex.join(words)}: {error.format_message()}"
                ) from error
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        for line in _lines(block.code):
            words = _without_comment(line).split()
            if words[:1] == ["make"]:
                asked = {word for word in words[1:] if "=" not in word}
                assert asked <= targets, f"{block}: the Makefile has no {asked - targets}"


def run_page(blocks: Iterable[Block], inputs: Path, folder: Path) -> None:
    """Runs the blocks of a page in their order. The working folder and the environment change.

    Args:
        blocks: of one page.
        inputs: folder of made-up inputs, which are copied.
        folder: an empty one, for the folders that blocks run in.
    Raises:
        AssertionError: a block failed; it is named.
    """
    wanted = [block for block in blocks if block.is_run]
    names: dict[str, Any] = {}
    for index, block in enumerate(wanted):
        if index == 0 or block.files is not None:
            here = folder / str(index)
            _lay_out(here, inputs, wanted[index:])
            os.chdir(here)
        code = smaller(block.code)
        if block.language == "bash":
            _run_bash(block, code, folder)
        elif "KERAS_BACKEND" in code:
            # Compiling takes longer than the few steps.
            environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
            _run_process(block, [sys.executable, "-c", GIVEN_NAMES + code], environment)
        else:
            if not names:
                exec(GIVEN_NAMES, names)
            exec(compile("\n" * block.line + code, ROOT / block.page, "exec"), names)


def smaller(code: str) -> str:
    """Code with its continued lines joined, and the sizes of `SMALLER`."""
    code = code.replace("\\\n", " ")
    for pattern, replacement in SMALLER:
        code = re.sub(pattern, replacement, code)
    return code


def _lay_out(here: Path, inputs: Path, blocks: list[Block]) -> None:
    """Copies inputs: those that are asked for, or all but what the blocks themselves will make."""
    asked, made = blocks[0].files, set()
    for block in blocks:
        if block.files is not None and block is not blocks[0]:
            break
        if block.language == "bash":
            for words in commands_of(block.code):
                made.add(str(parse_command(words).get("out", "")).split("/")[0])
    there = {path.name for path in inputs.iterdir()}
    assert asked is None or there >= set(asked), f"{blocks[0]}: inputs are {sorted(there)}"
    here.mkdir()
    for name in there - made if asked is None else asked:
        copy = shutil.copytree if (inputs / name).is_dir() else shutil.copy
        copy(inputs / name, here / name)
    for name in ("examples", "benchmarks"):
        (here / name).symlink_to(ROOT / name)


def _run_bash(block: Block, code: str, folder: Path) -> None:
    lines = list(_lines(code))
    if all(_is_plain(line) for line in lines):
        for line in lines:  # in this process, which has imported TensorFlow already
            arguments = shlex.split(line, comments=True)[1:]
            assert cli.run(arguments) == 0, f"{block}: failed: {line}"
        return
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, module in (("sits-keras", " -m sits_keras"), ("python", ""), ("python3", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{module} "$@"\n')
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    _run_process(block, ["bash", "-e", "-o", "pipefail", "-c", code], environment)


def _run_process(block: Block, command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{block}: ended with {done.returncode}: {done.stderr[-3000:]}"


def _is_plain(line: str) -> bool:
    """Return whether a line is one `sits-keras` command without shell syntax."""
    bare = re.sub(r"'[^']*'", "", _without_comment(line))
    return bare.startswith("sits-keras ") and not _SHELL.search(bare)


def _lines(code: str) -> Iterator[str]:
    for line in code.replace("\\\n", " ").splitlines():
        if _without_comment(line):
            yield line


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()
