"""Bounds, kills, faults and parts of an account."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.errors import SourceError
from loaders.ingestion.ingest import DeadLettered, FetchIncomplete, IngestOptions, PartlyFetched
from loaders.jobs import crashpoints
from loaders.sources.stripe.kinds import KINDS, OBJECT_TYPES
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored
from tests.python.conftest import (
    STRIPE_KEY,
    event_types,
    events,
    run_stripe,
    stripe_source,
)

from .conftest import assert_mirrors, completed, live, position, rows, there

pytestmark = [pytest.mark.usefixtures("merge_only", "stays_open"), pytest.mark.slow]


def test_a_bounded_run_goes_on_where_it_stopped(warehouse: Warehouse, account: Sandbox) -> None:
    account.change_stripe(settle=10_000)
    listed = 0
    for _ in range(60):
        run = completed(run_stripe(warehouse, account, IngestOptions(max_objects=90)))
        listed += sum(
            count for name, count in run.telemetry["objects"].items() if name != "invoice_line"
        )
        if not run.telemetry["has_more"]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert_mirrors(warehouse, account)
    everything = sum(len(account.stripe_objects(name)) for name in KINDS)
    assert listed <= everything + 20


def test_a_bounded_run_moves_along_the_events(warehouse: Warehouse, account: Sandbox) -> None:
    account.change_stripe(settle=10_000)
    completed(run_stripe(warehouse, account))
    account.change_stripe(update={"customer": 8, "charge": 8})
    for _ in range(30):
        if not completed(run_stripe(warehouse, account, IngestOptions(max_objects=5))).telemetry[
            "has_more"
        ]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert_mirrors(warehouse, account)


def test_a_run_out_of_time_gets_on_all_the_same(warehouse: Warehouse, account: Sandbox) -> None:
    some = ("charge", "balance_transaction", "price")
    for _ in range(12):
        options = IngestOptions(max_duration=0.0)
        run = completed(run_stripe(warehouse, account, options, objects=some))
        if not run.telemetry["has_more"]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert_mirrors(warehouse, account, some)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize(
    "point", ["extract.first_object", "land.normalized", "land.loaded", "merge.before"]
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_killed_run_is_gone_on_with(
    warehouse: Warehouse,
    account: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    count: int,
) -> None:
    reached = 0

    def die(name: str) -> None:
        nonlocal reached
        reached += name == point
        if name == point and reached == count:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(crashpoints, "reached", die)
        for _ in range(2):
            try:
                run_stripe(warehouse, account, IngestOptions(batch_size=100))
            except Killed:
                account.change_stripe(update={"charge": 2}, delete={"customer": 1})
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


FAULTS = [
    pytest.param({"status": 429, "retry_after": 0}, id="429"),
    pytest.param({"status": 429, "reason": "lock_timeout"}, id="lock timeout"),
    pytest.param({"status": 409}, id="409"),
    pytest.param({"status": 500}, id="500"),
    pytest.param({"status": 503}, id="503"),
    pytest.param({"drop": True}, id="dropped"),
    pytest.param({"truncate": True}, id="truncated"),
]


@pytest.mark.parametrize("action", FAULTS)
def test_what_passes_is_asked_for_again(
    warehouse: Warehouse, account: Sandbox, action: dict[str, Any]
) -> None:
    account.set_faults([{"match": {"method": "*"}, "times": None, "every": 3, "action": action}])
    run = completed(run_stripe(warehouse, account, max_attempts=12))
    assert run.telemetry["retries"] > 0
    account.set_faults([])
    assert_mirrors(warehouse, account)


def test_a_kind_that_keeps_failing_does_not_stop_the_others(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.set_faults(
        [{"match": {"method": "refunds.list"}, "times": None, "action": {"status": 500}}]
    )
    run = run_stripe(warehouse, account)
    assert isinstance(run.error, PartlyFetched)
    assert run.error.retryable
    assert run.telemetry["failed_objects"] == ["refund"]
    assert_mirrors(warehouse, account, ("charge", "customer", "balance_transaction"))
    account.set_faults([])
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_an_object_that_keeps_failing_is_set_aside_and_retried(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    [bad, good] = account.change_stripe(update={"customer": 2})["affected"]["update"]
    poison = {
        "match": {"method": "customers.get", "id": bad},
        "times": None,
        "action": {"status": 500},
    }
    account.set_faults([poison])
    run = run_stripe(warehouse, account)
    assert isinstance(run.error, FetchIncomplete)
    assert run.telemetry["unfetched"] == 1
    assert live(warehouse, "customer")[good] == there(account, "customer")[good]
    run = run_stripe(warehouse, account)
    assert isinstance(run.error, DeadLettered)
    assert run.telemetry["new_dead_letters"] == 1
    completed(run_stripe(warehouse, account))
    account.set_faults([])
    run = completed(run_stripe(warehouse, account, IngestOptions(retry=True)))
    assert run.telemetry["mode"] == "retry"
    assert run.counts == {"updated": 1}
    assert not Stored(warehouse, "stripe", "acct1").dead_letters()
    assert_mirrors(warehouse, account)


def test_an_object_whose_answer_is_no_json_is_never_set_aside(
    warehouse: Warehouse, account: Sandbox
) -> None:
    completed(run_stripe(warehouse, account))
    [bad, _] = account.change_stripe(update={"customer": 2})["affected"]["update"]
    match = {"method": "customers.get", "id": bad}
    account.set_faults([{"match": match, "times": None, "action": {"body": "<html>"}}])
    for _ in range(3):
        run = run_stripe(warehouse, account)
        assert isinstance(run.error, FetchIncomplete)
        assert (run.telemetry["unfetched"], run.telemetry["dead_lettered"]) == (1, 0)
    account.set_faults([])
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_an_outage_sets_nothing_aside(warehouse: Warehouse, account: Sandbox) -> None:
    completed(run_stripe(warehouse, account))
    account.change_stripe(update={"customer": 12, "charge": 12})
    for _ in range(2):
        # Down after the first answers of each run.
        account.set_faults(
            [
                {
                    "match": {"method": name},
                    "skip": skip,
                    "times": None,
                    "action": {"status": 503},
                }
                for name, skip in (("customers.get", 0), ("charges.get", 0), ("account.get", 1))
            ]
        )
        assert run_stripe(warehouse, account, max_attempts=2).error is not None
    account.set_faults([])
    completed(run_stripe(warehouse, account))
    assert not Stored(warehouse, "stripe", "acct1").dead_letters()
    assert_mirrors(warehouse, account)


def test_the_page_to_go_on_after_may_be_deleted_meanwhile(
    warehouse: Warehouse, account: Sandbox
) -> None:
    account.change_stripe(create={"customer": 250})
    customers = list(account.stripe_objects("customer").values())
    customers.sort(key=lambda value: -value["created"])
    account.schedule(
        [
            {
                "after": {"method": "customers.list", "count": 1},
                "stripe_changes": {
                    "delete": {"customer": [value["id"] for value in customers[90:110]]}
                },
            }
        ]
    )
    completed(run_stripe(warehouse, account, workers=1))
    account.schedule([])
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_a_list_that_does_not_advance_is_noticed(warehouse: Warehouse, account: Sandbox) -> None:
    charge = next(iter(account.stripe_objects("charge").values()))
    page = {"object": "list", "data": [charge], "has_more": True, "url": "/v1/charges"}
    account.set_faults(
        [{"match": {"method": "charges.list"}, "times": None, "action": {"json": page}}]
    )
    run = run_stripe(warehouse, account, objects=("charge",))
    assert isinstance(run.error, PartlyFetched)
    assert "does not advance" in str(run.error)


@pytest.mark.parametrize("key", ["sk_test_expired1234567890", "sk_of_something_else_1234"])
def test_a_key_that_is_not_accepted_ends_the_run(
    warehouse: Warehouse, account: Sandbox, key: str
) -> None:
    run = run_stripe(warehouse, account, api_key=key)
    assert isinstance(run.error, SourceError)
    assert "sources.stripe.acct1.api_key" in str(run.error)
    assert event_types(warehouse, run.correlation_id) == [
        "job.started",
        "ingestion.failed",
        "job.failed",
    ]
    everything = json.dumps(events(warehouse), default=str)
    assert key not in everything


def test_the_rate_limit_is_kept(warehouse: Warehouse, account: Sandbox) -> None:
    account.settings(stripe_limit={"per_second": 40})
    run = completed(
        run_stripe(warehouse, account, requests_per_second=36.0, endpoint_requests_per_second=25.0)
    )
    assert account.stats()["refused"] == 0
    assert run.telemetry["retries"] == 0
    assert_mirrors(warehouse, account)


def test_dates_bound_a_run_and_leave_the_positions_alone(
    warehouse: Warehouse, account: Sandbox
) -> None:
    charges = account.stripe_objects("charge")
    times = sorted(value["created"] for value in charges.values())
    since, until = times[20], times[40]
    options = IngestOptions(
        since=dt.datetime.fromtimestamp(since, dt.UTC),
        until=dt.datetime.fromtimestamp(until, dt.UTC),
    )
    completed(run_stripe(warehouse, account, options))
    assert set(rows(warehouse, "charge")) == {
        key for key, value in charges.items() if since <= value["created"] < until
    }
    assert position(warehouse, "charge") is None
    completed(run_stripe(warehouse, account))
    assert_mirrors(warehouse, account)


def test_runs_between_the_same_dates_go_on_with_each_other(
    warehouse: Warehouse, account: Sandbox
) -> None:
    since = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    options = IngestOptions(since=since, max_objects=60)
    listed = 0
    for _ in range(10):
        run = completed(run_stripe(warehouse, account, options, objects=("charge", "customer")))
        listed += run.telemetry["records_landed"]
        if not run.telemetry["has_more"]:
            break
    else:
        pytest.fail("the runs come to no end")
    assert listed == len(account.stripe_objects("charge")) + len(account.stripe_objects("customer"))
    assert_mirrors(warehouse, account, ("charge", "customer"))


def test_a_bound_that_is_not_met_leaves_nothing(warehouse: Warehouse, account: Sandbox) -> None:
    some = ("customer", "product", "dispute", "payout")
    options = IngestOptions(max_objects=150)
    assert not completed(run_stripe(warehouse, account, options, objects=some)).telemetry[
        "has_more"
    ]
    assert_mirrors(warehouse, account, some)


def test_a_dry_run_counts_and_writes_nothing(warehouse: Warehouse, account: Sandbox) -> None:
    from loaders.ingestion.ingest import Ingestion

    def dry_run(options: IngestOptions) -> dict[str, Any]:
        return Ingestion(
            warehouse,
            lambda: stripe_source(account),
            source_system="stripe",
            connection_name="acct1",
            options=options,
        ).dry_run()

    everything = sum(len(account.stripe_objects(name)) for name in OBJECT_TYPES)
    assert dry_run(IngestOptions())["records_landed"] == everything
    assert not rows(warehouse, "charge")
    completed(run_stripe(warehouse, account))
    account.reset_stats()
    assert dry_run(IngestOptions(full_resync=True))["records_landed"] >= everything
    assert "products.get" not in account.stats()["requests"]


def test_payloads_are_what_the_api_sent(warehouse: Warehouse, account: Sandbox) -> None:
    """Key order, number literals and texts; whitespace apart."""
    import requests

    completed(run_stripe(warehouse, account, objects=("product", "price")))
    for kind, path in (("product", "products"), ("price", "prices")):
        sent = []
        for query in (
            ("?limit=100", "?limit=100&active=false") if kind == "price" else ("?limit=100",)
        ):
            address = f"{account.base_url}/v1/{path}{query}"
            answer = requests.get(address, auth=(STRIPE_KEY, ""), timeout=10)
            sent += json.loads(answer.content, parse_float=str)["data"]
        stored = [
            json.loads(row["payload"], parse_float=str) for row in rows(warehouse, kind).values()
        ]
        order = {json.dumps(value) for value in sent}
        assert {json.dumps(value) for value in stored} == order
