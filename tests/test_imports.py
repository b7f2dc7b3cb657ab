"""Which module may import which (docs/design.md)."""

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
MAX_LINES = 300

# From left to right: a module imports from rows above its own, not from its own or from below.
# Only what shares a folder may import each other within a row. A new module is placed here and in
# docs/design.md.
ROWS = (
    {"errors"},
    {"bands", "files", "configurable", "needs_tensorflow"},
    {"config", "startup", "downloads"}
    | {"trainers", "trainers.jax", "trainers.pairs", "trainers.tensorflow"},
    {"losses", "layers", "optimizers", "surroundings", "data.tiling", "data.radiometry"}
    | {"preset_folders", "provenance"},
    {"networks", "dense", "generation", "pooling"}
    | {
        "data",
        "data.aligned",
        "data.arrays",
        "data.band_order",
        "data.chips",
        "data.counter",
        "data.draws",
        "data.eurosat",
    }
    | {"data.execution", "data.folders", "data.layout"}
    | {"data.geoparquet", "data.granules", "data.inspection", "data.maps", "data.metadata"}
    | {"data.pairs", "data.plan", "data.preparation", "data.products", "data.raster"}
    | {"data.reading", "data.records", "data.safe", "data.screening", "data.sharding"}
    | {"data.splits", "data.stac", "data.strips", "data.survey", "data.synthetic", "data.written"}
    | {"data.synthetic.land"}
    | {"data.synthetic.patterns", "data.synthetic.series", "data.synthetic.states"}
    | {"data.synthetic.surface", "data.synthetic.view"},
    {"model"},
    {"encoder_module"},
    {"model_card", "checkpoints"},
    {"callbacks", "event_log", "preset_item"},
    {"training", "hub", "preset_card"},
    {"presets"},
    {"tasks.class_map", "tasks.classification", "tasks.classifier", "tasks.classifier_training"}
    | {"tasks.finetuning", "tasks.probes", "tasks.scores", "tasks.table_3"}
    | {"tasks", "tasks.figures", "tasks.retrieval", "tasks.translation", "tasks.windows"}
    | {"tasks.change", "tasks.change_scores", "tasks.embedding", "tasks.overlap"}
    | {"tasks.quicklooks", "tasks.segmentation", "tasks.ranking", "tasks.snapshots"}
    | {"tasks.evaluation", "tasks.evaluation.change", "tasks.evaluation.classification"}
    | {
        "tasks.evaluation.cards",
        "tasks.evaluation.context",
        "tasks.evaluation.inventory",
        "tasks.evaluation.retrieval",
    }
    | {"tasks.evaluation.segmentation", "tasks.evaluation.translation"}
    | {"tasks.report", "tasks.results"}
    | {"tasks.blocks", "tasks.clusters", "tasks.encoding", "tasks.lookup", "tasks.mosaics"},
    {
        "explore",
        "explore.access",
        "explore.address",
        "explore.cache",
        "explore.controls",
        "explore.explorer",
    }
    | {"explore.exports", "explore.html", "explore.page", "explore.raster_figure"}
    | {"explore.rasters", "explore.raw", "explore.requests", "explore.server", "explore.session"}
    | {
        "explore.sources",
        "explore.state",
        "explore.stopping",
        "explore.style",
        "explore.subject",
        "explore.vectors",
    }
    | {"explore.view_change", "explore.view_dates", "explore.view_places", "explore.view_segments"},
    {"cli", "cli.export", "cli.info", "cli.inspect", "cli.models", "cli.options", "cli.prepare"}
    | {"cli.card", "cli.messages", "cli.presets"}
    | {
        "cli.change",
        "cli.classify",
        "cli.embed",
        "cli.evaluate",
        "cli.explore",
        "cli.retrieve",
        "cli.segment",
    }
    | {"cli.screening", "cli.train", "cli.translate"},
    {"", "__main__"},  # the package itself, which offers names of all the others
)
ROW_OF = {module: row for row, modules in enumerate(ROWS) for module in modules}


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


def is_allowed(importer: str, imported: str) -> bool:
    for module in (importer, imported):
        assert module in ROW_OF, f"place sits_keras.{module} in ROWS above, and in docs/design.md"
    if ROW_OF[importer] == ROW_OF[imported]:
        folder = imported.split(".")[0]
        return importer.split(".")[0] == folder and (PACKAGE / folder).is_dir()
    return ROW_OF[importer] > ROW_OF[imported]


def test_every_module_has_its_place():
    unplaced, stale = FILES.keys() - ROW_OF.keys(), ROW_OF.keys() - FILES.keys()
    assert not unplaced, f"place these in ROWS above, and in docs/design.md: {sorted(unplaced)}"
    assert not stale, f"these are in ROWS above, but not in the package: {sorted(stale)}"
    assert sum(map(len, ROWS)) == len(ROW_OF), "a module is in two rows"


@each_module
def test_imports_go_one_way(module):
    wrong = [name for name in own_imports_of(parse(module)) if not is_allowed(module, name)]
    assert not wrong, (
        f"sits_keras.{module} imports {', '.join(f'sits_keras.{name}' for name in wrong)}, which "
        "is not to its left: move what both need to the left, or pass it as an argument"
    )


@each_module
def test_the_command_line_alone_knows_of_training_runs(module):
    if not module.startswith("cli") and module != "":
        assert "training" not in own_imports_of(parse(module))


@each_module
def test_one_module_reads_rasters_and_one_writes_maps(module):
    imports_it = any(name.split(".")[0] == "rasterio" for name in imports_of(parse(module)))
    assert imports_it == (module in ("data.raster", "data.maps"))


@each_module
def test_one_module_asks_for_the_backend(module):
    calls = [node.func for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]
    asks = any(isinstance(f, ast.Attribute) and f.attr == "backend" for f in calls)
    assert asks == (module == "trainers")


@each_module
def test_nothing_imports_tensorflow_addons(module):
    roots = {name.split(".")[0] for name in imports_of(parse(module))}
    assert not roots & {"tensorflow_addons", "tf_keras"}


@each_module
def test_no_module_is_too_long(module):
    num_lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES, f"{FILES[module].name} has {num_lines} lines: split it by theme"


def test_imports_are_found_wherever_they_are():
    source = """
import numpy as np, rasterio.windows
from sits_keras import losses, DisentangledSITS
from sits_keras.data.raster import Grid
def late():
    if True:
        import sits_keras.hub
        from sits_keras.data import records
"""
    tree = ast.parse(source)
    assert own_imports_of(tree) == {"losses", "", "data.raster", "hub", "data.records"}
    assert {"numpy", "rasterio.windows"} <= imports_of(tree)


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("model", "losses", True),
        ("losses", "model", False),
        ("networks", "generation", False),
        ("trainers", "trainers.tensorflow", True),
        ("data.plan", "data.records", True),
        ("data.tiling", "data.raster", False),
        ("data.pairs", "networks", False),
        ("hub", "training", False),
        ("tasks.retrieval", "tasks.windows", True),
        ("tasks.windows", "cli", False),
        ("cli.train", "training", True),
        ("model", "", False),
    ],
)
def test_the_rule_of_the_rows(importer, imported, allowed):
    assert is_allowed(importer, imported) is allowed


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
