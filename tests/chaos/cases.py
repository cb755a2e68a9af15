"""What to kill, when, and with which signal."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import signal
from collections.abc import Iterator, Mapping
from signal import Signals

from loaders.jobs import crashpoints
from tests.chaos.disasters import Disaster
from tests.chaos.scenarios import SCENARIOS, Scenario

DEFAULT_SCENARIO = "gmail-backfill"
_POINT = re.compile(r"(?P<point>[a-z_]+\.[a-z_]+)(:(?P<nth>[1-9]\d*))?(:(?P<signal>SIG[A-Z]+))?")
_INSTANT = re.compile(r"(?P<signal>SIG[A-Z]+)@(?P<delay>\d+(\.\d+)?)s")
_TORN = re.compile(r"torn-cache:(?P<kept>0(\.\d+)?)")
_COLD = re.compile(r"cold:(?P<signal>SIG[A-Z]+)(:(?P<requests>[1-9]\d*))?")
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_COLD_CASES = 10
"""Of each signal: what such a process does at its end depends on the moment."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One kill. With `point`, when it is reached the `nth` time; with `delay`, so many seconds
    after the start; with neither, a process of its own is killed once the API has answered
    `requests` of it. `cache_kept` cuts dbt's parse cache to that part of its size afterwards, as
    a kill in the middle of its writing does. `disaster` is what happens to the warehouse then, or
    at `point` instead of a kill."""

    name: str
    scenario: str
    signal: Signals
    point: str | None = None
    nth: int = 1
    delay: float | None = None
    requests: int = 10
    cache_kept: float | None = None
    disaster: Disaster | None = None

    @property
    def is_cold(self) -> bool:
        """Whether the victim is `python loaders/run.py` and not a fork."""
        return self.point is None and self.delay is None

    @property
    def directory(self) -> str:
        """The name, safe in a path."""
        return re.sub(r"[^A-Za-z0-9_.-]", "-", self.name)


def parse_case(name: str) -> Case:
    """Read `[SCENARIO/]` and `POINT[:N][:SIGNAL]`, `SIGNAL@SECONDSs`, `cold:SIGNAL[:REQUESTS]` or
    `torn-cache:PART`, and then perhaps `+DISASTER`. Raises ValueError."""
    kill, plus, disaster = name.partition("+")
    if plus:
        found = Disaster.parse(disaster)
        return dataclasses.replace(parse_case(kill), name=name, disaster=found)
    scenario, _, kill = name.rpartition("/")
    scenario = scenario or DEFAULT_SCENARIO
    if scenario not in SCENARIOS:
        raise ValueError(f"case {name!r}: expected one of {', '.join(SCENARIOS)}; got {scenario!r}")
    if match := _POINT.fullmatch(kill):
        if match["point"] not in crashpoints.NAMES:
            known = ", ".join(crashpoints.NAMES)
            raise ValueError(f"case {name!r}: expected one of {known}; got {match['point']!r}")
        number = _signal(match["signal"] or "SIGKILL")
        return Case(name, scenario, number, point=match["point"], nth=int(match["nth"] or 1))
    if match := _INSTANT.fullmatch(kill):
        return Case(name, scenario, _signal(match["signal"]), delay=float(match["delay"]))
    if match := _COLD.fullmatch(kill):
        requests = int(match["requests"] or 10)
        return Case(name, scenario, _signal(match["signal"]), requests=requests)
    if match := _TORN.fullmatch(kill):
        kept = float(match["kept"])
        return Case(name, scenario, signal.SIGKILL, point="merge.before", cache_kept=kept)
    raise ValueError(
        f"case {name!r}: expected POINT[:N][:SIGNAL], such as land.loaded:2,"
        " SIGNAL@SECONDSs, such as SIGTERM@1.5s, cold:SIGNAL or torn-cache:PART;"
        " before it a scenario and a slash, such as stripe-backfill/"
    )


def named_cases() -> Iterator[Case]:
    """Every crash point with every signal in the main scenarios, with SIGKILL in the others;
    the moments of a process of its own."""
    for scenario in SCENARIOS.values():
        signals = _SIGNALS if scenario.is_main else _SIGNALS[:1]
        for kill in _points(scenario, signals):
            yield parse_case(f"{scenario.name}/{kill}")
    for number in _SIGNALS:
        for turn in range(_COLD_CASES):
            scenario_name = "stripe-incremental" if turn % 4 == 3 else DEFAULT_SCENARIO
            yield parse_case(f"{scenario_name}/cold:{number.name}:{3 + 3 * turn}")
    for kept in ("0", "0.5", "0.98"):
        yield parse_case(f"{DEFAULT_SCENARIO}/torn-cache:{kept}")


def _points(scenario: Scenario, signals: tuple[Signals, ...]) -> Iterator[str]:
    for point, number in itertools.product(crashpoints.NAMES, signals):
        yield f"{point}:{number.name}"
        if point.startswith("land.") and number == signal.SIGKILL:
            for nth in range(2, scenario.packages + 1):
                yield f"{point}:{nth}:{number.name}"


_BEFORE_THE_VICTIM = {"gmail-bounded": 2, "stripe-bounded": 2}
"""Runs that prepare a scenario of disasters; one where nothing is said."""


def disaster_cases() -> Iterator[Case]:
    """Every disaster, after a kill at every crash point, in a first fill over bounded runs, an
    incremental run and a resync."""
    for source, kind in itertools.product(
        ("gmail", "stripe"), ("bounded", "incremental", "resync")
    ):
        scenario = f"{source}-{kind}"
        backups = [str(number) for number in range(_BEFORE_THE_VICTIM.get(scenario, 1) + 1)]
        of_parts = [
            f"{part}:{backup}"
            for part in ("restored", "events", "staging")
            for backup in (*backups, "killed")
        ]
        for point in crashpoints.NAMES:
            for disaster in ("removed", "machine", *of_parts, *(f"state:{one}" for one in backups)):
                yield parse_case(f"{scenario}/{point}+{disaster}")
        for nth, backup in itertools.product((1, 25), backups):
            for disaster in ("swapped", "replaced"):
                yield parse_case(f"{scenario}/extract.first_object:{nth}+{disaster}:{backup}")


def few_named_cases() -> Iterator[Case]:
    """Every crash point once, scenarios and signals in turn: a run on the emulator takes long."""
    scenarios = itertools.cycle([one.name for one in SCENARIOS.values() if one.is_main])
    for point, scenario, number in zip(
        crashpoints.NAMES, scenarios, itertools.cycle(_SIGNALS), strict=False
    ):
        yield parse_case(f"{scenario}/{point}:{number.name}")


def random_cases(count: int, seed: int, seconds: Mapping[str, float]) -> Iterator[Case]:
    """Instants in the scenarios named, each within so many seconds; the same for the same seed
    and durations."""
    chance = random.Random(seed)
    for _, scenario in zip(range(count), itertools.cycle(seconds), strict=False):
        number = chance.choices(_SIGNALS, weights=(2, 1, 1))[0]
        yield parse_case(f"{scenario}/{number.name}@{chance.uniform(0, seconds[scenario]):.3f}s")


def _signal(name: str) -> Signals:
    if name not in (known := [number.name for number in _SIGNALS]):
        raise ValueError(f"signal: expected one of {', '.join(known)}; got {name!r}")
    return Signals[name]


SAMPLE = tuple(
    map(
        parse_case,
        (
            "gmail-backfill/land.loaded:2",
            "gmail-incremental/merge.after",
            "gmail-incremental/cold:SIGINT",
            "stripe-backfill/land.normalized:3",
            "stripe-incremental/ingestion.after_event:SIGTERM",
            "stripe-incremental/end.before_event",
        ),
    )
)
"""Each step of the path once, over the main scenarios, with each signal."""
DISASTERS = tuple(
    map(
        parse_case,
        (
            "gmail-incremental/land.normalized+removed",
            "gmail-bounded/land.normalized+restored:1",
            "gmail-resync/merge.before+events:killed",
            "gmail-incremental/extract.first_object:25+swapped:0",
            "gmail-bounded/extract.first_object:5+swapped:1",
            "stripe-incremental/land.normalized+restored:0",
            "stripe-incremental/end.before_event+events:1",
            "stripe-bounded/land.extracted+staging:1",
            "stripe-incremental/land.loaded:2+state:0",
        ),
    )
)
"""Each kind of disaster once, over the scenarios."""
EMULATOR_SAMPLE = tuple(
    map(
        parse_case,
        ("gmail-backfill/merge.after", "gmail-incremental/land.normalized+events:1"),
    )
)
"""A run there takes several times as long."""
