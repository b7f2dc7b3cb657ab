"""Import rules (docs/design.md)."""

import ast
import functools
import graphlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    """Full names of the modules that are imported anywhere in a module, however they are."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_import_call(node):
            names.add(imported_by_call(node))
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


def is_import_call(node: ast.Call) -> bool:
    """Return whether it is a call of `importlib.import_module`, `__import__` or the like."""
    name = ast.unparse(node.func).rpartition(".")[2]
    return name in ("import_module", "__import__", "run_module", "resolve_name", "load_module")


def imported_by_call(node: ast.Call) -> str:
    """The module that it imports; of a name made of parts, the folder, as in `"a.b.*"`."""
    name = node.args[0]
    if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
        return f"{name.values[0].value}*"
    assert isinstance(name, ast.Constant), f"line {node.lineno}: imports a module by a variable"
    return name.value


def own_imports_of(tree: ast.Module) -> set[str]:
    """The same, of this package's own modules and by their names within it."""
    own = {name for name in imports_of(tree) if name.split(".")[0] == "sits_keras"}
    return {name.removeprefix("sits_keras").removeprefix(".") for name in own}


# The only import within a function that goes against the order of the folders.
BACKWARD = {("model", "presets.loading")}
# The command line imports a verb by its name when it is called.
BY_NAME = {"cli": {"cli.*"}}


def test_modules_have_no_import_circle():
    graph = {}
    for module in FILES:
        imported = own_imports_of(parse(module)) - {module} - BY_NAME.get(module, set())
        unknown = {name for name in imported if name not in FILES}
        assert not unknown, f"{module} imports {unknown}"
        graph[module] = {one for one in imported if one and (module, one) not in BACKWARD}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"{' <- '.join(error.args[1])}")


def test_backward_import_is_within_a_function():
    for module, imported in BACKWARD:
        assert imported in own_imports_of(parse(module))
        at_the_top = ast.Module(
            [one for one in parse(module).body if isinstance(one, ast.Import | ast.ImportFrom)], []
        )
        assert imported not in own_imports_of(at_the_top)


def test_imports_by_a_call_are_found():
    source = """
def late(verb):
    importlib.import_module("sits_keras.hub")
    __import__("sits_keras.data.records")
    return import_module(f"sits_keras.cli.{verb}")
"""
    assert own_imports_of(ast.parse(source)) == {"hub", "data.records", "cli.*"}
    with pytest.raises(AssertionError, match="by a variable"):
        imports_of(ast.parse("importlib.import_module(name)"))


@each_module
def test_training_is_imported_by_cli_only(module):
    if not module.startswith("cli") and module != "":
        assert "training" not in own_imports_of(parse(module))


@each_module
def test_rasterio_is_imported_by_modules_of_rasters_only(module):
    imports_it = any(name.split(".")[0] == "rasterio" for name in imports_of(parse(module)))
    assert imports_it == (
        module
        in (
            "data.rasters.points",
            "data.rasters.read",
            "data.rasters.tiles",
            "data.rasters.write",
        )
    )


@each_module
def test_backend_is_asked_for_by_one_module_only(module):
    calls = [node.func for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]
    asks = any(isinstance(f, ast.Attribute) and f.attr == "backend" for f in calls)
    assert asks == (module == "trainers")


@each_module
def test_module_does_not_import_tensorflow_addons(module):
    roots = {name.split(".")[0] for name in imports_of(parse(module))}
    assert not roots & {"tensorflow_addons", "tf_keras"}


def test_imports_are_found_anywhere_in_a_module():
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


@pytest.mark.parametrize("module", ["", "data", "hub", "tasks"])
def test_package_imports_its_names_lazily(module):
    imported = {name.split(".")[0] for name in imports_of(parse(module))}
    assert "lazy_loader" in imported
    assert imported <= {"lazy_loader", "sys", "typing", "sits_keras"}


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (
            "sits_keras, sits_keras.data, sits_keras.tasks, sits_keras.cli",
            {"keras", "matplotlib", "rasterio", "tensorflow"},
        ),
        (
            "sits_keras.tasks.retrieval.embeddings, sits_keras.tasks.embedding_files, "
            "sits_keras.tasks.webmap",
            {"keras", "tensorflow"},
        ),
    ],
    ids=["package", "tasks without encoder"],
)
def test_import_loads_no_heavy_library(modules, heavy):
    program = f"import sys, {modules}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    "module", [name for name in FILES if "lazy_loader" in imports_of(parse(name))]
)
def test_every_name_in_all_of_a_package_exists(module):
    package = importlib.import_module(f"sits_keras.{module}".rstrip("."))
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None


@pytest.mark.parametrize(
    "script", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda script: script.name
)
def test_benchmark_imports_existing_names(script):
    """No other test runs the benchmarks, which take hours."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sits_keras"):
            module = node.module.removeprefix("sits_keras").removeprefix(".")
            for alias in node.names:
                name = f"{module}.{alias.name}".removeprefix(".")
                assert name in FILES or alias.name in names_in(parse(module)), name


def names_in(tree: ast.Module) -> set[str]:
    """Names that a module defines or imports, now or at first use."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # of lazy_loader
    return names


@each_module
def test_module_outside_cli_imports_nothing_by_name(module):
    """import-linter does not see imports by name; the command line uses them for its commands."""
    hidden = ("import_module", "__import__")
    calls = [node.func for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]
    names = {getattr(f, "attr", None) or getattr(f, "id", None) for f in calls}
    assert not names & set(hidden) or module == "cli"


@pytest.mark.integration
@pytest.mark.parametrize("is_installed", [True, False], ids=["onnxruntime", "without"])
def test_maps_of_a_preset_import_tensorflow_only_without_onnxruntime(is_installed, tmp_path):
    if is_installed:
        pytest.importorskip("onnxruntime", reason="needs the extra [fast]")
    program = f"""
import sys
from pathlib import Path
import numpy as np
if not {is_installed}:
    sys.modules["onnxruntime"] = None  # an import raises ImportError
from sits_keras.cli import run
from sits_keras.data.rasters.read import Grid, write_raster
rng = np.random.default_rng(0)
for name in ("a.tif", "b.tif"):
    image = rng.integers(500, 3000, (80, 70, 4)).astype(np.uint16)
    grid = Grid(80, 70, "EPSG:32631", (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_000_000.0))
    write_raster(Path(name), image, ("B02", "B03", "B04", "B08"), grid)
model = ("--model", sys.argv[1], "--quiet")
assert run(["segment", "a.tif", "classes.tif", *model]) == 0
if {is_installed}:
    assert run(["change", "a.tif", "b.tif", "change.tif", *model]) == 0
    assert run(["embed", "a.tif", "embedding.tif", *model]) == 0
print(*sorted({{"keras", "tensorflow"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "savedmodels" / "sits_rgbn_small")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    imported = "" if is_installed else "keras tensorflow"
    assert done.stdout.splitlines()[-1] == imported
    assert (tmp_path / "classes.tif").is_file()
