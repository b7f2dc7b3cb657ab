"""Training on several devices, and on several hosts, each in processes of its own."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sits_keras import DisentangledSITS, ModelConfig, load_model
from sits_keras.data import pair_dataset

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]
# Not info_nce, whose negatives are those of one device.
TERMS = {"loss", "l1", "shared_l1", "kl", "adversarial", "discriminator", "d_real", "d_fake"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Output of `on_two_devices.py`."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "on_two_devices.py", tmp_path_factory.mktemp("devices")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def without_info_nce(terms: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in terms.items() if name != "info_nce"}


def test_two_devices_train_like_one(runs):
    assert runs["replicas"] == 2
    one, two = runs["one"], runs["two"]
    assert len(one["steps"]) == len(two["steps"]) == 4
    for one_step, two_step in zip(one["steps"], two["steps"], strict=True):
        assert one_step.keys() == TERMS | {"info_nce"}
        assert without_info_nce(two_step) == pytest.approx(without_info_nce(one_step), rel=1e-4)
    assert without_info_nce(two["epoch"]) == pytest.approx(without_info_nce(one["epoch"]), rel=1e-4)
    # Not weight by weight: where rounding takes a pixel to the other side of a kink of L1 or ReLU,
    # the weights that it bears on go elsewhere by a little, and the others do not.
    begun = DisentangledSITS(ModelConfig(width=1, shared_channels=2, exclusive_dim=3), seed=3)
    before = np.concatenate([np.ravel(variable) for variable in begun.weights])
    gone = np.subtract(one["weights"], before)
    apart = np.subtract(two["weights"], one["weights"])
    assert np.linalg.norm(apart) < 1e-2 * np.linalg.norm(gone)


def test_two_devices_train_encoder_only_like_one(runs):
    one, two = runs["encoder one"], runs["encoder two"]
    for one_step, two_step in zip(one["steps"], two["steps"], strict=True):
        assert two_step["shared_l1"] == pytest.approx(one_step["shared_l1"], rel=1e-3)
    assert two["seed_state"] == one["seed_state"]
    config = ModelConfig(width=1, shared_channels=2, exclusive_dim=3, padding="context")
    begun = DisentangledSITS(config, seed=3)
    before = np.concatenate([np.ravel(variable) for variable in begun.weights])
    gone = np.subtract(one["weights"], before)
    assert np.linalg.norm(np.subtract(two["weights"], one["weights"])) < 0.02 * np.linalg.norm(gone)


def test_two_devices_sample_windows_like_one(runs):
    one, two = runs["windows one"], runs["windows two"]
    assert two["seed_state"] == one["seed_state"]
    assert all(np.isfinite(step["global_info_nce"]) for step in two["steps"])


def test_two_devices_count_steps_and_samples_like_one(runs):
    assert runs["two"]["step"] == 4
    assert runs["two"]["seed_state"] == runs["one"]["seed_state"]


def test_model_of_two_devices_loads_on_one(runs):
    np.testing.assert_array_equal(runs["loaded"], runs["two"]["weights"])
    assert runs["optimizers"] == ["SGD", "SGD"]


def test_clipping_on_several_devices_raises(runs):
    assert runs["clipped"].startswith("Gradients cannot be clipped on several devices")


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.slow
def test_example_on_two_hosts_trains_like_one_device(tiny_records, tmp_path):
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    options = ["--batch-size", "4", "--width", "1", "--steps-per-epoch", "2", "--epochs", "2"]
    processes = []
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        script = ROOT / "examples" / "train_distributed.py"
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    script,
                    tiny_records,
                    *options,
                    "--hosts",
                    *hosts,
                    "--index",
                    str(index),
                ],
                cwd=tmp_path / str(index),
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        alone = DisentangledSITS(ModelConfig(width=1))
        alone.compile()
        history = alone.fit(
            pair_dataset(tiny_records, 4, seed=0), steps_per_epoch=2, epochs=2, verbose=0
        ).history
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    assert not list((tmp_path / "1").iterdir())
    with (tmp_path / "0" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in TERMS:
        assert [float(row[name]) for row in rows] == pytest.approx(history[name], rel=1e-3)
    hosted = load_model(tmp_path / "0" / "model.keras")
    for variable, other in zip(hosted.weights, alone.weights, strict=True):
        # Adam's first steps go by the sign of a gradient, however small: 4 steps of 2e-4.
        np.testing.assert_allclose(variable, other, atol=2e-3)
