"""The brake on mass deletions, whatever tells of them: one run buries so many, or none at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.deletions import FEW, Brake, DeletionsHeldBack
from loaders.ingestion.ingest import IngestOptions
from loaders.objects.items import Cursor, Deleted, Item, Land, Listed, ObservationClock, Observed
from loaders.sources.contract import FetchOptions, FetchRequest, Usage
from loaders.warehouse.base import Warehouse
from loaders.warehouse.contents import Stored

from .conftest import (
    DUCKDB,
    Run,
    assert_accounted,
    at,
    cursor_item,
    events,
    on_emulator,
    run_gmail,
    run_stripe,
    stored,
)
from .gmail_sync import conftest as gmail_sync
from .gmail_sync.conftest import mailbox as mailbox
from .stripe_sync import conftest as stripe_sync
from .stripe_sync.conftest import account as account
from .stripe_sync.conftest import rows
from .stripe_sync.test_changes import DAY

pytestmark = pytest.mark.usefixtures("stays_open")

MANY = FEW + 2


@pytest.fixture
def request_() -> FetchRequest:
    class Held:
        @staticmethod
        def held_ids(object_type: str) -> Iterator[tuple[str, bool]]:
            return ((f"{object_type}{n}", True) for n in range(200))

    return FetchRequest(
        clock=ObservationClock(),
        usage=Usage(),
        stored=cast(Stored, Held),
        cancelled=threading.Event(),
    )


def deletions(count: int, object_type: str = "widget", *, with_owner: bool = False) -> list[Item]:
    return [
        Deleted(object_type, f"{object_type}{n}", at(n), with_owner=with_owner)
        for n in range(count)
    ]


def guarded(request: FetchRequest, items: Sequence[Item]) -> tuple[list[Item], Brake]:
    brake = Brake(request)
    return list(brake.guard(items)), brake


STATE = Observed("widget", '{"id":"x"}', at(0), "x")


@pytest.mark.parametrize(
    ("count", "percent", "is_held_back"),
    [(10, 0.0, False), (10, 5.0, False), (11, 5.0, True), (11, 5.5, False), (12, 5.5, True),
     (100, 50.0, False), (101, 50.0, True), (200, 100.0, False), (11, 0.0, True)],
)  # fmt: skip
def test_more_than_ten_and_more_than_the_share_are_held_back(
    request_: FetchRequest, count: int, percent: float, is_held_back: bool
) -> None:
    request_.outcome.max_deletions_percent = percent
    gone = deletions(count)
    items, brake = guarded(request_, gone)
    assert brake.vanished == ({"widget": (count, 200)} if is_held_back else {})
    assert items == ([Listed(-count)] if is_held_back else gone)


def test_nothing_is_buried_and_no_cursor_behind_it_lands(request_: FetchRequest) -> None:
    before, after = cursor_item(1, n=1), cursor_item(2, n=2)
    stream = [before, *deletions(MANY), after, STATE, Land(), *deletions(1, "other")]
    items, brake = guarded(request_, stream)
    assert items == [before, STATE, Land(), Listed(-MANY - 1)]
    assert list(brake.vanished) == ["widget"]


def test_what_is_believed_lands_before_the_cursors_that_cover_it(request_: FetchRequest) -> None:
    gone, others = deletions(3), deletions(3, "other")
    cursors = [cursor_item(2, n=2), Cursor("labels", {}, at(3)), cursor_item(4, n=4)]
    items, _ = guarded(request_, [*gone, cursors[0], *others, *cursors[1:], STATE])
    assert items == [STATE, *gone, *others, cursors[2], cursors[1]]


def test_a_deletion_that_is_told_twice_counts_once(request_: FetchRequest) -> None:
    items, brake = guarded(request_, [*deletions(6), *deletions(6)])
    assert items == [*[Listed(-1)] * 6, *deletions(6)]
    assert not brake.vanished


def test_parts_that_go_with_their_owner_do_not_count(request_: FetchRequest) -> None:
    parts = deletions(150, with_owner=True)
    assert guarded(request_, parts)[0] == parts
    twice = [*deletions(150), *parts]
    assert guarded(request_, twice)[0] == [*[Listed(-1)] * 150, *parts]


@pytest.mark.parametrize("option", ["accept_deletions", "dry_run"])
def test_what_is_accepted_passes_as_it_comes(request_: FetchRequest, option: str) -> None:
    stream = [*deletions(MANY), cursor_item(1, n=1), STATE]
    if option == "dry_run":
        request_.dry_run = True
    else:
        request_.options = FetchOptions(accept_deletions=True)
    assert guarded(request_, stream)[0] == stream


# ---- whole runs


def expire(mailbox: Sandbox, done: dict[str, Any]) -> None:
    mailbox.settings(history_expired_before=done["history_id"])


def of_gmail(
    change: Callable[[Sandbox, list[str]], dict[str, Any]],
    then: Callable[[Sandbox, dict[str, Any]], None] = lambda *_: None,
) -> Callable[[Sandbox], str]:
    def vanish(mailbox: Sandbox) -> str:
        then(mailbox, change(mailbox, mailbox.live_ids()[:MANY]))
        return "message"

    return vanish


def delete(mailbox: Sandbox, ids: list[str]) -> dict[str, Any]:
    return mailbox.change(delete=ids, deliver=2)


def unreadable(mailbox: Sandbox, ids: list[str]) -> dict[str, Any]:
    """Relabelled, so that they are read again; then they are not there."""
    done = mailbox.change(labels={"ids": ids, "add": ["STARRED", "Label_2"]}, deliver=2)
    mailbox.set_faults(
        [
            {
                "match": {"method": "messages.get", "id": each},
                "times": None,
                "action": {"status": 404, "reason": "notFound"},
            }
            for each in ids
        ]
    )
    return done


GMAIL: dict[str, tuple[Callable[[Sandbox], str], dict[str, Any]]] = {
    "history": (of_gmail(delete), {}),
    "the trash": (
        of_gmail(lambda box, ids: box.change(labels={"ids": ids, "add": ["TRASH"]}, deliver=2)),
        {},
    ),
    "404": (of_gmail(unreadable), {}),
    "a resync": (of_gmail(delete, expire), {}),
    "a full resync": (of_gmail(delete), {"full_resync": True}),
}


def changed(account: Sandbox, **changes: Any) -> None:
    account.change_stripe(create={"charge": 2}, **changes)


def by_events(account: Sandbox) -> str:
    changed(account, delete={"customer": MANY})
    return "customer"


def by_lists(account: Sandbox) -> str:
    """The feed does not go back so far."""
    changed(account, delete={"customer": MANY})
    account.settings(stripe_clock_offset=40 * DAY)
    return "customer"


def by_missing_invoices(account: Sandbox) -> str:
    changed(account, delete={"invoice": MANY})
    return "invoice"


STRIPE: dict[str, tuple[Callable[[Sandbox], str], dict[str, Any]]] = {
    "events": (by_events, {}),
    "lists": (by_lists, {}),
    "a full resync": (by_events, {"full_resync": True}),
    "invoices and their lines": (by_missing_invoices, {}),
}
CASES = [
    pytest.param(source, *case, id=f"{source}-{name}")
    for source, cases in (("gmail", GMAIL), ("stripe", STRIPE))
    for name, case in cases.items()
]


def live_ids(warehouse: Warehouse, source: str, object_type: str) -> set[str]:
    if source == "stripe":
        return set(stripe_sync.live(warehouse, object_type))
    return set(gmail_sync.live(warehouse))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("merge_only")
@pytest.mark.parametrize(("source", "vanish", "options"), CASES)
def test_a_mass_deletion_fails_every_run_until_it_is_accepted(
    warehouse: Warehouse,
    mailbox: Sandbox,
    account: Sandbox,
    source: str,
    vanish: Callable[[Sandbox], str],
    options: dict[str, Any],
) -> None:
    sandbox = mailbox if source == "gmail" else account

    def run(**more: Any) -> Run:
        asked = IngestOptions(**{**options, **more})
        return (run_gmail if source == "gmail" else run_stripe)(warehouse, sandbox, asked)

    assert run(full_resync=False).error is None
    object_type = vanish(sandbox)
    held = live_ids(warehouse, source, object_type)
    for attempt in range(2):
        # What is read whole once more is gone on with by the next run.
        failed = run(full_resync=options.get("full_resync", False) and attempt == 0)
        assert isinstance(failed.error, DeletionsHeldBack), failed.error
        assert f"{object_type} object(s) vanished at once" in str(failed.error)
        command = f"run.py {source} --connection acct1 --accept-deletions"
        assert str(failed.error).endswith(command)
        assert_accounted(failed.telemetry)
        [event] = [
            one
            for one in events(warehouse, failed.correlation_id)
            if one["event_type"] == "job.failed"
        ]
        assert event["payload"]["error_type"] == "DeletionsHeldBack"
        assert event["payload"]["retryable"] is False
        assert "deleted" not in failed.counts
        assert live_ids(warehouse, source, object_type) >= held
        if attempt == 0:
            assert str(failed.error).startswith(f"{MANY} of {len(held)} ")
            assert failed.counts["inserted"]  # all else is stored
    accepted = run(accept_deletions=True, full_resync=False)
    assert accepted.error is None, accepted.error
    assert accepted.counts["deleted"] >= MANY
    assert len(held - live_ids(warehouse, source, object_type)) == MANY
    again = run(full_resync=False)
    assert again.error is None
    assert "deleted" not in again.counts


@pytest.mark.slow
@pytest.mark.usefixtures("merge_only")
@pytest.mark.parametrize(
    ("target_type", "source"),
    [(DUCKDB, "gmail"), (DUCKDB, "stripe"), on_emulator("gmail")],
    indirect=["target_type"],
)
def test_a_connection_may_allow_more(
    warehouse: Warehouse, mailbox: Sandbox, account: Sandbox, source: str
) -> None:
    if source == "gmail":
        run_gmail(warehouse, mailbox)
        delete(mailbox, mailbox.live_ids()[:MANY])
        assert isinstance(run_gmail(warehouse, mailbox).error, DeletionsHeldBack)
        run = run_gmail(warehouse, mailbox, max_deletions_percent=100.0)
    else:
        run_stripe(warehouse, account)
        by_events(account)
        assert isinstance(run_stripe(warehouse, account).error, DeletionsHeldBack)
        run = run_stripe(warehouse, account, max_deletions_percent=100.0)
    assert run.error is None
    assert run.counts["deleted"] == MANY
    assert sum(row["deleted_at"] is not None for row in stored(warehouse).values()) == MANY


@pytest.mark.slow
@pytest.mark.usefixtures("merge_only")
def test_lines_that_an_invoice_has_no_more_are_its_own_word(
    warehouse: Warehouse, account: Sandbox
) -> None:
    [invoice] = account.change_stripe(create={"invoice": 1})["affected"]["create"]
    account.change_stripe(add_lines={invoice: 40})
    run_stripe(warehouse, account)
    account.change_stripe(remove_lines={invoice: 30})
    run = run_stripe(warehouse, account)
    assert run.error is None
    lines = rows(warehouse, "invoice_line").items()
    gone = [key for key, row in lines if key.startswith(invoice) and row["deleted_at"]]
    assert len(gone) == 30
