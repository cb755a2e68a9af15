"""Erasing: what goes, what stays as a block, and that nothing brings an erased object back."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence

import pytest

from loaders import retention, transform
from loaders.conditions import check_condition
from loaders.erased import Erased, key_hash
from loaders.erasing import Erasure, Selection
from loaders.errors import CheckFailed, ConfigError, UsageError, WarehouseBusy
from loaders.ingest import Ingestion, IngestOptions
from loaders.items import Deleted, Item, Observed, Unfetched
from loaders.job import Job
from loaders.landing import Landing
from loaders.retention import Retention
from loaders.sandbox import Sandbox
from loaders.upsert import upsert_objects
from loaders.warehouse import Warehouse

from .conftest import (
    Project,
    assert_accounted,
    at,
    count,
    events,
    gmail_source,
    on_both_targets,
    prepared,
    run_scripted,
    stored,
)
from .test_cli import one_line, run_main

CANARY = "canary-content-7f3a"
ACME = ("acme", "acct1")


def widget(name: str, seconds: float, text: str = CANARY) -> Observed:
    return Observed("widget", json.dumps({"id": name, "text": text}), at(seconds), name)


def ingest(warehouse: Warehouse) -> None:
    items: Sequence[Item] = [
        *(widget(name, 1) for name in ("a", "b", "c")),
        Observed("widget", f'{{"id": "d", "text": "{CANARY}", "n": 1e999}}', at(2), "d"),
        Unfetched("widget", "e", "refused"),
    ]
    run_scripted(warehouse, items)


@pytest.fixture
def filled(core_build: None, project: Project) -> Warehouse:
    """Three objects, two dead letters."""
    return prepared(project, "before_erasure", ingest)


def erase(warehouse: Warehouse, *keys: str, where: str | None = None) -> Erasure:
    erasure = Erasure(warehouse, Selection(*ACME, keys, where), "asked for by their owner")
    erasure.run()
    return erasure


def key(name: str) -> str:
    return f"acme:acct1:widget:{name}"


@pytest.mark.slow
def test_erased_objects_go_from_every_table_and_do_not_come_back(filled: Warehouse) -> None:
    erasure = erase(filled, key("a"), key("d"), key("not-yet"))
    assert erasure.counts == {
        "blocks": 3,
        "landed_objects": 0,
        "raw_objects": 1,
        "dead_letters": 1,
    }
    assert set(stored(filled)) == {"b", "c"}
    rows = filled.execute("select external_id from events_staging.dead_letters")
    assert rows == [("e",)]
    blocks = filled.execute(
        "select key_hash, object_type, reason, correlation_id from events.erasures"
        " order by key_hash"
    )
    assert blocks == sorted(
        (key_hash(key(name)), "widget", "asked for by their owner", erasure.job.correlation_id)
        for name in ("a", "d", "not-yet")
    )
    again: Sequence[Item] = [
        widget("a", 10),
        widget("not-yet", 10),
        widget("b", 10, "new"),
        Deleted("widget", "a", at(11)),
        Observed("widget", '{"id": "d", "n": 1e999}', at(12), "d"),
    ]
    run = run_scripted(filled, again)
    assert run.error is None
    assert run.telemetry["erased"] == 4
    assert run.counts == {"updated": 1}
    assert_accounted(run.telemetry)
    assert set(stored(filled)) == {"b", "c"}
    assert count(filled, "events_staging.dead_letters") == 1


@on_both_targets
@pytest.mark.slow
def test_what_was_landed_before_is_not_merged_and_leaves_the_queue(filled: Warehouse) -> None:
    """As by another job at the same time: the merge itself leaves it out."""
    landing = Landing(
        filled,
        source_system="acme",
        connection_name="acct1",
        correlation_id="r2",
        idem_key_of=lambda item, payload: key(payload["id"]),
    )
    landing.observe(widget("a", 20, "newer"))
    landing.observe(widget("b", 20, "newer"))
    landing.flush()
    landing.close()
    filled.execute(
        "insert into events.erasures (key_hash, source_system, connection_name, object_type,"
        " erased_at, correlation_id) select ?, 'acme', 'acct1', 'widget', current_timestamp, 'r'",
        (key_hash(key("a")),),
    )
    result = transform.build(filled.target, "r3", ["--exclude", "assert_erasures"])
    assert result.error is None
    assert count(filled, "events_staging.landed_objects") == 0
    assert transform.merge_counts(filled, "r3")["updated"] == 1
    # It is held all the same: the acceptance test says so, and what to do.
    result = transform.build(filled.target, "r4", ["--select", "assert_erasures"])
    assert isinstance(result.error, CheckFailed)
    assert erase(filled).counts == {
        "blocks": 0,
        "landed_objects": 0,
        "raw_objects": 1,
        "dead_letters": 0,
    }
    assert set(stored(filled)) == {"b", "c"}


@on_both_targets
@pytest.mark.slow
def test_a_condition_erases_the_rows_that_it_names_and_no_others(filled: Warehouse) -> None:
    text = filled.json_text("payload", "$.id")
    where = f"object_type = 'widget' and {text} in ('a', 'b')"
    counts = Erasure(filled, Selection(*ACME, condition=where)).preview()
    assert counts == {"raw_objects": 2, "landed_objects": 0, "dead_letters": 0}
    assert len(stored(filled)) == 3
    assert Erasure(filled, Selection("acme", "acct2", condition="true")).preview() == {
        "raw_objects": 0,
        "landed_objects": 0,
        "dead_letters": 0,
    }
    assert erase(filled, where=where).counts["raw_objects"] == 2
    assert set(stored(filled)) == {"c"}


GMAIL = ("gmail", "me")


def put_objects(warehouse: Warehouse, *keys: str) -> None:
    for each in keys:
        source, connection, object_type, external_id = each.split(":", 3)
        warehouse.execute(
            "insert into events.raw_objects by name select ? as idem_key, ? as source_system, ? as"
            " connection_name, ? as object_type, ? as external_id, '{}' as payload, 'h' as"
            " payload_hash, now() as first_seen, now() as last_seen, now() as changed_at, 'r' as"
            " changed_by, 'r' as merged_by, 'inserted' as last_action",
            (each, source, connection, object_type, external_id),
        )


def test_parts_go_with_their_objects_and_stay_away(warehouse: Warehouse) -> None:
    parts = ("gmail:me:attachment:m1:0", "gmail:me:attachment:m1:1", "gmail:me:attachment:m2:0")
    put_objects(warehouse, "gmail:me:message:m1", "gmail:me:message:m2", *parts)
    erasure = Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m1",)))
    assert erasure.preview()["raw_objects"] == 3
    erasure.run()
    assert erasure.counts["raw_objects"] == 3
    assert set(stored(warehouse)) == {"m2", "m2:0"}
    erased = Erased([key_hash("gmail:me:message:m1")])
    assert erased.covers(*GMAIL, "attachment", "m1:7")
    assert not erased.covers(*GMAIL, "attachment", "m2:0")
    assert not erased.covers(*GMAIL, "label", "m1:7")


def test_an_erasure_says_so_in_the_log_without_the_keys_and_takes_the_lease(
    warehouse: Warehouse,
) -> None:
    put_objects(warehouse, "gmail:me:message:m1")
    erasure = Erasure(warehouse, Selection(*GMAIL, ("gmail:me:message:m1",)), CANARY)
    erasure.run()
    started, completed = events(warehouse)
    assert started["correlation_id"].startswith("gmail_erase_me-")
    assert started["payload"]["parameters"] == {"objects": 1, "where": False}
    assert completed["payload"]["erased"]["raw_objects"] == 1
    assert "m1" not in json.dumps([started["payload"], completed["payload"]])
    assert CANARY not in json.dumps([started["payload"], completed["payload"]])
    job = Job(warehouse, job_name="other", source_system="gmail", connection_name="me")
    job.start()
    with pytest.raises(WarehouseBusy):
        Erasure(warehouse, Selection(*GMAIL)).run()


def test_an_erased_message_is_not_read_again(warehouse: Warehouse, sandbox: Sandbox) -> None:
    first, *others = sandbox.live_ids()
    Erasure(warehouse, Selection("gmail", "acct1", (f"gmail:acct1:message:{first}",))).run()
    for options in (IngestOptions(), IngestOptions(since=at(-1e9))):
        sandbox.reset_stats()
        ingestion = Ingestion(
            warehouse,
            lambda: gmail_source(sandbox),
            source_system="gmail",
            connection_name="acct1",
            options=options,
        )
        telemetry = ingestion.dry_run()
        assert telemetry["objects"]["message"] == len(others)
        assert sandbox.stats()["requests"]["messages.get"] == len(others)
        assert_accounted(telemetry)


def test_a_condition_waits_for_the_queue(warehouse: Warehouse) -> None:
    upsert_objects(
        [{"id": "a"}],
        source_system="acme",
        connection_name="acct1",
        object_type="widget",
        idem_key_fn=lambda payload: key(payload["id"]),
        merge=False,
        warehouse=warehouse,
    )
    with pytest.raises(UsageError, match="not merged yet"):
        erase(warehouse, where="true")
    assert erase(warehouse, key("a")).counts["landed_objects"] == 1


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "true; drop table raw_objects",
        "true -- and the rest",
        "true /* and the rest */",
        "1 = 1) or (1 = 1",
        "idem_key in (select idem_key from other)",
        "true) union select 1 from objects where (true",
        "true) limit (1",
        "no_such_column = 1",
        "other.idem_key = 'a'",
        "idem_key = ?",
        "idem_key = 'a",
    ],
)
@pytest.mark.parametrize("dialect", ["duckdb", "bigquery"])
def test_only_a_condition_is_taken_for_one(condition: str, dialect: str) -> None:
    with pytest.raises(UsageError, match="--where: "):
        check_condition(condition, ["idem_key", "payload"], dialect, "--where")
    check_condition(
        "idem_key like 'a;b--c%' or payload is null", ["idem_key", "payload"], dialect, ""
    )


RETENTION = {"retention_days_deleted_payloads": 30, "retention_days_dead_letters": 90}


@on_both_targets
@pytest.mark.slow
def test_what_is_kept_too_long_goes_when_the_project_says_so(
    filled: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="keeps everything for ever"):
        Retention(filled)
    days_ago = {
        days: dt.datetime.now(dt.UTC) - dt.timedelta(days=days) for days in (29, 31, 89, 91)
    }
    for name, days in (("a", 29), ("b", 31)):
        filled.execute(
            "update events.raw_objects set deleted_at = ? where external_id = ?",
            (days_ago[days], name),
        )
    for name, days in (("d", 89), ("e", 91)):
        filled.execute(
            "update events_staging.dead_letters set created_at = ? where external_id = ?",
            (days_ago[days], name),
        )
    monkeypatch.setattr(retention, "retention_days", lambda: RETENTION)
    expected = {"retention_days_deleted_payloads": 1, "retention_days_dead_letters": 1}
    work = Retention(filled)
    assert work.preview() == expected
    work.run()
    assert work.counts == expected
    rows = filled.execute(
        "select external_id from events.raw_objects where payload is null order by external_id"
    )
    assert rows == [("b",)]
    assert filled.execute("select external_id from events_staging.dead_letters") == [("d",)]
    *_, completed = events(filled, work.job.correlation_id)
    assert completed["payload"]["expired"] == expected
    assert Retention(filled).preview() == dict.fromkeys(expected, 0)


@pytest.mark.parametrize("value", ["30", 0, True, 1.5])
def test_a_retention_that_is_no_number_of_days_is_an_error(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"vars": {"retention_days_dead_letters": value}}
    monkeypatch.setattr("yaml.safe_load", lambda text: variables)
    with pytest.raises(ConfigError, match="expected a number of days"):
        retention.retention_days()


def test_the_command_counts_before_it_erases(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    put_objects(warehouse, "gmail:me:message:m1", "gmail:me:message:m2")
    of_connection = ("erase", "--source", "gmail", "--connection", "me")
    code, out, _ = run_main(capsys, *of_connection, "--object", "gmail:me:message:m1", "--dry-run")
    assert code == 0
    assert "raw_objects 1" in out
    assert count(warehouse, "events.event_log") == 0
    for arguments, said in (
        (("--object", "gmail:you:message:m1"), "begins with 'gmail:me:'"),
        (("--where", "true; select 1"), "does not parse"),
        (("--where", "no_such_function(idem_key)"), "erase: --where: "),
    ):
        code, _, err = run_main(capsys, *of_connection, *arguments)
        assert code == 2
        assert said in one_line(err)
    assert run_main(capsys, "erase", "--expired")[0] == 2
    assert run_main(capsys, "erase", "--expired", "--source", "gmail")[0] == 2
    assert run_main(capsys, "erase", "--again")[0] == 2
    code, out, _ = run_main(capsys, *of_connection, "--where", "external_id = 'm2'")
    assert code == 0
    assert "blocks 1" in out
    assert set(stored(warehouse)) == {"m1"}
