"""The words of an alert: what, since when, which run, what to do next."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from loaders.errors import LandfallError, describe, redact
from loaders.jobs.names import job_name_for
from loaders.monitoring.alerts.channels import Message
from loaders.monitoring.alerts.incidents import Incident
from loaders.settings.times import duration_text
from loaders.sources.registry import SOURCES

FAILING, LATE, SILENT = "failing", "late", "silent"
NO_ROWS, DEAD_LETTERS, UNUSUAL_ROWS = "no_rows", "dead_letters", "unusual_rows"
KINDS: Mapping[str, str] = {
    FAILING: "fails",
    LATE: "is late",
    SILENT: "is silent",
    NO_ROWS: "brings no rows",
    DEAD_LETTERS: "has dead letters",
    UNUSUAL_ROWS: "landed an unusual number of rows",
}
"""What each kind of incident says of its connection or job."""
_RECOVERIES: Mapping[str, str] = {
    FAILING: "a run completed",
    LATE: "it is up to date again, or nobody expects it to run any more",
    SILENT: "it runs again, or nobody expects it to any more",
    NO_ROWS: "it brings rows again, or nobody expects it to run any more",
    DEAD_LETTERS: "no dead letter is open any more",
    UNUSUAL_ROWS: "the last run landed as many rows as usual",
}
_RUN = "python loaders/run.py"


def of_failure(error: BaseException, correlation_id: str) -> str:
    """The text of a failed run, from what it ended with."""
    name = error.error_type if isinstance(error, LandfallError) else type(error).__name__
    message = describe(error).removeprefix(f"{name}: ")
    again = "run the same command again"
    if not (isinstance(error, LandfallError) and error.retryable):
        again = f"do what the error says, then {again}"
    return _lines(
        error=f"{name}: {message}",
        run=correlation_id,
        next=f"{again}; {_RUN} status shows the last runs",
    )


def of_connection(kind: str, row: Mapping[str, Any]) -> str:
    """The text of a state of connection_health."""
    source, connection = row["source_system"], row["connection_name"]
    reason, again = row["reason"], f"{_RUN} {source} --connection {connection}"
    if kind == DEAD_LETTERS:
        reason = f"{row['open_dead_letters']} object(s) could not be stored"
    elif kind == LATE and row["state"] != LATE:
        reason = (
            f"the last success was {duration_text(row['age_seconds'])} ago, expected every"
            f" {duration_text(row['expected_interval_seconds'])}; {reason}"
        )
    elif kind == UNUSUAL_ROWS:
        reason = (
            f"the last completed run landed {row['last_rows']} rows,"
            f" usually about {row['median_rows']:.0f}"
        )
    steps = {
        FAILING: f"{_RUN} status, then {again}",
        LATE: f"see whether its schedule still runs, then {again}",
        SILENT: f"see whether its schedule still runs, then {again}",
        NO_ROWS: f"{_RUN} verify {source} --connection {connection}",
        DEAD_LETTERS: f"{_RUN} dead-letters, then {_RUN} retry {source} --connection {connection}",
        UNUSUAL_ROWS: f"{_RUN} verify {source} --connection {connection}",
    }
    return _lines(reason=reason, run=row["last_correlation_id"], next=steps[kind])


def of_incident(incident: Incident, target: str) -> Message:
    """What is due of an incident: that it began, or that it is over."""
    subject = f"Landfall: {subject_of(incident)} {KINDS[incident.kind]}"
    since = f"since: {_utc(incident.opened_at)}\nwarehouse: {target}"
    if incident.resolved_at is None:
        return Message(subject, f"{incident.message}\n{since}")
    over = f"over: {_RECOVERIES[incident.kind]}"
    return Message(
        f"{subject}: over",
        f"{over}\n{since}\nuntil: {_utc(incident.resolved_at)}",
        "success",
    )


def subject_of(incident: Incident) -> str:
    """The connection, or the job where it is none's ingestion."""
    source, connection = incident.source_system, incident.connection_name
    if connection is not None and incident.job_name == job_name_for(source, connection):
        return f"{source}.{connection}"
    return incident.job_name if source in SOURCES else f"{source} {incident.job_name}"


def _lines(**parts: str | None) -> str:
    return "\n".join(f"{name}: {redact(text)}" for name, text in parts.items() if text)


def _utc(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
