"""MERGE and CHECK: `dbt build` in this process, for a run that already has its log."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loaders.config import PROJECT_DIR, SOURCES, Target, state_dir
from loaders.errors import (
    CheckFailed,
    ConfigError,
    LandfallError,
    TransformFailed,
    UsageError,
    WarehouseError,
    redact,
    without_content,
    without_secrets,
)
from loaders.warehouse import Warehouse, open_warehouse, with_next_step

MERGE_ACTIONS = ("inserted", "updated", "unchanged", "deleted", "undeleted", "stale")
Connection = tuple[str, str | None]
"""A source and a connection's name; without one, a job of no connection."""
FORMAT = "warehouse_format"
"""The table whose columns say which releases may write; see models/core/_sources.yml."""

logger = logging.getLogger(__name__)

_MAX_BUILDS = 4
_LOOKED_AT, _NAMED = 100, 3
"""Rows of a failed test, and the names of them that an error has room for."""
_LONGEST_NAME = 100
# An ingestion does not need dbt's debug log, which takes time.
_QUIETLY = ("--quiet", "--log-level-file", "info")
# dbt's artifacts quote the warehouse and the arguments: they are for who asks for them.
_WRITE_JSON = {"--write-json", "--no-write-json"}
# What BigQuery says of the MERGE's job; DuckDB says nothing.
_MERGE_STATISTICS = ("rows_affected", "bytes_processed", "bytes_billed", "slot_ms", "job_id")
_DEFINITIONS = ("models/marts/monitoring/*", "macros/monitoring/*", "macros/adapters/*")
# As Python's OSError and DuckDB's IOException quote a path.
_PATH = re.compile(r"(\[Errno \d+\] [\w ,-]+: |\bIO Error: [\w ,-]+ file )(\"/[^\"]*\"|'/[^']*')")
_FAILED = {"error", "fail", "runtime error", "partial success"}


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What a dbt command did: test outcomes, the names of failed nodes, its failure."""

    passed: int = 0
    warned: int = 0
    failed: int = 0
    skipped: int = 0
    warnings: tuple[str, ...] = ()
    error: LandfallError | None = None
    merge: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the warehouse reports of the MERGE's job."""
    merge_seconds: float = 0.0
    """Of the model raw_objects."""
    seconds: float = 0.0
    """Of the whole command, repetitions apart."""

    @property
    def tests(self) -> dict[str, int]:
        """Test counts as job.completed carries them."""
        return {
            "passed": self.passed,
            "warned": self.warned,
            "failed": self.failed,
            "skipped": self.skipped,
        }


def build(
    target: Target,
    correlation_id: str,
    arguments: Sequence[str] = (),
    *,
    connection: Connection | None = None,
    quiet: bool = True,
) -> BuildResult:
    """Run `dbt build` under a wrapped job's correlation_id.

    The MERGE takes what was landed by `connection` (its source and name), by the run itself and
    by runs that are over (macros/merge/is_to_merge.sql). Unit tests are left to CI: they need
    no data. A failure is returned, not raised, as the counts are wanted all the same. What
    another job's MERGE or a rate limit made fail is built again, with jitter: every step of a
    build may be repeated. Source: dbt docs, Programmatic invocations.
    """
    selection = [*arguments]
    if "--exclude-resource-type" not in selection:
        selection += ["--exclude-resource-type", "unit_test"]
    run = {"LANDFALL_CORRELATION_ID": correlation_id, "LANDFALL_CONNECTION": _named(connection)}
    return _until_settled(lambda: _build_once(target, run, selection, quiet=quiet))


def _named(connection: Connection | None) -> str:
    """As macros/event_log/run_connection.sql reads it; a name has no colon."""
    return ":".join(connection) if connection and connection[1] else ""  # type: ignore[arg-type]


def _until_settled(once: Callable[[], BuildResult]) -> BuildResult:
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
    result, _ = _invoke(target, run, ["build", *selection], quiet=quiet)
    seconds = round(time.monotonic() - began, 3)
    if result.exception is not None:
        error = TransformFailed(f"dbt build: {_said(target, str(result.exception))}")
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


def bootstrap(warehouse: Warehouse) -> None:
    """Create the tables and columns that the documented ones have and the warehouse lacks.

    What fails while the tables change is tried again: two first jobs at once may trip
    over each other. Raises TransformFailed when dbt cannot, and ConfigError when a later release
    has changed the warehouse so that this one must not write to it.
    """
    documented = documented_columns()
    present = warehouse.columns()
    check_format(warehouse.target, present, documented)
    while any(columns.keys() - present.get(table, set()) for table, columns in documented.items()):
        result = _until_settled(lambda: _bootstrap_once(warehouse.target))
        if result.error is None:
            return
        time.sleep(random.uniform(0.5, 1.5))
        before, present = present, warehouse.columns()
        if present == before:
            raise result.error


def other_sources(warehouse: Warehouse, source_system: str) -> list[str]:
    """What a source's run excludes: the marts of others, to which it brings nothing; of those
    that are not there yet the tests alone, so that the first run of a warehouse makes all views."""
    views: dict[str, str] = {}
    for name in SOURCES:
        if name != source_system:
            # A build makes them together: the last one tells for all.
            views[name] = max(path.stem for path in PROJECT_DIR.glob(f"models/marts/{name}/*.sql"))
    present = warehouse.views(views.values())
    return [
        f"tag:{name}" if view in present else f"tag:{name},resource_type:test"
        for name, view in views.items()
    ]


def views_fingerprint() -> str:
    """Of the files that define the monitoring views; what they are marked with (mark_view)."""
    digest = hashlib.sha256((PROJECT_DIR / "dbt_project.yml").read_bytes())
    for pattern in _DEFINITIONS:
        for path in sorted(PROJECT_DIR.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def check_format(
    target: Target,
    present: Mapping[str, Collection[str]],
    documented: Mapping[str, Collection[str]],
) -> None:
    """Raise ConfigError when the warehouse has a format of which this release knows nothing."""
    unknown = set(present.get(FORMAT, ())) - set(documented[FORMAT])
    if unknown:
        raise ConfigError(
            f"{target.location}: a later release writes this warehouse ({FORMAT}"
            f" {', '.join(sorted(unknown))}), this one knows {', '.join(documented[FORMAT])};"
            " update this checkout"
        )


def has_tables(warehouse: Warehouse) -> bool:
    """Whether there is a warehouse; one of an earlier release gets the columns that it lacks."""
    if not warehouse.is_bootstrapped():
        return False
    bootstrap(warehouse)
    return True


def _bootstrap_once(target: Target) -> BuildResult:
    result, said = _invoke(target, {}, ["run-operation", "run_bootstrap"], quiet=True)
    if result.success:
        return BuildResult()
    message = str(result.exception or said or "failed; see dbt's log")
    error = TransformFailed(f"bootstrap: {_said(target, message)}")
    error.retryable = _may_pass(target, message)
    return BuildResult(error=error)


def merge_counts(
    warehouse: Warehouse, correlation_id: str, connection: Connection | None = None
) -> dict[str, Any]:
    """What the MERGE of a run did with rows of its connection (of all, for a job of none), by
    action, and as `rescued` what it did with those of others. Raises WarehouseError, also for a
    run of an earlier release, whose rows do not say that it inserted them.

    As macros/event_log/json_with_merge_counts.sql. What was inserted is told by inserted_by, which
    nothing changes: a row counts even when another run has touched or erased it since.
    """
    objects = warehouse.table("raw_objects")
    by_run, of = (correlation_id,), "source_system, connection_name"
    rows = warehouse.execute(
        "select source_system, connection_name, action, count(*) from ("
        f"select {of}, case when last_action <> 'inserted' then last_action end as action"
        f" from {objects}"
        " where merged_by = ? and (last_action <> 'inserted' or inserted_by is null)"
        f" union all select {of}, 'inserted' from {objects} where inserted_by = ?"
        f" union all select {of}, 'inserted' from {warehouse.table('erasures')}"
        " where inserted_by = ?) as touched group by 1, 2, 3",
        by_run * 3,
    )
    counts: dict[str, Any] = dict.fromkeys(MERGE_ACTIONS, 0)
    rescued: dict[str, int] = {}
    for *owner, action, count in rows:
        if action is None:
            raise WarehouseError(f"{correlation_id}: its rows do not say who inserted them")
        is_own = not (connection and connection[1]) or tuple(owner) == connection
        of_whom = counts if is_own else rescued
        of_whom[action] = of_whom.get(action, 0) + int(count)
    return counts | {"rescued": rescued}


def documented_columns() -> dict[str, dict[str, str]]:
    """Columns and data types, as the project's YAML says, of each table that jobs write."""
    tables: dict[str, dict[str, str]] = {}
    for path in sorted((PROJECT_DIR / "models").glob("*/_*.yml")):
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        for source in document.get("sources", []):
            for table in source["tables"]:
                tables[table["name"]] = _data_types(table)
        for model in document.get("models", []):
            if model["name"] == "raw_objects":
                tables["raw_objects"] = _data_types(model)
    return tables


def _data_types(node: Mapping[str, Any]) -> dict[str, str]:
    return {column["name"]: column["data_type"] for column in node["columns"]}


def _invoke(
    target: Target, run: Mapping[str, str], command: Sequence[str], *, quiet: bool
) -> tuple[Any, str | None]:
    """dbtRunner's result, and the last error that dbt logged: an operation's result has none."""
    from dbt.cli.main import dbtRunner

    errors: list[str] = []

    def remember(event: Any) -> None:
        if event.info.level == "error":
            errors.append(event.info.msg)

    arguments = [
        *(_QUIETLY if quiet else ()),
        *(() if _WRITE_JSON.intersection(command) else ("--no-write-json",)),
        "--log-path",
        str(_log_dir(target)),
        *command,
        "--project-dir",
        str(PROJECT_DIR),
        "--profiles-dir",
        str(target.profiles_dir),
        "--target",
        target.name,
        "--target-path",
        str(_target_path(target)),
    ]
    # Views that variables of a command line have shaped are not the project's.
    is_project_s = not any(each.startswith("--vars") for each in command)
    mark = {"LANDFALL_VIEWS": views_fingerprint()} if is_project_s else {}
    with _environment({**run, **mark}), _redacted_log():
        try:
            result = dbtRunner(callbacks=[remember]).invoke(arguments)
            return result, errors[-1] if errors else None
        finally:
            _release_file(target)


def _release_file(target: Target) -> None:
    """Close what dbt-duckdb keeps open until the process ends: it would lock others out."""
    if target.type == "duckdb":
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]


def _read_results(results: Sequence[Any], success: bool, target: Target) -> BuildResult:
    outcomes = {"passed": 0, "warned": 0, "failed": 0, "skipped": 0}
    failures, warnings = [], []
    merge: dict[str, Any] = {}
    merge_seconds = 0.0
    for result in results:
        status = str(result.status)
        if result.node.name == "raw_objects":
            said = result.adapter_response
            merge = {name: said[name] for name in _MERGE_STATISTICS if name in said}
            merge_seconds = round(result.execution_time, 3)
        if result.node.resource_type in ("test", "unit_test"):
            outcome = {
                "pass": "passed",
                "success": "passed",
                "warn": "warned",
                "skipped": "skipped",
            }
            outcomes[outcome.get(status, "failed")] += 1
        if status == "warn":
            warnings.append(result.node.name)
        if status in _FAILED:
            failures.append(result)
    error: LandfallError | None = None
    if failures:
        only_tests = all(str(failure.node.resource_type) == "test" for failure in failures)
        kind = CheckFailed if only_tests else TransformFailed
        first = failures[0]
        said = _said(target, first.message or str(first.status)) + _named_violations(target, first)
        error = kind(f"dbt build: {len(failures)} node(s) failed, first {first.node.name}: {said}")
        error.retryable = all(_may_pass(target, failure.message or "") for failure in failures)
    elif not success:
        error = TransformFailed("dbt build: failed without a failed node; see its log")
    return BuildResult(
        **outcomes,
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
        f" docs/faults.md says what to do; log: {_log_dir(target) / 'dbt.log'}"
    )


def _target_path(target: Target) -> Path:
    """Where dbt writes, below DBT_TARGET_PATH or the state directory: for each target apart, as
    dbt parses the project again when it changes."""
    return Path(os.environ.get("DBT_TARGET_PATH") or state_dir() / "target") / target.name


def _log_dir(target: Target) -> Path:
    return state_dir() / "logs" / target.key


def _may_pass(target: Target, message: str) -> bool:
    """Whether a node failed of what other jobs did, not of what it does."""
    if target.type != "bigquery":
        return False
    from loaders.bigquery import is_transient_message

    return is_transient_message(message)


def _said(target: Target, message: str) -> str:
    """What the warehouse said, without values, and what to do about it where that is known."""
    text = _without_values(message)
    if target.type != "bigquery":
        return with_next_step(text)
    from loaders import bigquery

    return bigquery.with_next_step(text)


def _without_values(message: str) -> str:
    """A warehouse quotes the values it chokes on; they stay out of every log. Of a file, whose
    path is quoted, too, it says where it is."""
    text = _PATH.sub(lambda found: f"{found[1]}{found[2][1:-1]}", redact(message))
    return re.sub(r"\"[^\"]*\"|'[^']*'", "'...'", text)


@contextlib.contextmanager
def _redacted_log() -> Iterator[None]:
    """What dbt prints and logs of a warehouse's errors shows neither content nor secrets.

    dbt takes every line through its scrubber of secret environment variables.
    """
    import dbt.events.logging
    import dbt_common.events.functions

    modules: tuple[Any, ...] = (dbt_common.events.functions, dbt.events.logging)
    scrub = modules[0].env_scrubber

    def redacted(text: str) -> str:
        return without_secrets(without_content(scrub(text)))

    for module in modules:
        module.env_scrubber = redacted
    try:
        yield
    finally:
        for module in modules:
            module.env_scrubber = scrub


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
