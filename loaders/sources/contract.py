"""What a source is asked, and what it has to be able to do."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from loaders.errors import AskedToPause, LandfallError
from loaders.objects.erasure_blocks import Erased
from loaders.objects.items import Item, ObservationClock, Observed
from loaders.sources.bounds import Bounds
from loaders.sources.inventory import Inventory
from loaders.warehouse.contents import Stored

if TYPE_CHECKING:
    from loaders.errors import SourceError
    from loaders.warehouse.contents import Stored
    from loaders.warehouse.dead_letters import DeadLetter


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


@dataclasses.dataclass(frozen=True)
class FetchOptions:
    """What a person asks of a run; each field is an option of the command line."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    full_resync: bool = False
    retry: bool = False
    """Read the dead letters again, and nothing else."""
    accept_deletions: bool = False
    """Bury whatever vanished, however many there are."""
    objects: tuple[str, ...] | None = None
    """Object types to read, where not all are."""
    max_objects: int | None = None
    """Fetch at most so many objects."""


@dataclasses.dataclass
class FetchOutcome:
    """What a source answers beside its items."""

    mode: str = "full"
    """full, incremental, resync or retry."""
    has_more: bool = False
    """It stopped before the end."""
    deferred: int = 0
    """Changed objects that wait for a later run."""
    unfetched: int = 0
    """Objects that it failed on and that the next run tries again."""
    failures: dict[str, SourceError] = dataclasses.field(default_factory=dict)
    """Object types that it could not read, and why; the others are."""
    settled: list[str] = dataclasses.field(default_factory=list)
    """Dead letters that a retry has dealt with, by their ids."""
    max_deletions_percent: float = 5.0
    """Of the held objects of a type, so many may vanish in a run."""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What it tells of itself in the telemetry; no content."""


@dataclasses.dataclass
class FetchRequest:
    """What a run asks of a source, and what the source may ask of the run."""

    clock: ObservationClock
    usage: Usage
    stored: Stored
    """What the warehouse holds of this connection."""
    cancelled: threading.Event
    """Set when the run ends early: stop waiting and retrying."""
    options: FetchOptions = FetchOptions()
    seconds_left: Callable[[], float] = lambda: 300.0
    """Of the time for fetching; pauses that the source asks for end in it."""
    say: Callable[[str], None] = lambda text: None
    """Tell the person who watches the run."""
    erased: Erased = dataclasses.field(default_factory=Erased)
    """Objects that are not stored again: what is known to be one need not be read."""
    dry_run: bool = False
    """Nothing is landed: `stored` stays as it was."""
    letters: Iterable[DeadLetter] = ()
    """Of a retry: dead letters whose objects are to be read again; each pass reads their texts."""
    outcome: FetchOutcome = dataclasses.field(default_factory=FetchOutcome)

    @functools.cached_property
    def bounds(self) -> Bounds:
        """Of its time and number of objects: a source takes of them what it is about to read."""
        return Bounds(self.options.max_objects, self.must_stop)

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


class NotVerifiable(LandfallError):
    """What is stored cannot be told from what is still to be read."""

    retryable = True


class VerifiableSource(Source, Protocol):
    """A source that can list all of its objects."""

    def verify(self, request: FetchRequest, inventory: Inventory) -> None:
        """Fill an inventory with both sides, and with what excuses differences.

        What the warehouse holds is read first, then what the source lists, then what has changed
        since the stored position: so that whatever happens meanwhile, a run of the connection
        too, is among the changes. Raises SourceError, NotVerifiable.
        """
        ...
