"""Execution of the code blocks of docs/howto."""

import pytest
from blocks import PAGES


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/howto/")])
def test_blocks_run(page, run_blocks):
    run_blocks(page)
