import importlib.util
import json
import pickle
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import sits_keras
from sits_keras import hub
from sits_keras.config import ModelConfig
from sits_keras.errors import ConfigError, DataError
from sits_keras.hub.conversion import convert_layers
from sits_keras.hub.encoder import checksum, weights_sha256
from sits_keras.hub.layers import LayerEncoder
from sits_keras.model import DisentangledSITS
from sits_keras.presets.folders import describe_file
from sits_keras.receptive_field import EXCLUSIVE_STEPS, SHARED_STEPS, receptive_margin

SHAPE = {"width": 2, "shared_channels": 3, "exclusive_dim": 5}
ALL = (1, 2, 3, 4)

each_encoder = pytest.mark.parametrize("name", ["shared", "exclusive"])
each_padding = pytest.mark.parametrize("padding", ["context", "zeros"])


def build(padding: str) -> DisentangledSITS:
    """A model whose moving statistics, shifts and scales are not those that it begins with."""
    model = DisentangledSITS(ModelConfig(**SHAPE, padding=padding))
    rng = np.random.default_rng(0)
    for network in (model.shared_encoder, model.exclusive_encoder):
        for variable in network.variables:
            variable.assign(variable + rng.uniform(0.01, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def models() -> dict[str, DisentangledSITS]:
    return {padding: build(padding) for padding in ("context", "zeros")}


def make_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 0.5, (height, width, 4)).astype(np.float32)


def network_of(model: DisentangledSITS, name: str) -> keras.Model:
    return model.shared_encoder if name == "shared" else model.exclusive_encoder


@each_encoder
@each_padding
def test_layer_encoder_inner_cells_equal_activations(models, name, padding):
    model, network = models[padding], network_of(models[padding], name)
    layers = LayerEncoder(hub.wrap(model, name), ALL)
    margin = layers.margin()
    image = make_image(160 + 2 * margin, 160 + 2 * margin)
    found = layers(image, margin)
    names = [f"{name}_{index}_activation" for index in ALL]
    outputs = keras.Function(network.input, [network.get_layer(one).output for one in names])
    before, after = model.context_margin if padding == "context" else (0, 0)
    row, col = 32, 48
    window = image[
        margin + row - before : margin + row + 64 + after,
        margin + col - before : margin + col + 64 + after,
    ]
    scaled = np.clip(window / np.array(model.config.band_max, np.float32) * 2 - 1, -1, 1)
    checked = 0
    for grid, cells, expected in zip(layers.grids, found, outputs(scaled[None]), strict=True):
        expected = np.asarray(expected)[0]
        own = cells[row // grid.stride :, col // grid.stride :][
            : 64 // grid.stride, : 64 // grid.stride
        ]
        if padding == "context":  # the network's cells begin in the context
            steps = SHARED_STEPS if name == "shared" else EXCLUSIVE_STEPS
            first = (receptive_margin(steps)[0] - grid.before) // grid.stride
            kept = expected[first:, first:][: len(own), : len(own)]
            np.testing.assert_allclose(own, kept, rtol=0, atol=1e-5 * np.abs(own).max())
        else:  # cells near the edges of the window see the zeros of its padding
            trim = [-(-one // grid.stride) for one in (grid.before, grid.after)]
            inside = slice(trim[0], len(own) - trim[1])
            if inside.start >= inside.stop:
                continue
            np.testing.assert_allclose(
                own[inside, inside], expected[inside, inside], rtol=1e-5, atol=1e-5
            )
        checked += 1
    assert checked >= 2


@each_encoder
@each_padding
def test_layer_encoder_part_equals_whole(models, name, padding):
    layers = LayerEncoder(hub.wrap(models[padding], name), ALL)
    margin = layers.margin(2)
    image = make_image(130 + 2 * margin, 150 + 2 * margin)
    whole = layers(image, margin, border=2)
    part = layers(image[32 : 96 + 2 * margin, 48 : 97 + 2 * margin], margin, border=2)
    for grid, cells, expected in zip(layers.grids, part, whole, strict=True):
        assert cells.shape[:2] == (64 // grid.stride + 4, -(-49 // grid.stride) + 4)
        kept = expected[32 // grid.stride :, 48 // grid.stride :]
        # Beyond an image's end, the last cell may see pixels that only the whole has.
        rows, cols = 64 // grid.stride + 2, 49 // grid.stride + 2
        np.testing.assert_allclose(
            cells[:rows, :cols], kept[:rows, :cols], rtol=0, atol=1e-5 * np.abs(kept).max()
        )


@each_encoder
def test_layer_encoder_changed_pixel_changes_only_cells_that_see_it(models, name):
    layers = LayerEncoder(hub.wrap(models["context"], name), ALL)
    margin = layers.margin()
    image = make_image(96 + 2 * margin, 96 + 2 * margin)
    changed = image.copy()
    changed[margin + 40, margin + 50] += 0.05
    pairs = zip(layers(image, margin), layers(changed, margin), strict=True)
    for grid, (first, second) in zip(layers.grids, pairs, strict=True):
        rows, cols = np.nonzero(np.abs(first - second).max(axis=-1))
        for cells, pixel in ((rows, 40), (cols, 50)):
            seen_from = cells * grid.stride - grid.before
            seen_to = (cells + 1) * grid.stride - 1 + grid.after
            assert len(cells)
            assert (seen_from <= pixel).all()
            assert (pixel <= seen_to).all()


@pytest.fixture(scope="module")
def module(models, tmp_path_factory) -> hub.HubEncoder:
    path = tmp_path_factory.mktemp("exported") / "module"
    return hub.load(hub.export(models["context"], path, "exclusive"))


def test_layer_encoder_exported_module_equals_model(models, module):
    wrapped = LayerEncoder(hub.wrap(models["context"], "exclusive"), (1, 3))
    loaded = LayerEncoder(module, (1, 3))
    again = pickle.loads(pickle.dumps(loaded))
    image = make_image(40 + 2 * loaded.margin(), 56 + 2 * loaded.margin())
    found = [layers(image, loaded.margin()) for layers in (wrapped, loaded, again)]
    for one, two, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(two, three)


def test_layer_encoder_is_traced_once_and_uses_current_weights(models, tmp_path):
    loaded = hub.load(hub.export(models["context"], tmp_path / "module", "exclusive"))
    first = LayerEncoder(loaded, (1, 3))
    image = make_image(40 + 2 * first.margin(), 56 + 2 * first.margin())
    before = first(image, first.margin())
    assert LayerEncoder(loaded, (1, 3))._run is first._run
    assert LayerEncoder(loaded, (1, 2))._run is not first._run
    assert first._run.experimental_get_tracing_count() == 1
    for variable in loaded.module.variables:
        variable.assign(variable * 1.1)
    after = LayerEncoder(loaded, (1, 3))(image, first.margin())
    assert first._run.experimental_get_tracing_count() == 1
    again = pickle.loads(pickle.dumps(loaded))  # of the file, with the weights of before
    assert again.layer_functions == {}
    unchanged = LayerEncoder(again, (1, 3))(image, first.margin())
    for one, two, three in zip(before, after, unchanged, strict=True):
        assert np.abs(one - two).max() > 1e-3
        np.testing.assert_array_equal(one, three)


def test_layer_encoder_plain_function_raises():
    with pytest.raises(ConfigError, match="Expected a HubEncoder"):
        LayerEncoder(lambda images: images)  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [(), (0,), (5,), (2, 1), (1, 1)])
def test_layer_encoder_unknown_layers_raise(models, layers):
    with pytest.raises(ConfigError, match="ascending numbers of layers"):
        LayerEncoder(hub.wrap(models["context"]), layers)


def test_layer_encoder_invalid_images_raise(models):
    layers = LayerEncoder(hub.wrap(models["context"]), (1, 2))
    margin = layers.margin()
    image = make_image(2 * margin + 8, 2 * margin + 8)
    with pytest.raises(ConfigError, match="Expected a margin"):
        layers(image, margin - 1)
    with pytest.raises(ConfigError, match="Expected an image of shape"):
        layers(image[..., :3], margin)
    for value in (np.nan, 50.0):
        image[3, 3, 0] = value
        with pytest.raises(DataError, match="Divide digital numbers"):
            layers(image, margin)


def test_layer_encoder_weights_of_another_model_raise(module):
    model = {**module.metadata["model"], "width": 3}
    other = hub.HubEncoder(lambda: (module.module, None), {**module.metadata, "model": model}, ())
    with pytest.raises(DataError, match="not those of its configuration"):
        LayerEncoder(other)


# In ONNX Runtime

SHIPPED = sorted(
    file.parent for file in (Path(__file__).parents[2] / "savedmodels").glob("*/preset.json")
)


def without_onnxruntime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an import raises ImportError


@pytest.fixture(scope="module")
def preset(models, tmp_path_factory) -> Path:
    pytest.importorskip("tf2onnx", reason="needs the extra [onnx]")
    folder = tmp_path_factory.mktemp("presets") / "small"
    return models["zeros"].save_to_preset(folder)


def check_engines_agree(folder, name, sides, monkeypatch):
    encoder = sits_keras.from_preset(folder, name)
    by_runtime = LayerEncoder(encoder, ALL)
    assert not encoder.is_open
    with monkeypatch.context() as patch:
        without_onnxruntime(patch)
        by_tensorflow = LayerEncoder(sits_keras.from_preset(folder, name), ALL)
        assert by_tensorflow.encoder.is_open
    assert by_runtime.grids == by_tensorflow.grids
    margin = by_runtime.margin(1)
    for height, width in sides:
        size = (height + 2 * margin, width + 2 * margin, len(encoder.bands))
        image = np.random.default_rng(1).uniform(0, 0.5, size).astype(np.float32)
        pairs = zip(by_runtime(image, margin, 1), by_tensorflow(image, margin, 1), strict=True)
        for found, expected in pairs:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@each_encoder
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_layer_encoder_shipped_presets_are_equal_in_onnxruntime(folder, name, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra [fast]")
    check_engines_agree(folder, name, [(1, 1), (33, 70), (256, 256)], monkeypatch)


@each_encoder
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_presets_layer_files_have_checksum_of_weights(folder, name):
    encoder = sits_keras.from_preset(folder, name)
    written = weights_sha256(encoder)
    assert not encoder.is_open
    assert written == checksum(encoder.metadata, encoder.module.variables)
    model = sits_keras.from_preset(folder)
    network = network_of(model, name)
    assert written == checksum(encoder.metadata, [one.value for one in network.variables])


@each_encoder
def test_layer_encoder_zero_padding_is_equal_in_onnxruntime(preset, name, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra [fast]")
    check_engines_agree(preset, name, [(40, 56)], monkeypatch)


def test_layer_encoder_changed_weights_are_not_computed_by_onnxruntime(preset):
    pytest.importorskip("onnxruntime", reason="needs the extra [fast]")
    encoder = sits_keras.from_preset(preset, "shared")
    layers = LayerEncoder(encoder, (1, 2))
    image = make_image(16 + 2 * layers.margin(), 16 + 2 * layers.margin())
    before = layers(image, layers.margin())
    assert encoder.module is not None  # open, with the same weights
    same = LayerEncoder(encoder, (1, 2))(image, layers.margin())
    for variable in encoder.module.variables:
        variable.assign(variable * 1.1)
    after = LayerEncoder(encoder, (1, 2))(image, layers.margin())
    for one, two, three in zip(before, same, after, strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.abs(one - three).max() > 1e-3


def test_layer_encoder_file_of_other_weights_raises(preset, models, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra [fast]")
    folder = shutil.copytree(preset, tmp_path / "stale")
    convert_layers(
        models["zeros"].shared_encoder, models["zeros"].config, "0" * 64,
        folder / "shared_layers.onnx",
    )  # fmt: skip
    facts = json.loads((folder / "preset.json").read_text())
    facts["files"]["shared_layers.onnx"] = describe_file(folder / "shared_layers.onnx")
    (folder / "preset.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"of other weights than its preset.*Received: 0000"):
        LayerEncoder(sits_keras.from_preset(folder, "shared"), (1,))


def test_save_to_preset_without_tf2onnx_writes_no_layer_files(models, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    folder = models["zeros"].save_to_preset(tmp_path / "plain")
    assert not list(folder.glob("*.onnx"))
    encoder = sits_keras.from_preset(folder, "shared")
    assert LayerEncoder(encoder, (1,)).grids[0].num_channels == SHAPE["width"]
