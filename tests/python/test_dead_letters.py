"""Which dead letters are open, on both warehouses."""

from __future__ import annotations

import datetime as dt
import uuid

from loaders.dead_letters import DeadLetter, forget, open_letters
from loaders.stored import Stored
from loaders.warehouse import Warehouse

from .conftest import on_both_targets

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def put_letter(warehouse: Warehouse, external_id: str | None, at: dt.datetime) -> str:
    letter_id = str(uuid.uuid4())
    id_of = "null" if external_id is None else f"'{external_id}'"
    warehouse.execute(
        f"insert into {warehouse.staging_table('dead_letters')} (dead_letter_id, source_system,"
        " connection_name, object_type, external_id, reason, payload, attempts, correlation_id,"
        f" created_at, _dlt_load_id) select ?, 'gmail', 'acct1', 'message', {id_of}, 'why', 'text',"
        f" 1, 'run', {warehouse.timestamp_parameter}, 'load'",
        (letter_id, at.isoformat()),
    )
    return letter_id


def put_object(warehouse: Warehouse, external_id: str, seen: dt.datetime) -> None:
    moment = warehouse.timestamp_parameter
    warehouse.execute(
        f"insert into {warehouse.table('raw_objects')} (idem_key, source_system, connection_name,"
        " object_type, external_id, payload_hash, first_seen, last_seen, changed_at, changed_by,"
        f" merged_by, last_action) select ?, 'gmail', 'acct1', 'message', ?, 'hash', {moment},"
        f" {moment}, {moment}, 'run', 'run', 'inserted'",
        (f"gmail:acct1:message:{external_id}", external_id, *[seen.isoformat()] * 3),
    )


def ids(letters: list[DeadLetter]) -> list[str]:
    return [letter.dead_letter_id for letter in letters]


@on_both_targets
def test_a_letter_is_open_until_its_object_or_a_newer_letter_is_stored(
    warehouse: Warehouse,
) -> None:
    loads = warehouse.staging_table("_dlt_loads")
    columns = "load_id, schema_name, status, inserted_at, schema_version_hash"
    warehouse.execute(
        f"insert into {loads} ({columns}) select 'load', 's', 0, current_timestamp, 'h'"
    )
    put_letter(warehouse, "again", NOON)
    newer = put_letter(warehouse, "again", NOON + HOUR)
    put_letter(warehouse, "stored", NOON)
    put_object(warehouse, "stored", NOON + HOUR)
    older_state = put_letter(warehouse, "older state", NOON - HOUR)
    put_object(warehouse, "older state", NOON - 2 * HOUR)
    nameless = [put_letter(warehouse, None, NOON - n * HOUR) for n in (2, 3)]
    expected = [newer, older_state, *nameless]
    assert ids(open_letters(warehouse)) == expected
    assert ids(open_letters(warehouse, "gmail", "acct1", limit=2)) == expected[:2]
    assert open_letters(warehouse, "gmail", "acct2") == []
    letters = Stored(warehouse, "gmail", "acct1").dead_letters()
    assert {letter.payload for letter in letters} == {"text"}
    forget(warehouse, [newer, nameless[0]])
    assert ids(open_letters(warehouse)) == [older_state, nameless[1]]
    assert Stored(warehouse, "gmail", "acct1").dead("message") == {"older state"}
