"""Erasing objects for good: their rows go, and a block against storing them again stays."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from loaders.errors import CheckFailed, UsageError, WarehouseError, describe
from loaders.ingestion.landing import Landing
from loaders.jobs.job import Job
from loaders.jobs.names import job_name_for
from loaders.objects.erasure_blocks import key_hash
from loaders.objects.idem_keys import idem_key, key_prefix, owner_key, owners, split, type_and_id
from loaders.transform import bootstrap, merge_counts
from loaders.upkeep.copying import discard_interrupted
from loaders.upkeep.where_clause import check_condition
from loaders.warehouse.base import Warehouse

TIMEOUT_SECONDS = 6 * 3600.0
TABLES = ("raw_objects", "landed_objects", "dead_letters")
_BLOCK = ("key_hash", "source_system", "connection_name", "object_type", "erased_at")
_ATTEMPTS = 3
"""On BigQuery a MERGE may commit between two statements: then what it brought goes too."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is to be erased of a connection; with neither what was erased before, once more."""

    source_system: str
    connection_name: str
    keys: Sequence[str] = ()
    """idem_keys, stored or not."""
    condition: str | None = None
    """SQL over the columns of raw_objects."""

    def check(self, warehouse: Warehouse) -> None:
        """Raise UsageError for a key of another connection or what is no condition."""
        source, connection = self.source_system, self.connection_name
        try:
            idem_key(source, connection, "any", "any")
        except ValueError as error:
            raise UsageError(f"erase: {error}") from error
        try:
            for key in self.keys:
                type_and_id(key, source, connection)
        except ValueError as error:
            raise UsageError(f"erase: --object: {error}") from error
        if self.condition is not None:
            columns = bootstrap.documented_columns()["raw_objects"]
            check_condition(self.condition, columns, warehouse.target.type, "erase: --where")


class Erasure:
    """One erasure, as a logged job that holds the lease of its connection.

    Parts go with their objects: attachments with their message, lines with their invoice.
    `counts` are the rows that went, by table, and the new blocks. `parts_alone`, which the preview
    finds, are types of parts of which some go while their owners stay, which may hold the same.
    """

    def __init__(
        self, warehouse: Warehouse, selection: Selection, reason: str | None = None
    ) -> None:
        """Raises UsageError when the selection does not fit, or cannot be counted."""
        selection.check(warehouse)
        source, connection = selection.source_system, selection.connection_name
        self.counts: dict[str, int] = {}
        self.parts_alone: list[str] = []
        self.job = Job(
            warehouse,
            job_name=job_name_for(source, connection, "erase"),
            source_system=source,
            connection_name=connection,
            # Neither the keys nor the condition: both may be personal.
            parameters={"objects": len(selection.keys), "where": selection.condition is not None},
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self._warehouse = warehouse
        self._selection = selection
        self._reason = reason
        self._connection = (source, connection)
        self._also_blocked = ""

    def preview(self) -> dict[str, int]:
        """How many rows of each table would go; nothing is written.

        Raises UsageError for a condition that the warehouse does not take.
        """
        self._also_blocked = self._selected()
        try:
            self.parts_alone = self._find_parts_alone()
            return self._delete(only_count=True)
        except WarehouseError as error:
            if self._selection.condition is None:
                raise
            raise UsageError(f"erase: --where: {describe(error)}") from error
        finally:
            self._also_blocked = ""

    def run(self) -> None:
        """Block, delete, make sure, log. Raises UsageError when landed objects are not merged yet
        that a condition cannot see, CheckFailed, LandingError, WarehouseError."""
        self.job.start()
        try:
            self.job.step = "land"
            self._load_pending()
            with self._warehouse.open():
                self.job.step = "merge"
                self._block()
                discard_interrupted(self._warehouse)
                self._delete_all()
                self.counts["blocks"] = self._count(
                    "erasures", "correlation_id = ?", (self.job.correlation_id,)
                )
            self.job.step = "end"
            self.job.complete({**merge_counts.of_no_build(), "erased": self.counts})
        except BaseException as error:
            self.job.fail(error)
            raise

    def _load_pending(self) -> None:
        """What an earlier run left on disk lands now, and is erased with the rest."""
        source_system, connection_name = self._connection
        landing = Landing(
            self._warehouse,
            source_system=source_system,
            connection_name=connection_name,
            correlation_id=self.job.correlation_id,
            idem_key_of=lambda item, payload: "",  # nothing is observed
        )
        with contextlib.closing(landing):
            landing.load_pending()

    # ---- blocks

    def _block(self) -> None:
        for key in self._selection.keys:
            object_type, _ = type_and_id(key, *self._connection)
            block = (key_hash(key), object_type)
            self._insert_blocks("select ? as key_hash, ? as object_type", block)
        if self._selection.condition is not None:
            self._check_drained()
            self._insert_blocks(self._hashes("raw_objects", self._matching()), self._connection)

    def _block_parts(self) -> None:
        for object_type, owner_prefix in self._part_types():
            for table in ("raw_objects", "landed_objects"):
                self._insert_blocks(
                    self._hashes(
                        table,
                        f"{_OF_CONNECTION} and object_type = ? and {self._owner_is_blocked()}",
                    ),
                    (*self._connection, object_type, owner_prefix),
                )

    def _note_inserted_by(self) -> None:
        """So that what a run has inserted stays accounted for when the rows go."""
        erasures, hashed = self._table("erasures"), self._warehouse.sha256("idem_key")
        self._warehouse.execute(
            f"update {erasures} as blocks set inserted_by = stored.inserted_by"
            f" from (select {hashed} as stored_hash, inserted_by from {self._table('raw_objects')}"
            f" where {_OF_CONNECTION} and inserted_by is not null) as stored"
            " where blocks.key_hash = stored.stored_hash and blocks.inserted_by is null",
            self._connection,
        )

    def _insert_blocks(self, objects: str, parameters: Sequence[Any]) -> None:
        """Set blocks for what a query gives (key_hash, object_type), each once."""
        columns, values, own = [*_BLOCK, "correlation_id"], "?", [self.job.correlation_id]
        if self._reason is not None:
            columns.append("reason")
            values += ", ?"
            own.append(self._reason)
        self._warehouse.execute(
            f"insert into {self._table('erasures')} ({', '.join(columns)})"
            f" select key_hash, ?, ?, object_type, current_timestamp, {values}"
            f" from (select distinct key_hash, object_type from ({objects}) as chosen) as objects"
            f" where key_hash not in ({self._blocked()})",
            (*self._connection, *own, *parameters),
        )

    def _hashes(self, table: str, condition: str) -> str:
        hashed = self._warehouse.sha256("idem_key")
        return (
            f"select {hashed} as key_hash, object_type from {self._table(table)} where {condition}"
        )

    def _matching(self) -> str:
        """Predicate of the rows that the condition names; a line of its own, that ends it."""
        return f"{_OF_CONNECTION} and (\n{self._selection.condition}\n)"

    def _selected(self) -> str:
        """What the selection would add to the hashes of the blocks, without a parameter."""
        selected = "".join(f" union all select '{key_hash(key)}'" for key in self._selection.keys)
        if self._selection.condition is not None:
            hashes = f"select {self._warehouse.sha256('idem_key')} from"
            named = self._matching()
            for name in self._connection:  # checked: letters, digits, _ - and .
                named = named.replace("?", f"'{name}'", 1)
            selected += f" union all {hashes} {self._table('raw_objects')} where {named}"
        return selected

    def _check_drained(self) -> None:
        queued = self._count(
            "landed_objects", f"{_OF_CONNECTION} and {self._warehouse.is_complete()}"
        )
        if queued:
            raise UsageError(
                f"erase: --where: {queued} landed object(s) of connection"
                f" '{self._connection[1]}' are not merged yet, so no condition can see them;"
                ' run "run.py build" first'
            )

    # ---- rows

    def _delete_all(self) -> None:
        for _ in range(_ATTEMPTS):
            self._block_parts()
            self._note_inserted_by()
            for table, count in self._delete().items():
                self.counts[table] = self.counts.get(table, 0) + count
            left = sum(
                self._count(*blocked)
                for blocked in self._blocked_rows()
                if blocked[0] == "raw_objects"
            )
            if not left:
                return
        raise CheckFailed(
            f"erase: raw_objects still holds {left} erased object(s), which another job has written"
            " meanwhile; run.py erase --again"
        )

    def _delete(self, *, only_count: bool = False) -> dict[str, int]:
        """Delete what is blocked, or only count it: rows by table."""
        counts = dict.fromkeys(TABLES, 0)
        for table, condition, parameters in self._blocked_rows():
            count = self._count(table, condition, parameters)
            counts[table] += count
            if count and not only_count:
                self._warehouse.execute(
                    f"delete from {self._table(table)} where {condition}", parameters
                )
        return counts

    def _blocked_rows(self) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
        """(table, condition, parameters) of rows that are blocked, each row once."""
        owner_is_blocked, parts = self._owner_is_blocked(), dict(self._part_types())
        for table in ("landed_objects", "raw_objects"):
            yield table, f"{_OF_CONNECTION} and {self._is_blocked()}", self._connection
            condition = (
                f"{_OF_CONNECTION} and object_type = ? and {owner_is_blocked}"
                f" and not {self._is_blocked()}"
            )
            for object_type, prefix in parts.items():
                yield table, condition, (*self._connection, object_type, prefix)
        # By type: a letter has an id and no key.
        types = self._warehouse.execute(
            f"select distinct object_type from {self._table('dead_letters')}"
            f" where {_OF_CONNECTION} and external_id is not null",
            self._connection,
        )
        of_type = f"{_OF_CONNECTION} and object_type = ? and external_id is not null"
        own = self._warehouse.sha256("concat(?, external_id)")
        is_blocked = f"({own} in ({self._blocked()}))"
        for (object_type,) in types:
            parameters = (*self._connection, object_type, self._prefix(object_type))
            yield "dead_letters", f"{of_type} and {is_blocked}", parameters
            if object_type in parts:
                yield (
                    "dead_letters",
                    f"{of_type} and not {is_blocked} and {owner_is_blocked}",
                    (*parameters, parts[object_type]),
                )

    def _find_parts_alone(self) -> list[str]:
        named = {
            type_and_id(key, *self._connection)[0]
            for key in self._selection.keys
            if (owner := owner_key(*split(key))) and owner not in self._selection.keys
        }
        alone = (
            f"{_OF_CONNECTION} and object_type = ? and {self._is_blocked()}"
            f" and not {self._owner_is_blocked()}"
        )
        return [
            object_type
            for object_type, prefix in self._part_types()
            if object_type in named
            or self._count("raw_objects", alone, (*self._connection, object_type, prefix))
        ]

    # ---- SQL

    def _count(self, table: str, condition: str, parameters: Sequence[Any] | None = None) -> int:
        rows = self._warehouse.execute(
            f"select count(*) from {self._table(table)} where {condition}",
            self._connection if parameters is None else parameters,
        )
        return int(rows[0][0])

    def _table(self, name: str) -> str:
        if name in ("landed_objects", "dead_letters"):
            return self._warehouse.staging_table(name)
        return self._warehouse.table(name)

    def _blocked(self) -> str:
        return f"select key_hash from {self._table('erasures')}{self._also_blocked}"

    def _is_blocked(self) -> str:
        return f"({self._warehouse.sha256('idem_key')} in ({self._blocked()}))"

    def _owner_is_blocked(self) -> str:
        """Of a part (`owner:part`); the parameter is the prefix of its owner's keys."""
        owner = "concat(?, substr(external_id, 1, greatest(strpos(external_id, ':') - 1, 0)))"
        return f"({self._warehouse.sha256(owner)} in ({self._blocked()}))"

    def _part_types(self) -> list[tuple[str, str]]:
        """Types of parts, and the prefix of their owners' keys."""
        found = owners(self._connection[0]).items()
        return [(part, self._prefix(owner)) for part, owner in found]

    def _prefix(self, object_type: str) -> str:
        return key_prefix(*self._connection, object_type)


_OF_CONNECTION = "source_system = ? and connection_name = ?"
