"""Pacing: no more units a second than a quota allows, whatever the number of threads, and the
pauses that a source asks for."""

from __future__ import annotations

import datetime as dt
import email.utils
import math
import re
import threading
import time
from collections.abc import Callable, Mapping

_SHARE = 0.98
"""Of the quota is used steadily; the rest is the burst, so that no window holds more."""
_SLOWER = 0.7
_SLOWEST = 0.05
_RECOVERY_SECONDS = 60.0
"""From half the rate back to all of it."""
_LONGEST_PAUSE = 366 * 86_400.0
_RETRY_AFTER = re.compile(r"(?i)\bretry after (\d{4}-\d\d-\d\dT[\d:.]+Z)")


def asked_pause(headers: Mapping[str, str], text: str = "") -> float:
    """Seconds for which an answer asks to be left alone; 0 when it does not.

    By Retry-After (RFC 9110, section 10.2.3: seconds or a date), or by the time that Gmail writes
    into the text of an error. What is a time counts from the answer's own Date: this clock may be
    wrong.
    """
    asked = headers.get("retry-after") or ""
    found = _RETRY_AFTER.search(text)
    pauses = [0.0, _until(found.group(1) if found else "", headers)]
    try:
        pauses.append(float(asked))
    except ValueError:
        pauses.append(_until(asked, headers))
    return min(max(filter(math.isfinite, pauses)), _LONGEST_PAUSE)


def _until(moment: str, headers: Mapping[str, str]) -> float:
    """Seconds from an answer's Date to a moment; 0 for what is none."""
    then, now = _moment(moment), _moment(headers.get("date") or "") or dt.datetime.now(dt.UTC)
    return 0.0 if then is None else (then - now).total_seconds()


def _moment(text: str) -> dt.datetime | None:
    for read in (dt.datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            moment = read(text)
        except ValueError:
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return None


class TokenBucket:
    """A bucket of quota units that all threads of a connection draw from.

    A quota allows `units` in a window of `seconds`. The bucket fills at 98 % of that and holds
    the other 2 %, or `largest` (the dearest call) if that is more. What the source refuses all
    the same, because somebody else uses the same quota, slows it down (`slow_down`); without
    refusals it recovers by itself.
    """

    def __init__(
        self,
        units: float,
        largest: float,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = 60.0,
    ) -> None:
        self._capacity = max(units * (1 - _SHARE), largest)
        self._full_rate = max(units - self._capacity, largest) / seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._factor = 1.0
        self._level = self._capacity
        self._filled_at = clock()
        self._closed_until = 0.0

    @property
    def rate(self) -> float:
        """Units a second at which it fills now."""
        return self._full_rate * self._factor

    def reserve(self, units: float) -> float:
        """Take units out and return the seconds to wait before they may be spent."""
        with self._lock:
            now = self._clock()
            self._fill(now)
            self._level -= units
            owed = max(0.0, -self._level / self.rate)
            return max(0.0, self._closed_until - now) + owed

    def closed_for(self) -> float:
        """Seconds for which nothing may be spent, whatever was reserved.

        To be asked after each wait: the source may have refused others meanwhile.
        """
        with self._lock:
            return max(0.0, self._closed_until - self._clock())

    def slow_down(self, seconds: float) -> None:
        """The source refused: nothing for so long, and less from then on.

        Threads are refused together: what they all report while it is closed counts once.
        """
        with self._lock:
            now = self._clock()
            self._fill(now)
            if now >= self._closed_until:
                self._factor = max(_SLOWEST, self._factor * _SLOWER)
                self._level = min(self._level, 0.0)
            self._closed_until = max(self._closed_until, now + seconds)

    def _fill(self, now: float) -> None:
        passed = max(0.0, now - max(self._filled_at, self._closed_until))
        self._filled_at = now
        self._level = min(self._capacity, self._level + passed * self.rate)
        self._factor = min(1.0, self._factor + passed / (2 * _RECOVERY_SECONDS))
