"""Rules of imports (docs/design.md)."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import sits_keras
import sits_keras.data
import sits_keras.tasks

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sits_keras"


def name_of(file: Path) -> str:
    """A module's name within the package: `data.raster`, `data`, and nothing for the package."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}

each_module = pytest.mark.parametrize("module", FILES)


@functools.cache
def parse(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports_of(tree: ast.Module) -> set[str]:
    """Full names of the modules that are imported anywhere in a module, in functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import; name the module in full"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inside if name.removeprefix("sits_keras.") in FILES}
            names |= modules
            if modules != inside:
                names.add(node.module)
    return names


def own_imports_of(tree: ast.Module) -> set[str]:
    """The same, of this package's own modules and by their names within it."""
    own = {name for name in imports_of(tree) if name.split(".")[0] == "sits_keras"}
    return {name.removeprefix("sits_keras").removeprefix(".") for name in own}


@each_module
def test_the_command_line_alone_knows_of_training_runs(module):
    if not module.startswith("cli") and module != "":
        assert "training" not in own_imports_of(parse(module))


@each_module
def test_one_module_reads_rasters_and_one_writes_maps(module):
    imports_it = any(name.split(".")[0] == "rasterio" for name in imports_of(parse(module)))
    assert imports_it == (module in ("data.rasters.read", "data.rasters.write"))


@each_module
def test_one_module_asks_for_the_backend(module):
    calls = [node.func for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]
    asks = any(isinstance(f, ast.Attribute) and f.attr == "backend" for f in calls)
    assert asks == (module == "trainers")


@each_module
def test_nothing_imports_tensorflow_addons(module):
    roots = {name.split(".")[0] for name in imports_of(parse(module))}
    assert not roots & {"tensorflow_addons", "tf_keras"}


def test_imports_are_found_wherever_they_are():
    source = """
import numpy as np, rasterio.windows
from sits_keras import losses, DisentangledSITS
from sits_keras.data.rasters.read import Grid
def late():
    if True:
        import sits_keras.hub
        from sits_keras.data import records
"""
    tree = ast.parse(source)
    assert own_imports_of(tree) == {"losses", "", "data.rasters.read", "hub", "data.records"}
    assert {"numpy", "rasterio.windows"} <= imports_of(tree)


@pytest.mark.parametrize("module", ["", "data", "tasks"])
def test_a_package_imports_its_names_when_they_are_used(module):
    imported = {name.split(".")[0] for name in imports_of(parse(module))}
    assert "lazy_loader" in imported
    assert imported <= {"lazy_loader", "sys", "sits_keras"}


def test_importing_the_package_loads_no_heavy_library():
    program = (
        "import sys, sits_keras, sits_keras.data, sits_keras.tasks, sits_keras.cli;"
        "print(*sorted({'keras', 'matplotlib', 'rasterio', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    "package", [sits_keras, sits_keras.data, sits_keras.tasks], ids=lambda p: p.__name__
)
def test_every_name_that_a_package_promises_is_there(package):
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None


@each_module
def test_no_import_is_hidden(module):
    """import-linter does not see imports by name; the command line uses them for its commands."""
    hidden = ("import_module", "__import__")
    calls = [node.func for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]
    names = {getattr(f, "attr", None) or getattr(f, "id", None) for f in calls}
    assert not names & set(hidden) or module in ("cli", "provenance")
