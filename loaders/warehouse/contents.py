"""What the warehouse holds of a connection: ids, cursors, dead letters, the newest observation.

Only complete loads count: a package is there when dlt has written its row in _dlt_loads.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from loaders.objects.erasure_blocks import Erased
from loaders.objects.idem_keys import idem_key, key_prefix
from loaders.warehouse.base import Warehouse
from loaders.warehouse.chain import Position, Standing, read_standing
from loaders.warehouse.dead_letters import DeadLetter, WithTexts, open_letters

_FEW = 10_000
"""Ids up to which they are asked for by name; of more all are read."""
_ASKED_AT_ONCE = 2_000


class Stored:
    """One connection's part of the warehouse; with `is_empty` there is no table yet."""

    def __init__(
        self,
        warehouse: Warehouse,
        source_system: str,
        connection_name: str,
        *,
        is_empty: bool = False,
        job_name: str = "",
        log_days: float = 0,
    ) -> None:
        """`job_name` and `log_days` are for `standing`, see read_standing."""
        self._warehouse = warehouse
        self.connection = (source_system, connection_name)
        """Its source and its name."""
        self._is_empty = is_empty
        self._of_log = (job_name, log_days)

    def held(self, object_type: str, among: Collection[str] | None = None) -> set[str]:
        """Ids of an object type that raw_objects holds alive, or that wait in complete loads.

        With `among`, only those of them; see held_ids for a type with very many objects.
        """
        if among is None or len(among) > _FEW:
            ids = {external_id for external_id, _ in self.held_ids(object_type)}
            return ids if among is None else ids.intersection(among)
        found: set[str] = set()
        keys = [idem_key(*self.connection, object_type, external_id) for external_id in among]
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            some = keys[start : start + _ASKED_AT_ONCE]
            by_key = f"idem_key in ({', '.join('?' * len(some))})"
            found.update(external_id for external_id, _ in self._held(object_type, by_key, some))
        return found

    def held_ids(
        self, object_type: str, seen_since: dt.datetime | None = None
    ) -> Iterator[tuple[str, bool]]:
        """The same ids, each with whether it was observed at `seen_since` or later."""
        for external_id, last_seen in self._held(object_type):
            yield external_id, seen_since is None or last_seen >= seen_since

    def hashes(self, object_type: str) -> Iterator[tuple[str, str]]:
        """The same ids, each with the payload_hash of its newest state."""
        return self._held(object_type, column="payload_hash")

    def _held(
        self,
        object_type: str,
        condition: str = "true",
        parameters: Sequence[str] = (),
        column: str = "seen",
    ) -> Iterator[tuple[str, Any]]:
        if self._is_empty:
            return
        of_type, of_type_parameters = self._of_type(object_type)
        of_type += f" and {condition}"
        more = "" if column == "seen" else f", {column}"
        # The newest state counts: a tombstone that waits in the queue is one already.
        yield from self._warehouse.stream(
            f"select external_id, {column} from (select *, row_number() over"
            " (partition by external_id order by seen desc, is_deleted desc) as age from ("
            f"select external_id, last_seen as seen, deleted_at is not null as is_deleted{more}"
            f" from {self._warehouse.table('raw_objects')} where {of_type}"
            " union all"
            f" select external_id, observed_at, is_deleted{more}"
            f" from {self._warehouse.staging_table('landed_objects')}"
            f" where {of_type} and {self._warehouse.is_complete()}"
            ") as states) as newest where age = 1 and not is_deleted",
            (*of_type_parameters, *parameters) * 2,
        )

    def held_within(self, object_type: str, parents: Collection[str]) -> set[str]:
        """Ids `parent:part` that are held alive of an object type, by their parents."""
        found: set[str] = set()
        ids = list(parents)
        for start in range(0, len(ids), _ASKED_AT_ONCE):
            some = ids[start : start + _ASKED_AT_ONCE]
            of_parents = (
                "substr(external_id, 1, greatest(strpos(external_id, ':') - 1, 0))"
                f" in ({', '.join('?' * len(some))})"
            )
            found.update(key for key, _ in self._held(object_type, of_parents, some))
        return found

    def count(self, object_type: str, since: int, before: int | None = None) -> int:
        """Live objects in raw_objects created in [since, before), in Unix seconds."""
        if self._is_empty:
            return 0
        bounds = [_moment(since), *([] if before is None else [_moment(before)])]
        of_type, parameters = self._of_type(object_type)
        rows = self._warehouse.execute(
            f"select count(*) from {self._warehouse.table('raw_objects')} where {of_type}"
            " and deleted_at is null and object_created_at >= ?"
            + (" and object_created_at < ?" if before is not None else ""),
            (*parameters, *bounds),
        )
        return int(rows[0][0])

    def members(
        self, object_type: str, *paths: str, created_since: int | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """(id, JSON value at each `$.name`) of each live object; of what is queued, once more.

        Those created at `created_since` (Unix seconds) or later, where that is given.
        """
        if self._is_empty:
            return
        warehouse = self._warehouse
        members = [warehouse.json_member("payload", path) for path in paths]
        whole = "cast(null as string)"
        if warehouse.largest_json is not None:
            is_small = f"strlen(payload) <= {warehouse.largest_json}"
            members = [f"case when {is_small} then {member} end" for member in members]
            whole = f"case when not {is_small} then payload end"
        stored = [whole, *map(warehouse.json_as_text, members)]
        queued = [whole, *(f"cast({member} as string)" for member in members)]
        condition, parameters = self._of_type(object_type)
        if created_since is not None:
            condition += " and object_created_at >= ?"
            parameters.append(_moment(created_since))
        for query in (
            f"select external_id, {', '.join(stored)} from {warehouse.table('raw_objects')}"
            f" where {condition} and deleted_at is null",
            f"select external_id, {', '.join(queued)}"
            f" from {warehouse.staging_table('landed_objects')}"
            f" where {condition} and not is_deleted and {warehouse.is_complete()}"
            " order by observed_at",
        ):
            for external_id, text, *texts in warehouse.stream(query, parameters):
                if text is None:
                    yield external_id, *(None if one is None else json.loads(one) for one in texts)
                else:
                    value = json.loads(text)
                    yield external_id, *(value.get(path.removeprefix("$.")) for path in paths)

    def payloads(self) -> Iterator[tuple[str, str, str | None, str]]:
        """(type, id, payload as JSON text, payload_hash) of every live object in raw_objects."""
        if self._is_empty:
            return
        yield from self._warehouse.stream(
            f"select object_type, external_id, {self._warehouse.json_as_text('payload')},"
            f" payload_hash from {self._warehouse.table('raw_objects')}"
            " where source_system = ? and connection_name = ? and deleted_at is null",
            self.connection,
        )

    def _of_type(self, object_type: str) -> tuple[str, list[Any]]:
        """Condition and parameters of a connection's objects of one type.

        By their keys too, which BigQuery's tables are clustered by: so it reads only these.
        """
        prefix = key_prefix(*self.connection, object_type)
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        condition = (
            "source_system = ? and connection_name = ? and object_type = ?"
            " and idem_key >= ? and idem_key < ?"
        )
        return condition, [*self.connection, object_type, prefix, after]

    def dead(self, object_type: str) -> set[str]:
        """Ids of an object type that lie among the dead letters and are not stored since."""
        if not self._has_letters():
            return set()
        return {
            letter.external_id
            for letter in open_letters(self._warehouse, *self.connection, with_dropped=True)
            if letter.object_type == object_type and letter.external_id is not None
        }

    def dead_letters(self) -> list[DeadLetter]:
        """Dead letters that are not settled, without their texts, newest first."""
        return open_letters(self._warehouse, *self.connection) if self._has_letters() else []

    def _has_letters(self) -> bool:
        """Whether there are any, settled or not: which are, all stored keys tell."""
        return not self._is_empty and bool(
            self._warehouse.execute(
                f"select 1 from {self._warehouse.staging_table('dead_letters')}"
                " where source_system = ? and connection_name = ? limit 1",
                self.connection,
            )
        )

    def with_texts(self, letters: Sequence[DeadLetter]) -> WithTexts:
        """These letters with their texts, read a few at a time."""
        return WithTexts(self._warehouse, letters)

    def erased(self) -> Erased:
        """The blocks against storing erased objects again."""
        if not self.standing.has_erasures:
            return Erased()
        rows = self._warehouse.stream(
            f"select key_hash from {self._warehouse.table('erasures')}"
            " where source_system = ? and connection_name = ?",
            self.connection,
        )
        return Erased(text for (text,) in rows)

    @functools.cached_property
    def standing(self) -> Standing:
        """Where the connection stood when it was first asked for."""
        if self._is_empty:
            return Standing()
        job_name, log_days = self._of_log
        return read_standing(
            self._warehouse, *self.connection, job_name=job_name, log_days=log_days
        )

    @property
    def position(self) -> Position:
        """Its position then."""
        return self.standing.position

    def cursor(self, stream: str) -> dict[str, Any] | None:
        """The cursor of a stream that counts."""
        return self.cursors().get(stream)

    def cursors(self) -> dict[str, dict[str, Any]]:
        """The cursor of every stream that counts."""
        return {stream: dict(value) for stream, value in self.position.cursors.items()}

    def newest_observation(self) -> dt.datetime | None:
        """Not before the latest observed_at, merged or not, of what could not be stored too.

        A package is landed later than all that was observed before, and says so; who lands without
        one leaves a time of its own (chain.CLOCK). Without any, raw_objects is asked.
        """
        if self._is_empty:
            return None
        if self.standing.observed_at is not None:
            return self.standing.observed_at
        of_connection = "where source_system = ? and connection_name = ?"
        rows = self._warehouse.execute(
            "select max(observed_at) from ("
            f"select max(last_seen) as observed_at from {self._warehouse.table('raw_objects')}"
            f" {of_connection} union all"
            f" select max(observed_at) from {self._warehouse.staging_table('landed_objects')}"
            f" {of_connection} union all"
            f" select max(observed_at) from {self._warehouse.staging_table('cursors')}"
            f" {of_connection} union all"
            f" select max(created_at) from {self._warehouse.staging_table('dead_letters')}"
            f" {of_connection}) as observations",
            self.connection * 4,
        )
        newest: dt.datetime | None = rows[0][0]
        return newest


def _moment(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
