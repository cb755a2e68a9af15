"""MERGE and CHECK: `dbt build` in this process, for a run that already has its log."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loaders.errors import CheckFailed, LandfallError, TransformFailed, UsageError, WarehouseError
from loaders.settings.constants import constants
from loaders.settings.target import Target
from loaders.transform.invocation import invoke, log_dir, may_pass, said_without_values
from loaders.transform.merge_counts import Connection, no_tests
from loaders.transform.merge_scope import NOT_AS_LANDED, MergeScope
from loaders.warehouse.opening import open_warehouse

logger = logging.getLogger(__name__)

MONITORING = "monitoring"
"""Tag and directory of the monitoring marts, which are of no source."""
_MAX_BUILDS = 4
_LOOKED_AT, _NAMED = 100, 3
"""Rows of a failed test, and the names of them that an error has room for."""
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What a dbt command did: test outcomes, the names of failed nodes, its failure."""

    tests: dict[str, int] = dataclasses.field(default_factory=no_tests)
    """By outcome, as job.completed carries them."""
    warnings: tuple[str, ...] = ()
    error: LandfallError | None = None
    merge: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the warehouse reports of the MERGE's job."""
    merge_seconds: float = 0.0
    """Of the model raw_objects."""
    seconds: float = 0.0
    """Of the whole command, repetitions apart."""
    scope: MergeScope | None = None
    """By which the MERGE went."""


def build(
    target: Target,
    correlation_id: str,
    arguments: Sequence[str] = (),
    *,
    connection: Connection | None = None,
    is_full: bool = True,
    quiet: bool = True,
    scope: MergeScope | None = None,
) -> BuildResult:
    """Run `dbt build` under a wrapped job's correlation_id.

    The MERGE takes what was landed by `connection` (its source and name), by the run itself and
    by runs that are over (macros/merge/is_to_merge.sql). Unless `is_full`, tests look at what this
    run has touched (macros/acceptance/is_full_check.sql). Unit tests are left to CI: they need
    no data. A failure is returned, not raised, as the counts are wanted all the same. What
    another job's MERGE or a rate limit made fail is built again, with jitter: every step of a
    build may be repeated. A MERGE for which its `scope` does not hold is done once more without.
    Source: dbt docs, Programmatic invocations.
    """
    selection = [*arguments]
    if "--exclude-resource-type" not in selection:
        selection += ["--exclude-resource-type", "unit_test"]
    run = {
        "LANDFALL_CORRELATION_ID": correlation_id,
        "LANDFALL_CONNECTION": _named(connection),
        "LANDFALL_CHECKS": "full" if is_full else "touched",
    }
    if scope is not None:
        known = {**run, "LANDFALL_MERGE": scope.as_json()}
        result = until_settled(lambda: _build_once(target, known, selection, quiet=quiet))
        if NOT_AS_LANDED not in str(result.error):
            return dataclasses.replace(result, scope=scope)
        logger.warning("dbt build: %s: the MERGE looks for itself", NOT_AS_LANDED)
    return until_settled(lambda: _build_once(target, run, selection, quiet=quiet))


def _named(connection: Connection | None) -> str:
    """As macros/event_log/run_connection.sql reads it; a name has no colon."""
    return ":".join(connection) if connection and connection[1] else ""  # type: ignore[arg-type]


def until_settled(once: Callable[[], BuildResult]) -> BuildResult:
    """Do it again, with jitter, while it fails of what may pass."""
    for attempt in range(1, _MAX_BUILDS):
        result = once()
        if result.error is None or not result.error.retryable:
            return result
        logger.warning("%s; once more", result.error)
        ceiling = 2.0 * 2**attempt
        time.sleep(random.uniform(ceiling / 2, ceiling))
    return once()


def _build_once(
    target: Target, run: Mapping[str, str], selection: Sequence[str], *, quiet: bool
) -> BuildResult:
    began = time.monotonic()
    result, _ = invoke(target, run, ["build", *selection], quiet=quiet)
    seconds = round(time.monotonic() - began, 3)
    if result.exception is not None:
        error = TransformFailed(f"dbt build: {said_without_values(target, str(result.exception))}")
        return BuildResult(error=error, seconds=seconds)
    read = _read_results(result.result.results, result.success, target)
    return dataclasses.replace(read, seconds=seconds)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UsageError for what `dbt build` does not take."""
    from click.exceptions import ClickException, Exit
    from dbt.cli.main import build as command

    try:
        command.make_context("build", [*arguments])
    except ClickException as error:
        raise UsageError(f"build: {error.format_message()}") from error
    except Exit:  # --help was asked for, and dbt shows it once more
        pass


def _read_results(results: Sequence[Any], success: bool, target: Target) -> BuildResult:
    tests = no_tests()
    failures, warnings = [], []
    merge: dict[str, Any] = {}
    merge_seconds = 0.0
    for result in results:
        status = str(result.status)
        if result.node.name == "raw_objects":
            said = result.adapter_response
            merge = {name: said[name] for name in constants().merge_statistics if name in said}
            merge_seconds = round(result.execution_time, 3)
        if result.node.resource_type in ("test", "unit_test"):
            tests[constants().test_outcomes.get(status, "failed")] += 1
        if status == "warn":
            warnings.append(result.node.name)
        if status in constants().failed_statuses:
            failures.append(result)
    error: LandfallError | None = None
    if failures:
        only_tests = all(str(failure.node.resource_type) == "test" for failure in failures)
        kind = CheckFailed if only_tests else TransformFailed
        first = failures[0]
        said = said_without_values(target, first.message or str(first.status))
        said += _named_violations(target, first)
        error = kind(f"dbt build: {len(failures)} node(s) failed, first {first.node.name}: {said}")
        error.retryable = all(may_pass(target, failure.message or "") for failure in failures)
    elif not success:
        error = TransformFailed("dbt build: failed without a failed node; see its log")
    return BuildResult(
        tests=tests,
        warnings=tuple(warnings),
        error=error,
        merge=merge,
        merge_seconds=merge_seconds,
    )


def _named_violations(target: Target, failure: Any) -> str:
    """The objects and runs that the rows of a failed test name, what shows them, what to do."""
    node = failure.node
    if str(failure.status) != "fail" or not node.compiled_code:
        return ""
    columns = ["idem_key", "correlation_id"]
    if getattr(node, "column_name", None) in columns:
        columns.append("unique_field")  # dbt's name for it in a test of uniqueness
    warehouse, named = open_warehouse(target), ""
    with contextlib.suppress(WarehouseError):
        found = warehouse.execute(
            f"select {warehouse.row_as_json('violations')} from (\n{node.compiled_code}\n)"
            f" as violations order by 1 limit {_LOOKED_AT}"
        )
        rows = [json.loads(text) for (text,) in found]
        for column in columns:
            names = sorted({row[column][:_LONGEST_NAME] for row in rows if row.get(column)})
            named += f"; of {', '.join(names[:_NAMED])}" if names else ""
    return (
        f"{named}; `dbt show --select {node.name} --target {target.name}` lists its rows,"
        f" docs/faults.md says what to do; log: {log_dir(target) / 'dbt.log'}"
    )
