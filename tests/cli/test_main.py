import contextlib
import importlib
import os
import runpy
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest
import rasterio
from click.shell_completion import ShellComplete

from sits_keras import cli
from sits_keras.cli import info
from sits_keras.errors import DataError

OPTIONS = {
    "inspect": [
        *("--bands", "--dates", "--min-dates", "--max-cloud", "--min-complete", "--align"),
        *("--workers", "--scheduler", "--include", "--exclude", "--quiet", "--json"),
    ],
    "prepare": [
        *("--bands", "--patch-size", "--central", "--block-size", "--dates", "--min-dates"),
        *("--max-cloud", "--min-complete", "--align", "--workers", "--scheduler"),
        *("--compression", "--include", "--exclude", "--overwrite", "--quiet"),
    ],
    "train": [
        *("--validation", "--config", "--steps", "--batch-size", "--seed", "--pairs-per-record"),
        *("--steps-per-epoch", "--width", "--shared-channels", "--exclusive-dim", "--beta-1"),
        *("--learning-rate", "--decay-steps", "--decay-rate", "--lambda-l1", "--lambda-shared"),
        *("--lambda-kl", "--lambda-info-nce", "--temperature", "--shared-norm", "--padding"),
        *("--adversarial", "--update", "--no-augment", "--quiet"),
    ],
    "export": ["--encoder", "--overwrite"],
    "presets": ["--json"],
    "info": ["--json", "--verify"],
    "embed": [
        *("--model", "--encoder", "--method", "--resolution", "--dim", "--dtype", "--from", "--to"),
        *("--newest", "--projection", "--fit-projection", "--tile-side", "--stride", "--picture"),
        *("--mode", "--workers", "--scheduler", "--overwrite", "--quiet"),
    ],
    "convert": ["--overwrite", "--quiet"],
    "translate": ["--model", "--samples", "--seed", "--steps", "--at", "--stride", "--overwrite"],
    "retrieve": [
        *(
            "--model",
            "--queries",
            "--at",
            "--matches",
            "--min-distance",
            "--stride",
            "--seed",
            "--json",
        ),
        *("--from", "--to", "--newest", "--overwrite", "--quiet"),
    ],
    "query": ["--like", "--window", "--out", "--matches", "--min-distance", "--json", "--quiet"],
    "webmap": ["--overwrite", "--quiet"],
    "segment": [
        *("--model", "--clusters", "--method", "--min-region", "--like", "--stride"),
        *("--fit-stride", "--seed", "--from", "--to", "--newest", "--picture", "--overwrite"),
        "--quiet",
    ],
    "change": [
        *("--model", "--stride", "--threshold", "--mask", "--season", "--picture", "--json"),
        *("--overwrite", "--quiet"),
    ],
    "explore": [
        "--model",
        "--mask",
        "--stride",
        "--cache",
        "--host",
        "--port",
        "--origin",
        "--open",
    ],
    "classify": ["train", "predict"],
    "evaluate": [
        *("--model", "--data", "--test", "--only", "--seeds", "--crops", "--queries"),
        *("--train-encoder", "--quick", "--json", "--overwrite", "--quiet"),
    ],
    "card": ["--scores"],
}


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_verbs_in_order(flag, call):
    code, out, err = call(flag)
    assert (code, err) == (0, "")
    listed = [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()]
    assert listed == list(OPTIONS)


def test_shell_completion_lists_the_verbs():
    completion = ShellComplete(cli.sits_keras, {}, "sits-keras", "_SITS_KERAS_COMPLETE")
    assert [item.value for item in completion.get_completions([], "")] == list(OPTIONS)
    assert [item.value for item in completion.get_completions([], "exp")] == ["export", "explore"]


@pytest.mark.parametrize("verb", list(OPTIONS))
def test_help_of_a_verb_lists_its_options(verb, call):
    code, out, err = call(verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: sits-keras {verb} ")
    for option in OPTIONS[verb]:
        assert option in out


def test_help_shows_the_papers_defaults(call):
    text = " ".join(call("train", "--help").out.split())
    for default in ("150000", "64", "0.0002", "50000", "10.0", "0.5", "0.01"):
        assert f"[default: {default}]" in text
    text = " ".join(call("prepare", "--help").out.split())
    for default in ("1024", "12", "0.02", "0.85"):
        assert f"[default: {default}]" in text


HELP_OF_ALL = """
import sys
from sits_keras import cli
for verb in ([], *([verb] for verb in cli.VERBS)):
    assert cli.run([*verb, "--help"]) == 0
print("loaded:", *sorted({"tensorflow", "keras", "rasterio"} & set(sys.modules)))
"""


def test_help_does_not_load_tensorflow(spawn):
    done = spawn(program=(sys.executable, "-c", HELP_OF_ALL))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nloaded:\n")


def test_version_is_printed(call):
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("sits-keras, version ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack"], "No such command 'pack'."),
        (["info", "--loud", "."], "No such option"),
        (["info"], "Missing argument 'PATH'."),
        (["train", "records", "run", "--steps", "many"], "'many' is not a valid integer."),
        (["export", "run", "module", "--encoder", "both"], "'both' is not one of"),
    ],
)
def test_wrong_command_line_exits_with_2_and_names_the_help(arguments, message, call):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert message.rstrip(".") in err
    assert "--help`.\n" in err


def test_no_verb_shows_the_usage(call):
    _, out, err = call()  # click 8.2 and later write it to stderr
    assert (out + err).startswith("Usage: sits-keras")
    assert "prepare" in out + err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("a.tif is cut off."), "a.tif is cut off."),
        (
            PermissionError(13, "Permission denied", "/out"),
            "Permission denied: /out. Change its permissions or choose another path.",
        ),
    ],
)
def test_bad_input_exits_with_2_and_one_line(error, message, refuse, monkeypatch):
    def fail(path, verify):
        raise error

    monkeypatch.setattr(info, "_describe", fail)
    assert refuse("info", ".") == message


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
def test_interrupt_exits_with_130_and_names_the_remedy(error, call, monkeypatch):
    def stop(path, verify):
        raise error

    monkeypatch.setattr(info, "_describe", stop)
    code, out, err = call("info", ".")
    assert (code, out) == (130, "")
    assert err == "Interrupted. Rerun the same command to start over; partial output was removed.\n"


def test_error_of_the_program_is_raised(call, monkeypatch):
    def fail(path, verify):
        raise ZeroDivisionError

    monkeypatch.setattr(info, "_describe", fail)
    with pytest.raises(ZeroDivisionError):
        call("info", ".")


def test_verbose_shows_the_log_of_tensorflow(call, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    call("info", tmp_path)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    call("--verbose", "info", tmp_path)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("train", ["records", "new"]),
        ("export", ["run", "module"]),
        ("info", ["model.keras"]),
        ("info", ["records"]),
    ],
)
def test_verbs_import_tensorflow_quietly(verb, arguments, refuse, tmp_path, monkeypatch):
    def import_tensorflow():
        raise DataError("asked for TensorFlow")

    folder, file = "records", "manifest.json"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / file).write_text('{"format": "sits_keras records", "version": 1}')
    (tmp_path / "model.keras").touch()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"sits_keras.cli.{verb}")
    monkeypatch.setattr(module, "import_tensorflow", import_tensorflow)
    assert refuse(verb, *arguments) == "asked for TensorFlow"


@pytest.mark.parametrize(("path", "code"), [("missing", 2), ("--help", 0)])
def test_main_exits_with_the_code_of_run(path, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sits-keras", "info", path])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == code


def test_python_m_runs_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sits_keras", "info", "missing"])
    with pytest.raises(SystemExit) as exited:
        runpy.run_module("sits_keras", run_name="__main__")
    assert exited.value.code == 2
    assert capsys.readouterr().err.startswith("Error: Nothing at missing, and no preset of ")


def test_console_script_runs_the_command_line(spawn, tmp_path):
    script = Path(sys.executable).with_name("sits-keras")
    if not script.exists():
        pytest.skip(f"no console script at {script}: the package is not installed there")
    done = spawn("info", tmp_path / "missing", program=(str(script),))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: Nothing at {tmp_path / 'missing'}.\n"


# Settings of the user's environment

# A verb that warns, and calls a worker as multiprocessing does.
WARN = """
import subprocess, sys, types, warnings
import click
from sits_keras import cli

def work():
    warnings.warn("deprecated", DeprecationWarning)
    warnings.warn("overflow", RuntimeWarning)
    warnings.warn("check your rasters")
    worker = [sys.executable, *subprocess._args_from_interpreter_flags(), "-c"]
    subprocess.run([*worker, "import warnings; warnings.warn('worker')"], check=True)
    print("done")

verb = click.Command("info", callback=work)
sys.modules["sits_keras.cli.info"] = types.SimpleNamespace(info=verb)
cli.main(["info"])
"""


@pytest.mark.parametrize("how", ["variable", "option"])
def test_warnings_as_errors_do_not_stop_a_verb(how, spawn, monkeypatch):
    options = ()
    if how == "variable":
        monkeypatch.setenv("PYTHONWARNINGS", "error")
    else:
        options = ("-W", "error")
    done = spawn(program=(sys.executable, *options, "-c", WARN))
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == "Warning: check your rasters"
    assert [line for line in lines[1:] if "worker" not in line] == []  # its own warning, as usual


# A verb that prints a name in Polish, and one whose bytes are not UTF-8.
PRINT = r"""
import sys, types
import click
from sits_keras import cli
verb = click.Command("info", callback=lambda: click.echo("\u0142ad \udce9"))
sys.modules["sits_keras.cli.info"] = types.SimpleNamespace(info=verb)
cli.main(["info"])
"""


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "ascii"])
def test_name_that_the_console_cannot_encode_is_printed(encoding, spawn, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = spawn(program=(sys.executable, "-c", PRINT))
    assert (done.returncode, done.stderr) == (0, "")
    expected = {"latin-1": r"\u0142ad \udce9", "utf-8": "\u0142ad \\udce9"}
    if encoding in expected:  # click writes UTF-8 where the encoding is ASCII
        assert done.stdout == expected[encoding] + "\n"


def test_run_with_the_projections_of_another_installation_knows_crs_codes(tmp_path):
    own = Path(rasterio.__file__).parent / "proj_data" / "proj.db"
    if not own.is_file():
        pytest.skip("rasterio has no data of its own")
    shutil.copy(own, tmp_path / "proj.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "proj.db")) as database:
        key = "DATABASE.LAYOUT.VERSION.MINOR"
        database.execute("UPDATE metadata SET value = 0 WHERE key = ?", (key,))
        database.commit()
    program = (
        "from sits_keras.cli import run; run(['--version']);"
        "import rasterio\nwith rasterio.Env(): print(rasterio.CRS.from_epsg(32631))"
    )
    environment = {**os.environ, "PROJ_LIB": str(tmp_path), "PROJ_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert "EPSG:32631" in done.stdout, done.stderr
