import contextlib
import io
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from clusters import cluster
from fake_products import make_series
from tqdm import tqdm

from sits_keras.config import PrepareConfig
from sits_keras.data import execution, prepare
from sits_keras.data.execution import (
    default_workers,
    map_in_threads,
    read_ahead,
    runner,
    runner_in_order,
)
from sits_keras.errors import ConfigError, SitsKerasError

pytestmark = pytest.mark.integration

distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")


def square(number, tick=None, num_threads=1):
    if tick:
        tick(number)
    return number**2


@pytest.mark.parametrize("workers", [1, 2])
def test_runner_every_task_has_its_result_and_the_bar_its_end(workers):
    with runner(workers, None) as run, tqdm(total=10, disable=True) as bar:
        assert dict(run(square, [(4,), (1,), (5,)], bar, [4, 1, 5])) == {0: 16, 1: 1, 2: 25}


def where(number, tick=None, num_threads=1):
    return os.getpid()


def test_runner_tasks_run_locally_or_remotely():
    for workers in (1, 2):
        with runner(workers, None) as run, tqdm(disable=True) as bar:
            pids = {pid for _, pid in run(where, [(1,)], bar, [1])}
            assert (pids == {os.getpid()}) is (workers == 1)


def test_read_ahead_yields_in_order_and_then_the_error():
    def fail_third():
        yield from (1, 2)
        raise ValueError("no pixels")

    items = read_ahead(fail_third())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="no pixels"):
        next(items)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_map_in_threads_results_are_in_order_and_each_thread_has_its_state(count, num_threads):
    results = map_in_threads(lambda *one: one, range(num_threads), range(count))
    assert results == [(item % num_threads, item) for item in range(count)]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_map_in_threads_error_of_one_thread_stops_the_others(num_threads):
    called = []

    def fail_first(state, item):
        called.append(item)
        if item == 0:
            raise ValueError("no pixels")
        time.sleep(0.02)

    with pytest.raises(ValueError, match="no pixels"):
        map_in_threads(fail_first, range(num_threads), range(1000))
    assert len(called) < 500


def threads_of(number, tick=None, num_threads=1):
    return num_threads


@pytest.mark.parametrize(("num_tasks", "factors"), [(1, [2]), (2, [1, 1]), (5, [1, 1, 1, 1, 2])])
def test_runner_last_task_has_the_threads_of_the_idle_worker(num_tasks, factors):
    with runner(2, None) as run, tqdm(disable=True) as bar:
        found = dict(
            run(threads_of, [(index,) for index in range(num_tasks)], bar, [1] * num_tasks)
        )
    each = max(1, len(os.sched_getaffinity(0)) // 2)
    assert [found[index] for index in range(num_tasks)] == [each * factor for factor in factors]


def begin(number, tick=None, num_threads=1):
    return execution.Unfinished(lambda: square(number))


@pytest.mark.parametrize("workers", [1, 2])
def test_runner_unfinished_results_are_completed(workers):
    with runner(workers, None) as run, tqdm(disable=True) as bar:
        assert dict(run(begin, [(4,), (1,), (5,)], bar, [4, 1, 5])) == {0: 16, 1: 1, 2: 25}


def begin_and_wait_for_next(folder, index, tick=None, num_threads=1):
    (folder / f"{index}").touch()

    def finish():
        deadline = time.monotonic() + 60
        while not (folder / f"{index + 1}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return (folder / f"{index + 1}").exists()

    return execution.Unfinished(finish)


@pytest.mark.parametrize("is_remote", [False, True])
def test_runner_next_task_begins_before_one_is_completed(tmp_path, is_remote):
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(cluster(tmp_path, 1))[0] if is_remote else None
        run = stack.enter_context(runner(1, url))
        bar = stack.enter_context(tqdm(disable=True))
        (tmp_path / "3").touch()
        work = [(tmp_path, index) for index in range(3)]
        assert dict(run(begin_and_wait_for_next, work, bar, [1] * 3)) == dict.fromkeys(
            range(3), True
        )


def test_runner_error_of_completion_leaves_no_later_task_unfinished():
    finished = []

    def begin_one(number, tick, num_threads):
        def finish():
            if number == 0:
                raise OSError("the disk is full")
            finished.append(number)

        return execution.Unfinished(finish)

    with (
        runner(1, None) as run,
        tqdm(disable=True) as bar,
        pytest.raises(OSError, match="the disk is full"),
    ):
        list(run(begin_one, [(0,), (1,), (2,)], bar, [1, 1, 1]))
    assert finished == [1]  # it had been begun


def fail(number, tick=None, num_threads=1):
    raise ValueError(f"{number} is at fault")


@pytest.mark.parametrize("workers", [1, 2])
def test_runner_error_comes_through(workers):
    with (
        runner(workers, None) as run,
        tqdm(disable=True) as bar,
        pytest.raises(ValueError, match="3 is at fault"),
    ):
        list(run(fail, [(3,)], bar, [1]))


def die(number, tick=None, num_threads=1):
    os.kill(os.getpid(), signal.SIGKILL)


def test_runner_task_that_kills_its_workers_is_named():
    with (
        runner(2, None) as run,
        tqdm(disable=True) as bar,
        pytest.raises(SitsKerasError, match="workers died at task 0 of 1"),
    ):
        list(run(die, [(3,)], bar, [1]))


@pytest.mark.parametrize("kind", [runner, runner_in_order])
def test_runner_no_workers_are_refused(kind):
    with pytest.raises(ConfigError, match=r"workers must be at least 1. Received: workers=0"):
        kind(0, None).__enter__()


def test_runner_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(execution, "_CONNECT_TIMEOUT", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConfigError, match=f"No Dask scheduler answers at {address}"):
        runner(1, address).__enter__()
    with pytest.raises(ConfigError, match="No Dask scheduler answers at nonsense://x"):
        runner(1, "nonsense://x").__enter__()


def test_default_workers_without_dask_is_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_workers() == 1
    with pytest.raises(ConfigError, match=r"require Dask. Install it: pip install distributed"):
        runner(2, None).__enter__()


def test_default_workers_with_dask_is_number_of_cores(monkeypatch):
    assert default_workers() == len(os.sched_getaffinity(0))


def write_slowly(folder, index, tick=None, num_threads=1):
    (folder / f"{index}.{os.getpid()}").touch()
    time.sleep(0.5)
    return index


def test_runner_cluster_that_loses_a_worker_half_way_ends_with_everything(tmp_path):
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


def test_runner_records_of_a_cluster_that_loses_a_worker_half_way_are_the_same_bytes(tmp_path):
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


# In order


class Costly:
    """An object that is created once per worker, and reports its process."""

    def __init__(self):
        self.pid = os.getpid()

    def __reduce__(self):
        return Costly, ()


def late_and_early(costly, index):
    """The first one is done after the others."""
    time.sleep(0.3 if index == 0 else 0)
    assert costly.pid == os.getpid()
    return index, id(costly), os.getpid()


def test_runner_this_process_is_used_for_one_worker():
    with runner_in_order(1, None) as run:
        assert run is None


def test_runner_in_order_results_come_in_order_and_few_wait(tmp_path, monkeypatch):
    started = []
    submit = distributed.Client.submit

    def count(client, function, *arguments, **options):
        if late_and_early in arguments:
            started.append(arguments[-1])
        return submit(client, function, *arguments, **options)

    monkeypatch.setattr(distributed.Client, "submit", count)
    with (
        cluster(tmp_path, 2) as (url, _),
        distributed.Client(url, set_as_default=False) as client,
        runner_in_order(1, url) as run,
        tqdm(total=40, file=io.StringIO()) as bar,
    ):
        client.wait_for_workers(2)
        found = []
        work = [(index,) for index in range(20)]
        for result in run(late_and_early, (Costly(),), work, bar, [2] * 20):
            found.append(result)
            # Two for each of two threads, and those whose results were taken.
            assert started == list(range(min(20, len(found) + 3)))
            assert bar.n == 2 * len(found)
    assert [index for index, _, _ in found] == list(range(20))
    # Few copies of what they have in common, not one for each of 20 tasks: one for each worker, and
    # another if Dask moves the task that makes it while it runs.
    pids = {pid for _, _, pid in found}
    assert len({(one, pid) for _, one, pid in found}) <= 2 * len(pids)


def fail_there(costly, index):
    raise ConfigError(f"{index} is at fault")


def test_runner_in_order_error_comes_through_in_order(tmp_path):
    with (
        cluster(tmp_path, 1) as (url, _),
        runner_in_order(1, url) as run,
        tqdm(disable=True) as bar,
        pytest.raises(ConfigError, match="0 is at fault"),
    ):
        list(run(fail_there, (1,), [(0,), (1,)], bar, [1, 1]))


def slowly(costly, index):
    time.sleep(0.3)
    return index


def test_runner_in_order_in_order_too_a_worker_may_be_lost(tmp_path):
    with (
        cluster(tmp_path, 2) as (url, workers),
        runner_in_order(1, url) as run,
        tqdm(disable=True) as bar,
    ):
        results = run(slowly, (Costly(),), [(index,) for index in range(10)], bar, [1] * 10)
        first = [next(results) for _ in range(3)]
        workers[0].send_signal(signal.SIGKILL)
        assert [*first, *results] == list(range(10))
