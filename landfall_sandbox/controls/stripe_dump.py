"""Everything there is in a Stripe account, for a test to compare with."""

import math
from collections.abc import Iterator

from landfall_sandbox.stripe.account import Account
from landfall_sandbox.stripe.books import Books
from landfall_sandbox.stripe.kinds import KINDS
from landfall_sandbox.stripe.templates import sign

_LINES = "invoice_line"
_PER_CHUNK = 500


def object_lines(books: Books, kind: str, account_id: str | None) -> Iterator[bytes]:
    """Return all live objects of a kind, newest first, each as a line of JSON, in chunks.

    The kind "invoice_line" has the lines of all invoices. Raises ValueError for an unknown kind
    or account.
    """
    account = _account(books, account_id)
    if kind not in (*KINDS, _LINES):
        raise ValueError(f"unknown kind {kind!r}; known: {sorted((*KINDS, _LINES))}")
    texts = _lines(account) if kind == _LINES else _texts(account, kind)
    # Line breaks are layout: in a text they are escaped.
    return _chunks(sign(text.encode()).replace(b"\n", b"") for text in texts)


def deleted_ids(books: Books, kind: str, account_id: str | None) -> Iterator[bytes]:
    """Return the ids of the deleted objects of a kind, one a line, in chunks.

    Raises ValueError for an unknown kind or account.
    """
    account = _account(books, account_id)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {sorted(KINDS)}")
    return _chunks(object_id.encode() for object_id in account.deleted(kind))


def _account(books: Books, account_id: str | None) -> Account:
    try:
        return books.account(account_id)
    except KeyError:
        raise ValueError(f"unknown account {account_id!r}") from None


def _texts(account: Account, kind: str) -> Iterator[str]:
    everything = (-math.inf, -math.inf), (math.inf, math.inf)
    for index in account.walk(kind, *everything):
        yield account.text(kind, index)


def _lines(account: Account) -> Iterator[str]:
    everything = (-math.inf, -math.inf), (math.inf, math.inf)
    for index in account.walk("invoice", *everything):
        yield from account.lines(index)


def _chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    chunk: list[bytes] = []
    for line in lines:
        chunk.append(line + b"\n")
        if len(chunk) == _PER_CHUNK:
            yield b"".join(chunk)
            chunk.clear()
    if chunk:
        yield b"".join(chunk)
