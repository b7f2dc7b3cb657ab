"""Execution of independent tasks: in this process, in local processes, or on a cluster.

Processes and clusters are Dask's. A task must have the same result wherever it is run, and when it
is run again: a task whose worker dies is given to another worker.
"""

import collections
import contextlib
import functools
import importlib.util
import os
import signal
import threading
import urllib.parse
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from sits_keras.errors import ConfigError, SitsKerasError
from sits_keras.tensorflow_import import import_tensorflow

_CONNECT_TIMEOUT = 10  # seconds
_TASKS_PER_THREAD = 2  # one that runs and one that waits, so that no thread is idle

S = TypeVar("S")
T = TypeVar("T")
U = TypeVar("U")


class Unfinished(NamedTuple):
    """Result of a task that is still to be completed, which may wait for the disk.

    Attributes:
        finish: Function that completes the task and returns its result. A thread calls it while
            the next task runs.
    """

    finish: Callable[[], Any]


Run = Callable[..., Iterator[tuple[int, Any]]]
"""`run(function, work, bar, weights)` calls a function with each of several tuples of arguments,
and yields the position and the result of each as it is done. The function is also given
`num_threads`, the number of threads that it may read with. The bar advances by a task's weight; in
this process the function advances it itself, by the `tick` that it is given."""

RunInOrder = Callable[..., Iterator[Any]]
"""`run(function, common, work, bar, weights)` calls a function with the arguments `common`, of
which each worker gets one copy, and each of several tuples of arguments. It yields the results in
order, and starts only the tasks that are needed soon, so that few results wait. The bar advances by
a task's weight."""


@contextlib.contextmanager
def runner(workers: int, scheduler: str | None) -> Iterator[Run]:
    """Provide a runner of tasks.

    Args:
        workers: Processes on this machine; 1 for this process.
        scheduler: Address of a Dask scheduler, whose workers see the same files and have this
            package installed. `workers` is then ignored.

    Yields:
        The runner.

    Raises:
        ConfigError: Dask is not installed, or no scheduler answers.
    """
    num_threads = 1 if scheduler else _threads_of_each(workers)
    with _client_if_wanted(workers, scheduler, _set_up_worker) as client:
        yield (
            functools.partial(_run_locally, num_threads)
            if client is None
            else functools.partial(_run_remotely, client, num_threads)
        )


@contextlib.contextmanager
def runner_in_order(workers: int, scheduler: str | None) -> Iterator[RunInOrder | None]:
    """Provide a runner of tasks in other processes that yields their results in order.

    Args:
        workers: As in `runner`.
        scheduler: As in `runner`.

    Yields:
        The runner; `None` if tasks are to run in this process.

    Raises:
        ConfigError: Dask is not installed, or no scheduler answers.
    """
    with _client_if_wanted(workers, scheduler, _set_up_encoder) as client:
        yield None if client is None else functools.partial(_run_in_order, client)


def read_ahead(items: Iterator[T]) -> Generator[T]:
    """Yield items, each of which a thread computes while the last one is in use.

    Args:
        items: Iterator that the thread asks for items.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Any] = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def map_in_threads(
    function: Callable[[S, U], T], states: Sequence[S], items: Sequence[U]
) -> list[T]:
    """Call a function with each item, in as many threads as there are states.

    Args:
        function: Function of a state and an item.
        states: A state for each thread, such as files of its own. A single one is used in the
            calling thread.
        items: Items. Each thread takes every second one if there are two, and so on.

    Returns:
        The results, in the order of the items.

    Raises:
        Exception: The first call that fails raises it, and no further calls are made.
    """
    if len(states) == 1:
        return [function(states[0], item) for item in items]
    results: list[Any] = [None] * len(items)
    stopped = threading.Event()

    def work(first: int) -> None:
        for index in range(first, len(items), len(states)):
            if stopped.is_set():
                return
            results[index] = function(states[first], items[index])

    with ThreadPoolExecutor(len(states)) as threads:
        try:
            for future in as_completed([threads.submit(work, n) for n in range(len(states))]):
                future.result()
        finally:
            stopped.set()  # also if this thread is interrupted
    return results


def default_workers() -> int:
    """Return the number of cores that this process may use; 1 if Dask is not installed."""
    if importlib.util.find_spec("distributed") is None:
        return 1
    return num_cores()


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads_of_each(workers: int) -> int:
    return max(1, num_cores() // max(1, workers))


def _run_locally(
    num_threads: int,
    function: Callable[..., Any],
    work: Sequence[tuple[Any, ...]],
    bar: "tqdm[Any]",
    weights: Sequence[int],
) -> Iterator[tuple[int, Any]]:
    waiting: collections.deque[tuple[int, Future[Any]]] = collections.deque()
    with ThreadPoolExecutor(1) as finishing:
        for index, arguments in enumerate(work):
            result = function(*arguments, tick=bar.update, num_threads=num_threads)
            if not isinstance(result, Unfinished):
                yield index, result
                continue
            # Before the last one is waited for: if that failed, this one has to be completed too.
            waiting.append((index, finishing.submit(result.finish)))
            if len(waiting) > 1:
                previous, future = waiting.popleft()
                yield previous, future.result()
        for index, future in waiting:
            yield index, future.result()


def _run_remotely(
    client: Any,
    num_threads: int,
    function: Callable[..., Any],
    work: Sequence[tuple[Any, ...]],
    bar: "tqdm[Any]",
    weights: Sequence[int],
) -> Iterator[tuple[int, Any]]:
    import distributed

    threads = _threads_of_tasks(client, len(work), num_threads)
    futures = [
        # Impure: a result that another run left on the scheduler is not one of this run.
        client.submit(_call, functools.partial(function, num_threads=one), *arguments, pure=False)
        for arguments, one in zip(work, threads, strict=True)
    ]
    positions = {future: index for index, future in enumerate(futures)}
    try:
        for future in distributed.as_completed(futures, loop=client.loop):
            index = positions[future]
            result = _result(future, index, len(work))
            bar.update(weights[index])
            yield index, result
    finally:
        client.cancel(futures)


def _threads_of_tasks(client: Any, num_tasks: int, num_threads: int) -> list[int]:
    """Return the number of threads of each task.

    Workers of one machine share its cores: the last tasks, which leave other workers without one,
    get their threads.
    """
    workers = client.nthreads()
    num_last = 0
    if len({urllib.parse.urlsplit(address).hostname for address in workers}) == 1:
        num_last = num_tasks % sum(workers.values())
    threads = [num_threads] * num_tasks
    if num_last:
        threads[-num_last:] = [num_threads * sum(workers.values()) // num_last] * num_last
    return threads


def _run_in_order(
    client: Any,
    function: Callable[..., Any],
    common: Sequence[Any],
    work: Sequence[tuple[Any, ...]],
    bar: "tqdm[Any]",
    weights: Sequence[int],
) -> Iterator[Any]:
    from distributed.protocol import pickle

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # a model; it is sent once
        # As results, which workers pass on to each other, and recompute if one is lost. As bytes,
        # because the scheduler inspects arguments, and must not load a model.
        shared = [client.submit(pickle.loads, pickle.dumps(one), pure=False) for one in common]
    futures: collections.deque[Any] = collections.deque()
    num_started = 0
    try:
        for index, weight in enumerate(weights):
            # Workers may join and leave.
            num_wanted = index + max(1, _TASKS_PER_THREAD * sum(client.nthreads().values()))
            while num_started < min(num_wanted, len(work)):
                futures.append(
                    client.submit(_call, function, *shared, *work[num_started], pure=False)
                )
                num_started += 1
            result = _result(futures[0], index, len(work))
            futures.popleft().release()
            bar.update(weight)
            yield result
    finally:
        client.cancel([*futures, *shared])


def _result(future: Any, index: int, count: int) -> Any:
    import distributed

    try:
        return future.result()
    except distributed.KilledWorker as error:
        raise SitsKerasError(
            f"The workers died at task {index} of {count}, possibly for lack of memory. Use fewer "
            "workers; the same command resumes."
        ) from error


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; its errors lose their cause, because GDAL's errors cannot be pickled."""
    import distributed

    try:
        result = function(*arguments)
        if isinstance(result, Unfinished):
            distributed.secede()  # the worker begins its next task, while this one waits
            return result.finish()
        return result
    except (SitsKerasError, OSError) as error:
        plain = type(error)(*error.args)
    raise plain


def _set_up_worker(num_threads: int) -> None:
    # Ctrl-C goes to all processes of a terminal: this one is ended by its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Otherwise each would use every core.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(num_threads))


def _set_up_encoder(num_threads: int) -> None:
    _set_up_worker(num_threads)
    import_tensorflow()  # without its log messages, as in the parent


@contextlib.contextmanager
def _client_if_wanted(
    workers: int, scheduler: str | None, set_up: Callable[[int], None]
) -> Iterator[Any]:
    if workers < 1:
        raise ConfigError(f"workers must be at least 1. Received: workers={workers}.")
    if workers == 1 and scheduler is None:
        yield None
        return
    with _client(workers, scheduler, set_up) as client:
        yield client


@contextlib.contextmanager
def _client(workers: int, scheduler: str | None, set_up: Callable[[int], None]) -> Iterator[Any]:
    try:
        import distributed
    except ImportError as error:
        raise ConfigError(
            "Several workers, or a scheduler, require Dask. Install it: pip install distributed."
        ) from error
    if scheduler:
        try:
            client = distributed.Client(scheduler, timeout=_CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"No Dask scheduler answers at {scheduler}: {error}. Start one with "
                "`dask scheduler`, and its workers with `dask worker ADDRESS`."
            ) from error
        with client:
            yield client
        return
    with (
        local_cluster(workers) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.run(set_up, _threads_of_each(workers))
        yield client


def local_cluster(workers: int) -> Any:
    """Start Dask workers on this machine.

    Args:
        workers: Number of processes.

    Returns:
        A `distributed.LocalCluster`, which is a context manager.
    """
    import dask
    import distributed

    # Dask has workers return freed memory at once. Then each array of some megabytes is mapped
    # again, which takes as long as the rest of the work.
    with dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}):
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=0,
            silence_logs="CRITICAL",
        )
