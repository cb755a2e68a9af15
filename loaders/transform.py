"""MERGE and CHECK: `dbt build` in this process, for a run that already has its log."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from loaders.config import PROJECT_DIR, Target, state_dir
from loaders.errors import CheckFailed, LandfallError, TransformFailed, describe
from loaders.warehouse import Warehouse

MERGE_ACTIONS = ("inserted", "updated", "unchanged", "deleted", "undeleted", "stale")

# An ingestion needs neither dbt's artifacts nor its debug log, which cost a second a run.
_QUIETLY = ("--quiet", "--no-write-json", "--log-level-file", "info")
_FAILED = {"error", "fail", "runtime error", "partial success"}


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What a dbt command did: test outcomes, the names of failed nodes, its failure."""

    passed: int = 0
    warned: int = 0
    failed: int = 0
    warnings: tuple[str, ...] = ()
    error: LandfallError | None = None

    @property
    def tests(self) -> dict[str, int]:
        """Test counts as job.completed carries them."""
        return {"passed": self.passed, "warned": self.warned, "failed": self.failed}


def build(
    target: Target, correlation_id: str, arguments: Sequence[str] = (), *, quiet: bool = True
) -> BuildResult:
    """Run `dbt build` under a wrapped job's correlation_id.

    Unit tests are left to CI: they need no data. A failure is returned, not raised, as
    the counts are wanted all the same. Source: dbt docs, Programmatic invocations.
    """
    selection = [*arguments]
    if "--exclude-resource-type" not in selection:
        selection += ["--exclude-resource-type", "unit_test"]
    result = _invoke(target, correlation_id, ["build", *selection], quiet=quiet)
    if result.exception is not None:
        error = TransformFailed(f"dbt build: {describe(result.exception)}")
        return BuildResult(error=error)
    return _read_results(result.result.results, result.success)


def bootstrap(warehouse: Warehouse) -> None:
    """Create the tables and columns that the documented ones have and the warehouse lacks.

    Raises TransformFailed when dbt cannot.
    """
    present = warehouse.columns()
    documented = _documented_columns()
    if all(columns <= present.get(table, set()) for table, columns in documented.items()):
        return
    result = _invoke(warehouse.target, "", ["run-operation", "run_bootstrap"], quiet=True)
    if not result.success:
        cause = result.exception or RuntimeError("; see its log")
        raise TransformFailed(f"bootstrap: {describe(cause)}")


def merge_counts(warehouse: Warehouse, correlation_id: str) -> dict[str, int]:
    """What the MERGE of a run did, by action, read from the rows it touched."""
    counts = dict.fromkeys(MERGE_ACTIONS, 0)
    rows = warehouse.execute(
        f"select last_action, count(*) from {warehouse.table('raw_objects')}"
        " where merged_by = ? group by last_action",
        (correlation_id,),
    )
    return counts | {action: int(count) for action, count in rows}


def _documented_columns() -> dict[str, set[str]]:
    tables: dict[str, set[str]] = {}
    for path in sorted((PROJECT_DIR / "models").glob("*/_*.yml")):
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        for source in document.get("sources", []):
            for table in source["tables"]:
                tables[table["name"]] = {column["name"] for column in table["columns"]}
        for model in document.get("models", []):
            if model["name"] == "raw_objects":
                tables["raw_objects"] = {column["name"] for column in model["columns"]}
    return tables


def _invoke(target: Target, correlation_id: str, command: Sequence[str], *, quiet: bool) -> Any:
    from dbt.cli.main import dbtRunner

    arguments = [
        *(_QUIETLY if quiet else ()),
        "--log-path",
        str(state_dir() / "logs" / target.key),
        *command,
        "--project-dir",
        str(PROJECT_DIR),
        "--profiles-dir",
        str(target.profiles_dir),
        "--target",
        target.name,
        # One a target: dbt parses again when it changes.
        "--target-path",
        str(PROJECT_DIR / "target" / target.name),
    ]
    with _environment(LANDFALL_CORRELATION_ID=correlation_id):
        try:
            return dbtRunner().invoke(arguments)
        finally:
            _release_file(target)


def _release_file(target: Target) -> None:
    """Close what dbt-duckdb keeps open until the process ends: it would lock others out."""
    if target.type == "duckdb":
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]


def _read_results(results: Sequence[Any], success: bool) -> BuildResult:
    outcomes = {"passed": 0, "warned": 0, "failed": 0}
    failures, warnings = [], []
    for result in results:
        status = str(result.status)
        if result.node.resource_type in ("test", "unit_test"):
            outcome = {"pass": "passed", "success": "passed", "warn": "warned"}
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
        error = kind(
            f"dbt build: {len(failures)} node(s) failed, first {first.node.name}:"
            f" {_without_values(first.message or str(first.status))}"
        )
    elif not success:
        error = TransformFailed("dbt build: failed without a failed node; see its log")
    return BuildResult(**outcomes, warnings=tuple(warnings), error=error)


def _without_values(message: str) -> str:
    """A warehouse quotes the values it chokes on; they stay out of every log."""
    return re.sub(r"\"[^\"]*\"|'[^']*'", "'...'", describe(RuntimeError(message))).removeprefix(
        "RuntimeError: "
    )


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
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
