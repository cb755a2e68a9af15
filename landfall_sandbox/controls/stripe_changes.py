"""Changes asked of a Stripe account while it runs."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from landfall_sandbox.controls.stripe_creation import Creator, create_one, refund_charge
from landfall_sandbox.controls.stripe_invoices import (
    add_lines,
    chosen_lines,
    finalize,
    pay,
    remove_lines,
)
from landfall_sandbox.stripe.account import Account
from landfall_sandbox.stripe.books import Books
from landfall_sandbox.stripe.events import UPDATE_TYPES, changed, emit
from landfall_sandbox.stripe.kinds import KINDS
from landfall_sandbox.stripe.payments import first_pending

# Primes: a walk in such steps visits every object of a kind whose number they don't divide.
_STEPS = (7919, 104_729, 1)
_DELETED_TYPES = {
    "customer": "customer.deleted",
    "product": "product.deleted",
    "price": "price.deleted",
    "invoice": "invoice.deleted",
    "subscription": "customer.subscription.deleted",
}
_CHOSEN_BY_MERCHANTS = ("customer", "product", "price")
"""Kinds whose ids Stripe lets them choose; a price's is that of its plan."""
_CHANGED_FIELDS = {"customer": "description", "product": "name", "price": "nickname"}
_DESCRIBED = ("charge", "invoice", "payment_intent", "subscription", "balance_transaction")
Handler = Callable[[Creator, Any], list[str]]


def apply_stripe_changes(books: Books, request: dict[str, Any]) -> dict[str, Any]:
    """Apply the changes in the order given and return the ids of what was touched.

    Keys of `request`, a number always picking that many objects deterministically:
    "create", "update", "update_silently" (no event), "delete": {kind: n or ids}, ids to create of
    customers, products and prices only; "refund", "dispute": n or charge ids; "payout": n;
    "settle": n or ids of balance transactions, without an event; "finalize", "pay": n or invoice
    ids; "add_lines": {invoice id: n}; "remove_lines": {invoice id: n or line ids}; "account": the
    id of the account that the keys after it are about (default: the platform's).

    The answer is {"affected": {key: ids}}; ids are of what was created, or else of what was
    changed. Raises ValueError for a malformed request and for an unknown object: keys before it
    are applied, it is not.
    """
    check_stripe_changes(request)
    affected: dict[str, list[str]] = {}
    account = books.platform
    for key, value in request.items():
        if key == "account":
            account = _account(books, value)
            continue
        with books.file.transaction():
            affected[key] = _HANDLERS[key](Creator(account, books.now()), value)
    return {"affected": affected}


def check_stripe_changes(request: Any) -> None:
    """Raise ValueError for what is no request to `apply_stripe_changes`."""
    if not isinstance(request, dict):
        raise ValueError(f"stripe changes: expected an object, got {type(request).__name__}")
    known = {*_HANDLERS, "account"}
    if unknown := sorted(request.keys() - known):
        raise ValueError(f"unknown stripe change {unknown}; expected one of {sorted(known)}")


def _account(books: Books, account_id: Any) -> Account:
    try:
        return books.account(account_id)
    except KeyError:
        raise ValueError(f"no such account: {account_id}") from None


def _create(creator: Creator, request: Any) -> list[str]:
    wanted = _by_kind("create", request)
    for kind, chosen in wanted:
        if not _is_count(chosen) and kind not in _CHOSEN_BY_MERCHANTS:
            raise ValueError(f"create: {kind}: expected a number, got {chosen!r}")
    return [
        create_one(dataclasses.replace(creator, chosen_id=object_id), kind)
        for kind, chosen in wanted
        for object_id in ([None] * chosen if _is_count(chosen) else _new_ids(creator, kind, chosen))
    ]


def _new_ids(creator: Creator, kind: str, chosen: Any) -> list[str]:
    ids = _ids(chosen)
    if taken := [each for each in ids if creator.account.index_of(kind, each) is not None]:
        raise ValueError(f"create: {kind}: {taken} is there already")
    return ids


def _update(creator: Creator, request: Any) -> list[str]:
    chosen = _choose_by_kind(creator.account, "update", request)
    if unknown := sorted({kind for kind, _ in chosen} - UPDATE_TYPES.keys()):
        raise ValueError(f"update: {unknown} has no event; use update_silently or settle")
    return [_update_one(creator, kind, index, with_event=True) for kind, index in chosen]


def _update_silently(creator: Creator, request: Any) -> list[str]:
    chosen = _choose_by_kind(creator.account, "update_silently", request)
    return [_update_one(creator, kind, index, with_event=False) for kind, index in chosen]


def _update_one(creator: Creator, kind: str, index: int, *, with_event: bool) -> str:
    before = creator.account.value(kind, index)
    revision = str(creator.account.overlay.changes)
    creator.account.overlay.new_index()
    after = dict(before)
    if "metadata" in before:
        after["metadata"] = (before["metadata"] or {}) | {"revision": revision}
    field = "description" if kind in _DESCRIBED else _CHANGED_FIELDS.get(kind)
    if field is not None:
        after[field] = f"Revision {revision} — geändert"
    if kind == "product":
        after["updated"] = creator.now
    creator.account.put(kind, after)
    if with_event:
        emit(creator.account, creator.now, UPDATE_TYPES[kind], after, changed(before, after))
    return str(before["id"])


def _delete(creator: Creator, request: Any) -> list[str]:
    kinds = [kind for kind, _ in _by_kind("delete", request)]
    if unknown := sorted(set(kinds) - _DELETED_TYPES.keys()):
        raise ValueError(f"delete: {unknown} cannot be deleted; only {sorted(_DELETED_TYPES)}")
    chosen = _choose_by_kind(creator.account, "delete", request, _can_be_deleted)
    return [_delete_one(creator, kind, index) for kind, index in chosen]


def _can_be_deleted(kind: str, value: dict[str, Any]) -> bool:
    return kind != "subscription" or value["status"] != "canceled"


def _delete_one(creator: Creator, kind: str, index: int) -> str:
    account, now = creator.account, creator.now
    value = account.value(kind, index)
    if kind == "subscription":
        value |= {"status": "canceled", "canceled_at": now, "ended_at": now}
        value["cancellation_details"] = value["cancellation_details"] | {
            "reason": "cancellation_requested"
        }
        account.put(kind, value)
    else:
        account.delete(kind, index)
    emit(account, now, _DELETED_TYPES[kind], value)
    return str(value["id"])


def _refund(creator: Creator, chosen: Any) -> list[str]:
    return [refund_charge(creator, value) for value in _charges(creator, chosen, _can_be_refunded)]


def _dispute(creator: Creator, chosen: Any) -> list[str]:
    charges = _charges(creator, chosen, lambda value: not value["disputed"] and value["paid"])
    return [creator.dispute(value) for value in charges]


def _can_be_refunded(value: dict[str, Any]) -> bool:
    return bool(value["paid"]) and value["amount_refunded"] < value["amount"]


def _charges(
    creator: Creator, chosen: Any, test: Callable[[dict[str, Any]], bool]
) -> Iterator[dict[str, Any]]:
    account = creator.account
    indexes = _choose(account, "charge", chosen, lambda _, value: test(value))
    values = [account.value("charge", index) for index in indexes]
    if unfit := [value["id"] for value in values if not test(value)]:
        raise ValueError(f"a charge that this cannot happen to: {unfit}")
    return iter(values)


def _payout(creator: Creator, count: Any) -> list[str]:
    if not _is_count(count):
        raise ValueError(f"payout: expected a number, got {count!r}")
    return [creator.payout() for _ in range(count)]


def _settle(creator: Creator, chosen: Any) -> list[str]:
    account, kind = creator.account, "balance_transaction"
    is_count = _is_count(chosen)
    indexes = _pending(account, chosen) if is_count else _choose(account, kind, chosen)
    ids = []
    for index in indexes:
        value = account.value(kind, index)
        if value["status"] == "pending":
            settled = value | {"status": "available"}
            account.put(kind, settled)
            _show_in_dispute(account, settled)
            ids.append(value["id"])
    return ids


def _show_in_dispute(account: Account, transaction: dict[str, Any]) -> None:
    """A dispute shows its balance transaction as it is."""
    if transaction["type"] == "adjustment" and transaction["source"]:
        index = account.index_of("dispute", transaction["source"])
        if index is not None and account.is_live("dispute", index):
            dispute = account.value("dispute", index)
            account.put("dispute", dispute | {"balance_transactions": [transaction]})


def _pending(account: Account, count: int) -> list[int]:
    """Return the oldest balance transactions that are pending."""
    kind = "balance_transaction"
    generated = range(first_pending(account.ledger), account.ledger.layout.count(kind))
    found: list[int] = []
    for index in (*generated, *(index for _, index in account.overlay.created[kind])):
        if len(found) == count:
            break
        if account.value(kind, index)["status"] == "pending":
            found.append(index)
    return found


def _finalize(creator: Creator, chosen: Any) -> list[str]:
    indexes = _invoices(creator, chosen, ("draft",))
    return [finalize(creator, index) for index in indexes]


def _pay(creator: Creator, chosen: Any) -> list[str]:
    indexes = _invoices(creator, chosen, ("open", "uncollectible"))
    return [pay(creator, index) for index in indexes]


def _invoices(creator: Creator, chosen: Any, statuses: tuple[str, ...]) -> list[int]:
    account = creator.account
    test: _Test = lambda _, value: value["status"] in statuses  # noqa: E731
    indexes = _choose(account, "invoice", chosen, test)
    for index in indexes:
        status = account.value("invoice", index)["status"]
        if status not in statuses:
            raise ValueError(f"an invoice is {status}, expected one of {statuses}")
    return indexes


def _add_lines(creator: Creator, request: Any) -> list[str]:
    wanted = [
        (index, _checked_count("add_lines", count))
        for index, count in _by_invoice(creator.account, "add_lines", request)
    ]
    return [line_id for index, count in wanted for line_id in add_lines(creator, index, count)]


def _remove_lines(creator: Creator, request: Any) -> list[str]:
    wanted = [
        (index, chosen_lines(creator.account, index, chosen if _is_count(chosen) else _ids(chosen)))
        for index, chosen in _by_invoice(creator.account, "remove_lines", request)
    ]
    for index, line_ids in wanted:
        remove_lines(creator, index, line_ids)
    return [line_id for _, line_ids in wanted for line_id in line_ids]


def _by_invoice(account: Account, key: str, request: Any) -> list[tuple[int, Any]]:
    if not isinstance(request, dict):
        raise ValueError(f"{key}: expected {{invoice id: ...}}")
    return [
        (_choose(account, "invoice", [invoice_id])[0], value)
        for invoice_id, value in request.items()
    ]


_Test = Callable[[str, dict[str, Any]], bool]


def _by_kind(key: str, request: Any) -> list[tuple[str, Any]]:
    known = KINDS.keys() - {"event"}
    if not isinstance(request, dict) or request.keys() - known:
        raise ValueError(f"{key}: expected {{kind: ...}} of {sorted(known)}, got {request!r}")
    return list(request.items())


def _choose_by_kind(
    account: Account, key: str, request: Any, test: _Test | None = None
) -> list[tuple[str, int]]:
    return [
        (kind, index)
        for kind, chosen in _by_kind(key, request)
        for index in _choose(account, kind, chosen, test)
    ]


def _choose(account: Account, kind: str, chosen: Any, test: _Test | None = None) -> list[int]:
    """Return the live objects with the given ids, or so many that pass the test."""
    if _is_count(chosen):
        return list(_pick(account, kind, chosen, test))
    indexes = []
    for object_id in _ids(chosen):
        index = account.index_of(kind, object_id)
        if index is None or not account.is_live(kind, index):
            raise ValueError(f"no such {kind}: {object_id}")
        indexes.append(index)
    return indexes


def _pick(account: Account, kind: str, count: int, test: _Test | None) -> Iterator[int]:
    """Yield live objects from all over the account, the same for the same state."""
    generated = account.ledger.layout.count(kind)
    created = [index for _, index in account.overlay.created[kind]]
    total = generated + len(created)
    step = next((step for step in _STEPS if total % step), 1)
    start = account.overlay.changes * 31 + 17
    for turn in range(total):
        if count == 0:
            return
        place = (start + turn * step) % total
        index = place if place < generated else created[place - generated]
        if not account.is_live(kind, index):
            continue
        if test is None or test(kind, account.value(kind, index)):
            count -= 1
            yield index


def _ids(items: Any) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"expected a number or a list of ids, got {type(items).__name__}")
    return list(dict.fromkeys(items))


def _checked_count(key: str, value: Any) -> int:
    if not _is_count(value):
        raise ValueError(f"{key}: expected a number, got {value!r}")
    return int(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_HANDLERS: dict[str, Handler] = {
    "create": _create,
    "update": _update,
    "update_silently": _update_silently,
    "delete": _delete,
    "refund": _refund,
    "dispute": _dispute,
    "payout": _payout,
    "settle": _settle,
    "finalize": _finalize,
    "pay": _pay,
    "add_lines": _add_lines,
    "remove_lines": _remove_lines,
}
