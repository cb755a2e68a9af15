"""What a source yields: states of objects, and what became of the ones it has no state of."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from loaders.erased import Erased
from loaders.errors import AskedToPause

if TYPE_CHECKING:
    from loaders.dead_letters import DeadLetter
    from loaders.errors import SourceError
    from loaders.stored import Stored


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


@dataclasses.dataclass
class Usage:
    """What the API calls of a run cost; sources add to it from any thread."""

    api_calls: int = 0
    api_units: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def add(
        self, *, calls: int = 0, units: int = 0, retries: int = 0, throttled: float = 0.0
    ) -> None:
        """Count calls, quota units, retries and seconds of waiting."""
        with self._lock:
            self.api_calls += calls
            self.api_units += units
            self.retries += retries
            self.throttled_seconds += throttled


@dataclasses.dataclass
class FetchRequest:
    """What a run asks of a source, and what the source may ask of the run."""

    clock: ObservationClock
    usage: Usage
    stored: Stored
    """What the warehouse holds of this connection."""
    cancelled: threading.Event
    """Set when the run ends early: stop waiting and retrying."""
    seconds_left: Callable[[], float] = lambda: 300.0
    """Of the time for fetching; pauses that the source asks for end in it."""
    say: Callable[[str], None] = lambda text: None
    """Tell the person who watches the run."""
    erased: Erased = dataclasses.field(default_factory=Erased)
    """Objects that are not stored again: what is known to be one need not be read."""
    max_objects: int | None = None
    """Fetch at most so many objects."""
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    full_resync: bool = False
    retry: bool = False
    """Read the dead letters again, and nothing else."""
    accept_deletions: bool = False
    """Bury whatever vanished, however many there are."""
    max_deletions_percent: float = 5.0
    """Set by the source: of the held objects of a type, so many may vanish in a run."""
    dry_run: bool = False
    """Nothing is landed: `stored` stays as it was."""
    mode: str = "full"
    """Set by the source: full, incremental, resync or retry."""
    has_more: bool = False
    """Set by the source when it stopped before the end."""
    deferred: int = 0
    """Set by the source: changed objects that wait for a later run."""
    unfetched: int = 0
    """Set by the source: objects that it failed on and that the next run tries again."""
    failures: dict[str, SourceError] = dataclasses.field(default_factory=dict)
    """Set by the source: object types that it could not read, and why; the others are."""
    letters: Iterable[DeadLetter] = ()
    """Of a retry: dead letters whose objects are to be read again; each pass reads their texts."""
    settled: list[str] = dataclasses.field(default_factory=list)
    """Set by the source: dead letters that a retry has dealt with, by their ids."""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Set by the source: what it tells of itself in the telemetry; no content."""

    def must_stop(self) -> bool:
        """Whether the time for fetching is over."""
        return self.seconds_left() < 0

    def check_pause(self, seconds: float, asked_by: str) -> None:
        """Raise AskedToPause where the run has no time for a pause; `asked_by` names the call."""
        # When the time is over, what is under way is finished all the same.
        if seconds > max(60.0, self.seconds_left()):
            pause = dt.timedelta(seconds=round(seconds))
            raise AskedToPause(
                f"{asked_by}: asked to pause for {pause}, which is longer than this run may take;"
                " what was read is landed, run again after that time"
            )


class Source(Protocol):
    """One source system. `fetch` yields untouched payloads; landing does the rest."""

    @property
    def source_system(self) -> str:
        """Name of the system, as in `idem_key`."""
        ...

    @property
    def volatile_keys(self) -> Collection[str]:
        """Member names that change on every read of the same object."""
        ...

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        """Yield items; raise SourceError or TransientSourceError."""
        ...

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        """The object's idem_key; ValueError when it has no id."""
        ...

    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        """When the object came into being; None when the source does not say."""
        ...

    def close(self) -> None:
        """Give back threads and connections."""
        ...
