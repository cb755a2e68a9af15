"""Reading ahead in worker threads: bounded in number and bytes, answers in the order asked."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, TypeVar

from loaders.errors import AskedToPause, Cancelled
from loaders.sources.contract import FetchRequest

MAX_WAITING_BYTES = 64 * 1024**2
"""Of answers that wait for those before them: with so many no further request is made."""
_WINDOW = 4
"""Objects per worker that are requested or wait: enough to keep all busy behind a slow one."""

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading(Generic[Task, Answer]):
    task: Task
    weight: int
    answer: concurrent.futures.Future[Answer]

    @property
    def is_read(self) -> bool:
        return self.answer.done() and not self.answer.exception()


@dataclasses.dataclass(frozen=True)
class ReadAhead(Generic[Task, Answer]):
    """Reads tasks in a pool's threads, no more than `workers` of them at a time."""

    pool: concurrent.futures.Executor
    request: FetchRequest
    workers: int
    read: Callable[[Task], Answer]
    """In a worker thread; what it raises ends the reading."""
    weight: Callable[[Task], int] = lambda task: 1
    """Objects of a task."""
    size: Callable[[Answer], int] = lambda answer: 0
    """Bytes of an answer."""

    def run(
        self, tasks: Iterable[Task], may_submit: Callable[[int], bool] = lambda pending: True
    ) -> Iterator[tuple[Task, Answer]]:
        """Yield each task with its answer, in order; the next ones are read meanwhile.

        Of a task that `may_submit`, told how many are under way, holds back, the answers before
        it are waited for. Raises what `read` raises; before AskedToPause, what was read by then is
        yielded. Raises Cancelled.
        """
        todo = iter(tasks)
        pending: collections.deque[_Reading[Task, Answer]] = collections.deque()
        try:
            while self._submit(todo, pending, may_submit):
                if not pending[0].answer.done():
                    self._wait_for_any(pending)
                    continue
                reading = pending.popleft()
                yield reading.task, reading.answer.result()
        except AskedToPause:
            for reading in pending:
                if reading.is_read:
                    yield reading.task, reading.answer.result()
            raise
        finally:
            for reading in pending:
                reading.answer.cancel()

    def _submit(
        self,
        todo: Iterator[Task],
        pending: collections.deque[_Reading[Task, Answer]],
        may_submit: Callable[[int], bool],
    ) -> bool:
        """Ask for as much as there is room for; return whether there is an answer to wait for."""
        while self._has_room(pending) and may_submit(len(pending)):
            for task in todo:
                future = self.pool.submit(self.read, task)
                pending.append(_Reading(task, self.weight(task), future))
                break
            else:
                break
        return bool(pending)

    def _has_room(self, pending: Collection[_Reading[Task, Answer]]) -> bool:
        """Whether a worker is free, and memory for what it would read.

        No request waits for a worker: its answer would come whatever has come meanwhile.
        """
        waiting = sum(self.size(each.answer.result()) for each in pending if each.is_read)
        return (
            sum(not each.answer.done() for each in pending) < self.workers
            and sum(each.weight for each in pending) < _WINDOW * self.workers
            and waiting < MAX_WAITING_BYTES
        )

    def _wait_for_any(self, pending: Iterable[_Reading[Task, Answer]]) -> None:
        answers = [reading.answer for reading in pending if not reading.answer.done()]
        concurrent.futures.wait(answers, return_when=concurrent.futures.FIRST_COMPLETED)
        if self.request.cancelled.is_set():
            raise Cancelled
