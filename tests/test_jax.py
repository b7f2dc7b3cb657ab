"""The JAX backend, in a separate process (`on_jax.py`), compared with TensorFlow."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from sits_keras import DisentangledSITS, ModelConfig, load_model
from sits_keras.data import array_pairs

pytestmark = pytest.mark.integration

pytest.importorskip("jax")

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ModelConfig(width=1, shared_channels=2, exclusive_dim=3)
FORMS = ["alternating-lsgan", "simultaneous-paper"]
ENCODER_CONFIG = ModelConfig(width=2, shared_channels=3, exclusive_dim=3, padding="context")
ENCODER_ONLY = {
    **dict.fromkeys(("lambda_l1", "lambda_shared", "lambda_kl", "lambda_adversarial"), 0.0),
    **dict.fromkeys(("lambda_info_nce", "lambda_global_info_nce"), 1.0),
}


def make_series():
    rng = np.random.default_rng(0)
    sizes = ((2, 64, 70), (4, 80, 66))
    return [rng.integers(1, 6000, (*size, 4)).astype(np.uint16) for size in sizes]


def make_pairs():
    pairs = array_pairs(make_series(), batch_size=2, seed=5, num_steps=3)
    return [[np.asarray(image) for image in pair] for pair in pairs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_series):
    """Output of JAX: models that continue TensorFlow's training, and `results.json`."""
    folder = tmp_path_factory.mktemp("jax")
    for form in FORMS:
        update, adversarial = form.split("-")
        model = DisentangledSITS(CONFIG, seed=3)
        model.compile(objective={"update": update, "adversarial": adversarial})
        model.save(folder / f"before-{form}.keras")
    model = DisentangledSITS(ENCODER_CONFIG, seed=3)
    model.compile(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01), ENCODER_ONLY)
    model.save(folder / "encoder-before.keras")
    np.savez(folder / "crops.npz", **make_crops())
    (folder / "series").symlink_to(tiny_series)
    subprocess.run(
        [sys.executable, ROOT / "tests" / "on_jax.py", folder], cwd=ROOT, check=True, timeout=1200
    )
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())


def state_of(model):
    """Weights, moving statistics and seed; then the state of both optimizers."""
    weights = [*model.variables, model.seed_generator.state]
    return [
        [np.asarray(variable, np.float64) for variable in variables]
        for variables in (weights, model.optimizer.variables)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_jax_steps_without_noise_equal_tensorflow(folder, form, monkeypatch):
    # Both begin with one file and see the same batches; JAX' own file is loaded here.
    model = load_model(folder / f"before-{form}.keras")
    before = state_of(model)
    monkeypatch.setattr(keras.random, "normal", lambda shape, **_: keras.ops.zeros(shape))
    model.run_eagerly = True
    terms = [model.train_on_batch(x, y, return_dict=True) for x, y in make_pairs()]
    for ours, jax in zip(terms, json.loads((folder / f"jax-{form}.json").read_text()), strict=True):
        assert jax == pytest.approx(ours, rel=1e-4, abs=1e-4)
    after = state_of(model)
    state = state_of(load_model(folder / f"jax-{form}.keras"))
    # A pixel that rounding takes over the kink of L1 moves its gradient by 20 / 32,768, and a first
    # moment by half of that.
    for jax_values, values, tolerance in zip(state, after, (1e-4, 1e-3), strict=True):
        for jax, ours in zip(jax_values, values, strict=True):
            np.testing.assert_allclose(jax, ours, rtol=1e-4, atol=tolerance)
    moved = [np.abs(one - other).max() for one, other in zip(before[0], after[0], strict=True)]
    assert np.median(moved) > 3e-4  # so that 1e-4 tells


def make_crops():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 2, 128 + 31 + 47, 128 + 31 + 47, 4)).astype(np.float32)
    weights = np.ones((2, 8, 8), np.float32)
    weights[1, 5:] = 0
    return {"x": x, "y": y, "weights": weights}


def test_jax_encoder_only_steps_equal_tensorflow(folder, monkeypatch):
    model = load_model(folder / "encoder-before.keras")
    before = state_of(model)[0]
    monkeypatch.setattr(keras.random, "normal", lambda shape, **_: keras.ops.zeros(shape))
    # Every view of a window is then its first 48 px.
    monkeypatch.setattr(keras.random, "uniform", lambda shape, **_: 0.3 * keras.ops.ones(shape))
    model.run_eagerly = True
    crops = make_crops()
    for _ in range(3):
        terms = model.train_on_batch(
            crops["x"], crops["y"], sample_weight=crops["weights"], return_dict=True
        )
    assert json.loads((folder / "jax-encoder.json").read_text()) == pytest.approx(terms, rel=1e-3)
    after, jax = (state_of(one)[0] for one in (model, load_model(folder / "jax-encoder.keras")))
    for ours, theirs in zip(after, jax, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
    assert max(np.abs(one - old).max() for one, old in zip(after, before, strict=True)) > 1e-3


def test_jax_array_pairs_equal_tensorflow(folder):
    np.testing.assert_allclose(np.load(folder / "jax-pairs.npy"), make_pairs(), atol=1e-6)


def test_jax_run_counts_steps_in_both_optimizers(results):
    training = results["training"]
    assert (training["steps"], training["inner steps"]) == (4, [4, 4])
    assert training["seed_state"] == 4  # one draw from the posterior a step


def test_jax_run_resumes_exactly(results):
    assert results["training"]["resumed is whole"]


def test_jax_callbacks_see_step_and_terms(folder):
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-000000002.keras", "step-000000004.keras"]


def test_jax_evaluate_and_predict_equal_tensorflow(folder, results):
    model = load_model(folder / "checkpoints" / "step-000000004.keras")
    x, y = make_pairs()[0]
    for jax, ours in zip(np.load(folder / "predicted.npy"), model((x, y)), strict=True):
        np.testing.assert_allclose(jax, ours, atol=1e-4)
    model.run_eagerly = True
    scores = model.test_on_batch(x, y, return_dict=True)
    assert results["training"]["scores"] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    assert results["training"]["weights after evaluation"]


def test_jax_endless_pairs_without_number_of_steps_raise(results):
    names = ("steps_per_epoch", "steps", "steps")
    for message, name in zip(results["training"]["endless pairs"], names, strict=True):
        assert message.startswith(f"The pairs have no end. Expected {name}, ")


def test_jax_bfloat16_keeps_losses_and_weights_in_float32(results):
    bfloat16 = results["bfloat16"]
    assert bfloat16["terms"] == bfloat16["variables"] == ["float32"]
    assert bfloat16["outputs"] == ["float32", "bfloat16", "float32", "float32"]
    assert bfloat16["weights are finite"]


def test_jax_example_reports_speed(folder, results):
    lines = results["bfloat16"]["printed"].splitlines()
    assert re.fullmatch(r"2 series, 1 MB, on .+", lines[0])
    assert re.fullmatch(
        r"[\d.]+ Gflop a step; matrix products of bfloat16 run at .* Tflop/s", lines[1]
    )
    assert lines[2].startswith("compiled, and the first step done, in ")
    assert re.fullmatch(r"step 2: [\d.]+ s a step, [\d.]+ Tflop/s, [\d.]+% of peak; .*", lines[3])
    terms = dict(term.split() for term in lines[3].split("; ")[1].split(", "))
    assert all(np.isfinite(float(value)) for value in terms.values())
    assert lines[4].endswith("model.keras: 2 steps")
    assert (folder / "example" / "checkpoints" / "step-000000002.keras").is_file()


def test_jax_training_does_not_import_tensorflow(results):
    assert results["tensorflow"] is False


def test_jax_without_tensorflow_raises_missing_library(results):
    messages = results["messages"]
    assert messages.pop("exit code") == "2"
    assert set(messages) == {"hub.load", "train", "pair_dataset"}
    for message in messages.values():
        assert message.startswith("MissingLibraryError: TensorFlow is not installed. Records,")
        assert "pip install tensorflow" in message
        assert "\n" not in message


def test_jax_command_line_trains_on_records(tiny_records, tiny_config, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config.to_dict()))
    command = [sys.executable, "-m", "sits_keras", "train", "--steps", "2", "--quiet"]
    done = subprocess.run(
        [*command, "--config", tmp_path / "config.yaml", tiny_records, tmp_path / "run"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout == f"{tmp_path / 'run' / 'model.keras'}: 2 steps\n"
    model = load_model(tmp_path / "run")
    assert [int(one.iterations) for one in model.optimizer.optimizers] == [2, 2]
