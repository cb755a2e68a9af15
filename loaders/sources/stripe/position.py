"""Where the sync of one kind stands: the cursor of its stream."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loaders.errors import SourceError
from loaders.sources.positions import StoredPosition
from loaders.sources.stripe.kinds import KINDS

if TYPE_CHECKING:
    from loaders.warehouse.contents import Stored


@dataclasses.dataclass(frozen=True)
class Slice(StoredPosition):
    """A stretch of `created`, in Unix seconds, that is still to be listed, newest first.

    Objects created in [since, before); of those only what comes after `after`, an id.
    """

    since: int = 0
    before: int | None = None
    after: str | None = None
    of_list: int = 0
    """Which of the kind's lists."""


@dataclasses.dataclass(frozen=True)
class Position(StoredPosition):
    """Every change up to `until` is stored, except for what the other fields say.

    `account` and `livemode` are those of the key that read it: ids of others mean nothing here.
    """

    until: int
    """Unix seconds, on Stripe's clock."""
    livemode: bool
    account: str | None = None
    """None when the key may not say."""
    covers: tuple[str, ...] = ()
    """Object types that were stored with it."""
    slices: tuple[Slice, ...] = ()
    """What is still to be listed, while the kind is being read whole."""
    resync_from: dt.datetime | None = None
    """While it is read whole again: what was last seen before then may be gone."""
    seen: tuple[str, ...] = ()
    """What the next run will meet again and this one has dealt with: events by their ids, objects
    that have none by creation, id and what they were."""
    unfetched: tuple[str, ...] = ()
    """Objects that the last run failed on."""
    pending_since: int | None = None
    """Creation, in Unix seconds, of the oldest object that will change without an event."""
    listed_pending: int | None = None
    """The same by what was listed, while the kind was read whole; None where only the warehouse
    tells."""
    next_due: int | None = None
    """When the first of these is to change, Unix seconds; None where only the warehouse tells."""

    @property
    def is_listing(self) -> bool:
        """Whether the kind is being read whole."""
        return bool(self.slices) or self.resync_from is not None


def read_positions(stored: Stored) -> dict[str, Position]:
    """The positions of a connection, by kind."""
    cursors = stored.cursors()
    positions = {name: Position.read(cursors.get(name)) for name in KINDS}
    return {name: position for name, position in positions.items() if position is not None}


def check_account(positions: Mapping[str, Position], account: str | None, *, is_live: bool) -> None:
    """Raise SourceError for a key of another account than the connection has read so far.

    All of the first one's objects would count as deleted.
    """
    for position in positions.values():
        is_other = None not in (account, position.account) and account != position.account
        if is_other or position.livemode != is_live:
            raise SourceError(
                "stripe: the key opens another account, or the other one of live and test mode,"
                " than this connection has read so far; give it a connection of its own, or"
                " correct the key"
            )
