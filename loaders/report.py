"""What a run prints at its end."""

from __future__ import annotations

from typing import Any

from loaders.copying import TableCopy
from loaders.ingest import RunSummary
from loaders.status import print_table


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
        ("tests", f"{tests['passed']} passed, {tests['warned']} warned, {tests['failed']} failed"),
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
