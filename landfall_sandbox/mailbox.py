"""The sandbox's mailbox: generated from a seed, of any size, plus the changes in its state."""

from collections.abc import Iterator, Mapping
from html import escape
from itertools import chain
from typing import Any

from landfall_sandbox.content import Composer, Envelope
from landfall_sandbox.ids import Identifiers
from landfall_sandbox.layout import LABEL_PERIOD, LabelTest, Layout
from landfall_sandbox.mime import (
    Part,
    base64url,
    render_bytes,
    render_headers,
    render_payload,
    walk,
)
from landfall_sandbox.raw_mail import header_of, parse_mail, person_of, words_of
from landfall_sandbox.state import FIRST_INSERTED, Inserted, State
from landfall_sandbox.texts import Dice

FORMATS = ("full", "metadata", "minimal", "raw")
HIDDEN_LABELS = frozenset(("SPAM", "TRASH"))
_SNIPPET_CHARS = 200


class Mailbox:
    """A mailbox that stores nothing but its changes.

    Message `i` is a function of (seed, size, i): the size only decides how the dates are spread.
    Index 0 is the oldest of them, `total - 1` the newest. No method holds one entry per message.
    Mail that was put in has indexes of its own, from FIRST_INSERTED on, and any date.
    """

    def __init__(self, seed: int, size: int, state: State | None = None) -> None:
        """Generate a mailbox of `size` messages; without `state` its changes stay in memory.

        A state decides seed, size and threads.
        """
        self.state = state or State(None, seed, size)
        self.seed, self.size = self.state.seed, self.state.size
        self.identifiers = Identifiers(self.seed)
        self.layout = Layout(self.seed, self.size, self.state.threads)
        self.composer = Composer(self.seed, self.layout, self.identifiers)

    def __len__(self) -> int:
        """Return the number of messages that exist, spam and trash included."""
        return self.total + len(self.state.inserted) - len(self.state.deleted)

    @property
    def total(self) -> int:
        """How many generated messages ever arrived, deleted ones too; one above the last index."""
        return self.size + self.state.delivered

    def indexes(self) -> Iterator[int]:
        """Yield the index of every message that ever arrived, inserted ones last."""
        return chain(range(self.total), list(self.state.inserted))

    @property
    def history_id(self) -> int:
        """The mailbox's current history id."""
        return self.state.history_id

    def message_id(self, index: int) -> str:
        """Return the id of message `index`."""
        return self.identifiers.message_id(index)

    def thread_id(self, index: int) -> str:
        """Return the id of the message's thread: the id of its first message."""
        return self.identifiers.message_id(self.thread_root(index))

    def thread_root(self, index: int) -> int:
        """Return the index of the message that the thread is named after."""
        inserted = self.state.inserted.get(index)
        return self.layout.thread_root(index) if inserted is None else inserted.thread

    def date_ms(self, index: int) -> int:
        """Return the internal date in epoch milliseconds."""
        inserted = self.state.inserted.get(index)
        return self.layout.date_ms(index) if inserted is None else inserted.date_ms

    def order(self, index: int) -> tuple[int, int]:
        """Return what listings are sorted by, downwards."""
        return self.date_ms(index), index

    def has_arrived(self, index: int) -> bool:
        """Return whether there is or was such a message."""
        return 0 <= index < self.total or index in self.state.inserted

    def exists(self, index: int) -> bool:
        """Return whether message `index` has arrived and was not deleted."""
        return self.has_arrived(index) and index not in self.state.deleted

    def index_of(self, message_id: str) -> int:
        """Return the index of a message that exists.

        Raises ValueError for text that is no Gmail id, KeyError for an unknown or deleted one.
        """
        index = self.identifiers.message_index(message_id)
        if index is None or not self.exists(index):
            raise KeyError(message_id)
        return index

    def labels(self, index: int) -> tuple[str, ...]:
        """Return the message's current label ids."""
        changed = self.state.labels.get(index)
        return self.layout.labels(index) if changed is None else changed

    def message_history_id(self, index: int) -> int:
        """Return the id of the last history record that touched the message."""
        return self.state.last_history_ids.get(index) or self.layout.base_history_id(index)

    def thread(self, thread_id: str) -> list[int]:
        """Return the existing messages of a thread, oldest first.

        Raises ValueError for text that is no Gmail id, KeyError for an unknown thread.
        """
        root = self.identifiers.message_index(thread_id)
        if root is None or not self.has_arrived(root) or self.thread_root(root) != root:
            raise KeyError(thread_id)
        members = [index for index in self.members(root) if self.exists(index)]
        if not members:
            raise KeyError(thread_id)
        return members

    def members(self, index: int) -> list[int]:
        """Return the message's thread, oldest first: deleted and coming messages included."""
        root = self.thread_root(index)
        generated = [] if root in self.state.inserted else self.layout.thread(root)
        added = [each for each, entry in self._inserted() if entry.thread == root]
        return sorted(generated + added, key=self.order) if added else generated

    def newest_inserted(self) -> list[int]:
        """Return the indexes of the mail that was put in, newest first."""
        return sorted((index for index, _ in self._inserted()), key=self.order, reverse=True)

    def _inserted(self) -> list[tuple[int, Inserted]]:
        return list(self.state.inserted.items())

    def envelope(self, index: int) -> Envelope:
        """Return sender, recipient, subject and kind of a message."""
        if index not in self.state.inserted:
            return self.composer.envelope(index)
        part = parse_mail(self.state.raw(index))
        return Envelope(
            index=index,
            kind="",
            trait="",
            sender=person_of(part, "From"),
            recipient=person_of(part, "To"),
            subject=header_of(part, "Subject"),
            message_id=header_of(part, "Message-ID"),
            has_attachment=any(child.filename for _, child in walk(part)),
            dice=Dice(index),
        )

    def text(self, index: int) -> str:
        """Return the words of a message, without markup."""
        return self._content(index)[1]

    def raw(self, index: int) -> bytes:
        """Return the message's RFC 5322 bytes."""
        return self._content(index)[2]

    def message(
        self, index: int, format: str = "full", metadata_headers: list[str] | None = None
    ) -> dict[str, Any]:
        """Return a message as the API's Message resource.

        `format` is full, metadata, minimal or raw; `metadata_headers` names the headers that
        metadata keeps (all without it). Source: Gmail API v1, users.messages.get.
        """
        part, text, raw = self._content(index)
        message = self.reference(index) | {
            "snippet": _snippet(text),
            "sizeEstimate": len(raw),
            "historyId": str(self.message_history_id(index)),
            "internalDate": str(self.date_ms(index)),
        }
        if format == "full":
            message["payload"] = render_payload(part, lambda part_id: self._sealed(index, part_id))
        elif format == "metadata":
            message["payload"] = _metadata(part, metadata_headers)
        elif format == "raw":
            message["raw"] = base64url(raw)
        return message

    def reference(self, index: int) -> dict[str, Any]:
        """Return id, threadId and labelIds; like Gmail's, without labelIds when there are none."""
        reference: dict[str, Any] = {
            "id": self.message_id(index),
            "threadId": self.thread_id(index),
        }
        if labels := self.labels(index):
            reference["labelIds"] = list(labels)
        return reference

    def attachment(self, index: int, attachment_id: str) -> bytes:
        """Return an attachment's bytes. Raises ValueError for an id of another message."""
        part_id = self.identifiers.attachment_part(index, attachment_id)
        return dict(walk(self._content(index)[0]))[part_id].body

    def _sealed(self, index: int, part_id: str) -> str:
        return self.identifiers.attachment_id(index, part_id)

    def _content(self, index: int) -> tuple[Part, str, bytes]:
        """Return a message's MIME tree, its words and its bytes."""
        if index in self.state.inserted:
            raw = self.state.raw(index)
            part = parse_mail(raw)
            return part, words_of(part), raw
        envelope = self.composer.envelope(index)
        text = self.composer.text(envelope)
        part = self.composer.compose(envelope, text)
        return part, text, render_bytes(part)

    def count_messages(self, test: LabelTest) -> int:
        """Return how many existing messages have labels that pass `test`."""
        matches = self.layout.matching(test)
        count = self.layout.count_messages(self.total, matches)
        for index in self.state.deleted | self.state.labels.keys():
            count -= index < FIRST_INSERTED and matches[index % LABEL_PERIOD]
            count += self.exists(index) and test(frozenset(self.labels(index)))
        return count

    def count_threads(self, test: LabelTest) -> int:
        """Return how many threads have an existing message whose labels pass `test`."""
        matches = self.layout.matching(test)
        count = self.layout.count_threads(self.total, matches)
        changed = self.state.deleted | self.state.labels.keys()
        for root in {self.thread_root(index) for index in changed}:
            members = [index for index in self.members(root) if self.has_arrived(index)]
            generated = (index for index in members if index < FIRST_INSERTED)
            count -= any(matches[index % LABEL_PERIOD] for index in generated)
            count += any(
                self.exists(index) and test(frozenset(self.labels(index))) for index in members
            )
        return count

    @property
    def label_names(self) -> Mapping[str, str]:
        """The names of all labels by id."""
        return self.state.label_names

    def label(self, label_id: str, *, with_counts: bool = True) -> dict[str, Any]:
        """Return a label as the API's Label resource. Raises KeyError for an unknown one.

        Source: Gmail API v1, users.labels.get; users.labels.list leaves the counts out.
        """
        name = self.label_names[label_id]
        kind = "user" if label_id.startswith("Label_") else "system"
        label: dict[str, Any] = {"id": label_id, "name": name, "type": kind}
        if kind == "user":
            label |= {"messageListVisibility": "show", "labelListVisibility": "labelShow"}
        if with_counts:
            either, unread = {label_id}, {label_id, "UNREAD"}
            label |= {
                "messagesTotal": self.count_messages(either.issubset),
                "messagesUnread": self.count_messages(unread.issubset),
                "threadsTotal": self.count_threads(either.issubset),
                "threadsUnread": self.count_threads(unread.issubset),
            }
        return label


def _snippet(text: str) -> str:
    words = " ".join(text[: _SNIPPET_CHARS * 2].split())
    return escape(words[:_SNIPPET_CHARS]).replace("&#x27;", "&#39;")


def _metadata(part: Part, names: list[str] | None) -> dict[str, Any]:
    headers = render_headers(part)
    if names:
        wanted = {name.lower() for name in names}
        headers = [header for header in headers if header["name"].lower() in wanted]
    return {"mimeType": part.mime_type, "headers": headers}
