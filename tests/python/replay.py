"""What `dbt build` sends for raw_objects and the acceptance tests, recorded once and sent again.

dbt needs a second to send what DuckDB does in milliseconds, and most tests of a sync are about
what it brings, not about who sends the MERGE. Recording takes a real build; where a replayed
statement fails or an acceptance test finds something, dbt itself builds, and says what is wrong.
Its own way is proved by test_merge, test_hooks, test_acceptance, cli and on the emulator.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from loaders.errors import LandfallError
from loaders.settings.places import PROJECT_DIR
from loaders.settings.target import Target
from loaders.transform.dbt_build import BuildResult
from loaders.transform.invocation import release_file
from loaders.transform.merge_counts import Connection, no_tests
from loaders.transform.merge_scope import MergeScope
from loaders.warehouse.opening import open_warehouse

from . import held_file

if TYPE_CHECKING:
    from .conftest import Project

_RUN, _SOURCE, _NAME = "recorded-run", "recordedsource", "recordedname"
_QUEUE, _MODEL, _SEED = "stg_landed_objects", "raw_objects", "accepted_violations"
_MERGE = ("--select", _QUEUE, _MODEL, "--exclude-resource-type", "test", "unit_test")
_CORE = ("--select", _QUEUE, _MODEL, _SEED, "test_type:singular")
# A name that needs no escaping within SQL within JSON.
_PLAIN = re.compile(r"[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Statements:
    """Of one build, in the order sent."""

    queue: tuple[str, ...]
    """That make the view over the queue, which stays."""
    seed: tuple[str, ...]
    """That make the seed of accepted violations, which stays."""
    merge: tuple[str, ...]
    tests: Mapping[str, str]
    """By name: a query whose first value is the number of violations."""

    def of_run(self, correlation_id: str, connection: Connection | None) -> Statements:
        """With a run's name and connection in the place of the recorded ones."""
        names = {_RUN: correlation_id}
        if connection is not None:
            names |= {_SOURCE: connection[0], _NAME: str(connection[1])}
        recorded = re.compile("|".join(names))

        def renamed(statement: str) -> str:
            return recorded.sub(lambda name: names[name[0]], statement)

        return dataclasses.replace(
            self,
            merge=tuple(map(renamed, self.merge)),
            tests={name: renamed(query) for name, query in self.tests.items()},
        )


Recorded = Mapping[bool, Statements]
"""Of a build for the run of a connection (True), and of one for a job of none."""


def recorded(project: Project, bootstrapped: Path) -> Recorded:
    """The statements of real builds, on a warehouse with every table."""
    shutil.copy(bootstrapped, project.duckdb_path)
    with duckdb.connect(str(project.duckdb_path)) as connection:
        # Where something was erased, a MERGE takes it from the dead letters, too.
        connection.execute(
            "insert into events.erasures (key_hash, source_system, connection_name, object_type,"
            " erased_at, correlation_id) values ('0', 'acme', 'acct1', 'widget', now(), 'any')"
        )
    first = _record(project, f"{_SOURCE}:{_NAME}")
    again = _record(project, "")
    return {True: first, False: dataclasses.replace(again, queue=first.queue, seed=first.seed)}


def _record(project: Project, connection: str) -> Statements:
    from dbt.cli.main import dbtRunner

    sent: list[tuple[str, str]] = []

    def remember(event: Any) -> None:
        if event.info.name == "SQLQuery":
            statement = re.sub(r"/\*.*?\*/", "", event.data.sql, flags=re.DOTALL).strip()
            sent.append((event.data.node_info.node_name, statement))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LANDFALL_CORRELATION_ID", _RUN)
        monkeypatch.setenv("LANDFALL_CONNECTION", connection)
        logs, target = project.state_dir / "logs", PROJECT_DIR / "target" / project.target
        result = dbtRunner(callbacks=[remember]).invoke(
            [
                *("--quiet", "--log-path", str(logs), "build", *_CORE),
                *("--exclude-resource-type", "unit_test", "--project-dir", str(PROJECT_DIR)),
                *("--target-path", str(target), "--target", project.target),
            ]
        )
    release_file()
    assert result.success, result.exception
    nodes: Any = result.result
    tests = {each.node.name for each in nodes if each.node.resource_type == "test"}

    def changing(node: str) -> tuple[str, ...]:
        """What is sent for a node, questions apart."""
        return tuple(
            statement
            for name, statement in sent
            if name == node and not statement.lower().startswith("select")
        )

    counts = {name: sql for name, sql in sent if name in tests and "as failures" in sql}
    merge = changing(_MODEL)
    assert len(counts) == len(tests) > 10
    assert sum("merge into" in statement for statement in merge) == 1
    assert sum(statement.startswith("delete from") for statement in merge) == 4
    return Statements(changing(_QUEUE), changing(_SEED), merge, counts)


def build(
    recorded: Recorded, dbt_build: Callable[..., BuildResult], *, with_tests: bool
) -> Callable[..., BuildResult]:
    """What stands in for transform.build: the recorded statements on DuckDB, else dbt, as where
    nothing is recorded."""

    def replay(
        target: Target,
        correlation_id: str,
        arguments: Sequence[str] = (),
        *,
        connection: Connection | None = None,
        is_full: bool = True,
        quiet: bool = True,
        scope: MergeScope | None = None,
    ) -> BuildResult:
        # All tests, also where the run would do with those of what it has touched.
        names = [correlation_id, *map(str, connection or ())]
        if "--select" in arguments and is_full:  # not a run's: views that somebody asks for
            held_file.let_go()
            return dbt_build(target, correlation_id, arguments, connection=connection, quiet=quiet)
        if recorded and target.type == "duckdb" and all(map(_PLAIN.fullmatch, names)):
            statements = recorded[connection is not None].of_run(correlation_id, connection)
            began = time.monotonic()
            passed = _send(target, statements, with_tests=with_tests)
            if passed is not None:
                seconds = round(time.monotonic() - began, 3)
                return BuildResult(
                    {**no_tests(), "passed": passed}, merge_seconds=seconds, seconds=seconds
                )
        held_file.let_go()
        others = () if "--select" in arguments else arguments
        selection = (*others, *(_CORE if with_tests else _MERGE))
        options: dict[str, Any] = {"connection": connection, "quiet": quiet, "scope": scope}
        return dbt_build(target, correlation_id, selection, **options)

    return replay


def _send(target: Target, statements: Statements, *, with_tests: bool) -> int | None:
    """How many tests passed; None where dbt has to say what is wrong."""
    try:
        with open_warehouse(target).open(), duckdb.connect(str(target.path)) as connection:
            tables = "select table_name from information_schema.tables"
            present = {name for (name,) in connection.execute(tables).fetchall()}
            once = {_QUEUE: statements.queue} | ({_SEED: statements.seed} if with_tests else {})
            missing = (made for name, made in once.items() if name not in present)
            for statement in (*(each for made in missing for each in made), *statements.merge):
                connection.execute(statement)
            if not with_tests:
                return 0
            return None if any(violations(connection, statements)) else len(statements.tests)
    except (duckdb.Error, LandfallError):
        return None


def violations(connection: duckdb.DuckDBPyConnection, statements: Statements) -> Iterator[str]:
    """The names of the acceptance tests that find something."""
    for name, query in statements.tests.items():
        [[found, *_]] = connection.execute(query).fetchall()
        if found:
            yield name
