"""Code blocks of all pages: executed if possible, otherwise parsed.

Pages of docs/howto run in test_blocks_howto.py, so that two processes can work in parallel.
"""

import shlex

import click
import pytest
from blocks import (
    PAGES,
    check_block,
    find_blocks,
    inline_commands,
    parse_command,
    read_page,
)

each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_every_block_is_sound(page):
    for block in find_blocks(page, read_page(page)):
        check_block(block)


@each_page
def test_commands_in_back_ticks_exist(page):
    for command in inline_commands(read_page(page)):
        words = [word for word in shlex.split(command)[1:] if word != "..."]
        try:
            parse_command(words, whole=False)
        except click.UsageError as error:
            if not error.message.endswith("requires an argument."):
                pytest.fail(f"{page}: `{command}`: {error.format_message()}")


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/howto/")])
def test_blocks_run(page, run_blocks):
    run_blocks(page)
