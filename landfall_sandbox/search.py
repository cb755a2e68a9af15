"""The search language of `q`, and listings of the messages that match.

Source: https://support.google.com/mail/answer/7190 (search operators), Gmail API v1, "Searching
for messages".
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import merge
from typing import Any
from zoneinfo import ZoneInfo

from landfall_sandbox.layout import LABEL_PERIOD, SPAN_END_MS
from landfall_sandbox.mailbox import HIDDEN_LABELS, Mailbox

_TERM = re.compile(r'(-?)(?:(\w+):)?("[^"]*"|\([^)]*\)|\S+)')
_DAYS = {"d": 1, "m": 30, "y": 365}
_FOLDERS = {"inbox": "INBOX", "sent": "SENT", "spam": "SPAM", "trash": "TRASH", "draft": "DRAFT"}
_FLAGS = {"unread": "UNREAD", "starred": "STARRED", "important": "IMPORTANT"}
_NO_LABEL = "no such label"

ContentTest = Callable[[Mailbox, int], bool]


@dataclass(slots=True)
class Query:
    """What a listing asks for; `start_ms` is inclusive, `end_ms` exclusive."""

    labels: set[str] = field(default_factory=set)
    without_labels: set[str] = field(default_factory=set)
    start_ms: int | None = None
    end_ms: int | None = None
    include_hidden: bool = False
    tests: list[ContentTest] = field(default_factory=list)

    def matches_labels(self, labels: frozenset[str]) -> bool:
        """Return whether a message with these labels belongs to the listing."""
        if not self.labels <= labels or self.without_labels & labels:
            return False
        return self.include_hidden or not (labels & HIDDEN_LABELS) - self.labels

    def is_unfiltered(self) -> bool:
        """Return whether labels alone decide, so that the size of the result is known."""
        return self.start_ms is None and self.end_ms is None and not self.tests

    def add(self, operator: str, value: str, is_negated: bool, mailbox: Mailbox) -> bool:
        """Add one term; return False for an operator or value this search doesn't know."""
        if (label := _label_of(operator, value, mailbox)) is not None:
            (self.without_labels if is_negated else self.labels).add(label)
        elif operator == "in" and value == "anywhere":
            self.include_hidden = True
        elif not is_negated and (moment := _moment(operator, value, mailbox)) is not None:
            self._bound(operator, moment)
        elif test := _content_test(operator, value, mailbox):
            self.tests.append(_negated(test) if is_negated else test)
        else:
            return False
        return True

    def _bound(self, operator: str, moment_ms: int) -> None:
        if operator in ("after", "newer", "newer_than"):
            self.start_ms = max(moment_ms, self.start_ms or moment_ms)
        else:
            self.end_ms = min(moment_ms, self.end_ms or moment_ms)


def parse_query(text: str, mailbox: Mailbox) -> Query:
    """Return the query for `q`. Terms are joined by AND; an unknown operator is a word."""
    query = Query()
    for match in _TERM.finditer(text):
        sign, operator, value = match.groups()
        bare = value.strip('"()').lower()
        if not query.add((operator or "").lower(), bare, bool(sign), mailbox):
            query.add("", match[0].lstrip("-").lower(), bool(sign), mailbox)
    return query


def _label_of(operator: str, value: str, mailbox: Mailbox) -> str | None:
    if operator == "in":
        return _FOLDERS.get(value)
    if operator == "is":
        return _FLAGS.get(value)
    if operator != "label":
        return None
    wanted = _label_slug(value)
    named = (
        label
        for label, name in mailbox.label_names.items()
        if wanted in (_label_slug(label), _label_slug(name))
    )
    return next(named, _NO_LABEL)


def _label_slug(name: str) -> str:
    """Return a label's name as a search writes it: lower case, blanks and slashes as hyphens."""
    return re.sub(r"[\s/]", "-", name.lower())


def _moment(operator: str, value: str, mailbox: Mailbox) -> int | None:
    """Return the bound of a date term in epoch milliseconds, or None for anything else."""
    if operator in ("after", "newer", "before", "older"):
        if re.fullmatch(r"[0-9]{5,12}", value):
            return int(value) * 1000
        return _pacific_midnight_ms(value)
    if operator in ("newer_than", "older_than"):
        match = re.fullmatch(r"([0-9]{1,4})([dmy])", value)
        if match:
            return _now_ms(mailbox) - int(match[1]) * _DAYS[match[2]] * 86_400_000
    return None


def _pacific_midnight_ms(value: str) -> int | None:
    match = re.fullmatch(r"([0-9]{4})[/-]([0-9]{1,2})[/-]([0-9]{1,2})", value)
    if not match:
        return None
    year, month, day = map(int, match.groups())
    try:
        moment = datetime(year, month, day, tzinfo=ZoneInfo("America/Los_Angeles"))
    except ValueError:
        return None
    return int(moment.timestamp() * 1000)


def _now_ms(mailbox: Mailbox) -> int:
    """Return the mailbox's own "now": the midnight (UTC) after its newest generated message."""
    last_ms = mailbox.layout.date_ms(mailbox.total - 1) if mailbox.total else SPAN_END_MS
    newest = datetime.fromtimestamp(last_ms // 1000, UTC)
    midnight = newest.replace(hour=0, minute=0, second=0) + timedelta(days=1)
    return int(midnight.timestamp() * 1000)


def _content_test(operator: str, value: str, mailbox: Mailbox) -> ContentTest | None:
    if operator == "from":
        return lambda box, index: value in str(box.envelope(index).sender).lower()
    if operator == "to":
        return lambda box, index: value in str(box.envelope(index).recipient).lower()
    if operator == "subject":
        return lambda box, index: value in box.envelope(index).subject.lower()
    if operator == "has" and value == "attachment":
        return lambda box, index: box.envelope(index).has_attachment
    if operator == "rfc822msgid":
        wanted = mailbox.composer.index_of_message_id(value)
        return lambda box, index: _has_message_id(box, index, value.strip("<>"), wanted)
    if operator == "":
        return lambda box, index: _has_words(box, index, value)
    return None


def _has_message_id(mailbox: Mailbox, index: int, value: str, wanted: int | None) -> bool:
    """Test a message for the id; `wanted` is the generated message that it belongs to."""
    if index not in mailbox.state.inserted and index != wanted:
        return False
    return mailbox.envelope(index).message_id.lower().strip("<>") == value


def _has_words(mailbox: Mailbox, index: int, words: str) -> bool:
    envelope = mailbox.envelope(index)
    people = f"{envelope.sender} {envelope.recipient}"
    text = f"{envelope.subject} {people} {mailbox.text(index)}"
    return words in text.lower()


def _negated(test: ContentTest) -> ContentTest:
    return lambda mailbox, index: not test(mailbox, index)


def matching_messages(mailbox: Mailbox, query: Query, below: int | None = None) -> Iterator[int]:
    """Yield the indexes that match, newest first, starting after the message `below`."""
    generated = _matching_generated(mailbox, query, below)
    if not mailbox.state.inserted:
        return generated
    start = None if below is None else mailbox.order(below)
    inserted = (
        index
        for index in mailbox.newest_inserted()
        if (start is None or mailbox.order(index) < start) and is_match(mailbox, query, index)
    )
    return merge(generated, inserted, key=mailbox.order, reverse=True)


def _matching_generated(mailbox: Mailbox, query: Query, below: int | None) -> Iterator[int]:
    """Yield the generated messages that match, newest first.

    Dates are looked up, labels tested by table; only content tests generate messages.
    """
    dates, indexes = mailbox.layout.date_ms, range(mailbox.total)
    top = mailbox.total if below is None else min(below, mailbox.total)
    if below is not None and below in mailbox.state.inserted:
        top = bisect_right(indexes, mailbox.date_ms(below), key=dates)
    if query.end_ms is not None:
        top = min(top, bisect_left(indexes, query.end_ms, key=dates))
    bottom = 0 if query.start_ms is None else bisect_left(indexes, query.start_ms, key=dates)
    by_place = mailbox.layout.matching(query.matches_labels)
    state = mailbox.state
    for index in range(top - 1, bottom - 1, -1):
        if index in state.labels:
            has_labels = query.matches_labels(frozenset(state.labels[index]))
        else:
            has_labels = by_place[index % LABEL_PERIOD]
        if not has_labels or index in state.deleted:
            continue
        if all(test(mailbox, index) for test in query.tests):
            yield index


def matching_threads(mailbox: Mailbox, query: Query, below: int | None = None) -> Iterator[int]:
    """Yield the newest matching message of each thread, newest thread first."""
    order: Callable[[int], Any] = mailbox.order if mailbox.state.inserted else int
    for index in matching_messages(mailbox, query, below):
        later = [member for member in mailbox.members(index) if order(index) < order(member)]
        if not any(is_match(mailbox, query, member) for member in later):
            yield index


def is_match(mailbox: Mailbox, query: Query, index: int) -> bool:
    """Return whether one message belongs to the listing."""
    if not mailbox.exists(index) or not query.matches_labels(frozenset(mailbox.labels(index))):
        return False
    date = mailbox.date_ms(index)
    if query.start_ms is not None and date < query.start_ms:
        return False
    if query.end_ms is not None and date >= query.end_ms:
        return False
    return all(test(mailbox, index) for test in query.tests)
