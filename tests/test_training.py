import csv
import dataclasses
import hashlib
import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sits_keras import (
    DisentangledSITS,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    RunConfig,
    callbacks,
    load_model,
    train,
    training,
)
from sits_keras.callbacks import EventLog
from sits_keras.data import pair_dataset, read_manifest
from sits_keras.data.radiometry import true_colour
from sits_keras.errors import ConfigError, DataError, DivergedError, ExistsError, MissingError
from sits_keras.saving import restore_latest
from sits_keras.trainers.optimizers import default_optimizer

pytestmark = pytest.mark.integration

# Runs that must equal `tiny_run` train in a graph, as it did; most others eagerly.
eagerly = pytest.mark.usefixtures("eager_training")


@pytest.fixture(scope="module")
def whole(tiny_run):
    """The model of the uninterrupted run."""
    return load_model(tiny_run)


@pytest.fixture(scope="module")
def eager_run(tiny_records, tiny_config, training_eagerly, tmp_path_factory):
    """The same run as `tiny_run`, trained eagerly. Not to change."""
    folder = tmp_path_factory.mktemp("eager") / "run"
    with training_eagerly():
        train(tiny_records, folder, tiny_config, progress=False)
    return folder


@pytest.fixture(scope="module")
def eager_whole(eager_run):
    return load_model(eager_run)


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "copy"))


def with_train(config, **values):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **values))


def with_model(config, **values):
    return dataclasses.replace(config, model=ModelConfig(**values))


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def history(run):
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(run):
    return [int(row["step"]) for row in history(run)]


def assert_same_state(model, expected):
    """Check that weights, statistics, optimizers and seeds are equal bit for bit."""
    assert int(model.optimizer.iterations) == int(expected.optimizer.iterations)
    assert len(expected.optimizer.variables) > len(expected.trainable_variables)
    for one, other in zip(
        [*model.variables, *model.optimizer.variables, model.seed_generator.state],
        [*expected.variables, *expected.optimizer.variables, expected.seed_generator.state],
        strict=True,
    ):
        np.testing.assert_array_equal(one.value.numpy(), other.value.numpy(), err_msg=other.path)


def compiled(config):
    """Return the initial model of a run."""
    model = DisentangledSITS(config.model, seed=config.train.seed)
    one, other = default_optimizer(config.optimizer), default_optimizer(config.optimizer)
    model.compile(one, other, config.objective)
    return model


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def stop_at(step, error, monkeypatch):
    """Raise an error after a step of a run."""
    check = callbacks.StopWhenNotFinite.on_train_batch_end

    def checked(self, batch, logs=None):
        check(self, batch, logs)
        if int(self.model.optimizer.iterations) == step:
            raise error

    monkeypatch.setattr(callbacks.StopWhenNotFinite, "on_train_batch_end", checked)


# Output of a run


def test_train_writes_model_history_settings_and_two_checkpoints(tiny_run):
    names = sorted(path.name for path in tiny_run.iterdir())
    assert names == [
        *("checkpoints", "config.yaml", "history.csv"),
        *("logs", "model.keras", "translations.png"),
    ]
    assert checkpoints(tiny_run) == ["step-000000004.keras", "step-000000006.keras"]


def test_history_has_a_row_of_finite_terms_for_each_epoch(tiny_run):
    assert steps_of(tiny_run) == [2, 4, 6]
    terms = {
        *("loss", "l1", "shared_l1", "kl", "adversarial", "info_nce"),
        *("discriminator", "d_real", "d_fake"),
    }
    for row in history(tiny_run):
        assert set(row) == {"step"} | terms
        assert all(np.isfinite(float(value)) for value in row.values())


def test_config_yaml_has_settings_records_and_versions(tiny_run, tiny_records, tiny_config):
    values = yaml.safe_load((tiny_run / "config.yaml").read_text())
    records, versions = values.pop("records"), values.pop("versions")
    assert values.pop("backend") == keras.backend.backend()
    assert RunConfig.from_dict(values) == tiny_config
    assert records == {
        "folder": str(tiny_records),
        "content_sha256": read_manifest(tiny_records).content_sha256,
    }
    assert versions["keras"] == keras.__version__
    assert versions["tensorflow"] == tf.__version__
    assert set(versions) == {"sits_keras", "keras", "tensorflow", "numpy"}


def test_training_changes_every_network(whole, tiny_config):
    untrained = type(whole)(tiny_config.model, seed=tiny_config.train.seed)
    for network in ("shared_encoder", "exclusive_encoder", "decoder", "discriminator"):
        before, after = getattr(untrained, network), getattr(whole, network)
        assert any(
            not np.array_equal(one, other)
            for one, other in zip(before.get_weights(), after.get_weights(), strict=True)
        )


def test_discriminator_rate_slows_the_discriminator_alone(tiny_records, tiny_config, tmp_path):
    optimizer = dataclasses.replace(tiny_config.optimizer, discriminator_rate=0.0)
    config = dataclasses.replace(with_train(tiny_config, steps=1), optimizer=optimizer)
    model = train(tiny_records, tmp_path / "run", config, progress=False)
    untrained = type(model)(config.model, seed=config.train.seed)
    for network in ("discriminator", "decoder"):
        pairs = zip(
            getattr(untrained, network).trainable_variables,
            getattr(model, network).trainable_variables,
            strict=True,
        )
        unchanged = all(np.array_equal(one.numpy(), other.numpy()) for one, other in pairs)
        assert unchanged is (network == "discriminator")


def test_train_with_other_band_order_and_validation_reports_progress(
    tiny_records, tiny_config, tmp_path, capsys
):
    config = with_train(tiny_config, steps=3)
    config = with_model(
        config, bands=("B04", "B03", "B02"), width=1, shared_channels=2, exclusive_dim=3
    )
    model = train(tiny_records, tmp_path / "rgb", config, validation=tiny_records)
    assert model.config.image_shape == (64, 64, 3)
    # A whole epoch of two steps, then what was left.
    assert steps_of(tmp_path / "rgb") == [2, 3]
    pairs = pair_dataset(
        tiny_records,
        2,
        seed=0,
        bands=("B04", "B03", "B02"),
        band_max=(0.4, 0.3, 0.3),
        augment=False,
        num_steps=10,
    )
    scores = model.evaluate(pairs, return_dict=True, verbose=0)
    last = history(tmp_path / "rgb")[-1]
    for name, value in scores.items():
        assert float(last[f"val_{name}"]) == pytest.approx(value, rel=1e-5)
    bar = capsys.readouterr().err
    assert "3/3" in bar
    assert f"l1={float(last['l1']):.3f}" in bar


# Resume


def test_train_after_interrupt_resumes_exactly(
    tiny_records, tiny_run, tiny_config, whole, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(5, KeyboardInterrupt, patch)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_records, run, tiny_config, progress=False)
    assert checkpoints(run) == ["step-000000002.keras", "step-000000004.keras"]
    assert not (run / "model.keras").exists()
    assert_same_state(train(tiny_records, run, tiny_config, progress=False), whole)
    assert_same_state(load_model(run), whole)
    assert (run / "history.csv").read_bytes() == (tiny_run / "history.csv").read_bytes()


KILLED_WHILE_SAVING_STEP_6 = """
import os, signal, sys
from pathlib import Path
from sits_keras.cli import run
from sits_keras.model import DisentangledSITS

save = DisentangledSITS.save

def save_half(self, path):
    save(self, path)
    if int(self.optimizer.iterations) == 6:
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

DisentangledSITS.save = save_half
run(sys.argv[1:])
"""


def test_train_killed_while_saving_resumes_exactly(
    tiny_records, tiny_run, tiny_config, whole, tmp_path
):
    run, settings = tmp_path / "run", tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(tiny_config.to_dict()))
    arguments = ["train", str(tiny_records), str(run), "--config", str(settings), "--quiet"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING_STEP_6, *arguments],
        stderr=subprocess.PIPE,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The worst moment: the row is written, the checkpoint is not.
    assert steps_of(run) == [2, 4, 6]
    assert checkpoints(run) == [
        ".partial-step-000000006.keras",
        "step-000000002.keras",
        "step-000000004.keras",
    ]
    assert_same_state(train(tiny_records, run, tiny_config, progress=False), whole)
    assert checkpoints(run) == ["step-000000004.keras", "step-000000006.keras"]
    assert (run / "history.csv").read_bytes() == (tiny_run / "history.csv").read_bytes()


KILLED_AT_A_STEP = """
import os, signal, sys
from sits_keras import callbacks
from sits_keras.cli import run

step = int(sys.argv[1])
check = callbacks.StopWhenNotFinite.on_train_batch_end

def checked(self, batch, logs=None):
    check(self, batch, logs)
    if int(self.model.optimizer.iterations) == step:
        os.kill(os.getpid(), signal.SIGKILL)

callbacks.StopWhenNotFinite.on_train_batch_end = checked
run(sys.argv[2:])
"""


@pytest.mark.slow
def test_train_killed_at_ten_random_steps_resumes_exactly(tiny_records, tiny_config, tmp_path):
    config = with_train(tiny_config, steps=40, steps_per_epoch=4)
    run, settings = tmp_path / "run", tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.to_dict()))
    arguments = ["train", str(tiny_records), str(run), "--config", str(settings), "--quiet"]
    for step in sorted(np.random.default_rng(0).choice(np.arange(1, 40), 10, replace=False)):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AT_A_STEP, str(step), *arguments],
            stderr=subprocess.PIPE,
            timeout=300,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    stopped = train(tiny_records, run, config, progress=False)
    assert_same_state(stopped, train(tiny_records, tmp_path / "whole", config, progress=False))
    assert (run / "history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


@eagerly
def test_train_with_more_steps_extends_run_within_epoch(
    tiny_records, tiny_config, eager_whole, tmp_path
):
    run = tmp_path / "run"
    train(tiny_records, run, with_train(tiny_config, steps=3), progress=False)
    assert checkpoints(run) == ["step-000000002.keras", "step-000000003.keras"]
    assert_same_state(train(tiny_records, run, tiny_config, progress=False), eager_whole)
    # First what was left of the second epoch, then the third.
    assert steps_of(run) == [2, 3, 4, 6]
    assert checkpoints(run) == ["step-000000004.keras", "step-000000006.keras"]
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["steps"] == 6


def test_train_of_finished_run_changes_nothing(tiny_records, tiny_config, whole, run_copy):
    before = (run_copy / "history.csv").read_bytes()
    assert_same_state(train(tiny_records, run_copy, tiny_config, progress=False), whole)
    assert (run_copy / "history.csv").read_bytes() == before


@eagerly
def test_train_with_damaged_checkpoint_resumes_from_older_one(
    tiny_records, eager_run, tiny_config, eager_whole, tmp_path
):
    run_copy = Path(shutil.copytree(eager_run, tmp_path / "copy"))
    cut_in_half(run_copy / "checkpoints" / "step-000000006.keras")
    with pytest.warns(
        UserWarning, match=r"step-000000006\.keras is not .* truncated\)\. Skipping this checkpoint"
    ):
        model = train(tiny_records, run_copy, tiny_config, progress=False)
    assert_same_state(model, eager_whole)
    assert (run_copy / "history.csv").read_bytes() == (eager_run / "history.csv").read_bytes()


def test_restore_latest_with_all_checkpoints_damaged_raises(run_copy, tiny_config):
    model = compiled(tiny_config)
    for path in (run_copy / "checkpoints").iterdir():
        cut_in_half(path)
    with (
        pytest.warns(UserWarning, match="Skipping this checkpoint") as warned,
        pytest.raises(DataError, match=r"No checkpoint in .* can be loaded: 2 damaged"),
    ):
        restore_latest(model, run_copy / "checkpoints")
    assert_same_state(model, compiled(tiny_config))
    names = checkpoints(run_copy)
    assert [name for one in warned for name in names if name in str(one.message)] == [
        "step-000000006.keras",
        "step-000000004.keras",
    ]


def test_train_with_sound_checkpoints_that_do_not_load_keeps_the_run(
    tiny_records, tiny_config, run_copy, monkeypatch
):
    # The cause lies outside of the file, such as another version of Keras or too little memory.
    def fail(file):
        raise ImportError("libhdf5.so: cannot open shared object file")

    monkeypatch.setattr(keras.saving, "load_model", fail)
    files = [path for path in sorted(run_copy.rglob("*")) if path.is_file()]
    before = {path: path.read_bytes() for path in files if path.name != "config.yaml"}
    longer = with_train(tiny_config, steps=8)
    with pytest.raises(DataError, match=r"step-000000006\.keras cannot be loaded: libhdf5"):
        train(tiny_records, run_copy, longer, progress=False)
    assert [path for path in sorted(run_copy.rglob("*")) if path.is_file()] == files
    assert {path: path.read_bytes() for path in before} == before


@eagerly
def test_fit_with_restored_checkpoint_resumes_exactly(
    tiny_records, tiny_config, eager_whole, tmp_path
):
    settings = tiny_config.train

    def fit(epochs):
        model = compiled(tiny_config)
        checkpoints = callbacks.Checkpoints(tmp_path)
        step = checkpoints.restore(model)
        pairs = pair_dataset(
            tiny_records,
            settings.batch_size,
            seed=settings.seed,
            bands=tiny_config.model.bands,
            pairs_per_record=settings.pairs_per_record,
            start_step=step,
        )
        model.fit(
            pairs,
            steps_per_epoch=settings.steps_per_epoch,
            initial_epoch=step // settings.steps_per_epoch,
            epochs=epochs,
            callbacks=[checkpoints],
            verbose=0,
        )
        return step, model

    assert fit(2)[0] == 0
    step, model = fit(3)
    assert step == 4
    assert_same_state(model, eager_whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: with_model(config, width=2, shared_channels=2, exclusive_dim=3),
            r"step-0+6\.keras is of a model with other settings: config\.width 1 \(here 2\)\. ",
        ),
        (
            lambda config: dataclasses.replace(
                config, objective=ObjectiveConfig(update="simultaneous")
            ),
            r"other settings: objective\.update 'alternating' \(here 'simultaneous'\)\.",
        ),
    ],
)
def test_restore_of_checkpoint_with_other_settings_raises(change, message, tiny_run, tiny_config):
    with pytest.raises(ConfigError, match=message):
        callbacks.Checkpoints(tiny_run / "checkpoints").restore(compiled(change(tiny_config)))


def test_steps_per_execution_gives_same_result(tiny_records, tiny_config, whole, tmp_path):
    config = with_train(tiny_config, steps_per_execution=2)
    model = train(tiny_records, tmp_path / "run", config, progress=False)
    assert model.steps_per_execution == 2
    # TensorFlow fuses across what is one graph now, so not bit for bit.
    for one, other in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=one.path)
    assert steps_of(tmp_path / "run") == [2, 4, 6]
    # Steps per execution can change: three steps remain of an epoch of four, so one at a time.
    longer = with_train(tiny_config, steps=7, steps_per_execution=1)
    train(tiny_records, tmp_path / "run", longer, progress=False)
    assert steps_of(tmp_path / "run") == [2, 4, 6, 7]


@eagerly
def test_train_in_bfloat16_stays_finite(tiny_records, tiny_config, tmp_path):
    config = with_train(tiny_config, precision="mixed_bfloat16", steps=4)
    train(tiny_records, tmp_path / "run", config, progress=False)
    model = load_model(tmp_path / "run")
    assert model.decoder.get_layer("decoder_1_conv").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    for row in history(tmp_path / "run"):
        assert all(np.isfinite(float(value)) for value in row.values())


# Watching a run


def events_of(run):
    events = EventAccumulator(str(run / "logs"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_event_log_has_history_and_images(tiny_run):
    events = events_of(tiny_run)
    for row_index, row in enumerate(history(tiny_run)):
        for name in set(row) - {"step"}:
            event = events.Scalars(f"{name}/training")[row_index]
            assert event.step == int(row["step"])
            assert event.value == pytest.approx(float(row[name]), rel=1e-6)
    images = events.Images("translations")
    assert [image.step for image in images] == [2, 4, 6]
    newest = np.asarray(PIL.Image.open(io.BytesIO(images[-1].encoded_image_string)))
    np.testing.assert_array_equal(newest, PIL.Image.open(tiny_run / "translations.png"))


def test_event_log_picture_shows_location_date_and_translation(
    tiny_run, tiny_records, tiny_config, whole
):
    settings = tiny_config.train
    pairs = pair_dataset(
        tiny_records, settings.batch_size, seed=settings.seed, augment=False, num_steps=1
    )
    x, y = next(iter(pairs.as_numpy_iterator()))
    picture = np.asarray(PIL.Image.open(tiny_run / "translations.png"))
    rows = len(x)
    assert picture.shape == (rows * 66 - 2, 3 * 66 - 2, 3)
    config = whole.config
    for col, images in enumerate([y, x, np.asarray(whole.translate(y, x))]):
        shown = 255 * true_colour(images, config.bands, config.band_max)
        for row in range(rows):
            there = picture[66 * row :, 66 * col :][:64, :64]
            np.testing.assert_allclose(there, shown[row], atol=0.51)
    assert (picture[:, 64:66] == 255).all()


def test_event_log_beyond_checkpoint_is_discarded(tiny_records, tiny_config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        # The epoch of step 4 is logged, its checkpoint is lost.
        patch.setattr(training, "EventLog", lambda *args: LoggedAndLost(*args, run / "checkpoints"))
        with pytest.raises(KeyboardInterrupt):
            train(tiny_records, run, tiny_config, progress=False)
    train(tiny_records, run, tiny_config, progress=False)
    events = events_of(run)
    assert [event.step for event in events.Scalars("l1/training")] == [2, 4, 6]


class LoggedAndLost(EventLog):
    def __init__(self, folder, pairs, picture, checkpoints):
        super().__init__(folder, pairs, picture)
        self.checkpoints = checkpoints

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if epoch == 1:
            (self.checkpoints / "step-000000004.keras").unlink()
            raise KeyboardInterrupt


# What stops a run


@eagerly
def test_train_with_infinite_weight_raises_before_saving(
    tiny_records, tiny_config, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    log = callbacks.History.on_epoch_end

    def poison(self, epoch, logs=None):
        log(self, epoch, logs)
        if epoch == 1:  # the terms of the step were finite, the update was not
            self.model.decoder.get_layer("decoder_2_conv").kernel.assign_add(
                tf.fill(self.model.decoder.get_layer("decoder_2_conv").kernel.shape, np.inf)
            )

    monkeypatch.setattr(callbacks.History, "on_epoch_end", poison)
    with pytest.raises(DivergedError, match=r"decoder_2_conv/kernel is not finite after step 4\."):
        train(tiny_records, run, tiny_config, progress=False)
    assert checkpoints(run) == ["step-000000002.keras"]


def test_train_with_nan_term_raises_before_saving(tiny_records, tiny_config, tmp_path, monkeypatch):
    def poisoned_pairs(*args, start_step=0, **kwargs):
        pairs = pair_dataset(*args, start_step=start_step, **kwargs).enumerate(start_step)
        return pairs.map(lambda step, pair: (tf.where(step == 4, np.nan, pair[0]), pair[1]))

    monkeypatch.setattr(training, "pair_dataset", poisoned_pairs)
    run = tmp_path / "run"
    with pytest.raises(
        DivergedError, match=r"^Training diverged at step 5\. .*Received: .*l1 nan.* learning rate"
    ):
        train(tiny_records, run, tiny_config, progress=False)
    assert checkpoints(run) == ["step-000000002.keras", "step-000000004.keras"]
    assert steps_of(run) == [2, 4]
    assert not (run / "model.keras").exists()
    kept = load_model(run / "checkpoints" / "step-000000004.keras")
    assert all(np.isfinite(variable.value.numpy()).all() for variable in kept.variables)


def test_train_with_damaged_record_raises_with_file(tiny_records, tiny_config, tmp_path):
    records = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    (shard,) = records.glob("*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 255  # within the first record's images
    shard.write_bytes(content)
    with pytest.raises(
        DataError, match=r"Record \d of .*tfrecord has changed since it was written\. Run the same"
    ) as caught:
        train(records, tmp_path / "run", tiny_config, validation=tiny_records, progress=False)
    assert str(records) in str(caught.value)
    assert str(caught.value).endswith("it rewrites the shard.")


def test_train_with_missing_band_raises_before_writing(tiny_records, tiny_config, tmp_path):
    config = with_model(tiny_config, bands=("B02", "B11"), width=1)
    with pytest.raises(DataError, match=r"has no band B11\. It has: B02, B03, B04, B08"):
        train(tiny_records, tmp_path / "run", config, progress=False)
    assert not (tmp_path / "run").exists()


def test_train_with_missing_records_raises_before_writing(tiny_records, tiny_config, tmp_path):
    missing = tmp_path / "records"
    with pytest.raises(MissingError, match="No folder at"):
        train(missing, tmp_path / "run", tiny_config)
    with pytest.raises(MissingError, match="No folder at"):
        train(tiny_records, tmp_path / "run", tiny_config, validation=missing)
    assert not (tmp_path / "run").exists()


def test_train_with_other_settings_raises_and_changes_nothing(tiny_records, tiny_config, run_copy):
    before = (run_copy / "config.yaml").read_bytes()
    config = dataclasses.replace(
        with_train(tiny_config, batch_size=4, steps=100),
        optimizer=dataclasses.replace(tiny_config.optimizer, learning_rate=0.001),
    )
    with pytest.raises(ExistsError) as caught:
        train(tiny_records, run_copy, config)
    assert (
        "contains a run with other settings: optimizer.learning_rate 0.0002 (here 0.001), "
        "train.batch_size 2 (here 4). Name another folder, or"
    ) in str(caught.value)
    assert (run_copy / "config.yaml").read_bytes() == before


def test_train_with_other_records_raises(tiny_records, tiny_config, run_copy, tmp_path):
    records = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    manifest = records / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"skipped": {}', '"skipped": {"c": "cloud"}'))
    with pytest.raises(
        ExistsError, match=r"contains a run with other records\. Name another folder"
    ):
        train(records, run_copy, tiny_config)


def test_train_with_records_prepared_again_resumes(tiny_records, tiny_config, run_copy, tmp_path):
    records = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    manifest = records / "manifest.json"
    inputs = read_manifest(records).inputs
    manifest.write_text(manifest.read_text().replace(inputs, "0" * 64))  # of copied sources
    train(records, run_copy, tiny_config, progress=False)
    # A run by an earlier version has the checksum of the whole manifest.
    values = yaml.safe_load((run_copy / "config.yaml").read_text())
    old = hashlib.sha256(manifest.read_bytes()).hexdigest()
    values["records"] = {"folder": "", "manifest_sha256": old}
    (run_copy / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ExistsError, match="other records"):
        train(tiny_records, run_copy, tiny_config, progress=False)
    train(records, run_copy, tiny_config, progress=False)
    assert "content_sha256" in (run_copy / "config.yaml").read_text()


def test_train_with_moved_records_resumes(tiny_records, tiny_config, run_copy):
    moved = Path(shutil.copytree(tiny_records, run_copy.with_name("moved")))
    train(moved, run_copy, tiny_config, progress=False)
    assert yaml.safe_load((run_copy / "config.yaml").read_text())["records"]["folder"] == str(moved)


def test_train_into_folder_without_run_raises(tiny_records, tiny_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ExistsError, match="exists and does not contain a run"):
        train(tiny_records, tmp_path, tiny_config)
    with pytest.raises(ExistsError, match="exists and does not contain a run"):
        train(tiny_records, tmp_path / "thesis.txt", tiny_config)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"a: [1", "is not YAML: while parsing"),
        (b"\xff\xff", "is not YAML: unacceptable character"),
        (b"[1, 2]", "does not contain a YAML mapping"),
        (b"model: {}\n", r"is damaged: KeyError\('objective'\)"),
        (
            b"{model: {depth: 3}, objective: {}, optimizer: {}, train: {}}",
            "ModelConfig has no setting named depth",
        ),
        (
            b"{model: {}, objective: {}, optimizer: {}, train: {}, records: none}",
            r"is damaged: TypeError",
        ),
    ],
)
def test_train_with_damaged_config_yaml_raises(content, cause, tiny_records, tiny_config, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(DataError, match=cause) as caught:
        train(tiny_records, tmp_path, tiny_config)
    assert str(tmp_path / "config.yaml") in str(caught.value)
    assert str(caught.value).endswith("Name another folder.")


@pytest.mark.parametrize("content", ["step,loss\nmany,1\n", "loss\n1\n", "loss,step\n1\n"])
def test_train_with_damaged_history_raises(content, tiny_records, tiny_config, run_copy):
    (run_copy / "history.csv").write_text(content)
    with pytest.raises(DataError, match=r"history\.csv is damaged: .* Remove it to resume"):
        train(tiny_records, run_copy, with_train(tiny_config, steps=7), progress=False)


# Loading


def test_load_model_from_file_and_folder_gives_same_model(tiny_run, whole):
    assert_same_state(load_model(tiny_run / "model.keras"), whole)
    assert_same_state(load_model(str(tiny_run)), whole)


def test_load_model_missing_raises(tmp_path):
    with pytest.raises(MissingError, match=r"No model at .*missing\.keras\. Expected"):
        load_model(tmp_path / "missing.keras")
    # A run that is not finished.
    with pytest.raises(MissingError, match=r"No model at .*model\.keras\. Expected"):
        load_model(tmp_path)


def test_load_model_truncated_raises(run_copy):
    cut_in_half(run_copy / "model.keras")
    with pytest.raises(
        DataError, match=r"model\.keras is not a valid \.keras file \(possibly truncated\)"
    ):
        load_model(run_copy)


def test_load_model_damaged_raises(run_copy):
    path = run_copy / "model.keras"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.keras is damaged: .* does not match its checksum"):
        load_model(run_copy)


def test_load_model_of_another_kind_raises(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(DataError, match=r"Expected a DisentangledSITS\. Received: a Sequential"):
        load_model(tmp_path / "other.keras")


def test_train_with_fewer_steps_than_done_raises(tiny_records, tiny_config, run_copy):
    settings = (run_copy / "config.yaml").read_bytes()
    shorter = dataclasses.replace(tiny_config.train, steps=1)
    with pytest.raises(ConfigError, match=r"already at step \d+\. .* Received: steps=1"):
        train(tiny_records, run_copy, dataclasses.replace(tiny_config, train=shorter))
    assert (run_copy / "config.yaml").read_bytes() == settings


@eagerly
def test_train_with_context_padding_reads_context(tiny_records, tiny_config, tmp_path, monkeypatch):
    asked = []

    def noted(*args, **kwargs):
        asked.append(kwargs["context"])
        return pair_dataset(*args, **kwargs)

    monkeypatch.setattr(training, "pair_dataset", noted)
    config = with_model(with_train(tiny_config, steps=1), padding="context")
    model = train(tiny_records, tmp_path / "run", config, progress=False)
    assert set(asked) == {(31, 47)}
    assert load_model(tmp_path / "run").config.padding == "context"
    assert model.context_margin == (31, 47)


# From another model's weights


@eagerly
def test_train_with_initial_model_starts_from_its_weights(
    tiny_run, tiny_records, tiny_config, tmp_path
):
    initial = load_model(tiny_run)
    weights = initial.get_weights()
    still = dataclasses.replace(
        tiny_config,
        train=dataclasses.replace(tiny_config.train, steps=1),
        optimizer=OptimizerConfig(learning_rate=1e-12),
    )
    model = train(tiny_records, tmp_path / "run", still, initial=initial, progress=False)
    for variable, now, before in zip(model.weights, model.get_weights(), weights, strict=True):
        if "moving" not in variable.path:
            np.testing.assert_allclose(now, before, rtol=0, atol=1e-6)
    assert all(map(np.array_equal, initial.get_weights(), weights))
    assert model.steps == load_model(tmp_path / "run").steps == initial.steps + 1 == 7
    told = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["initial"]
    assert told["steps"] == 6
    # Another beginning is another run.
    with pytest.raises(ExistsError, match="a run with other initial weights"):
        train(tiny_records, tmp_path / "run", still, progress=False)
    with pytest.raises(ExistsError, match="a run with other initial weights"):
        train(tiny_records, tmp_path / "run", still, initial=model, progress=False)


def test_train_with_initial_model_of_other_settings_raises(tiny_run, tiny_records, tmp_path):
    with pytest.raises(ConfigError, match=r"other settings: width 1 \(here 64\).*initial\.config"):
        train(tiny_records, tmp_path / "run", initial=load_model(tiny_run), progress=False)
    assert not (tmp_path / "run").exists()
