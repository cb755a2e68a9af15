"""What to kill, when, and with which signal."""

from __future__ import annotations

import dataclasses
import random
import re
import signal
from collections.abc import Iterator
from signal import Signals

from loaders import crashpoints

_POINT = re.compile(r"(?P<point>[a-z_]+\.[a-z_]+)(:(?P<nth>[1-9]\d*))?(:(?P<signal>SIG[A-Z]+))?")
_INSTANT = re.compile(r"(?P<signal>SIG[A-Z]+)@(?P<delay>\d+(\.\d+)?)s")
_TORN = re.compile(r"torn-cache:(?P<kept>0(\.\d+)?)")
_COLD = re.compile(r"cold:(?P<signal>SIG[A-Z]+)")
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Case:
    """One kill. With `point`, when it is reached the `nth` time; with `delay`, so many seconds
    after the start; with neither, a process of its own is killed while it fetches messages.
    `cache_kept` cuts dbt's parse cache to that part of its size afterwards, as a kill in the
    middle of its writing does."""

    name: str
    signal: Signals
    point: str | None = None
    nth: int = 1
    delay: float | None = None
    cache_kept: float | None = None

    @property
    def is_cold(self) -> bool:
        """Whether the victim is `python loaders/run.py` and not a fork."""
        return self.point is None and self.delay is None

    @property
    def directory(self) -> str:
        """The name, safe in a path."""
        return re.sub(r"[^A-Za-z0-9_.-]", "-", self.name)


def parse_case(name: str) -> Case:
    """Read `POINT[:N][:SIGNAL]`, `SIGNAL@SECONDSs`, `cold:SIGNAL` or `torn-cache:PART`.

    Raises ValueError.
    """
    if match := _POINT.fullmatch(name):
        if match["point"] not in crashpoints.NAMES:
            known = ", ".join(crashpoints.NAMES)
            raise ValueError(f"case {name!r}: expected one of {known}; got {match['point']!r}")
        number = _signal(match["signal"] or "SIGKILL")
        return Case(name, number, point=match["point"], nth=int(match["nth"] or 1))
    if match := _INSTANT.fullmatch(name):
        return Case(name, _signal(match["signal"]), delay=float(match["delay"]))
    if match := _COLD.fullmatch(name):
        return Case(name, _signal(match["signal"]))
    if match := _TORN.fullmatch(name):
        kept = float(match["kept"])
        return Case(name, signal.SIGKILL, point="merge.before", cache_kept=kept)
    raise ValueError(
        f"case {name!r}: expected POINT[:N][:SIGNAL], such as land.loaded:2,"
        " SIGNAL@SECONDSs, such as SIGTERM@1.5s, cold:SIGNAL or torn-cache:PART"
    )


def random_cases(count: int, seed: int, seconds: float) -> Iterator[Case]:
    """Instants within `seconds`, the same for the same seed and duration."""
    chance = random.Random(seed)
    for _ in range(count):
        number = chance.choices(_SIGNALS, weights=(2, 1, 1))[0]
        yield parse_case(f"{number.name}@{chance.uniform(0, seconds):.3f}s")


def _signal(name: str) -> Signals:
    if name not in (known := [number.name for number in _SIGNALS]):
        raise ValueError(f"signal: expected one of {', '.join(known)}; got {name!r}")
    return Signals[name]


SAMPLE = tuple(
    parse_case(name)
    for name in (
        "start.after_event",
        "land.extracted",
        "land.loaded:2",
        "ingestion.after_event",
        "merge.before",
        "merge.after",
        "end.before_event",
        *(case.name for case in random_cases(1, seed=20, seconds=3.0)),
        "cold:SIGKILL",
        "cold:SIGTERM",
        "cold:SIGINT",
    )
)
"""Every step of the path once, one random instant, and each signal to a process of its own."""

EMULATOR_SAMPLE = tuple(
    parse_case(name)
    for name in ("land.loaded:2", "merge.before:SIGTERM", "merge.after", "end.before_event")
)
"""A run there takes several times as long: landed in part, not merged, merged, not ended."""
