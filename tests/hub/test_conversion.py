"""Encoders as ONNX and LiteRT files: the same features as TensorFlow."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

import sits_keras
from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.errors import ConfigError, MissingError

pytestmark = pytest.mark.integration

SHIPPED = sorted(
    file.parent for file in (Path(__file__).parents[2] / "savedmodels").glob("*/preset.json")
)
MAX_DIFFERENCE = 1e-4


def run_onnx(file, images):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra [test]")
    session = runtime.InferenceSession(file)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def run_litert(file, images):
    module = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra [test]")
    return module.Interpreter(str(file)).get_signature_runner()(images=images)


RUN = {"onnx": run_onnx, "litert": run_litert}


def make_images(shape, bands):
    return np.random.default_rng(0).uniform(0, 0.4, (*shape, bands)).astype(np.float32)


def check_equal(folder, encoder, file_format, batches=(1, 3), rasters=()):
    """Compare all functions of exported files with those of an encoder in TensorFlow."""
    described = json.loads((folder / "encoder.json").read_text())
    run, files = RUN[file_format], {Path(one["file"]).stem: one for one in described["files"]}
    for batch in batches:
        images = make_images((batch, 64, 64), len(encoder.bands))
        found = run(folder / files["windows"]["file"], images)
        expected = {"features": encoder(images)}
        if described["encoder"] == "shared":
            expected = {"features": encoder.pooled(images), "grid": encoder.spatial(images)}
        assert set(found) == set(expected)
        for name, values in expected.items():
            assert np.std(values) > 0
            np.testing.assert_allclose(found[name], values, atol=MAX_DIFFERENCE, rtol=0)
            assert list(found[name].shape[1:]) == files["windows"]["outputs"][name][1:]
    for batch, height, width in rasters:
        images = make_images((batch, height, width), len(encoder.bands))
        found = run(folder / files["dense_8"]["file"], images)["features"]
        np.testing.assert_allclose(found, encoder.dense(images, 8), atol=MAX_DIFFERENCE, rtol=0)
        assert found.shape[3] == files["dense_8"]["outputs"]["features"][3]


@pytest.fixture(scope="module")
def model():
    """A small model whose statistics are not those of its initialisation."""
    model = sits_keras.DisentangledSITS(
        ModelConfig(width=2, shared_channels=3, exclusive_dim=5, padding="context")
    )
    rng = np.random.default_rng(0)
    weights = [value + rng.normal(0, 0.02, value.shape) for value in model.get_weights()]
    model.set_weights(weights)
    return model


@pytest.mark.parametrize("file_format", ["onnx", "litert"])
@pytest.mark.parametrize("part", ["shared", "exclusive"])
def test_export_in_another_format_has_the_features_of_tensorflow(
    part, file_format, model, tmp_path
):
    pytest.importorskip("tf2onnx", reason="needs the extra [test]")
    folder = hub.export(model, tmp_path / "out", part, file_format=file_format)
    rasters = [(1, 142, 142), (2, 150, 174)]
    check_equal(folder, hub.wrap(model, part), file_format, rasters=rasters)
    invalid = make_images((2, 64, 64), 4)
    invalid[0, 5, 5, 1] = 11.0
    found = RUN[file_format](next(folder.glob("windows.*")), invalid)["features"]
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "litert"])
@pytest.mark.parametrize("part", ["shared", "exclusive"])
@pytest.mark.parametrize("preset", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_encoders_have_the_features_of_tensorflow(preset, part, file_format, tmp_path):
    pytest.importorskip("tf2onnx", reason="needs the extra [test]")
    model = sits_keras.from_preset(preset)
    folder = hub.export(model, tmp_path / "out", part, file_format=file_format)
    rasters = [(1, 150, 174)] if model.config.padding == "context" else []
    check_equal(folder, sits_keras.from_preset(preset, part), file_format, rasters=rasters)


def test_onnx_file_contains_metadata_and_names_of_its_axes(tiny_run, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    folder = hub.export(sits_keras.load_model(tiny_run), tmp_path / "out", file_format="onnx")
    assert [file.name for file in sorted(folder.iterdir())] == [
        *("README.md", "encoder.json", "windows.onnx")
    ]
    file = onnx.load(str(folder / "windows.onnx"))
    metadata = json.loads({one.key: one.value for one in file.metadata_props}["sits_keras"])
    assert metadata["bands"] == ["B02", "B03", "B04", "B08"]
    assert file.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [one.version for one in file.opset_import if not one.domain] == [17]
    assert sum(node.op_type == "Conv" for node in file.graph.node) == 5  # features and grid share


def test_export_unknown_format_or_stride_raises(model, tmp_path):
    with pytest.raises(ConfigError, match=r"'savedmodel', 'onnx' or 'litert'. Received: 'torch'"):
        hub.export(model, tmp_path / "out", file_format="torch")
    with pytest.raises(ConfigError, match=r"one of 4, 8, 16, 32. Received: 6"):
        hub.export(model, tmp_path / "out", file_format="litert", stride=6)


def test_export_to_onnx_without_tf2onnx_says_what_to_install(model, tmp_path, monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments, **named):
        if name == "tf2onnx":
            raise ImportError("No module named 'tf2onnx'")
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingError, match=r"needs tf2onnx .*pip install 'sits_keras\[onnx\]'"):
        hub.export(model, tmp_path / "out", file_format="onnx")
    assert not list(tmp_path.iterdir())
