"""What changed in the mailbox since it was generated, kept in a SQLite file."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from landfall_sandbox.layout import DEFAULT_THREADS, FIRST_HISTORY_ID, HISTORY_STEP, LABEL_NAMES

_SCHEMA = """
create table if not exists settings (name text primary key, value text not null);
create table if not exists history (
    id integer primary key, kind text not null, message integer not null,
    labels text not null, changed text not null
);
create table if not exists labels (message integer primary key, labels text not null);
create table if not exists deleted (message integer primary key);
create table if not exists inserted (
    message integer primary key, date_ms integer not null, thread integer not null,
    raw blob not null
);
create table if not exists label_names (id text primary key, name text);
"""
# A mailbox never moves its history id by exactly one: a client must not count on it.
_HISTORY_GAP = 7
FIRST_INSERTED = 1 << 39
"""Index of the first inserted message: above any that is generated."""


@dataclass(frozen=True, slots=True)
class Change:
    """One history record: what happened to one message, and its labels afterwards."""

    history_id: int
    kind: str
    index: int
    labels: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inserted:
    """What is kept in memory of an inserted message; `thread` is its thread's first message."""

    date_ms: int
    thread: int


class State:
    """Deliveries, insertions, deletions, label changes and restores of one mailbox.

    The file holds changes only; a copy of them in memory serves the reads. A change is visible
    and on disk when `transaction` ends. `lock` keeps readers and writers apart.
    """

    def __init__(
        self, path: Path | None, seed: int, size: int, threads: str = DEFAULT_THREADS
    ) -> None:
        """Open or create the file; None keeps everything in memory.

        An existing file decides `seed`, `size` and `threads`: the arguments are for a new one.
        """
        self.lock = threading.RLock()
        self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False)
        self._connection.executescript(_SCHEMA)
        self.seed = int(self._setting("seed", str(seed)))
        self.size = int(self._setting("size", str(size)))
        self.threads = self._setting("threads", threads)
        self.delivered = int(self._setting("delivered", "0"))
        first = FIRST_HISTORY_ID + self.size * HISTORY_STEP
        self.history_id = int(self._setting("history_id", str(first)))
        expired = self._setting("history_expired_before", "")
        self.history_expired_before: int | None = int(expired) if expired else None
        self._connection.commit()
        self._load()

    def _load(self) -> None:
        """Read what serves the reads; the bytes of inserted mail stay in the file."""
        self.deleted = {row[0] for row in self._connection.execute("select message from deleted")}
        self.labels = {
            message: tuple(json.loads(labels))
            for message, labels in self._connection.execute("select message, labels from labels")
        }
        last_ids = "select message, max(id) from history group by message"
        self.last_history_ids: dict[int, int] = dict(self._connection.execute(last_ids))
        rows = self._connection.execute("select message, date_ms, thread from inserted")
        self.inserted = {message: Inserted(date_ms, thread) for message, date_ms, thread in rows}
        self.label_names = dict(LABEL_NAMES)
        for label, name in self._connection.execute("select id, name from label_names"):
            self._set_label_name(label, name)

    def _setting(self, name: str, default: str) -> str:
        insert = "insert or ignore into settings values (?, ?)"
        self._connection.execute(insert, (name, default))
        query = "select value from settings where name = ?"
        return str(self._connection.execute(query, (name,)).fetchone()[0])

    def _save_setting(self, name: str, value: str) -> None:
        self._connection.execute("update settings set value = ? where name = ?", (value, name))

    @property
    def first_history_id(self) -> int:
        """The history id of the mailbox before any change."""
        return FIRST_HISTORY_ID + self.size * HISTORY_STEP

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock and write the changes recorded inside together."""
        with self.lock, self._connection:
            yield
            self._save_setting("history_id", str(self.history_id))
            self._save_setting("delivered", str(self.delivered))

    def expire_history_before(self, history_id: int | None) -> None:
        """Forget history older than `history_id`; None remembers all of it again."""
        with self.transaction():
            self.history_expired_before = history_id
            value = "" if history_id is None else str(history_id)
            self._save_setting("history_expired_before", value)

    def record_delivery(self, index: int, labels: tuple[str, ...]) -> None:
        """Let the next message arrive; `index` must be the first one not there yet."""
        self.delivered += 1
        self._record("messageAdded", index, labels)

    def record_insertion(
        self, raw: bytes, labels: tuple[str, ...], date_ms: int, thread: int | None
    ) -> int:
        """Put a message in, into a thread (None: its own); return its index."""
        index = FIRST_INSERTED + len(self.inserted)
        entry = Inserted(date_ms, index if thread is None else thread)
        values = (index, entry.date_ms, entry.thread, raw)
        self._connection.execute("insert into inserted values (?, ?, ?, ?)", values)
        self.inserted[index] = entry
        self.set_labels(index, labels)
        self._record("messageAdded", index, labels)
        return index

    def raw(self, index: int) -> bytes:
        """Return the bytes of an inserted message."""
        query = "select raw from inserted where message = ?"
        with self.lock:
            raw: bytes = self._connection.execute(query, (index,)).fetchone()[0]
        return raw

    def record_deletion(self, index: int, labels: tuple[str, ...]) -> None:
        """Delete a message for good; `labels` are those it had."""
        self.deleted.add(index)
        self._connection.execute("insert into deleted values (?)", (index,))
        self._record("messageDeleted", index, labels)

    def record_restore(self, index: int, labels: tuple[str, ...]) -> None:
        """Bring a deleted message back; to a client it is a message added."""
        self.deleted.discard(index)
        self._connection.execute("delete from deleted where message = ?", (index,))
        self._record("messageAdded", index, labels)

    def record_labels(
        self, kind: str, index: int, labels: tuple[str, ...], changed: tuple[str, ...]
    ) -> None:
        """Give a message new labels; `kind` is labelAdded or labelRemoved."""
        self.set_labels(index, labels)
        self._record(kind, index, labels, changed)

    def set_labels(self, index: int, labels: tuple[str, ...]) -> None:
        """Give a message new labels of which the history does not tell."""
        self.labels[index] = labels
        upsert = "insert or replace into labels values (?, ?)"
        self._connection.execute(upsert, (index, json.dumps(labels)))

    def name_label(self, label: str, name: str | None) -> None:
        """Create a label, rename it, or (None) delete it."""
        upsert = "insert or replace into label_names values (?, ?)"
        self._connection.execute(upsert, (label, name))
        self._set_label_name(label, name)

    def is_label_used(self, label: str) -> bool:
        """Return whether there is or was such a label: ids are never used again."""
        query = "select count(*) from label_names where id = ?"
        with self.lock:
            known = self._connection.execute(query, (label,)).fetchone()[0]
        return bool(known) or label in LABEL_NAMES

    def _set_label_name(self, label: str, name: str | None) -> None:
        # A new dict: readers in other threads may be walking through this one.
        names = dict(self.label_names)
        if name is None:
            names.pop(label, None)
        else:
            names[label] = name
        self.label_names = names

    def _record(
        self, kind: str, index: int, labels: tuple[str, ...], changed: tuple[str, ...] = ()
    ) -> None:
        self.history_id += 1 + index % _HISTORY_GAP
        self.last_history_ids[index] = self.history_id
        values = (self.history_id, kind, index, json.dumps(labels), json.dumps(changed))
        self._connection.execute("insert into history values (?, ?, ?, ?, ?)", values)

    def changes(self, after: int) -> Iterator[Change]:
        """Yield the changes with a history id above `after`, oldest first."""
        query = "select * from history where id > ? order by id limit 1000"
        while rows := self._connection.execute(query, (after,)).fetchall():
            for history_id, kind, index, labels, changed in rows:
                decoded = tuple(json.loads(labels)), tuple(json.loads(changed))
                yield Change(history_id, kind, index, *decoded)
            after = rows[-1][0]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
