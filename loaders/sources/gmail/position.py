"""Where the sync of a mailbox stands: the cursor of the `messages` stream."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

BACKFILL, RESYNC = "backfill", "resync"


@dataclasses.dataclass(frozen=True)
class Position:
    """Everything up to `history_id` is stored, except for what the other fields say.

    `mailbox` is the address that history ids belong to: those of another mean nothing here.
    """

    history_id: str
    mailbox: str
    include_spam_trash: bool
    label_history_id: str | None = None
    """Label changes after this one are not read yet, where it lags behind history_id."""
    snapshot: str | None = None
    """backfill or resync while the mailbox is being read whole: what history_id does not cover."""
    seen_since: dt.datetime | None = None
    """A full resync reads again what was last seen before."""
    unfetched: tuple[str, ...] = ()
    """Messages that the last run failed on."""
    is_shifting: bool = False
    """Whether the last run's listings of the snapshot all had removals in between."""

    @classmethod
    def read(cls, cursor: Mapping[str, Any] | None) -> Position | None:
        """The position that a cursor holds; None without one, or when it lacks a field."""
        if cursor is None or not {"history_id", "mailbox", "include_spam_trash"} <= cursor.keys():
            return None
        values = {**cursor, "unfetched": tuple(cursor.get("unfetched", ()))}
        if cursor.get("seen_since"):
            values["seen_since"] = dt.datetime.fromisoformat(cursor["seen_since"])
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def cursor(self) -> dict[str, Any]:
        """As it is stored: fields that say nothing are left out."""
        values = dataclasses.asdict(self)
        if self.seen_since is not None:
            values["seen_since"] = self.seen_since.isoformat()
        values["unfetched"] = list(self.unfetched)
        return {
            name: value
            for name, value in values.items()
            if value not in (None, [], False)
            or name in ("history_id", "mailbox", "include_spam_trash")
        }

    @property
    def start(self) -> str:
        """The history id from which changes are to be read."""
        return self.label_history_id or self.history_id
