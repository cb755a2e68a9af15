"""The mailbox as a whole: what it lists, against what the warehouse holds.

Ids are kept in an in-memory DuckDB of bounded size, and sets are compared in SQL.
Source: Gmail API v1, users.messages.list; 5 units a page of 500 ids.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from loaders.sources.contract import FetchRequest
from loaders.sources.gmail.client import GmailClient, LabelNotListed
from loaders.sources.gmail.fetching import MESSAGE, Batch
from loaders.warehouse.id_tables import Schemas, SpilledTables

_SCHEMAS: Schemas = {
    "listed": [("place", "int64"), ("id", "string"), ("thread_id", "string")],
    "held": [("id", "string"), ("is_fresh", "bool")],
    "dead": [("id", "string")],
    "left_out": [("id", "string")],
    "labels_then": [("place", "int64"), ("id", "string"), ("labels", "list<int32>")],
    "labels_now": [("id", "string"), ("label", "int32")],
    "relabelled": [("id", "string")],
}


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """Distinct messages that the mailbox lists, and what is to be done with them."""

    listed: int
    already_held: int
    already_dead: int
    wanted: int
    units: int


class Snapshot(SpilledTables):
    """Ids of one mailbox: listed ones, held ones, dead letters. A context manager."""

    def __init__(self, client: GmailClient, request: FetchRequest) -> None:
        super().__init__(_SCHEMAS)
        self._client = client
        self._request = request
        self._places = itertools.count()

    def hold(self, ids: Iterable[tuple[str, bool]]) -> None:
        """Add ids that the warehouse holds, and whether each needs no read."""
        self.add("held", ids)

    def set_aside(self, ids: Iterable[str]) -> None:
        """Add ids that lie among the dead letters: not to be read."""
        self.add("dead", ((message_id,) for message_id in ids))

    def leave_out(self, ids: Iterable[str]) -> None:
        """Add ids that are no matter of this snapshot, listed or not."""
        self.add("left_out", ((message_id,) for message_id in ids))

    def list_mailbox(self, query: str | None = None) -> None:
        """Add all ids that the mailbox lists; a second listing adds what the first skipped."""
        refs = itertools.chain.from_iterable(self._client.message_refs(self._request, query))
        self.add(
            "listed",
            ((next(self._places), ref["id"], ref.get("threadId", ref["id"])) for ref in refs),
        )

    def leave_out_erased(self) -> None:
        """Leave out what is listed and was erased: it would be read and not stored."""
        connection = self._request.stored.connection
        if erased := self._request.erased:
            unheld = self._ids("select distinct id from listed anti join held using (id)")
            self.leave_out(key for key in unheld if erased.covers(*connection, MESSAGE, key))

    def missing(self) -> list[str]:
        """Held ids that are not listed."""
        return self._ids("select distinct id from held anti join listed using (id) order by id")

    def find_relabelled(self, label_ids: Sequence[str], former: Iterable[str]) -> None:
        """Add to the wanted ones held messages whose labels are not those they have now.

        One listing for each label; one that cannot be listed is told and left out. `former` labels
        the mailbox may not have any more. Any other label of a message is left alone: nothing can
        be listed by it, so it would always differ.
        """
        unlisted: dict[str, LabelNotListed] = {}
        numbers = {label_id: number for number, label_id in enumerate([*label_ids, *former])}
        for label_id in label_ids:
            number = numbers[label_id]
            ids = self._client.labelled(self._request, label_id)
            try:
                self.add("labels_now", ((message_id, number) for message_id in ids))
            except LabelNotListed as error:
                unlisted[label_id] = error
                del numbers[label_id]
                self.connection.execute("delete from labels_now where label = ?", [number])
        if unlisted:
            if len(unlisted) == len(label_ids):
                raise next(iter(unlisted.values()))
            self._request.outcome.details["unlisted_labels"] = sorted(unlisted)
            named = "; ".join(map(str, unlisted.values()))
            self._request.say(f"labels are left out, they cannot be listed: {named}")
        self.add(
            "labels_then",
            (
                (next(self._places), message_id, _numbered(labels, numbers))
                for message_id, labels in self._request.stored.members(MESSAGE, "$.labelIds")
            ),
        )
        self.connection.execute(
            "insert into relabelled"
            " select id from (select id, arg_max(labels, place) as labels from labels_then"
            " group by id) as stored"
            " left join (select id, list_sort(list(distinct label)) as labels from labels_now"
            " group by id) as current using (id)"
            " where stored.labels is distinct from coalesce(current.labels, [])"
        )

    def choose(self) -> Counts:
        """Decide what is to be read, and by which method; how many messages there are of each
        kind, and the units that it costs."""
        smallest, largest = self._client.thread_sizes
        self.connection.execute(_CHOOSE, {"smallest": smallest, "largest": largest})
        [(listed, held, dead, wanted, alone, threads)] = self.connection.execute(_COUNT).fetchall()
        cost = self._client.cost
        units = alone * cost("messages.get") + threads * cost("threads.get")
        return Counts(listed, held, dead, wanted, units)

    def batches(self) -> Iterator[Batch]:
        """What was chosen, newest first, so that it costs as few units as it can."""
        cursor = self.connection.cursor()
        cursor.execute(
            "select batch, thread_id, by_thread, id from chosen where is_wanted"
            " order by batch, place"
        )
        rows = itertools.chain.from_iterable(iter(lambda: cursor.fetchmany(1_000), []))
        for (_, thread_id, by_thread), some in itertools.groupby(rows, lambda row: row[:3]):
            yield Batch(thread_id, tuple(row[3] for row in some), by_thread)

    def _ids(self, sql: str) -> list[str]:
        return [message_id for (message_id,) in self.connection.execute(sql).fetchall()]


# One row a listed message. A batch is named by the place of its first message.
_CHOOSE = """
create or replace table chosen as
with messages as (
    select id, any_value(thread_id) as thread_id, min(place) as place
    from listed anti join left_out using (id) group by id
),

judged as (
    select
        messages.*,
        held.id is not null as is_held,
        dead.id is not null as is_dead,
        relabelled.id is not null as is_relabelled,
        not is_held and not is_dead or is_relabelled as is_wanted
    from messages
    left join (select distinct id from held where is_fresh) as held using (id)
    left join (select distinct id from dead) as dead using (id)
    left join relabelled using (id)
),

threads as (
    select thread_id, min(place) as first_place
    from judged where is_wanted
    group by thread_id having count(*) between $smallest and $largest
)

select
    judged.*,
    threads.thread_id is not null as by_thread,
    coalesce(threads.first_place, judged.place) as batch
from judged left join threads using (thread_id)
"""
_COUNT = """
select
    count(*),
    count(*) filter (is_held and not is_wanted),
    count(*) filter (is_dead and not is_held),
    count(*) filter (is_wanted),
    count(*) filter (is_wanted and not by_thread),
    count(distinct batch) filter (is_wanted and by_thread)
from chosen
"""


def _numbered(labels: Any, numbers: Mapping[str, int]) -> list[int]:
    """Labels as sorted numbers, those without one left out."""
    return sorted({numbers[str(label)] for label in labels or () if str(label) in numbers})
