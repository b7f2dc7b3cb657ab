import dataclasses
import json

import pytest

from sits_keras.errors import ConfigError, DataError, ExistsError
from sits_keras.tasks import evaluate
from sits_keras.tasks.evaluation import EXPERIMENTS, QUICK, EvaluatedModel, runner
from sits_keras.tasks.evaluation.context import EvaluationConfig
from sits_keras.tasks.evaluation.report import Row, Section, Table
from sits_keras.tasks.evaluation.runner import Experiment

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def subject(tiny_run):
    from sits_keras import load_model

    return EvaluatedModel(load_model(tiny_run), "tiny", "0" * 64)


@pytest.fixture
def data(tiny_series):
    return tiny_series.parent


@pytest.fixture
def run(data, subject):
    """Evaluates the tiny model on the tiny series, of which `b` is held out."""

    def evaluate_tiny(out, model=subject, **options):
        return evaluate(data, out, model, **{"test": ["b"], "config": QUICK, **options})

    return evaluate_tiny


@pytest.fixture
def asked(monkeypatch):
    """In place of the experiments, ones that only say that they were asked."""
    asked = []

    def stand_in(name):
        def make(context):
            asked.append(name)
            table = Table(f"table_{name}", "Made up.", ["value"], [Row("one", [0.25])])
            return Section(name, name.title(), {"seeds": context.config.num_seeds}, [table], [], [])

        return make

    for name, one in EXPERIMENTS.items():
        monkeypatch.setitem(EXPERIMENTS, name, one._replace(make=stand_in(name)))
    return asked


def test_evaluate_sections_without_data_are_skipped_and_listed(run, asked, tmp_path):
    lines = []
    metrics = run(tmp_path / "out", on_section=lines.append)
    assert asked == ["translation", "retrieval"]
    assert metrics["skipped"] == {
        "classification": "no eurosat/EuroSAT*.zip in the data",
        "segmentation": "no scenes/*.tif in the data",
        "change": "no change/<id>/{before,after,mask}.tif in the data",
    }
    assert metrics["sections"]["retrieval"]["tables"] == {
        "table_retrieval": {"one": {"value": 0.25}}
    }
    assert metrics["data"]["held_out"] == ["b"]
    assert metrics["data"]["trained_on"] == ["a"]
    assert metrics["data"]["series"]["files"] == 6
    assert metrics["model"]["sha256"] == "0" * 64
    assert metrics == json.loads((tmp_path / "out/metrics.json").read_text())
    report = (tmp_path / "out/report.html").read_text()
    assert "no scenes/*.tif in the data" in report
    assert lines[:2] == ["translation: measuring", "retrieval: measuring"]


def test_evaluate_same_call_reuses_sections_and_gives_same_bytes(run, asked, tmp_path):
    first = run(tmp_path / "out")
    files = [tmp_path / "out/metrics.json", tmp_path / "out/report.html"]
    before = [file.read_bytes() for file in files]
    asked.clear()
    assert run(tmp_path / "out") == first
    assert asked == []
    assert [file.read_bytes() for file in files] == before


def test_evaluate_interrupted_run_is_resumed(run, asked, monkeypatch, tmp_path):
    def stop(context):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(EXPERIMENTS, "retrieval", EXPERIMENTS["retrieval"]._replace(make=stop))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out")
    assert not (tmp_path / "out/metrics.json").exists()
    run(tmp_path / "out")
    assert asked == ["translation", "retrieval"]


@pytest.mark.parametrize("what", ["settings", "model", "held out"])
def test_evaluate_sections_of_other_settings_are_refused(what, run, subject, asked, tmp_path):
    run(tmp_path / "out")
    config, test = QUICK, ["b"]
    if what == "settings":
        config = dataclasses.replace(QUICK, num_crops=65)
    elif what == "model":
        subject = subject._replace(sha256="1" * 64)
    else:
        test = ["a"]
    with pytest.raises(ExistsError, match=r"translation\.json was made with other settings, model"):
        run(tmp_path / "out", subject, test=test, config=config)
    asked.clear()
    run(tmp_path / "out", subject, test=test, config=config, overwrite=True)
    assert asked == ["translation", "retrieval"]


def test_evaluate_only_measures_selected_sections(run, asked, tmp_path):
    metrics = run(tmp_path / "out", only=["retrieval"])
    assert asked == ["retrieval"]
    assert metrics["skipped"]["translation"] == "not selected"
    with pytest.raises(ConfigError, match=r"Expected sections of translation.* Received: maps"):
        run(tmp_path / "out", only=["maps"])


def test_evaluate_folder_with_other_files_is_refused(run, asked, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(
        ExistsError, match=r"files that are not of an evaluation, such as thesis\.txt"
    ):
        run(tmp_path)
    with pytest.raises(ExistsError, match=r"thesis\.txt is a file"):
        run(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_evaluate_damaged_section_is_refused(run, asked, tmp_path):
    run(tmp_path / "out")
    file = tmp_path / "out/sections/retrieval.json"
    values = json.loads(file.read_text())
    del values["tables"]
    file.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"retrieval\.json is damaged: .*tables.* Remove it\."):
        run(tmp_path / "out")


@pytest.mark.parametrize("name", ["num_seeds", "num_crops", "num_queries", "stride"])
def test_evaluation_config_number_below_one_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1. Received: {name}=0"):
        EvaluationConfig(**{name: 0})


def test_experiments_are_in_order_of_the_paper():
    assert list(EXPERIMENTS) == [
        *("translation", "retrieval", "classification", "segmentation", "change")
    ]
    assert all(isinstance(one, Experiment) for one in EXPERIMENTS.values())
    assert runner.REPORT_NAME == "report.html"
