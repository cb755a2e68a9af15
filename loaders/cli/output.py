"""What a run prints at its end."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loaders.settings.places import shown
from loaders.settings.times import duration_text, grace
from loaders.sources.inventory import ERRORS, EXCUSES

if TYPE_CHECKING:
    # What is printed; a run need not load what others print.
    from loaders.ingestion.checking import Checks
    from loaders.ingestion.ingest import RunSummary
    from loaders.monitoring.health import Status
    from loaders.upkeep.copying import TableCopy
    from loaders.upkeep.verifying import Report


def print_dry_run(telemetry: dict[str, Any]) -> None:
    """Print what a dry run would have done."""
    print(
        f"dry run: {telemetry['records_extracted']} listed,"
        f" {telemetry['records_landed']} would be landed ({telemetry['bytes']:,} bytes),"
        f" {telemetry['already_held']} held already, {telemetry['gone']} gone,"
        f" {telemetry['dead_lettered']} dead letters; nothing was written"
    )


def print_summary(summary: RunSummary) -> None:
    """Print what a run did."""
    counts, telemetry, tests = summary.counts, summary.telemetry, summary.tests
    lines = [
        ("run", summary.correlation_id),
        ("mode", telemetry["mode"]),
        (
            "extracted",
            f"{telemetry['records_landed']} ({telemetry['bytes'] / 1e6:.1f} MB in"
            f" {telemetry['chunks']} package(s)), {telemetry['already_held']} held already,"
            f" {telemetry['gone']} gone",
        ),
        ("inserted", counts["inserted"]),
        ("updated", counts["updated"]),
        ("unchanged", counts["unchanged"]),
        ("deleted", f"{counts['deleted']}, undeleted {counts['undeleted']}"),
        (
            "dead letters",
            f"{telemetry['new_dead_letters']} new, {telemetry['dead_lettered']} in all",
        ),
        ("tests", _tests(tests, summary.checks)),
        ("duration", f"{summary.duration_seconds:.1f} s"),
    ]
    if counts["stale"]:
        lines.insert(7, ("stale", counts["stale"]))
    if telemetry["erased"]:
        lines.append(("erased", f"{telemetry['erased']} objects met again and not stored"))
    if telemetry["deferred"]:
        lines.append(("deferred", f"{telemetry['deferred']} changed objects, read by later runs"))
    if telemetry["unfetched"]:
        lines.append(("unfetched", f"{telemetry['unfetched']}, tried again by the next run"))
    if summary.has_more:
        lines.append(("has more", "yes: the run was bounded; run again, or use --until-done"))
    print()
    for name, value in lines:
        print(f"{name + ':':<14}{value}")
    for warning in summary.warnings:
        print(f"warning: acceptance test {warning}")


def _tests(tests: Mapping[str, int], checks: Checks | None) -> str:
    if checks is not None:
        return f"nothing to look at; passed {checks.at:%Y-%m-%d %H:%M} UTC in run {checks.run}"
    return f"{tests['passed']} passed, {tests['warned']} warned, {tests['failed']} failed"


def print_copies(copies: list[TableCopy]) -> None:
    """Print what became of each table."""
    columns = ("table", "rows in source", "copied now", "already there", "verified")
    print_table(
        columns,
        [
            (
                copy.table,
                str(copy.rows),
                str(copy.copied),
                str(copy.already_there),
                "yes" if copy.is_verified else "NO",
            )
            for copy in copies
        ],
    )


SHOWN_ID = 8
"""Characters of a letter's id that tables show: enough to name it by."""

_COLOURS = {
    "completed": 32,
    "ok": 32,
    "late": 33,
    "running": 36,
    "failed": 31,
    "failing": 31,
    "orphaned": 31,
    "silent": 31,
}
"""SGR codes (ECMA-48, 8.3.117): green, yellow, cyan, red."""


def print_status(found: Status, now: dt.datetime) -> None:
    """Print the connections and the runs as tables, in colours on a terminal, then the spool."""
    _print_views(found, now)
    if waiting := len(found.spool.waiting):
        where = shown(found.spool.directory)
        print(f"spool: {waiting} event(s) wait in {where}; the next run writes them")
    for path in found.spool.set_aside:
        print(f"spool: {shown(path)} cannot be read as an event; look at it, then remove it")


def _print_views(found: Status, now: dt.datetime) -> None:
    if found.last_began:
        began = f"{found.last_began.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
        print(f"no run within monitoring_days (dbt_project.yml); the last one began {began}")
        return
    if not found.connections and not found.runs:
        print("no runs yet; start one with: python loaders/run.py gmail")
        return
    if found.connections:
        _print_connections(found.connections)
        print()
    _print_runs(found.runs, now)


def _print_connections(connections: Sequence[dict[str, Any]]) -> None:
    columns = ("connection", "state", "last success", "expected", "failures", "dead letters")
    print_table(
        (*columns, "reason"),
        [
            (
                f"{connection['source_system']}.{connection['connection_name']}",
                connection["state"],
                _ago(connection["age_seconds"]),
                _every(connection["expected_interval_seconds"]),
                str(connection["consecutive_failures"]),
                str(connection["open_dead_letters"]),
                connection["reason"],
            )
            for connection in connections
        ],
        _paint,
    )


def _print_runs(runs: Sequence[dict[str, Any]], now: dt.datetime) -> None:
    print_table(
        ("started", "state", "inserted", "updated", "deleted", "duration", "run"),
        [
            (
                _ago((now - run["started_at"]).total_seconds()),
                run["state"],
                *(_count(run[name]) for name in ("inserted", "updated", "deleted")),
                _seconds(run["duration_seconds"]),
                run["correlation_id"],
            )
            for run in runs
        ],
        _paint,
    )
    for run in runs:
        if run["error_message"]:
            print(f"{run['correlation_id']}: {run['error_message']}")


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    if seconds < -grace().total_seconds():
        return f"in {duration_text(-seconds)}"
    return f"{duration_text(max(seconds, 0.0))} ago"


def _every(seconds: float | None) -> str:
    return "-" if seconds is None else f"every {duration_text(seconds)}"


def print_dead_letters(letters: list[dict[str, Any]]) -> None:
    """Print dead letters as a table."""
    if not letters:
        print("no dead letters")
        return
    columns = ("created_at", "source_system", "connection_name", "object_type", "external_id")
    print_table(
        ("letter", "created (UTC)", "source", "connection", "type", "id", "attempts", "reason"),
        [
            (
                letter["dead_letter_id"][:SHOWN_ID],
                f"{letter['created_at'].astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}",
                *(str(letter[name] or "-") for name in columns[1:]),
                str(letter["attempts"]),
                letter["reason"],
            )
            for letter in letters
        ],
    )


def _seconds(value: Any) -> str:
    return "-" if value is None else f"{float(value):.1f} s"


def print_table(
    columns: tuple[str, ...],
    rows: list[tuple[str, ...]],
    paint: Callable[[str, str], str] = lambda _value, padded: padded,
) -> None:
    """Print rows under their column names, aligned; `paint` takes a cell and the cell padded."""
    widths = [max(map(len, values)) for values in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [paint(cell, cell.ljust(width)) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _paint(value: str, padded: str) -> str:
    """A state in its colour, on a terminal that is not asked to go without (no-color.org)."""
    is_plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    if is_plain or os.environ.get("TERM") == "dumb" or value not in _COLOURS:
        return padded
    return f"\x1b[{_COLOURS[value]}m{padded}\x1b[0m"


def print_report(report: Report, *, as_json: bool) -> None:
    """Print what was found: a table of counts, and the first ids of each kind."""
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
        return

    print()
    print_table(
        ("object type", "at the source", "held", *(_words(kind) for kind in (*ERRORS, *EXCUSES))),
        [
            (
                outcome.object_type,
                str(outcome.listed),
                str(outcome.held),
                *(str(outcome.differences.get(kind, 0)) for kind in (*ERRORS, *EXCUSES)),
            )
            for outcome in report.types
        ],
    )
    for kind, found in report.ids.items():
        total = report.totals[kind]
        shown = "" if total == len(found) else f" (the first {len(found)} of {total})"
        print(f"\n{_words(kind)}{shown}:")
        for object_type, external_id in found:
            print(f"  {object_type} {external_id}")
    for note in report.notes:
        print(f"\nnot compared: {note}")
    if report.is_equal:
        print("\nequal: the warehouse holds what the source has")
    print(f"run: {report.correlation_id}")


def _words(kind: str) -> str:
    return kind.replace("_", " ")
