"""What changed in a Stripe account since it was generated, kept in a SQLite file."""

import sqlite3
import threading
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
create table if not exists stripe_settings (name text primary key, value text not null);
create table if not exists stripe_objects (
    account integer not null, kind text not null, number integer not null,
    created integer not null, tag text not null, value text,
    primary key (account, kind, number)
);
"""
FIRST_CREATED = 1 << 39
"""Index of the first object that was created later: above any that is generated."""

_BUSY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Entry:
    """A changed object: its text, None when it was deleted.

    `created` is in epoch seconds; `tag` is what events are chosen by, their type.
    """

    created: int
    text: str | None
    tag: str = ""


class StripeFile:
    """The tables of all accounts; `lock` keeps readers and writers apart."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file; None keeps everything in memory."""
        self.lock = threading.RLock()
        # The mailbox's state is another connection to the same file.
        self.connection = sqlite3.connect(
            path or ":memory:", check_same_thread=False, timeout=_BUSY_SECONDS
        )
        self.connection.executescript(_SCHEMA)

    def setting(self, name: str, default: int) -> int:
        """Return a number that is kept; the first default given for it stays."""
        with self.lock, self.connection:
            insert = "insert or ignore into stripe_settings values (?, ?)"
            self.connection.execute(insert, (name, str(default)))
            query = "select value from stripe_settings where name = ?"
            return int(self.connection.execute(query, (name,)).fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock and write what is put inside together."""
        with self.lock, self.connection:
            yield

    def anchor(self) -> int:
        """Return when the account was generated, in epoch seconds: what it holds is older."""
        return self.setting("anchor", int(time.time()))


class Overlay:
    """The changed objects of one account, all of them in memory."""

    def __init__(self, file: StripeFile, account: int) -> None:
        """Read what the file has about account number `account`."""
        self._file, self._account = file, account
        self.entries: dict[str, dict[int, Entry]] = defaultdict(dict)
        self.created: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._counter = f"next_index_{account}"
        self._next_index = file.setting(self._counter, FIRST_CREATED)
        query = "select kind, number, created, tag, value from stripe_objects where account = ?"
        for kind, index, created, tag, text in file.connection.execute(query, (account,)):
            self._keep(kind, index, Entry(created, text, tag))

    @property
    def changes(self) -> int:
        """How many numbers were given out: another one after every change."""
        return self._next_index - FIRST_CREATED

    def new_index(self) -> int:
        """Return an index that was never given out, inside a transaction of the file."""
        index = self._next_index
        self._next_index += 1
        update = "update stripe_settings set value = ? where name = ?"
        self._file.connection.execute(update, (str(self._next_index), self._counter))
        return index

    def put(self, kind: str, index: int, entry: Entry) -> None:
        """Keep the present state of an object, inside a transaction of the file."""
        values = (self._account, kind, index, entry.created, entry.tag, entry.text)
        upsert = "insert or replace into stripe_objects values (?, ?, ?, ?, ?, ?)"
        self._file.connection.execute(upsert, values)
        self._keep(kind, index, entry)

    def _keep(self, kind: str, index: int, entry: Entry) -> None:
        if index >= FIRST_CREATED and index not in self.entries[kind]:
            insort(self.created[kind], (entry.created, index))
        self.entries[kind][index] = entry
