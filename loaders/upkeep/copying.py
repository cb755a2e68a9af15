"""Moving a warehouse to another dbt target without reading the sources again.

Rows travel in load packages. Those of raw_objects and event_log go into a temporary table
first, their JSON as text: BigQuery loads no JSON from Parquet. One INSERT takes them over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from loaders.errors import CheckFailed, ConfigError, LandingError, UsageError, WarehouseBusy
from loaders.ingestion.arrow_tables import Row, arrow_table
from loaders.ingestion.packages import drop_pending, load_package, open_pipeline, reason_of
from loaders.jobs import crashpoints
from loaders.jobs.job import Job
from loaders.jobs.runs import OpenRun, open_runs
from loaders.objects.erasure_blocks import Erased
from loaders.objects.idem_keys import split
from loaders.settings.places import PACKAGE_NAME, state_dir
from loaders.settings.target import Target
from loaders.transform import bootstrap, merge_counts
from loaders.upkeep import copy_tables as sql
from loaders.upkeep.copy_compare import Comparison, compare, matched, sorted_rows
from loaders.upkeep.copy_tables import TABLES, CopiedTable
from loaders.warehouse.base import Warehouse
from loaders.warehouse.id_tables import SpilledTables

PACKAGE_ROWS = 20_000
PACKAGE_BYTES = 64 * 1024 * 1024
"""Text in a load package, at most (but always one row)."""
RANGE_KEYS = 50_000
"""Missing keys held at a time: the rows between the first and the last are one query."""
TIMEOUT_SECONDS = 6 * 3600.0
_DELETED_AT_ONCE = 2_000

_ARROW_TYPES = {
    "string": pa.string(),
    "json": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "integer": pa.int64(),
}


@dataclasses.dataclass
class TableCopy:
    """What became of one table."""

    table: str
    rows: int = 0
    already_there: int = 0
    copied: int = 0
    is_verified: bool = False
    fingerprint: str = ""


class WarehouseCopy:
    """One copy of a warehouse into another, as a logged job of the target.

    `results` holds a TableCopy for each table that was begun.

    Raises UsageError when both are the same database, ConfigError when the source is no
    warehouse of this version.
    """

    def __init__(self, source: Warehouse, target: Warehouse) -> None:
        _check_places(source, target)
        self._documented = bootstrap.documented_columns()
        _check_columns(source, self._documented)
        self.results: list[TableCopy] = []
        self._erased = Erased()
        self._erased_letters: set[str] = set()
        self._verifications: set[str] = set()
        self.job = Job(
            target,
            job_name="copy",
            source_system=PACKAGE_NAME,
            parameters={"from": source.target.name, "to": target.target.name},
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self._source, self._target = source, target
        source.labels = target.labels

    def run(self) -> None:
        """Copy what the target lacks, compare, log; what a killed copy has brought is kept.

        Raises UsageError when the source has a queue, WarehouseBusy when a run is open on
        either side, CheckFailed when the target holds something else under a source's key,
        LandingError, WarehouseError.
        """
        self.job.start()
        try:
            with self._source.open(), self._target.open():
                self._check_at_rest()
                for table in TABLES:
                    self._copy(table)
                self.job.step = "end"
                self.job.complete(self._telemetry())
        except BaseException as error:
            self.job.fail(error)
            raise

    def _check_at_rest(self) -> None:
        _check_drained(self._source)
        # Their events come with a later copy, when they have ended: here nobody would end them.
        self._verifications = _check_no_open_run(self._source, self._target.target.name, None)
        # What a run merges while it is copied could be inserted twice.
        _check_no_open_run(self._target, self._target.target.name, self.job.correlation_id)

    def _copy(self, table: CopiedTable) -> None:
        result = TableCopy(table.name)
        self.results.append(result)
        self.job.step = "land"
        if not table.is_landing:
            self._create_temporary(table)
            self._delete_erased(table)
        # Closed at once when a package fails: a stream holds its warehouse open.
        with contextlib.closing(self._missing_rows(table, result)) as rows:
            self._land(table, rows)
        if not table.is_landing:
            self.job.step = "merge"
            crashpoints.reached("merge.before")
            self._insert(table)
            crashpoints.reached("merge.after")
            self._target.execute(f"drop table if exists {sql.temporary(self._target, table)}")
        if table.name == "erasures":
            self._read_erased()
        result.copied = result.rows - result.already_there
        self.job.step = "check"
        self._verify(table, result)

    def _missing_rows(self, table: CopiedTable, result: TableCopy) -> Generator[Row, None, None]:
        documented = self._documented_of(table)
        key = [(name, _ARROW_TYPES[documented[name]]) for name in table.key]
        # Read to its end first: a stream that is open keeps DuckDB from a checkpoint.
        with SpilledTables({"missing": key}) as spilled:
            spilled.add("missing", self._missing_keys(table, result))
            missing = spilled.connection.execute("from missing order by all")
            while keys := missing.fetchmany(RANGE_KEYS):
                yield from self._rows_of(table, keys)

    def _read_erased(self) -> None:
        """What was erased on either side: the source's blocks are in the target by now."""
        blocks = self._target.stream(f"select key_hash from {self._target.table('erasures')}")
        erased = self._erased = Erased(text for (text,) in blocks)
        letters = self._source.stream(
            "select dead_letter_id, source_system, connection_name, object_type, external_id"
            f" from {self._source.staging_table('dead_letters')} where external_id is not null"
        )
        if erased:
            self._erased_letters = {letter_id for letter_id, *of in letters if erased.covers(*of)}

    def _is_erased(self, table: CopiedTable, row: Row) -> bool:
        if table.name == "raw_objects":
            return self._erased.covers(*split(row[0]))
        return table.name == "dead_letters" and row[0] in self._erased_letters

    def _delete_erased(self, table: CopiedTable) -> None:
        """Of the rows that a killed copy left to wait, delete what was erased since."""
        if not self._erased or table.name != "raw_objects":
            return
        [key], temporary = table.key, sql.temporary(self._target, table)
        waiting = self._target.stream(f"select {key} from {temporary}")
        erased = [row[0] for row in waiting if self._is_erased(table, row)]
        for start in range(0, len(erased), _DELETED_AT_ONCE):
            some = erased[start : start + _DELETED_AT_ONCE]
            self._target.execute(
                f"delete from {temporary} where {key} in ({', '.join('?' * len(some))})", some
            )

    def _source_rows(self, table: CopiedTable, columns: Sequence[str] = ()) -> Iterator[Row]:
        """The source's keys, and columns of them, in order; without what is not copied."""
        is_log = table.name == "event_log"
        rows = sorted_rows(
            self._source,
            sql.keyed(self._source, table),
            table.key,
            [*columns, "correlation_id"] if is_log else columns,
        )
        for row in rows:
            if is_log and row[-1] not in self._verifications:
                yield row[:-1]
            elif not is_log and not self._is_erased(table, row):
                yield row

    def _missing_keys(self, table: CopiedTable, result: TableCopy) -> Iterator[Row]:
        """Keys that are neither stored in the target nor wait in its temporary table."""
        width = len(table.key)
        source = self._source_rows(table)
        held = sorted_rows(self._target, sql.held(self._target, table), table.key, ["is_stored"])
        for key, found in matched(source, held, width):
            result.rows += 1
            result.already_there += any(is_stored for *_, is_stored in found)
            if not found:
                yield key

    def _rows_of(self, table: CopiedTable, keys: Sequence[Row]) -> Iterator[Row]:
        """The rows of these ascending keys, each once, in whatever order."""
        columns = self._documented_of(table)
        in_key = [list(columns).index(name) for name in table.key]
        wanted = set(keys)
        for row in self._source.stream(
            f"select {sql.as_text(self._source, columns)} from {sql.readable(self._source, table)}"
            f" where {table.key[0]} between ? and ?",
            (keys[0][0], keys[-1][0]),
        ):
            key = tuple(row[index] for index in in_key)
            if key in wanted:
                wanted.remove(key)
                yield row

    def _land(self, table: CopiedTable, rows: Iterable[Row]) -> None:
        """Land rows, package by package.

        Raises LandingError. A package that a killed copy left is dropped: its rows count as
        missing as long as it is not complete.
        """
        pipeline = _open_pipeline(self._target)
        if pipeline.has_pending_data:
            drop_pending(pipeline)
        schema = _arrow_schema(self._documented_of(table))
        name = table.name if table.is_landing else sql.temporary_name(table)
        for package in _packages(rows):
            try:
                load_package(pipeline, {name: arrow_table(package, schema)})
            except Exception as error:
                raise LandingError(
                    f"copy: {table.name}: a package does not load into target"
                    f" '{self._target.target.name}': {reason_of(self._target, error)}; run the"
                    " same command again, what is there is kept"
                ) from error
            self._target.checkpoint()

    def _create_temporary(self, table: CopiedTable) -> None:
        """By SQL: dlt, which remembers what it created, would not create it again."""
        columns = sql.as_text(self._target, self._documented_of(table))
        self._target.execute(
            f"create table if not exists {sql.temporary(self._target, table)} as"
            f" select {columns}, cast('' as string) as _dlt_load_id"
            f" from {sql.stored(self._target, table)} where 1 = 0"
        )

    def _insert(self, table: CopiedTable) -> None:
        columns = self._documented_of(table)
        [key] = table.key
        values = (
            self._target.json_parsed(name) if data_type == "json" else name
            for name, data_type in columns.items()
        )
        stored, temporary = sql.stored(self._target, table), sql.temporary(self._target, table)
        insert = (
            f"insert into {stored} ({', '.join(columns)})"
            f" select {', '.join(values)} from {temporary} as copied"
            f" where {self._target.is_complete()}"
            f" and not exists (select 1 from {stored} as stored where stored.{key} = copied.{key})"
        )
        if self._target.largest_json is None:
            self._target.execute(insert)
            return
        # A statement may bring no more than a package holds into DuckDB's memory.
        for load in self._target.execute(f"select distinct _dlt_load_id from {temporary}"):
            self._target.execute(f"{insert} and _dlt_load_id = ?", load)
            self._target.checkpoint()
        if "payload" in columns:
            self._say_if_large(stored)

    def _say_if_large(self, stored: str) -> None:
        """Say what a MERGE in slices says of a DuckDB store: see macros/merge/set_vacuum.sql."""
        [(is_large,)] = self._target.execute(
            "select max(held) > parse_formatted_bytes(current_setting('memory_limit')) / 4 from"
            f" (select sum(strlen(payload)) as held from {stored} group by rowid // 2048)"
        )
        if is_large:
            queue = self._target.staging_table("landed_objects")
            self._target.execute(f"comment on table {queue} is 'large payloads'")

    def _verify(self, table: CopiedTable, result: TableCopy) -> None:
        """Raises CheckFailed when the target does not hold the source's rows."""
        columns = (*table.compared, *table.groups)
        source = self._source_rows(table, columns)
        target = sorted_rows(self._target, sql.keyed(self._target, table), table.key, columns)
        grouped_from = len(table.key) + len(table.compared) if table.groups else None
        comparison = compare(source, target, len(table.key), grouped_from)
        if not comparison.is_equal:
            raise CheckFailed(self._mismatch(table, comparison))
        result.is_verified = True
        result.fingerprint = comparison.source.fingerprint

    def _mismatch(self, table: CopiedTable, comparison: Comparison) -> str:
        return (
            f"copy: {table.name}: source '{self._source.target.name}' holds"
            f" {comparison.source.rows} rows, target '{self._target.target.name}'"
            f" {comparison.target.rows} of them ({comparison.missing} missing,"
            f" {comparison.differing} different{_groups(comparison)}); a copy changes no row that"
            " is there: different ones have moved on in one of the two, copy into a target"
            " without them"
        )

    def _documented_of(self, table: CopiedTable) -> dict[str, str]:
        columns = dict(self._documented[table.name])
        columns.pop("_dlt_load_id", None)
        return columns

    def _telemetry(self) -> dict[str, Any]:
        objects = next(result for result in self.results if result.table == "raw_objects")
        return {
            **merge_counts.of_no_build(),
            "inserted": objects.copied,
            "unchanged": objects.already_there,
            "copied": {
                result.table: {
                    "rows": result.rows,
                    "copied": result.copied,
                    "fingerprint": result.fingerprint,
                }
                for result in self.results
            },
        }


def discard_interrupted(target: Warehouse) -> None:
    """Drop what a killed copy into a warehouse left to wait, on this machine's disk too.

    The next copy reads it again. Raises WarehouseError.
    """
    if _directory(target).exists():
        drop_pending(_open_pipeline(target))
    for table in TABLES:
        if not table.is_landing:
            target.execute(f"drop table if exists {sql.temporary(target, table)}")


def _directory(target: Warehouse) -> Path:
    return state_dir() / "pipelines" / target.target.key / "landfall-copy"


def _open_pipeline(target: Warehouse) -> Any:
    return open_pipeline(target, "landfall_copy", _directory(target))


def _check_places(source: Warehouse, target: Warehouse) -> None:
    if _place(source.target) == _place(target.target):
        raise UsageError(
            f"copy: --from {source.target.name} and --to {target.target.name} are the same"
            f" database, {target.target.location}; expected two; choose another target of"
            " profiles.yml"
        )


def _place(target: Target) -> tuple[str, ...]:
    if target.type == "duckdb":
        return ("duckdb", str(Path(target.path).resolve()), target.schema.lower())
    return ("bigquery", target.location, str(target.settings.get("api_endpoint")))


def _check_columns(source: Warehouse, documented: Mapping[str, Mapping[str, str]]) -> None:
    present = source.columns() if source.is_bootstrapped() else {}
    bootstrap.check_format(source.target, present, documented)
    lacking = [
        table
        for table, names in documented.items()
        if not names.keys() <= present.get(table, set())
    ]
    if lacking:
        raise ConfigError(
            f"copy: --from {source.target.name}: {source.target.location} lacks tables or columns"
            f" of this version ({', '.join(lacking)}); expected a warehouse with data; check the"
            f' name, or run "run.py build --target {source.target.name}" first'
        )


def _check_drained(source: Warehouse) -> None:
    [(queued,)] = source.execute(
        f"select count(*) from {source.staging_table('landed_objects')}"
        f" where {source.is_complete()}"
    )
    if queued:
        raise UsageError(
            f"copy: --from {source.target.name}: {queued} landed object(s) are not merged yet,"
            f' expected an empty queue; run "run.py build --target {source.target.name}" first'
        )


def _check_no_open_run(warehouse: Warehouse, into: str, own: str | None) -> set[str]:
    """Raise WarehouseBusy when a run is open; the ids of those that are and write no data."""
    now = dt.datetime.now(dt.UTC)
    running = [
        run
        for run in open_runs(warehouse, now)
        if run.correlation_id != own and not run.is_orphaned(now)
    ]
    for run in running:
        if run.takes_lease:
            raise WarehouseBusy(_running(run, warehouse.target.name, into))
    return {run.correlation_id for run in running}


def _running(run: OpenRun, target: str, into: str) -> str:
    return (
        f"copy: target '{target}' is being written by {run.correlation_id} since"
        f" {run.started_at:%H:%M:%S} UTC, expected no open run; wait for its end and copy into"
        f" '{into}' again"
    )


def _arrow_schema(columns: Mapping[str, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, _ARROW_TYPES[data_type]) for name, data_type in columns.items()]
    )


def _packages(rows: Iterable[Row]) -> Iterator[list[Row]]:
    package: list[Row] = []
    size = 0
    for row in rows:
        package.append(row)
        size += sum(len(value) for value in row if isinstance(value, str))
        if len(package) >= PACKAGE_ROWS or size >= PACKAGE_BYTES:
            yield package
            package, size = [], 0
    if package:
        yield package


def _groups(comparison: Comparison) -> str:
    """The first group that the two sides count differently."""
    source, target = comparison.source.groups, comparison.target.groups
    for group in sorted(source.keys() | target.keys()):
        if source[group] != target[group]:
            return f"; {'/'.join(group)}: {source[group]} and {target[group]}"
    return ""
