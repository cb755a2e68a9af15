"""Child processes forked from one that has imported everything: a start takes milliseconds."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loaders.settings.places import PROJECT_DIR, configure_dlt
from loaders.settings.target import Target

_MODULES = (
    "dbt.adapters.duckdb",
    "dbt.cli.main",
    "dbt.task.build",
    "dbt.task.run_operation",
    "dlt.common.libs.pyarrow",
    "dlt.destinations.impl.duckdb.duck",
    "dlt.sources.helpers.requests",
    "google.oauth2.credentials",
    "google_auth_httplib2",
    "googleapiclient.discovery",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "loaders.cli.main",
    "loaders.ingestion.ingest",
    "loaders.cli.sources",
    "loaders.cli.source_runs",
    "loaders.sources.gmail",
    "loaders.sources.gmail.access",
    "loaders.sources.stripe",
    "loaders.sources.stripe.access",
    "loaders.transform.dbt_build",
    "loaders.warehouse.base",
)
_BIGQUERY_MODULES = (
    "dbt.adapters.bigquery",
    "dlt.destinations.impl.bigquery.bigquery",
    "google.cloud.bigquery",
    "loaders.warehouse.bigquery",
)
_WITHOUT_MARTS = (
    "--select",
    "stg_landed_objects",
    "raw_objects",
    "accepted_violations",
    "test_type:singular",
)
_VIEWS = "config.materialized:view"
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.002
_TIMEOUT_SECONDS = 600.0
HUNG = -1000
"""Stands for an exit code when a process did not end."""


def import_everything(with_bigquery: bool) -> None:
    """Import what a run imports, so that forks have it.

    Importing leaves two native threads, OpenBLAS's (numpy) and jemalloc's (pyarrow); both
    libraries register fork handlers. What must not be alive at a fork is a Python thread, a
    DuckDB instance or Arrow's thread pool: whoever forks opens no file and reads no table.
    """
    configure_dlt()  # dlt reads it when it is imported
    for name in (*_MODULES, *(_BIGQUERY_MODULES if with_bigquery else ())):
        importlib.import_module(name)


def leave_out_marts() -> None:
    """Let runs of this process and its forks build raw_objects and the acceptance tests only."""
    from loaders.transform import dbt_build

    build = dbt_build.build

    def build_core(
        target: Target, correlation_id: str, arguments: Sequence[str] = (), **options: Any
    ) -> dbt_build.BuildResult:
        chosen = _WITHOUT_MARTS if options.get("is_full", True) else ()
        # What a run selects that tests what it has touched is without marts but for the views.
        kept = [argument for argument in arguments if argument != _VIEWS or chosen]
        return build(target, correlation_id, (*kept, *chosen), **options)

    dbt_build.build = build_core


def parse_project(environment: Mapping[str, str], target: str, target_path: Path) -> None:
    """Let dbt parse the project, for its cache and for what it compiles on its first use.

    That is more than half of the CPU time of a run. Parsing starts no thread and opens no
    warehouse. Raises RuntimeError.
    """
    from dbt.cli.main import dbtRunner

    before = dict(os.environ)
    # Killed victims leave semaphores to the resource tracker that is started here, which
    # would list them at its end.
    os.environ.update(environment, PYTHONWARNINGS="ignore:resource_tracker")
    try:
        result = dbtRunner().invoke(
            [
                "--quiet",
                "--log-path",
                environment["LANDFALL_STATE_DIR"],
                "parse",
                # The static parser is a thread pool in Rust (rayon), which no fork survives:
                # a victim that has to parse a file would wait for ever.
                "--no-static-parser",
                "--project-dir",
                str(PROJECT_DIR),
                "--target",
                target,
                "--target-path",
                str(target_path),
            ]
        )
    finally:
        os.environ.clear()
        os.environ.update(before)
    if not result.success:
        raise RuntimeError(f"chaos: dbt cannot parse the project: {result.exception}")


def end_with_parent() -> None:
    """Let this process be killed when its parent ends, however the parent ends.

    It holds a copy of the sandbox's stdin: alive, it would keep the server alive too.
    Source: prctl(2), PR_SET_PDEATHSIG; elsewhere than on Linux nothing is done.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def begin_as_a_user_does() -> None:
    """Let a child hear signals, whatever its parents ignore, and end with its parent."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


def fork(work: Callable[[], int], log: Path) -> int:
    """Run `work` in a forked process and return its pid; its result is the exit code.

    What it prints goes to `log`. Raises RuntimeError when a Python thread is alive: the
    child would inherit its locks and not the thread.
    """
    if threading.active_count() > 1:
        raise RuntimeError(f"fork: expected no other thread, got {threading.enumerate()}")
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 70  # EX_SOFTWARE
    try:
        begin_as_a_user_does()
        _redirect(log)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float = _TIMEOUT_SECONDS) -> int | None:
    """Exit code (negative for a signal), or None when the process still runs after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(_POLL_SECONDS, left))


def wait_or_kill(pid: int) -> int:
    """Exit code of a process that should end by itself; HUNG for one that does not."""
    code = wait(pid)
    if code is not None:
        return code
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return HUNG


def _redirect(log: Path) -> None:
    """Send stdout and stderr to a file, and read nothing."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
