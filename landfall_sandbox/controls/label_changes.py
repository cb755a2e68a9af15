"""Labels that are created, renamed and deleted while the sandbox runs."""

import re
from typing import Any

from landfall_sandbox.mailbox import Mailbox

_USER_LABEL = re.compile(r"Label_[0-9]+")


def create_labels(mailbox: Mailbox, request: Any) -> list[int]:
    """Create user labels; no message changes. Raises ValueError for an id or name in use."""
    for label, name in _named(mailbox, request):
        if mailbox.state.is_label_used(label):
            raise ValueError(f"label_create: {label} is or was a label; ids are not used again")
        mailbox.state.name_label(label, name)
    return []


def rename_labels(mailbox: Mailbox, request: Any) -> list[int]:
    """Rename user labels; no message changes, and the history doesn't tell."""
    for label, name in _named(mailbox, request):
        _check_exists(mailbox, label)
        mailbox.state.name_label(label, name)
    return []


def delete_labels(mailbox: Mailbox, request: Any) -> list[int]:
    """Delete user labels and take them off every message; return those messages."""
    labels = [request] if isinstance(request, str) else request
    if not isinstance(labels, list):
        raise ValueError(f"label_delete: expected an id or a list of them, got {labels!r}")
    for label in labels:
        _check_exists(mailbox, label)
    touched = {index: None for label in labels for index in _take_off(mailbox, label)}
    for label in labels:
        mailbox.state.name_label(label, None)
    return list(touched)


def _take_off(mailbox: Mailbox, label: str) -> list[int]:
    labelled = [
        index
        for index in mailbox.indexes()
        if mailbox.exists(index) and label in mailbox.labels(index)
    ]
    for index in labelled:
        kept = tuple(each for each in mailbox.labels(index) if each != label)
        mailbox.state.record_labels("labelRemoved", index, kept, (label,))
    return labelled


def _named(mailbox: Mailbox, request: Any) -> list[tuple[str, str]]:
    """Return the checked (id, name) pairs of a request."""
    pairs: list[tuple[str, str]] = []
    for entry in request if isinstance(request, list) else [request]:
        match entry:
            case {"id": str() as label, "name": str() as name} if _USER_LABEL.fullmatch(label):
                pairs.append((label, name))
            case _:
                raise ValueError(
                    f'labels: expected {{"id": "Label_7", "name": text}}, got {entry!r}'
                )
    taken = {name.lower() for name in mailbox.label_names.values()}
    if used := [name for _, name in pairs if name.lower() in taken]:
        raise ValueError(f"labels: there is a label of that name: {used}")
    return pairs


def _check_exists(mailbox: Mailbox, label: str) -> None:
    if not _USER_LABEL.fullmatch(label) or label not in mailbox.label_names:
        raise ValueError(f"no such user label: {label}")
