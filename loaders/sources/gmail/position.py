"""Where the sync of a mailbox stands: the cursor of the `messages` stream."""

from __future__ import annotations

import dataclasses
import datetime as dt

from loaders.sources.positions import StoredPosition

BACKFILL, RESYNC = "backfill", "resync"


@dataclasses.dataclass(frozen=True)
class Position(StoredPosition):
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

    @property
    def start(self) -> str:
        """The history id from which changes are to be read."""
        return self.label_history_id or self.history_id
