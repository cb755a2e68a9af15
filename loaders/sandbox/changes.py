"""Changes asked of the mailbox while it runs: deliveries, deletions, labels, restores."""

from typing import Any

from loaders.sandbox.layout import LABEL_NAMES
from loaders.sandbox.mailbox import Mailbox

# Primes: a walk in such steps visits every message of a mailbox whose size they don't divide.
_STEPS = (7919, 104_729)


def apply_changes(mailbox: Mailbox, request: dict[str, Any]) -> dict[str, Any]:
    """Apply the changes in the order given and return the new history id and what was touched.

    Keys of `request`: "deliver": n; "delete": ids or n; "labels": {"ids": ids or n, "add": [],
    "remove": []}; "restore": ids or n. A number picks that many messages deterministically. The
    answer is {"history_id": text, "affected": {key: ids}}. Raises ValueError for a malformed
    request and for an unknown message or label: keys before it are applied, it is not.
    """
    handlers = {"deliver": _deliver, "delete": _delete, "labels": _relabel, "restore": _restore}
    if unknown := sorted(request.keys() - handlers.keys()):
        raise ValueError(f"unknown change {unknown}; expected one of {sorted(handlers)}")
    affected: dict[str, list[str]] = {}
    for key, value in request.items():
        with mailbox.state.transaction():
            indexes = handlers[key](mailbox, value)
        affected[key] = [mailbox.message_id(index) for index in indexes]
    return {"history_id": str(mailbox.history_id), "affected": affected}


def _deliver(mailbox: Mailbox, count: Any) -> list[int]:
    if not _is_count(count):
        raise ValueError(f"deliver: expected a number of messages, got {count!r}")
    start = mailbox.total
    for index in range(start, start + count):
        mailbox.state.record_delivery(index, mailbox.layout.labels(index))
    return list(range(start, start + count))


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
        mailbox.state.record_restore(index, mailbox.labels(index))
    return indexes


def _relabel(mailbox: Mailbox, request: Any) -> list[int]:
    if not isinstance(request, dict) or "ids" not in request:
        raise ValueError('labels: expected {"ids": ..., "add": [...], "remove": [...]}')
    added, removed = request.get("add", []), request.get("remove", [])
    if unknown := {*added, *removed} - LABEL_NAMES.keys():
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
    total = mailbox.total
    step = next((step for step in _STEPS if total % step), 1)
    start = mailbox.history_id * 31 + mailbox.seed
    picked: list[int] = []
    for turn in range(total):
        if len(picked) == count:
            break
        index = (start + turn * step) % total
        if mailbox.exists(index):
            picked.append(index)
    return picked


def _known_index(mailbox: Mailbox, message_id: str) -> int:
    index = mailbox.identifiers.message_index(message_id)
    if index is None or index >= mailbox.total:
        raise ValueError(f"no such message: {message_id}")
    return index


def _unique(items: Any) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"expected a number or a list of ids, got {type(items).__name__}")
    return list(dict.fromkeys(items))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
