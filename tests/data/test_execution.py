import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_products import make_series
from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data import execution, prepare
from sits_keras.data.execution import default_workers, runner
from sits_keras.errors import ConfigError, SitsKerasError

pytest.importorskip("distributed", reason="needs the extra [dask]")
ROOT = Path(__file__).resolve().parents[2]


def square(number, tick=None):
    if tick:
        tick(number)
    return number**2


@pytest.mark.parametrize("workers", [1, 2])
def test_every_piece_has_its_result_and_the_bar_its_end(workers):
    with runner(workers, None) as run, tqdm(total=10, disable=True) as bar:
        assert dict(run(square, [(4,), (1,), (5,)], bar, [4, 1, 5])) == {0: 16, 1: 1, 2: 25}


def where(number, tick=None):
    return os.getpid()


def test_pieces_run_here_or_elsewhere():
    for workers in (1, 2):
        with runner(workers, None) as run, tqdm(disable=True) as bar:
            pids = {pid for _, pid in run(where, [(1,)], bar, [1])}
            assert (pids == {os.getpid()}) is (workers == 1)


def fail(number, tick=None):
    raise ValueError(f"{number} is at fault")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through(workers):
    with (
        runner(workers, None) as run,
        tqdm(disable=True) as bar,
        pytest.raises(ValueError, match="3 is at fault"),
    ):
        list(run(fail, [(3,)], bar, [1]))


def die(number, tick=None):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_piece_that_kills_its_workers_is_named():
    with (
        runner(2, None) as run,
        tqdm(disable=True) as bar,
        pytest.raises(SitsKerasError, match="workers died while they were at piece 0 of 1"),
    ):
        list(run(die, [(3,)], bar, [1]))


def test_no_workers_are_refused():
    with pytest.raises(ConfigError, match=r"workers must be at least 1. Received: workers=0"):
        runner(0, None).__enter__()


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(execution, "_PATIENCE", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=f"No Dask scheduler answers at {address}"):
        runner(1, address).__enter__()
    with pytest.raises(ConfigError, match="No Dask scheduler answers at nonsense://x"):
        runner(1, "nonsense://x").__enter__()


def test_without_dask_there_is_one_worker(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_workers() == 1
    with pytest.raises(ConfigError, match=r"need Dask: pip install 'sits_keras\[dask\]'"):
        runner(2, None).__enter__()


def test_there_is_a_worker_for_each_core(monkeypatch):
    assert default_workers() == len(os.sched_getaffinity(0))


@contextlib.contextmanager
def cluster(folder, num_workers):
    """A real `dask scheduler` and `dask worker`s on loopback."""
    programs = []
    # Workers import this module for its functions.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    log = (folder / "dask.log").open("w")

    def start(*arguments):
        command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
        programs.append(
            subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        )
        return programs[-1]

    address = folder / "scheduler.json"
    try:
        start(
            "dask_scheduler",
            *("--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(address)),
        )
        while not address.exists():
            time.sleep(0.1)
        url = json.loads(address.read_text())["address"]
        workers = [
            start("dask_worker", url, "--no-nanny", "--nthreads", "1", "--no-dashboard")
            for _ in range(num_workers)
        ]
        yield url, workers
    finally:
        for program in programs:
            program.kill()
            program.wait()
        log.close()


def write_slowly(folder, index, tick=None):
    (folder / f"{index}.{os.getpid()}").touch()
    time.sleep(0.5)
    return index


def test_a_cluster_that_loses_a_worker_half_way_ends_with_everything(tmp_path):
    with (
        cluster(tmp_path, 2) as (url, workers),
        runner(1, url) as run,
        tqdm(disable=True) as bar,
    ):
        results = run(write_slowly, [(tmp_path, index) for index in range(12)], bar, [1] * 12)
        first = [next(results) for _ in range(4)]
        workers[0].send_signal(signal.SIGKILL)
        assert sorted([*first, *results]) == [(index, index) for index in range(12)]
    pids = {int(path.suffix[1:]) for path in tmp_path.glob("*.[0-9]*")}
    assert pids == {worker.pid for worker in workers}


def test_records_of_a_cluster_that_loses_a_worker_half_way_are_the_same_bytes(tmp_path):
    source = make_series(tmp_path / "in")
    config = PrepareConfig(patch_size=128, shard_bytes=1)
    prepare(source, tmp_path / "here", config, progress=False)
    out = tmp_path / "there"
    with cluster(tmp_path, 2) as (url, workers), ThreadPoolExecutor(1) as pool:
        done = pool.submit(prepare, source, out, config, progress=False, scheduler=url)
        while not list(out.glob("shard-*")) and not done.done():
            time.sleep(0.001)
        workers[1].send_signal(signal.SIGKILL)
        done.result(timeout=120)
    expected, written = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "here", out)
    )
    assert len(expected) == 9 + 2
    assert written == expected
