"""Points in time as people write them on a command line."""

from __future__ import annotations

import datetime as dt
import re

from loaders.settings.constants import constants

FORMS = "2026-01-31, 2026-01-31T12:00, 2026-01-31T12:00:00+02:00, or relative like -7d, -12h, -30m"

_RELATIVE = re.compile(r"-(\d{1,6})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def parse_time(text: str, now: dt.datetime) -> dt.datetime:
    """A time in UTC from an ISO date, an ISO time (UTC unless it has an offset) or `-7d`.

    Raises ValueError that names the accepted forms.
    """
    relative = _RELATIVE.fullmatch(text.strip())
    try:
        if relative:
            return now - dt.timedelta(**{_UNITS[relative[2]]: int(relative[1])})
        moment = dt.datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError) as error:
        raise ValueError(f"got {text!r}, expected {FORMS}") from error
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `50m` or `2h`. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"got {text!r}, expected seconds, or a number with s, m or h")
    return float(match[1]) * _SECONDS[match[2]]


def grace() -> dt.timedelta:
    """How long after its timeout a run without an end row may still write one."""
    return dt.timedelta(seconds=constants().grace_seconds)


def horizon() -> dt.datetime:
    """What has a later time was written by a clock that was ahead: it is listed, and is never
    the newest (as macros/monitoring/is_ahead.sql)."""
    return dt.datetime.now(dt.UTC) + grace()


_SHOWN_UNITS = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration_text(seconds: float) -> str:
    """For a person, as macros/monitoring/duration_text.sql has it."""
    unit, name = next((each for each in _SHOWN_UNITS if seconds >= 2 * each[0]), _SHOWN_UNITS[-1])
    return f"{int(seconds / unit)} {name}"
