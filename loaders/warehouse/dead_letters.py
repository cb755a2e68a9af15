"""Dead letters: what could not be stored, until it is.

A letter is settled when raw_objects holds a later state of its object, when a newer letter is
about the same object, when a retry has dealt with it, or when an operator has dropped it. So
`created_at` is when its object was observed, by the clock that orders states, not when the letter
was written. Only letters of complete loads count: a package that was refused has left its own
behind, and landed them again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from loaders.errors import UsageError
from loaders.objects.items import Observed
from loaders.warehouse.base import Warehouse


class DeadLetter(NamedTuple):
    """An object that could not be stored, a row of dead_letters.

    `payload` is its text where there is one.
    """

    dead_letter_id: str
    source_system: str
    connection_name: str
    object_type: str
    external_id: str | None
    reason: str
    attempts: int
    correlation_id: str
    created_at: dt.datetime
    payload: str | None = None
    dropped_at: dt.datetime | None = None
    dropped_reason: str | None = None

    def as_json(self, *, with_payload: bool = False) -> dict[str, Any]:
        """Its fields; the payload, which is content, only when it is asked for."""
        fields = self._asdict()
        return fields if with_payload else {**fields, "payload": None}

    def without_text(self) -> DeadLetter:
        """The letter as it may be kept: texts of many would fill the memory."""
        return self._replace(payload=None)

    def observed(self, text: str) -> Observed:
        """Its object, once more."""
        return Observed(
            self.object_type, text, self.created_at, self.external_id, attempts=self.attempts + 1
        )


TEXTS_AT_ONCE = 256
"""Texts of letters in memory at a time."""
_AT_ONCE = 2_000
_DROPPED = ("dropped_at", "dropped_reason")
_COLUMNS = [name for name in DeadLetter._fields if name not in ("payload", *_DROPPED)]


def open_letters(
    warehouse: Warehouse,
    source_system: str | None = None,
    connection_name: str | None = None,
    *,
    limit: int | None = None,
    with_dropped: bool = False,
) -> list[DeadLetter]:
    """Letters that are not settled, without their texts, newest first; of all connections, or one.

    With `with_dropped` also those that an operator gave up.
    """
    of_connection = (source_system, connection_name) if source_system else ()
    rows = warehouse.execute(
        f"select {', '.join(f'letter.{name}' for name in _COLUMNS)}"
        f" {_open(warehouse, bool(of_connection), with_dropped)} order by letter.created_at desc"
        + ("" if limit is None else f" limit {limit:d}"),
        of_connection,
    )
    return [DeadLetter(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]


class WithTexts:
    """Letters with their texts, which each pass over them reads anew, TEXTS_AT_ONCE at a time.

    Whoever goes through them is not to keep them: see DeadLetter.without_text.
    """

    def __init__(self, warehouse: Warehouse, letters: Sequence[DeadLetter]) -> None:
        self._warehouse = warehouse
        self._letters = letters

    def __iter__(self) -> Iterator[DeadLetter]:
        """One pass."""
        for start in range(0, len(self._letters), TEXTS_AT_ONCE):
            some = self._letters[start : start + TEXTS_AT_ONCE]
            # No stream: with one of all texts the warehouse would be held until the pass is over.
            rows = self._warehouse.execute(
                "select dead_letter_id, payload"
                f" from {self._warehouse.staging_table('dead_letters')}"
                f" where dead_letter_id in ({', '.join('?' * len(some))})",
                [letter.dead_letter_id for letter in some],
            )
            texts = dict(rows)
            del rows
            for letter in some:
                yield letter._replace(payload=texts.pop(letter.dead_letter_id, None))


def find_letter(warehouse: Warehouse, letter_id: str) -> DeadLetter:
    """The letter of an id, settled or not; the id may be cut short.

    Raises UsageError unless there is exactly one.
    """
    rows = warehouse.execute(
        # A process that died while it landed a package again may have landed a letter twice.
        f"select distinct {', '.join(DeadLetter._fields)}"
        f" from {warehouse.staging_table('dead_letters')}"
        f" where {warehouse.is_complete()} and substr(dead_letter_id, 1, ?) = ? limit 2",
        (len(letter_id), letter_id),
    )
    if len(rows) != 1:
        found = "more than one" if rows else "none"
        raise UsageError(
            f"dead-letters: {letter_id!r}: expected the id of one dead letter, found {found};"
            " run.py dead-letters lists them"
        )
    return DeadLetter(*rows[0])


def drop(warehouse: Warehouse, letter: DeadLetter, reason: str, *, keep_payload: bool) -> None:
    """Give a letter up: it stays in the table, and is settled. Raises UsageError.

    Without `keep_payload` its text goes, and that of older letters about the same object.
    """
    if letter.dropped_at is not None:
        raise UsageError(
            f"dead-letters: {letter.dead_letter_id} was dropped already, at"
            f" {letter.dropped_at:%Y-%m-%d %H:%M} UTC: {letter.dropped_reason}"
        )
    letters = warehouse.staging_table("dead_letters")
    if not keep_payload:
        # First: a drop that is cut short can be asked for again.
        warehouse.execute(
            f"update {letters} as letter set payload = null where {_is_up_to(letters, 1)}",
            (letter.dead_letter_id,),
        )
    warehouse.execute(
        f"update {letters} set dropped_at = current_timestamp, dropped_reason = ?"
        " where dead_letter_id = ? and dropped_at is null",
        (reason, letter.dead_letter_id),
    )


def forget(warehouse: Warehouse, letter_ids: Sequence[str]) -> None:
    """Delete letters that a run has dealt with, and older ones about the same objects.

    Their objects, or newer letters, are stored.
    """
    letters = warehouse.staging_table("dead_letters")
    for start in range(0, len(letter_ids), _AT_ONCE):
        some = letter_ids[start : start + _AT_ONCE]
        # A text that failed once more left a letter of the same moment, with one more attempt.
        is_no_newer = "(named.created_at > letter.created_at or named.attempts >= letter.attempts)"
        warehouse.execute(
            f"delete from {letters} as letter where {_is_up_to(letters, len(some), is_no_newer)}"
            " and letter.dropped_at is null",
            some,
        )


def _is_up_to(letters: str, count: int, condition: str = "true") -> str:
    """Whether `letter` is one of the named ones, or about the same object and not newer."""
    return (
        f"exists (select 1 from {letters} as named"
        f" where named.dead_letter_id in ({', '.join('?' * count)})"
        " and named.source_system = letter.source_system"
        " and named.connection_name = letter.connection_name"
        " and named.object_type = letter.object_type"
        " and named.created_at >= letter.created_at"
        " and (named.dead_letter_id = letter.dead_letter_id"
        f" or named.external_id = letter.external_id) and {condition})"
    )


def _open(warehouse: Warehouse, of_connection: bool, with_dropped: bool) -> str:
    condition = " and source_system = ? and connection_name = ?" if of_connection else ""
    return (
        "from (select *, row_number() over ("
        "partition by source_system, connection_name, object_type,"
        " coalesce(external_id, dead_letter_id)"
        " order by created_at desc, dead_letter_id) as age"
        f" from {warehouse.staging_table('dead_letters')}"
        f" where {warehouse.is_complete()}{condition}) as letter"
        f" left join {warehouse.table('raw_objects')} as stored"
        " on stored.source_system = letter.source_system"
        " and stored.connection_name = letter.connection_name"
        " and stored.object_type = letter.object_type"
        " and stored.external_id = letter.external_id"
        " and stored.last_seen >= letter.created_at and stored.deleted_at is null"
        " where letter.age = 1 and stored.idem_key is null"
        + ("" if with_dropped else " and letter.dropped_at is null")
    )
