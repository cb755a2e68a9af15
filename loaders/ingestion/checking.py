"""When a connection's acceptance tests ran last, how they ended, and whether they are due.

Every end of an ingestion says so: a run that has nothing to merge goes by the last one. Where that
says nothing (its checks failed, or were never done), they are due, all of them, until they pass.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

import yaml

from loaders.errors import ConfigError
from loaders.settings.places import PROJECT_DIR
from loaders.settings.times import grace, horizon
from loaders.warehouse.chain import Standing


@dataclasses.dataclass(frozen=True)
class Checks:
    """Tests that passed: of which run, and when; `full_at` when those of the whole store did."""

    run: str
    at: dt.datetime
    full_at: dt.datetime

    @classmethod
    def read(cls, text: str | None) -> Checks | None:
        """The inverse of `as_json`, of a text; None for what says nothing of them."""
        try:
            told = json.loads(text or "null")
            at, full_at = (dt.datetime.fromisoformat(told[name]) for name in ("at", "full_at"))
            has_zones = at.tzinfo is not None and full_at.tzinfo is not None
            return cls(str(told["run"]), at, full_at) if has_zones else None
        except (ValueError, TypeError, LookupError):
            return None

    def as_json(self) -> dict[str, Any]:
        """As the end of a run carries it."""
        return {"run": self.run, "at": self.at.isoformat(), "full_at": self.full_at.isoformat()}


def in_force(standing: Standing) -> Checks | None:
    """The last checks of a connection; None when they are due, as one of its runs has ended since
    whose own failed or were not come to, or may have: clocks of two hosts differ."""
    checks = Checks.read(standing.checks)
    if checks is None or checks.at > horizon():
        return None
    unchecked_at = standing.unchecked_at
    return None if unchecked_at is not None and unchecked_at >= checks.at - grace() else checks


def passed(run: str, before: Checks | None, *, is_full: bool) -> Checks:
    """What a run says whose tests have just passed; of a `is_full` one those of the store, too."""
    now = dt.datetime.now(dt.UTC)
    return Checks(run, now, now if is_full or before is None else before.full_at)


def full_is_due(checks: Checks | None, hours: float) -> bool:
    """Whether the tests of the whole store are: never passed, too long ago, or in the future."""
    if checks is None:
        return True
    age = dt.datetime.now(dt.UTC) - checks.full_at
    return checks.full_at > horizon() or age >= dt.timedelta(hours=hours)


def full_check_hours() -> float:
    """The variable of dbt_project.yml. Raises ConfigError."""
    project = yaml.load((PROJECT_DIR / "dbt_project.yml").read_text(), Loader=yaml.CSafeLoader)
    value = (project.get("vars") or {}).get("full_check_hours")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 720:
        raise ConfigError(
            "dbt_project.yml: full_check_hours: expected a number of hours from 0 (in each run) to"
            f" 720, got {value!r}"
        )
    return float(value)
