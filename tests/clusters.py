"""Real Dask clusters to test with."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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
