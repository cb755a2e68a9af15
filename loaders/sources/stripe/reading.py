"""Reading objects: a page of a list, or one by one; whole, with all that lists inside of them
hold, and invoices with all of their lines."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from loaders.errors import SourceError
from loaders.objects.items import Observed
from loaders.objects.json_elements import dedented, json_elements, json_member
from loaders.sources.contract import FetchRequest
from loaders.sources.refusals import OF_ONE_OBJECT, NotFound, another_object
from loaders.sources.rest import escaped, is_object
from loaders.sources.stripe.client import PAGE_SIZE, StripeClient, not_advancing
from loaders.sources.stripe.embedded import address, completed
from loaders.sources.stripe.kinds import INVOICE, INVOICE_LINE, Kind
from loaders.sources.stripe.position import Slice

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """One object that was asked for: what it brought, or why it brought nothing."""

    object_id: str
    observed_at: dt.datetime
    observed: Sequence[Observed] = ()
    """Of an invoice its lines too."""
    error: SourceError | None = None
    is_gone: bool = False
    """Stripe does not have it (any more)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PageRead:
    """One page of a slice: its objects, and what is left of the slice (None: nothing)."""

    reads: Sequence[Read]
    rest: Slice | None
    newest: int | None = None
    oldest: int | None = None
    """Creation, in Unix seconds, of the newest and oldest of its objects."""


class Reader:
    """Reads objects for one run, from any thread."""

    def __init__(self, client: StripeClient, request: FetchRequest) -> None:
        self._client = client
        self._request = request
        self._with_lines = INVOICE_LINE in client.config.objects

    def page(self, kind: Kind, part: Slice, limit: int = PAGE_SIZE) -> PageRead:
        """The newest objects of a slice. Raises what StripeClient raises."""
        observed_at = self._request.clock.now()
        page = self._client.page(self._request, kind.path, _filter(kind, part), limit=limit)
        reads = [self._read(kind, text, value, observed_at) for text, value in page.objects]
        created = [created_seconds(value) for _, value in page.objects]
        known = [seconds for seconds in created if seconds is not None]
        rest = None
        if page.has_more:
            if not reads or any(read.object_id == part.after for read in reads):
                raise not_advancing(kind.path)
            rest = dataclasses.replace(part, after=reads[-1].object_id)
        return PageRead(reads, rest, max(known, default=None), min(known, default=None))

    def one(self, kind: Kind, object_id: str) -> Read:
        """One object. Raises PermissionDenied and SourceError; other failures are in it."""
        observed_at = self._request.clock.now()
        try:
            text, value = self._client.object(self._request, kind.path, object_id)
        except NotFound:
            return Read(object_id, observed_at, is_gone=True)
        except OF_ONE_OBJECT as error:
            return Read(object_id, observed_at, error=error)
        if value.get("id") != object_id:
            return Read(object_id, observed_at, error=another_object("stripe", kind.name))
        if value.get("deleted") is True:  # all that is left of it
            return Read(object_id, observed_at, is_gone=True)
        return self._read(kind, text, value, observed_at, object_id)

    def _read(
        self,
        kind: Kind,
        text: str | bytes,
        value: Mapping[str, Any],
        observed_at: dt.datetime,
        asked_for: str | None = None,
    ) -> Read:
        object_id = asked_for or str(value["id"])
        try:
            text, value = self._completed(kind, text, value, object_id)
        except NotFound:
            return Read(object_id, observed_at, is_gone=True)
        except OF_ONE_OBJECT as error:
            return Read(object_id, observed_at, error=error)
        observed = [Observed(kind.name, text, observed_at, object_id, value=value)]
        if kind.name == INVOICE:
            observed = observed if INVOICE in self._client.config.objects else []
            if self._with_lines:
                try:
                    observed += self._lines(text, value, observed_at, object_id)
                except NotFound:
                    return Read(object_id, observed_at, is_gone=True)
                except OF_ONE_OBJECT as error:
                    return Read(object_id, observed_at, error=error)
        return Read(object_id, observed_at, observed)

    def _completed(
        self, kind: Kind, text: str | bytes, value: Mapping[str, Any], object_id: str
    ) -> tuple[str | bytes, Mapping[str, Any]]:
        """The object with the whole of every list in it, but for lines that are objects too."""
        if kind.name not in self._client.config.objects:
            return text, value

        def rest(cut: dict[str, Any]) -> list[tuple[str, Any]]:
            path, parameters = address(cut, kind.name)
            first = [("", element) for element in cut.get("data") or ()]
            if not all(map(is_object, first)):
                raise not_advancing(f"what a {kind.name} holds")
            more = self._following(path, parameters, first, object_id)
            return [(one if isinstance(one, str) else one.decode(), each) for one, each in more]

        is_of_lines = kind.name == INVOICE and self._with_lines
        whole = completed(text, value, rest, "lines" if is_of_lines else None)
        return (text, value) if whole is text else (whole, json.loads(whole))

    def _following(
        self,
        path: str,
        parameters: Mapping[str, Any],
        first: Sequence[tuple[str | bytes, Any]],
        owner_id: str,
    ) -> list[tuple[str | bytes, Any]]:
        """The objects of a list that come after the `first` ones."""
        found: list[tuple[str | bytes, Any]] = []
        passed: set[str] = set()
        has_more = True
        while has_more:
            last = [*first, *found][-1:]
            after = {"starting_after": last[0][1]["id"]} if last else {}
            page = self._client.page(
                self._request, path, {**parameters, **after}, owner_id=owner_id
            )
            has_more = page.has_more
            passed.update(after.values())
            if has_more and (not page.objects or page.objects[-1][1]["id"] in passed):
                raise not_advancing("what an object holds")
            found += page.objects
        return found

    def _lines(
        self,
        text: str | bytes,
        invoice: Mapping[str, Any],
        observed_at: dt.datetime,
        invoice_id: str,
    ) -> list[Observed]:
        """All lines of an invoice: the first ones are in it, the others are asked for."""
        lines, has_more = _embedded_lines(text, invoice)
        if has_more:
            path = f"/v1/invoices/{escaped(invoice_id)}/lines"
            lines += self._following(path, {}, lines, invoice_id)
        created_at = created(invoice)
        return [
            Observed(
                INVOICE_LINE, line, observed_at, f"{invoice_id}:{value['id']}", created_at, value
            )
            for line, value in lines
        ]


def _embedded_lines(
    text: str | bytes, invoice: Mapping[str, Any]
) -> tuple[list[tuple[str | bytes, Any]], bool]:
    """(text, value) of the lines inside of an invoice, and whether there are more of them.

    None, and more of them, when it does not hold lines as documented.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        elements = list(json_elements(json_member(text, "lines") or "", "data"))
        has_more = invoice["lines"]["has_more"]
    except (ValueError, KeyError, TypeError):
        return [], True
    if not isinstance(has_more, bool) or not all(map(is_object, elements)):
        return [], True
    return [(dedented(line), value) for line, value in elements], has_more


def created(payload: Mapping[str, Any]) -> dt.datetime | None:
    """`created` (Unix seconds), or None when absent or out of range."""
    seconds = created_seconds(payload)
    try:
        return None if seconds is None else _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError:
        return None


def created_seconds(payload: Mapping[str, Any]) -> int | None:
    """`created` in Unix seconds, or None when it is no whole number."""
    value = payload.get("created")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _filter(kind: Kind, part: Slice) -> dict[str, Any]:
    parameters: dict[str, Any] = dict(kind.lists[part.of_list])
    if part.since:
        parameters["created[gte]"] = part.since
    if part.before is not None:
        parameters["created[lt]"] = part.before
    if part.after is not None:
        parameters["starting_after"] = part.after
    return parameters


def slices(kind: Kind, since: int = 0, before: int | None = None) -> tuple[Slice, ...]:
    """Objects created in [since, before), in Unix seconds: a slice of each of the kind's lists."""
    return tuple(Slice(since, before, of_list=number) for number in range(len(kind.lists)))
