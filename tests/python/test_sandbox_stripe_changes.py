"""What changes in the sandbox's Stripe account, and the events that tell of it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from landfall_sandbox.controls import Sandbox, SandboxError
from tests.python.test_sandbox_stripe import (
    KINDS,
    client,
    error,
    fetch_all,
    get,
    ids,
    list_whole,
    stable,
)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(size=0, charges=120, seed=4) as sandbox:
        yield sandbox


def change(sandbox: Sandbox, **changes: Any) -> dict[str, list[str]]:
    affected: dict[str, list[str]] = sandbox.change_stripe(**changes)["affected"]
    return affected


def types(sandbox: Sandbox) -> list[str]:
    """The types of all events, oldest first."""
    return [event["type"] for event in reversed(fetch_all(sandbox, "events"))]


def test_created_objects_come_first_with_their_events(sandbox: Sandbox) -> None:
    before = int(time.time())
    created = change(sandbox, create=dict.fromkeys(KINDS, 1))["create"]
    for object_id, (kind, (plural, _)) in zip(created, KINDS.items(), strict=True):
        newest = list_whole(sandbox, kind)[0]
        assert newest["object"] == kind
        assert newest["created"] >= before
        assert get(sandbox, f"{plural}/{object_id}")["id"] == object_id
        assert ids(list_whole(sandbox, kind, 9)) == list(sandbox.stripe_objects(kind))
    emitted = types(sandbox)
    for expected in (
        "charge.succeeded",
        "customer.created",
        "invoice.created",
        "payment_intent.created",
        "refund.created",
        "charge.refunded",
        "charge.dispute.created",
        "payout.created",
        "product.created",
        "price.created",
        "customer.subscription.created",
    ):
        assert expected in emitted
    objects = {kind: sandbox.stripe_objects(kind) for kind in KINDS}
    for charge in list(objects["charge"].values())[:3]:
        assert objects["payment_intent"][charge["payment_intent"]]["latest_charge"] == charge["id"]
        assert objects["balance_transaction"][charge["balance_transaction"]]["status"] == "pending"
        assert charge["customer"] in objects["customer"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "balance_transaction"])
def test_an_update_tells_what_was_before(sandbox: Sandbox, kind: str) -> None:
    object_id = next(iter(sandbox.stripe_objects(kind)))
    before = sandbox.stripe_objects(kind)[object_id]
    assert change(sandbox, update={kind: [object_id]}) == {"update": [object_id]}
    after = get(sandbox, f"{KINDS[kind][0]}/{object_id}")
    assert stable(after) != stable(before)
    assert after["metadata"].keys() - before["metadata"].keys() == {"revision"}
    (event,) = fetch_all(sandbox, "events")
    assert stable(event["data"]["object"]) == stable(after)
    assert event["data"]["previous_attributes"]["metadata"] == {"revision": None}
    assert event["api_version"] < "2026"
    assert get(sandbox, f"events/{event['id']}") == event
    assert get(sandbox, f"events/{event['id']}") == event  # signed addresses too


def test_a_silent_update_has_no_event(sandbox: Sandbox) -> None:
    changed = change(sandbox, update_silently=dict.fromkeys(KINDS, 2))["update_silently"]
    assert len(set(changed)) == 2 * len(KINDS)
    assert types(sandbox) == []
    with pytest.raises(SandboxError, match="balance_transaction"):
        change(sandbox, update={"balance_transaction": 1})


def test_deleted_objects_leave_the_lists(sandbox: Sandbox) -> None:
    for kind in ("customer", "product", "price", "invoice"):
        plural = KINDS[kind][0]
        gone = change(sandbox, delete={kind: 2})["delete"]
        assert sandbox.stripe_deleted(kind) == gone
        assert not set(gone) & set(ids(fetch_all(sandbox, plural)))
        assert not set(gone) & sandbox.stripe_objects(kind).keys()
        cursor = error(sandbox, f"{plural}?starting_after={gone[0]}")
        assert (cursor[0], cursor[1]["code"]) == (400, "resource_missing")
        if kind == "customer":
            tombstone = {"id": gone[0], "object": "customer", "deleted": True}
            assert get(sandbox, f"customers/{gone[0]}") == tombstone
            charge = fetch_all(sandbox, f"charges?customer={gone[0]}")[0]
            expanded = get(sandbox, f"charges/{charge['id']}?expand[]=customer")
            assert expanded["customer"] == tombstone
            assert client(sandbox).v1.customers.retrieve(gone[0]).deleted
        else:
            assert error(sandbox, f"{plural}/{gone[0]}")[0] == 404
        assert types(sandbox)[-1] == f"{kind}.deleted"
        with pytest.raises(SandboxError, match="no such"):
            change(sandbox, delete={kind: gone})


def test_a_deleted_subscription_is_canceled(sandbox: Sandbox) -> None:
    (gone,) = change(sandbox, delete={"subscription": 1})["delete"]
    subscription = get(sandbox, f"subscriptions/{gone}")
    assert (subscription["status"], subscription["ended_at"] is None) == ("canceled", False)
    assert gone not in ids(fetch_all(sandbox, "subscriptions"))
    assert gone in ids(fetch_all(sandbox, "subscriptions?status=canceled"))
    assert types(sandbox) == ["customer.subscription.deleted"]
    assert sandbox.stripe_deleted("subscription") == []


def test_a_refund_changes_its_charge(sandbox: Sandbox) -> None:
    charges = sandbox.stripe_objects("charge").values()
    charge = next(each for each in charges if each["paid"] and not each["amount_refunded"])
    (refund_id,) = change(sandbox, refund=[charge["id"]])["refund"]
    refund = get(sandbox, f"refunds/{refund_id}?expand[]=balance_transaction")
    assert (refund["charge"], refund["amount"]) == (charge["id"], charge["amount"])
    assert refund["balance_transaction"]["type"] == "refund"
    assert refund["balance_transaction"]["status"] == "pending"
    assert get(sandbox, f"charges/{charge['id']}")["refunded"]
    assert types(sandbox) == ["refund.created", "charge.refunded"]
    assert ids(fetch_all(sandbox, f"refunds?charge={charge['id']}")) == [refund_id]
    with pytest.raises(SandboxError, match="cannot happen"):
        change(sandbox, refund=[charge["id"]])
    disputes = change(sandbox, refund=3, dispute=2, payout=1)["dispute"]
    assert len(disputes) == 2
    change(sandbox, settle=100)
    dispute = get(sandbox, f"disputes/{disputes[0]}")
    (transaction,) = dispute["balance_transactions"]
    assert transaction == get(sandbox, f"balance_transactions/{transaction['id']}")
    assert transaction["status"] == "available"


def test_settling_has_no_event(sandbox: Sandbox) -> None:
    def pending() -> set[str]:
        transactions = sandbox.stripe_objects("balance_transaction").values()
        return {each["id"] for each in transactions if each["status"] == "pending"}

    change(sandbox, create={"charge": 1})
    emitted, before = types(sandbox), pending()
    assert len(before) > 2
    first = change(sandbox, settle=1)["settle"]
    assert pending() == before - set(first)
    rest = change(sandbox, settle=sorted(before))["settle"]
    assert {*first, *rest} == before
    assert pending() == set()
    assert types(sandbox) == emitted


def test_lines_come_and_go(sandbox: Sandbox) -> None:
    (invoice_id,) = change(sandbox, create={"invoice": 1})["create"]
    added = change(sandbox, add_lines={invoice_id: 12})["add_lines"]
    lines = fetch_all(sandbox, f"invoices/{invoice_id}/lines", 5)
    assert ids(lines)[2:] == added
    invoice = get(sandbox, f"invoices/{invoice_id}")
    assert (invoice["lines"]["total_count"], len(invoice["lines"]["data"])) == (14, 10)
    assert invoice["total"] == sum(line["amount"] for line in lines)
    change(sandbox, remove_lines={invoice_id: 2})
    change(sandbox, remove_lines={invoice_id: added[:3]})
    assert ids(fetch_all(sandbox, f"invoices/{invoice_id}/lines")) == added[3:]
    expected = {f"{invoice_id}:{line_id}" for line_id in added[3:]}
    assert expected <= sandbox.stripe_objects("invoice_line").keys()
    events = fetch_all(sandbox, "events?type=invoice.updated")
    assert len(events) == 3
    assert "lines" in events[0]["data"]["previous_attributes"]
    with pytest.raises(SandboxError, match="no such line"):
        change(sandbox, remove_lines={invoice_id: added[:1]})


def test_an_invoice_is_finalized_and_paid(sandbox: Sandbox) -> None:
    (invoice_id,) = change(sandbox, create={"invoice": 1})["create"]
    assert change(sandbox, finalize=[invoice_id]) == {"finalize": [invoice_id]}
    urls = {get(sandbox, f"invoices/{invoice_id}")["hosted_invoice_url"] for _ in range(2)}
    assert len(urls) == 2
    change(sandbox, pay=[invoice_id])
    invoice = get(sandbox, f"invoices/{invoice_id}")
    assert (invoice["status"], invoice["amount_remaining"]) == ("paid", 0)
    assert types(sandbox)[1:] == [
        "invoice.updated",
        "invoice.finalized",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]
    with pytest.raises(SandboxError, match="expected one of"):
        change(sandbox, pay=[invoice_id])


def test_events_are_chosen_by_type(sandbox: Sandbox) -> None:
    change(sandbox, create={"customer": 1, "charge": 2}, delete={"customer": 1})
    assert {event["type"] for event in fetch_all(sandbox, "events?type=customer.*")} == {
        "customer.created",
        "customer.deleted",
    }
    chosen = fetch_all(sandbox, "events?types[]=charge.succeeded&types[]=customer.deleted", 1)
    assert [event["type"] for event in chosen] == ["customer.deleted"] + ["charge.succeeded"] * 2
    listed = client(sandbox).v1.events.list({"types": ["customer.created"]})
    assert [event.type for event in listed.data] == ["customer.created"]


def test_events_are_kept_for_thirty_days(sandbox: Sandbox) -> None:
    change(sandbox, update={"customer": 2})
    first, second = fetch_all(sandbox, "events")
    sandbox.settings(stripe_clock_offset=29 * 86_400)
    change(sandbox, update={"customer": 1})
    third = fetch_all(sandbox, "events")[0]
    assert ids(fetch_all(sandbox, "events")) == [third["id"], first["id"], second["id"]]
    assert third["created"] > time.time() + 28 * 86_400
    sandbox.settings(stripe_clock_offset=31 * 86_400)
    assert ids(fetch_all(sandbox, "events")) == [third["id"]]
    assert error(sandbox, f"events/{first['id']}")[0] == 404
    status, answer = error(sandbox, f"events?starting_after={first['id']}")
    assert (status, answer["code"]) == (400, "resource_missing")


def test_late_events_show_up_later_than_they_say(sandbox: Sandbox) -> None:
    sandbox.settings(stripe_late_events=60)
    change(sandbox, update={"customer": 1})
    assert fetch_all(sandbox, "events") == []
    sandbox.settings(stripe_clock_offset=61)
    assert types(sandbox) == ["customer.updated"]


def test_a_clock_that_is_behind_sorts_new_objects_among_the_old(sandbox: Sandbox) -> None:
    sandbox.settings(stripe_clock_offset=-365 * 86_400)
    (charge_id,) = change(sandbox, create={"charge": 1})["create"]
    listed = fetch_all(sandbox, "charges", 7)
    place = ids(listed).index(charge_id)
    assert 0 < place < 120
    created = [each["created"] for each in listed]
    assert created == sorted(created, reverse=True)
    page = get(sandbox, f"charges?limit=3&ending_before={listed[place + 2]['id']}")
    assert ids(page["data"]) == ids(listed[place - 1 : place + 2])
    after = get(sandbox, f"charges?limit=2&starting_after={charge_id}")["data"]
    assert ids(after) == ids(listed[place + 1 : place + 3])


def test_a_restarted_server_keeps_its_account(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite"
    with Sandbox(size=10, charges=60, seed=5, state=state) as sandbox:
        change(sandbox, create={"charge": 2, "invoice": 1}, delete={"customer": 1}, settle=1)
        change(sandbox, account="acct_sandbox_connected", update={"charge": 1})
        sandbox.change(deliver=1)
        kinds = [*KINDS, "event", "invoice_line"]
        before = {kind: sandbox.stripe_objects(kind) for kind in kinds}
        deleted = sandbox.stripe_deleted("customer")
    with Sandbox(size=99, charges=999, seed=6, state=state) as sandbox:
        for kind in kinds:
            after = sandbox.stripe_objects(kind)
            assert [stable(each) for each in after.values()] == [
                stable(each) for each in before[kind].values()
            ]
        assert sandbox.stripe_deleted("customer") == deleted
        assert len(sandbox.stripe_objects("event", "acct_sandbox_connected")) == 1
        new = change(sandbox, create={"charge": 1}, update_silently={"price": 1})["create"]
        assert not set(new) & before["charge"].keys()
        assert len(sandbox.live_ids(include_spam_trash=True)) == 11


def test_a_step_of_the_schedule_changes_the_account(sandbox: Sandbox) -> None:
    steps = [
        {
            "after": {"method": "charges.list", "count": 2},
            "stripe_changes": {"create": {"charge": 1}},
        },
        {"after": {"method": "payouts.list"}, "settings": {"stripe_limit": {"per_second": 0}}},
    ]
    sandbox.schedule(steps)
    first, second, third = (get(sandbox, "charges?limit=1")["data"][0]["id"] for _ in range(3))
    assert first == second != third
    outcome = sandbox.scheduled()[0]
    assert outcome is not None
    assert outcome["stripe"]["affected"]["create"] == [third]
    get(sandbox, "payouts")
    assert error(sandbox, "payouts")[0] == 429
    sandbox.settings(stripe_limit=None)


def test_the_same_seed_and_changes_give_the_same_account() -> None:
    picked: list[dict[str, Any]] = []
    for _ in range(2):
        with Sandbox(size=0, charges=50, seed=8) as sandbox:
            charges = list(sandbox.stripe_objects("charge"))
            changed = change(sandbox, create={"charge": 1}, delete={"price": 2}, refund=2)
            picked.append({"charges": charges, **changed})
    assert picked[0] == picked[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"frobnicate": 1},
        {"create": 3},
        {"create": {"unicorn": 1}},
        {"create": {"charge": ["ch_1"]}},
        {"update": {"charge": ["ch_1"]}},
        {"delete": {"charge": 1}},
        {"refund": ["ch_1"]},
        {"payout": -1},
        {"add_lines": {"in_1": 1}},
        {"account": "acct_other"},
    ],
)
def test_a_malformed_change_is_refused_and_changes_nothing(
    sandbox: Sandbox, changes: dict[str, Any]
) -> None:
    with pytest.raises(SandboxError, match="400"):
        change(sandbox, **changes)
    assert types(sandbox) == []
    assert len(sandbox.stripe_objects("charge")) == 120


def test_unknown_kinds_cannot_be_dumped(sandbox: Sandbox) -> None:
    for dump in (sandbox.stripe_objects, sandbox.stripe_deleted):
        with pytest.raises(SandboxError, match="unknown kind"):
            dump("unicorn")
    with pytest.raises(SandboxError, match="unknown account"):
        sandbox.stripe_objects("charge", "acct_other")
