import json
import shutil
from pathlib import Path

import pytest

from sits_keras import hub

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("encoder", "features"), [("shared", 46), ("exclusive", 3)])
def test_export_writes_and_describes_a_module(encoder, features, tiny_run, call, tmp_path):
    out = tmp_path / "new" / "module"
    code, text, err = call("export", tiny_run, out, "--encoder", encoder)
    assert (code, err) == (0, "")
    assert text == f"{out}: {encoder} encoder, bands B02, B03, B04, B08, {features} features\n"
    assert hub.load(out).num_features == features


def test_export_existing_module_needs_overwrite(tiny_run, tiny_module, call, refuse, tmp_path):
    out = Path(shutil.copytree(tiny_module, tmp_path / "module"))
    assert "or pass overwrite (--overwrite)" in refuse("export", tiny_run, out)
    model = tiny_run / "model.keras"
    assert call("export", model, out, "--encoder", "exclusive", "--overwrite").code == 0
    assert hub.read_metadata(out)["encoder"] == "exclusive"


def test_export_never_overwrites_another_folder(tiny_run, refuse, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "it is not a hub module" in refuse("export", tiny_run, tmp_path, "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_export_unwritable_output_raises(tiny_run, refuse, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refuse("export", tiny_run, tmp_path / "file" / "module")


def test_export_of_another_path_raises(tiny_run, refuse, tmp_path):
    out = tmp_path / "module"
    missing = tmp_path / "missing.keras"
    assert refuse("export", missing, out).startswith(f"No model at {missing}.")
    assert "the folder of a finished run" in refuse("export", tiny_run / "checkpoints", out)
    cut_off = tmp_path / "cut.keras"
    cut_off.write_bytes((tiny_run / "model.keras").read_bytes()[:1000])
    assert (
        refuse("export", cut_off, out)
        == f"{cut_off} is not a valid .keras file (possibly truncated)."
    )
    assert not out.exists()


def test_export_in_another_format_writes_its_files(tiny_run, call, refuse, tmp_path):
    out = tmp_path / "lite"
    code, text, _ = call("export", tiny_run, out, "--format", "litert", "--license", "MIT")
    assert code == 0
    assert text == f"{out}: shared encoder, bands B02, B03, B04, B08, windows.tflite\n"
    facts = json.loads(call("info", out, "--json").out)
    assert facts["kind"] == "litert files of the shared encoder"
    assert facts["files"] == ["windows.tflite"]
    assert "is a converted encoder, not a model" in refuse("export", out, tmp_path / "more")
    card = (out / "README.md").read_text()
    assert "license: mit" in card
    assert "| `windows.tflite` | `(batch, 64, 64, 4)` |" in card
    assert "already exists" in refuse("export", tiny_run, out, "--format", "litert")
    assert call("export", tiny_run, out, "--overwrite").code == 0  # now a hub module
    assert hub.load(out).metadata["encoder"] == "shared"
