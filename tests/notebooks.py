"""Executing a notebook with the running interpreter: for its test, and for `make notebook`."""

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import PIL.Image
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

from sits_keras.files import written_aside

TIMEOUT = 900  # seconds for a cell, on a machine that does other things as well


def execute(path: Path, folder: Path, **parameters: Any) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run in `folder`; the file stays as it is.

    `parameters` replace what its cell tagged "parameters" sets.
    """
    notebook = nbformat.read(path, as_version=4)
    sources = {}
    for index, cell in enumerate(notebook.cells):
        if "parameters" in cell.metadata.get("tags", []):
            sources[index] = cell.source
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    assert sources or not parameters
    # With no folders to look for kernels in, it is the one of this interpreter.
    kernel = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )
    resources = {"metadata": {"path": str(folder)}}
    # Without a backend of Matplotlib that is set outside, the kernel shows figures in their cells.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    NotebookClient(
        notebook,
        km=kernel,
        timeout=TIMEOUT,
        startup_timeout=TIMEOUT,
        record_timing=False,
        resources=resources,
    ).execute(env=environment, cleanup_kc=True)  # or the kernel lives as long as this process
    for index, source in sources.items():
        notebook.cells[index].source = source
    notebook.metadata["language_info"] = {"name": "python"}  # whichever Python it was
    return notebook


def shrink_pictures(notebook: nbformat.NotebookNode) -> None:
    """Gives the pictures 256 colours each: a third of the bytes, to be checked in."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                content = io.BytesIO(base64.b64decode(output.data["image/png"]))
                small = io.BytesIO()
                with PIL.Image.open(content) as picture:
                    picture.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    done = execute(path, path.parent)
    shrink_pictures(done)
    with written_aside(path) as aside:
        nbformat.write(done, aside)
