"""Dead letters: which are open, dropping one, and landing their kept payloads again."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import UsageError
from loaders.ingestion.ingest import DeadLettered, Ingestion, IngestOptions
from loaders.ingestion.landing import Landing
from loaders.objects.idem_keys import idem_key
from loaders.objects.items import Observed
from loaders.warehouse import dead_letters as letters_of
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from loaders.warehouse.dead_letters import DeadLetter, drop, find_letter, forget, open_letters

from .cli.conftest import one_line, run_main
from .conftest import (
    MAILBOX_SIZE,
    Project,
    assert_accounted,
    on_both_targets,
    prepared,
    run_gmail,
    run_stripe,
)
from .conftest import stored as stored_objects
from .upsert_objects.test_failures import refuse_widget

pytestmark = pytest.mark.usefixtures("stays_open")

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def put_letter(
    warehouse: Warehouse,
    external_id: str | None,
    at: dt.datetime,
    payload: str = "text",
    attempts: int = 1,
) -> str:
    letter_id = str(uuid.uuid4())
    id_of = "null" if external_id is None else f"'{external_id}'"
    warehouse.execute(
        f"insert into {warehouse.staging_table('dead_letters')} (dead_letter_id, source_system,"
        " connection_name, object_type, external_id, reason, payload, attempts, correlation_id,"
        f" created_at, _dlt_load_id) select ?, 'gmail', 'acct1', 'message', {id_of}, 'why', ?,"
        f" {attempts}, 'run', {warehouse.timestamp_parameter}, 'load'",
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
    assert {letter.payload for letter in letters} == {None}
    with_texts = list(Stored(warehouse, "gmail", "acct1").with_texts(letters))
    assert ids(with_texts) == expected
    assert {letter.payload for letter in with_texts} == {"text"}
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


@on_both_targets
def test_a_text_that_is_erased_is_in_no_older_letter_of_its_object(warehouse: Warehouse) -> None:
    complete_load(warehouse)
    older, dropped, newer = (
        put_letter(warehouse, "m1", NOON + hours * HOUR) for hours in (-1, 0, 1)
    )
    other, nameless = put_letter(warehouse, "m2", NOON - HOUR), put_letter(warehouse, None, NOON)
    drop(warehouse, find_letter(warehouse, dropped), "refused", keep_payload=False)
    letters = {each: find_letter(warehouse, each) for each in (older, dropped, newer)}
    assert [letter.payload for letter in letters.values()] == [None, None, "text"]
    assert [letter.dropped_at is None for letter in letters.values()] == [True, False, True]
    assert find_letter(warehouse, other).payload == "text"
    assert find_letter(warehouse, nameless).payload == "text"


@on_both_targets
def test_a_letter_of_the_same_moment_with_more_attempts_is_not_forgotten(
    warehouse: Warehouse,
) -> None:
    complete_load(warehouse)
    retried = put_letter(warehouse, "m1", NOON)
    again = put_letter(warehouse, "m1", NOON, attempts=2)
    forget(warehouse, [retried])
    assert ids(open_letters(warehouse)) == [again]


@on_both_targets
def test_no_observation_is_before_that_of_a_letter(warehouse: Warehouse) -> None:
    put_object(warehouse, "m1", NOON)
    put_letter(warehouse, "m2", NOON + HOUR)
    assert Stored(warehouse, "gmail", "acct1").newest_observation() == NOON + HOUR


def new_landing(warehouse: Warehouse) -> Landing:
    return Landing(
        warehouse,
        source_system="gmail",
        connection_name="acct1",
        correlation_id="run",
        idem_key_of=lambda item, payload: idem_key("gmail", "acct1", "message", payload["id"]),
    )


def refused(external_id: str, observed_at: dt.datetime) -> Observed:
    """What the gate does not take."""
    return Observed("message", '{"n": 1e999}', observed_at, external_id)


def test_a_letter_is_open_where_what_is_stored_was_observed_ahead_of_this_clock(
    warehouse: Warehouse,
) -> None:
    ahead = dt.datetime.now(dt.UTC) + HOUR
    for external_id in ("refused", "unread", "another"):
        put_object(warehouse, external_id, ahead)
    with contextlib.closing(new_landing(warehouse)) as landing:
        landing.observe(refused("refused", ahead + HOUR))
        landing.set_aside("message", "unread", "the source keeps failing on it")
        landing.flush()
    letters = {letter.external_id: letter.created_at for letter in open_letters(warehouse)}
    assert letters == {
        "refused": ahead + HOUR,
        "unread": ahead + HOUR + dt.timedelta(microseconds=1),
    }
    with contextlib.closing(new_landing(warehouse)) as landing:
        landing.set_aside("message", "another", "the source keeps failing on it")
        landing.flush()
    assert {letter.external_id for letter in open_letters(warehouse)} == {*letters, "another"}


def test_a_state_that_was_read_after_the_one_that_was_refused_settles_it(
    warehouse: Warehouse,
) -> None:
    put_object(warehouse, "m1", NOON + HOUR)
    with contextlib.closing(new_landing(warehouse)) as landing:
        landing.observe(refused("m1", NOON))
        landing.observe(refused("m2", NOON))
        landing.flush()
    [letter] = open_letters(warehouse)
    assert letter.external_id == "m2"
    assert letter.observed("{}").observed_at == NOON


def test_what_the_warehouse_refuses_is_dated_by_its_observation(warehouse: Warehouse) -> None:
    refuse_widget(warehouse, "w1")
    with contextlib.closing(new_landing(warehouse)) as landing:
        for name in ("w0", "w1"):
            landing.observe(Observed("message", json.dumps({"id": name}), NOON, name))
        landing.flush()
    assert [(letter.external_id, letter.created_at) for letter in open_letters(warehouse)] == [
        ("w1", NOON)
    ]


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
    # An earlier release's run says nothing that the store could be held against.
    warehouse.execute(
        """update events.event_log set payload = json_merge_patch(payload, '{"rescued": null}')"""
    )
    complete_load(warehouse)
    put_letter(warehouse, external_id, dt.datetime.now(dt.UTC), payload)
    return external_id


@pytest.fixture
def one_aside(core_build: None, project: Project, mailbox: Sandbox) -> tuple[Warehouse, str]:
    warehouse = prepared(project, "one_aside", lambda warehouse: set_one_aside(warehouse, mailbox))
    return warehouse, mailbox.live_ids()[0]


@pytest.mark.slow
def test_letters_of_a_connection_that_is_not_configured_do_not_keep_others_from_a_retry(
    one_aside: tuple[Warehouse, str],
    mailbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    warehouse, external_id = one_aside
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__ACCESS_TOKEN", "any-token")
    monkeypatch.setenv("SOURCES__GMAIL__ACCT1__API_BASE_URL", mailbox.base_url)
    old = [put_letter(warehouse, name, NOON) for name in ("m1", "m2")]
    warehouse.execute(
        "update events_staging.dead_letters set connection_name = 'ann' where external_id in"
        " ('m1', 'm2')"
    )
    jobs = "select count(*) from events.event_log where event_type = 'job.failed'"
    for inserted in (True, False):
        code, out, err = run_main(capsys, "retry")
        assert code == 1
        assert ("inserted:     1" in out) is inserted
        assert "no dead letters" not in out
        [warning] = [line for line in err.splitlines() if "not configured" in line]
        assert "gmail 'ann'" in warning
        assert "2 dead letter(s)" in warning
        assert "dead-letters drop" in warning
        assert warehouse.execute(jobs) == [(0,)]
        assert sorted(ids(open_letters(warehouse))) == sorted(old)
    assert external_id in stored_objects(warehouse)
    assert run_main(capsys, "retry", "stripe")[0] == 0
    assert run_main(capsys, "retry", "--connection", "ann")[0] == 2
    for letter_id in old:
        run_main(capsys, "dead-letters", "drop", letter_id, "--reason", "left the company")
    code, out, err = run_main(capsys, "retry")
    assert (code, out, err) == (0, "no dead letters\n", "")


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


@pytest.mark.slow
def test_a_text_that_fails_once_more_stays_among_the_dead_letters(
    one_aside: tuple[Warehouse, str], mailbox: Sandbox
) -> None:
    warehouse, external_id = one_aside
    change = "update events_staging.dead_letters set payload = '[1]', object_type = 'widget'"
    warehouse.execute(change)  # of a type that is not read at the source
    run = run_gmail(warehouse, mailbox, IngestOptions(retry=True))
    assert isinstance(run.error, DeadLettered)
    [letter] = open_letters(warehouse)
    assert (letter.external_id, letter.attempts) == (external_id, 2)
    assert warehouse.execute("select count(*) from events_staging.dead_letters") == [(1,)]


AT_ONCE = 3


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(letters_of, "TEXTS_AT_ONCE", AT_ONCE)
    # A million objects, dbt's for the most part, are not worth a look for each letter.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def texts_alive() -> int:
    """Dead letters in memory that have their texts; new ones wait for their package."""
    gc.collect()
    return sum(
        isinstance(each, DeadLetter) and each.payload is not None and each.correlation_id == "run"
        for each in gc.get_objects()
    )


@on_both_targets
def test_texts_are_read_a_few_at_a_time(warehouse: Warehouse, few_at_once: None) -> None:
    complete_load(warehouse)
    for number in range(7):
        put_letter(warehouse, f"m{number}", NOON - number * HOUR, f"text {number}")
    stored = Stored(warehouse, "gmail", "acct1")
    letters = stored.with_texts(stored.dead_letters())
    for _ in range(2):  # anew each time
        texts = []
        for letter in letters:
            texts.append(letter.payload)
            assert texts_alive() <= AT_ONCE
        assert texts == [f"text {number}" for number in range(7)]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["gmail", "stripe"])
def test_a_retry_holds_the_texts_of_a_few_letters(
    warehouse: Warehouse,
    mailbox: Sandbox,
    core_build: None,
    few_at_once: None,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    """Of those that pass the gate, of those that are read anew and of those that cannot be."""
    object_type, run = {"gmail": ("message", run_gmail), "stripe": ("customer", run_stripe)}[source]
    complete_load(warehouse)
    for number, live_id in enumerate(mailbox.live_ids()[:24]):
        passing = json.dumps({"id": live_id, "internalDate": "0", "created": 1})
        put_letter(
            warehouse,
            live_id if number % 3 else None,
            NOON - number * HOUR,
            passing if number % 2 else "[1]",
        )
    warehouse.execute(
        "update events_staging.dead_letters set object_type = ?, source_system = ?",
        (object_type, source),
    )
    alive: list[int] = []
    execute = type(warehouse).execute
    take = Ingestion._take

    def taking(*arguments: Any) -> None:
        alive.append(texts_alive())
        take(*arguments)

    def asking(self: Warehouse, sql: str, parameters: Sequence[Any] = ()) -> Any:
        rows = execute(self, sql, parameters)
        if "dead_letters" in sql and "payload" in sql.partition(" from ")[0]:
            assert len(rows) <= AT_ONCE
        return rows

    monkeypatch.setattr(Ingestion, "_take", taking)
    monkeypatch.setattr(type(warehouse), "execute", asking)
    done = run(warehouse, mailbox, IngestOptions(retry=True))
    assert isinstance(done.error, DeadLettered)
    assert_accounted(done.telemetry)
    assert len(alive) > 24
    assert 0 < max(alive) <= AT_ONCE


@pytest.mark.slow
def test_a_snapshot_asks_for_no_text(
    one_aside: tuple[Warehouse, str], mailbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, external_id = one_aside
    asked: list[str] = []
    execute = type(warehouse).execute

    def asking(self: Warehouse, sql: str, parameters: Sequence[Any] = ()) -> Any:
        asked.append(sql)
        return execute(self, sql, parameters)

    monkeypatch.setattr(type(warehouse), "execute", asking)
    assert run_gmail(warehouse, mailbox, IngestOptions(full_resync=True)).error is None
    assert external_id in stored_objects(warehouse)
    of_letters = [sql for sql in asked if '"dead_letters"' in sql and "select letter." in sql]
    assert of_letters
    assert not [sql for sql in of_letters if "payload" in sql]
