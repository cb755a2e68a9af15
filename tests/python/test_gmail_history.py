"""What a stretch of history comes to, and how far a part of it carries the position."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.errors import TransientSourceError
from loaders.sources.gmail.fetching import Batch
from loaders.sources.gmail.history import ADDED, RELABELLED, REMOVED, Change, read_changes
from loaders.sources.gmail.position import Position
from loaders.sources.gmail.sync import _last_before, _steps

AT_100 = Position("100", "me@example.com", include_spam_trash=False)


def record(number: int, member: str, message_id: str, **entry: Any) -> dict[str, Any]:
    labels = entry.pop("labels", ["INBOX"])
    message = {"id": message_id, "threadId": f"t-{message_id}", "labelIds": labels}
    return {"id": str(number), "messages": [message], member: [{"message": message, **entry}]}


def kinds(*records: dict[str, Any], position: Position = AT_100) -> dict[str, str]:
    pages = [{"history": [one], "historyId": "900"} for one in records]
    changes = read_changes(pages, position)
    assert changes.history_id == ("900" if records else "100")
    return {key: change.kind for key, change in changes.messages.items()}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([("messagesAdded", {})], ADDED),
        ([("messagesAdded", {"labels": ["SPAM"]})], REMOVED),
        ([("messagesAdded", {}), ("labelsAdded", {"labelIds": ["STARRED"]})], ADDED),
        ([("messagesAdded", {}), ("messagesDeleted", {})], REMOVED),
        ([("messagesDeleted", {}), ("messagesAdded", {})], ADDED),
        ([("labelsAdded", {"labelIds": ["STARRED"]})], RELABELLED),
        ([("labelsAdded", {"labelIds": ["TRASH"]})], REMOVED),
        ([("labelsRemoved", {"labelIds": ["TRASH"]})], ADDED),
        ([("labelsRemoved", {"labelIds": ["TRASH"], "labels": ["SPAM"]})], REMOVED),
        (
            [
                ("labelsAdded", {"labelIds": ["TRASH"], "labels": ["TRASH"]}),
                ("labelsAdded", {"labelIds": ["STARRED"], "labels": ["TRASH", "STARRED"]}),
            ],
            REMOVED,
        ),
    ],
)
def test_the_last_word_on_a_message_counts(
    records: list[tuple[str, dict[str, Any]]], expected: str
) -> None:
    made = [record(101 + n, member, "m", **entry) for n, (member, entry) in enumerate(records)]
    assert kinds(*made) == {"m": expected}


def test_spam_and_trash_are_labels_like_others_where_they_are_read() -> None:
    everything = Position("100", "me@example.com", include_spam_trash=True)
    assert kinds(
        record(101, "labelsAdded", "a", labelIds=["TRASH"]),
        record(102, "messagesAdded", "b", labels=["SPAM"]),
        position=everything,
    ) == {"a": RELABELLED, "b": ADDED}


def test_a_record_that_does_not_say_what_happened_is_looked_at() -> None:
    assert kinds({"id": "101", "messages": [{"id": "m", "threadId": "t"}]}) == {"m": RELABELLED}


def test_records_that_are_covered_count_for_deferred_labels_only() -> None:
    behind = Position("200", "me@example.com", False, label_history_id="100")
    assert kinds(
        record(110, "labelsAdded", "read later", labelIds=["STARRED"]),
        record(120, "messagesAdded", "read later"),
        record(130, "messagesAdded", "added"),
        record(140, "messagesDeleted", "deleted"),
        record(150, "labelsAdded", "deferred", labelIds=["STARRED"]),
        record(210, "messagesAdded", "new"),
        position=behind,
    ) == {"deferred": RELABELLED, "new": ADDED}


@pytest.mark.parametrize(
    "broken",
    [
        {"messagesAdded": [{"message": {"id": "m", "threadId": "t"}}]},
        {"id": "101", "messagesAdded": [{}]},
        {"id": "101", "messagesDeleted": [{"message": {"threadId": "t"}}]},
        {"id": "x", "messages": []},
    ],
)
def test_a_record_that_names_no_message_fails_the_run(broken: dict[str, Any]) -> None:
    with pytest.raises(TransientSourceError, match="record"):
        read_changes([{"history": [broken], "historyId": "900"}], AT_100)


def test_only_the_message_that_a_record_adds_is_an_arrival() -> None:
    both = record(101, "messagesAdded", "new")
    both |= {
        "labelsRemoved": record(101, "labelsRemoved", "back", labelIds=["TRASH"])["labelsRemoved"]
    }
    changes = read_changes([{"history": [both], "historyId": "900"}], AT_100).messages
    assert {key: change.kind for key, change in changes.items()} == {"new": ADDED, "back": ADDED}
    assert (changes["new"].is_arrival, changes["back"].is_arrival) == (True, False)


def test_the_position_is_that_of_the_first_page() -> None:
    pages = [{"historyId": "900", "nextPageToken": "x"}, {"historyId": "950"}]
    assert read_changes(pages, AT_100).history_id == "900"
    assert read_changes([{}], AT_100).history_id == "100"


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 4), min_size=12, max_size=12))
def test_a_step_covers_only_what_is_done(order: list[int], sizes: list[int]) -> None:
    """A run that ends after any batch: what it has not read lies behind the step."""
    added = {f"m{number}": Change(ADDED, "t", str(100 + number)) for number in range(1, 13)}
    keys = [f"m{number}" for number in order]
    batches = []
    for size in sizes:
        if keys:
            batches.append(Batch("t", tuple(keys[:size])))
            keys = keys[size:]
    assert not keys
    steps = _steps(batches, added)
    assert steps[-1] == "112"
    for done, step in enumerate(steps):
        left = [added[key].order for batch in batches[done:] for key in batch.message_ids]
        if step is not None:
            assert all(number > int(step) for number in left)
            assert all(int(step) < number for number in left)
        best = max((n for n in range(101, 113) if all(n < m for m in left)), default=None)
        assert step == (None if best is None else str(best))


def test_deferred_labels_begin_before_the_first_that_is_left() -> None:
    changes = {f"m{n}": Change(RELABELLED, "t", str(n)) for n in (5, 7, 9)}
    assert _last_before(changes, ["m9"]) == "7"
    assert _last_before(changes, ["m7", "m9"]) == "5"
    assert _last_before(changes, ["m5", "m7"]) is None
    assert _last_before(changes, []) is None


def test_a_position_survives_being_stored() -> None:
    position = Position("12", "me@example.com", True, "10", "resync", None, ("a", "b"))
    assert Position.read(position.cursor()) == position
    assert Position.read({"history_id": "12"}) is None
    assert Position.read(None) is None
