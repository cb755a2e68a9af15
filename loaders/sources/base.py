"""What every source that stands on the engine has: its threads, its keys, its three ways to run."""

from __future__ import annotations

import abc
import concurrent.futures
import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from loaders.objects.idem_keys import idem_key, key_by_id, owners
from loaders.objects.items import Item, Observed
from loaders.sources.contract import FetchRequest
from loaders.sources.options import SourceOptions


class EngineSource(abc.ABC):
    """One connection of a source whose objects have an `id`."""

    source_system: str
    volatile_keys: Collection[str] = ()
    """Members that change on every read of the same object."""

    def __init__(self, connection_name: str, config: SourceOptions) -> None:
        self._connection_name = connection_name
        self._options = config
        self._pool = concurrent.futures.ThreadPoolExecutor(config.workers, self.source_system)

    def idem_key(self, item: Observed, payload: Mapping[str, Any]) -> str:
        """By the API's id; a part's by its owner's and its own, which the item brings.

        Raises ValueError for an object without an id, or with another than was asked for.
        """
        place = (self.source_system, self._connection_name, item.object_type)
        if item.object_type in owners(self.source_system):
            return idem_key(*place, item.external_id or "")
        key = key_by_id(*place)(payload)
        if item.external_id not in (None, payload["id"]):
            named = f"{self.source_system} {item.object_type}"
            raise ValueError(f"{named} with another id than was asked for")
        return key

    @abc.abstractmethod
    def created_at(self, item: Observed, payload: Mapping[str, Any]) -> dt.datetime | None:
        """When an object came into being; None where the source does not say."""

    def fetch(self, request: FetchRequest) -> Iterator[Item]:
        """Yield what changed since the last run; what lies between two dates; or dead letters."""
        request.outcome.max_deletions_percent = self._options.max_deletions_percent
        request.bounds.are_kept = True
        options = request.options
        if options.retry:
            yield from self.retry(request)
        elif options.since is not None or options.until is not None:
            yield from self.between(request)
        else:
            yield from self.sync(request)
        request.outcome.has_more |= request.bounds.is_reached

    @abc.abstractmethod
    def sync(self, request: FetchRequest) -> Iterator[Item]:
        """What changed since the stored position, or everything; the position moves along."""

    @abc.abstractmethod
    def between(self, request: FetchRequest) -> Iterator[Item]:
        """What was created between two dates; where the sync stands is left alone."""

    @abc.abstractmethod
    def retry(self, request: FetchRequest) -> Iterator[Item]:
        """The objects of dead letters, read anew; of those that cannot be, their texts again."""

    def close(self) -> None:
        """Stop the worker threads; requests under way are waited for."""
        self._pool.shutdown(cancel_futures=True)
