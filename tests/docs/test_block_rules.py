"""Detection of errors in code blocks of the documentation."""

from pathlib import Path

import click
import pytest
import yaml
from blocks import Block, check_block, commands_of, find_blocks, parse_command, run_page, smaller

PAGE = """
<!-- files: a.tif run -->
Words.

<!-- not run: a cluster -->
```bash
sits-keras embed a.tif b.tif --model run
```

- in a list

  ```python
  one = 1
  ```

=== "in a tab"

    ```text
    shown
    ```
"""


def block(language: str, code: str, not_run: str = "", files: tuple[str, ...] = ()) -> Block:
    return Block("README.md", 1, language, code, not_run, files)


def test_blocks_are_found_wherever_they_are():
    assert list(find_blocks("p", PAGE)) == [
        Block(
            "p",
            6,
            "bash",
            "sits-keras embed a.tif b.tif --model run\n",
            "a cluster",
            ("a.tif", "run"),
        ),
        Block("p", 12, "python", "one = 1\n"),
        Block("p", 18, "text", "shown\n"),
    ]


@pytest.mark.parametrize("text", ["    indented\n", "<!-- not run: why -->\n\nwords\n"])
def test_find_blocks_hidden_block_raises(text):
    with pytest.raises(ValueError, match=r"^p:\d: "):
        list(find_blocks("p", text))


def test_commands_are_found_as_a_shell_finds_them():
    code = """
# sits-keras no
A=1 sits-keras train 'a;b' \\
  c && sits-keras info d > e  # sits-keras no
python -c "import x; print('sits-keras no')" | sits-keras presets
"""
    assert list(commands_of(code)) == [["train", "a;b", "c"], ["info", "d"], ["presets"]]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("tain records run", "No such command 'tain'"),
        ("classify tain", "No such command 'tain'"),
        ("train records run --wide 3", "No such option"),
        ("train records", "Missing argument 'OUT'"),
        ("train records run --steps few", "not a valid integer"),
        ("export run encoder --encoder both", "is not one of"),
        ("export run encoder more", "unexpected more"),
    ],
)
def test_check_block_unknown_command_is_reported(command, message):
    with pytest.raises(AssertionError, match=message):
        check_block(block("bash", f"sits-keras {command}", not_run="a reason"))
    with pytest.raises(click.UsageError):
        parse_command(command.split())


def test_a_command_is_parsed_and_not_run():
    values = parse_command(["classify", "train", "chips", "out", "--epochs", "3", "--model", "m"])
    assert (values["out"], values["epochs"]) == ("out", "3")
    parse_command(["train", "--help"])


@pytest.mark.parametrize(
    ("language", "code"),
    [("bash", "make tea"), ("sh", ""), ("python", "if"), ("json", "{"), ("yaml", "a: [")],
)
def test_check_block_invalid_block_raises(language, code):
    with pytest.raises((AssertionError, ValueError, SyntaxError, yaml.YAMLError)):
        check_block(block(language, code))


def test_sizes_alone_are_lowered():
    assert smaller("sits-keras train a b \\\n --steps 900 --seed 7") == (
        "sits-keras train --width 4 --batch-size 4 a b   --steps 1 --seed 7"
    )
    assert smaller("fit(epochs=20, initial_epoch=step // 100)") == (
        "fit(epochs=1, initial_epoch=step // 100)"
    )


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    (folder / "run").mkdir(parents=True)
    (folder / "a.tif").write_text("a")
    return folder


def run(inputs: Path, monkeypatch: pytest.MonkeyPatch, *blocks: Block) -> None:
    (inputs.parent / "folder").mkdir()
    monkeypatch.chdir(inputs.parent)
    run_page(blocks, inputs, inputs.parent / "folder")


def test_python_blocks_share_names_and_begin_in_a_folder_of_the_inputs(inputs, monkeypatch):
    first = block("python", "import os; there = set(os.listdir()); n = images.shape", files=None)
    second = block("python", "assert {'a.tif', 'run'} < there and n == (8, 64, 64, 4)", files=None)
    run(inputs, monkeypatch, first, second)


def test_run_page_new_folder_contains_requested_inputs(inputs, monkeypatch):
    first = block("bash", "test -d run; touch made", files=None)
    second = block("bash", "test -f a.tif && ! test -e run && ! test -e made", files=("a.tif",))
    run(inputs, monkeypatch, first, second)


def test_run_page_own_outputs_do_not_exist_before(inputs, monkeypatch):
    made = block("bash", "! test -e run\nsits-keras train --help > /dev/null", files=None)
    then = block("bash", "false && sits-keras train records run || true", files=None)
    run(inputs, monkeypatch, made, then)


@pytest.mark.parametrize(
    "code", ["sits-keras info nowhere", "false | true", "python -c 'raise SystemExit(3)'"]
)
def test_run_page_failing_block_is_reported(inputs, monkeypatch, code):
    with pytest.raises(AssertionError, match=r"README\.md:1"):
        run(inputs, monkeypatch, block("bash", code, files=None))


def test_run_page_missing_input_is_reported(inputs, monkeypatch):
    with pytest.raises(AssertionError, match=r"inputs are \['a.tif', 'run'\]"):
        run(inputs, monkeypatch, block("bash", "true", files=("c.tif",)))
