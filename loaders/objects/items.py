"""What a source yields: states of objects, and what became of the ones it has no state of."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """Distinct ids that the source listed, and those of them that need no fetch.

    `count` is negative when a bounded run takes back what it did not get to.
    """

    count: int
    already_held: int = 0
    already_dead: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """One object as the API sent it. `external_id` is the id it was asked for by.

    `created_at` is given where the payload does not say when the object came into being, `value`
    where the source has parsed the text.
    """

    object_type: str
    text: str | bytes
    observed_at: dt.datetime
    external_id: str | None = None
    created_at: dt.datetime | None = None
    value: Any = dataclasses.field(default=None, repr=False, compare=False)
    attempts: int = 1
    """Runs that tried to store it, this one included."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deleted:
    """The source says that this object, once there, is no more: a tombstone.

    `with_owner` is set for a part that goes with its owner, or that its owner, which was read
    whole, has no more: it vanishes by the word of that object, and not by itself.
    """

    object_type: str
    external_id: str
    observed_at: dt.datetime
    with_owner: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Gone:
    """Listed, but not there any more when it was fetched; never stored, so no tombstone."""

    object_type: str
    external_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Unfetched:
    """An object that the source keeps failing on; `reason` carries no content."""

    object_type: str
    external_id: str | None
    reason: str
    attempts: int = 1
    """Runs that failed on it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream stands once everything yielded before is landed.

    It goes into the load package of the next objects; of one stream the last one counts.
    """

    stream: str
    value: Mapping[str, Any]
    observed_at: dt.datetime
    can_wait: bool = False
    """Whether it only stands further on, and spares the next run no more than a page: it is not
    worth a load package of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Land:
    """Land what was yielded so far: what follows depends on what the warehouse holds."""


Item = Listed | Observed | Deleted | Gone | Unfetched | Cursor | Land


class ObservationClock:
    """The clock that orders states: never behind what the connection has stored.

    A machine's clock may jump back; an observation may not, or a newer state of an
    object would look stale.
    """

    def __init__(
        self,
        newest_stored: dt.datetime | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._clock = clock
        self._last = newest_stored or dt.datetime.min.replace(tzinfo=dt.UTC)
        self._lock = threading.Lock()

    def now(self) -> dt.datetime:
        """The current time, at least a microsecond after any earlier one."""
        with self._lock:
            self._last = max(self._clock(), self._last + dt.timedelta(microseconds=1))
            return self._last
