"""MODEL arguments and shared options."""

import shutil

import click
import numpy as np
import pytest

from sits_keras import hub
from sits_keras.cli.options import load_encoder, load_whole_model, model_option
from sits_keras.errors import ConfigError, DataError, MissingError


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 0.5, (3, 64, 64, 4)).astype(np.float32)


def test_load_encoder_module_run_and_file_are_equal(tiny_run, tiny_module, images):
    expected = np.asarray(hub.load(tiny_module)(images))
    assert expected.std() > 0
    for path in (tiny_module, tiny_run, tiny_run / "model.keras"):
        encoder = load_encoder(path, "shared")
        np.testing.assert_allclose(np.asarray(encoder(images)), expected, rtol=1e-5, atol=1e-6)
        assert encoder.bands == ("B02", "B03", "B04", "B08")
        assert encoder.num_features == expected.shape[1]


def test_load_encoder_exclusive_of_model(tiny_run, images):
    encoder = load_encoder(tiny_run, "exclusive")
    assert encoder.metadata["encoder"] == "exclusive"
    assert np.asarray(encoder(images)).shape == (3, 3)


def test_load_whole_model_accepts_checkpoint(tiny_run):
    (checkpoint, *_) = sorted((tiny_run / "checkpoints").glob("*.keras"))
    assert load_whole_model(checkpoint).config == load_whole_model(tiny_run).config


def test_load_encoder_other_module_is_refused(tiny_module):
    with pytest.raises(ConfigError, match=r"Expected the exclusive encoder.*--enc"):
        load_encoder(tiny_module, "exclusive")


def test_load_whole_model_hub_module_is_refused(tiny_module):
    with pytest.raises(ConfigError, match=r"is a hub module, which has one encoder"):
        load_whole_model(tiny_module)


def test_load_encoder_missing_path_is_refused(tmp_path):
    with pytest.raises(
        MissingError, match=r"No model at .*none. Expected a preset, a hub module, a"
    ):
        load_encoder(tmp_path / "none", "shared")


def test_load_encoder_records_folder_is_refused(tiny_records):
    with pytest.raises(DataError, match=r"is a folder of records, not a model. Expected"):
        load_encoder(tiny_records, "shared")


def test_load_encoder_unfinished_run_names_checkpoint(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("model.keras", "*000004.keras"))
    with pytest.raises(MissingError, match=r"unfinished run.* or use a checkpoint.*0006\.keras"):
        load_encoder(run, "shared")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(
        MissingError, match=r"unfinished run\. Resume it with `sits-keras train`\.$"
    ):
        load_encoder(run, "shared")


def test_load_encoder_other_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not a model. Expected a preset, a hub"):
        load_whole_model(tmp_path)


def test_model_option_is_required():
    @click.command()
    @model_option()
    def verb(model):
        click.echo(model)

    with pytest.raises(click.MissingParameter):
        verb.main([], standalone_mode=False)
