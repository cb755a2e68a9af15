"""What a fault of an API costs a run, what its log says, and that the next run makes it good."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

from .conftest import (
    LABELS,
    Run,
    assert_accounted,
    event_types,
    events,
    gmail_source,
    run_gmail,
    run_stripe,
    stored,
)
from .stripe_sync.conftest import assert_mirrors, position
from .test_ingest_gmail import dead_letters, is_complete

pytestmark = [pytest.mark.usefixtures("core_build"), pytest.mark.slow]

HTML = {"status": 200, "body": "<html>Sign in as ann.content@example.com</html>"}
ENDED_WELL = ["job.started", "ingestion.completed", "job.completed"]
REFUSED = ["job.started", "ingestion.failed", "job.failed"]
LANDED = ["job.started", "ingestion.completed", "job.failed"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong with every call of a method, and what job.failed says of it."""

    method: str
    action: dict[str, Any]
    error_type: str = "TransientSourceError"
    retryable: bool = True
    skip: int = 0

    def rule(self) -> dict[str, Any]:
        match = {"method": self.method}
        return {"match": match, "times": None, "skip": self.skip, "action": self.action}


def refused(method: str, status: int, reason: str, **options: Any) -> Fault:
    action = {"status": status, "reason": reason}
    return Fault(method, action, **{"error_type": "SourceError", "retryable": False, **options})


def assert_failed(warehouse: Warehouse, run: Run, fault: Fault, types: list[str]) -> None:
    """One line, exit code 1, and a row that says the same."""
    assert run.error is not None, fault
    assert run.error.exit_code == 1
    assert event_types(warehouse, run.correlation_id) == types, fault
    failed = events(warehouse, run.correlation_id)[-1]
    assert failed["error_message"] == str(run.error)
    assert "\n" not in failed["error_message"]
    assert "ann.content" not in failed["error_message"]
    said = failed["payload"]
    assert (said["error_type"], said["retryable"]) == (fault.error_type, fault.retryable), fault


def assert_stored_once(warehouse: Warehouse, ids: set[str]) -> None:
    """Every message, each in one row."""
    assert set(stored(warehouse)) == ids
    [(count,)] = warehouse.execute(
        "select count(*) from events.raw_objects where object_type = 'message'"
    )
    assert count == len(ids)


GMAIL = {
    "401": refused("getProfile", 401, "authError"),
    "401 midway": refused("messages.get", 401, "authError", skip=12),
    "403 scope": refused("getProfile", 403, "insufficientPermissions"),
    "403 domain policy": refused("messages.list", 403, "domainPolicy"),
    "403 daily limit": Fault("messages.get", {"status": 403, "reason": "dailyLimitExceeded"}),
    "404 of a proxy": Fault("messages.get", {**HTML, "status": 404}),
    "409": Fault("messages.list", {"status": 409, "reason": "aborted"}),
    "429": Fault("messages.list", {"status": 429}),
    "500 of the history": Fault("history.list", {"status": 500}),
    "502 of a proxy": Fault("messages.list", {**HTML, "status": 502}),
    "503": Fault("labels.list", {"status": 503}),
    "a proxy's page": Fault("messages.get", HTML),
    "a proxy's list": Fault("messages.list", HTML, "ForeignAnswer"),
    "reset": Fault("messages.get", {"reset": True}),
    "cut off": Fault("messages.list", {"truncate": True}),
    "no answer": Fault("getProfile", {"latency": 0.5}),
    "no end": Fault("messages.list", {"json": {"nextPageToken": "again"}}),
}


def test_no_fault_of_gmail_loses_or_doubles_a_message(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    """One after the other against the same warehouse; what some of them land stays."""
    options = IngestOptions(batch_size=5)
    for fault in GMAIL.values():
        sandbox.set_faults([fault.rule()])
        timeout = 0.2 if "latency" in fault.action else 10.0
        run = run_gmail(warehouse, sandbox, options, max_attempts=2, timeout_seconds=timeout)
        assert_failed(warehouse, run, fault, REFUSED)
        assert not is_complete(warehouse), fault
    sandbox.set_faults([])
    run = run_gmail(warehouse, sandbox, options)
    assert run.error is None
    assert_accounted(run.telemetry)
    assert_stored_once(warehouse, set(sandbox.live_ids()))
    assert dead_letters(warehouse) == []
    assert is_complete(warehouse)


def test_a_proxy_that_comes_between_midway_sets_no_message_aside(
    warehouse: Warehouse, sandbox: Sandbox
) -> None:
    sandbox.set_faults([Fault("messages.get", HTML, skip=10).rule()])
    for _ in range(2):  # what fails twice is set aside, where others can be read
        run = run_gmail(warehouse, sandbox)
        assert run.error is not None
        assert run.error.retryable
        assert not is_complete(warehouse)
    sandbox.set_faults([])
    assert run_gmail(warehouse, sandbox).error is None
    assert_stored_once(warehouse, set(sandbox.live_ids()))
    assert dead_letters(warehouse) == []


def test_an_id_on_two_pages_of_gmail_is_read_once(warehouse: Warehouse, sandbox: Sandbox) -> None:
    ids = sandbox.live_ids()[:3]
    pages = [
        {"messages": [{"id": key} for key in ids[:2]], "nextPageToken": "t"},
        {"messages": [{"id": key} for key in ids[1:]]},
    ]
    match = {"method": "messages.list"}
    sandbox.set_faults([{"match": match, "action": {"json": page}} for page in pages])
    ingestion = Ingestion(
        warehouse,
        lambda: gmail_source(sandbox),
        source_system="gmail",
        connection_name="acct1",
        options=IngestOptions(),
    )
    telemetry = ingestion.dry_run()
    assert telemetry["records_extracted"] == 3 + LABELS
    assert sandbox.stats()["requests"]["messages.get"] == 3


# ---- Stripe


@pytest.fixture
def account() -> Iterator[Sandbox]:
    """An account of the test's own, to change."""
    with Sandbox(size=1, charges=5, seed=7) as made:
        yield made


PARTLY = "PartlyFetched"
STRIPE = {
    "401": (refused("account.get", 401, "api_key_expired", error_type="KeyRefused"), REFUSED),
    "403 account": (refused("account.get", 403, "account_invalid"), REFUSED),
    "502 of a proxy": (Fault("*", {**HTML, "status": 502}), REFUSED),
    "a proxy's page": (Fault("account.get", HTML, "ForeignAnswer"), REFUSED),
    "no answer": (Fault("account.get", {"latency": 0.5}), REFUSED),
    "403": (refused("charges.list", 403, "", error_type=PARTLY), LANDED),
    "409": (Fault("charges.list", {"status": 409}, PARTLY), LANDED),
    "a proxy's list": (Fault("charges.list", HTML, PARTLY), LANDED),
    "reset": (Fault("charges.list", {"reset": True}, PARTLY), LANDED),
    "empty and more": (
        Fault("charges.list", {"json": {"data": [], "has_more": True}}, PARTLY),
        LANDED,
    ),
}


def test_no_fault_of_stripe_loses_or_doubles_an_object(
    warehouse: Warehouse, account: Sandbox
) -> None:
    for fault, types in STRIPE.values():
        account.set_faults([fault.rule()])
        timeout = 0.2 if "latency" in fault.action else 10.0
        run = run_stripe(
            warehouse, account, max_attempts=2, timeout_seconds=timeout, objects=("charge",)
        )
        assert_failed(warehouse, run, fault, types)
        found = position(warehouse, "charge")
        assert found is None or found.is_listing, fault
    account.set_faults([])
    run = run_stripe(warehouse, account, objects=("charge",))
    assert run.error is None
    assert_accounted(run.telemetry)
    assert_mirrors(warehouse, account, ("charge",))
    [(rows, keys)] = warehouse.execute(
        "select count(*), count(distinct idem_key) from events.raw_objects"
    )
    assert rows == keys
    assert Stored(warehouse, "stripe", "acct1").dead_letters() == []


def test_an_object_on_two_pages_of_stripe_is_stored_once(
    warehouse: Warehouse, account: Sandbox
) -> None:
    """As when another object is created while the list is being read."""
    charges = list(account.stripe_objects("charge").values())[:3]
    pages = [
        {"object": "list", "data": charges[:2], "has_more": True, "url": "/v1/charges"},
        {"object": "list", "data": charges[1:], "has_more": False, "url": "/v1/charges"},
    ]
    match = {"method": "charges.list"}
    account.set_faults([{"match": match, "action": {"json": page}} for page in pages])
    run = run_stripe(warehouse, account, objects=("charge",))
    assert run.error is None
    assert run.counts == {"inserted": 3}
    assert_accounted(run.telemetry)
    assert event_types(warehouse, run.correlation_id) == ENDED_WELL
    assert run_stripe(warehouse, account, objects=("charge",)).error is None
    assert len(stored(warehouse)) == 3
