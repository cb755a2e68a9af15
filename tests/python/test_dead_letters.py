"""Dead letters: which are open, dropping one, and landing their kept payloads again."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator

import pytest

from loaders.dead_letters import DeadLetter, drop, find_letter, forget, open_letters
from loaders.errors import UsageError
from loaders.ingest import DeadLettered, IngestOptions
from loaders.sandbox import Sandbox
from loaders.stored import Stored
from loaders.warehouse import Warehouse

from .conftest import (
    MAILBOX_SIZE,
    Project,
    assert_accounted,
    on_both_targets,
    prepared,
    run_gmail,
)
from .conftest import stored as stored_objects
from .test_cli import one_line, run_main

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def put_letter(
    warehouse: Warehouse, external_id: str | None, at: dt.datetime, payload: str = "text"
) -> str:
    letter_id = str(uuid.uuid4())
    id_of = "null" if external_id is None else f"'{external_id}'"
    warehouse.execute(
        f"insert into {warehouse.staging_table('dead_letters')} (dead_letter_id, source_system,"
        " connection_name, object_type, external_id, reason, payload, attempts, correlation_id,"
        f" created_at, _dlt_load_id) select ?, 'gmail', 'acct1', 'message', {id_of}, 'why', ?,"
        f" 1, 'run', {warehouse.timestamp_parameter}, 'load'",
        (letter_id, payload, at.isoformat()),
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


def complete_load(warehouse: Warehouse) -> None:
    """That of put_letter's letters."""
    loads = warehouse.staging_table("_dlt_loads")
    columns = "load_id, schema_name, status, inserted_at, schema_version_hash"
    warehouse.execute(
        f"insert into {loads} ({columns}) select 'load', 's', 0, current_timestamp, 'h'"
    )


@on_both_targets
def test_a_letter_is_open_until_its_object_or_a_newer_letter_is_stored(
    warehouse: Warehouse,
) -> None:
    complete_load(warehouse)
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


@on_both_targets
def test_a_dropped_letter_is_settled_and_stays_with_its_reason(warehouse: Warehouse) -> None:
    complete_load(warehouse)
    earlier = put_letter(warehouse, "m1", NOON)
    letter_id = put_letter(warehouse, "m1", NOON + HOUR)
    drop(warehouse, find_letter(warehouse, letter_id[:12]), "it's spam", keep_payload=True)

    assert open_letters(warehouse) == []
    stored = Stored(warehouse, "gmail", "acct1")
    assert stored.dead("message") == {"m1"}  # no run reads it again
    letter = find_letter(warehouse, letter_id)
    assert (letter.dropped_reason, letter.payload) == ("it's spam", "text")
    assert letter.dropped_at is not None
    with pytest.raises(UsageError, match="dropped already"):
        drop(warehouse, letter, "again", keep_payload=True)

    newer = put_letter(warehouse, "m1", NOON + 2 * HOUR)
    assert ids(open_letters(warehouse)) == [newer]
    forget(warehouse, [newer])
    assert find_letter(warehouse, letter_id) == letter
    with pytest.raises(UsageError, match="found none"):
        find_letter(warehouse, earlier)

    nameless = put_letter(warehouse, None, NOON)
    drop(warehouse, find_letter(warehouse, nameless), "no id", keep_payload=False)
    assert find_letter(warehouse, nameless).payload is None


def test_letters_are_shown_and_dropped_by_what_their_ids_begin_with(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(capsys, "dead-letters", "list")[:2] == (0, "no dead letters\n")
    complete_load(warehouse)
    letter_id = put_letter(warehouse, "m1", NOON, "the content")
    _, out, _ = run_main(capsys, "dead-letters", "--limit", "1")
    begin = out.splitlines()[1].split()[0]
    assert letter_id.startswith(begin)
    assert json.loads(run_main(capsys, "dead-letters", "--json", "list")[1])[0]["attempts"] == 1

    code, out, _ = run_main(capsys, "dead-letters", "show", begin)
    assert code == 0
    assert letter_id in out
    assert "11 characters" in out
    assert "the content" not in out
    assert "the content" not in run_main(capsys, "dead-letters", "show", begin, "--json")[1]
    assert "the content" in run_main(capsys, "dead-letters", "show", "--payload", begin)[1]

    for wrong, said in (
        (("show", "nowhere"), "found none"),
        (("drop", begin, "--reason", " "), "expected why"),
    ):
        code, _, err = run_main(capsys, "dead-letters", *wrong)
        assert code == 2
        assert said in one_line(err)
    assert run_main(capsys, "dead-letters", "drop", begin)[0] == 2
    code, out, _ = run_main(capsys, "dead-letters", "drop", "--reason", "not wanted", begin)
    assert (code, out) == (0, f"dropped: {letter_id} (message m1)\n")
    assert run_main(capsys, "dead-letters")[1] == "no dead letters\n"
    assert "not wanted" in run_main(capsys, "dead-letters", "show", begin)[1]


@pytest.fixture
def mailbox() -> Iterator[Sandbox]:
    """A mailbox that the test may change."""
    with Sandbox(size=MAILBOX_SIZE, seed=7) as sandbox:
        yield sandbox


def set_one_aside(warehouse: Warehouse, mailbox: Sandbox) -> str:
    """A warehouse as if the gate of an earlier release had refused one message; its id."""
    assert run_gmail(warehouse, mailbox).error is None
    external_id = mailbox.live_ids()[0]
    [(payload,)] = warehouse.execute(
        "select cast(payload as varchar) from events.raw_objects where external_id = ?",
        (external_id,),
    )
    warehouse.execute("delete from events.raw_objects where external_id = ?", (external_id,))
    complete_load(warehouse)
    put_letter(warehouse, external_id, dt.datetime.now(dt.UTC), payload)
    return external_id


@pytest.fixture
def one_aside(core_build: None, project: Project, mailbox: Sandbox) -> tuple[Warehouse, str]:
    warehouse = prepared(project, "one_aside", lambda warehouse: set_one_aside(warehouse, mailbox))
    return warehouse, mailbox.live_ids()[0]


@pytest.mark.slow
def test_a_payload_that_passes_the_gate_now_is_landed_without_a_read(
    one_aside: tuple[Warehouse, str], mailbox: Sandbox
) -> None:
    warehouse, external_id = one_aside
    mailbox.reset_stats()
    run = run_gmail(warehouse, mailbox, IngestOptions(retry=True))
    assert run.error is None
    assert run.counts == {"inserted": 1}
    assert_accounted(run.telemetry)
    assert mailbox.stats()["requests"] == {}
    assert external_id in stored_objects(warehouse)
    assert stored_objects(warehouse)[external_id]["object_created_at"] is not None
    assert open_letters(warehouse) == []
    assert run_gmail(warehouse, mailbox).counts == {}


@pytest.mark.slow
def test_a_replay_does_not_bring_back_what_was_deleted_meanwhile(
    one_aside: tuple[Warehouse, str], mailbox: Sandbox
) -> None:
    warehouse, external_id = one_aside
    mailbox.change(delete=[external_id])
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert_accounted(run.telemetry)
    assert stored_objects(warehouse)[external_id]["deleted_at"] is not None
    run = run_gmail(warehouse, mailbox, IngestOptions(retry=True))
    assert run.error is None
    assert stored_objects(warehouse)[external_id]["deleted_at"] is not None
    assert open_letters(warehouse) == []


@pytest.mark.slow
def test_attempts_are_counted_and_a_warning_tells_of_open_letters(
    one_aside: tuple[Warehouse, str], mailbox: Sandbox
) -> None:
    warehouse, external_id = one_aside
    warehouse.execute("update events_staging.dead_letters set payload = '[1]'")
    answer = {"match": {"method": "messages.get"}, "times": None, "action": {"json": [1]}}
    mailbox.set_faults([answer])
    for attempts in (2, 3):  # the second from the letter that the first one left
        run = run_gmail(warehouse, mailbox, IngestOptions(retry=True))
        assert isinstance(run.error, DeadLettered)
        assert run.ingestion.summary is not None
        assert run.ingestion.summary.tests["warned"] == 1
        assert run.ingestion.summary.warnings == ("warn_open_dead_letters",)
        [letter] = open_letters(warehouse)
        assert (letter.external_id, letter.attempts) == (external_id, attempts)
    drop(warehouse, letter, "never mind", keep_payload=True)
    run = run_gmail(warehouse, mailbox)
    assert run.error is None
    assert run.ingestion.summary is not None
    assert run.ingestion.summary.tests["warned"] == 0
