import shutil
from pathlib import Path

import pytest

from sits_keras.data import read_manifest
from sits_keras.data.preparation import shards


@pytest.fixture
def series(tiny_series, tmp_path):
    return Path(shutil.copytree(tiny_series, tmp_path / "series"))


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_prepare_writes_records_and_counts_them(tiny_series, tiny_records, call, tmp_path):
    out = tmp_path / "new" / "records"
    code, text, err = call("prepare", tiny_series, out, "--quiet")
    assert (code, err) == (0, "")
    assert text == (
        f"{out}: 2 records of 2 series in 1 shards; 0 dates and 0 blocks left out, "
        "0 series skipped (reasons in manifest.json)\n"
    )
    assert read_manifest(out).shards == read_manifest(tiny_records).shards


def test_prepare_progress_is_shown(tiny_series, call, tmp_path):
    err = call("prepare", tiny_series, tmp_path / "records").err
    assert "screen" in err
    assert "6/6" in err
    assert "write" in err
    assert "786k/786k" in err  # 2 series of 3 dates of 128 x 128 px, 4 bands of 2 bytes


def test_prepare_every_option_is_passed_on(tiny_series, call, tmp_path):
    out = tmp_path / "records"
    options = {
        "bands": "B04, B03,B02",
        "patch-size": 600,
        "block-size": 200,
        "dates": 5,
        "min-dates": 3,
        "max-cloud": 0.1,
        "min-complete": 0.7,
        "compression": "GZIP",
    }
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    code, *_ = call("prepare", tiny_series / "a", tiny_series / "b", out, "--quiet", *flags)
    assert code == 0
    manifest = read_manifest(out)
    assert [one["id"] for one in manifest.series] == ["a", "b"]
    expected = {name.replace("-", "_"): value for name, value in options.items()}
    expected["bands"] = ["B04", "B03", "B02"]
    expected |= {"central": 0, "align": False}
    del manifest.options["shard_bytes"]
    assert manifest.options == expected


def test_prepare_series_are_chosen_by_pattern(tiny_series, call, tmp_path):
    call("prepare", tiny_series, tmp_path / "one", "--quiet", "--include", "a*")
    call("prepare", tiny_series, tmp_path / "other", "--quiet", "--exclude", "[!b]")
    assert [one["id"] for one in read_manifest(tmp_path / "one").series] == ["a"]
    assert [one["id"] for one in read_manifest(tmp_path / "other").series] == ["b"]


def test_prepare_skipped_series_and_dates_are_printed(coded_series, call, tmp_path):
    coded_series(tmp_path / "in" / "clear", cloudy=(1,))
    coded_series(tmp_path / "in" / "cloudy", cloudy=(0, 1))
    code, out, _ = call("prepare", tmp_path / "in", tmp_path / "records", "--quiet")
    assert code == 0
    assert out.splitlines() == [
        "skipped cloudy: 1 of 3 dates pass, 2 are needed",
        f"{tmp_path / 'records'}: 1 records of 1 series in 1 shards; 1 dates and 0 blocks left "
        "out, 1 series skipped (reasons in manifest.json)",
    ]


def test_prepare_other_options_need_overwrite(tiny_series, call, refuse, tmp_path):
    out = tmp_path / "records"
    call("prepare", tiny_series, out, "--quiet")
    assert "or pass overwrite (--overwrite) to replace them" in refuse(
        "prepare", tiny_series, out, "--quiet", "--compression", "GZIP"
    )
    code, *_ = call("prepare", tiny_series, out, "-q", "--compression", "GZIP", "--overwrite")
    assert code == 0
    assert read_manifest(out).compression == "GZIP"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--block-size", 100], "block_size must be an integer of at least 128"),
        (["--max-cloud", 1.5], "max_cloud must be a fraction in [0, 1]"),
        (["--bands", "B02,B11"], "has no band B11. It has: B02, B03, B04, B08."),
        (["--include", "c"], "No series matches 'c'. Available: a, b."),
        (["--exclude", "*"], "Every series is excluded. Available: a, b."),
    ],
)
def test_prepare_wrong_option_is_reported(options, message, tiny_series, refuse, tmp_path):
    assert message in refuse("prepare", tiny_series, tmp_path / "records", "--quiet", *options)
    assert not (tmp_path / "records").exists()


def test_prepare_wrong_source_is_reported(refuse, tmp_path):
    assert "Nothing at" in refuse("prepare", tmp_path / "missing", tmp_path / "records", "-q")
    (tmp_path / "empty").mkdir()
    assert "No image series found in" in refuse(
        "prepare", tmp_path / "empty", tmp_path / "records", "-q"
    )


@pytest.mark.parametrize("out", ["file", "file/records"])
def test_prepare_output_that_cannot_be_written_is_reported(out, tiny_series, refuse, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refuse("prepare", tiny_series, tmp_path / out, "--quiet")
    assert (tmp_path / "file").read_text() == "mine"


def test_prepare_files_that_are_missing_are_all_named(tmp_path, series, refuse):
    for day in ("2020-05-01", "2020-06-01"):
        (series / "a" / f"{day}.tif").symlink_to(tmp_path / "unmounted" / f"{day}.tif")
    err = refuse("prepare", series, tmp_path / "out", "-q")
    for day in ("2020-05-01", "2020-06-01"):
        assert f"{day}.tif is a link to a file that does not exist" in err


def test_prepare_truncated_raster_is_one_line_of_a_quiet_process(series, spawn, tmp_path):
    cut_in_half(series / "a" / "2020-02-01.tif")
    done = spawn("prepare", series, tmp_path / "records", "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {series / 'a' / '2020-02-01.tif'} cannot be read: ")
    assert done.stderr.count("\n") == 1


def test_prepare_interrupt_ends_with_130(tiny_series, call, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "begin_shard", stop)
    code, out, err = call("prepare", tiny_series, tmp_path / "records", "--quiet")
    assert (code, out) == (130, "")
    assert err.strip() == "Interrupted. Rerun the same command to resume."
    monkeypatch.undo()
    assert call("prepare", tiny_series, tmp_path / "records", "--quiet").code == 0
