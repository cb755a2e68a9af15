"""A job's work under its signals and its time."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from loaders.errors import Interrupted, LandfallError, TimedOut, describe
from loaders.jobs.job import Job

logger = logging.getLogger(__name__)


def run_supervised(
    job: Job, work: Callable[[], None], *, tell: Callable[[Job], None] = lambda job: None
) -> None:
    """Run `work` in a thread while this one listens for signals and the hard timeout.

    Python runs signal handlers in the main thread only, between bytecodes: a long
    statement of the work would keep it deaf. SIGTERM, SIGINT and the timeout write
    job.failed and end the process at once: what the work was doing is what a kill
    would have interrupted, and every step survives that. Then `tell` is called with the job, and
    what `work` raises is raised again.
    """
    outcome: list[BaseException] = []
    # Its put may interrupt its get. An Event's set may not interrupt its wait: the handler would
    # wait for a lock that the thread under it holds, for ever.
    ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def target() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - re-raised below, in the main thread
            outcome.append(error)
        finally:
            ends.put(None)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        ends.put(number)

    previous = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        worker = threading.Thread(target=target, name="landfall-work", daemon=True)
        worker.start()
        try:
            received = ends.get(timeout=job.timeout_seconds)
        except queue.Empty:
            took_too_long = f"the run exceeded its {job.timeout_seconds:g} s; run it again"
            _end_now(job, TimedOut(took_too_long), tell)
        if received is not None:
            _end_now(job, Interrupted(received), tell)
        worker.join()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    tell(job)
    if outcome:
        raise outcome[0]


def _end_now(job: Job, error: LandfallError, tell: Callable[[Job], None]) -> NoReturn:
    job.cancelled.set()
    job.warehouse.lock_wait = 0.0  # nothing may wait for a lock any more
    job.fail(error)
    logger.error("error: %s", describe(error))
    tell(job)
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(error.exit_code)
