"""The request loop of every source: paced, counted, repeated with back-off, bounded by the run."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from loaders.errors import Cancelled, SourceError, TransientSourceError
from loaders.sources.contract import FetchRequest
from loaders.sources.pacing import TokenBucket

_LONGEST_WAIT = 60.0
"""Seconds of back-off, at most; a pause that the source asks for may be longer."""

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True, slots=True)
class Again:
    """An attempt that failed of what may pass."""

    cause: str
    """For the error that ends the last attempt; no content."""
    retry_after: float = 0.0
    """Seconds that the answer asks for."""
    slows_down: Sequence[TokenBucket] = ()
    """The quotas that were met."""
    kind: type[SourceError] = TransientSourceError
    """What the last attempt raises."""
    error: Exception | None = None


@dataclasses.dataclass(frozen=True)
class Attempts:
    """How often calls of a source are tried, and how long they wait in between."""

    source_system: str
    most: int
    backoff_seconds: float
    """Before the second attempt; doubled for each that follows, and jittered."""

    def call(
        self,
        request: FetchRequest,
        method: str,
        buckets: Sequence[TokenBucket],
        ask: Callable[[bool], Answer | Again],
        units: int = 1,
    ) -> Answer:
        """What `ask` returns once it succeeds; it is told whether the attempt is the last.

        Every attempt waits until each bucket has its units. Raises what `ask` raises for what no
        retry mends; TransientSourceError, or the kind that Again names, when attempts are used up;
        AskedToPause when a pause takes longer than the run may; Cancelled when the run is.
        """
        named = f"{self.source_system}: {method}"
        for attempt in range(1, self.most + 1):
            _wait(request, max(bucket.reserve(units) for bucket in buckets))
            while (closed := max(bucket.closed_for() for bucket in buckets)) > 0:
                _wait(request, closed)
            request.usage.add(calls=1, units=units)
            answer = ask(attempt == self.most)
            if not isinstance(answer, Again):
                return answer
            # Before all others are made to wait for it.
            request.check_pause(answer.retry_after, named)
            if attempt == self.most:
                raise answer.kind(
                    f"{named} failed {attempt} times, last with {answer.cause}; run again later"
                ) from answer.error
            ceiling = min(_LONGEST_WAIT, self.backoff_seconds * 2 ** (attempt - 1))
            wait = max(answer.retry_after, random.uniform(ceiling / 2, ceiling))
            for bucket in answer.slows_down:
                bucket.slow_down(wait)
            request.usage.add(retries=1, throttled=wait)
            _wait(request, wait)
        raise AssertionError("unreachable: the last attempt raises")


def _wait(request: FetchRequest, seconds: float) -> None:
    if request.cancelled.wait(seconds) if seconds > 0 else request.cancelled.is_set():
        raise Cancelled
