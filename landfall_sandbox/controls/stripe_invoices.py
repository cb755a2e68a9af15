"""Changes of invoices: lines that come and go, finalizing, paying."""

import json
from typing import Any, Protocol

from landfall_sandbox.stripe import billing
from landfall_sandbox.stripe.account import Account
from landfall_sandbox.stripe.events import changed, emit
from landfall_sandbox.stripe.templates import VOLATILE

_NEW_AMOUNT = 1250


class Change(Protocol):
    """What a change needs to know: the account and the time, in epoch seconds."""

    @property
    def account(self) -> Account:
        """The account that changes."""

    @property
    def now(self) -> int:
        """When it changes."""


def new_lines(
    account: Account, invoice: dict[str, Any], now: int, count: int
) -> list[dict[str, Any]]:
    """Return new lines for an invoice, which it doesn't have yet."""
    lines = []
    for number in range(count):
        line: dict[str, Any] = json.loads(billing.line(account.ledger, 1, number))
        line |= {
            "id": account.new_id("line_item"),
            "amount": _NEW_AMOUNT,
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "period": {"end": now, "start": now},
            "subtotal": _NEW_AMOUNT,
        }
        line["parent"]["invoice_item_details"]["invoice_item"] = f"ii_1{line['id'][4:]}"
        line["pricing"]["unit_amount_decimal"] = str(_NEW_AMOUNT)
        lines.append(line)
    return lines


def with_lines(invoice: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an invoice with other lines, and the total they make."""
    total = sum(line["amount"] for line in lines)
    shown = {
        "object": "list",
        "data": lines[: billing.EMBEDDED_LINES],
        "has_more": len(lines) > billing.EMBEDDED_LINES,
        "total_count": len(lines),
        "url": f"/v1/invoices/{invoice['id']}/lines",
    }
    totals = dict.fromkeys(
        ("amount_due", "subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"), total
    )
    remaining = max(0, total - invoice["amount_paid"])
    return invoice | totals | {"amount_remaining": remaining, "lines": shown}


def add_lines(change: Change, index: int, count: int) -> list[str]:
    """Add lines at the end of an invoice; return their ids."""
    invoice = change.account.value("invoice", index)
    lines = _lines(change.account, index)
    added = new_lines(change.account, invoice, change.now, count)
    _replace_lines(change, index, invoice, lines + added)
    return [line["id"] for line in added]


def chosen_lines(account: Account, index: int, chosen: int | list[str]) -> list[str]:
    """Return the ids of lines of an invoice: those given, or so many of the first ones.

    Raises ValueError for a line the invoice doesn't have.
    """
    known = [line["id"] for line in _lines(account, index)]
    if isinstance(chosen, int):
        return known[:chosen]
    if missing := sorted(set(chosen) - set(known)):
        raise ValueError(f"remove_lines: no such line: {missing}")
    return chosen


def remove_lines(change: Change, index: int, line_ids: list[str]) -> None:
    """Remove lines from an invoice."""
    invoice = change.account.value("invoice", index)
    kept = [line for line in _lines(change.account, index) if line["id"] not in line_ids]
    _replace_lines(change, index, invoice, kept)


def _lines(account: Account, index: int) -> list[dict[str, Any]]:
    return [json.loads(text) for text in account.lines(index)]


def _replace_lines(
    change: Change, index: int, invoice: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    change.account.put_lines(index, lines)
    _update(change, invoice, with_lines(invoice, lines))


def finalize(change: Change, index: int) -> str:
    """Finalize a draft: it gets a number, addresses, and is open; return its id."""
    before = change.account.value("invoice", index)
    address = f"https://invoice.stripe.com/i/{change.account.id}/test_{VOLATILE}?s=ap"
    after = before | {
        "effective_at": change.now,
        "ending_balance": 0,
        "hosted_invoice_url": address,
        "invoice_pdf": address.replace("?s", "/pdf?s"),
        "number": f"{before['id'][-8:].upper()}-0001",
        "status": "open",
        "status_transitions": before["status_transitions"] | {"finalized_at": change.now},
    }
    _update(change, before, after, "invoice.finalized")
    return str(before["id"])


def pay(change: Change, index: int) -> str:
    """Pay an invoice outside of Stripe: there is no charge; return its id."""
    before = change.account.value("invoice", index)
    after = before | {
        "amount_paid": before["total"],
        "amount_remaining": 0,
        "attempted": True,
        "status": "paid",
        "status_transitions": before["status_transitions"] | {"paid_at": change.now},
    }
    _update(change, before, after, "invoice.paid", "invoice.payment_succeeded")
    return str(before["id"])


def _update(
    change: Change, before: dict[str, Any], after: dict[str, Any], *event_types: str
) -> None:
    change.account.put("invoice", after)
    emit(change.account, change.now, "invoice.updated", after, changed(before, after))
    for event_type in event_types:
        emit(change.account, change.now, event_type, after)
