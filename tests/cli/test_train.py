import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from sits_keras import RunConfig, from_preset, load_model, training
from sits_keras.errors import DivergedError

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("eager_training")]

TINY = [
    *("--width", 1, "--shared-channels", 2, "--exclusive-dim", 3),
    *("--batch-size", 2, "--pairs-per-record", 2, "--steps-per-epoch", 2, "--quiet"),
]


@pytest.fixture
def asked(monkeypatch):
    """Arguments of calls of `training.train`, which is replaced."""
    calls = []

    class Model:
        class optimizer:
            iterations = 7

    def train(records, out, config, *, validation, initial, progress):
        assert initial is None
        calls.append((records, out, config, validation, progress))
        return Model()

    monkeypatch.setattr(training, "train", train)
    return calls


def test_train_options_override_the_settings_file(tiny_records, call, tmp_path):
    settings, out = tmp_path / "settings.yaml", tmp_path / "run"
    settings.write_text(
        "train: {steps: 100, seed: 3}\nmodel: {width: 2, leaky_slope: 0.1}\n"
        "objective: {adversarial: paper}\n"
    )
    options = ["--steps", 2, "--no-augment", "--lambda-kl", 0.5, *TINY]
    code, text, err = call("train", tiny_records, out, "--config", settings, *options)
    assert (code, err) == (0, "")
    assert text == f"{out / 'model.keras'}: 2 steps\n"
    model = load_model(out)
    assert (model.config.width, model.config.leaky_slope, model.seed) == (1, 0.1, 3)
    assert (model.objective.adversarial, model.objective.lambda_kl) == ("paper", 0.5)
    train = yaml.safe_load((out / "config.yaml").read_text())["train"]
    assert (train["steps"], train["augment"], train["pairs_per_record"]) == (2, False, 2)


def test_train_resumes_with_the_config_of_the_run(tiny_records, tiny_run, call, tmp_path):
    copy = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    code, out, _ = call("train", tiny_records, copy, "--config", copy / "config.yaml", "--quiet")
    assert (code, out) == (0, f"{copy / 'model.keras'}: 6 steps\n")


@pytest.mark.parametrize(
    ("option", "value", "section", "name"),
    [
        ("--steps", 5, "train", "steps"),
        ("--batch-size", 5, "train", "batch_size"),
        ("--seed", 5, "train", "seed"),
        ("--pairs-per-record", 5, "train", "pairs_per_record"),
        ("--steps-per-epoch", 5, "train", "steps_per_epoch"),
        ("--width", 5, "model", "width"),
        ("--shared-channels", 5, "model", "shared_channels"),
        ("--padding", "context", "model", "padding"),
        ("--exclusive-dim", 5, "model", "exclusive_dim"),
        ("--learning-rate", 0.25, "optimizer", "learning_rate"),
        ("--decay-steps", 5, "optimizer", "decay_steps"),
        ("--decay-rate", 0.25, "optimizer", "decay_rate"),
        ("--beta-1", 0.25, "optimizer", "beta_1"),
        ("--lambda-l1", 0.25, "objective", "lambda_l1"),
        ("--lambda-shared", 0.25, "objective", "lambda_shared"),
        ("--lambda-kl", 0.25, "objective", "lambda_kl"),
        ("--lambda-info-nce", 0.25, "objective", "lambda_info_nce"),
        ("--temperature", 0.25, "objective", "temperature"),
        ("--shared-norm", "layer", "model", "shared_norm"),
        ("--adversarial", "paper", "objective", "adversarial"),
        ("--update", "simultaneous", "objective", "update"),
    ],
)
def test_train_option_changes_only_its_setting(option, value, section, name, asked, call):
    assert call("train", "records", "run", option, value).code == 0
    expected = RunConfig().to_dict()
    assert expected[section][name] != value
    expected[section][name] = value
    assert asked[0][2].to_dict() == expected


def test_train_bands_keep_their_order(asked, call):
    assert call("train", "records", "run", "--bands", "B04, B03,B02")[0] == 0
    assert asked[0][2].model.bands == ("B04", "B03", "B02")
    assert asked[0][2].model.band_max == (0.4, 0.3, 0.3)


def test_train_without_options_uses_the_papers_settings(asked, call):
    code, out, _ = call("train", "records", "run")
    assert (code, out) == (0, "run/model.keras: 7 steps\n")
    assert asked == [(Path("records"), Path("run"), RunConfig(), None, True)]


@pytest.mark.parametrize(("flag", "augment"), [("--augment", True), ("--no-augment", False)])
def test_train_passes_flags_on(flag, augment, asked, call):
    call("train", "records", "run", flag, "--validation", "other", "-q")
    (_, _, config, validation, progress) = asked[0]
    assert config.train.augment is augment
    assert validation == Path("other")
    assert progress is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: [steps", "is not YAML: while parsing a flow sequence"),
        (b"\xff\xfe\xff", "is not YAML: unacceptable character"),
        (b"", "does not contain a YAML mapping. Expected sections such as train and model"),
        (b"- steps", "does not contain a YAML mapping. Expected sections such as train and model"),
        (b"train: 5", "contains no settings. Expected a mapping. Received: 5."),
        (b"trein: {steps: 5}", "Expected the sections model, objective, optimizer, train"),
        (
            b"train: {step: 5}",
            "TrainConfig has no setting named step. Did you mean 'steps'? Expected some of: steps",
        ),
        (b"train: {steps: -5}", "steps must be an integer of at least 1. Received: steps=-5."),
    ],
)
def test_train_with_invalid_settings_file_exits_with_2(content, message, asked, refuse, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    # With an option of the same section, which must not hide what is wrong with it.
    assert message in refuse("train", "records", "run", "--config", path, "--seed", 1)
    assert not asked


def test_train_with_missing_settings_file_exits_with_2(asked, refuse, tmp_path):
    path = tmp_path / "missing.yaml"
    assert refuse("train", "records", "run", "--config", path).startswith(f"{path} does not exist.")
    assert not asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", 0], "steps must be an integer of at least 1"),
        (["--learning-rate", "nan"], "learning_rate must be a finite number above 0"),
        (["--adversarial", "wgan"], "'wgan' is not one of 'lsgan', 'paper'"),
    ],
)
def test_train_with_invalid_option_exits_with_2(options, message, asked, refuse):
    assert message in refuse("train", "records", "run", *options)
    assert not asked


def test_train_with_unsuitable_paths_exits_with_2(tiny_records, refuse, tmp_path):
    assert "No folder at" in refuse("train", tmp_path / "missing", tmp_path / "run", *TINY)
    assert "it has no manifest.json" in refuse("train", tmp_path, tmp_path / "run", *TINY)
    (tmp_path / "thesis.txt").write_text("mine")
    assert "does not contain a run" in refuse("train", tiny_records, tmp_path, *TINY)
    assert "is a file. Expected a folder" in refuse(
        "train", tiny_records, tmp_path / "thesis.txt", *TINY
    )
    inside = tmp_path / "thesis.txt" / "run"
    assert str(inside) in refuse("train", tiny_records, inside, *TINY)


def test_train_over_a_run_with_other_settings_exits_with_2(tiny_records, tiny_run, refuse):
    message = refuse("train", tiny_records, tiny_run, *TINY, "--width", 2)
    assert "contains a run with other settings: model.width 1 (here 2)." in message


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DivergedError("The term l1 is nan."), 2, "Error: The term l1 is nan."),
        (KeyboardInterrupt(), 130, "Interrupted. Rerun the same command to resume."),
    ],
)
def test_train_stopped_by_an_error_prints_one_line(error, code, message, call, monkeypatch):
    def train(*args, **kwargs):
        raise error

    monkeypatch.setattr(training, "train", train)
    ended = call("train", "records", "run")
    assert (ended.code, ended.out, ended.err.strip()) == (code, "", message)


# An interactive shell's Ctrl-C; a process started in the background ignores it otherwise.
HEEDING_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from sits_keras.cli import main
main()
"""


def test_train_interrupted_exits_with_130_and_keeps_a_checkpoint(tiny_records, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", tiny_records, run, "--steps", 1_000_000, *TINY]
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING_CTRL_C, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not list(run.glob("checkpoints/step-*.keras")) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.endswith("Interrupted. Rerun the same command to resume.\n")
    names = [path.name for path in (run / "checkpoints").iterdir()]
    assert not [name for name in names if name.startswith(".partial")]
    newest = load_model(run / "checkpoints" / max(names))
    assert f"step-{int(newest.optimizer.iterations):09d}.keras" == max(names)


# From a preset


def test_train_from_preset_continues_its_weights(tiny_records, tiny_preset, call, tmp_path):
    out = tmp_path / "run"
    options = ["--preset", "tiny_preset", "--batch-size", 2, "--steps-per-epoch", 2, "--quiet"]
    code, text, err = call("train", tiny_records, out, "--steps", 2, "--lambda-kl", 0.5, *options)
    assert (code, text, err) == (0, f"{out / 'model.keras'}: 2 steps\n", "")
    model, preset = load_model(out), from_preset("tiny_preset")
    assert model.config == preset.config
    assert model.steps == preset.steps + 2 == 8
    assert model.objective == dataclasses.replace(preset.objective, lambda_kl=0.5)
    # The same command resumes; other initial weights are another run.
    code, text, _ = call("train", tiny_records, out, "--steps", 4, "--lambda-kl", 0.5, *options)
    assert (code, load_model(out).steps) == (0, 10)
    repeat = ["--config", out / "config.yaml", "--steps", 4, "--quiet"]
    code, _, err = call("train", tiny_records, out, *repeat)
    assert code == 2
    assert "a run with other initial weights" in err
    assert call("train", tiny_records, out, *repeat, "--preset", "tiny_preset")[0] == 0


@pytest.mark.parametrize("freeze", [False, True])
def test_train_from_preset_with_a_fixed_encoder_trains_it_unless_asked(
    freeze, tiny_records, tiny_preset, call, tmp_path
):
    preset = shutil.copytree(tiny_preset, tmp_path / "preset")
    described = json.loads((preset / "preset.json").read_text())
    described["objective"] |= {"freeze_shared": True, "lambda_shared": 0.0, "lambda_kl": 0.5}
    (preset / "preset.json").write_text(json.dumps(described))
    options = ["--preset", preset, "--steps", 1, "--batch-size", 2, "--quiet"]
    options += ["--freeze-shared"] if freeze else []
    assert call("train", tiny_records, tmp_path / "run", *options)[0] == 0
    model, before = load_model(tmp_path / "run"), from_preset(preset)
    objective = model.objective
    assert (objective.freeze_shared, objective.lambda_shared) == (freeze, 0 if freeze else 0.5)
    assert objective.lambda_kl == 0.5
    kernels = (one.shared_encoder.trainable_variables[0] for one in (model, before))
    assert np.array_equal(*map(np.asarray, kernels)) == freeze


def test_train_with_options_that_contradict_a_preset_exits_with_2(
    tiny_records, tiny_preset, call, tmp_path
):
    out = tmp_path / "run"
    options = ["--preset", "tiny_preset", "--width", 2, "--padding", "context"]
    code, _, err = call("train", tiny_records, out, *options)
    assert code == 2
    assert "The preset tiny_preset has other settings: width 1 (here 2), padding" in err
    assert not out.exists()
    code, _, err = call("train", tiny_records, out, "--preset", "tiny_prest")
    assert code == 2
    assert "Did you mean 'tiny_preset'?" in err
