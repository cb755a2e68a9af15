"""Changes asked of the mailbox while it runs: deliveries, deletions, labels, restores."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from landfall_sandbox.controls.label_changes import create_labels, delete_labels, rename_labels
from landfall_sandbox.mailbox import Mailbox

# Primes: a walk in such steps visits every message of a mailbox whose size they don't divide.
_STEPS = (7919, 104_729)
_MAX_INTEGER = 1 << 63


def apply_changes(mailbox: Mailbox, request: dict[str, Any]) -> dict[str, Any]:
    """Apply the changes in the order given and return the new history id and what was touched.

    Keys of `request`: "deliver": n; "insert": a list of {"raw": base64url, "labels": [],
    "internal_date_ms": n, "thread_id": id}, all but "raw" optional (no labels, now, a thread of
    its own); "delete": ids or n; "labels": {"ids": ids or n, "add": [], "remove": []}; "restore":
    ids or n; "label_create" and "label_rename": {"id": "Label_7", "name": text} or a list of them;
    "label_delete": a label id or a list of them. A number picks that many messages
    deterministically.

    The answer is {"history_id": text, "affected": {key: message ids}}. Raises ValueError for a
    malformed request and for an unknown message or label: keys before it are applied, it is not.
    """
    check_changes(request)
    affected: dict[str, list[str]] = {}
    for key, value in request.items():
        with mailbox.state.transaction():
            indexes = _HANDLERS[key](mailbox, value)
        affected[key] = [mailbox.message_id(index) for index in indexes]
    return {"history_id": str(mailbox.history_id), "affected": affected}


def check_changes(request: Any) -> None:
    """Raise ValueError for what is no request to `apply_changes`."""
    if not isinstance(request, dict):
        raise ValueError(f"changes: expected an object, got {type(request).__name__}")
    if unknown := sorted(request.keys() - _HANDLERS.keys()):
        raise ValueError(f"unknown change {unknown}; expected one of {sorted(_HANDLERS)}")


def _deliver(mailbox: Mailbox, count: Any) -> list[int]:
    if not _is_count(count):
        raise ValueError(f"deliver: expected a number of messages, got {count!r}")
    start = mailbox.total
    for index in range(start, start + count):
        mailbox.state.record_delivery(index, _known_labels(mailbox, index))
    return list(range(start, start + count))


def _insert(mailbox: Mailbox, mails: Any) -> list[int]:
    if not isinstance(mails, list):
        raise ValueError('insert: expected a list of {"raw": base64url, ...}')
    checked = [_checked_mail(mailbox, mail) for mail in mails]
    indexes = []
    for raw, labels, date_ms, thread in checked:
        if date_ms is None:
            date_ms = mailbox.layout.date_ms(mailbox.total + len(mailbox.state.inserted))
        indexes.append(mailbox.state.record_insertion(raw, labels, date_ms, thread))
    return indexes


def _checked_mail(
    mailbox: Mailbox, mail: Any
) -> tuple[bytes, tuple[str, ...], int | None, int | None]:
    known = {"raw", "labels", "internal_date_ms", "thread_id"}
    if not isinstance(mail, dict) or "raw" not in mail or mail.keys() - known:
        raise ValueError(f"insert: expected raw and optionally the rest of {sorted(known)}")
    labels = tuple(_unique(mail.get("labels", [])))
    if unknown := set(labels) - mailbox.label_names.keys():
        raise ValueError(f"insert: unknown label {sorted(unknown)}")
    date_ms = mail.get("internal_date_ms")
    if date_ms is not None and not (isinstance(date_ms, int) and abs(date_ms) < _MAX_INTEGER):
        raise ValueError(f"insert: internal_date_ms: expected a 64-bit integer, got {date_ms!r}")
    return _decode(mail["raw"]), labels, date_ms, _thread_of(mailbox, mail.get("thread_id"))


def _decode(raw: Any) -> bytes:
    if not isinstance(raw, str):
        raise ValueError(f"insert: raw: expected base64url text, got {type(raw).__name__}")
    padded = raw + "=" * (-len(raw) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"insert: raw: not base64url: {error}") from error


def _thread_of(mailbox: Mailbox, thread_id: Any) -> int | None:
    if thread_id is None:
        return None
    try:
        return mailbox.thread_root(mailbox.thread(str(thread_id))[0])
    except KeyError:
        raise ValueError(f"insert: no such thread: {thread_id}") from None


def _known_labels(mailbox: Mailbox, index: int) -> tuple[str, ...]:
    """Return a message's labels without those deleted since; keep what differs."""
    labels = mailbox.labels(index)
    known = tuple(label for label in labels if label in mailbox.label_names)
    if known != labels:
        mailbox.state.set_labels(index, known)
    return known


def _delete(mailbox: Mailbox, chosen: Any) -> list[int]:
    indexes = _choose(mailbox, chosen)
    for index in indexes:
        mailbox.state.record_deletion(index, mailbox.labels(index))
    return indexes


def _restore(mailbox: Mailbox, chosen: Any) -> list[int]:
    deleted = sorted(mailbox.state.deleted)
    if _is_count(chosen):
        indexes = deleted[:chosen]
    else:
        indexes = [_known_index(mailbox, message_id) for message_id in _unique(chosen)]
        if missing := set(indexes) - set(deleted):
            ids = [mailbox.message_id(index) for index in missing]
            raise ValueError(f"restore: not deleted: {ids}")
    for index in indexes:
        mailbox.state.record_restore(index, _known_labels(mailbox, index))
    return indexes


def _relabel(mailbox: Mailbox, request: Any) -> list[int]:
    if not isinstance(request, dict) or "ids" not in request:
        raise ValueError('labels: expected {"ids": ..., "add": [...], "remove": [...]}')
    added, removed = request.get("add", []), request.get("remove", [])
    if unknown := {*added, *removed} - mailbox.label_names.keys():
        raise ValueError(f"labels: unknown label {sorted(unknown)}")
    indexes = _choose(mailbox, request["ids"])
    for index in indexes:
        _add_labels(mailbox, index, added)
        _remove_labels(mailbox, index, removed)
    return indexes


def _add_labels(mailbox: Mailbox, index: int, wanted: list[str]) -> None:
    labels = mailbox.labels(index)
    new = tuple(label for label in _unique(wanted) if label not in labels)
    if new:
        mailbox.state.record_labels("labelAdded", index, labels + new, new)


def _remove_labels(mailbox: Mailbox, index: int, unwanted: list[str]) -> None:
    labels = mailbox.labels(index)
    gone = tuple(label for label in _unique(unwanted) if label in labels)
    if gone:
        kept = tuple(label for label in labels if label not in gone)
        mailbox.state.record_labels("labelRemoved", index, kept, gone)


def _choose(mailbox: Mailbox, chosen: Any) -> list[int]:
    if _is_count(chosen):
        return _pick(mailbox, chosen)
    indexes = [_known_index(mailbox, message_id) for message_id in _unique(chosen)]
    if missing := [mailbox.message_id(index) for index in indexes if not mailbox.exists(index)]:
        raise ValueError(f"no such message: {missing}")
    return indexes


def _pick(mailbox: Mailbox, count: int) -> list[int]:
    """Return `count` existing messages from all over the mailbox, the same for the same state."""
    inserted = list(mailbox.state.inserted)
    total = mailbox.total + len(inserted)
    step = next((step for step in _STEPS if total % step), 1)
    start = mailbox.history_id * 31 + mailbox.seed
    picked: list[int] = []
    for turn in range(total):
        if len(picked) == count:
            break
        place = (start + turn * step) % total
        index = place if place < mailbox.total else inserted[place - mailbox.total]
        if mailbox.exists(index):
            picked.append(index)
    return picked


def _known_index(mailbox: Mailbox, message_id: str) -> int:
    index = mailbox.identifiers.message_index(message_id)
    if index is None or not mailbox.has_arrived(index):
        raise ValueError(f"no such message: {message_id}")
    return index


def _unique(items: Any) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"expected a number or a list of ids, got {type(items).__name__}")
    return list(dict.fromkeys(items))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_HANDLERS: dict[str, Callable[[Mailbox, Any], list[int]]] = {
    "deliver": _deliver,
    "insert": _insert,
    "delete": _delete,
    "labels": _relabel,
    "restore": _restore,
    "label_create": create_labels,
    "label_rename": rename_labels,
    "label_delete": delete_labels,
}
